"""Whole runs: against a plain torch loop, what a run folder holds, and what is refused."""

import csv
import json
import tomllib

import numpy as np
import pytest
import torch

import runs
from fastlstm import model_file, reference
from fastlstm.errors import RecipeError, SeriesError
from fastlstm.train import fit, load_recipe
from fastlstm.train.loop import TrainingError
from fastlstm.train.network import Network

# So large a step that the loss soon wanders: the best epoch is not the last one.
WANDERING = {
    "training.max_epochs": 200,
    "training.patience": 3,
    "optimiser.learning_rate": 0.2,
    "optimiser.schedule": "constant",
}
FILES = ("recipe.toml", "history.csv", "metrics.json", "loss.png", "forecast.png")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One finished run, pictures and all, that no test changes."""
    return fit(runs.small(), tmp_path_factory.mktemp("runs") / "finished", progress=False)


def test_the_run_folder_holds_it_all(finished):
    names = {*FILES, "model.safetensors", "checkpoints"}
    assert {path.name for path in finished.folder.iterdir()} == names
    assert {p.name for p in (finished.folder / "checkpoints").iterdir()} == {
        "best.ckpt",
        "last.ckpt",
    }
    assert {path.name for path in finished.files} == {*FILES, "model.safetensors"}
    assert all(path.stat().st_size for path in finished.files)
    assert load_recipe(finished.folder) == runs.small()
    with (finished.folder / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["epoch", "train_loss", "validation_loss", "learning_rate"]
    assert [row["epoch"] for row in rows] == list("01234")
    for name in ("loss.png", "forecast.png"):
        assert (finished.folder / name).read_bytes().startswith(b"\x89PNG")
    metrics = json.loads((finished.folder / "metrics.json").read_text())
    assert metrics == finished.metrics
    assert (metrics["seed"], metrics["epochs"], metrics["steps"]) == (0, 5, 45)


def test_the_saved_model_is_the_one_measured(finished):
    model = model_file.load(finished.folder / "model.safetensors")
    assert [layer.kind for layer in model.layers] == ["Affine", "LSTM", "Dense", "Affine"]
    known = dict(model.metadata)
    assert known["recipe"] == "sine"
    assert (known["series"], known["unit"]) == ("A sine", "")
    assert known["input_columns"] == known["target_columns"] == ["sine"]
    assert (known["horizon"], known["window"], known["loss_at"]) == (1, 20, "every")
    values = runs.small_series()
    predicted = reference.run(model, values[:, None].astype(np.float32))[:, 0]
    error = predicted[254:299] - values[255:]
    naive = values[254:299] - values[255:]
    metrics = finished.metrics
    assert metrics["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-12)
    assert metrics["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-12)
    assert metrics["naive_rmse"] == pytest.approx(np.sqrt(np.mean(naive**2)), rel=1e-12)
    assert metrics["naive_mae"] == pytest.approx(np.abs(naive).mean(), rel=1e-12)
    assert metrics["ratio"] == pytest.approx(metrics["rmse"] / metrics["naive_rmse"])


def test_scaling_layers_come_from_the_training_part(finished):
    train = runs.small_series()[:210]
    into, *_, back = finished.model.layers
    assert into.scale == pytest.approx([1 / train.std()], rel=1e-6)
    assert into.shift == pytest.approx([-train.mean() / train.std()], rel=1e-6)
    assert back.scale == pytest.approx([train.std()], rel=1e-6)
    assert back.shift == pytest.approx([train.mean()], rel=1e-6)


def test_lightning_does_what_a_plain_loop_does(finished):
    """The last epoch's weights and every loss, from twenty lines of torch."""
    values = runs.small_series()
    train = values[:210]
    z = torch.tensor((values - train.mean()) / train.std(), dtype=torch.float32)
    windows = z[:210].unfold(0, 21, 3)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = Network.from_sizes(1, runs.SMALL["network.layers"])
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    steps = 5 * 2
    step = 0
    for epoch in range(5):
        order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(epoch))
        total = 0.0
        for batch in order.split(32):
            y, _ = network(windows[batch, :-1, None])
            loss = ((y[:, 4:, 0] - windows[batch, 5:]) ** 2).mean()
            total += loss.item() * len(batch)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            rate = 1e-2 * (1 + np.cos(np.pi * step / steps)) / 2
            optimiser.param_groups[0]["lr"] = rate
            optimiser.step()
            step += 1
        with torch.no_grad():
            y, _ = network(z[None, 209 - 20 : 254, None])
        validation = ((y[0, 20:, 0] - z[210:255]) ** 2).mean().item()
        row = runs.history(finished)[epoch]
        assert float(row["train_loss"]) == pytest.approx(total / len(windows), rel=1e-5)
        assert float(row["validation_loss"]) == pytest.approx(validation, rel=1e-5)
    last = torch.load(finished.folder / "checkpoints" / "last.ckpt", weights_only=True)
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(
            last["state_dict"][f"network.{name}"], tensor, rtol=1e-4, atol=1e-6
        )


def test_the_same_seed_gives_the_same_run_whatever_torch_did_before(finished, tmp_path):
    torch.manual_seed(99)
    torch.randn(1000) @ torch.randn(1000)
    np.random.default_rng(3).standard_normal(10)
    again = runs.quick(runs.small(), tmp_path / "again")
    runs.same_run(again, finished)
    other = runs.quick(runs.small(**{"training.seed": 1}), tmp_path / "other")
    assert runs.model_bytes(other) != runs.model_bytes(finished)
    assert runs.column(other, "train_loss")[0] != runs.column(finished, "train_loss")[0]


def settings():
    """What torch holds for the whole process."""
    return (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
        torch.get_float32_matmul_precision(),
        bytes(torch.random.get_rng_state()),
        np.random.get_state()[1].tolist(),  # noqa: NPY002 - the one that Lightning seeds
    )


@pytest.mark.parametrize("precision", ["32", "64"])
@pytest.mark.parametrize("fails", [False, True])
def test_the_process_is_left_as_it_was(tmp_path, monkeypatch, precision, fails):
    torch.manual_seed(5)
    before = settings()
    recipe = runs.small(**{"training.max_epochs": 1, "training.precision": precision})
    if fails:
        runs.cut_at(monkeypatch, 0, 1)
        with pytest.raises(runs.PowerCutError):
            runs.quick(recipe, tmp_path / "run")
    else:
        runs.quick(recipe, tmp_path / "run")
    assert settings() == before


def test_early_stopping_keeps_the_best_epoch(tmp_path):
    result = runs.quick(runs.small(**WANDERING), tmp_path / "run")
    losses = runs.column(result, "validation_loss")
    assert len(losses) < 200
    assert len(losses) == np.argmin(losses) + 1 + 3
    assert result.metrics["best_epoch"] == np.argmin(losses)
    assert result.metrics["validation_loss"] == losses.min()
    best = torch.load(result.folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert np.array_equal(
        result.model.layers[2].weight, best["state_dict"]["network.layers.1.weight"].numpy()
    )


@pytest.mark.parametrize("name", ["checkpoints/mine.txt", "recipe.toml"])
def test_a_folder_of_other_files_is_left_alone(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    with pytest.raises(TrainingError, match=r"holds \w+.* but is no run folder: .* another folder"):
        runs.quick(runs.small(), tmp_path)
    assert path.read_text() == "mine"
    assert not (tmp_path / "unfinished").exists()


def test_an_accelerator_that_is_not_there(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("needs a machine without a GPU")
    with pytest.raises(TrainingError, match=r'no gpu .*set training\.accelerator = "auto"'):
        runs.quick(runs.small(**{"training.accelerator": "gpu"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_network_that_does_not_fit_into_memory(tmp_path):
    layers = [{"kind": "LSTM", "hidden_size": 10**9}, {"kind": "Dense", "output_size": 1}]
    with pytest.raises(RecipeError, match=r"network\.layers: cannot be made .* smaller"):
        runs.quick(runs.small(**{"network.layers": layers}), tmp_path / "run")


def test_a_network_that_does_not_end_in_its_targets(tmp_path):
    recipe = runs.small(**{"network.layers": [{"kind": "LSTM", "hidden_size": 4}]})
    with pytest.raises(
        RecipeError,
        match=r"the last layer puts out 4 values, but there is 1 to predict \(sine\): end with "
        r'\{ kind = "Dense", output_size = 1 \}',
    ):
        runs.quick(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_several_inputs_a_longer_horizon_and_no_scaling(tmp_path):
    t = np.arange(300)
    inputs = np.stack([np.sin(t / 5), np.cos(t / 5) * 100], 1)
    np.savez(tmp_path / "data.npz", a=inputs[:, 0], b=inputs[:, 1])
    recipe = load_recipe(
        "sine",
        data=tmp_path / "data.npz",
        overrides={
            **{k: v for k, v in runs.SMALL.items() if not k.startswith("series")},
            "series.input": ["a", "b"],
            "series.target": ["b", "a"],
            "series.scaling": "none",
            "windows.horizon": 3,
            "network.layers": [{"kind": "GRU", "hidden_size": 2}],
            "training.loss": "huber",
        },
    )
    result = runs.quick(recipe, tmp_path / "run")
    assert [layer.kind for layer in result.model.layers] == ["GRU"]
    targets = inputs[:, ::-1]
    predicted = reference.run(result.model, inputs.astype(np.float32))
    error = predicted[252:297] - targets[255:]
    naive = targets[252:297] - targets[255:]
    metrics = result.metrics
    assert metrics["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-12)
    assert list(metrics["columns"]) == ["b", "a"]
    assert metrics["columns"]["a"]["naive_mae"] == pytest.approx(np.abs(naive[:, 1]).mean())


def test_bad_series_leave_no_folder(tmp_path):
    recipe = load_recipe("sunspots", data=tmp_path / "absent.csv")
    with pytest.raises(SeriesError, match="no such file"):
        runs.quick(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_horizon_longer_than_the_series_is_refused(tmp_path):
    with pytest.raises(SeriesError, match=r"horizon 500\): give a longer series, .* smaller w"):
        runs.quick(runs.small(**{"windows.horizon": 500}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_constant_column_is_refused_and_trains_unscaled(tmp_path):
    np.save(tmp_path / "flat.npy", np.full(300, 7.5))
    options = {k: v for k, v in runs.SMALL.items() if not k.startswith("series")}
    recipe = load_recipe("sine", data=tmp_path / "flat.npy", overrides=options)
    with pytest.raises(SeriesError, match=r"column 0 is constant \(7\.5\) .* set scaling = \"none"):
        runs.quick(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    options["series.scaling"] = "none"
    recipe = load_recipe("sine", data=tmp_path / "flat.npy", overrides=options)
    result = runs.quick(recipe, tmp_path / "run")
    # The last value is a perfect guess; there is nothing to divide by.
    assert result.metrics["naive_rmse"] == 0.0
    assert result.metrics["ratio"] is None
    predicted = reference.run(result.model, np.full((300, 1), 7.5, np.float32))[254:299]
    assert result.metrics["rmse"] == pytest.approx(np.sqrt(np.mean((predicted - 7.5) ** 2)))


def test_progress_is_lines_where_there_is_no_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("fastlstm.train.progress.EpochBar.SECONDS_BETWEEN_LINES", 0.0)
    fit(runs.small(), tmp_path / "run")
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert lines[-1].startswith("epoch 4 of at most 5: train loss ")


def test_the_sunspot_recipe_beats_the_last_value(tmp_path):
    result = fit(load_recipe("sunspots"), tmp_path / "run", progress=False)
    assert result.metrics["ratio"] < 0.75
    assert tomllib.loads((tmp_path / "run" / "recipe.toml").read_text())["name"] == "sunspots"


def test_the_module_and_the_function_of_one_name():
    import fastlstm.train.fit as name

    assert callable(name)
    assert callable(__import__("sys").modules["fastlstm.train.fit"])
