"""Who the goals time: a road of fastlstm.roads, our stream by its cheapest call."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fastlstm import reference
from fastlstm.roads import ROADS, Road, StreamSession
from fastlstm.verify import truth, try_road

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlstm.export.sessions import Session
    from fastlstm.model import Model
    from fastlstm.verify import Row as Verdict
    from fastlstm.verify import Truth

STEP, SEQUENCE = "step", "sequence"
# Our own road of each mode.
OURS = {STEP: "stream, by push", SEQUENCE: "stream, by run"}


@dataclass(frozen=True)
class Contender:
    """One road being timed: `call` takes one sample, or in SEQUENCE mode a whole block."""

    name: str
    mode: str
    call: Callable[[Any], Any]
    reset: Callable[[], None]


def checked(road: Road, model: Model, true: Truth) -> tuple[Contender | None, Verdict]:
    """Open a road, judge it and, if it is right, hand on the same session for timing.

    Opened once, so that what was found right is the very thing that is timed.
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
    return Contender(road.name, STEP if road.by_step else SEQUENCE, call, session.reset)


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
