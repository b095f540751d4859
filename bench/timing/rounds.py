"""Rounds: every contender once in each, in a new order each time.

Machines drift from second to second, so contenders that are compared take their turns right after
one another, and a ratio is only taken between times of one round.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from .driver import Taken

Key = TypeVar("Key", bound=Hashable)
# A turn is given the number of its round.
Group = Mapping[str, Callable[[int], Taken]]


@dataclass
class Taking:
    """What one contender took, by round, or why it is out."""

    rounds: dict[int, Taken] = field(default_factory=dict)
    failure: str = ""


def interleave(
    groups: Mapping[Key, Group],
    rounds: int,
    *,
    seed: int = 0,
    fewer: Mapping[tuple[Key, str], int] | None = None,
    tick: Callable[[], None] = lambda: None,
    progress: Callable[[str], None] = lambda words: None,
) -> dict[Key, dict[str, Taking]]:
    """`rounds` rounds through all groups, each in a new order, and so all contenders within one.

    The rounds of a group lie far apart, so that a drift of the machine is in its interval and not
    in its median. `fewer` gives single contenders, by group and name, that take part in the first
    so many rounds only. `tick` is called before each group. A contender that raises is out from
    then on, with why; the others go on.
    """
    found = {key: {name: Taking() for name in group} for key, group in groups.items()}
    rng = random.Random(seed)
    fewer = fewer or {}
    with no_collector():
        for number in range(rounds):
            keys = list(groups)
            rng.shuffle(keys)
            for place, key in enumerate(keys):
                what = ", ".join(key) if isinstance(key, tuple) else str(key)
                progress(f"round {number + 1} of {rounds}, {place + 1} of {len(keys)}: {what}")
                tick()
                names = list(groups[key])
                rng.shuffle(names)
                for name in names:
                    taking = found[key][name]
                    if taking.failure or number >= fewer.get((key, name), rounds):
                        continue
                    try:
                        taking.rounds[number] = groups[key][name](number)
                    except Exception as error:  # a foreign runtime may raise anything
                        taking.failure = f"{type(error).__name__}: {error}".splitlines()[0]
                gc.collect(0)
    return found


@contextmanager
def no_collector() -> Iterator[None]:
    """Without the garbage collector, whose pauses would hit contenders at random."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
