"""Who is timed: every road of fastlstm.roads, our stream by its cheapest call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastlstm.roads import Road, StreamSession

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlstm.model import Model

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


def open_contender(road: Road, model: Model) -> Contender:
    """Open a road for timing; raises whatever its library raises."""
    session = road.open(model)
    call: Callable[[Any], Any] = session.step if road.by_step else session.run
    if isinstance(session, StreamSession):
        # Our own methods themselves: the session is a frame around them for `verify`, and copies
        # what a caller of `push` reads in place.
        stream = session.stream
        by_push = road.name == OURS[STEP]
        call = stream.run if not road.by_step else stream.push if by_push else stream.step
    return Contender(road.name, mode_of(road), call, session.reset)
