"""`fastlstm bench`: presets and the user's own model on every road, reports and comparisons."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastlstm.cli_output import console, room_for, telling
from fastlstm.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastlstm.bench.benchmark import Plan
    from fastlstm.bench.contenders.contender import Contender
    from fastlstm.bench.reports.document import Document

EXAMPLE = "Example: fastlstm bench model model.safetensors --html bench.html"

app = typer.Typer(
    name="bench",
    help="Time every road of this machine side by side, after checking that it computes the same.",
    epilog=EXAMPLE,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Cell(StrEnum):
    """The recurrent layers."""

    LSTM = "LSTM"
    GRU = "GRU"
    RNN = "RNN"


JsonFile = Annotated[
    Path | None, typer.Option("--json", help="Write the whole result here, for a program to read.")
]
MarkdownFile = Annotated[
    Path | None, typer.Option("--markdown", help="Write the tables here, as Markdown.")
]
HtmlFile = Annotated[
    Path | None, typer.Option("--html", help="Write one page with tables and plots here.")
]
Rounds = Annotated[
    int | None,
    typer.Option(min=1, help="Interleaved rounds; as many as the preset has unless told."),
]
Only = Annotated[
    str | None,
    typer.Option(help="Time these contenders only, by name, separated by commas; ours always."),
]
Outside = Annotated[
    list[str] | None,
    typer.Option(
        "--contender",
        metavar="COMMAND",
        help="A runtime outside Python that speaks the contender protocol; may be given again.",
    ),
]


@app.command(epilog="Example: fastlstm bench quick")
def quick(
    rounds: Rounds = None,
    only: Only = None,
    contender: Outside = None,
    json_file: JsonFile = None,
    markdown: MarkdownFile = None,
    html: HtmlFile = None,
) -> None:
    """One small LSTM in every way of calling, in less than a minute.

    What compiles C++ first, torch.compile and AOTInductor, is left out here.
    """
    _preset("quick", rounds, only, contender, (json_file, markdown, html))


@app.command(epilog="Example: fastlstm bench ladder --hidden 8,64,512 --json ladder.json")
def ladder(
    hidden: Annotated[
        str | None,
        typer.Option(help="Hidden sizes, separated by commas; 8 to 1024 by doubling unless told."),
    ] = None,
    rounds: Rounds = None,
    only: Only = None,
    contender: Outside = None,
    json_file: JsonFile = None,
    markdown: MarkdownFile = None,
    html: HtmlFile = None,
) -> None:
    """One LSTM layer over hidden sizes, by step and by whole sequences, above its memory floor."""
    sizes = {} if hidden is None else {"sizes": _sizes(hidden)}
    _preset("ladder", rounds, only, contender, (json_file, markdown, html), **sizes)


@app.command(epilog="Example: fastlstm bench stacks --html stacks.html")
def stacks(
    rounds: Rounds = None,
    only: Only = None,
    contender: Outside = None,
    json_file: JsonFile = None,
    markdown: MarkdownFile = None,
    html: HtmlFile = None,
) -> None:
    """Stacks of 2x128, 3x256, 3x480, 6x320 and 3x960 units, beside what is published of a card."""
    _preset("stacks", rounds, only, contender, (json_file, markdown, html))


@app.command(epilog="Example: fastlstm bench audio --html audio.html")
def audio(
    rounds: Rounds = None,
    only: Only = None,
    contender: Outside = None,
    json_file: JsonFile = None,
    markdown: MarkdownFile = None,
    html: HtmlFile = None,
) -> None:
    """Blocks of 64 samples every 1.333 ms (48 kHz) through 1x16, 1x40 and 2x24 units.

    Each block is timed from when it was due, and those that are done too late are counted.
    """
    _preset("audio", rounds, only, contender, (json_file, markdown, html))


@app.command(epilog=EXAMPLE)
def model(
    file: Annotated[Path, typer.Argument(metavar="MODEL", help="A model file (.safetensors).")],
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.001, help="Samples that come a second: deadlines and times real time are shown."
        ),
    ] = None,
    block: Annotated[
        int, typer.Option(min=1, help="With --rate: samples that are taken in one call.")
    ] = 1,
    streams: Annotated[
        str,
        typer.Option(help="Numbers of live streams to serve at once, separated by commas; or 0."),
    ] = "16",
    starts: Annotated[
        bool,
        typer.Option(help="Measure start-up, memory and allocations too, a process each."),
    ] = True,
    rounds: Rounds = None,
    only: Only = None,
    contender: Outside = None,
    json_file: JsonFile = None,
    markdown: MarkdownFile = None,
    html: HtmlFile = None,
) -> None:
    """Your own model on every road, and which of them to take for what.

    Steps, whole sequences, calls at random moments or at your --rate, many streams at once; then
    process start, memory, allocations and size on disk.
    """
    if rate is None and block != 1:
        raise typer.BadParameter("is for --rate: add that", param_hint="--block")
    counts = () if streams.strip() == "0" else tuple(_sizes(streams, "--streams"))
    _need_extra()
    import fastlstm
    from fastlstm.bench import presets

    network = fastlstm.load(file)
    room_for(json_file, markdown, html)
    plan = presets.own_model(
        _contenders(only, contender), file.stem, network, rate_hz=rate, block=block, streams=counts
    )
    if not starts:
        plan = presets.without_starts(plan)
    _measure(presets.with_rounds(plan, rounds), json_file, markdown, html)


@app.command(epilog="Example: fastlstm bench compare before.json after.json")
def compare(
    before: Annotated[Path, typer.Argument(metavar="A.json", help="An earlier result.")],
    after: Annotated[Path, typer.Argument(metavar="B.json", help="A later one.")],
    markdown: MarkdownFile = None,
) -> None:
    """What changed from one result to another beyond the noise, what moved most first."""
    _need_extra()
    from fastlstm.bench.reports import comparison, document
    from fastlstm.bench.reports.compare import compare as held_together

    room_for(markdown)
    found = held_together(document.read(before), document.read(after))
    console().print(comparison.to_terminal(found))
    if markdown is not None:
        _write(markdown, comparison.to_markdown(found))


@app.command(epilog="Example: fastlstm bench report bench.json --html bench.html")
def report(
    result: Annotated[Path, typer.Argument(metavar="RESULT.json", help="A result of a preset.")],
    markdown: MarkdownFile = None,
    html: HtmlFile = None,
    readme: Annotated[
        Path | None,
        typer.Option(help="Put the table of a ladder between the markers of this file."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw a ladder here (.svg), with the floor.")
    ] = None,
) -> None:
    """Show a result once more, or write it as Markdown, as a page, or into a README."""
    _need_extra()
    from fastlstm.bench.reports import document
    from fastlstm.bench.reports import readme as section

    found = document.read(result)
    room_for(markdown, html, readme, plot)
    if readme is not None:
        _write(readme, section.replace(readme.read_text("utf-8"), section.section(found)))
    if plot is not None:
        section.write_plot(found, plot)
        typer.echo(f"wrote {plot}")
    if readme is None and plot is None and markdown is None and html is None:
        _show(found)
    _reports(found, markdown, html, result)


@app.command(epilog="Example: fastlstm bench roofline --cell GRU --plot roofline.png")
def roofline(
    hidden: Annotated[
        str | None,
        typer.Option(help="Hidden sizes, separated by commas; 15 from 8 to 1024 unless told."),
    ] = None,
    cell: Annotated[Cell, typer.Option(help="The layer.")] = Cell.LSTM,
    plot: Annotated[Path | None, typer.Option(help="Draw both here (.png).")] = None,
    json_file: JsonFile = None,
) -> None:
    """Time a layer's step beside a loop that only loads the same weights."""
    from fastlstm import cli_tables
    from fastlstm.bench.floor import roofline as floor
    from fastlstm.cli_output import write_json

    sizes = floor.SIZES if hidden is None else _sizes(hidden)
    room_for(json_file, plot)
    with telling("Timing") as tell:
        result = floor.measure_roofline(sizes, cell.value, progress=tell)
    console().print(cli_tables.roofline(result))
    if plot is not None:
        floor.draw(result, plot)
        typer.echo(f"wrote {plot}")
    write_json(json_file, result.to_dict())


def _preset(
    name: str,
    rounds: int | None,
    only: str | None,
    outside: list[str] | None,
    files: tuple[Path | None, Path | None, Path | None],
    **settings: Any,
) -> None:
    _need_extra()
    from fastlstm.bench import presets

    room_for(*files)
    make: Callable[..., Plan] = getattr(presets, name)
    plan = make(_contenders(only, outside), **settings)
    _measure(presets.with_rounds(plan, rounds), *files)


def _contenders(only: str | None, outside: list[str] | None) -> Sequence[Contender]:
    """All of the list or those asked for, ours among them, and what runs outside Python."""
    from fastlstm.bench.contenders import contender_list
    from fastlstm.bench.contenders.pipe import pipe_contender

    chosen = list(contender_list.CONTENDERS)
    if only is not None:
        wanted = {contender_list.named(name.strip()).name for name in only.split(",")}
        wanted |= set(contender_list.OURS.values())
        chosen = [one for one in chosen if one.name in wanted]
    chosen += [pipe_contender(command) for command in outside or ()]
    names = [one.name for one in chosen]
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"bench: expected contenders of different names, found {name!r} twice: let the "
                "program given by --contender call itself something else"
            )
    return chosen


def _measure(plan: Plan, json_file: Path | None, markdown: Path | None, html: Path | None) -> None:
    from fastlstm.bench.benchmark import benchmark
    from fastlstm.bench.reports import document

    with telling("Timing") as tell:
        found = benchmark(plan, command=_command(), progress=tell)
    # First of all, so that minutes of measuring are kept whatever happens to a table or a page.
    if json_file is not None:
        document.write(found, json_file)
    _show(found)
    if json_file is not None:
        typer.echo(f"wrote {json_file}")
    _reports(found, markdown, html, json_file)


def _show(found: Document) -> None:
    from fastlstm.bench.reports import terminal

    console().print(terminal.report(found))


def _reports(
    found: Document, markdown: Path | None, html: Path | None, json_file: Path | None
) -> None:
    if markdown is not None:
        from fastlstm.bench.reports.markdown import report

        _write(markdown, report(found))
    if html is not None:
        from fastlstm.bench.reports.page import page

        _write(html, page(found, json_file.name if json_file is not None else ""))


def _write(path: Path, text: str) -> None:
    path.write_text(text, "utf-8")
    typer.echo(f"wrote {path}")


def _command() -> str:
    """What was typed, without the folders of this machine."""
    words = [Path(word).name if "/" in word else word for word in sys.argv[1:]]
    return shlex.join(["fastlstm", *words])


def _need_extra() -> None:
    """Raise MissingExtraError for what the benchmark and its reports cannot do without."""
    for module in ("pydantic", "hdrh", "matplotlib", "jinja2"):
        if importlib.util.find_spec(module) is None:
            name = "hdrhistogram" if module == "hdrh" else module
            raise MissingExtraError(name, "bench", "fastlstm bench")


def _sizes(text: str, option: str = "--hidden") -> list[int]:
    try:
        sizes = [int(word) for word in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1:
        raise typer.BadParameter(
            f"expected sizes of at least 1, separated by commas, such as 8,32,64; found {text!r}",
            param_hint=option,
        )
    return sizes
