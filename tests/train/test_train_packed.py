"""Sequences of several lengths, packed, and many to one: against each alone and against torch."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from fastlstm.errors import ModelError
from fastlstm.train.network import Network

torch.set_num_threads(1)

LENGTHS = (9, 9, 6, 3, 3, 1)
HEAD = {"kind": "Dense", "output_size": 2}
CHAINS = {
    "lstm": [{"kind": "LSTM", "hidden_size": 5}] * 2,
    "gru": [{"kind": "GRU", "hidden_size": 5}] * 2,
    "rnn": [{"kind": "RNN", "hidden_size": 5, "nonlinearity": "relu"}] * 2,
    "projection": [{"kind": "LSTM", "hidden_size": 5, "proj_size": 2}],
    "wide-projection": [{"kind": "LSTM", "hidden_size": 3, "proj_size": 4, "bias": False}],
    "peephole": [{"kind": "LSTM", "hidden_size": 4, "peephole": True}] * 2,
    "peephole-and-projection": [
        {"kind": "LSTM", "hidden_size": 5, "peephole": True, "proj_size": 3}
    ],
    "reset-before": [{"kind": "GRU", "hidden_size": 4, "reset": "before"}] * 2,
    "both-directions": [{"kind": "LSTM", "hidden_size": 4, "bidirectional": True}] * 2,
    "differences": [{"kind": "Difference"}, {"kind": "GRU", "hidden_size": 4}] * 2,
    "residuals": [
        {
            "kind": "Residual",
            "layers": [
                {"kind": "LayerNorm"},
                {"kind": "LSTM", "hidden_size": 3},
                {"kind": "Residual", "layers": [{"kind": "GRU", "hidden_size": 3}]},
                {"kind": "Difference"},
                {"kind": "RNN", "hidden_size": 3},
            ],
            "columns": [2, 0, 1],
        },
    ],
}


def random_network(inputs, layers, **options):
    torch.manual_seed(0)
    network = Network.from_sizes(inputs, layers, **options)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.uniform_(-0.5, 0.5)
    return network.double()


def gradients(network, loss):
    return torch.autograd.grad(loss, list(network.parameters()))


@pytest.mark.parametrize("learned", [False, True], ids=["zeros", "learned-start"])
@pytest.mark.parametrize("name", CHAINS)
def test_packed_sequences_give_what_each_gives_alone(name, learned):
    network = random_network(3, [*CHAINS[name], HEAD], learned_initial_state=learned)
    rng = np.random.default_rng(0)
    sequences = [torch.from_numpy(rng.standard_normal((n, 3))) for n in LENGTHS]
    packed = pack_sequence(sequences)
    data = packed.data.clone().requires_grad_()
    found = network.packed(data, packed.batch_sizes)
    alone = [sequence.clone().requires_grad_() for sequence in sequences]
    outputs = [network(sequence[None])[0][0] for sequence in alone]
    expected = pack_sequence(outputs).data
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)
    # Every value weighs differently, so that no two sequences or steps can be swapped.
    weights = torch.from_numpy(rng.standard_normal(found.shape))
    ours = torch.autograd.grad((weights * found).sum(), [data, *network.parameters()])
    theirs = torch.autograd.grad((weights * expected).sum(), [*alone, *network.parameters()])
    torch.testing.assert_close(
        ours[0], pack_sequence(theirs[: len(alone)]).data, rtol=0, atol=1e-13
    )
    for one, other in zip(ours[1:], theirs[len(alone) :], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)


def test_one_packed_sequence_is_that_sequence():
    network = random_network(2, [{"kind": "Difference"}, *CHAINS["reset-before"]])
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((7, 2)))
    found = network.packed(x, torch.ones(7, dtype=torch.int64))
    torch.testing.assert_close(found, network(x[None])[0][0], rtol=0, atol=1e-15)


def test_a_loop_in_both_directions_refuses_packed_sequences():
    network = random_network(2, [{"kind": "GRU", "hidden_size": 2, "reset": "before",
                                  "bidirectional": True}])  # fmt: skip
    with pytest.raises(ModelError, match="expected one direction for packed sequences, found both"):
        network.packed(torch.zeros(3, 2).double(), torch.tensor([2, 1]))


@pytest.mark.parametrize(
    ("batch", "time", "inputs", "hidden", "layers", "outputs"),
    [(10, 1, 1, 10, 1, 1), (10, 12, 1, 10, 1, 1), (4, 7, 3, 5, 2, 2), (1, 20, 2, 17, 3, 6)],
)
def test_many_to_one_is_torchs_lstm_and_a_linear_on_its_last_step(
    batch, time, inputs, hidden, layers, outputs
):
    torch.manual_seed(0)
    lstm = nn.LSTM(inputs, hidden, layers, batch_first=True)
    head = nn.Linear(hidden, outputs)
    entries = [{"kind": "LSTM", "hidden_size": hidden}] * layers
    network = Network.from_sizes(inputs, [*entries, {"kind": "Dense", "output_size": outputs}])
    weights = {
        f"layers.{k}.{name.removesuffix(str(k))}0": value
        for k in range(layers)
        for name, value in lstm.state_dict().items()
        if name.endswith(f"_l{k}")
    }
    weights |= {f"layers.{layers}.{name}": value for name, value in head.state_dict().items()}
    network.load_state_dict(weights)
    x = torch.randn(batch, time, inputs)
    y, expected = network.last_step(x), head(lstm(x)[0][:, -1])
    assert y.shape == (batch, outputs)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-6)
    for module in (network, lstm, head):
        module.double()
    x = x.double()
    y, expected = network.last_step(x), head(lstm(x)[0][:, -1])
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-13)
    theirs = torch.autograd.grad((expected**2).sum(), [*lstm.parameters(), *head.parameters()])
    ours = gradients(network, (y**2).sum())
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)
