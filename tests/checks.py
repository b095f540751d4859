"""What several test files assert alike: values against the reference, within stated bounds."""

import numpy as np
import pytest

import cases
from fastlstm import reference
from fastlstm.errors import InputError
from fastlstm.model import Model
from fastlstm.verify import truth


def no_further_than_twice_torch(layer, module):
    """A stream of `layer` over 10,000 steps, against torch's own distance from the reference."""
    import torch

    model = Model((layer,))
    module.load_state_dict({k: torch.tensor(v) for k, v in layer.arrays.items()})
    x = reference.check_input(model, 10_000)
    exact = reference.run(model, x)
    with torch.inference_mode():
        theirs = np.abs(module(torch.tensor(x)[:, None])[0][:, 0].numpy() - exact).max()
    ours = np.abs(model.stream().run(x) - exact).max()
    assert ours <= 2 * theirs + 1e-6


def bad_input_changes_nothing(model):
    """A stream that has refused samples goes on, to the bit, as one that never saw them."""
    stream, untouched = model.stream(), model.stream()
    x = cases.stream(model, 30)
    stream.run(x)
    untouched.run(x)
    spoiled = x.copy()
    spoiled[-1] = np.nan
    for call, bad in ((stream.push, np.inf), (stream.step, [1.0, 2.0]), (stream.run, spoiled)):
        with pytest.raises(InputError):
            call(bad)
        assert stream.snapshot() == untouched.snapshot()
    assert np.array_equal(stream.step(x[0]), untouched.step(x[0]))


def batch_is_right(model, x, y, states):
    """Outputs and final states of every sequence of a batch, each against the reference."""
    for k, sequence in enumerate(x):
        true = truth(model, sequence)
        np.testing.assert_allclose(y[k], true.output, rtol=0, atol=true.bound)
        for found, expected in zip(states, true.state, strict=True):
            np.testing.assert_allclose(found[k], expected, rtol=0, atol=true.state_bound)


def step_for_inductor_is_right(model, atol):
    """The step that Inductor compiles, before it does, in float64 over 20 samples."""
    import torch

    from fastlstm.export import inductor_package

    step = inductor_package.cell_step(model).double()
    x = cases.stream(model, 20).astype(np.float64)
    expected, final = reference.run_with_state(model, x)
    state = [torch.tensor(s.initial[None], dtype=torch.float64) for s in model.states]
    with torch.no_grad():
        for row, true in zip(torch.from_numpy(x).split(1), expected, strict=True):
            y, *state = step(row, *state)
            np.testing.assert_allclose(y[0], true, rtol=0, atol=atol)
    for found, true in zip(state, final, strict=True):
        np.testing.assert_allclose(found[0], true, rtol=0, atol=atol)
