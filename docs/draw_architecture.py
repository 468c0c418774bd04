"""Draw which folder of the package imports which: `uv run docs/draw_architecture.py`.

Reads the import statements below src/cwx and writes docs/architecture.svg. A folder stands one
floor above the highest folder that it imports. Arrows that a longer way implies are drawn faintly.
"""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "cwx"
DRAWING = Path(__file__).with_name("architecture.svg")
WIDTH, HEIGHT, GAP, FLOOR = 172, 62, 30, 124

Arrows = Mapping[str, Mapping[str, int]]


def read_arrows(package: Path = PACKAGE) -> Arrows:
    """How many import statements of each folder name each other folder."""
    arrows: dict[str, dict[str, int]] = {}
    for file in sorted(package.rglob("*.py")):
        folder = file.relative_to(package).parts[0].removesuffix(".py")
        if folder == "__init__":
            continue
        targets = arrows.setdefault(folder, {})
        for module in _imported(file):
            if (target := module.split(".")[1]) != folder:
                targets[target] = targets.get(target, 0) + 1
    return arrows


def _imported(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cwx."):
            yield str(node.module)
        elif isinstance(node, ast.ImportFrom) and node.module == "cwx":
            yield from (f"cwx.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("cwx."))


def floors(arrows: Arrows) -> dict[str, int]:
    """The floor of each folder, 0 for folders that import no other.

    Raises:
        ValueError: folders import each other in a circle.
    """
    levels: dict[str, int] = {}

    def level(folder: str, above: tuple[str, ...]) -> int:
        if folder in above:
            raise ValueError(f"circle of imports: {' → '.join([*above, folder])}")
        if folder not in levels:
            below = [level(target, (*above, folder)) for target in arrows[folder]]
            levels[folder] = 1 + max(below, default=-1)
        return levels[folder]

    for folder in arrows:
        level(folder, ())
    return levels


def draw(arrows: Arrows) -> str:
    """The drawing as SVG."""
    levels = floors(arrows)
    rows = [sorted(f for f in levels if levels[f] == n) for n in range(max(levels.values()) + 1)]
    width = max(len(row) for row in rows) * (WIDTH + GAP) + GAP
    height = len(rows) * FLOOR - (FLOOR - HEIGHT) + 2 * GAP
    corner = {
        folder: (
            (width - len(row) * (WIDTH + GAP) + GAP) / 2 + index * (WIDTH + GAP),
            GAP + (len(rows) - 1 - number) * FLOOR,
        )
        for number, row in enumerate(rows)
        for index, folder in enumerate(row)
    }
    pairs = [(folder, target) for folder in sorted(arrows) for target in sorted(arrows[folder])]
    pairs.sort(key=lambda pair: not _implied(*pair, arrows))
    lines = [_arrow(corner[a], corner[b], faint=_implied(a, b, arrows)) for a, b in pairs]
    boxes = [_box(folder, *corner[folder]) for folder in sorted(corner)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
            f'width="{width:g}" height="{height:g}" font-family="sans-serif" role="img" '
            'aria-label="Folders of the package, and which imports which">',
            '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="#456"/></marker></defs>',
            f'<rect width="{width:g}" height="{height:g}" fill="#fff"/>',
            *lines,
            *boxes,
            "</svg>\n",
        ]
    )


def _implied(folder: str, target: str, arrows: Arrows) -> bool:
    """Whether `target` is reached from `folder` by way of another folder."""

    def reaches(start: str) -> bool:
        return start == target or any(map(reaches, arrows[start]))

    return any(reaches(other) for other in arrows[folder] if other != target)


def _arrow(start: tuple[float, float], end: tuple[float, float], *, faint: bool) -> str:
    x1, y1 = start[0] + WIDTH / 2, start[1] + HEIGHT
    x2, y2 = end[0] + WIDTH / 2, end[1]
    bend = (y2 - y1) / 2
    style = 'stroke="#dde3ea"' if faint else 'stroke="#456" marker-end="url(#head)"'
    path = f"M{x1:g} {y1:g}C{x1:g} {y1 + bend:g} {x2:g} {y2 - bend:g} {x2:g} {y2:g}"
    return f'<path d="{path}" fill="none" stroke-width="1.4" {style}/>'


def _box(folder: str, x: float, y: float) -> str:
    place = PACKAGE / folder
    inside = (
        sorted(p.name for p in place.iterdir() if (p / "__init__.py").exists())
        if (place.is_dir())
        else []
    )
    words, rest = (inside[:2], inside[2:]) if len(inside) > 3 else (inside, [])
    small = ", ".join(words) + (f", {len(rest)} more" if rest else "")
    middle = x + WIDTH / 2
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="7" fill="#f2f6fa" '
        f'stroke="#456"/><text x="{middle:g}" y="{y + (28 if small else 37):g}" font-size="17" '
        f'text-anchor="middle" fill="#123">{escape(folder)}</text>'
        f'<text x="{middle:g}" y="{y + 47:g}" font-size="9" text-anchor="middle" '
        f'fill="#567">{escape(small)}</text>'
    )


if __name__ == "__main__":
    DRAWING.write_text(draw(read_arrows()))
