"""The matrix of runtimes as a page of Markdown: what docs/runtimes.md holds, whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastlstm.bench.machine import describe
from fastlstm.bench.reports.markdown import cell as plain
from fastlstm.bench.reports.markdown import table
from fastlstm.cli_matrix import by_model, entry, notes
from fastlstm.export.matrix import CUTS, LENGTHS, SEEDS, STEPS
from fastlstm.verify import PART, YARDSTICK_STEPS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastlstm.export.matrix import Matrix

HOW = f"""\
Each model is written as one ONNX file, and the same bytes go to every runtime. Outputs and final
states are compared with the float64 reference within the bounds of `fastlstm verify`: twice the
greatest distance of plain float32 arithmetic, and 1e-6. Each model has one bound for its outputs
and one for its final states, found over {YARDSTICK_STEPS:,} steps, whole and in parts of {PART},
and over the streams below, which are random and {STEPS} steps long.

- One step at a time, the state carried from call to call: {STEPS} steps.
- One sequence in one call: {STEPS} steps.
- In pieces, blocks and single steps mixed, the state carried: {STEPS} steps, cut after
  {", ".join(map(str, CUTS[1:-1]))}.
- A batch of {len(SEEDS)} different sequences in one call: {len(SEEDS) * STEPS} steps.
- Variable lengths, in a graph that has them as a further input: in one call {len(LENGTHS)}
  sequences of {", ".join(map(str, LENGTHS))} steps with noise after their ends, each against
  the reference over its own length: {sum(LENGTHS)} steps.

A bidirectional model takes whole sequences: neither steps nor pieces.
"""
READING = """\
Each figure is the greatest absolute error of the outputs in all checks, and `bound` what is
allowed. `*`: the runtime refuses some of the checks, and is right in the others. `!`: wrong, and
the figure is the error furthest beyond its bound, of outputs or final states. `†`: wrong with
variable lengths, and right in the other checks, whose greatest error it is. What is refused, and in
which words, stands below.
"""


def page(command: str, matrices: Mapping[str, Matrix]) -> str:
    """The page: `matrices` by their titles, `command` the one that writes it."""
    about = next(iter(matrices.values())).runtimes
    rows = [[a.name, a.version or "-", plain(a.missing or a.how)] for a in about]
    parts = [
        "# An exported ONNX file on every runtime",
        f"Written by `{command}`.\n{_machine()}",
        table(["runtime", "version", "how it is run here"], rows, words=range(3)),
        f"## How each is checked\n\n{HOW}",
    ]
    parts += [f"## {plain(title)}\n\n{READING}\n{_grid(m)}" for title, m in matrices.items()]
    parts.append(f"## What is refused or wrong\n\n{_refusals(matrices)}")
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _machine() -> str:
    machine = describe()
    facts = (machine["processor"], f"{machine['cores']} cores", machine["system"])
    return f"Machine: {', '.join(map(plain, facts))}, Python {machine['python']}."


def _grid(matrix: Matrix) -> str:
    header = ["model", "bound", *(about.name for about in matrix.runtimes)]
    rows = [
        [plain(name), f"{matrix.bounds[name]:.1e}", *(plain(entry(cell)) for cell in cells)]
        for name, cells in by_model(matrix).items()
    ]
    return table(header, rows, words=[0])


def _refusals(matrices: Mapping[str, Matrix]) -> str:
    rows = [
        [
            note.runtime,
            note.verdict,
            *map(plain, (", ".join(note.models), ", ".join(note.checks), note.words)),
        ]
        for matrix in matrices.values()
        for note in notes(matrix)
    ]
    if not rows:
        return "Nothing."
    header = ["runtime", "verdict", "models", "checks", "its words, or the figures"]
    return table(header, rows, words=range(5))
