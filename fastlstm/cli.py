"""The `fastlstm` command: one thin function per subcommand, heavy imports inside them.

Whatever a user can do wrong ends as one line on standard error and a non-zero exit, without a
traceback.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

try:
    import rich  # noqa: F401  for the files below, which need it
    import typer
except ModuleNotFoundError as missing:
    if missing.name not in ("typer", "rich"):
        raise
    # main() cannot catch this: it is in the file that needs them.
    sys.exit(
        f"error: the fastlstm command needs {missing.name}, which is not installed. "
        "Install it with: pip install 'fastlstm[cli]'"
    )

from fastlstm import cli_bench, cli_evaluate, cli_export, cli_train, cli_verify, cli_warmup
from fastlstm.cli_output import complain, console
from fastlstm.errors import FastLSTMError

if TYPE_CHECKING:
    from collections.abc import Sequence


app = typer.Typer(
    name="fastlstm",
    help="Train a recurrent network, keep it as one small file, run it anywhere, and prove that "
    "the numbers are the same.",
    epilog="Example: fastlstm train sunspots --out runs/sunspots",
    no_args_is_help=True,
    add_completion=False,
    # Joins the lines of a docstring's paragraph; the default keeps their breaks.
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


ModelFile = Annotated[Path, typer.Argument(metavar="MODEL", help="A model file (.safetensors).")]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv`, or the process's own; return the exit code of a failure."""
    try:
        app(args=argv, prog_name="fastlstm")
    except FastLSTMError as error:
        complain(str(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        complain(f"{where}{error.strerror or error}")
    except MemoryError as error:
        complain(f"not enough memory: {error}")
    except KeyboardInterrupt:
        return 130
    return 1


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"fastlstm {version('fastlstm')}")
        raise typer.Exit


@app.callback()
def _app(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


app.command(epilog=cli_train.EXAMPLE)(cli_train.train)


app.command(epilog=cli_evaluate.EVALUATE)(cli_evaluate.evaluate)
app.command(epilog=cli_evaluate.FORECAST)(cli_evaluate.forecast)


@app.command(
    epilog="Example: (echo 0.1; echo 0.2) | fastlstm stream model.safetensors",
)
def stream(
    model: ModelFile,
    sequences: Annotated[
        bool | None,
        typer.Option(
            "--sequences/--samples",
            help="Whether a line is a whole sequence or one sample; as the model was trained "
            "unless told.",
        ),
    ] = None,
) -> None:
    """Read samples from standard input, one a line, and write one prediction a line as they come.

    The values of a sample stand on one line, separated by commas or spaces. Blank lines and lines
    that begin with # are skipped. A bad line is reported on standard error with its number and the
    stream goes on as if it had not come; the exit code is then 1 at the end, and 0 if every line
    was good.

    With --sequences each line is a whole sequence of one column, of any length, such as 3,5,7: the
    answer is the output after its last number, and the next line begins anew.
    """
    import fastlstm
    from fastlstm import cli_stream

    live = fastlstm.load(model).stream()
    whole = cli_stream.takes_sequences(live.model) if sequences is None else sequences
    bad = cli_stream.relay(live, complain, sequences=whole)
    if bad:
        raise typer.Exit(1)


app.command(epilog=cli_verify.EXAMPLE)(cli_verify.verify)


app.command(epilog=cli_export.EXAMPLE)(cli_export.export)
app.add_typer(cli_bench.app)
app.command(epilog=cli_warmup.EXAMPLE)(cli_warmup.warmup)


@app.command(epilog="Example: fastlstm inspect model.safetensors")
def inspect(model: ModelFile) -> None:
    """Show what a model file holds: layers, sizes, states, metadata and digest."""
    import fastlstm
    from fastlstm import cli_tables

    network = fastlstm.load(model)
    screen = console()
    screen.print(cli_tables.layers(network))
    size = f"{model.stat().st_size:,} bytes"
    screen.print(cli_tables.facts(model, network, size, _digest(model)))


def _digest(path: Path) -> str:
    from safetensors import safe_open

    from fastlstm.model_file import METADATA_KEY

    with safe_open(path, framework="numpy") as file:
        return str(json.loads(file.metadata()[METADATA_KEY])["digest"])
