"""Generators: each kind against its formula, the same seed, and what follows the end."""

import numpy as np
import pytest

from fastlstm.errors import RecipeError, SeriesError
from fastlstm.train.recipe import load_recipe
from fastlstm.train.recipe_tables import Generator, SeriesTable
from fastlstm.train.series import generate, load_series


def made(kind, **options):
    return generate(Generator(kind=kind, **options))


def sequences(series):
    return np.split(series.inputs[:, 0], np.cumsum(series.lengths)[:-1])


FORMULAS = {
    "sine": lambda t: np.sin(2 * np.pi * t / 25),
    "two_sines": lambda t: np.sin(2 * np.pi * t / 40) + np.sin(2 * np.pi * t / 17) / 2,
    "cosine": lambda t: np.cos(0.03 * t),
}


@pytest.mark.parametrize("kind", FORMULAS)
def test_one_sequence_is_its_formula_to_the_end_and_beyond(kind):
    series = made(kind, samples=300, period=25, gap=0.03, beyond=7)
    expected = FORMULAS[kind](np.arange(307))
    np.testing.assert_allclose(series.inputs[:, 0], expected[:300], atol=1e-12)
    np.testing.assert_allclose(series.beyond[0, :, 0], expected[300:], atol=1e-12)
    assert series.beyond.shape == (1, 7, 1)
    assert series.lengths == (300,)
    assert series.input_columns == series.target_columns == (kind,)
    assert np.array_equal(series.time, np.arange(300))


def test_noise_is_seeded_and_does_not_hang_on_what_follows_the_end():
    clean = FORMULAS["two_sines"](np.arange(2000))
    noisy = made("two_sines", noise=0.02).inputs[:, 0]
    expected = clean + 0.02 * np.random.default_rng(0).standard_normal(2000)
    np.testing.assert_allclose(noisy, expected, atol=1e-12)
    longer = made("two_sines", noise=0.02, beyond=50)
    assert np.array_equal(longer.inputs[:, 0], noisy)
    after = longer.beyond[0, :, 0] - FORMULAS["two_sines"](np.arange(2000, 2050))
    assert 0.01 < after.std() < 0.03
    assert not np.array_equal(made("two_sines", noise=0.02, seed=1).inputs[:, 0], noisy)


def test_mackey_glass_solves_its_equation():
    x = made("mackey_glass", samples=600).inputs[:, 0]
    assert x.shape == (600,)
    # The integral form over one unit, by Simpson's rule on samples two apart.
    t = np.arange(40, 590)

    def slope(k):
        return 0.2 * x[k - 17] / (1 + x[k - 17] ** 10) - 0.1 * x[k]

    moved = (slope(t) + 4 * slope(t + 1) + slope(t + 2)) / 3
    np.testing.assert_allclose(x[t + 2] - x[t], moved, atol=0.01)
    beyond = made("mackey_glass", samples=550, beyond=50).beyond
    assert np.array_equal(beyond[0, :, 0], x[550:])


@pytest.mark.parametrize("shape", ["sine", "cos_sin_squared"])
def test_waves_have_one_period_and_whole_phases(shape):
    series = made(
        "waves", samples=200, sequences=100, period=20, phase=80, beyond=30, seed=3, shape=shape
    )
    assert series.lengths == (200,) * 100
    # Every whole phase there is, in an independent writing; each wave must be one of them.
    phases = np.arange(-80, 80)
    t = np.arange(230)
    expected = np.sin((t[None, :] + phases[:, None]) / 20)
    if shape == "cos_sin_squared":
        expected = np.cos(expected**2)
    whole = np.concatenate([np.stack(sequences(series)), series.beyond[:, :, 0]], axis=1)
    distance = np.abs(whole[:, None, :] - expected[None]).max(2)
    assert distance.min(1).max() < 1e-12
    found = phases[distance.argmin(1)]
    # Of 160 phases 100 draws meet about 74, and some in each quarter.
    assert len(set(found)) > 60
    assert np.histogram(found, bins=4, range=(-80, 80))[0].min() > 10


def test_waves_without_a_phase_are_alike():
    series = made("waves", samples=50, sequences=3, phase=0, period=9)
    for wave in sequences(series):
        np.testing.assert_allclose(wave, np.sin(np.arange(50) / 9), atol=1e-12)


def test_ranges_are_drawn_from_once_and_by_the_seed():
    options = {"samples": (20, 60), "sequences": (2, 30), "period": (5, 50)}
    drawn = [made("waves", **options, seed=seed) for seed in range(40)]
    for series in drawn:
        assert len(set(series.lengths)) == 1
        assert 20 <= series.lengths[0] <= 60
        assert 2 <= len(series.lengths) <= 30
    assert len({series.lengths for series in drawn}) > 30
    again = made("waves", **options, seed=7)
    assert again.lengths == drawn[7].lengths
    assert np.array_equal(again.inputs, drawn[7].inputs)
    # Both ends belong to the range.
    ends = {made("sine", samples=(2, 3), seed=seed).lengths[0] for seed in range(20)}
    assert ends == {2, 3}


def test_minutes_rise_from_an_offset_of_each_sequence():
    series = made("minutes", samples=60, sequences=500, beyond=5)
    assert series.input_columns == series.target_columns == ("value",)
    values = np.stack(sequences(series))
    offsets = values[:, 0] - 4
    np.testing.assert_allclose(
        values, 1.6 * np.arange(60) + 4 + offsets[:, None], rtol=0, atol=1e-12
    )
    np.testing.assert_allclose(
        series.beyond[:, :, 0], 1.6 * np.arange(60, 65) + 4 + offsets[:, None], atol=1e-12
    )
    # Five standard errors of the mean and of the deviation of 500 normal numbers.
    assert abs(offsets.mean() - 10) < 5 / 500**0.5
    assert abs(offsets.std() - 1) < 5 / 1000**0.5


def test_columns_of_a_generator_can_be_chosen():
    generator = Generator(kind="minutes", samples=4, sequences=2, beyond=1, noise=0.5)
    table = SeriesTable(generator=generator, input=("minute",), target="value")
    series = load_series(table)
    assert series.inputs[:, 0].tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert series.time.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert np.array_equal(series.targets, generate(generator).targets)
    assert series.beyond.shape == (2, 1, 1)
    known = load_series(SeriesTable(generator=generator, known_ahead=("minute",)))
    assert known.input_columns == ("value",)
    assert known.known_columns == ("minute",)
    assert known.known[:, 0].tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    with pytest.raises(
        SeriesError,
        match=r"minutes has no column hour; it has minute, value: name one of them as `input`",
    ):
        load_series(SeriesTable(generator=generator, input="hour"))


def test_balls_move_uniformly():
    series = made("ball", sequences=2000, beyond=3)
    assert series.input_columns == ("ball",)
    balls = sequences(series)
    starts = {ball[0] for ball in balls}
    steps = {ball[1] - ball[0] for ball in balls}
    assert starts == set(range(-10, 11))
    assert steps == {-5, -4, -3, -2, -1, 1, 2, 3, 4, 5}
    assert set(series.lengths) == {5, 6, 7, 8, 9, 10}
    for ball, beyond in zip(balls, series.beyond[:, :, 0], strict=True):
        whole = np.concatenate([ball, beyond])
        assert np.array_equal(whole, ball[0] + (ball[1] - ball[0]) * np.arange(len(whole)))
    # Uniform: each of 10 steps about 200 times of 2000, within five deviations.
    counts = np.bincount([int(ball[1] - ball[0]) + 5 for ball in balls], minlength=11)
    assert np.abs(np.delete(counts, 5) - 200).max() < 5 * (2000 * 0.1 * 0.9) ** 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "sine", "samples": 1}, "samples: expected a whole number of at least 2, or"),
        ({"kind": "waves", "period": [9, 5]}, "period: expected a whole number of at least 1"),
        (
            {"kind": "waves", "period": [9]},
            "period: expected a whole number, or [least, most], found [9]",
        ),
        ({"kind": "waves", "period": [9, 10.5]}, "period[1]: expected a whole number, found 10.5"),
        ({"kind": "waves", "period": "9"}, "expected a whole number, or [least, most], found '9'"),
        (
            {"kind": "cosine", "sequences": 2},
            'sequences: "waves", "minutes" and "ball" make several, found [2, 2] with "cosine"',
        ),
        ({"kind": "balls"}, "expected one of sine, two_sines, cosine, mackey_glass, waves, min"),
    ],
)
def test_faults_of_a_generator(options, message):
    with pytest.raises(RecipeError) as error:
        load_recipe("sine", overrides={"series.generator": options})
    assert "sine.toml: series.generator" in str(error.value)
    assert message in str(error.value)
