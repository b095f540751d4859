"""The blocked layout: unpacked by hand, it is PyTorch's again, and nothing beyond it is set."""

import numpy as np
import pytest

import cases
from fastlstm.compiled import spec_of
from fastlstm.kernels.blocks import ALIGNMENT
from fastlstm.kernels.packing import aligned, pack


def packed(model):
    return pack([spec_of(model, k, layer) for k, layer in enumerate(model.layers)])


@pytest.mark.parametrize("hidden", [1, 5, 16, 17, 40])
def test_lstm_blocks_hold_every_weight_once(hidden):
    model = cases.Model((cases.recurrent("LSTM", 3, hidden),))
    plan, weights, _ = packed(model)
    layer, source = plan.layers[0], model.layers[0]
    rows = 1 + 3 + hidden
    size = layer.parts * rows * 4 * layer.width
    above = weights[: layer.parts * layer.part].reshape(layer.parts, 4, 4, layer.width)
    below = weights[above.size : size].reshape(layer.parts, hidden, 4, layer.width)
    blocks = np.concatenate([above, below], axis=1)
    # (rows, gate, unit) in PyTorch's order of units.
    flat = blocks.transpose(1, 2, 0, 3).reshape(rows, 4, -1)
    bias = (source.bias_ih_l0 + source.bias_hh_l0).reshape(4, hidden)
    assert np.array_equal(flat[0, :, :hidden], bias)
    assert np.array_equal(
        flat[1:4, :, :hidden], source.weight_ih_l0.reshape(4, hidden, 3).transpose(2, 0, 1)
    )
    assert np.array_equal(
        flat[4:, :, :hidden], source.weight_hh_l0.reshape(4, hidden, hidden).transpose(2, 0, 1)
    )
    assert not flat[:, :, hidden:].any()
    assert not weights[size:].any()


@pytest.mark.parametrize("name", list(cases.MODELS))
def test_buffers_do_not_overlap_and_lie_on_cache_lines(name):
    plan, weights, memory = packed(cases.model(name))
    assert weights.ctypes.data % 64 == memory.ctypes.data % 64 == 0
    assert (plan.weights_size, plan.memory_size) == (len(weights), len(memory))
    begins = {0, plan.output}
    ends_with = plan.layers[-1].result
    for layer in plan.layers:
        begins |= set(layer.result)
        if layer.kind in ("LSTM", "Difference"):
            begins.add(layer.cell)
        assert layer.weights % ALIGNMENT == 0
    assert all(begin % ALIGNMENT == 0 for begin in begins)
    places = [*sorted(begins), plan.memory_size]
    room = dict(zip(places, np.diff(places), strict=False))
    for layer in plan.layers:
        for begin in layer.result:
            assert room[begin] >= layer.outputs
    assert set(ends_with) <= begins


def test_aligned_offsets():
    for offset in (0, 1, 15):
        array = aligned(40, offset)
        assert array[offset:].ctypes.data % 64 == 0
        assert not array.any()
