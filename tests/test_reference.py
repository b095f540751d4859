"""The oracle against torch float64, and against closed forms where there are some.

What torch does not have, peepholes and the GRU that resets before its product, is held against
ONNX's own evaluator, and where that has none either, against loops over single numbers.
"""

import math

import numpy as np
import pytest

import cases
from fastlstm import Difference, LayerNorm, Residual, reference
from fastlstm.model import GRU, LSTM, RNN, Affine, Bidirectional, Dense, Model

torch = pytest.importorskip("torch", reason="torch is not installed")


def torch_run(model, x):
    """The model's recurrent layers and Dense layers in torch float64, from torch's own modules."""
    value = torch.tensor(x, dtype=torch.float64)[:, None]
    states = []
    for layer in model.layers:
        if isinstance(layer, Dense):
            value = torch.nn.functional.linear(
                value, *(torch.tensor(a, dtype=torch.float64) for a in layer.arrays.values())
            )
            continue
        extra = {"nonlinearity": layer.nonlinearity} if isinstance(layer, RNN) else {}
        module = getattr(torch.nn, layer.kind)(
            layer.input_size, layer.hidden_size, bias=layer.bias_ih_l0 is not None, **extra
        ).double()
        own = {k: v for k, v in layer.arrays.items() if k not in ("h0", "c0")}
        module.load_state_dict({k: torch.tensor(v, dtype=torch.float64) for k, v in own.items()})
        start = [
            torch.tensor(s.initial, dtype=torch.float64)[None, None]
            for s in model.states
            if model.layers[s.layer] is layer
        ]
        value, end = module(value, tuple(start) if len(start) == 2 else start[0])
        states += [s[0, 0] for s in (end if isinstance(end, tuple) else (end,))]
    return value[:, 0].detach().numpy(), [s.detach().numpy() for s in states]


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("hidden", [1, 3, 16, 17, 64, 130])
def test_equals_torch_float64(kind, layers, hidden):
    model = cases.stack(kind, hidden, layers)
    x = reference.check_input(model, 200)
    output, state = reference.run_with_state(model, x)
    expected, expected_state = torch_run(model, x)
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-12)
    for found, true in zip(state, expected_state, strict=True):
        np.testing.assert_allclose(found, true, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "name", ["rnn-relu", "no-bias", "gru-no-bias", "learned-start", "saturating"]
)
def test_equals_torch_float64_in_awkward_cases(name):
    model = cases.model(name)
    x = cases.stream(model, 200)
    output, state = reference.run_with_state(model, x)
    expected, expected_state = torch_run(model, x)
    scale = max(1, np.abs(expected).max())
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-12 * scale)
    for found, true in zip(state, expected_state, strict=True):
        np.testing.assert_allclose(found, true, rtol=0, atol=1e-12 * max(1, np.abs(true).max()))


def torch_module(kind, inputs, hidden, **options):
    """A torch module of float32 weights in float64, and a Model of its weights, built by name."""
    torch.manual_seed(0)
    module = getattr(torch.nn, kind)(inputs, hidden, **options)
    depth, both = module.num_layers, module.bidirectional
    weights = {name: p.detach().numpy() for name, p in module.named_parameters()}
    layers = []
    for k in range(depth):
        ways = []
        for suffix in ("", "_reverse")[: 1 + both]:
            end = f"_l{k}{suffix}"
            arrays = {n.removesuffix(end) + "_l0": a for n, a in weights.items() if n.endswith(end)}
            settings = {"nonlinearity": module.nonlinearity} if kind == "RNN" else {}
            ways.append({"LSTM": LSTM, "GRU": GRU, "RNN": RNN}[kind](**arrays, **settings))
        layers.append(Bidirectional(*ways) if both else ways[0])
    return module.double(), Model(tuple(layers))


TORCH_MODULES = {
    "projection": ("LSTM", {"proj_size": 4}),
    "projection to one": ("LSTM", {"proj_size": 1, "bias": False}),
    "projection, 2 layers": ("LSTM", {"proj_size": 3, "num_layers": 2}),
    "both ways": ("LSTM", {"bidirectional": True}),
    "both ways, 2 layers": ("LSTM", {"bidirectional": True, "num_layers": 2}),
    "both ways, projection": ("LSTM", {"bidirectional": True, "proj_size": 4}),
    "both ways, 2 layers, projection": (
        "LSTM",
        {"bidirectional": True, "num_layers": 2, "proj_size": 4},
    ),
    "GRU both ways": ("GRU", {"bidirectional": True}),
    "GRU both ways, 2 layers": ("GRU", {"bidirectional": True, "num_layers": 2, "bias": False}),
    "RNN both ways": ("RNN", {"bidirectional": True}),
    "RNN both ways, 2 layers": (
        "RNN",
        {"bidirectional": True, "num_layers": 2, "nonlinearity": "relu"},
    ),
}


@pytest.mark.parametrize("name", list(TORCH_MODULES))
@pytest.mark.parametrize("hidden", [5, 33])
def test_projections_and_both_directions_equal_torch_float64(name, hidden):
    kind, options = TORCH_MODULES[name]
    module, model = torch_module(kind, 3, hidden, **options)
    x = reference.check_input(model, 200)
    output, state = reference.run_with_state(model, x)
    with torch.no_grad():
        expected, end = module(torch.tensor(x, dtype=torch.float64)[:, None])
    np.testing.assert_allclose(output, expected[:, 0].numpy(), rtol=0, atol=1e-12)
    # torch: h of every layer and direction, then c of each; ours: h and c side by side.
    ends = zip(*end, strict=True) if isinstance(end, tuple) else zip(end, strict=True)
    expected_state = [vector[0].numpy() for pair in ends for vector in pair]
    assert len(state) == len(expected_state)
    for found, true in zip(state, expected_state, strict=True):
        np.testing.assert_allclose(found, true, rtol=0, atol=1e-12)


def test_both_directions_begin_in_their_own_initial_states():
    layer = cases.bidirectional("LSTM", 3, 6, projection=2, initial=True)
    x = reference.check_input(Model((layer,)), 50)
    output, state = reference.run_with_state(Model((layer,)), x)
    module = torch.nn.LSTM(3, 6, bidirectional=True, proj_size=2).double()
    weights = {n: a for n, a in layer.arrays.items() if n[:2] not in ("h0", "c0")}
    module.load_state_dict({n: torch.tensor(a) for n, a in weights.items()})
    start = [
        torch.tensor(np.stack([getattr(way, name) for way in (layer.forward, layer.backward)]))
        for name in ("h0", "c0")
    ]
    with torch.no_grad():
        expected, end = module(
            torch.tensor(x, dtype=torch.float64)[:, None], [s[:, None].double() for s in start]
        )
    np.testing.assert_allclose(output, expected[:, 0].numpy(), rtol=0, atol=1e-12)
    h, c = (e[:, 0].numpy() for e in end)
    for found, true in zip(state, (h[0], c[0], h[1], c[1]), strict=True):
        np.testing.assert_allclose(found, true, rtol=0, atol=1e-12)


def blocks(array, order):
    """An array's blocks along the first axis, in another order."""
    parts = np.split(array.astype(np.float64), len(order))
    return np.concatenate([parts[k] for k in order])[None]


def onnx_run(layer, x):
    """One layer in onnx's own evaluator, in float64: outputs and final states."""
    pytest.importorskip("onnx", reason="onnx is not installed")
    from onnx import TensorProto, helper
    from onnx.reference import ReferenceEvaluator

    # Ours are i f g o and i f o, ONNX's i o f c and i o f; ours r z n, ONNX's z r h.
    order = [0, 3, 1, 2] if layer.kind == "LSTM" else [1, 0, 2]
    biases = [blocks(layer.arrays[n], order) for n in ("bias_ih_l0", "bias_hh_l0")]
    values = {
        "X": x[:, None].astype(np.float64),
        "W": blocks(layer.weight_ih_l0, order),
        "R": blocks(layer.weight_hh_l0, order),
        "B": np.concatenate(biases, axis=1),
        **{f"initial_{s.name}": s.initial[None, None].astype(np.float64) for s in layer.states},
    }
    names = ["X", "W", "R", "B", "", "initial_h"]
    if layer.kind == "LSTM":
        names += ["initial_c", "P"]
        values["P"] = blocks(layer.peephole_l0, [0, 2, 1])
    settings = {} if layer.kind == "LSTM" else {"linear_before_reset": int(layer.reset == "after")}
    ends = [f"Y_{s.name}" for s in layer.states]
    node = helper.make_node(
        layer.kind, names, ["Y", *ends], hidden_size=layer.hidden_size, **settings
    )

    def of(name, shape):
        return helper.make_tensor_value_info(name, TensorProto.DOUBLE, shape)

    graph = helper.make_graph(
        [node],
        "layer",
        [of(name, value.shape) for name, value in values.items()],
        [of(name, None) for name in ("Y", *ends)],
    )
    found = ReferenceEvaluator(helper.make_model(graph)).run(None, values)
    assert all(array.dtype == np.float64 for array in found)
    return found[0][:, 0, 0], [array[0, 0] for array in found[1:]]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("LSTM", {"peephole": True}),
        ("LSTM", {"peephole": True, "initial": True}),
        ("LSTM", {"peephole": True, "gain": 10.0}),
        ("GRU", {"reset": "before"}),
        ("GRU", {"reset": "before", "initial": True}),
        ("GRU", {"reset": "after", "initial": True}),
    ],
)
@pytest.mark.parametrize("hidden", [1, 17, 64])
def test_equals_the_evaluator_of_onnx(kind, options, hidden):
    layer = cases.recurrent(kind, 3, hidden, **options)
    model = Model((layer,))
    # Not cases.stream: its loud stretch overflows the evaluator's exp, which is an error here.
    x = reference.check_input(model, 200)
    output, state = reference.run_with_state(model, x)
    expected, expected_state = onnx_run(layer, x)
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-12)
    for found, true in zip(state, expected_state, strict=True):
        np.testing.assert_allclose(found, true, rtol=0, atol=1e-12)


def lstm_number_by_number(layer, x, *, output_gate_sees="new"):
    """An LSTM with peepholes and a projection, in single Python numbers: outputs, final h and c.

    It is the witness for what no other library computes together. With `output_gate_sees` "old"
    it makes the mistake that peepholes invite.
    """
    arrays = {name: array.tolist() for name, array in layer.arrays.items()}
    hidden, h, c = layer.hidden_size, arrays["h0"], arrays["c0"]
    peephole = arrays["peephole_l0"]

    def gate(row, sample):
        terms = [w * v for w, v in zip(arrays["weight_ih_l0"][row], sample, strict=True)]
        terms += [w * v for w, v in zip(arrays["weight_hh_l0"][row], h, strict=True)]
        return math.fsum([*terms, arrays["bias_ih_l0"][row], arrays["bias_hh_l0"][row]])

    def logistic(value):
        return 1 / (1 + math.exp(-value))

    outputs = []
    for sample in x.tolist():
        new_c, cell_outputs = [], []
        for unit, old in enumerate(c):
            i, f, g, o = (gate(k * hidden + unit, sample) for k in range(4))
            i = logistic(i + peephole[unit] * old)
            f = logistic(f + peephole[hidden + unit] * old)
            new = f * old + i * math.tanh(g)
            seen = new if output_gate_sees == "new" else old
            o = logistic(o + peephole[2 * hidden + unit] * seen)
            new_c.append(new)
            cell_outputs.append(o * math.tanh(new))
        c = new_c
        h = [
            math.fsum(w * v for w, v in zip(row, cell_outputs, strict=True))
            for row in arrays["weight_hr_l0"]
        ]
        outputs.append(h)
    return np.array(outputs), [np.array(h), np.array(c)]


def test_peephole_projection_and_learned_start_go_together():
    layer = cases.recurrent("LSTM", 2, 7, projection=3, peephole=True, initial=True)
    x = reference.check_input(Model((layer,)), 60)
    output, state = reference.run_with_state(Model((layer,)), x)
    expected, expected_state = lstm_number_by_number(layer, x)
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-12)
    for found, true in zip(state, expected_state, strict=True):
        np.testing.assert_allclose(found, true, rtol=0, atol=1e-12)


def test_an_output_gate_that_sees_the_old_cell_state_is_told_apart():
    layer = cases.recurrent("LSTM", 2, 7, projection=3, peephole=True, initial=True)
    x = reference.check_input(Model((layer,)), 60)
    wrong, _ = lstm_number_by_number(layer, x, output_gate_sees="old")
    assert np.abs(reference.run(Model((layer,)), x) - wrong).max() > 1e-3


def test_the_two_resets_are_told_apart():
    before, after = (cases.recurrent("GRU", 2, 7, reset=reset) for reset in ("before", "after"))
    x = reference.check_input(Model((before,)), 60)
    distance = reference.run(Model((before,)), x) - reference.run(Model((after,)), x)
    assert np.abs(distance).max() > 1e-3
    # Where the reset gate is open, r = 1, it does not matter where it acts.
    opened = []
    for layer in (before, after):
        arrays = dict(layer.arrays)
        arrays["bias_ih_l0"] = np.where(np.arange(21) < 7, 100, arrays["bias_ih_l0"])
        arrays["bias_ih_l0"] = arrays["bias_ih_l0"].astype(np.float32)
        opened.append(reference.run(Model((GRU(**arrays, reset=layer.reset),)), x))
    np.testing.assert_allclose(*opened, rtol=0, atol=1e-14)


def test_both_directions_of_one_sample_are_two_layers_side_by_side():
    layer = cases.bidirectional("GRU", 3, 4)
    x = reference.check_input(Model((layer,)), 1)
    ways = [reference.run(Model((way,)), x) for way in (layer.forward, layer.backward)]
    output, state = reference.run_with_state(Model((layer,)), x)
    assert np.array_equal(output, np.concatenate(ways, axis=1))
    assert np.array_equal(np.concatenate(state), output[0])
    assert reference.run(Model((layer,)), x[:0]).shape == (0, 8)


@pytest.mark.parametrize("activation", ["linear", "relu", "tanh", "sigmoid", "softmax"])
def test_activations_equal_torch(activation):
    layer = cases.dense(6, 9, activation)
    x = cases.stream(Model((layer,)), 40)
    z = torch.nn.functional.linear(
        torch.tensor(x, dtype=torch.float64),
        torch.tensor(layer.weight, dtype=torch.float64),
        torch.tensor(layer.bias, dtype=torch.float64),
    )
    if activation == "softmax":
        z = torch.softmax(z, -1)
    elif activation != "linear":
        z = getattr(torch, activation)(z)
    np.testing.assert_allclose(reference.run(Model((layer,)), x), z.numpy(), rtol=0, atol=1e-12)


def test_zero_weights_have_a_closed_form():
    # Every gate is sigmoid(0) = 1/2 and g is tanh(bias): c is a geometric sum, h half its tanh.
    rows = np.zeros((4, 1), np.float32)
    bias = np.array([0, 0, 0.5, 0], np.float32)
    layer = LSTM(rows, rows.copy(), bias, np.zeros(4, np.float32))
    steps = np.arange(1, 11)
    c = np.tanh(0.5) * (1 - 0.5**steps)
    found = reference.run(Model((layer,)), np.zeros((10, 1)))
    np.testing.assert_allclose(found[:, 0], 0.5 * np.tanh(c), rtol=1e-15)


def test_affine_is_elementwise():
    model = Model((Affine(np.array([2, -1], np.float32), np.array([0.5, 3], np.float32)),))
    assert reference.run(model, [[1, 1], [0, 2]]).tolist() == [[2.5, 2], [0.5, 1]]


@pytest.mark.parametrize("size", [1, 3, 16, 17, 130])
@pytest.mark.parametrize("eps", [1e-5, 1e-12, 0.1])
@pytest.mark.parametrize("bias", [True, False])
def test_a_norm_equals_torch_float64(size, eps, bias):
    layer = cases.layer_norm(size, eps=eps, bias=bias)
    x = cases.stream(Model((layer,)), 40)
    module = torch.nn.LayerNorm(size, eps=eps, bias=bias).double()
    module.load_state_dict({k: torch.tensor(v) for k, v in layer.arrays.items()})
    with torch.no_grad():
        expected = module(torch.tensor(x, dtype=torch.float64)).numpy()
    np.testing.assert_allclose(reference.run(Model((layer,)), x), expected, rtol=0, atol=1e-12)


def test_a_norm_of_two_values_has_a_closed_form():
    # Mean 3, variance 1: the values stand one deviation from their mean, but for eps.
    layer = LayerNorm(np.array([2, 1], np.float32), np.array([0, 5], np.float32), 3.0)
    assert reference.run(Model((layer,)), [[2, 4], [7, 7]]).tolist() == [[-1, 5.5], [0, 5]]


def test_a_difference_is_what_changed_and_keeps_what_it_saw():
    x = cases.stream(Model((cases.affine(3),)), 30).astype(np.float64)
    for layer in (Difference(3), cases.difference(3)):
        output, state = reference.run_with_state(Model((layer,)), x)
        last = [0.0] * 3 if layer.x0 is None else layer.x0.tolist()
        for row, found in zip(x.tolist(), output.tolist(), strict=True):
            assert found == [new - old for new, old in zip(row, last, strict=True)]
            last = row
        assert [vector.tolist() for vector in state] == [last]


def test_a_residual_adds_what_went_into_its_inner_chain():
    inner = (cases.recurrent("LSTM", 4, 6), cases.dense(6, 5, "tanh"))
    before = (cases.recurrent("GRU", 2, 4),)
    x = reference.check_input(Model(before), 50)
    source = reference.run(Model(before), x)
    plain, state = reference.run_with_state(Model((*before, *inner)), x)
    columns = (3, 3, 0, 1, 3)
    output, end = reference.run_with_state(Model((*before, *inner, Residual(2, columns))), x)
    for row, y, added in zip(output, plain, source, strict=True):
        assert row.tolist() == [y[k] + added[column] for k, column in enumerate(columns)]
    assert all(map(np.array_equal, end, state))


def test_connections_nest_and_begin_where_they_say():
    double, plus = np.full(2, 2, np.float32), np.array([1, -1], np.float32)
    scale = Affine(double, plus)
    model = Model((scale, scale, Residual(1, (0, 1)), Residual(2, (1, 0)), Residual(4, (0, 0))))
    a = [[3, 8]]  # what the first layer takes
    b = [[7, 15]]  # and what it puts out
    (c,) = reference.run(Model((scale,)), b)
    expected = [[c[0] + b[0][0] + b[0][1] + a[0][0], c[1] + b[0][1] + b[0][0] + a[0][0]]]
    assert reference.run(model, a).tolist() == expected == [[15 + 7 + 15 + 3, 29 + 15 + 7 + 3]]


def test_check_input_sees_what_the_network_was_made_for():
    x = reference.check_input(cases.model("scaled"), 5000)
    assert abs(x.mean() - 350) < 1
    assert abs(x.std() - 15) < 1


def test_a_wrong_shape_is_named():
    with pytest.raises(ValueError, match=r"\(time, 2\), found \(4, 3\)"):
        reference.run(cases.stack("LSTM", 3, 1), np.zeros((4, 3)))
