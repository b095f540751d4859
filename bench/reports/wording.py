"""How a figure reads: times with their units, ratios, intervals, sizes. One way in every report."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from .document import Estimate

NONE = "-"
_UNITS_NS = ((1e9, "s"), (1e6, "ms"), (1e3, "\N{MICRO SIGN}s"), (1.0, "ns"))
_UNITS_BYTES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))


def digits(value: float) -> str:
    """Three significant digits below a thousand, all of the whole ones above it."""
    size = abs(value)
    places = 2 if size < 9.995 else 1 if size < 99.95 else 0
    return f"{value:,.{places}f}"


def duration(ns: float | None) -> str:
    """Nanoseconds in the unit that leaves one to three digits before the point: `3.05 us`."""
    if ns is None:
        return NONE
    # Just below the next unit's one, three digits would round to a thousand of this unit.
    scale, unit = next((pair for pair in _UNITS_NS if abs(ns) >= 0.9995 * pair[0]), _UNITS_NS[-1])
    return f"{digits(ns / scale)} {unit}"


def seconds(value: float | None) -> str:
    """The same, of seconds."""
    return NONE if value is None else duration(value * 1e9)


def size(count: float | None) -> str:
    """Bytes in kB, MB or GB of a power of ten."""
    if count is None:
        return NONE
    scale, unit = next((pair for pair in _UNITS_BYTES if count >= 0.9995 * pair[0]), (1.0, "B"))
    return f"{count:,.0f} B" if unit == "B" else f"{digits(count / scale)} {unit}"


def times(ratio: float | None) -> str:
    """A ratio: two places below 2, then one, from a thousand up none; no loss looks like a draw."""
    if ratio is None:
        return NONE
    if ratio >= 999.95:
        return f"{ratio:,.0f}"
    if ratio >= 1.995:
        return f"{ratio:,.1f}"
    if 0 < ratio < 0.095:
        return f"{ratio:.2g}"
    short = f"{ratio:.2f}"
    return f"{ratio:.3f}" if short == "1.00" and ratio != 1 else short


def error(value: float | None) -> str:
    """A greatest absolute difference."""
    return NONE if value is None else "0" if value == 0 else f"{value:.1e}"


def percent(value: float) -> str:
    """What is meant by p50, p99.9 and so on."""
    return f"p{value:g}"


def share(part: float) -> str:
    """A share or a change as a percentage of three digits at the most."""
    size = abs(part) * 100
    return f"{part * 100:.{2 if size < 1 else 1 if size < 10 else 0}f} %"


def change(factor: float) -> str:
    """A factor as how much more or less: `+12 %`, and `x 3.4` where a percentage says little."""
    if factor == float("inf"):
        return "from 0"
    if factor >= 3 or factor <= 1 / 3:
        return f"x {factor:.3g}"
    return ("+" if factor >= 1 else "") + share(factor - 1)


def interval(low: float, high: float, form: Callable[[float], str]) -> str:
    """`low to high`, each as `form` writes it."""
    return f"{form(low)} to {form(high)}"


def interval_of(estimate: Estimate | None, form: Callable[[float], str]) -> str:
    """The interval of an estimate, and nothing where there is none or it has no width."""
    if estimate is None or estimate.low == estimate.high:
        return ""
    return interval(estimate.low, estimate.high, form)


def durations(low_ns: float, high_ns: float) -> str:
    """An interval of times, the unit once where both have the same."""
    low, high = duration(low_ns), duration(high_ns)
    same = low.split()[1] == high.split()[1]
    return f"{low.split()[0] if same else low} to {high}"
