"""How plots look: one colour and marker a family of contenders in all of them, and SVG as text.

Figure objects only: pyplot would keep every figure in global state.
"""

from __future__ import annotations

import io
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastlstm.errors import MissingExtraError

from . import tables
from .selection import coarse, floor, ours

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .document import Document

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif"
TEXT_PT, SMALL_PT, LINE_PT = 10, 9, 13.5
INCH_PT = 72


@dataclass(frozen=True)
class Colour:
    """One colour on white paper and on a dark screen, by the name of its CSS variable."""

    name: str
    light: str
    dark: str


INK = Colour("ink", "#1c2733", "#e6eaee")
SOFT = Colour("soft", "#5a6672", "#a3adb7")
GRID = Colour("grid", "#dde2e7", "#333d47")
SHADE = Colour("shade", "#eff1f4", "#20282f")
PAPER = Colour("paper", "#fefefe", "#14191e")


@dataclass(frozen=True)
class Family:
    """Contenders that share a library: any of `words` is in their names, in small letters."""

    words: tuple[str, ...]
    colour: Colour
    marker: str


# Told apart by every eye: each has a marker of its own beside its colour. The first that fits is
# taken, so the special ones stand before those whose name they contain.
OURS = Family((), Colour("ours", "#d84f05", "#ff8a4c"), "o")
FLOOR = Family((), Colour("floor", "#53636b", "#a4b1bb"), "_")
FAMILIES = (
    Family(("onnx",), Colour("onnx", "#4664c7", "#6ca9f8"), "s"),
    Family(("openvino",), Colour("openvino", "#129ca0", "#48f4f9"), "D"),
    Family(("opencv",), Colour("opencv", "#043902", "#bff89f"), "^"),
    Family(("aotinductor",), Colour("aoti", "#985aaa", "#a36bc0"), "<"),
    Family(("torch.compile", "inductor"), Colour("compile", "#5a223a", "#ef2380"), "P"),
    Family(("torchscript",), Colour("script", "#992335", "#e2a08a"), "X"),
    Family(("torch",), Colour("torch", "#9c6bff", "#7c76fa"), "v"),
    Family(("numpy",), Colour("numpy", "#89904f", "#eef34c"), ">"),
)
# For families that nobody foresaw, in the order in which a document names them.
SPARE = (
    Family((), Colour("spare-1", "#8a5a2b", "#d9a066"), "p"),
    Family((), Colour("spare-2", "#4a74a8", "#8fb8ec"), "h"),
    Family((), Colour("spare-3", "#2e6b57", "#6fd0ae"), "*"),
    Family((), Colour("spare-4", "#75505c", "#c99dab"), "d"),
)
COLOURS = (
    INK,
    SOFT,
    GRID,
    SHADE,
    PAPER,
    *(family.colour for family in (OURS, FLOOR, *FAMILIES, *SPARE)),
)
# How the contenders of one family differ from each other.
LINES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (3, 1)), (0, (8, 2)))
FILLS = ("full", "left", "top", "right", "bottom")


@dataclass(frozen=True)
class Style:
    """How one contender is drawn. Fewer bits than float32 are dotted, their markers hollow."""

    family: Family
    line: Any = "-"
    fill: str = "full"
    width: float = 1.4
    order: int = 2

    @property
    def colour(self) -> str:
        """On white paper; svg() knows the one for a dark screen."""
        return self.family.colour.light

    def of_line(self) -> dict[str, Any]:
        """Keywords of a line without markers."""
        return {
            "color": self.colour,
            "linestyle": self.line,
            "linewidth": self.width,
            "zorder": self.order,
        }

    def of_marker(self, size: float = 6) -> dict[str, Any]:
        """Keywords of a marker."""
        return {
            "color": self.colour,
            "marker": self.family.marker,
            "markersize": size,
            "fillstyle": self.fill,
            "markerfacecoloralt": PAPER.light,
            "markeredgecolor": self.colour,
            "zorder": self.order + 1,
        }


def styles(document: Document) -> dict[str, Style]:
    """The style of each contender: the same in every plot of the document."""
    found: dict[str, Style] = {}
    members: dict[str, int] = {}
    unforeseen: dict[str, Family] = {}
    first = {mode.ours for mode in document.modes}
    names = [one.name for one in document.contenders]
    for name in dict.fromkeys([*names, *(row.contender for row in document.rows)]):
        if floor(document, name):
            found[name] = Style(FLOOR, (0, (4, 2)), "full", 1.6, 1)
            continue
        family = OURS if ours(document, name) else _family(name, unforeseen)
        width, order = (2.6, 4) if family is OURS else (1.4, 2)
        if coarse(document, name):
            found[name] = Style(family, (0, (1, 1.3)), "none", width, order)
            continue
        # What the ratios are taken to looks the same in every mode.
        rank = 0 if name in first else members.get(family.colour.name, int(family is OURS))
        members[family.colour.name] = max(rank + 1, members.get(family.colour.name, 0))
        line, fill = LINES[rank % len(LINES)], FILLS[rank % len(FILLS)]
        found[name] = Style(family, line, fill, width, order)
    return found


def _family(name: str, unforeseen: dict[str, Family]) -> Family:
    small = name.lower()
    for family in FAMILIES:
        if any(word in small for word in family.words):
            return family
    stem = re.split(r"[ ,(]", small, maxsplit=1)[0]
    return unforeseen.setdefault(stem, SPARE[len(unforeseen) % len(SPARE)])


@contextmanager
def drawing() -> Iterator[None]:
    """Draw and save within this: the same on every machine, whatever its matplotlibrc says."""
    try:
        import matplotlib
    except ImportError:
        raise MissingExtraError("matplotlib", "bench", "a benchmark's plots") from None
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "font.size": TEXT_PT,
                "text.color": INK.light,
                "axes.labelcolor": SOFT.light,
                "axes.edgecolor": SOFT.light,
                "axes.linewidth": 0.7,
                "axes.axisbelow": True,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.unicode_minus": False,
                "xtick.color": SOFT.light,
                "ytick.color": SOFT.light,
                "xtick.labelsize": SMALL_PT,
                "ytick.labelsize": SMALL_PT,
                "grid.color": GRID.light,
                "grid.linewidth": 0.7,
                "lines.solid_capstyle": "round",
                "lines.markeredgewidth": 1.2,
                # A dollar in a name is a dollar.
                "text.parse_math": False,
                "svg.fonttype": "none",
                "svg.hashsalt": "fastlstm",
                "figure.facecolor": "none",
                "axes.facecolor": "none",
            }
        )
        yield


def canvas(
    width: float, height: float, *, left: float = 0.85, right: float = 0.3, top: float = 0.45
) -> tuple[Figure, Axes]:
    """A figure with one pair of axes; sizes and margins in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    return figure, panel(figure, left, right, top)


def panel(figure: Figure, left: float, right: float, top: float, bottom: float = 0.6) -> Axes:
    """Axes in a figure, so many inches from its edges."""
    width, height = figure.get_size_inches()
    rectangle = (
        left / width,
        bottom / height,
        (width - left - right) / width,
        (height - top - bottom) / height,
    )
    return figure.add_axes(rectangle)


def label_width(labels: Sequence[str]) -> float:
    """Inches that the longest label takes in a font as wide as common ones are, and the marker."""
    return 0.5 + 0.62 * TEXT_PT / INCH_PT * max(map(len, labels), default=0)


def title(axes: Axes, words: str) -> None:
    """A title at the left, above the axes."""
    axes.set_title(words, loc="left", fontsize=TEXT_PT + 1, fontweight="bold", pad=10)


def label_ends(axes: Axes, ends: Sequence[tuple[float, float, str, Style]]) -> None:
    """Name curves at the right of the axes: each its (x, y) in data, name and style.

    The names are moved apart until none overlaps, and thin lines lead to them.
    """
    from matplotlib.lines import Line2D

    width_pt, height_pt = (side * INCH_PT / axes.figure.dpi for side in axes.bbox.size)
    inverse = axes.transAxes.inverted()
    points = [inverse.transform(axes.transData.transform((x, y))) for x, y, *_ in ends]
    places = spread([float(y) for _, y in points], LINE_PT / height_pt)
    for (x, y), place, (*_, name, style) in zip(points, places, ends, strict=True):
        begin, glyph, text = (1 + pt / width_pt for pt in (18, 24, 32))
        axes.add_line(
            Line2D(
                [min(x, 1) + 6 / width_pt, begin],
                [y, place],
                transform=axes.transAxes,
                color=style.colour,
                linewidth=0.6,
                alpha=0.55,
                clip_on=False,
            )
        )
        marker = {**style.of_marker(5), "transform": axes.transAxes, "clip_on": False}
        axes.add_line(Line2D([glyph], [place], linestyle="none", **marker))
        _name(axes, text, place, name, style, transform=axes.transAxes)


def key(axes: Axes, entries: Sequence[tuple[str, Style]]) -> None:
    """Names with their markers at the right of the axes, from the top down."""
    figure, place = axes.figure, axes.get_position()
    for position, entry in enumerate(entries):
        below = (position + 0.5) * LINE_PT / INCH_PT
        _entry(figure, place.x1, place.y1, 0.2, -below, *entry, line=False)


def key_below(figure: Figure, entries: Sequence[tuple[str, Style]], columns: int) -> None:
    """The same in columns at the bottom of a figure."""
    rows = -(-len(entries) // columns)
    width = figure.get_size_inches()[0] / columns
    for position, entry in enumerate(entries):
        column, row = divmod(position, rows)
        above = 0.12 + (rows - row - 0.3) * LINE_PT / INCH_PT
        _entry(figure, 0, 0, 0.2 + column * width, above, *entry)


def _entry(
    figure: Any,
    x: float,
    y: float,
    right: float,
    above: float,
    name: str,
    style: Style,
    line: bool = True,
) -> None:
    """A line, a marker and a name so many inches from a place in a figure."""
    from matplotlib.lines import Line2D

    width, height = figure.get_size_inches()
    x, y = x + right / width, y + above / height
    half = 0.13 / width
    if line:
        figure.add_artist(Line2D([x - half, x + half], [y, y], **style.of_line()))
    if style.family is not FLOOR:
        figure.add_artist(Line2D([x], [y], linestyle="none", **style.of_marker(5)))
    _name(figure, x + 0.2 / width, y, name, style)


def _name(place: Any, x: float, y: float, name: str, style: Style, **more: Any) -> None:
    strong = style.family is OURS
    place.text(
        x,
        y,
        name,
        va="center_baseline",
        fontsize=TEXT_PT,
        fontweight="bold" if strong else "normal",
        color=style.colour if strong else INK.light,
        **more,
    )


def spread(places: Sequence[float], least: float) -> list[float]:
    """Places moved so as to be at least so far apart and, if all fit, from 0 to 1; order is kept.

    Those that touch are moved as a group, each group as little as it takes.
    """
    order = sorted(range(len(places)), key=lambda k: places[k])
    groups: list[tuple[list[int], float]] = []  # the members, and where the first of them stands
    for k in order:
        members, start = [k], min(max(places[k], 0.0), 1.0)
        while groups and groups[-1][1] + least * len(groups[-1][0]) > start:
            before, begin = groups.pop()
            moved = begin * len(before) + (start - least * len(before)) * len(members)
            members = [*before, *members]
            start = moved / len(members)
            start = max(0.0, min(start, 1 - least * (len(members) - 1)))
        groups.append((members, start))
    found = [0.0] * len(places)
    for members, start in groups:
        for position, k in enumerate(members):
            found[k] = start + least * position
    return found


def named(document: Document, name: str) -> str:
    """A contender as plots call it."""
    return tables.name_cell(document, name).text


def svg(figure: Figure, label: str, *, key: str = "", themed: bool = False) -> str:
    """A figure as SVG, the same bytes for the same figure; `label` is read to who cannot see it.

    `key` goes before every id, so that several stand in one page. `themed` colours are CSS
    variables of the page, otherwise the paper is white.
    """
    from html import escape

    text = io.StringIO()
    with drawing():
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(text, format="svg", metadata=nothing)
    found = text.getvalue()
    found = found[found.index("<svg") :]
    found = re.sub(r"<metadata>.*?</metadata>\s*", "", found, flags=re.DOTALL)
    found = re.sub(r' xmlns:xlink="[^"]*"', "", found).replace("xlink:href", "href")
    found = re.sub(r"'DejaVu Sans'[^;\"]*sans-serif", FONT, found)
    if key:
        found = re.sub(r'\bid="', f'id="{key}-', found)
        found = re.sub(r'href="#', f'href="#{key}-', found)
        found = re.sub(r"url\(#", f"url(#{key}-", found)
    if themed:
        for colour in COLOURS:
            found = found.replace(colour.light, f"var(--{colour.name})")
        found = re.sub(r' (width|height)="[\d.]+pt"', "", found, count=2)
    about = f'role="img" aria-label="{escape(label)}"'
    found = found.replace("<svg ", f"<svg {about} ", 1)
    if not themed:
        end = found.index(">") + 1
        paper = f'\n <rect width="100%" height="100%" fill="{PAPER.light}"/>'
        found = found[:end] + paper + found[end:]
    return "\n".join(line.rstrip() for line in found.splitlines()) + "\n"
