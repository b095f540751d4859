"""Bad series, recipes, model files and outputs: one clear line each, and nothing saved is lost."""

from __future__ import annotations

import json
import struct

import pytest


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("year,spots\n1,2\n", ["no column sunspots", "year, spots"], id="no column"),
        pytest.param(
            "year,sunspots\n1,2.5\n2,cloudy\n", ["sunspots", "not numeric", "'cloudy'"], id="words"
        ),
        pytest.param("year,sunspots\n", ["empty"], id="only a header"),
        pytest.param("", ["empty"], id="empty"),
        pytest.param("year,sunspots\n1,2\n2,\n3,4\n", ["missing", "row 2", "fill"], id="a hole"),
        pytest.param(
            "year,sunspots\n" + "".join(f"{k},{k % 7}\n" for k in range(60)),
            ["shorter than one window", "windows.length"],
            id="short",
        ),
    ],
)
def test_a_bad_series_is_one_clear_error_and_costs_nothing_saved(
    run, trained, tmp_path, text, words
):
    folder, _ = trained
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    bad = tmp_path / "bad.csv"
    bad.write_text(text)
    line = run("train", "sunspots", "--data", bad, "--out", folder).error
    for word in words:
        assert word in line
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("training.max_epoch=5", ["training.max_epoch", "did you mean max_epochs?"]),
        ("training.max_epochs=many", ["training.max_epochs", "'many'"]),
        ("training.loss=mean", ["training.loss", "mse, mae, huber", "'mean'"]),
        ("windows.length=-1", ["windows.length", "-1"]),
        ("network.layers=[{kind='LSTN',hidden_size=4}]", ["LSTN", "did you mean LSTM?"]),
    ],
)
def test_a_recipe_with_a_typo_is_one_clear_error(run, series, tmp_path, setting, words):
    arguments = ("--data", series, "--out", tmp_path / "run", "--set", setting)
    line = run("train", "sunspots", *arguments).error
    for word in words:
        assert word in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--variant", "one"], ["--variant", "has no variants"]),
        (["--device", "tpu"], ["training.accelerator", "'tpu'"]),
        (["--devices", "2", "--set", "optimiser.name=lbfgs"], ["lbfgs", "training.devices 2"]),
        (["--set", "training.precision=16-mixed", "--device", "cpu"], ["16-mixed", "bf16-mixed"]),
        (
            [
                "--find-learning-rate",
                *("--set", "optimiser.name=lbfgs", "--set", "training.gradient_clip=0.0"),
            ],
            ["expected one that takes gradient steps", "begin with 1"],
        ),
        (["--set", "windows.horizon=500"], ["windows.horizon 500", "give a longer series"]),
    ],
)
def test_what_training_cannot_do_is_said_before_it_begins(run, tmp_path, arguments, words):
    result = run("train", "sunspots", "--out", tmp_path / "run", *arguments)
    assert result.code != 0
    assert "Traceback" not in result.err
    for word in words:
        assert word in " ".join(result.err.split())
    assert not (tmp_path / "run").exists()


def test_a_constant_column_is_one_clear_error(run, tmp_path):
    (tmp_path / "flat.csv").write_text("year,sunspots\n" + "".join(f"{k},5\n" for k in range(400)))
    line = run("train", "sunspots", "--data", tmp_path / "flat.csv", "--out", tmp_path / "r").error
    assert "sunspots is constant (5)" in line
    assert 'set scaling = "none"' in line


def test_a_diverging_run_is_one_clear_error(run, series, tmp_path):
    settings = ("optimiser.name=sgd", "optimiser.learning_rate=1e30", "training.gradient_clip=0")
    arguments = [word for setting in settings for word in ("--set", setting)]
    line = run("train", "sunspots", "--data", series, "--out", tmp_path / "r", *arguments).error
    assert "training diverged in epoch 0" in line
    assert "lower optimiser.learning_rate (now 1e+30)" in line


def test_a_recipe_file_with_a_typo_is_named(run, tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text("[serie]\npath = 'x.csv'\n")
    line = run("train", recipe).error
    assert str(recipe) in line
    assert "unknown key serie (did you mean series?)" in line


def test_an_unknown_recipe_names_the_ready_ones(run):
    line = run("train", "sunspot").error
    assert "did you mean sunspots?" in line
    assert "sine" in line


def test_resuming_where_nothing_was_begun_is_one_clear_error(run, series, tmp_path):
    folder = tmp_path / "run"
    line = run("train", "sunspots", "--data", series, "--out", folder, "--resume").error
    assert f"{folder}: nothing to resume" in line


def test_a_setting_without_a_value_is_refused(run):
    result = run("train", "sunspots", "--set", "training.max_epochs")
    assert result.code == 2
    assert "training.max_epochs=50" in result.err


def rewritten(data: bytes, change) -> bytes:
    """The model file with its header changed by `change(header)`, the tensors as they were."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def newer(header):
    document = json.loads(header["__metadata__"]["fastlstm"])
    document["format_version"] = 99
    header["__metadata__"]["fastlstm"] = json.dumps(document)


def swapped(header):
    header["layers.1.weight_ih_l0"]["shape"].reverse()


def lying(header):
    header["layers.1.weight_ih_l0"]["shape"] = [20, 3]


def foreign(header):
    del header["__metadata__"]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        pytest.param(lambda d: d[:-10], ["truncated", "copy or export it again"], id="truncated"),
        pytest.param(lambda d: d[:5], ["truncated", "copy or export it again"], id="almost empty"),
        pytest.param(lambda d: d + b"\0" * 8, ["padded", "copy or export it again"], id="padded"),
        pytest.param(lambda d: rewritten(d, newer), ["version 99", "upgrade"], id="newer"),
        pytest.param(
            lambda d: rewritten(d, swapped), ["layer 1", "weight_ih_l0", "(2, 20)"], id="swapped"
        ),
        pytest.param(lambda d: rewritten(d, lying), ["damaged", "export it again"], id="lying"),
        pytest.param(lambda d: rewritten(d, foreign), ["not a fastlstm model"], id="foreign"),
        pytest.param(
            lambda d: d[:-400] + bytes([d[-400] ^ 1]) + d[-399:], ["digest", "again"], id="one bit"
        ),
    ],
)
def test_a_damaged_model_file_is_one_clear_error(run, model_file, tmp_path, damage, words):
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(damage(model_file.read_bytes()))
    line = run("inspect", damaged).error
    assert str(damaged) in line
    for word in words:
        assert word in line


@pytest.mark.parametrize("command", ["stream", "verify", "inspect", "bench model"])
def test_a_missing_model_file_is_one_clear_error(run, tmp_path, command):
    line = run(*command.split(), tmp_path / "nowhere.safetensors").error
    assert "nowhere.safetensors: no such file" in line


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", "MODEL", "--json"),
        ("bench", "model", "MODEL", "--json"),
        ("bench", "model", "MODEL", "--html"),
        ("export", "MODEL", "--to", "onnx", "-o"),
        ("forecast", "MODEL", "--data", "SERIES", "-n", "2", "-o"),
        ("forecast", "MODEL", "--data", "SERIES", "-n", "2", "--plot"),
        ("evaluate", "MODEL", "--data", "SERIES", "--json"),
    ],
    ids=" ".join,
)
def test_an_output_that_cannot_be_written_fails_before_the_work(
    run, model_file, series, tmp_path, arguments
):
    """A folder where a file should be, and a file where a folder should be."""
    blocked = tmp_path / "file"
    blocked.write_text("kept")
    known = {"MODEL": model_file, "SERIES": series}
    arguments = [known.get(word, word) for word in arguments]
    result = run(*arguments, blocked / "deeper" / "result")
    assert f"{blocked}" in result.error
    assert "Not a directory" in result.error
    assert blocked.read_text() == "kept"
    assert f"error: {tmp_path}: Is a directory" in run(*arguments, tmp_path).error


def test_a_run_folder_that_cannot_be_made_is_one_clear_error(run, series, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("kept")
    line = run("train", "sunspots", "--data", series, "--out", blocked / "run").error
    assert f"error: {blocked}" in line
    assert blocked.read_text() == "kept"


def test_too_little_memory_is_one_clear_error(run, tmp_path):
    setting = "series.generator.samples=100000000000000"
    line = run("train", "sine", "--out", tmp_path / "run", "--set", setting).error
    assert line.startswith("error: not enough memory: Unable to allocate")


def test_a_command_stopped_by_the_keyboard_exits_with_130(run, model_file, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("fastlstm.load", stop)
    result = run("inspect", model_file)
    assert result.code == 130
    assert "Traceback" not in result.err
