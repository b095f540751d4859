"""What a goal is, how a part of them is measured, and the settings that all parts share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .timing import Clock

Tell = Callable[[str], None]
Figure = float | str | None


@dataclass(frozen=True)
class Row:
    """One measured value and the goal that it should not exceed; None is no goal, or no value."""

    what: str
    measured: float | None
    goal: float | None = None
    # What the value was computed from, by column.
    figures: dict[str, Figure] = field(default_factory=dict)
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None where there is none. Not measured is not met."""
        if self.goal is None:
            return None
        return self.measured is not None and self.measured <= self.goal


@dataclass(frozen=True)
class Settings:
    """How long and how often the parts measure."""

    rounds: int = 15
    steps: int = 1000
    # Of the loops that are timed by one call from Python: see roofline.LEAST_STEPS.
    long_steps: int = 20_000
    # The hidden sizes to keep of those that a part has; None keeps all.
    sizes: tuple[int, ...] | None = None
    single_calls: int = 1_000_000
    warm_starts: int = 5
    cold_starts: int = 2
    clock: Clock = perf_counter_ns
    # Figures of a run that only shows that everything works.
    quick: bool = False

    def keep(self, sizes: Any) -> list[int]:
        """Those of a part's hidden sizes that are to be measured."""
        return [size for size in sizes if self.sizes is None or size in self.sizes]

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain data, for JSON."""
        return {name: value for name, value in asdict(self).items() if name != "clock"}


QUICK = Settings(
    rounds=1,
    steps=50,
    long_steps=1000,
    sizes=(8, 32, 64),
    single_calls=10_000,
    warm_starts=1,
    cold_starts=1,
    quick=True,
)


@dataclass(frozen=True)
class Part:
    """A group of goals of one kind, and the function that measures them."""

    title: str
    # What "measured" is: quantity, unit and how it was taken.
    measured_as: str
    measure: Callable[[Settings, Tell], list[Row]]
