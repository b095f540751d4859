"""The learning-rate finder against a bare loop whose rate rises."""

import numpy as np
import pytest
import torch

import runs
from fastlstm.errors import RecipeError
from fastlstm.train.fit import prepared
from fastlstm.train.learning_rate import find_learning_rate


def test_the_rates_and_losses_are_those_of_a_bare_loop(tmp_path):
    recipe = runs.small(**{"training.gradient_clip": 0.0, "optimiser.name": "sgd"})
    before = torch.random.get_rng_state()
    found = find_learning_rate(recipe, tmp_path / "run", steps=30)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"learning_rate.png"}
    assert found.picture.read_bytes().startswith(b"\x89PNG")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    task = prepared(recipe)
    optimiser = torch.optim.SGD(task.network.parameters(), 1e-6)
    z, losses, mean, step = task.inputs[:, 0], [], 0.0, 0
    for epoch in range(100):
        order = torch.randperm(64, generator=torch.Generator().manual_seed(epoch))
        for batch in order.split(32):
            if step == len(found.losses):
                break
            rows = 3 * batch[:, None] + torch.arange(20)
            y, _ = task.network(z[rows].unsqueeze(-1))
            loss = ((y[:, 4:, 0] - z[rows + 1][:, 4:]) ** 2).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            # Lightning's smoothing corrects for one step too many, and its rate is one step ahead.
            mean = 0.02 * loss.item() + 0.98 * mean
            losses.append(mean / (1 - 0.98 ** (step + 2)))
            step += 1
            optimiser.param_groups[0]["lr"] = 10 ** (-6 + 6 * (step + 1) / 30)
    np.testing.assert_allclose(found.losses, losses, rtol=1e-5)
    assert len(losses) == 30
    rates = [1e-6, *(10 ** (-6 + 6 * (k + 1) / 30) for k in range(1, 30))]
    np.testing.assert_allclose(found.rates, rates, rtol=1e-9)
    assert found.suggestion in found.rates
    assert 1e-6 < found.suggestion < 1


def test_lbfgs_is_refused_with_what_to_do(tmp_path):
    overrides = {"optimiser.name": "lbfgs", "optimiser.schedule": "constant"}
    recipe = runs.small(**overrides, **{"training.gradient_clip": 0.0})
    with pytest.raises(RecipeError, match=r"found lbfgs: .* begin with 1 and halve it"):
        find_learning_rate(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()
