"""The page on which volunteers compare pairs of neurons."""

import json

import pytest
from support.browser import NEEDED, load, run_script
from support.html_pages import read
from support.pair_studies import make_pair_run

from cwx.cli.commands import agreement
from cwx.report.run_page import write_page
from cwx.storage.neuron_pairs import NEURONS, PAIRS, read_pair_study


def write_pairs(folder):
    """The page of the pairs; its run is written anew."""
    write_page(folder)
    return folder / "neuron_pairs.html"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    levels = [0.07654321 + number / 10 for number in range(8)]
    folder = tmp_path_factory.mktemp("run")
    return make_pair_run(folder, neurons=8, pairs=10, repeated=0.2, levels=levels)


@pytest.fixture
def profile(tmp_path):
    return tmp_path


def test_the_page_has_pictures_and_pairs_but_no_lc_layer_or_class(run):
    text, study = write_pairs(run).read_text(), read_pair_study(run)
    assert "secret" not in text
    assert "7654321" not in text
    page = read(text)
    (data,) = (e for e in page.all("script") if e.attributes.get("id") == "study")
    content = json.loads(data.text)
    assert content.keys() == {"digest", "pairs", "width", "height"}
    assert content["digest"] == study.digest
    assert content["pairs"] == [[p.number, p.left, p.right] for p in study.pairs.values()]
    assert text.count("data:image/png;base64,") == 8
    for outside in ("http://", "https://", "src='/", 'src="/'):
        assert outside not in text


def test_the_page_of_the_run_links_to_it(run):
    write_page(run)
    text = (run / "report.html").read_text()
    assert '<a href="./neuron_pairs.html">pairs of neurons, for volunteers</a>' in text


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "neuron_pairs/00003.png").unlink(), "pictures of neurons are missing"),
        (lambda run: (run / "neuron_pairs/00003.png").write_bytes(b"x"), "00003.png is damaged"),
        (lambda run: (run / PAIRS).write_text("pair\n"), "is damaged"),
        (lambda run: (run / NEURONS).write_text("neuron\n1\n"), "is damaged"),
    ],
)
def test_a_damaged_run_gets_no_such_page(tmp_path, damage, message):
    folder = make_pair_run(tmp_path / "run", neurons=8, pairs=10)
    damage(folder)
    assert not write_pairs(folder).exists()
    assert message in (folder / "report.html").read_text()


def test_a_run_without_pairs_gets_no_such_page(tmp_path):
    folder = make_pair_run(tmp_path / "run", neurons=8, pairs=10)
    (folder / PAIRS).unlink()
    assert not write_pairs(folder).exists()


@NEEDED
def test_the_policy_blocks_nothing_of_the_page(run, profile):
    dom, errors = load(write_pairs(run), profile)
    assert errors == []
    assert 'data-ready="yes"' in dom


READER = """
    const id = (name) => document.getElementById(name);
    const press = (key, repeat = false) => document.activeElement.dispatchEvent(
        new KeyboardEvent("keydown", { key, repeat, bubbles: true, cancelable: true }));
    const shown = () => ["start", "task", "end"].filter((it) => !id(it).hidden);
    const sources = () => [id("left-picture").src, id("right-picture").src];
    const begin = (name) => { id("name").value = name; id("form").requestSubmit(); };
"""

ANSWER = """
    const result = { start: shown() };
    begin("  Zo\\u00eb <b>  ");
    result.task = shown();
    result.first = sources();
    press("ArrowLeft"); press("ArrowRight"); press("ArrowDown");
    press("ArrowLeft", true);
    result.count = [id("count").textContent, id("progress").value, id("progress").max];
    press("Backspace");
    result.undone = [id("count").textContent, id("status").textContent];
    id("right").click(); id("left").click(); id("cannot-say").click();
    result.later = sources();
    result.left = id("left-over").textContent;
    result.saved = answersText();
    id("pause").click();
    result.paused = [shown(), id("sessions").textContent];
    return result;
"""


@NEEDED
def test_answers_are_given_by_key_and_by_click_and_are_kept(run, profile, capsys):
    page, study = write_pairs(run), read_pair_study(run)
    result = run_script(page, READER + ANSWER, profile)
    assert (result["start"], result["task"]) == (["start"], ["task"])
    assert result["count"] == ["3 of 12 answered", 3, 12]
    assert result["undone"] == ["2 of 12 answered", "The last answer is taken back."]
    assert result["left"] == "about 1 minute left"
    assert result["paused"] == [["start"], "Continue as Zoë <b> (5 of 12)"]
    content = json.loads(result["saved"])
    assert (content["study"], content["volunteer"]) == (study.digest, "Zoë <b>")
    given = [answer["answer"] for answer in content["answers"]]
    assert given == ["left", "right", "right", "left", "cannot say"]
    assert len({answer["pair"] for answer in content["answers"]}) == 5
    assert all(0 <= answer["seconds"] < 60 for answer in content["answers"])
    # The pictures are those of the neurons of the pair.
    pictures = {e.attributes["data-picture"]: e.text for e in read(page.read_text()).all("script")
                if "data-picture" in e.attributes}  # fmt: skip
    first = study.pairs[content["answers"][0]["pair"]]
    assert result["first"] == [pictures[str(first.left)], pictures[str(first.right)]]
    assert result["later"] != result["first"]
    # After the browser was closed, the session goes on where it was.
    result = run_script(page, READER + REST, profile)
    assert result["known"] == "Continue as Zoë <b> (5 of 12)"
    assert result["count"] == "5 of 12 answered"
    assert result["end"] == [["end"], "Thank you, Zoë <b>.", "save"]
    complete = json.loads(result["saved"])
    assert complete["answers"][:5] == content["answers"]
    assert {answer["pair"] for answer in complete["answers"]} == study.pairs.keys()
    assert [result["download"], complete] == ["answers-Zoe-b.json", json.loads(result["blob"])]
    # The command reads what the page saved.
    file = profile / "answers.json"
    file.write_text(result["blob"])
    agreement.main([str(run), str(file), "--json"])
    (row,) = json.loads(capsys.readouterr().out)["volunteers"]
    assert (row["volunteer"], row["answered"]) == ("Zoë <b>", 10)
    chosen = {answer["pair"]: answer["answer"] for answer in complete["answers"]}
    agrees = [
        (chosen[number] == "right") == (study.difference(pair) > 0)
        for number, pair in study.pairs.items()
        if pair.repeats is None and chosen[number] != "cannot say"
    ]
    assert row["agreement"]["successes"] == sum(agrees)
    assert row["agreement"]["trials"] == len(agrees)


# Saving makes a link to a blob, and clicks it.
REST = """
    const result = { known: id("sessions").textContent };
    id("sessions").querySelector("button").click();
    result.count = id("count").textContent;
    while (!id("task").hidden) press("ArrowRight");
    result.end = [shown(), id("thanks").textContent, document.activeElement.id];
    result.saved = answersText();
    const blobs = [];
    URL.createObjectURL = (blob) => { blobs.push(blob); return "blob:x"; };
    HTMLAnchorElement.prototype.click = function () { result.download = this.download; };
    const text = [];
    const Original = Blob;
    globalThis.Blob = function (parts, options) {
        text.push(parts[0]);
        return new Original(parts, options);
    };
    id("save").click();
    result.blob = text[0].replace(/"saved": "[^"]*"/, result.saved.match(/"saved": "[^"]*"/)[0]);
    return result;
"""

ORDERS = """
    const order = (name) => {
        begin(name);
        while (!id("task").hidden) press("ArrowLeft");
        const pairs = JSON.parse(answersText()).answers.map((it) => it.pair);
        id("pause").click();
        return pairs;
    };
    localStorage.setItem("cwx-neuron-pairs/other/Eve", "{}");
    const digest = JSON.parse(id("study").textContent).digest;
    for (const damaged of ["", "3", "{}", '{"order": [1], "answers": []}']) {
        localStorage.setItem(`cwx-neuron-pairs/${digest}/damaged ${damaged}`, damaged);
    }
    return [order("a"), order("b"), id("sessions").textContent];
"""


@NEEDED
def test_each_volunteer_has_an_order_of_their_own(run, profile):
    first, second, sessions = run_script(write_pairs(run), READER + ORDERS, profile)
    assert sorted(first) == sorted(second) == sorted(read_pair_study(run).pairs)
    assert first != second
    assert sessions == "Continue as a (12 of 12)Continue as b (12 of 12)"


SIZES = """
    begin("a");
    const box = id("left-picture").getBoundingClientRect();
    const root = document.documentElement;
    return [box.width / 300, root.scrollWidth - root.clientWidth, root.clientWidth];
"""


@NEEDED
@pytest.mark.parametrize("width", [1280, 390])
def test_pictures_have_whole_pixels_on_a_screen_and_fit_a_phone(tmp_path, profile, width):
    folder = make_pair_run(tmp_path / "run", neurons=3, pairs=3, side=300)
    scale, overflow, _ = run_script(write_pairs(folder), READER + SIZES, profile, width=width)
    assert overflow <= 0
    assert scale == 1 if width == 1280 else scale < 0.6
