"""Who is timed: every road of fastlstm.roads, our stream by its cheapest call."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fastlstm import reference
from fastlstm.roads import ROADS, Road, StreamSession
from fastlstm.verify import truth, try_road

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastlstm.export.sessions import Session
    from fastlstm.model import Model
    from fastlstm.verify import Row as Verdict
    from fastlstm.verify import Truth

STEP, SEQUENCE = "step", "sequence"
# What the ratios of each mode are taken to.
OURS = {STEP: "stream, by push", SEQUENCE: "stream, by run"}


@dataclass(frozen=True)
class Contender:
    """One road being timed: `call` takes one sample, or in SEQUENCE mode a whole block."""

    name: str
    mode: str
    call: Callable[[Any], Any]
    reset: Callable[[], None]


def mode_of(road: Road) -> str:
    """Which table a road belongs to."""
    return STEP if road.by_step else SEQUENCE


def checked(road: Road, model: Model, true: Truth) -> tuple[Contender | None, Verdict]:
    """Open a road, judge it and, if it is right, hand on the same session for timing.

    Opened once, because AOTInductor and torch.compile build C++ each time.
    """
    opened: list[Session] = []

    def keep(of: Model) -> Session:
        opened.append(road.open(of))
        return opened[0]

    verdict = try_road(replace(road, open=keep), model, true)
    return (_contender(road, opened[0]) if verdict.verdict == "ok" else None), verdict


def _contender(road: Road, session: Session) -> Contender:
    call: Callable[[Any], Any] = session.step if road.by_step else session.run
    if isinstance(session, StreamSession):
        # Our own methods themselves: the session is a frame around them for `verify`, and copies
        # what a caller of `push` reads in place.
        stream = session.stream
        by_push = road.name == OURS[STEP]
        call = stream.run if not road.by_step else stream.push if by_push else stream.step
    return Contender(road.name, mode_of(road), call, session.reset)


def check_truth(model: Model, steps: int = 300) -> Truth:
    """What a contender must compute before it is timed, over fewer steps for a great model."""
    steps = min(steps, max(20, (1 << 30) // model.num_parameters))
    return truth(model, reference.check_input(model, steps, seed=1))


def road_named(name: str) -> Road:
    """The road of that name, one of fastlstm.roads."""
    (road,) = (road for road in ROADS if road.name == name)
    return road


def our_contender(model: Model, mode: str, true: Truth | None = None) -> tuple[Contender, float]:
    """Our stream by its fastest call of a mode, and its error; ArithmeticError if it is wrong."""
    contender, verdict = checked(road_named(OURS[mode]), model, true or check_truth(model))
    if contender is None:
        raise ArithmeticError(f"{verdict.road}: {refusal(verdict)}")
    return contender, verdict.max_abs_error


def refusal(verdict: Verdict) -> str:
    """Why a road is not timed, in words."""
    if verdict.verdict == "wrong":
        return (
            f"refused: differs from the reference by {verdict.max_abs_error:.2e}, "
            f"allowed {verdict.bound:.2e}"
        )
    return f"{verdict.verdict}: {verdict.note}"


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
