"""The LSTM, GRU and RNN node tests that the onnx package carries, each with its verdict."""

import numpy as np
import pytest

from fastlstm import from_onnx, reference, sequence

onnx = pytest.importorskip("onnx", reason="onnx is not installed")

# Each case by name, and what is read from it. The tests' names are those of onnx 1.23; an older
# onnx carries fewer. Reverse alone is one half of a Bidirectional.
VERDICTS = {
    "test_gru_defaults": ["GRU"],
    "test_gru_with_initial_bias": ["GRU"],
    "test_gru_seq_length": ["GRU"],
    "test_gru_batchwise": ["GRU"],
    "test_gru_reverse": ["Bidirectional", "Dense"],
    "test_gru_bidirectional": ["Bidirectional"],
    "test_lstm_defaults": ["LSTM"],
    "test_lstm_with_initial_bias": ["LSTM"],
    "test_lstm_with_peepholes": ["LSTM"],
    "test_lstm_batchwise": ["LSTM"],
    "test_lstm_reverse": ["Bidirectional"],
    "test_lstm_bidirectional": ["Bidirectional"],
    "test_simple_rnn_defaults": ["RNN"],
    "test_simple_rnn_with_initial_bias": ["RNN"],
    "test_rnn_seq_length": ["RNN"],
    "test_simple_rnn_batchwise": ["RNN"],
    "test_simple_rnn_reverse": ["Bidirectional"],
    "test_simple_rnn_bidirectional": ["Bidirectional"],
}


@pytest.fixture(scope="module")
def node_cases():
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # making the cases of other operators warns
        from onnx.backend.test.loader import load_model_tests

        found = load_model_tests(kind="node")
    kinds = ("LSTM", "GRU", "RNN")
    return {
        case.name: case
        for case in found
        if case.model is not None and any(n.op_type in kinds for n in case.model.graph.node)
    }


def test_all_of_them_are_known(node_cases):
    assert set(node_cases) <= set(VERDICTS)
    if onnx.__version__.startswith("1.23"):
        assert set(node_cases) == set(VERDICTS)


@pytest.mark.parametrize("name", VERDICTS)
def test_node(name, node_cases):
    if name not in node_cases:
        pytest.skip(f"onnx {onnx.__version__} has no {name}")
    case = node_cases[name]
    (inputs, outputs), *others = case.data_sets
    assert not others
    graph = case.model.graph
    # These tests feed the weights in; a network's are constants.
    proto = onnx.ModelProto()
    proto.CopyFrom(case.model)
    for info, array in zip(graph.input[1:], inputs[1:], strict=True):
        constant = onnx.numpy_helper.from_array(np.asarray(array), info.name)
        proto.graph.initializer.append(constant)
    model = from_onnx(proto.SerializeToString())
    assert [layer.kind for layer in model.layers] == VERDICTS[name]
    (node,) = graph.node
    batch_first = any(a.name == "layout" and a.i for a in node.attribute)
    x = inputs[0] if batch_first else np.swapaxes(inputs[0], 0, 1)
    roads = [_whole, _reference] + ([] if model.bidirectional else [_stream])
    for road in roads:
        ends = [road(model, series) for series in np.asarray(x, np.float32)]
        for info, expected in zip(graph.output, outputs, strict=True):
            found = _output(model, list(node.output).index(info.name), ends, node)
            if batch_first:
                found = np.moveaxis(found, -2, 0)
            assert found.shape == expected.shape
            np.testing.assert_allclose(found, expected, rtol=case.rtol, atol=case.atol)


def _whole(model, series):
    result = sequence.run(model, series)
    return result.output, result.state


def _reference(model, series):
    result = reference.run_with_state(model, series)
    return result.output, result.state


def _stream(model, series):
    stream = model.stream()
    output = np.stack([stream.step(sample).copy() for sample in series])
    return output, _reference(model, series)[1]


def _output(model, position, ends, node):
    """Y (time, directions, batch, H), Y_h or Y_c (directions, batch, H) of all sequences."""
    reverse = any(a.name == "direction" and a.s == b"reverse" for a in node.attribute)
    if position == 0:
        directions = 2 if model.bidirectional and not reverse else 1
        y = np.stack([output for output, _ in ends], axis=1)
        return y.reshape(*y.shape[:2], directions, -1).swapaxes(1, 2)
    if position == 1 and not model.bidirectional:
        return np.stack([output[-1] for output, _ in ends])[None]
    wanted = "hc"[position - 1]
    names = [state.name for state in model.states]
    places = [k for k, name in enumerate(names) if name.partition("_")[0] == wanted]
    if reverse:
        places = places[1:]
    return np.stack([[state[k] for _, state in ends] for k in places])
