"""The clock that everything here is timed by. Tests put another one in its place."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter_ns, sleep
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# A sleeping thread wakes up to this late on an idle machine, so the last part of a wait spins.
SPIN_NS = 300_000


@dataclass(frozen=True)
class Clock:
    """`now` looks at the time, in nanoseconds; `sleep` takes seconds."""

    now: Callable[[], int] = perf_counter_ns
    sleep: Callable[[float], None] = sleep

    def wait_until(self, due_ns: int) -> None:
        """Come back at `due_ns` or as soon after as this thread can; at once if it is past."""
        now = self.now
        left = due_ns - now()
        if left > 2 * SPIN_NS:
            self.sleep((left - SPIN_NS) / 1e9)
        while now() < due_ns:
            pass
