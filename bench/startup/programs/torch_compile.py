"""A program that ships one .safetensors file and has torch.compile make machine code of a step.

Written in tensor arithmetic, because torch.compile leaves nn.LSTM and its kin as they are; a
product as a multiplication and a sum, which Inductor fuses with the gates into one kernel. It
compiles at the first step, with a C++ compiler, and keeps the result on disk. Of the file's layers
it knows LSTM, GRU with `reset` `after`, RNN, Dense, Affine.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open

if TYPE_CHECKING:
    from collections.abc import Callable

STATES = {"LSTM": ("h0", "c0"), "GRU": ("h0",), "RNN": ("h0",), "Dense": (), "Affine": ()}


def load(path: str) -> Callable[[Any], Any]:
    """A step: x (I,) float32 -> (O,), the state carried."""
    with safe_open(path, framework="pt") as file:
        layers = json.loads(file.metadata()["fastlstm"])["layers"]
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 no mapping
    carried = []
    for k, layer in enumerate(layers):
        check(layer, f"layers.{k}.", tensors)
        for name in STATES[layer["kind"]]:
            hidden = tensors[f"layers.{k}.weight_hh_l0"].size(1)
            carried.append(tensors.get(f"layers.{k}.{name}", torch.zeros(hidden))[None])
    network = Network(layers, tensors).eval()
    # One stream always calls with the same sizes, so that no guard can fail; asking them all costs
    # a tenth of a step.
    options: dict[str, Any] = {}
    if hasattr(torch.compiler, "skip_all_guards_unsafe"):
        options["guard_filter_fn"] = torch.compiler.skip_all_guards_unsafe
    torch.set_num_threads(1)
    # For the rest of the process: a `with` in each step would be part of its time.
    torch.inference_mode().__enter__()
    compiled = torch.compile(network.forward, fullgraph=True, dynamic=False, options=options)

    def step(x: Any) -> Any:
        nonlocal carried
        y, *carried = compiled(torch.from_numpy(x).reshape(1, -1), *carried)
        return y.numpy().reshape(-1)

    return step


def check(layer: dict[str, Any], prefix: str, tensors: dict[str, Any]) -> None:
    """Raise NotImplementedError for a layer that Network does not know."""
    found: list[str] = [
        name for name in ("weight_hr_l0", "peephole_l0") if prefix + name in tensors
    ]
    found += ["reset before"] if layer.get("reset") == "before" else []
    if layer["kind"] not in STATES or found:
        what = " with ".join([layer["kind"], *found])
        raise NotImplementedError(f"this program knows no layer of the kind {what}")


class Network(torch.nn.Module):
    """One step: x (1, I), states (1, H) -> y (1, O) and the states after it."""

    def __init__(self, layers: list[dict[str, Any]], tensors: dict[str, Any]) -> None:
        """All tensors of the layers as buffers."""
        super().__init__()
        self.layers = layers
        for name, tensor in tensors.items():
            if name.startswith("layers."):
                self.register_buffer(name.replace(".", "_"), tensor)

    def forward(self, x: Any, *states: Any) -> tuple[Any, ...]:
        """See the class."""
        old, new = list(states), []
        for k, layer in enumerate(self.layers):

            def own(name: str, k: int = k) -> Any:
                return getattr(self, f"layers_{k}_{name}", None)

            kind = layer["kind"]
            if kind == "Affine":
                x = x * own("scale") + own("shift")
                continue
            if kind == "Dense":
                x = activate(layer["activation"], product(own("weight"), x, own("bias")))
                continue
            h = old.pop(0)
            z_x = product(own("weight_ih_l0"), x, own("bias_ih_l0"))
            z_h = product(own("weight_hh_l0"), h, own("bias_hh_l0"))
            if kind == "LSTM":
                i, f, g, o = (z_x + z_h).chunk(4, 1)
                c = torch.sigmoid(f) * old.pop(0) + torch.sigmoid(i) * torch.tanh(g)
                x = torch.sigmoid(o) * torch.tanh(c)
                new += [x, c]
                continue
            if kind == "GRU":
                (r_x, s_x, n_x), (r_h, s_h, n_h) = z_x.chunk(3, 1), z_h.chunk(3, 1)
                n = torch.tanh(n_x + torch.sigmoid(r_x + r_h) * n_h)
                s = torch.sigmoid(s_x + s_h)
                x = (1 - s) * n + s * h
            else:
                x = activate(layer["nonlinearity"], z_x + z_h)
            new.append(x)
        return x, *new


def product(weight: Any, x: Any, bias: Any) -> Any:
    """One row x (1, I) times a weight (O, I), and a bias."""
    z = (weight * x.unsqueeze(1)).sum(-1)
    return z if bias is None else z + bias


def activate(kind: str, z: Any) -> Any:
    """The activation of that name."""
    if kind == "linear":
        return z
    return torch.softmax(z, -1) if kind == "softmax" else getattr(torch, kind)(z)
