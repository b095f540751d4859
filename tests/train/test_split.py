"""The split: whose rows each part gets, what of it can be forecast, and the scaling."""

import numpy as np
import pytest

from fastlstm.errors import SeriesError
from fastlstm.train.recipe import load_recipe
from fastlstm.train.series import Series
from fastlstm.train.split import Segment, fit_scaling, split


def recipe_for(**overrides):
    overrides = {key.replace("__", "."): value for key, value in overrides.items()}
    return load_recipe("sine", overrides={"windows.length": 3, **overrides})


def series_of(*lengths, values=None):
    if values is None:
        values = np.arange(float(sum(lengths)))[:, None]
    columns = tuple("abc"[: values.shape[1]])
    return Series("it", "", values, values, columns, columns, np.arange(len(values)), "t", lengths)


def cut(series, **overrides):
    parts = split(series, recipe_for(**overrides))
    return parts.train, parts.validation, parts.test


def test_one_series_is_cut_by_time():
    train, validation, test = cut(series_of(200))
    assert train == (Segment(0, 0, 140),)
    assert validation == (Segment(0, 140, 170),)
    assert test == (Segment(0, 170, 200),)


def test_each_sequence_is_cut_by_time():
    train, validation, test = cut(series_of(100, 40))
    assert train == (Segment(0, 0, 70), Segment(100, 100, 128))
    assert validation == (Segment(0, 70, 85), Segment(100, 128, 134))
    assert test == (Segment(0, 85, 100), Segment(100, 134, 140))


def test_whole_numbers_leave_the_rest_unused():
    table = {"train": 60, "validation": 20, "test": 15}
    train, validation, test = cut(series_of(100, 120), series__split=table)
    assert train == (Segment(0, 0, 60), Segment(100, 100, 160))
    assert validation == (Segment(0, 60, 80), Segment(100, 160, 180))
    assert test == (Segment(0, 80, 95), Segment(100, 180, 195))


@pytest.mark.parametrize("counted", [False, True])
def test_whole_sequences_go_to_each_part(counted):
    table = (
        {"train": 3, "validation": 1, "test": 1, "by": "sequence"}
        if counted
        else {"train": 0.6, "validation": 0.2, "test": 0.2, "by": "sequence"}
    )
    train, validation, test = cut(series_of(9, 8, 7, 6, 5), series__split=table)
    assert train == (Segment(0, 0, 9), Segment(9, 9, 17), Segment(17, 17, 24))
    assert validation == (Segment(24, 24, 30),)
    assert test == (Segment(30, 30, 35),)


def test_without_a_validation_part_the_test_part_chooses():
    for table in (
        {"train": 0.8, "validation": 0.0, "test": 0.2},
        {"train": 80, "validation": 0, "test": 20},
    ):
        parts = split(series_of(100), recipe_for(series__split=table))
        assert parts.train == (Segment(0, 0, 80),)
        assert parts.validation == ()
        assert parts.choosing == parts.test == (Segment(0, 80, 100),)
    parts = split(series_of(100), recipe_for())
    assert parts.choosing == parts.validation


def test_origins_are_the_rows_whose_forecasts_lie_in_the_part():
    for begin, first, end, horizon, direct in np.random.default_rng(0).integers(
        [0, 0, 0, 0, 0], [4, 9, 15, 6, 2], (500, 5)
    ):
        first = max(begin, first)
        if end <= first or (direct and not horizon):
            continue
        expected = [
            row
            for row in range(begin, end)
            if all(
                first <= row + ahead < end
                for ahead in (range(1, horizon + 1) if direct else [horizon])
            )
        ]
        found = Segment(begin, first, end).origins(horizon, bool(direct))
        assert list(found) == expected


@pytest.mark.parametrize(
    ("lengths", "overrides", "message"),
    [
        (
            (100,),
            {"windows__length": 100},
            "it: the training part has 70 of the series' 100 samples, shorter than one window, "
            "which needs 101 (windows.length 100 + windows.horizon 1): give a longer series, a "
            "smaller windows.length or a smaller windows.horizon",
        ),
        (
            (100,),
            {"windows__horizon": 500},
            "the training part has 70 of the series' 100 samples, shorter than one window, which "
            "needs 503 (windows.length 3 + windows.horizon 500)",
        ),
        (
            (100, 60),
            {"windows__length": 70},
            "the training part has at most 70 samples in one stretch, shorter than one window, "
            "which needs 71",
        ),
        (
            (10, 10, 10),
            {"windows__length": 0, "windows__warm_up": 7},
            "the training part has at most 7 samples in one stretch, shorter than one window, "
            "which needs 9 (a step after windows.warm_up 7 + windows.horizon 1): give a longer "
            "series, a smaller windows.warm_up or a smaller windows.horizon",
        ),
        (
            (3,),
            {"windows__length": 1},
            "it: 3 samples leave the validation or the test part empty: give a longer series or "
            "larger fractions in series.split",
        ),
        (
            (3,),
            {
                "windows__length": 1,
                "series__split": {"train": 0.9, "validation": 0.0, "test": 0.1},
            },
            "it: 3 samples leave the test part empty: give",
        ),
        (
            (50, 3),
            {"windows__length": 1},
            "it: 3 samples of sequence 2 leave the validation or the test part empty: give a "
            "longer series or larger fractions in series.split, or give each part whole sequences "
            'with series.split.by = "sequence"',
        ),
        (
            (50,),
            {"series__split__by": "sequence"},
            "it: 1 sequence leaves the validation or the test part empty: give more sequences, or "
            'cut each of them with series.split.by = "time"',
        ),
        (
            (50, 30),
            {"series__split": {"train": 30, "validation": 10, "test": 10}},
            "it: series.split asks for 50 samples of sequence 2, found 30: give a longer series "
            "or smaller parts",
        ),
        (
            (50, 30),
            {"series__split": {"train": 2, "validation": 0, "test": 1, "by": "sequence"}},
            "it: series.split asks for 3 sequences, found 2: give",
        ),
        # A forecast of all 20 steps has no room in 15, one of the twentieth has.
        (
            (100,),
            {"windows__horizon": 20, "windows__direct": True},
            "it: the validation part has at most 15 samples in one stretch, too few for a single "
            "forecast (windows.length 3, windows.horizon 20): give a longer series, a larger "
            "series.split.validation or a smaller windows.horizon",
        ),
        (
            (50, 50, 50, 4),
            {
                "windows__horizon": 4,
                "series__split": {"train": 2, "validation": 1, "test": 1, "by": "sequence"},
            },
            "the test part has at most 4 samples in one stretch, too few for a single forecast",
        ),
        # Where the last step of a whole window puts out the forecast, the window needs room too.
        (
            (50, 50, 50, 10),
            {
                "windows__length": 10,
                "windows__loss_at": "last",
                "series__split": {"train": 2, "validation": 1, "test": 1, "by": "sequence"},
            },
            "the test part has at most 10 samples in one stretch, too few for a single forecast "
            "(windows.length 10, windows.horizon 1)",
        ),
        # Whole sequences begin anew in each part.
        (
            (100,),
            {"windows__length": 0, "windows__warm_up": 14},
            "the validation part has at most 15 samples in one stretch, too few",
        ),
    ],
)
def test_a_part_too_small_names_what_is_too_large(lengths, overrides, message):
    with pytest.raises(SeriesError) as error:
        cut(series_of(*lengths), **overrides)
    assert message in str(error.value)


def test_what_just_has_room_is_taken():
    cut(series_of(100), windows__length=69)
    cut(series_of(100), windows__length=0, windows__warm_up=13)
    cut(series_of(100), windows__horizon=15, windows__direct=True)
    cut(series_of(100), windows__horizon=20)
    cut(series_of(100), windows__horizon=0)
    whole = {"train": 2, "validation": 1, "test": 1, "by": "sequence"}
    cut(series_of(50, 50, 50, 5), windows__horizon=4, series__split=whole)
    for length in (10, 0):
        cut(
            series_of(50, 50, 50, 11),
            windows__length=length,
            windows__loss_at="last",
            series__split=whole,
        )
    # A sequence too short for a window stays where another has room.
    train, _, _ = cut(series_of(50, 3, 50, 50), windows__length=10, series__split=whole)
    assert train == (Segment(0, 0, 50), Segment(50, 50, 53))


def test_scaling_knows_the_training_part_only():
    train = np.random.default_rng(0).normal(50, 7, 140)
    found = []
    for rest in (np.zeros(60), np.full(60, 1e6)):
        recipe = recipe_for()
        series = series_of(200, values=np.concatenate([train, rest])[:, None])
        found.append(fit_scaling(series, split(series, recipe), recipe.series))
    for scaling in found:
        assert scaling.input_mean == pytest.approx([train.mean()], abs=1e-12)
        assert scaling.input_deviation == pytest.approx([train.std()], abs=1e-12)
        assert scaling.target_mean == scaling.input_mean
    assert found[0].input_mean == found[1].input_mean
    assert found[0].input_deviation == found[1].input_deviation


def test_scaling_is_measured_over_the_training_rows_of_all_sequences():
    values = np.random.default_rng(0).normal([1, 50], [2, 9], (300, 2))
    series = series_of(200, 100, values=values)
    recipe = recipe_for()
    scaling = fit_scaling(series, split(series, recipe), recipe.series)
    rows = np.r_[0:140, 200:270]
    np.testing.assert_allclose(scaling.input_mean, values[rows].mean(0), atol=1e-12)
    np.testing.assert_allclose(scaling.target_deviation, values[rows].std(0), atol=1e-12)
    recipe = recipe_for(
        series__split={"train": 0.5, "validation": 0.0, "test": 0.5, "by": "sequence"}
    )
    scaling = fit_scaling(series, split(series, recipe), recipe.series)
    np.testing.assert_allclose(scaling.input_deviation, values[:200].std(0), atol=1e-12)


def test_other_scalings():
    series, recipe = series_of(200), recipe_for(series__scaling="none")
    assert fit_scaling(series, split(series, recipe), recipe.series) is None
    recipe = recipe_for(series__scaling="divide", series__divisor=64.0)
    scaling = fit_scaling(series, split(series, recipe), recipe.series)
    assert (scaling.input_mean, scaling.target_mean) == (0, 0)
    assert (scaling.input_deviation, scaling.target_deviation) == (64, 64)


def test_a_constant_column_has_no_scale():
    values = np.stack([np.arange(200.0), np.full(200, 0.1)], axis=1)
    series, recipe = series_of(200, values=values), recipe_for()
    with pytest.raises(
        SeriesError,
        match=r"it: column b is constant \(0\.1\) over the training part's 140 samples, .* or set "
        r'scaling = "none"',
    ):
        fit_scaling(series, split(series, recipe), recipe.series)
    # Divided by a number of the recipe's, it may be constant.
    recipe = recipe_for(series__scaling="divide", series__divisor=10.0)
    fit_scaling(series, split(series, recipe), recipe.series)
