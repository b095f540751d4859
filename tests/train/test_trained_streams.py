"""What was trained streams as exactly as what was drawn: contract 1 on trained weights."""

import numpy as np
import pytest

import cases
from fastlstm import reference
from fastlstm.model import Model

torch = pytest.importorskip("torch", reason="needs torch: pip install 'fastlstm[train]'")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    from fastlstm.train import fit, load_recipe

    folder = tmp_path_factory.mktemp("trained") / "run"
    return fit(load_recipe("sine"), folder, progress=False).model


def torch_float32(model, x):
    from fastlstm.train.network import Network

    with torch.inference_mode():
        return Network.from_model(model)(torch.tensor(x)[None])[0][0].numpy()


def check(model, x):
    exact = reference.run(model, x)
    theirs = np.abs(torch_float32(model, x) - exact).max()
    ours = np.abs(model.stream().run(x) - exact).max()
    assert ours <= 2 * theirs + 1e-6


def test_a_trained_model_over_10000_steps(trained):
    steps = np.arange(10_000)
    wave = np.sin(0.13 * steps) + 0.3 * np.sin(0.031 * steps)
    check(trained, wave[:, np.newaxis].astype(np.float32))
    check(trained, reference.check_input(trained, 10_000))


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("layers", [2, 3])
def test_a_stack_over_10000_steps(kind, layers):
    model = cases.stack(kind, 17, layers)
    check(Model(model.layers), reference.check_input(model, 10_000))
