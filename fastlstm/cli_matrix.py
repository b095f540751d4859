"""The matrix of runtimes as `fastlstm verify --all` prints it: tables of 80 columns, with notes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from fastlstm.export.matrix import VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fastlstm.export.matrix import Cell, Check, Matrix

STYLES = {
    "ok": "green",
    "wrong": "bold red",
    "failed": "bold red",
    "missing": "yellow",
    "refused": "yellow",
    "partly": "yellow",
}
# Of six runtimes beside a name each heading has seven columns.
HEADINGS = {
    "ONNX reference evaluator": "ONNX\nref.\neval.",
    "OpenVINO": "Open-\nVINO",
    "ONNX Runtime for Node.js": "ORT\nNode.js",
    "ONNX Runtime Web": "ORT\nWeb",
}
CHECKS = {
    "one step at a time": "by\nstep",
    "one sequence": "se-\nquence",
    "batch of 7": "batch\nof 7",
    "variable lengths": "variable\nlengths",
}
# A refusal of many models names so many of them.
SHOWN_MODELS = 4


def grid(title: str, matrix: Matrix) -> Group:
    """One row for each model, one column for each runtime, and below what there is to say."""
    table = _table("model", ["bound", *(heading(about.name) for about in matrix.runtimes)])
    # The only column that may be broken, where the screen is narrow.
    table.columns[0].no_wrap = False
    for name, cells in by_model(matrix).items():
        figures = (_styled(cell.verdict, entry(cell)) for cell in cells)
        table.add_row(escape(name), f"{matrix.bounds[name]:.1e}", *figures)
    return _with_notes(title, table, matrix)


def one(title: str, matrix: Matrix) -> Group:
    """The matrix of one model: one row for each runtime, one column for each check."""
    names = list(dict.fromkeys(check.name for cell in matrix.cells for check in cell.checks))
    table = _table("runtime", [*(CHECKS.get(n, n.replace(" ", "\n")) for n in names), "bound"])
    for cell in matrix.cells:
        found = {check.name: check for check in cell.checks}
        figures = [
            _styled(found[n].verdict, figure(found[n])) if n in found else _styled("missing", "-")
            for n in names
        ]
        table.add_row(escape(cell.runtime), *figures, f"{matrix.bounds[cell.model]:.1e}")
    return _with_notes(title, table, matrix)


def entry(cell: Cell) -> str:
    """What a cell says in seven or eight characters: its error or its verdict.

    With an asterisk it is right as far as the runtime takes it, with an exclamation mark it is
    wrong, with a dagger only where sequences are of different lengths, which is another file.
    """
    if cell.verdict in ("missing", "refused", "failed") or cell.error is None:
        return cell.verdict
    right = [check.max_abs_error for check in cell.checks if check.verdict == "ok"]
    wrong = {check.name for check in cell.checks if check.verdict == "wrong"}
    if right and wrong == {VARIABLE}:
        return f"{max(right):.1e}†"
    return f"{cell.error:.1e}{MARKS.get(cell.verdict, '')}"


MARKS = {"partly": "*", "wrong": "!"}


def figure(check: Check) -> str:
    """What one check says: its error, or its verdict."""
    if not check.steps:
        return check.verdict
    lost = check.state_error > check.state_bound and check.max_abs_error <= check.bound
    error = check.state_error if lost else check.max_abs_error
    return f"{error:.1e}{MARKS.get(check.verdict, '')}"


def heading(name: str) -> str:
    """A runtime's name on lines of at most eight characters."""
    return HEADINGS.get(name, name.replace(" ", "\n"))


def by_model(matrix: Matrix) -> dict[str, list[Cell]]:
    """Each model's cells, in the order of the runtimes."""
    rows: dict[str, list[Cell]] = {}
    for cell in matrix.cells:
        rows.setdefault(cell.model, []).append(cell)
    return rows


class Note(NamedTuple):
    """Why some checks of some models are not right on one runtime."""

    runtime: str
    verdict: str
    models: tuple[str, ...]
    checks: tuple[str, ...]
    words: str  # the runtime's own, or how far off it was


def notes(matrix: Matrix) -> list[Note]:
    """What was refused, wrong or failed; the same words of the same runtime come once.

    What is wrong is gathered too, apart in the checks of a graph with lengths and without.
    """
    found: dict[tuple[str, str, str], list[tuple[str, Check]]] = {}
    for cell in matrix.cells:
        for check in cell.checks:
            if check.verdict != "ok":
                said = check.note.removeprefix(f"{cell.runtime}: ")
                key = (cell.runtime, check.verdict, said or f"wrong: {check.name == VARIABLE}")
                found.setdefault(key, []).append((cell.model, check))
    return [
        Note(
            runtime,
            verdict,
            tuple(dict.fromkeys(model for model, _ in where)),
            tuple(dict.fromkeys(check.name for _, check in where)),
            said if where[0][1].note else _how_far([check for _, check in where]),
        )
        for (runtime, verdict, said), where in sorted(found.items(), key=lambda item: item[0][:2])
    ]


def _how_far(checks: list[Check]) -> str:
    """The greatest errors, each with the bound that it is held to."""
    output = max(checks, key=lambda check: check.max_abs_error / check.bound)
    state = max(checks, key=lambda check: check.state_error / check.state_bound)
    return (
        f"outputs off by up to {output.max_abs_error:.1e} where the bound is {output.bound:.1e}, "
        f"final states by {state.state_error:.1e} where it is {state.state_bound:.1e}"
    )


def listed(names: tuple[str, ...], shown: int = SHOWN_MODELS) -> str:
    """Names, and how many more."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _with_notes(title: str, table: Table, matrix: Matrix) -> Group:
    lines: list[RenderableType] = [
        Text(f"{title}: each on every runtime against the float64 reference", style="bold"),
        table,
        Text(
            "\nThe greatest error of all checks. *: some were refused. !: wrong. "
            "†: wrong with variable lengths."
        ),
        *_runtimes(matrix),
    ]
    for note in notes(matrix):
        about = f"{listed(note.models)} ({', '.join(note.checks)})"
        head = (f"{note.runtime}, {note.verdict}: ", "bold")
        lines.append(Text.assemble("\n", head, f"{about}: {note.words}"))
    return Group(*lines, Text())


def _runtimes(matrix: Matrix) -> Iterable[Text]:
    there = [f"{about.name} {about.version}" for about in matrix.runtimes if not about.missing]
    if there:
        yield Text(f"Runtimes: {'; '.join(there)}.")
    for about in matrix.runtimes:
        if about.missing:
            yield Text.assemble((f"{about.name}, missing: ", "bold"), about.missing)


def _table(left: str, right: list[str]) -> Table:
    """A narrow table: words in the first column, figures in the others."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0)
    table.add_column(left, no_wrap=True)
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _styled(verdict: str, text: str) -> str:
    return f"[{STYLES[verdict]}]{text}[/]"
