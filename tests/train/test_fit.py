"""Whole runs: against a plain torch loop, resumed, diverging, and what a run folder holds."""

import csv
import json
import shutil
import signal
import tomllib

import numpy as np
import pytest
import torch

from fastlstm import model_file, reference
from fastlstm.errors import RecipeError, SeriesError
from fastlstm.train import fit, load_recipe
from fastlstm.train.fit import FILES
from fastlstm.train.loop import Task, TrainingError
from fastlstm.train.network import Network

SMALL = {
    "series.generator.samples": 300,
    "windows.length": 20,
    "windows.warm_up": 4,
    "windows.stride": 3,
    "network.layers": [
        {"kind": "LSTM", "hidden_size": 4},
        {"kind": "Dense", "output_size": 1},
    ],
    "training.max_epochs": 5,
}


# So large a step that the loss soon wanders: the best epoch is not the last one.
WANDERING = {
    "training.max_epochs": 200,
    "training.patience": 3,
    "optimiser.learning_rate": 0.2,
    "optimiser.schedule": "constant",
}


def small(**overrides):
    return load_recipe("sine", overrides={**SMALL, **overrides})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One finished run that no test changes."""
    return fit(small(), tmp_path_factory.mktemp("runs") / "finished", progress=False)


def test_the_run_folder_holds_it_all(finished):
    assert {path.name for path in finished.folder.iterdir()} == {*FILES, "checkpoints"}
    assert {p.name for p in (finished.folder / "checkpoints").iterdir()} == {
        "best.ckpt",
        "last.ckpt",
    }
    assert all(path.stat().st_size for path in finished.files)
    assert load_recipe(finished.folder) == small()
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
    assert dict(model.metadata) == {
        "recipe": "sine",
        "series": "Two sines",
        "unit": "",
        "input_columns": ["sine"],
        "target_columns": ["sine"],
        "horizon": 1,
    }
    values = small_series()
    predicted = reference.run(model, values[:, None].astype(np.float32))[:, 0]
    error = predicted[254:299] - values[255:]
    naive = values[254:299] - values[255:]
    metrics = finished.metrics
    assert metrics["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-12)
    assert metrics["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-12)
    assert metrics["naive_rmse"] == pytest.approx(np.sqrt(np.mean(naive**2)), rel=1e-12)
    assert metrics["naive_mae"] == pytest.approx(np.abs(naive).mean(), rel=1e-12)
    assert metrics["ratio"] == pytest.approx(metrics["rmse"] / metrics["naive_rmse"])


def small_series():
    t = np.arange(300)
    noise = np.random.default_rng(0).standard_normal(300)
    return np.sin(2 * np.pi * t / 40) + np.sin(2 * np.pi * t / 17) / 2 + 0.02 * noise


def test_scaling_layers_come_from_the_training_part(finished):
    train = small_series()[:210]
    into, *_, back = finished.model.layers
    assert into.scale == pytest.approx([1 / train.std()], rel=1e-6)
    assert into.shift == pytest.approx([-train.mean() / train.std()], rel=1e-6)
    assert back.scale == pytest.approx([train.std()], rel=1e-6)
    assert back.shift == pytest.approx([train.mean()], rel=1e-6)


def test_lightning_does_what_a_plain_loop_does(finished):
    """The last epoch's weights and every loss, from twenty lines of torch."""
    values = small_series()
    train = values[:210]
    z = torch.tensor((values - train.mean()) / train.std(), dtype=torch.float32)
    windows = z[:210].unfold(0, 21, 3)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = Network.from_sizes(1, SMALL["network.layers"])
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
            y, _ = network(z[None, 210 - 21 : 254, None])
        validation = ((y[0, 20:, 0] - z[210:255]) ** 2).mean().item()
        row = _history(finished)[epoch]
        assert float(row["train_loss"]) == pytest.approx(total / len(windows), rel=1e-5)
        assert float(row["validation_loss"]) == pytest.approx(validation, rel=1e-5)
    torch.set_num_threads(threads)
    last = torch.load(finished.folder / "checkpoints" / "last.ckpt", weights_only=True)
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(
            last["state_dict"][f"network.{name}"], tensor, rtol=1e-4, atol=1e-6
        )


def _history(result):
    with (result.folder / "history.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_same_seed_gives_the_same_bytes(finished, tmp_path):
    again = fit(small(), tmp_path / "again", progress=False)
    other = fit(small(**{"training.seed": 1}), tmp_path / "other", progress=False)
    assert _model_bytes(again) == _model_bytes(finished)
    assert _model_bytes(other) != _model_bytes(finished)


def _model_bytes(result):
    return (result.folder / "model.safetensors").read_bytes()


def test_the_process_is_left_as_it_was(tmp_path):
    torch.manual_seed(5)
    before = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())
    state = torch.random.get_rng_state()
    fit(small(**{"training.max_epochs": 1}), tmp_path / "run", progress=False)
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before
    assert torch.equal(torch.random.get_rng_state(), state)


class PowerCutError(Exception):
    pass


@pytest.mark.parametrize(("epoch", "batch"), [(2, 0), (3, 1)])
def test_a_killed_run_resumes_as_if_nothing_had_been(tmp_path, monkeypatch, epoch, batch):
    recipe = small(
        **{
            "network.dropout": 0.2,
            "network.learned_initial_state": True,
            "training.level_shift": 0.5,
            "network.layers": [
                {"kind": "GRU", "hidden_size": 4},
                {"kind": "RNN", "hidden_size": 3},
                {"kind": "Dense", "output_size": 1},
            ],
        }
    )
    whole = fit(recipe, tmp_path / "whole", progress=False)
    step = Task.training_step
    seen = []

    def cut(task, starts):
        if task.current_epoch == epoch:
            seen.append(epoch)
            if len(seen) > batch:
                raise PowerCutError
        return step(task, starts)

    with monkeypatch.context() as patch:
        patch.setattr(Task, "training_step", cut)
        with pytest.raises(PowerCutError):
            fit(recipe, tmp_path / "cut", progress=False)
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    resumed = fit(recipe, tmp_path / "cut", resume=True, progress=False)
    assert _history(resumed) == _history(whole)
    assert _model_bytes(resumed) == _model_bytes(whole)


def test_ctrl_c_stops_the_run_and_not_the_process(tmp_path, monkeypatch, capsys):
    def cut(task, starts):
        if task.current_epoch == 2:
            raise KeyboardInterrupt
        return step(task, starts)

    step = Task.training_step
    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(Task, "training_step", cut)
        with pytest.raises(KeyboardInterrupt):
            fit(small(), tmp_path / "run")
    assert signal.getsignal(signal.SIGINT) is handler
    assert "stopped after 2 epochs; resume to go on" in capsys.readouterr().err
    assert fit(small(), tmp_path / "run", resume=True, progress=False).metrics["epochs"] == 5


def test_early_stopping_counts_on_through_a_kill(tmp_path, monkeypatch):
    recipe = small(**WANDERING)
    whole = fit(recipe, tmp_path / "whole", progress=False)
    # In the middle of the epochs that bring no improvement.
    cut_at = whole.metrics["epochs"] - 2

    def cut(task, starts):
        if task.current_epoch == cut_at:
            raise PowerCutError
        return step(task, starts)

    step = Task.training_step
    with monkeypatch.context() as patch:
        patch.setattr(Task, "training_step", cut)
        with pytest.raises(PowerCutError):
            fit(recipe, tmp_path / "cut", progress=False)
    resumed = fit(recipe, tmp_path / "cut", resume=True, progress=False)
    assert _history(resumed) == _history(whole)
    assert _model_bytes(resumed) == _model_bytes(whole)


def test_a_finished_run_goes_on_when_it_may_last_longer(tmp_path):
    constant = {"optimiser.schedule": "constant"}
    whole = fit(small(**constant), tmp_path / "whole", progress=False)
    short = small(**constant, **{"training.max_epochs": 2})
    fit(short, tmp_path / "two", progress=False)
    resumed = fit(small(**constant), tmp_path / "two", resume=True, progress=False)
    assert _history(resumed) == _history(whole)
    assert _model_bytes(resumed) == _model_bytes(whole)


def test_a_run_folder_may_be_moved_before_it_goes_on(tmp_path):
    constant = {"optimiser.schedule": "constant", "optimiser.learning_rate": 0.2}
    longer = small(**constant, **{"training.max_epochs": 12})
    whole = fit(longer, tmp_path / "one", progress=False)
    for epochs in range(2, 12, 3):
        short = small(**constant, **{"training.max_epochs": epochs})
        fit(short, tmp_path / f"here{epochs}", progress=False)
        (tmp_path / f"here{epochs}").rename(tmp_path / f"there{epochs}")
        resumed = fit(longer, tmp_path / f"there{epochs}", resume=True, progress=False)
        assert resumed.metrics["best_epoch"] == whole.metrics["best_epoch"]
        assert _model_bytes(resumed) == _model_bytes(whole)


def test_resume_says_what_is_missing_or_changed(finished, tmp_path):
    with pytest.raises(
        TrainingError, match="nothing to resume: no run here has completed an epoch"
    ):
        fit(small(), tmp_path / "empty", resume=True, progress=False)
    changed = small(**{"training.seed": 3, "optimiser.learning_rate": 0.5})
    with pytest.raises(
        RecipeError,
        match=r"started with another recipe; changed: optimiser\.learning_rate, training\.seed; ",
    ):
        fit(changed, finished.folder, resume=True, progress=False)
    assert not (finished.folder / "unfinished").exists()


def test_early_stopping_keeps_the_best_epoch(tmp_path):
    recipe = small(**WANDERING)
    result = fit(recipe, tmp_path / "run", progress=False)
    losses = [float(row["validation_loss"]) for row in _history(result)]
    assert len(losses) < 200
    assert len(losses) == np.argmin(losses) + 1 + 3
    assert result.metrics["best_epoch"] == np.argmin(losses)
    best = torch.load(result.folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert np.array_equal(
        result.model.layers[2].weight, best["state_dict"]["network.layers.1.weight"].numpy()
    )


DIVERGING = {
    "optimiser.name": "sgd",
    "optimiser.learning_rate": 1e30,
    "optimiser.schedule": "constant",
    "training.gradient_clip": 0.0,
}


def test_a_diverging_run_costs_nothing_that_was_saved(finished, tmp_path):
    first = fit(small(), tmp_path / "run", progress=False)
    before = {path.name: path.read_bytes() for path in first.files}
    with pytest.raises(TrainingError) as error:
        fit(small(**DIVERGING), tmp_path / "run", progress=False)
    message = str(error.value)
    assert message.startswith("training diverged in epoch 0 (train loss ")
    assert "lower optimiser.learning_rate (now 1e+30) or set a smaller training.grad" in message
    assert "(now 0, which clips nothing)" in message
    assert {path.name: path.read_bytes() for path in first.files} == before
    # And the next good run clears what the bad one left.
    fit(small(), tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "unfinished").exists()


def test_the_best_network_before_a_divergence_is_saved(tmp_path, monkeypatch):
    step = Task.training_step

    def diverge(task, starts):
        return step(task, starts) * (float("nan") if task.current_epoch == 2 else 1.0)

    def total(task):
        task._total = torch.tensor(float("nan")) if task.current_epoch == 2 else task._total
        return end(task)

    end = Task.on_train_epoch_end
    monkeypatch.setattr(Task, "training_step", diverge)
    monkeypatch.setattr(Task, "on_train_epoch_end", total)
    with pytest.raises(TrainingError, match=r"in epoch 2 .*; the best network before that is in "):
        fit(small(), tmp_path / "run", progress=False)
    model = model_file.load(tmp_path / "run" / "unfinished" / "model.safetensors")
    assert [layer.kind for layer in model.layers] == ["Affine", "LSTM", "Dense", "Affine"]
    # A new run there puts what was left aside, and does not lose it.
    monkeypatch.undo()
    left = (tmp_path / "run" / "unfinished" / "model.safetensors").read_bytes()
    fit(small(), tmp_path / "run", progress=False)
    assert (tmp_path / "run" / "unfinished.old" / "model.safetensors").read_bytes() == left
    assert not (tmp_path / "run" / "unfinished").exists()


@pytest.mark.parametrize("name", ["checkpoints/mine.txt", "recipe.toml"])
def test_a_folder_of_other_files_is_left_alone(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    with pytest.raises(TrainingError, match=r"holds \w+.* but is no run folder: .* another folder"):
        fit(small(), tmp_path, progress=False)
    assert path.read_text() == "mine"
    assert not (tmp_path / "unfinished").exists()


def test_an_accelerator_that_is_not_there(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("needs a machine without a GPU")
    with pytest.raises(TrainingError, match=r'no gpu .*set training\.accelerator = "auto"'):
        fit(small(**{"training.accelerator": "gpu"}), tmp_path / "run", progress=False)


def test_a_damaged_checkpoint_is_named(finished, tmp_path):
    folder = shutil.copytree(finished.folder, tmp_path / "run")
    before = (folder / "model.safetensors").read_bytes()
    last = folder / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(TrainingError, match=r"last\.ckpt: cannot be read: .* without resuming"):
        fit(small(), folder, resume=True, progress=False)
    assert (folder / "model.safetensors").read_bytes() == before


def test_a_network_that_does_not_fit_into_memory(tmp_path):
    layers = [{"kind": "LSTM", "hidden_size": 10**9}, {"kind": "Dense", "output_size": 1}]
    with pytest.raises(RecipeError, match=r"network\.layers: cannot be made .* smaller"):
        fit(small(**{"network.layers": layers}), tmp_path / "run", progress=False)


def test_a_network_that_does_not_end_in_its_targets(tmp_path):
    recipe = small(**{"network.layers": [{"kind": "LSTM", "hidden_size": 4}]})
    with pytest.raises(
        RecipeError,
        match=r"the last layer puts out 4 values, but there is 1 to predict \(sine\): end with "
        r'\{ kind = "Dense", output_size = 1 \}',
    ):
        fit(recipe, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def two_columns(tmp_path):
    t = np.arange(300)
    columns = (np.sin(t / 5), np.cos(t / 5) * 100)
    np.savez(tmp_path / "data.npz", a=columns[0], b=columns[1])
    return tmp_path / "data.npz"


def test_several_inputs_a_longer_horizon_and_no_scaling(two_columns, tmp_path):
    recipe = load_recipe(
        "sine",
        data=two_columns,
        overrides={
            **{k: v for k, v in SMALL.items() if not k.startswith("series")},
            "series.input": ["a", "b"],
            "series.target": ["b", "a"],
            "series.scaling": "none",
            "windows.horizon": 3,
            "network.layers": [{"kind": "GRU", "hidden_size": 2}],
            "training.loss": "huber",
        },
    )
    result = fit(recipe, tmp_path / "run", progress=False)
    assert [layer.kind for layer in result.model.layers] == ["GRU"]
    with np.load(two_columns) as data:
        inputs = np.stack([data["a"], data["b"]], 1)
        targets = inputs[:, ::-1]
    predicted = reference.run(result.model, inputs.astype(np.float32))
    error = predicted[252:297] - targets[255:]
    naive = targets[252:297] - targets[255:]
    metrics = result.metrics
    assert metrics["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-12)
    assert list(metrics["columns"]) == ["b", "a"]
    assert metrics["columns"]["a"]["naive_mae"] == pytest.approx(np.abs(naive[:, 1]).mean())
    with pytest.raises(RecipeError, match=r"level_shift .* found b, a and a, b: set it to 0"):
        fit(
            recipe.model_copy(
                update={"training": recipe.training.model_copy(update={"level_shift": 1.0})}
            ),
            tmp_path / "other",
            progress=False,
        )


def test_bad_series_leave_no_folder(tmp_path):
    recipe = load_recipe("sunspots", data=tmp_path / "absent.csv")
    with pytest.raises(SeriesError, match="no such file"):
        fit(recipe, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_progress_is_lines_where_there_is_no_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("fastlstm.train.loop.EpochBar.SECONDS_BETWEEN_LINES", 0.0)
    fit(small(), tmp_path / "run")
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
