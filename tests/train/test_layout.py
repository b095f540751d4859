"""The layout of inputs and outputs: each value at its place, from a recipe and from a file."""

import numpy as np
import pytest

from fastlstm.train.layout import Layout, input_names, network_inputs
from fastlstm.train.recipe import load_recipe
from fastlstm.train.recipe_tables import Generator
from fastlstm.train.series import Series, generate


def series_of(lengths, known=("hour", "holiday")):
    steps = sum(lengths)
    inputs = np.arange(2.0 * steps).reshape(steps, 2)
    there = 100 + np.arange(float(len(known) * steps)).reshape(steps, len(known)) if known else None
    return Series(
        "it",
        "",
        inputs,
        inputs[:, :1],
        ("x", "y"),
        ("x",),
        np.arange(steps),
        lengths=lengths,
        known=there,
        known_columns=known,
    )


@pytest.mark.parametrize(
    ("horizon", "direct", "ahead"),
    [
        (0, False, (0,)),
        (1, False, (1,)),
        (4, False, (4,)),
        (1, True, (1,)),
        (4, True, (1, 2, 3, 4)),
    ],
)
def test_steps_ahead(horizon, direct, ahead):
    assert Layout(horizon, direct).ahead == ahead


def test_outputs_are_ahead_targets_quantiles():
    layout = Layout(horizon=2, direct=True, targets=3, quantiles=(0.1, 0.5))
    assert layout.shape == (2, 3, 2)
    assert layout.size == 12
    assert layout.median == 1
    # Written out: both quantiles of the first target a step ahead, of the second, ...
    assert layout.target_of_output() == [0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 2, 2]
    assert Layout().shape == (1, 1, 1)
    assert Layout(targets=2).target_of_output() == [0, 1]
    assert Layout().median == 0


def test_a_recipe_and_the_metadata_of_its_model_say_the_same():
    recipe = load_recipe(
        "sine",
        overrides={
            "windows.horizon": 3,
            "windows.direct": True,
            "network.quantiles": [0.1, 0.5, 0.9],
        },
    )
    layout = Layout.of_recipe(recipe, generate(recipe.series.generator))
    assert layout == Layout(3, True, 1, (0.1, 0.5, 0.9))
    metadata = {"horizon": 3, "direct": True, "quantiles": [0.1, 0.5, 0.9]}
    assert Layout.of_metadata(metadata, 9) == layout
    assert Layout.of_metadata(metadata, 18).targets == 2
    # A model of unknown origin predicts one step ahead; one from before `direct`, its horizon.
    assert Layout.of_metadata({}, 2) == Layout(1, False, 2, ())
    assert Layout.of_metadata({"horizon": 5}, 2) == Layout(5, False, 2, ())


def test_without_known_columns_the_inputs_go_in_as_they_are():
    series = series_of((4,), known=())
    assert network_inputs(series, Layout(3)) is series.inputs
    assert input_names(series, Layout(3)) == ("x", "y")


@pytest.mark.parametrize(
    ("horizon", "direct"), [(0, False), (1, False), (2, False), (3, True), (9, False)]
)
def test_known_columns_come_from_the_steps_ahead_of_the_same_sequence(horizon, direct):
    series, layout = series_of((5, 2, 4)), Layout(horizon, direct)
    found = network_inputs(series, layout)
    assert found.shape == (11, 2 + 2 * len(layout.ahead))
    assert np.array_equal(found[:, :2], series.inputs)
    ends = [5] * 5 + [7] * 2 + [11] * 4
    for row in range(11):
        for k, ahead in enumerate(layout.ahead):
            there = found[row, 2 + 2 * k : 4 + 2 * k]
            if row + ahead < ends[row]:
                assert np.array_equal(there, series.known[row + ahead])
            else:
                assert np.isnan(there).all()


def test_names_say_how_far_ahead():
    names = input_names(series_of((5,)), Layout(2, direct=True))
    assert names == ("x", "y", "hour+1", "holiday+1", "hour+2", "holiday+2")


def test_known_minutes_of_a_generator():
    series = generate(Generator(kind="minutes", samples=4, sequences=2), known=("minute",))
    known = network_inputs(series, Layout(1))[:, 1]
    np.testing.assert_array_equal(known, [1, 2, 3, np.nan, 1, 2, 3, np.nan])
    assert input_names(series, Layout(1)) == ("value", "minute+1")
