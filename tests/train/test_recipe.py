"""Recipes: what is read, what is written back, and the message of every typo."""

import math
import tomllib

import pytest

from fastlstm.errors import RecipeError
from fastlstm.train.recipe import load_recipe, parse_recipe, ready_recipes, to_toml, variant_of


@pytest.mark.parametrize("name", ready_recipes())
def test_a_ready_recipe_survives_being_written_and_read(name, tmp_path):
    recipe = load_recipe(name)
    assert recipe.name == name
    (tmp_path / "recipe.toml").write_text(to_toml(recipe), "utf-8")
    assert load_recipe(tmp_path) == recipe
    assert load_recipe(tmp_path / "recipe.toml") == recipe


def test_the_ready_recipes():
    expected = {"co2", "cosine", "cosine-fine", "last-step", "sine", "sunspots"}
    assert expected <= set(ready_recipes())


@pytest.mark.parametrize(
    "text", ['a "quoted" name', "back\\slash", "tab\tand\nline", "Zürich \x7f€"]
)
def test_any_text_survives_as_toml(text):
    recipe = load_recipe("sine", overrides={"series.name": text})
    document = tomllib.loads(to_toml(recipe))
    assert document["series"]["name"] == text
    assert parse_recipe(document) == recipe


def test_a_relative_path_is_relative_to_the_recipe(tmp_path):
    (tmp_path / "recipes").mkdir()
    path = tmp_path / "recipes" / "mine.toml"
    path.write_text(
        '[series]\npath = "../data.csv"\n[windows]\nlength = 5\n'
        '[network]\nlayers = [{ kind = "GRU", hidden_size = 1 }]\n'
    )
    assert load_recipe(path).series.path == str(tmp_path / "data.csv")
    assert load_recipe(path).name == "mine"


def test_data_replaces_the_series_but_not_its_columns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("sunspots", data="mine.parquet")
    assert recipe.series.path == str(tmp_path / "mine.parquet")
    assert recipe.series.input == ("sunspots",)
    assert load_recipe("sine", data="mine.csv").series.generator is None


def test_overrides_reach_into_tables():
    recipe = load_recipe("sine", overrides={"training.max_epochs": 7, "optimiser.name": "sgd"})
    assert (recipe.training.max_epochs, recipe.optimiser.name) == (7, "sgd")
    with pytest.raises(RecipeError, match=r"override name\.x: name is no table"):
        load_recipe("sine", overrides={"name.x": 1})


LSTM = {"kind": "LSTM", "hidden_size": 1}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "training.max_epoch",
            3,
            "unknown key training.max_epoch (did you mean max_epochs?); allowed here: max_epochs, "
            "steps_per_epoch, batch_size, patience",
        ),
        (
            "trainig.seed",
            3,
            "unknown key trainig (did you mean training?); allowed here: name, series, windows, "
            "network, optimiser, training",
        ),
        (
            "training.learning_rate",
            0.1,
            "unknown key training.learning_rate (it belongs in [optimiser]); allowed here: max_ep",
        ),
        (
            "series.generator.sample",
            3,
            "unknown key series.generator.sample (did you mean samples?); allowed here: kind, samp",
        ),
        ("LSTM", 3, "unknown key LSTM; allowed here: name, series"),
        ("training.max_epochs", "3", "training.max_epochs: expected a whole number, found '3'"),
        ("training.max_epochs", True, "training.max_epochs: expected a whole number, found True"),
        ("training.max_epochs", 0, "training.max_epochs: expected greater than or equal to 1, fo"),
        ("training.seed", 2**32, "training.seed: expected less than or equal to 4294967295, foun"),
        ("training.threads", 10**5, "training.threads: expected less than or equal to 1024, found"),
        ("optimiser.learning_rate", math.nan, "learning_rate: expected a finite number, found nan"),
        ("optimiser.learning_rate", "1e-3", "learning_rate: expected a number, found '1e-3'"),
        (
            "optimiser.name",
            "adamv",
            "optimiser.name: expected one of adam, adamw, nadam, rmsprop, sgd, adagrad, lbfgs, "
            "least_squares, found 'adamv' (did you mean adam",
        ),
        (
            "network.layers",
            [{"kind": "lstm", "hidden_size": 3}],
            "network.layers[0].kind: expected one of LSTM, GRU, RNN, Dense, LayerNorm, BatchNorm, "
            "Difference, Residual, found 'lstm' (did you mean LSTM?)",
        ),
        (
            "network.layers",
            [LSTM, {"kind": "LSTM", "hidden_size": 3, "hidden": 3}],
            "unknown key network.layers[1].hidden (did you mean hidden_size?); allowed here: kind, "
            "hidden_size, bias",
        ),
        ("network.layers", [{"kind": "GRU"}], "network.layers[0].hidden_size is missing"),
        ("network.layers", [{"hidden_size": 3}], "network.layers[0].kind: expected one of LSTM"),
        ("network.layers", [], "network.layers: expected at least one entry, found []"),
        ("network.layers", 3, "network.layers: expected a list, found 3"),
        ("network.dropout", 1.0, "network.dropout: expected less than 1, found 1.0"),
        ("windows", 3, "windows: expected a table, found 3"),
        ("windows.warm_up", 100, "windows: warm_up must be less than length, found 100 and 100"),
        ("series.path", "x.csv", "series: expected one of path and generator, found both"),
        ("series.split", {"train": 0.5}, "must add up to 1, these add up to 0.8"),
        (
            "series.split",
            {"train": 1.5},
            "series.split: train, validation and test must all be fractions or all be whole "
            "numbers, found 1.5, 0.15, 0.15",
        ),
        ("series.split.test", 0, "series.split.test: expected greater than 0, found 0"),
        (
            "series.split.by",
            "time ",
            "expected one of time, sequence, found 'time ' (did you mean t",
        ),
        (
            "series.scaling",
            "minmax",
            "expected one of standard, divide, none, found 'minmax'",
        ),
        ("series.input", [], "series.input: expected at least one entry, found []"),
        ("series.input", 3, "series.input: expected a list, found 3"),
        ("evaluation.published", {"a": "1"}, "published.a: expected a number, found '1'"),
        ("variants", 3, "variants: expected a table, found 3"),
        ("variants.big", 3, "variants.big: expected a table, found 3"),
        (
            "network.layers",
            [
                {
                    "kind": "Residual",
                    "layers": [LSTM, {"kind": "Residual", "layers": [{"kind": "x"}]}],
                }
            ],
            "network.layers[0].layers[1].layers[0].kind: expected one of LSTM, GRU",
        ),
        (
            "network.layers",
            [{"kind": "Residual", "layers": [{**LSTM, "hidden": 3}]}],
            "unknown key network.layers[0].layers[0].hidden (did you mean hidden_size?); allowed h",
        ),
        (
            "network.layers",
            [{"kind": "Residual", "layers": [LSTM], "adds": "input"}],
            "unknown key network.layers[0].adds (did you mean add?); allowed here: kind, layers",
        ),
        (
            "network.layers",
            [{"kind": "Residual", "layers": []}],
            "network.layers[0].layers: expected at least one entry, found []",
        ),
        ("network.layers", [{"kind": "Residual"}], "network.layers[0].layers is missing"),
        (
            "network.layers",
            [{"kind": "Residual", "layers": [{"kind": "LSTM", "hidden_size": 0}]}],
            "network.layers[0].layers[0].hidden_size: expected greater than or equal to 1, found 0",
        ),
    ],
)
def test_a_typo_names_the_key_and_what_is_allowed(key, value, message):
    with pytest.raises(RecipeError) as error:
        load_recipe("sine", overrides={key: value})
    assert message in str(error.value)
    assert "sine.toml: " in str(error.value)
    # One fault, one complaint.
    assert ";" not in str(error.value).replace("; allowed here", "").replace("; it has no", "")


def test_several_faults_are_told_at_once():
    with pytest.raises(RecipeError, match=r"unknown key windows\.len .*; training\.seed: "):
        parse_recipe({**_document(), "training": {"seed": -1}, "windows": {"length": 3, "len": 1}})


def test_files_that_are_no_recipes(tmp_path):
    with pytest.raises(RecipeError, match=r"c02: no such recipe file.*mean co2\?.*co2, cosine"):
        load_recipe("c02")
    (tmp_path / "bad.toml").write_text("[series\n")
    with pytest.raises(RecipeError, match=r"bad\.toml: not a TOML file: .*line 1"):
        load_recipe(tmp_path / "bad.toml")
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match=r"bad\.toml: not a TOML file"):
        load_recipe(tmp_path / "bad.toml")


ODD_KEYS = ["plain", "with space", 'with "quotes"', "ümlaut", "1.5", "a.b", "", "line\nend", "-_"]


def test_everything_survives_being_written_and_read(tmp_path):
    inner = [LSTM, {"kind": "LayerNorm"}, {"kind": "Residual", "layers": [{"kind": "Difference"}]}]
    document = {
        "name": "all",
        "series": {
            "generator": {"kind": "waves", "samples": [30, 60], "sequences": 9, "period": [7, 8]},
            "split": {"train": 5, "validation": 0, "test": 4, "by": "sequence"},
        },
        "windows": {"length": 0, "loss_at": "last"},
        "network": {
            "layers": [{"kind": "Residual", "add": "target", "layers": inner}],
            "quantiles": [0.1, 0.5],
            "forget_gate_bias": 1,
        },
        "evaluation": {"published": dict(zip(ODD_KEYS, range(9), strict=True)), "best_by": "rmse"},
        "variants": {
            "big.1": {"network": {"layers": [{"kind": "GRU", "hidden_size": 9}]}},
            "other-source": {"series": {"path": "/there/x.csv", "known_ahead": ['h "q"']}},
            "same": {},
        },
    }
    recipe = parse_recipe(document)
    assert recipe.series.generator.sequences == (9, 9)
    assert recipe.evaluation.published == dict(zip(ODD_KEYS, range(9), strict=True))
    (tmp_path / "recipe.toml").write_text(to_toml(recipe), "utf-8")
    again = load_recipe(tmp_path)
    assert again == recipe
    assert to_toml(again) == to_toml(recipe)
    for name in recipe.variants:
        assert variant_of(again, name) == variant_of(recipe, name)


def test_a_variant_may_have_another_source(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        '[series]\npath = "a.csv"\ntime = "t"\nname = "N"\n[windows]\nlength = 5\n'
        '[network]\nlayers = [{ kind = "GRU", hidden_size = 1 }]\n'
        '[variants]\nb = { series = { path = "data/b.csv" } }\n'
        'made = { series = { generator = { kind = "sine" } } }\n'
    )
    recipe = load_recipe(path)
    other = variant_of(recipe, "b").series
    assert (other.path, other.time, other.name) == (str(tmp_path / "data" / "b.csv"), "t", "N")
    made = variant_of(recipe, "made").series
    assert (made.path, made.time, made.generator.kind) == (None, None, "sine")
    # A run folder's recipe, read from elsewhere, still means the same files.
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.toml").write_text(to_toml(recipe))
    assert variant_of(load_recipe(tmp_path / "run"), "b").series == other


def test_a_path_given_as_an_override_is_relative_to_where_it_was_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("sunspots", overrides={"series.path": "mine.csv"})
    assert recipe.series.path == str(tmp_path / "mine.csv")


def test_data_keeps_the_layout_and_drops_what_belongs_to_a_generator(tmp_path):
    path = tmp_path / "balls.toml"
    path.write_text(
        '[series]\npath = "a.csv"\nlayout = "lines"\nformat = "csv"\n[windows]\nlength = 0\n'
        '[network]\nlayers = [{ kind = "GRU", hidden_size = 1 }]\n'
    )
    recipe = load_recipe(path, data=tmp_path / "b.txt")
    assert (recipe.series.layout, recipe.series.format) == ("lines", None)
    assert recipe.series.path == str(tmp_path / "b.txt")
    given = load_recipe("sine", data=tmp_path / "b.txt", overrides={"series.layout": "lines"})
    assert (given.series.layout, given.series.generator, given.series.name) == ("lines", None, None)


def _document():
    return tomllib.loads(to_toml(load_recipe("sine")))
