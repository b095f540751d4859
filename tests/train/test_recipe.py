"""Recipes: what is read, what is written back, and the message of every typo."""

import math
import tomllib

import pytest

from fastlstm.errors import RecipeError
from fastlstm.train.recipe import load_recipe, parse_recipe, ready_recipes, to_toml


@pytest.mark.parametrize("name", ready_recipes())
def test_a_ready_recipe_survives_being_written_and_read(name, tmp_path):
    recipe = load_recipe(name)
    assert recipe.name == name
    (tmp_path / "recipe.toml").write_text(to_toml(recipe), "utf-8")
    assert load_recipe(tmp_path) == recipe
    assert load_recipe(tmp_path / "recipe.toml") == recipe


def test_the_ready_recipes():
    assert ready_recipes() == ["co2", "sine", "sunspots"]


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
            "batch_size, patience",
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
            "optimiser.name: expected one of adam, adamw, nadam, rmsprop, sgd, found 'adamv' (did "
            "you mean adam",
        ),
        (
            "network.layers",
            [{"kind": "lstm", "hidden_size": 3}],
            "network.layers[0].kind: expected one of LSTM, GRU, RNN, Dense, found 'lstm' (did you "
            "mean LSTM?)",
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
        ("series.split", {"train": 1.5}, "series.split.train: expected less than 1, found 1.5"),
        ("series.scaling", "minmax", "expected one of standard, none, found 'minmax'"),
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
    with pytest.raises(RecipeError, match=r"c02: no such recipe file.*mean co2\?.*co2, sine, suns"):
        load_recipe("c02")
    (tmp_path / "bad.toml").write_text("[series\n")
    with pytest.raises(RecipeError, match=r"bad\.toml: not a TOML file: .*line 1"):
        load_recipe(tmp_path / "bad.toml")
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match=r"bad\.toml: not a TOML file"):
        load_recipe(tmp_path / "bad.toml")


def _document():
    return tomllib.loads(to_toml(load_recipe("sine")))
