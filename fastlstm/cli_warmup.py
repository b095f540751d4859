"""`fastlstm warmup`: compile what models need, so that no later process has to."""

from __future__ import annotations

from typing import Annotated

import typer

EXAMPLE = "Example: FASTLSTM_CACHE_DIR=/app/kernels fastlstm warmup model.safetensors"


def warmup(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL", help="Model files (.safetensors).")
    ],
) -> None:
    """Compile all that models need for this CPU and keep it on disk; for building containers.

    The exit code is 1 where it cannot be kept. What is there already is not compiled again.
    """
    import fastlstm

    # All are read first: a bad file should not cost the time to compile the others.
    loaded = [(path, fastlstm.load(path)) for path in models]
    done = []
    for path, model in loaded:
        done.append(fastlstm.warmup(model))
        typer.echo(path)
        for function in done[-1].functions:
            how = "compiled" if function.compiled else "already there"
            typer.echo(f"  {how:<13}  {function.name:<12} {function.size_bytes:>9,} bytes")
    files = {function.path: function for one in done for function in one.functions}
    size = sum(function.size_bytes for function in files.values())
    typer.echo(f"for the CPU {done[-1].cpu}, in {sum(one.seconds for one in done):.1f} s")
    typer.echo(f"kept in {done[-1].folder}: {len(files)} files, {size:,} bytes")
