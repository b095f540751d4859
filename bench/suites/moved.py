"""What moved between the last two runs of the suites that pytest-benchmark saved.

`python bench/suites/moved.py .benchmarks`, which `make bench` calls. The exit code says nothing of
speed: it is 1 only where a saved run cannot be read.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# A difference of a few percent between two runs is the machine's, even where each run is steady.
LEAST_CHANGE = 0.05
RULE = (
    f"Moved: the medians differ by more than {LEAST_CHANGE:.0%}, and the middle halves of all "
    "rounds (from the lower to the upper quartile) do not overlap."
)
# A table that is cut to a narrow screen would show half of a figure.
LEAST_WIDTH = 100
STYLES = {"slower": "red", "faster": "green", "same": "dim"}


@dataclass(frozen=True)
class Timing:
    """One benchmark of one run: nanoseconds a time step, or a call where it takes no steps."""

    name: str
    median_ns: float
    low_ns: float  # quartiles of all rounds
    high_ns: float


@dataclass(frozen=True)
class Run:
    """One saved run: what it was of, and its benchmarks by their full names."""

    title: str
    machine: str
    timings: dict[str, Timing]


@dataclass(frozen=True)
class Change:
    """One benchmark in two runs; None where a run lacks it."""

    name: str
    before: Timing | None
    after: Timing | None

    @property
    def ratio(self) -> float | None:
        """Time after over time before."""
        if self.before is None or self.after is None:
            return None
        return self.after.median_ns / self.before.median_ns

    @property
    def verdict(self) -> str:
        """By the RULE slower or faster, else same; new or gone where a run lacks it."""
        if self.before is None:
            return "new"
        if self.after is None:
            return "gone"
        # Percent of the faster one, so that swapping the runs gives the opposite verdict.
        if self.after.median_ns > self.before.median_ns * (1 + LEAST_CHANGE):
            return "slower" if self.after.low_ns > self.before.high_ns else "same"
        if self.before.median_ns > self.after.median_ns * (1 + LEAST_CHANGE):
            return "faster" if self.after.high_ns < self.before.low_ns else "same"
        return "same"


def read(path: Path) -> Run:
    """A run as pytest-benchmark saves it; ValueError says what is wrong with another file."""
    try:
        saved = json.loads(path.read_text("utf-8"))
        commit, machine = saved["commit_info"], saved["machine_info"]
        timings = {one["fullname"]: _timing(one) for one in saved["benchmarks"]}
        changed = ", with changes" if commit.get("dirty") else ""
        title = f"{str(commit.get('id'))[:10]}{changed}, {str(saved['datetime'])[:16]}"
        processor = machine.get("cpu", {}).get("brand_raw") or machine.get("processor")
        about = f"{processor}, Python {machine.get('python_version')}"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: expected a run that pytest-benchmark saved, found {type(error).__name__}: "
            f"{error}; remove the file and run `make bench` again"
        ) from None
    return Run(title.replace("T", " "), about, timings)


def _timing(one: Mapping[str, Any]) -> Timing:
    stats = one["stats"]
    # Seconds a call, which may take many steps.
    scale = 1e9 / one.get("extra_info", {}).get("steps", 1)
    name = one["name"].removeprefix("test_").replace("_", " ")
    return Timing(name, *(stats[key] * scale for key in ("median", "q1", "q3")))


def last_two(folder: Path) -> list[Path]:
    """The newest saved run and, before it, the one that came first of the same Python; or fewer."""
    runs = list(folder.glob("*/[0-9]*_*.json"))
    if not runs:
        return []
    newest = max(runs, key=lambda path: path.stat().st_mtime_ns)
    # pytest-benchmark counts its runs in a folder for each Python and system.
    return sorted((path for path in runs if path.parent == newest.parent), key=_number)[-2:]


def _number(path: Path) -> int:
    return int(path.name.partition("_")[0])


def changes(before: Run, after: Run) -> list[Change]:
    """Every benchmark of either run, what got slowest first; those of one run only at the end."""
    names = dict.fromkeys((*after.timings, *before.timings))
    found = []
    for full in names:
        pair = before.timings.get(full), after.timings.get(full)
        name = next(timing.name for timing in pair if timing is not None)
        found.append(Change(name, *pair))
    return sorted(found, key=lambda change: -(change.ratio or 0))


def table_of(found: Sequence[Change]) -> Table:
    """The changes side by side."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("ns a step, or a call", no_wrap=True)
    for name in ("before", "after", "ratio"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    for change in found:
        ratio = "-" if change.ratio is None else f"{change.ratio:.2f}"
        verdict = change.verdict
        cells = (_cell(change.before), _cell(change.after), ratio, verdict)
        # Brackets are part of a name here, not a style.
        table.add_row(change.name.replace("[", "\\["), *cells, style=STYLES.get(verdict))
    return table


def _cell(timing: Timing | None) -> str:
    if timing is None:
        return "-"
    ns = timing.median_ns
    return f"{ns:,.{0 if ns >= 100 else 1 if ns >= 10 else 2}f}"


def summary(found: Sequence[Change]) -> str:
    """How many moved, and by how much all did: what moves all is the machine."""
    ratios = [change.ratio for change in found if change.ratio is not None]
    verdicts = [change.verdict for change in found]
    counts = f"{verdicts.count('slower')} slower, {verdicts.count('faster')} faster"
    if not ratios:
        return f"{counts}: the two runs have no benchmark in common."
    return (
        f"{counts} of {len(ratios)}. The median of all ratios is {median(ratios):.2f}: what moves "
        "all of them is the machine. Run again before you believe a change."
    )


def report(before: Run | None, after: Run, console: Console) -> None:
    """Print what changed between two runs, or that there is only one."""
    if before is None:
        only = [Change(timing.name, None, timing) for timing in after.timings.values()]
        console.print(table_of(only))
        console.print(
            f"Of {after.title}. There is nothing to compare with yet: the next run is compared "
            "with this one."
        )
        return
    found = changes(before, after)
    console.print(table_of(found))
    console.print(f"Before: {before.title}. After: {after.title}.")
    console.print(RULE)
    console.print(summary(found))
    if before.machine != after.machine:
        console.print(
            f"Not the same machine: {before.machine}, then {after.machine}. The times cannot be "
            "compared."
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the last two runs below a folder, .benchmarks unless told."""
    given = sys.argv[1:] if arguments is None else arguments
    if len(given) > 1:
        print("usage: python bench/suites/moved.py [FOLDER]", file=sys.stderr)
        return 2
    folder = Path(given[0]) if given else Path(".benchmarks")
    paths = last_two(folder)
    if not paths:
        print(f"{folder}: no run is saved there: make bench", file=sys.stderr)
        return 1
    try:
        runs = [read(path) for path in paths]
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    console = Console(soft_wrap=True, highlight=False)
    console.width = max(console.width, LEAST_WIDTH)
    report(runs[0] if len(runs) > 1 else None, runs[-1], console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
