"""One run of the benchmark: open, check, time in rounds, and put what was found into a Document."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from statistics import median
from time import monotonic
from typing import TYPE_CHECKING, Any

from fastlstm import reference

from . import machine
from .contenders.contender_list import CONTENDERS, OUR_NAMES, OURS
from .contenders.pipe import PipeSession, round_trip_ns
from .floor.session import NAME as FLOOR
from .floor.session import floor_sessions
from .goals.tail import pinned
from .reports.advice import advise
from .reports.document import ContenderInfo, Document, ModelInfo, Published, Row, Start
from .reports.wording import duration
from .startup.measure import measure_starts
from .timing.admission import Judge, Verdict, open_session
from .timing.clock import Clock
from .timing.local import LocalDriver, drive
from .timing.modes import CLOSED, SEQUENCE, Mode, Turn
from .timing.noise import Watch
from .timing.results import row_of
from .timing.rounds import interleave
from .timing.statistics import CONFIDENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fastlstm.model import Model

    from .contenders.contender import Contender
    from .timing.rounds import Taking

    Key = tuple[str, str]

# A turn of a slow contender takes part in the first so many rounds only, by its seconds.
FEWER_ROUNDS = ((5.0, 3), (1.0, 7))
# Of a whole sequence: so many parameters times time steps at the most, and so many steps at least.
SEQUENCE_WORK, LEAST_SEQUENCE = 400_000_000, 100


@dataclass(frozen=True)
class Plan:
    """What is timed: models by name, in which modes, by whom and how often."""

    preset: str
    models: Mapping[str, Model]
    modes: tuple[Mode, ...]
    contenders: tuple[Contender, ...] = CONTENDERS
    rounds: int = 15
    floor: bool = True
    # Processes a contender, for process start to first output; 0 leaves the start-up out.
    cold_starts: int = 0
    warm_starts: int = 0
    published: tuple[Published, ...] = ()
    hidden: Mapping[str, int] = field(default_factory=dict)  # of plain models, by name
    seed: int = 0

    def settings(self) -> dict[str, Any]:
        """What a reader of the document wants to know of these."""
        return {
            "rounds": self.rounds,
            "seed": self.seed,
            "cold_starts": self.cold_starts,
            "warm_starts": self.warm_starts,
        }


def benchmark(
    plan: Plan,
    *,
    command: str = "",
    clock: Clock | None = None,
    progress: Callable[[str], None] = lambda words: None,
) -> Document:
    """Run a plan on this machine, one thread, and return what was found.

    A contender that is missing, refuses a model, or whose numbers are not the reference's is a
    row with a note instead of times.
    """
    clock = clock or Clock()
    started, begin = datetime.now(UTC), monotonic()
    watch = Watch()
    with one_thread(), ExitStack() as opened:
        about = machine.describe()
        entries = _Entries(plan, clock, opened, progress)
        with pinned():
            taken = interleave(
                entries.groups,
                plan.rounds,
                seed=plan.seed,
                fewer=entries.fewer,
                tick=watch.tick,
                progress=progress,
            )
        rows = entries.rows(taken)
        noise = watch.noise()
    document = Document(
        preset=plan.preset,
        command=command,
        started=started.isoformat(timespec="seconds"),
        seconds=round(monotonic() - begin, 1),
        machine=about,
        noise=noise,
        settings=plan.settings(),
        confidence=CONFIDENCE,
        contenders=_infos(plan, entries.round_trips),
        modes=tuple(mode.info(OURS[mode.needs]) for mode in plan.modes),
        models=tuple(_model_info(plan, name, model) for name, model in plan.models.items()),
        rows=tuple(rows),
        starts=_starts(plan, progress),
        published=plan.published,
    )
    # What to take is a question about one model, not about a ladder of made-up ones.
    advice = advise(document) if len(plan.models) == 1 else ()
    return document.model_copy(update={"advice": advice})


class _Entries:
    """Every contender on every model in every mode: opened, checked, sized, and then timed."""

    def __init__(
        self,
        plan: Plan,
        clock: Clock,
        opened: ExitStack,
        progress: Callable[[str], None],
    ) -> None:
        self.plan, self.clock, self.opened = plan, clock, opened
        self.groups: dict[Key, dict[str, Callable[[int], Any]]] = {}
        self.fewer: dict[tuple[Key, str], int] = {}
        self.verdicts: dict[tuple[Key, str], Verdict] = {}
        # Of contenders behind a pipe: median nanoseconds of an exchange that computes nothing.
        self.round_trips: dict[str, float] = {}
        self.modes = {(m, mode.name): fitting(mode, model) for m, model in plan.models.items()
                      for mode in plan.modes}  # fmt: skip
        for name, model in plan.models.items():
            self._enter(name, model, progress)

    def _enter(self, name: str, model: Model, progress: Callable[[str], None]) -> None:
        judge = Judge(model)
        modes = [self.modes[name, mode.name] for mode in self.plan.modes]
        longest = max(mode.samples() for mode in modes)
        x = reference.check_input(model, longest, seed=2)
        for mode in modes:
            self.groups[name, mode.name] = {}
        for contender in self.plan.contenders:
            progress(f"{name}: opening and checking {contender.name}")
            session, reason = open_session(contender, model)
            if session is None:
                for mode in modes:
                    if not left_out(contender, mode):
                        self.verdicts[(name, mode.name), contender.name] = Verdict(reason=reason)
                continue
            self.opened.callback(session.close)
            if isinstance(session, PipeSession) and contender.name not in self.round_trips:
                self.round_trips[contender.name] = median(round_trip_ns(session))
            checked: dict[Any, Verdict] = {}
            driver = drive(session, self.clock)
            for mode in modes:
                if left_out(contender, mode):
                    continue
                way = mode.way(contender.can), mode.streams
                if way not in checked:
                    checked[way] = judge.check(session, contender, *way)
                verdict = checked[way]
                if not verdict.reason:
                    turn = Turn(mode, driver, x[: mode.samples()], self.plan.seed)
                    verdict = self._sized((name, mode.name), contender.name, turn, verdict)
                self.verdicts[(name, mode.name), contender.name] = verdict
        if self.plan.floor and not model.bidirectional:
            self._add_floor(name, model, modes, x)

    def _sized(self, key: Key, contender: str, turn: Turn, verdict: Verdict) -> Verdict:
        """Enter the turn; how long it will take is found here, once."""
        try:
            step_ns = turn.size()
        except Exception as error:  # a foreign runtime may raise anything; the others go on
            return Verdict(reason=f"failed: {type(error).__name__}: {error}".splitlines()[0])
        seconds = step_ns * turn.time_steps() / 1e9
        for least, rounds in FEWER_ROUNDS:
            if seconds > least:
                self.fewer[key, contender] = rounds
                break
        self.groups[key][contender] = turn
        return verdict

    def _add_floor(self, name: str, model: Model, modes: list[Mode], x: Any) -> None:
        for mode in modes:
            if mode.kind not in (CLOSED, SEQUENCE):
                continue
            # In one call for many passes, also beside single steps: it is the weights that are
            # loaded, not a call.
            of = fitting(Mode(SEQUENCE), model)
            for way, session in floor_sessions(model).items():
                turn = Turn(of, LocalDriver(session, self.clock), x[: of.steps])  # type: ignore[arg-type]
                turn.size()
                self.groups[name, mode.name][way] = turn

    def rows(self, taken: Mapping[Key, Mapping[str, Taking]]) -> list[Row]:
        """One row for each contender on each model in each mode, the fastest first."""
        rows = []
        for key in self.groups:
            mode = self.modes[key]
            ours = taken[key].get(OURS[mode.needs])
            found = []
            for contender in self.plan.contenders:
                if (verdict := self.verdicts.get((key, contender.name))) is None:
                    continue
                taking = taken[key].get(contender.name)
                found.append(row_of(key, contender.name, mode, verdict, taking, ours))
            floors = [taking for name, taking in taken[key].items() if name.startswith(FLOOR)]
            if floors:
                best = min(floors, key=_median)
                found.append(row_of(key, FLOOR, mode, Verdict(), best, ours, tail=False))
            rows += sorted(found, key=lambda row: (row.ns is None, row.ns.value if row.ns else 0))
        return rows


def _median(taking: Taking) -> float:
    times = [taken.step_ns for taken in taking.rounds.values()]
    return median(times) if times else float("inf")


def left_out(contender: Contender, mode: Mode) -> bool:
    """Whether a call of our own runtime is not for a mode, because another of its calls is."""
    return contender.name in OUR_NAMES and mode.needs not in contender.can


def fitting(mode: Mode, model: Model) -> Mode:
    """The mode for this model: a whole sequence is shorter for a great network."""
    if mode.kind != SEQUENCE:
        return mode
    fit = max(LEAST_SEQUENCE, SEQUENCE_WORK // model.num_parameters)
    return replace(mode, steps=min(mode.steps, fit))


def _infos(plan: Plan, round_trips: Mapping[str, float]) -> tuple[ContenderInfo, ...]:
    found = [
        ContenderInfo(
            name=one.name,
            configuration=one.configuration + _exchange(round_trips.get(one.name)),
            version="" if one.missing() else one.version(),
            precision=one.precision,
            ours=one.name in OUR_NAMES,
        )
        for one in plan.contenders
    ]
    if plan.floor:
        words = "no contender: one compiled loop that loads the model's packed weights in order"
        found.append(
            ContenderInfo(
                name=FLOOR, configuration=words, version="", precision="float32", floor=True
            )
        )
    return tuple(found)


def _exchange(round_trip_ns: float | None) -> str:
    """What the pipe costs, for who wonders whether it is in the figures."""
    if round_trip_ns is None:
        return ""
    return f"; an exchange over the pipe takes {duration(round_trip_ns)}, which is in no figure"


def _model_info(plan: Plan, name: str, model: Model) -> ModelInfo:
    chain = ", ".join(
        f"{layer.kind} {layer.input_size} to {layer.output_size}" for layer in model.layers
    )
    return ModelInfo(
        name=name,
        layers=chain,
        inputs=model.input_size,
        outputs=model.output_size,
        parameters=model.num_parameters,
        hidden=plan.hidden.get(name),
    )


def _starts(plan: Plan, progress: Callable[[str], None]) -> tuple[Start, ...]:
    if not plan.warm_starts:
        return ()
    return tuple(
        measure_starts(plan.models, cold=plan.cold_starts, warm=plan.warm_starts, progress=progress)
    )


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one thread, its best setting for one stream; the others set their own."""
    try:
        import torch
    except ImportError:
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
