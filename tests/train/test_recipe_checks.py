"""Recipes: variants, and what tables forbid one another, each with its message."""

import pytest

from fastlstm.errors import RecipeError
from fastlstm.train.recipe import load_recipe, parse_recipe, variant_of

LSTM = {"kind": "LSTM", "hidden_size": 1}


def with_variants(variants, **overrides):
    overrides = {key.replace("__", "."): value for key, value in overrides.items()}
    return load_recipe("sine", overrides={**overrides, "variants": variants})


def test_a_variant_changes_what_it_names_and_nothing_else():
    recipe = with_variants(
        {
            "slow": {"optimiser": {"learning_rate": 1e-4}, "training": {"seed": 3}},
            "long": {"series": {"generator": {"samples": 5000}}, "windows": {"length": 7}},
        },
        training__max_epochs=5,
        training__seed=1,
    )
    slow, long = variant_of(recipe, "slow"), variant_of(recipe, "long")
    assert (slow.name, long.name) == ("sine-slow", "sine-long")
    # An override holds in every variant that does not name its key itself.
    assert (slow.training.max_epochs, long.training.max_epochs) == (5, 5)
    assert (slow.training.seed, long.training.seed) == (3, 1)
    assert slow.optimiser.learning_rate == 1e-4
    assert slow.optimiser.schedule == recipe.optimiser.schedule == "cosine"
    assert long.series.generator.samples == (5000, 5000)
    assert long.series.generator.period == recipe.series.generator.period
    assert long.windows.length == 7
    assert long.network == recipe.network
    assert (slow.variants, long.variants) == ({}, {})
    with pytest.raises(
        RecipeError, match=r"sine: no variant lang \(did you mean long\?\); it has s"
    ):
        variant_of(recipe, "lang")
    with pytest.raises(RecipeError, match="sine: no variant x; it has none"):
        variant_of(load_recipe("sine"), "x")


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        (
            {"big": {"training": {"max_epoch": 3}}},
            "sine.toml: variant big: unknown key training.max_epoch (did you mean max_epochs?)",
        ),
        (
            {"ok": {}, "big": {"network": {"layers": [{**LSTM, "hidden": 3}]}}},
            "sine.toml: variant big: unknown key network.layers[0].hidden (did you mean hidden_siz",
        ),
        ({"a": {"widows": {}}}, "variant a: unknown key widows (did you mean windows?)"),
        ({"a": {"windows": 3}}, "variant a: windows: expected a table, found 3"),
        (
            {"a": {"windows": {"warm_up": 100}}},
            "variant a: windows: warm_up must be less than length, found 100 and 100",
        ),
        (
            {"a": {"training": {"monitor": "closed_loop"}}},
            'variant a: training.monitor is "closed_loop", but closed_loop.steps is 0',
        ),
        (
            {"a/b": {}},
            "variants: expected names that a folder may have (letters, digits, _ - + and . between "
            "them, not checkpoints or unfinished), found 'a/b': rename it",
        ),
        ({"..": {}}, "found '..': rename it"),
        ({"": {}}, "found '': rename it"),
        ({"unfinished": {}}, "found 'unfinished': rename it"),
        (
            {"a": {"name": "b"}},
            "variants.a: a variant is named by its key and has none of its own,",
        ),
        ({"a": {"variants": {}}}, "variants.a: a variant is named by its key and has none of its"),
    ],
)
def test_a_typo_in_a_variant_does_not_wait_for_its_turn(variants, message):
    with pytest.raises(RecipeError) as error:
        with_variants(variants)
    assert message in str(error.value)


NO_CLIP = {"gradient_clip": 0.0}
PATH = {"path": "x.csv"}
LOOP = {"closed_loop": {"steps": 50}}


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (
            {"network": {"layers": [LSTM], "quantiles": [0.5]}, "training": {"loss": "relative"}},
            "training.loss: with network.quantiles the loss is theirs (pinball), found "
            '"relative": leave it out, or leave out the quantiles',
        ),
        (
            {"training": {"monitor": "closed_loop"}},
            'training.monitor is "closed_loop", but closed_loop.steps is 0, so there is no such '
            'forecast: set closed_loop.steps, or monitor "loss"',
        ),
        (
            {**LOOP, "windows": {"length": 9, "horizon": 2}},
            "closed_loop.steps: a forecast that feeds on itself needs windows.horizon 1, found 2: "
            "set it to 1, or closed_loop.steps to 0",
        ),
        (
            {**LOOP, "windows": {"length": 9, "horizon": 3, "direct": True}},
            "needs one step at a time: set windows.direct to false, or closed_loop.steps to 0",
        ),
        (
            {**LOOP, "series": {**PATH, "input": ["a", "b"], "target": "a"}},
            "needs series.target to be series.input, found a and a, b: name the same columns, or",
        ),
        (
            {**LOOP, "series": {**PATH, "known_ahead": ["hour"]}},
            "needs nothing but its own values, found series.known_ahead hour: leave it out, or",
        ),
        (
            {**LOOP, "series": {"generator": {"kind": "sine", "beyond": 20}}},
            "closed_loop.steps: found 50, of which series.generator.beyond makes only 20: set it "
            "to 50, or to 0 to forecast the end of each sequence",
        ),
        (
            {"training": {"level_shift": 1}, "series": {**PATH, "input": "a", "target": "b"}},
            "training.level_shift moves inputs and targets alike, so it needs series.target to be "
            "series.input, found b and a: set it to 0",
        ),
        (
            {"optimiser": {"name": "lbfgs"}, "training": {"devices": 2, "nodes": 3, **NO_CLIP}},
            "own windows only, found training.devices 2 on training.nodes 3: set both to 1 or",
        ),
        (
            {"optimiser": {"name": "lbfgs"}},
            "which clipping bends, found training.gradient_clip 1: set it to 0",
        ),
        (
            {"optimiser": {"name": "lbfgs"}, "training": {"precision": "bf16-mixed", **NO_CLIP}},
            'tell apart, found training.precision "bf16-mixed": set "32" or "64"',
        ),
        (
            {"optimiser": {"name": "adam", "momentum": 0.5}},
            'optimiser: momentum belongs to "sgd" and "rmsprop", found 0.5 with "adam": leave it',
        ),
        (
            {"windows": {"length": 9, "stateful": True}, "series": {**PATH, "layout": "lines"}},
            "windows.stateful carries the state along sequences of one length, found "
            'series.layout "lines": set it to false, and windows.length to 0 for whole sequences',
        ),
        (
            {"windows": {"length": 9, "stateful": True}, "training": {"batch_size": 0}},
            "windows.stateful needs training.batch_size, the number of stretches side by side, fo",
        ),
        (
            {"windows": {"length": 0, "stateful": True}},
            'windows: stateful needs a length above 0 and loss_at = "every"',
        ),
        (
            {"series": {**PATH, "known_ahead": ["h", "v"], "input": ["v", "h"], "target": "v"}},
            "series: known_ahead: v is also in target, so it would be shown what it has to predict",
        ),
        (
            {"series": {**PATH, "layout": "lines", "time": "t"}},
            'series: time names a column, found t with layout = "lines", where a line holds one',
        ),
        (
            {"series": {**PATH, "layout": "lines", "known_ahead": ["h"]}},
            'series: known_ahead names a column, found h with layout = "lines"',
        ),
        (
            {"series": {**PATH, "layout": "lines", "input": "a", "target": "b"}},
            'series: layout = "lines" has one column, which is both input and target, found a, b',
        ),
        (
            {"series": {"generator": {"kind": "sine"}, "time": "t"}},
            "series: time belongs to a file, found with a generator: leave it out",
        ),
        (
            {"series": {**PATH, "divisor": 64.0}},
            'series: divisor belongs to scaling = "divide", found 64 with "standard": leave it out',
        ),
        (
            {"evaluation": {"best_by": "rmse"}},
            'evaluation.best_by is "rmse", but there are no variants to choose among: leave it out',
        ),
        (
            {
                "network": {
                    "layers": [{"kind": "Residual", "add": "target", "layers": [LSTM]}, LSTM]
                }
            },
            'network: layers: a Residual with add = "target" goes around the whole network, found '
            "it beside or inside another layer: put all other layers into its `layers`, or set add",
        ),
        (
            {
                "network": {
                    "layers": [
                        {
                            "kind": "Residual",
                            "layers": [{"kind": "Residual", "add": "target", "layers": [LSTM]}],
                        }
                    ]
                }
            },
            "goes around the whole network, found it beside or inside another layer",
        ),
        (
            {"network": {"layers": [LSTM], "quantiles": [0.9, 0.5]}},
            "quantiles: expected ascending fractions with 0.5 among them, found [0.9, 0.5]",
        ),
    ],
)
def test_tables_that_forbid_one_another(tables, message):
    document = {
        "name": "it",
        "series": PATH,
        "windows": {"length": 9},
        "network": {"layers": [LSTM]},
    }
    with pytest.raises(RecipeError) as error:
        parse_recipe({**document, **tables}, "it.toml")
    assert str(error.value).startswith("it.toml: ")
    assert message in str(error.value)
    # One fault, one complaint.
    assert ";" not in str(error.value)


def test_what_goes_together_is_taken():
    around = {"kind": "Residual", "add": "target", "layers": [LSTM, LSTM]}
    for tables in (
        {"series": {**PATH, "known_ahead": ["h"], "input": ["v", "h"], "target": "v"}},
        {"series": {**PATH, "known_ahead": "h", "input": "v"}},
        {"series": {**PATH, "layout": "lines", "input": "a", "target": "a"}},
        # For a file given in place of the generator.
        {"series": {"generator": {"kind": "ball"}, "layout": "lines"}},
        {"network": {"layers": [around], "quantiles": [0.5]}},
        {**LOOP, "training": {"monitor": "closed_loop"}},
        {**LOOP, "series": {"generator": {"kind": "sine", "beyond": 50}}},
        {"optimiser": {"name": "lbfgs"}, "training": {"precision": "64", **NO_CLIP}},
    ):
        document = {"windows": {"length": 9}, "network": {"layers": [LSTM]}, "series": PATH}
        assert parse_recipe({"name": "it", **document, **tables}).name == "it"
