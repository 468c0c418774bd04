"""Pages as tests read them."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

# Elements without an end.
VOID = {"meta", "img", "input", "link", "br", "hr", "path", "use"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    words: list[str] = field(default_factory=list)
    inside: list["Element"] = field(default_factory=list)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    def all(self, *tags: str) -> list["Element"]:
        """Elements of these kinds, in the order of the page."""
        found = []
        for element in self.inside:
            found += [element] if element.tag in tags else []
            found += element.all(*tags)
        return found

    def rows(self) -> list[list[str]]:
        """The text of every cell of every row of a body."""
        return [
            [cell.text for cell in row.all("td", "th")]
            for body in self.all("tbody")
            for row in body.all("tr")
        ]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open = [Element("page", {})]

    def handle_starttag(self, tag, attrs):
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].inside.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.open[-1].inside.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open[-1].tag == tag, f"</{tag}> ends <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data):
        for element in self.open:
            element.words.append(data)


def read(text: str) -> Element:
    """The whole page; every element must be ended in its place."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    assert [element.tag for element in reader.open] == ["page"]
    return reader.open[0]


def check(page: Element) -> None:
    """What holds of every page: it loads nothing, and can be read without eyes or mouse."""
    for element in page.all("img", "script", "link", "iframe", "source", "image"):
        source = element.attributes.get("src", "")
        assert not source or source.startswith("data:image/"), source[:80]
        assert "href" not in element.attributes
    for link in page.all("a"):
        assert link.attributes["href"].startswith(("#", "./")), link.attributes
    assert all(image.attributes["alt"] for image in page.all("img") if "src" in image.attributes)
    places = [
        element.attributes["id"] for element in everything(page) if "id" in element.attributes
    ]
    assert len(places) == len(set(places))
    for link in page.all("a"):
        target = link.attributes["href"]
        assert not target.startswith("#") or target[1:] in places
    levels = [int(heading.tag[1]) for heading in page.all("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
    assert len(page.all("main")) == len(page.all("nav")) == len(page.all("header")) == 1
    assert page.all("html")[0].attributes["lang"] == "en"
    for control in page.all("input", "select"):
        assert any(control in label.all("input", "select") for label in page.all("label"))
    for button in page.all("button"):
        named = button.text or button.attributes.get("aria-label") or button.all("img")
        assert named, button.attributes
    for table in page.all("table"):
        assert len(table.all("caption")) == 1
        assert all("scope" in head.attributes for head in table.all("th"))


def everything(element: Element) -> list[Element]:
    return [found for inner in element.inside for found in (inner, *everything(inner))]
