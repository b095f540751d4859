"""The plots of a Document: latency by size, percentiles, error against speed, ratios.

Each takes one mode and gives a Figure; plot_style.svg makes text of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..timing.histogram import decode
from . import wording
from .plot_style import (
    FLOOR,
    INK,
    OURS,
    SHADE,
    SMALL_PT,
    SOFT,
    TEXT_PT,
    canvas,
    drawing,
    key,
    key_below,
    label_ends,
    label_width,
    named,
    panel,
    styles,
    title,
)
from .selection import coarse, floor, ladder_title, on_ladder, ours, rows_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from .document import Document, ModeInfo, ModelInfo, Row
    from .plot_style import Style

# Inches.
WIDTH, PLOT_HEIGHT, A_LABEL, LEFT = 9.6, 3.4, 0.2, 0.85
# So many points a decade of 1 / (1 - p) draw a curve that looks as smooth as its histogram is.
POINTS_A_DECADE = 32


def by_hidden_size(
    document: Document, stem: str, models: Sequence[ModelInfo], mode: ModeInfo
) -> Figure:
    """Time of a step over the hidden size, both logarithmic, with the floor below."""
    with drawing():
        found = on_ladder(document, models, mode)
        labels = [named(document, name) for name in found]
        figure, axes = canvas(WIDTH, _height(len(found)), right=label_width(labels))
        ends = _ladder(axes, document, models, mode)
        title(axes, f"{ladder_title(stem)}, {mode.name}")
        label_ends(axes, ends)
        return figure


def _ladder(
    axes: Axes, document: Document, models: Sequence[ModelInfo], mode: ModeInfo
) -> list[tuple[float, float, str, Style]]:
    """Draw the curves of a mode; where each ends, its name and its style."""
    styled = styles(document)
    ends: list[tuple[float, float, str, Style]] = []
    for name, by_size in on_ladder(document, models, mode).items():
        points = [(h, row.ns) for h, row in sorted(by_size.items()) if row.ns is not None]
        if not points:
            continue
        style = styled[name]
        sizes, values = [h for h, _ in points], [ns.value for _, ns in points]
        axes.vlines(
            sizes, [ns.low for _, ns in points], [ns.high for _, ns in points], style.colour, lw=1
        )
        if floor(document, name):
            axes.fill_between(sizes, values, values[0] * 1e-6, color=SHADE.light, zorder=0)
            axes.plot(sizes, values, **style.of_line())
        else:
            axes.plot(sizes, values, **(style.of_line() | style.of_marker(5)))
        ends.append((sizes[-1], values[-1], named(document, name), style))
    sizes = [model.hidden for model in models if model.hidden]
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.set_xlim(min(sizes) / 1.12, max(sizes) * 1.06)
    _limits(axes, _values(axes))
    _durations(axes.yaxis)
    axes.set_xlabel("hidden size")
    axes.set_ylabel(f"time of a {mode.unit}")
    axes.grid()
    return ends


def percentiles(document: Document, model: ModelInfo, mode: ModeInfo) -> Figure:
    """Single calls: time over 1 / (1 - p), both logarithmic, from each row's histogram."""
    rows = [row for row in rows_of(document, model.name, mode.name) if row.latency]
    with drawing():
        labels = [named(document, row.contender) for row in rows]
        figure, axes = canvas(WIDTH, _height(len(rows)), right=label_width(labels))
        styled = styles(document)
        ends, most = [], 10.0
        for row in rows:
            assert row.latency is not None
            x, y = curve(row.latency.histogram)
            style = styled[row.contender]
            axes.plot(x, y, **style.of_line())
            ends.append((x[-1], y[-1], named(document, row.contender), style))
            most = max(most, x[-1])
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(1, most)
        tails = [(1.0, "0 %"), (2.0, "50 %")]
        tails += [(10.0**k, f"{100 - 10.0 ** (2 - k):.{max(0, k - 2)}f} %") for k in range(1, 10)]
        tails = [(x, words) for x, words in tails if x <= most]
        axes.set_xticks([x for x, _ in tails], [words for _, words in tails])
        axes.minorticks_off()
        deadlines = [row.deadline.period_ns for row in rows if row.deadline]
        _limits(axes, _values(axes) + deadlines[:1])
        _deadline(axes, deadlines)
        _durations(axes.yaxis)
        axes.set_xlabel("share of the calls that took no longer")
        axes.set_ylabel("single call")
        axes.grid()
        title(axes, f"{model.name}, {mode.name}: single calls")
        label_ends(axes, ends)
        return figure


def curve(histogram: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values at percentiles: 1 / (1 - p) from 1 to the count of calls, and nanoseconds there."""
    found = decode(histogram)
    # The library's own iterator visits tens of thousands of empty buckets in Python.
    counts = np.ctypeslib.as_array(found.counts).astype(np.int64)
    filled = np.flatnonzero(counts).tolist()
    values = np.array(
        [found.get_highest_equivalent_value(found.get_value_from_index(k)) for k in filled],
        np.float64,
    )
    upto = np.cumsum(counts[filled])
    total = int(upto[-1])
    points = max(2, round(POINTS_A_DECADE * np.log10(max(total, 2))))
    tail = np.geomspace(1, total, points)
    # The value of which a share p of the calls took no longer; the last call is the greatest.
    rank = np.clip(np.ceil((1 - 1 / tail) * total - 1e-9), 1, total)
    at = values[np.searchsorted(upto, rank)]
    at[-1] = values[-1]
    return tail, at


def error_by_speed(document: Document, model: ModelInfo, mode: ModeInfo) -> Figure:
    """Greatest error over the median time, both logarithmic; fewer bits than float32 are hollow."""
    rows = [
        row
        for row in rows_of(document, model.name, mode.name)
        if row.ns is not None and row.error is not None
    ]
    with drawing():
        labels = [named(document, row.contender) for row in rows]
        figure, axes = canvas(WIDTH, _height(len(rows)), right=label_width(labels))
        styled = styles(document)
        # Of no error there is no logarithm: it stands on the lower edge.
        errors = [row.error for row in rows if row.error]
        least = min(errors, default=1e-9) / 4
        axes.set_xscale("log")
        axes.set_yscale("log")
        entries = []
        for row in rows:
            assert row.ns is not None
            style = styled[row.contender]
            size = 9 if style.family is OURS else 7
            x, y = row.ns.value, row.error or least
            axes.plot([x], [y], linestyle="none", **style.of_marker(size))
            entries.append((x, y, named(document, row.contender), style))
        bounds = [row.bound for row in rows if row.bound]
        _limits(axes, [y for _, y, *_ in entries] + bounds, least)
        low, high = (f([x for x, *_ in entries] or [1.0]) for f in (min, max))
        axes.set_xlim(low / 1.6, high * 1.6)
        axes.minorticks_off()
        if bounds:
            _bound(axes, max(bounds), any(coarse(document, row.contender) for row in rows))
        _durations(axes.xaxis)
        _powers(axes)
        axes.set_xlabel(f"time of a {mode.unit}")
        axes.set_ylabel("greatest error")
        axes.grid()
        title(axes, f"{model.name}, {mode.name}: error against speed")
        key(axes, [(name, style) for *_, name, style in entries])
        return figure


def _bound(axes: Axes, bound: float, others: bool) -> None:
    """The greatest error that float32 may have; above it are those that hold fewer bits."""
    top = axes.get_ylim()[1]
    axes.axhspan(bound, top, color=SHADE.light, zorder=0)
    axes.axhline(bound, color=SOFT.light, linewidth=0.8, linestyle=(0, (4, 2)))
    words = f"bound of float32, {wording.error(bound)}"
    words += "; above it, weights of fewer bits" if others else ""
    _remark(axes, bound, words)


def _remark(axes: Axes, y: float, words: str) -> None:
    axes.annotate(
        words,
        (0, y),
        (5, 3),
        xycoords=axes.get_yaxis_transform(),
        textcoords="offset points",
        fontsize=SMALL_PT,
        color=SOFT.light,
    )


def ratios(document: Document, model: ModelInfo, mode: ModeInfo) -> Figure:
    """A bar for each contender from ours, at 1, to its times ours, with the interval."""
    rows = [row for row in rows_of(document, model.name, mode.name) if row.ratio and row.ns]
    with drawing():
        labels = [named(document, row.contender) for row in rows]
        height = 1.15 + 0.27 * len(rows)
        left = label_width(labels) - 0.2
        figure, axes = canvas(WIDTH, height, left=left, right=1.6)
        styled = styles(document)
        values = [1.0]
        for position, row in enumerate(rows):
            assert row.ratio is not None
            _bar(axes, position, row, styled[row.contender])
            values += [row.ratio.low, row.ratio.high]
        axes.set_xscale("log")
        axes.set_xlim(min(values) / 1.25, max(values) * 1.06)
        axes.minorticks_off()
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.4g}")
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_yticks(range(len(rows)), labels, fontsize=TEXT_PT)
        for tick, row in zip(axes.get_yticklabels(), rows, strict=True):
            style = styled[row.contender]
            strong = style.family is OURS
            tick.set(
                color=style.colour if strong else INK.light,
                fontweight="bold" if strong else "normal",
            )
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.axvline(1, color=INK.light, linewidth=1)
        axes.grid(axis="x")
        axes.set_xlabel(f"times {mode.ours}")
        title(axes, f"{model.name}, {mode.name}: times ours, and the time of a {mode.unit}")
        return figure


def _bar(axes: Axes, position: int, row: Row, style: Style) -> None:
    assert row.ratio is not None
    assert row.ns is not None
    value = row.ratio.value
    hollow = style.fill == "none" or style.family is FLOOR
    axes.barh(
        position,
        value - 1,
        left=1,
        height=0.62,
        facecolor="none" if hollow else style.colour,
        edgecolor=style.colour,
        linewidth=1.1,
        zorder=2,
    )
    axes.plot(
        [row.ratio.low, row.ratio.high],
        [position, position],
        color=INK.light,
        linewidth=1.3,
        zorder=3,
    )
    lost = value < 1 and style.family not in (OURS, FLOOR)
    axes.annotate(
        f"{wording.times(value)} ({wording.duration(row.ns.value)})",
        (max(value, row.ratio.high, 1.0), position),
        (6, 0),
        textcoords="offset points",
        va="center_baseline",
        fontsize=SMALL_PT,
        fontweight="bold" if lost or style.family is OURS else "normal",
    )


def overview(document: Document, stem: str, models: Sequence[ModelInfo]) -> Figure:
    """All modes of a ladder side by side, times to the same scale, one key below."""
    from matplotlib.figure import Figure

    with drawing():
        modes = [mode for mode in document.modes if on_ladder(document, models, mode)]
        styled = styles(document)
        shown = {
            name: by_size
            for mode in modes
            for name, by_size in on_ladder(document, models, mode).items()
            if any(row.ns is not None for row in by_size.values())
        }
        order = sorted(shown, key=lambda name: (floor(document, name), not ours(document, name)))
        entries = [(named(document, name), styled[name]) for name in order]
        columns = max(1, int(WIDTH / (label_width([name for name, _ in entries]))))
        below = 0.9 + A_LABEL * -(-len(entries) // columns)
        figure = Figure(figsize=(WIDTH, 0.5 + PLOT_HEIGHT + below))
        plots = []
        for position, mode in enumerate(modes):
            begin = WIDTH * position / len(modes) + LEFT
            right = WIDTH * (1 - (position + 1) / len(modes)) + 0.15
            axes = panel(figure, begin, right, 0.5, below)
            _ladder(axes, document, models, mode)
            title(axes, f"{ladder_title(stem)}, {mode.name}")
            plots.append(axes)
        low, high = (f(axes.get_ylim()[k] for axes in plots) for k, f in ((0, min), (1, max)))
        for axes in plots:
            axes.set_ylim(low, high)
            _durations(axes.yaxis)
        key_below(figure, entries, columns)
        return figure


def _height(labels: int) -> float:
    """Inches: room for the plot, and for all names beside it."""
    return 1.05 + max(PLOT_HEIGHT, A_LABEL * labels)


def _values(axes: Axes) -> list[float]:
    """All heights that are drawn."""
    return [float(y) for line in axes.lines for y in np.asarray(line.get_ydata())]


def _limits(axes: Axes, values: Sequence[float], least: float | None = None) -> None:
    """A little room above and below what is drawn."""
    low, high = min(values, default=1.0), max(values, default=10.0)
    axes.set_ylim(least if least is not None else low / 1.5, high * 1.5)


def _deadline(axes: Axes, periods_ns: Sequence[float]) -> None:
    if periods_ns:
        axes.axhline(periods_ns[0], color=INK.light, linewidth=1, linestyle=(0, (4, 2)))
        _remark(axes, periods_ns[0], f"a call every {wording.duration(periods_ns[0])}")


def _durations(axis: Any) -> None:
    """Ticks at 1, 10 and 100 of each unit, with the unit."""
    from matplotlib.ticker import LogLocator

    low, high = axis.get_view_interval()
    few = high / low < 300
    axis.set_major_locator(LogLocator(10, (1, 2, 5) if few else (1,), numticks=20))
    axis.set_major_formatter(lambda ns, _: _tick(ns))


def _tick(ns: float) -> str:
    figure, unit = wording.duration(ns).split()
    return f"{float(figure.replace(',', '')):g} {unit}"


def _powers(axes: Axes) -> None:
    from matplotlib.ticker import LogLocator

    axes.yaxis.set_major_locator(LogLocator(10, numticks=12))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0e}")
