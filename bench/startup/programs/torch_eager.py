"""A program that ships one .safetensors file and builds nn.LSTM, nn.GRU, nn.RNN and nn.Linear.

Layers of one kind and size that follow each other become one module of several layers, as one
would write it. Of the file's layers it knows LSTM, GRU with `reset` `after`, RNN, Dense, Affine.
"""

from __future__ import annotations

import json
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable

    Step = Callable[[Any], Any]

CELLS = {"LSTM": (nn.LSTM, 4), "GRU": (nn.GRU, 3), "RNN": (nn.RNN, 1)}
WEIGHTS = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")


def load(path: str) -> Step:
    """A step: x (I,) float32 -> (O,), the state carried."""
    chain: list[Step] = []
    for (kind, *_), group in groupby(layers_of(path), key=alike):
        layers = list(group)
        if kind in CELLS:
            chain.append(recurrent(kind, layers))
        else:
            chain += [plain(kind, *layer) for layer in layers]
    torch.set_num_threads(1)
    # For the rest of the process: a `with` in each step would be part of its time.
    torch.inference_mode().__enter__()
    # oneDNN's LSTM prepares itself anew at each call: a single step is twice as fast without it.
    torch.backends.mkldnn.set_flags(False)  # type: ignore[no-untyped-call]

    def step(x: Any) -> Any:
        y = torch.from_numpy(x).reshape(1, 1, -1)
        for call in chain:
            y = call(y)
        return y.numpy().reshape(-1)

    return step


def layers_of(path: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Each layer's options and tensors."""
    with safe_open(path, framework="pt") as file:
        options = json.loads(file.metadata()["fastlstm"])["layers"]
        names = file.keys()
        tensors: list[dict[str, Any]] = []
        for k in range(len(options)):
            prefix = f"layers.{k}."
            own = [name for name in names if name.startswith(prefix)]
            tensors.append({name.removeprefix(prefix): file.get_tensor(name) for name in own})
    return list(zip(options, tensors, strict=True))


def alike(layer: tuple[dict[str, Any], dict[str, Any]]) -> tuple[Any, ...]:
    """What layers of one nn module have in common; the kind first."""
    options, tensors = layer
    kind = options["kind"]
    if kind not in CELLS:
        return (kind,)
    found: list[str] = [name for name in ("weight_hr_l0", "peephole_l0") if name in tensors]
    found += ["reset before"] if options.get("reset") == "before" else []
    if found:
        what = " with ".join([kind, *found])
        raise NotImplementedError(f"this program knows no layer of the kind {what}")
    return kind, options.get("nonlinearity"), len(tensors["weight_hh_l0"]), "bias_ih_l0" in tensors


def recurrent(kind: str, layers: list[tuple[dict[str, Any], dict[str, Any]]]) -> Step:
    """One module of all these layers, which keeps its state: x (1, 1, I) -> (1, 1, H)."""
    make, gates = CELLS[kind]
    options, first = layers[0]
    rows, inputs = first["weight_ih_l0"].shape
    settings = {"nonlinearity": options["nonlinearity"]} if kind == "RNN" else {}
    hidden, has_bias = rows // gates, "bias_ih_l0" in first
    module = make(
        inputs, hidden, len(layers), bias=has_bias, batch_first=True, **settings
    ).requires_grad_(False)
    for k, (_, tensors) in enumerate(layers):
        for name in WEIGHTS if has_bias else WEIGHTS[:2]:
            getattr(module, name.replace("l0", f"l{k}")).copy_(tensors[name])
    zeros = torch.zeros(hidden)
    vectors = [
        torch.stack([tensors.get(name, zeros)[None] for _, tensors in layers])
        for name in (("h0", "c0") if kind == "LSTM" else ("h0",))
    ]
    state: Any = tuple(vectors) if kind == "LSTM" else vectors[0]

    def call(x: Any) -> Any:
        nonlocal state
        x, state = module(x, state)
        return x

    return call


def plain(kind: str, options: dict[str, Any], tensors: dict[str, Any]) -> Step:
    """One layer without a state: x (1, 1, I) -> (1, 1, O)."""
    if kind == "Affine":
        scale, shift = tensors["scale"], tensors["shift"]
        return lambda x: torch.addcmul(shift, x, scale)
    if kind != "Dense":
        raise NotImplementedError(f"this program knows no layer of the kind {kind}")
    weight, bias, linear = tensors["weight"], tensors.get("bias"), nn.functional.linear
    if options["activation"] == "linear":
        return lambda x: linear(x, weight, bias)
    if options["activation"] == "softmax":
        return lambda x: torch.softmax(linear(x, weight, bias), -1)
    activate = getattr(torch, options["activation"])
    return lambda x: activate(linear(x, weight, bias))
