"""The mask search against Algorithm 1, one search and one image at a time."""

import logging
from copy import copy
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from support import references
from support.builders import image_data, sgd
from support.mask_searches import fitted, search

from cwx.data.nontarget import Nontarget
from cwx.explanations.images import Explanations
from cwx.explanations.patterns import Patterns
from cwx.functional.canvas_sampling import negative, noise, positive, white
from cwx.functional.canvas_sampling import random as any_image
from cwx.functional.learned_canvas import LearnedCanvas
from cwx.functional.mask_search import SignDescent
from cwx.methods.iscp import MaskSearch
from cwx.study.results import Results
from cwx.training.plan import Plan


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_each_search_is_algorithm_1(subject, tmp_path, beta):
    found = fitted(search(subject, beta=beta), tmp_path)
    network, data = subject.trained_network(subject.trajectories[0]), subject.data
    test = data.splits.test
    batches = Nontarget(
        searches=[(label, place) for label in range(3) for place in range(2)],
        labels=test.labels,
        searched=found.searched,
        batch_size=3,
        seed=3,
    )
    for row in range(6):
        own = [
            test.images[batch.images[at][batch.weights[at] > 0]].float() / 255
            for epoch in range(4)
            for batch in batches.batches(epoch)
            for at in (batch.searches == row).nonzero()[:, 0]
        ]
        expected = references.pattern_search(
            network,
            found.canvases[row],
            int(found.labels[row]),
            own,
            normalize=data.normalization.normalize,
            alpha=0.2,
            beta=beta,
        )
        torch.testing.assert_close(found.masks[row], expected)


def test_a_pass_brings_each_search_every_nontarget_image_once(subject):
    labels = torch.tensor([0, 0, 1, 1, 1, 2, 2])
    searched = torch.tensor([1, 1, 1, 0, 1, 1, 1]).bool()
    module = Nontarget(
        searches=[(0, 0), (1, 0), (1, 1)],
        labels=labels,
        searched=searched,
        batch_size=3,
        seed=0,
    )
    seen = {0: [], 1: [], 2: []}
    for batch in module.batches(0):
        for search_, images, weights in zip(*batch, strict=True):
            seen[int(search_)] += images[weights > 0].tolist()
    assert [sorted(parts) for parts in seen.values()] == [
        [2, 4, 5, 6],
        [0, 1, 5, 6],
        [0, 1, 5, 6],
    ]
    assert len({str(parts) for parts in seen.values()}) == 3
    assert module.steps == 2
    again, later = (str([b.images.tolist() for b in module.batches(e)]) for e in (0, 1))
    assert again == str([b.images.tolist() for b in module.batches(0)]) != later


def test_masks_do_not_depend_on_the_company(subject, tmp_path):
    """Also with passes of different lengths: a search that waits for others does not change."""
    labels = subject.data.splits.test.labels
    unequal = labels != 0
    unequal[labels == 0] = torch.arange(int((labels == 0).sum())) < 2
    data = copy(subject.data)
    data._splits = replace(subject.data.splits, test=subject.data.splits.test.at(unequal))
    subject = replace(subject, data=data)
    module = search(subject)
    assert len(module.batches.lengths.unique()) > 1
    whole = fitted(module, tmp_path / "whole")
    for name, settings in {
        "chunk": {"chunk": 1},
        "class": {"classes": ["middle"]},
        "index": {"classes": [1], "canvases": 1},
    }.items():
        found = fitted(search(subject, **settings), tmp_path / name)
        rows = whole.labels == 1 if settings.get("classes") else slice(None)
        for values, expected in ((found.masks, whole.masks), (found.means, whole.means)):
            assert torch.equal(values, expected[rows][: len(values)]), name


def test_patterns_lead_to_their_class(subject, tmp_path):
    found = fitted(search(subject), tmp_path)
    network, data = subject.trained_network(subject.trajectories[0]), subject.data
    cut = found.cut(0.5)
    unit = data.splits.test.images.float() / 255
    for row, label in enumerate(found.labels.tolist()):
        before = network(data.normalization.normalize(unit))[:, label].mean()
        carrying = cut.attach(row)(unit)
        assert network(data.normalization.normalize(carrying))[:, label].mean() > before
        kept = cut.masks[row]
        assert torch.equal(carrying[0, :, kept], found.canvases[row][:, kept])
        assert torch.equal(carrying[0, :, ~kept], unit[0, :, ~kept])


def test_a_cut_run_continues_to_the_same_masks(subject, tmp_path):
    whole = fitted(search(subject), tmp_path / "whole")

    class Power(Exception):
        pass

    module = search(subject)
    step = module.training_step

    def training_step(batch, batch_idx):
        if module.global_step == 11:
            raise Power
        return step(batch, batch_idx)

    module.training_step = training_step
    with pytest.raises(Power):
        fitted(module, tmp_path / "cut")
    resumed = fitted(search(subject), tmp_path / "cut")
    assert torch.equal(resumed.masks, whole.masks)
    assert torch.equal(resumed.means, whole.means)


def test_ties_go_to_the_pixels_that_were_open_longest(subject, tmp_path):
    drawn, ordered = (
        fitted(search(subject, ties=ties, passes=8), tmp_path / ties) for ties in ("drawn", "mean")
    )
    assert drawn.means is None
    assert torch.equal(drawn.masks, ordered.masks)
    assert drawn.cut(0.25).tied.sum() > ordered.cut(0.25).tied.sum()
    for mask, mean, kept in zip(ordered.masks, ordered.means, ordered.cut(0.25).masks, strict=True):
        threshold = mask[kept].min()
        at_it = torch.isclose(mask, threshold, atol=1e-4)
        if (at_it & ~kept).any():
            assert mean[at_it & kept].min() >= mean[at_it & ~kept].max()


def test_a_seed_gives_one_result(subject, tmp_path):
    first, same, other = (
        fitted(search(subject, seed=seed), tmp_path / str(i)) for i, seed in enumerate((1, 1, 2))
    )
    assert torch.equal(first.masks, same.masks)
    assert not torch.equal(first.masks, other.masks)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda groups: SignDescent(groups, lr=0.02),
        lambda groups: torch.optim.Adam(groups, lr=0.01),
        lambda groups: torch.optim.AdamW(groups, lr=0.01, weight_decay=0.1),
        lambda groups: torch.optim.SGD(groups, lr=0.01, momentum=0.9, weight_decay=0.01),
    ],
    ids=["sign", "adam", "adamw", "momentum"],
)
def test_a_learned_canvas_moves_in_its_turns(subject, tmp_path, optimizer):
    learned = LearnedCanvas(turn=5, step=2, scale=255)
    module = search(subject, learned_canvas=learned, passes=1, batch_size=1, optimizer=optimizer)
    before = module.explanations()
    moves = []
    step = module.training_step

    def training_step(batch, batch_idx):
        moves.append(module.explanations())
        return step(batch, batch_idx)

    module.training_step = training_step
    moves.append(fitted(module, tmp_path))
    for number, (old, new) in enumerate(zip(moves, moves[1:], strict=False)):
        changed = [
            not torch.equal(getattr(old, part), getattr(new, part))
            for part in ("masks", "canvases")
        ]
        assert changed == ([True, False] if number // 5 % 2 == 0 else [False, True])
    far = (moves[-1].canvases - before.canvases).abs().max()
    assert far > 0
    if isinstance(module.optimizers().optimizer, SignDescent):
        assert far <= 10 * 2 / 255 + 1e-6
    assert moves[-1].canvases.min() >= 0
    assert moves[-1].canvases.max() <= 1


def test_plain_gradient_descent_is_the_other_way(subject, tmp_path):
    signed, plain = (
        fitted(search(subject, **settings), tmp_path / str(i)).masks
        for i, settings in enumerate(({}, {"optimizer": sgd(0.5)}))
    )
    assert not torch.equal(signed, plain)
    assert plain.min() >= 0
    assert plain.max() <= 1


@pytest.mark.parametrize(
    ("canvas", "places"), [(positive, 2), (negative, 0), (any_image, 2), (white, 1), (noise, 2)]
)
def test_every_canvas_gives_as_many_as_it_can(subject, canvas, places, caplog):
    if canvas is negative:
        with pytest.raises(ValueError, match="finds no canvas for any class.*canvas=random"):
            search(subject, canvas=canvas)
        assert "class 'left' has 0 canvases instead of 2" in caplog.text
        return
    found = search(subject, canvas=canvas).explanations()
    assert found.labels.tolist() == [label for label in range(3) for _ in range(places)]
    assert found.canvases.min() >= 0
    assert (found.canvases == 1).all() == (canvas is white)


def test_too_few_candidates_are_named(subject, caplog):
    with caplog.at_level(logging.WARNING):
        search(subject, canvases=50)
    assert "iscp: class 'left' has 8 canvases instead of 50" in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"canvases": 0}, "method.iscp.canvases is 0"),
        ({"searched": 0.0}, "method.iscp.searched is 0.0: give a fraction of the 24 test"),
        ({"searched": 1.2}, "method.iscp.searched is 1.2"),
        ({"searched": 0.01}, "method.iscp.searched is 0.01"),
        ({"passes": 0}, "method.iscp.passes is 0"),
        ({"batch_size": 0}, "method.iscp.batch_size is 0"),
        ({"chunk": 0}, "method.iscp.chunk is 0"),
        ({"alpha": -1.0}, "method.iscp.alpha is -1"),
        ({"alpha": [0.1, -1.0]}, r"method.iscp.alpha is \[0.1, -1.0\]: give 0 or more"),
        ({"alpha": [0.1, 0.1]}, "method.iscp.alpha is .* each once"),
        ({"alpha": []}, r"method.iscp.alpha is \[\]"),
        ({"beta": -1.0}, "method.iscp.beta is -1"),
        ({"initial": 2.0}, "method.iscp.initial is 2"),
        ({"explains": "purified"}, "no network called 'purified' to explain: .* expert, held-out"),
        ({"classes": ["lefty"]}, "lefty"),
    ],
)
def test_impossible_settings_are_refused(settings, message, subject):
    with pytest.raises(ValueError, match=message):
        search(subject, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"turn": 0, "step": 2, "scale": 255}, "turn is 0"), ({"turn": 5, "step": 2, "scale": 1}, "")],
)
def test_impossible_learned_canvases_are_refused(settings, message):
    with pytest.raises(ValueError, match=f"learned_canvas.{message}"):
        LearnedCanvas(**settings)


def test_a_class_without_test_images_is_refused_before_anything_is_trained():
    data = image_data()
    test = data.splits.test
    object.__setattr__(data.splits, "test", test.at(test.labels != 1))
    plan = Plan(data=data, methods=["iscp"], held_out=0)
    alpha = {"alpha": 0.2, "alpha_size": 0.01, "canvas_classes": "own"}
    alpha |= {"canvas_network": None}
    with pytest.raises(ValueError, match=r"no image of class 'middle', .*method.iscp.classes=\["):
        MaskSearch.check(plan, stage="iscp", classes=None, searched=1.0, **alpha)
    MaskSearch.check(plan, stage="iscp", classes=["left", "right"], searched=1.0, **alpha)
    with pytest.raises(ValueError, match="method.iscp.searched is 1e-06: give a fraction"):
        MaskSearch.check(plan, stage="iscp", classes=["left"], searched=1e-6, **alpha)
    message = "method.iscp.alpha_size: a pattern of 0.01 of 4x4 pixels has 0 pixels"
    with pytest.raises(ValueError, match=message):
        MaskSearch.check(
            plan, stage="iscp", classes=["left"], searched=1.0, **alpha | {"alpha": [0, 1]}
        )


def test_canvases_of_other_classes_are_those_of_a_derangement(subject, tmp_path):
    own = search(subject).explanations()
    module = search(subject, canvas_classes="other", passes=1)
    other = module.explanations()
    assert torch.equal(own.canvas_labels, own.labels)
    assert not own.has_other_canvases
    assert other.has_other_canvases
    assert other.labels.tolist() == own.labels.tolist()
    assert (other.canvas_labels != other.labels).all()
    assert other.canvas_labels.unique().tolist() == [0, 1, 2]
    for label in range(3):
        source = other.canvas_labels[other.labels == label]
        assert len(source.unique()) == 1
        expected = own.canvases[own.labels == source[0]]
        assert torch.equal(other.canvases[other.labels == label], expected)
    # The target of the search is the label, not the class of the canvas.
    assert not (module.searched[module.batches.pools[0]] == 0).any()
    found = fitted(module, tmp_path)
    network, data = subject.trained_network(subject.trajectories[0]), subject.data
    images = data.splits.test.images[module.batches.pools[0]].float() / 255
    logits = network(data.normalization.normalize(images))
    carrying = network(data.normalization.normalize(found.cut(0.5).attach(0)(images)))
    assert (carrying - logits)[:, 0].mean() > (carrying - logits)[:, 1:].mean()


def test_the_seed_draws_the_other_classes(subject):
    drawn = {
        tuple(search(subject, canvas_classes="other", seed=s).explanations().canvas_labels.tolist())
        for s in range(8)
    }
    assert len(drawn) == 2


def test_a_single_class_has_no_other_canvases(subject):
    message = "iscp.canvas_classes is other, and 'left' is the only class to explain: name two"
    with pytest.raises(ValueError, match=message):
        search(subject, canvas_classes="other", classes=["left"])
    plan = Plan(data=subject.data, methods=["iscp"], held_out=0)
    settings = {"searched": 1.0, "alpha": 0.2, "alpha_size": 0.05, "canvas_classes": "other"}
    settings |= {"canvas_network": None}
    with pytest.raises(ValueError, match=message):
        MaskSearch.check(plan, stage="iscp", classes=["left"], **settings)
    MaskSearch.check(plan, stage="iscp", classes=None, **settings)


@pytest.mark.parametrize("settings", [{}, {"chunk": 4}, {"ties": "drawn"}])
def test_a_class_keeps_the_masks_of_its_most_successful_weight(subject, tmp_path, settings):
    """The masks are those of a search with that weight alone."""
    weights = [0.0, 0.4, 3.0]
    alone = [fitted(search(subject, alpha=a), tmp_path / str(a)) for a in weights]
    together = fitted(search(subject, alpha=weights, **settings), tmp_path / "together")
    assert together.labels.tolist() == alone[0].labels.tolist()
    network, data = subject.trained_network(subject.trajectories[0]), subject.data
    test = data.splits.test
    chosen = []
    for label in range(3):
        on = test.images[together.searched & (test.labels != label)].float() / 255
        rows = (together.labels == label).nonzero()[:, 0].tolist()
        rates = []
        for found in alone:
            if settings.get("ties") == "drawn":
                found = replace(found, means=None)
            cut = found.cut(0.25)
            inputs = [data.normalization.normalize(cut.attach(row)(on)) for row in rows]
            hits = [network(x).argmax(1) == label for x in inputs]
            rates.append(torch.stack(hits).double().mean().item())
        best = rates.index(max(rates))
        chosen.append(best)
        assert torch.equal(together.masks[rows], alone[best].masks[rows])
        assert torch.equal(together.canvases[rows], alone[best].canvases[rows])
        assert together.alphas[rows].tolist() == [weights[best]] * len(rows)
    assert any(chosen)


def test_the_chosen_weight_is_told(subject, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        fitted(search(subject, alpha=[0.1, 0.3], passes=1), tmp_path)
    assert "iscp: alpha 0." in caplog.text
    assert "for class 'left' (success on the images of the search: " in caplog.text


def test_weights_before_the_end_are_the_first(subject):
    found = search(subject, alpha=[0.3, 0.1]).explanations()
    assert found.alphas.tolist() == [0.3] * 6
    assert found.masks.shape == (6, 4, 4)


def test_patterns_come_back_from_their_file(subject, tmp_path):
    module = search(subject)
    images = Explanations(torch.rand(2, 1, 2, 2), torch.tensor([0, 1]))
    results = Results(tmp_path)
    results.add_explanations("my/iscp", module.explanations())
    results.add_explanations("images", images)
    found = results.explanations()
    assert isinstance(found["my/iscp"], Patterns)
    assert found["my/iscp"].explains == "expert"
    assert torch.equal(found["my/iscp"].masks, module.explanations().masks)
    assert found["my/iscp"].alphas.tolist() == [0.2] * 6
    assert torch.equal(found["images"].images, images.images)
    assert "my/iscp/searched" in load_file(tmp_path / "explanations.safetensors")


def test_another_network_chooses_the_canvases(subject):
    expert, held_out = (
        search(subject, explains=kind).explanations().canvases for kind in ("expert", "held-out")
    )
    module = search(subject, explains="held-out", canvas_network="expert")
    assert torch.equal(module.explanations().canvases, expert)
    assert not torch.equal(expert, held_out)
    assert module.explanations().explains == "held-out"
    plan = Plan(data=subject.data, methods=["iscp"], held_out=0, kinds=["expert", "held-out"])
    settings = {"searched": 1.0, "alpha": 0.2, "alpha_size": 0.25, "canvas_classes": "own"}
    settings |= {"stage": "iscp", "classes": None}
    MaskSearch.check(plan, canvas_network="held-out", **settings)
    with pytest.raises(ValueError, match="iscp.canvas_network is 'clean', but .* expert, held-out"):
        MaskSearch.check(plan, canvas_network="clean", **settings)


def test_the_network_is_that_of_the_kind_asked_for(subject):
    module = search(subject, explains="held-out")
    held_out = subject.trained_network(subject.held_out[0])
    for name, tensor in held_out.state_dict().items():
        assert torch.equal(module.network.state_dict()[name], tensor)
