"""Sequences made on the spot: waves, chaos, and the small tasks that networks are tried on.

The same generator makes the same values, whatever else is asked for beyond their end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlstm.train.recipe_tables import Generator

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Generated:
    """What a generator made: columns by name, the sequences one after the other."""

    columns: dict[str, Floats]  # each (time,)
    lengths: tuple[int, ...]
    beyond: dict[str, Floats]  # each (sequences, steps): what follows the end of each sequence
    value: str  # the column that is meant where none is named


@dataclass(frozen=True)
class _Draw:
    """A generator with its ranges drawn from, and where the rest of its chance comes from."""

    table: Generator
    samples: int
    sequences: int
    period: int
    rng: np.random.Generator

    @property
    def t(self) -> Floats:
        """The steps of a sequence and those beyond its end."""
        return np.arange(self.samples + self.table.beyond, dtype=np.float64)


def make(table: Generator) -> Generated:
    """Make what `table` describes; values have no unit."""
    # A seed of its own, so that the noise of a series does not hang on what else is drawn.
    rng = np.random.default_rng([table.seed, 1])
    samples, sequences, period = (
        int(rng.integers(low, high, endpoint=True))
        for low, high in (table.samples, table.sequences, table.period)
    )
    made = _KINDS[table.kind](_Draw(table, samples, sequences, period, rng))
    names = ("minute", "value") if table.kind == "minutes" else (table.kind,)
    lengths = tuple(one.shape[1] - table.beyond for one in made)
    inside = np.concatenate([one[:, :n] for one, n in zip(made, lengths, strict=True)], axis=1)
    beyond = np.stack([one[:, n:] for one, n in zip(made, lengths, strict=True)], axis=1)
    # A minute has no noise; of all others the last column is the only one.
    noise = np.random.default_rng(table.seed)
    inside[-1] += table.noise * noise.standard_normal(inside.shape[1])
    beyond[-1] += table.noise * noise.standard_normal(beyond.shape[1:])
    return Generated(
        dict(zip(names, inside, strict=True)),
        lengths,
        dict(zip(names, beyond, strict=True)),
        names[-1],
    )


def _sine(draw: _Draw) -> list[Floats]:
    return [np.sin(2 * np.pi * draw.t[None] / draw.period)]


def _two_sines(draw: _Draw) -> list[Floats]:
    t = draw.t[None]
    return [np.sin(2 * np.pi * t / 40) + 0.5 * np.sin(2 * np.pi * t / 17)]


def _cosine(draw: _Draw) -> list[Floats]:
    return [np.cos(draw.table.gap * draw.t[None])]


def _mackey_glass(draw: _Draw) -> list[Floats]:
    """The series of x' = 0.2 x(t - 17) / (1 + x(t - 17)**10) - 0.1 x, by Euler steps of 0.1.

    M. C. Mackey and L. Glass, Science 197 (1977), with the delay that makes it weakly chaotic.
    """
    per_unit, settling = 10, 300
    delay = 17 * per_unit
    x = np.full(delay + (len(draw.t) + settling) * per_unit, 1.2)
    for t in range(delay, len(x)):
        late = x[t - delay]
        x[t] = x[t - 1] + (0.2 * late / (1 + late**10) - 0.1 * x[t - 1]) / per_unit
    return [x[None, delay + settling * per_unit :: per_unit]]


def _waves(draw: _Draw) -> list[Floats]:
    """Waves of one period and of random phases, whole numbers in [-phase, phase)."""
    phase = draw.table.phase
    phases = draw.rng.integers(-phase, max(phase, 1 - phase), draw.sequences)
    waves = np.sin((draw.t + phases[:, None]) / draw.period)
    if draw.table.shape == "cos_sin_squared":
        waves = np.cos(waves**2)
    return list(waves[:, None])


def _minutes(draw: _Draw) -> list[Floats]:
    """Columns minute and value = 1.6 minute + 4 + an offset, normal with mean 10, deviation 1."""
    offsets = draw.rng.normal(10.0, 1.0, draw.sequences)
    return [np.stack([draw.t, 1.6 * draw.t + 4 + offset]) for offset in offsets]


def _ball(draw: _Draw) -> list[Floats]:
    """Uniform motion: 5 to 10 positions from -10..10 on, by -5..5 a step, but never at rest."""
    n, beyond = draw.sequences, draw.table.beyond
    lengths = draw.rng.integers(5, 10, n, endpoint=True)
    starts = draw.rng.integers(-10, 10, n, endpoint=True)
    steps = draw.rng.integers(1, 5, n, endpoint=True) * draw.rng.choice([-1, 1], n)
    return [
        (start + step * np.arange(length + beyond, dtype=np.float64))[None]
        for length, start, step in zip(lengths, starts, steps, strict=True)
    ]


# Each gives its sequences as arrays of shape (columns, steps and those beyond the end).
_KINDS: dict[str, Callable[[_Draw], list[Floats]]] = {
    "sine": _sine,
    "two_sines": _two_sines,
    "cosine": _cosine,
    "mackey_glass": _mackey_glass,
    "waves": _waves,
    "minutes": _minutes,
    "ball": _ball,
}
