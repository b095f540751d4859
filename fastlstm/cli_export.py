"""`fastlstm export`: a model file for another runtime, and how it was checked."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path  # noqa: TC003  typer reads it from the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from fastlstm.cli_output import console, room_for, telling

if TYPE_CHECKING:
    from fastlstm.export import Exported

EXAMPLE = "Example: fastlstm export model.safetensors --to onnx -o model.onnx"


class Target(StrEnum):
    """What `export` can write."""

    onnx = "onnx"
    pt2 = "pt2"
    torchscript = "torchscript"


KINDS = {
    Target.onnx: "ONNX",
    Target.pt2: "AOTInductor package of one step",
    Target.torchscript: "TorchScript, legacy",
}


def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model file (.safetensors).")],
    to: Annotated[
        Target,
        typer.Option(
            "--to",
            help="The format to write: onnx, for every other runtime; pt2, one step as machine "
            "code for this CPU (AOTInductor); torchscript, legacy, for programs that already "
            "load it.",
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write.")],
    lengths: Annotated[
        bool,
        typer.Option(
            "--lengths",
            help="Of onnx: one more input, how many steps of a padded batch each sequence has.",
        ),
    ] = False,
    half: Annotated[
        bool,
        typer.Option(
            "--half",
            help="Of onnx: weights of float16, for a file half as big; arithmetic stays float32.",
        ),
    ] = False,
) -> None:
    """Write the model for another runtime, and check what was written before saying so."""
    import fastlstm
    from fastlstm import export as exporters

    for name, given in (("--lengths", lengths), ("--half", half)):
        if given and to is not Target.onnx:
            raise typer.BadParameter(
                f"is for --to onnx only: a file of --to {to.value} has no such form",
                param_hint=name,
            )
    room_for(output)
    network = fastlstm.load(model)
    with telling("Exporting") as tell:
        tell(to.value)
        if to is Target.onnx:
            done = exporters.onnx(network, output, lengths=lengths, half=half)
        elif to is Target.pt2:
            done = exporters.inductor(network, output)
        else:
            done = exporters.torchscript(network, output)
    for line in report(done, to, half=half):
        typer.echo(line)
    console().print("\nRun it with:\n", style="bold")
    # Not through rich: its markup would eat the square brackets of the code.
    typer.echo(done.snippet, nl=False)


def report(done: Exported, to: Target, *, half: bool = False) -> list[str]:
    """What was written and how it was checked, line by line."""
    kind = KINDS[to] + (f", opset {done.opset}" if done.opset else "")
    lines = [
        f"wrote {done.path} ({kind}, {done.path.stat().st_size:,} bytes)",
        f"checked by replaying {done.steps} steps through it: {', '.join(done.ways)}",
        f"greatest error {done.max_abs_error:.2e}, bound {done.bound:.2e}",
    ]
    if half:
        lines.append(
            f"rounding the weights to float16 moves outputs by up to {done.rounding:.2e}; "
            "the check is against the rounded model"
        )
    return lines
