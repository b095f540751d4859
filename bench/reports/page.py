"""A Document as one HTML page that needs nothing else: no network, no script, no other file."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

from fastlstm.errors import MissingExtraError

from . import facts, plots, sentences, tables
from .plot_style import COLOURS, svg
from .selection import ladders, ladders_of, pairs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from matplotlib.figure import Figure

    from .document import Advice, Document, ModeInfo, ModelInfo
    from .tables import Table

TEMPLATE = "page.html.j2"
# With more pairs of a model and a mode than this, each is folded until it is asked for.
OPEN_PAIRS = 6


@dataclass(frozen=True)
class Plot:
    """One picture: SVG, which is markup already, and what it shows in words."""

    svg: str
    words: str


@dataclass(frozen=True)
class Pair:
    """What there is of one model in one mode."""

    title: str
    table: Table
    plots: tuple[Plot, ...]


@dataclass(frozen=True)
class Part:
    """What there is of one mode: how it went, and over the hidden size where there is a ladder."""

    name: str
    meaning: str
    standing: str
    losses: str
    draws: str
    refusals: tuple[str, ...]
    plots: tuple[Plot, ...]
    matrices: tuple[Table, ...]
    pairs: tuple[Pair, ...]
    lost: bool


def page(document: Document, json_name: str = "") -> str:
    """The page as text, the same for the same document; `json_name` is where its JSON is."""
    try:
        import jinja2
        from markupsafe import Markup
    except ImportError:
        raise MissingExtraError("jinja2", "bench", "a benchmark's page") from None
    numbers = count(1)

    def drawn(figure: Figure, words: str) -> Plot:
        key = f"plot{next(numbers)}"
        # What svg() makes is escaped already, and nothing else is taken for markup.
        return Plot(Markup(svg(figure, words, key=key, themed=True)), words)

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    parts = tuple(_parts(document, drawn))
    text: str = environment.get_template(TEMPLATE).render(
        document=document,
        machine_line=sentences.machine(document),
        sampling=sentences.sampling(document),
        quiet=sentences.quiet(document),
        method=sentences.method(document),
        parts=parts,
        opened=sum(len(part.pairs) for part in parts) <= OPEN_PAIRS,
        starts=facts.starts(document),
        published=facts.published(document) if document.published else None,
        contenders=facts.contenders(document),
        facts=[
            facts.machine(document),
            facts.noise(document),
            facts.settings(document),
            facts.models(document),
        ],
        advised=[_advised(document, one) for one in document.advice],
        json_name=json_name,
        colours=[(one.name, one.light, one.dark) for one in COLOURS],
    )
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip()) + "\n"


def _advised(document: Document, one: Advice) -> dict[str, Any]:
    answer = tables.name_cell(document, one.contender)
    return {"question": one.question, "answer": answer, "reasons": one.reasons}


def _parts(document: Document, drawn: Callable[[Figure, str], Plot]) -> Iterator[Part]:
    for mode in document.modes:
        losses = sentences.losses(document, mode)
        yield Part(
            mode.name,
            mode.meaning,
            sentences.standing(document, mode),
            losses,
            sentences.draws(document, mode),
            tuple(sentences.refusals(document, mode)),
            tuple(_ladder_plots(document, mode, drawn)),
            tuple(
                tables.matrix(document, stem, models, mode)
                for stem, models in ladders_of(document, mode).items()
            ),
            tuple(
                _pair(document, model, mode, drawn) for model, its in pairs(document) if its == mode
            ),
            lost=not losses.endswith("none."),
        )


def _ladder_plots(
    document: Document, mode: ModeInfo, drawn: Callable[[Figure, str], Plot]
) -> Iterator[Plot]:
    for stem, models in ladders_of(document, mode).items():
        words = f"Time of a {mode.unit} by hidden size, {mode.name}: see the table below."
        yield drawn(plots.by_hidden_size(document, stem, models, mode), words)


def _pair(
    document: Document, model: ModelInfo, mode: ModeInfo, drawn: Callable[[Figure, str], Plot]
) -> Pair:
    rows = [row for row in document.rows if (row.model, row.mode) == (model.name, mode.name)]
    where = f"{model.name}, {mode.name}"
    wanted: list[tuple[Callable[..., Figure], str]] = []
    # Of a ladder the ratios are in its table, all sizes beside each other.
    laddered = any(model in models for models in ladders(document).values())
    if any(row.ratio for row in rows) and not laddered:
        wanted.append((plots.ratios, f"Times ours of each contender, {where}: see the table."))
    if any(row.latency for row in rows):
        wanted.append((plots.percentiles, f"Single calls by percentile, {where}."))
    if any(row.ns and row.error is not None for row in rows):
        wanted.append((plots.error_by_speed, f"Greatest error against time, {where}."))
    return Pair(
        where,
        tables.of_mode(document, model, mode),
        tuple(drawn(draw(document, model, mode), words) for draw, words in wanted),
    )
