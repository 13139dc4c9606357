"""The map of the code: which package of adaptkit imports which, read from the imports and drawn.

`python -m tests.docs.modules` draws it anew.
"""

from __future__ import annotations

import re
import textwrap

from tests.docs.blocks import REPOSITORY
from tests.unit.test_imports import CONTRACTS, GROUPS, dotted, imported_names, modules

PICTURE = REPOSITORY / "docs" / "assets" / "modules.svg"
COMMAND = "python -m tests.docs.modules"

WIDTH, BOX_WIDTH, GAP, PADDING, LINE = 920, 118, 10, 12, 14
NOTE = (
    "A box imports only what stands in rows below it, except where an asterisk says otherwise.",
    "The small print names what it imports, without what follows from other imports.",
)
STYLE = """\
svg{background:#fff}text{font:600 13px system-ui,sans-serif;fill:#1f2328;text-anchor:middle}
.small{font:11px system-ui,sans-serif;fill:#59636e}rect{fill:#dbe7fb;stroke:#3b6fc4}
@media (prefers-color-scheme:dark){svg{background:#151b23}text{fill:#f0f6fc}.small{fill:#a5b1bf}\
rect{fill:#1c2f4d;stroke:#6ea8ff}}"""


def box_of(module: str) -> str:
    """The box that a module stands in: its package, or `contracts` for the loose modules that make up the contracts."""
    package = module.split(".")[0]
    return "contracts" if package in CONTRACTS else package


def imports() -> dict[str, set[str]]:
    """The boxes that each box imports."""
    found: dict[str, set[str]] = {}
    for path in modules():
        module = dotted(path)
        if module and module != "__main__":
            own = found.setdefault(box_of(module), set())
            own |= {box_of(name) for name in imported_names(path) if name} - {box_of(module)}
    return found


def drawn_imports() -> dict[str, set[str]]:
    """The boxes that each box imports, as the picture says."""
    boxes = re.findall(r'data-module="(\w+)" data-imports="([\w ]*)"', PICTURE.read_text(encoding="utf-8"))
    return {name: set(imported.split()) for name, imported in boxes}


def rows(found: dict[str, set[str]]) -> list[list[str]]:
    """The boxes in rows, from what imports most to what imports least."""
    groups = [sorted({box_of(name) for name in group} & found.keys()) for group in reversed(GROUPS)]
    return [group for group in groups if group]


def reachable(found: dict[str, set[str]], start: str, rank: dict[str, int]) -> set[str]:
    """What a box imports from lower rows, also through others."""
    below = {name for name in found[start] if rank[name] > rank[start]}
    return below.union(*(reachable(found, name, rank) for name in below))


def small_print(found: dict[str, set[str]]) -> dict[str, list[str]]:
    """What each box says that it imports, in lines."""
    rank = {name: number for number, row in enumerate(rows(found)) for name in row}
    result = {}
    for name, imported in found.items():
        implied = set().union(*(reachable(found, other, rank) for other in imported if rank[other] > rank[name]))
        shown = sorted(imported - implied, key=lambda other: (rank[other], other))
        text = ", ".join(other + "*" * (rank[other] <= rank[name]) for other in shown)
        result[name] = textwrap.wrap(text, 19)
    return result


def svg(found: dict[str, set[str]]) -> str:
    """The picture."""
    small = small_print(found)
    lines, top = [], PADDING
    for row in rows(found):
        height = 30 + LINE * max(len(small[name]) for name in row)
        left = (WIDTH - len(row) * BOX_WIDTH - (len(row) - 1) * GAP) / 2
        for number, name in enumerate(row):
            lines += box(name, found[name], small[name], left + number * (BOX_WIDTH + GAP), top, height)
        top += height + GAP
    lines += [
        f'<text class="small" x="{WIDTH / 2:g}" y="{top + 10 + LINE * i}">{text}</text>' for i, text in enumerate(NOTE)
    ]
    size = f'viewBox="0 0 {WIDTH} {top + LINE * len(NOTE) + PADDING}" width="{WIDTH}"'
    label = 'role="img" aria-label="The packages of adaptkit and what they import"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} {label}>'
    return "\n".join([head, f"<style>{STYLE}</style>", *lines, "</svg>"]) + "\n"


def box(name: str, imported: set[str], small: list[str], left: float, top: int, height: int) -> list[str]:
    """One box with its name and its small print."""
    middle = f'x="{left + BOX_WIDTH / 2:g}"'
    return [
        f'<g data-module="{name}" data-imports="{" ".join(sorted(imported))}">',
        f'<rect x="{left:g}" y="{top}" width="{BOX_WIDTH}" height="{height}" rx="6"/>',
        f'<text {middle} y="{top + 19}">{name}</text>',
        *(f'<text class="small" {middle} y="{top + 36 + LINE * i}">{line}</text>' for i, line in enumerate(small)),
        "</g>",
    ]


if __name__ == "__main__":
    PICTURE.write_text(svg(imports()), encoding="utf-8")
