"""Weights under torch's names, without the code that runs them, into a Model.

What the names and shapes do not say is asked for, never guessed. Nothing is ever unpickled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fastlstm.errors import ModelError, ReaderError
from fastlstm.model import (
    GRU,
    LSTM,
    RNN,
    Affine,
    Array,
    Bidirectional,
    Dense,
    Layer,
    LayerNorm,
    Model,
)
from fastlstm.readers.batch_norm import folded

if TYPE_CHECKING:
    # A layer's name in the state, or an activation; with options where the weights do not say all.
    Entry: TypeAlias = str | tuple[str, Mapping[str, Any]]

ACTIVATIONS = ("relu", "tanh", "sigmoid", "softmax")
# Rows of a recurrent weight for each hidden unit.
GATES: dict[int, Any] = {4: LSTM, 3: GRU, 1: RNN}
_RECURRENT = re.compile(
    r"(weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)(?:_l(\d{1,3})(_reverse)?)?"
)
# The options that an entry may have, by the kind of layer.
OPTIONS = {
    "LSTM": (),
    "GRU": (),
    "RNN": ("nonlinearity",),
    "Linear": (),
    "LayerNorm": ("eps",),
    "BatchNorm1d": ("eps",),
}
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".tar")


def read(
    state: Mapping[str, Any] | str | Path,
    layers: Sequence[Entry] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Model:
    """The Model of a state dict, or of a .safetensors file with torch's names.

    state: arrays or tensors by name, such as "lstm.weight_ih_l0", as module.state_dict() has them.
    layers: what runs, in its order: the modules' names in the state and, between them, the
    activations relu, tanh, sigmoid and softmax, as in ["lstm", "fc1", "relu", "fc2"]; needed unless
    the state is that of one recurrent module alone. An entry is a pair with options where the
    weights do not say all: ("rnn", {"nonlinearity": "tanh"}), ("norm", {"kind": "LayerNorm", "eps":
    1e-5}), ("bn", {"eps": 1e-5}), and ("fc", {"kind": "Linear"}) for a Linear without a bias.

    LSTM, GRU and RNN are told apart by the rows of their weights, num_layers, bidirectional, Cells
    and proj_size by the names. Dropout has no weights and no place in `layers`. Raises ReaderError
    where something is missing, left over, or can be read in two ways.
    """
    named = _loaded(state) if isinstance(state, str | Path) else _plain(state)
    groups = _groups(named)
    if layers is None:
        layers = _only(groups)
    found: list[Layer] = []
    waiting: list[str] = []  # activations before the first layer that says a size
    used: set[str] = set()
    for entry in layers:
        name, options = _entry(entry)
        if name not in groups and name in ACTIVATIONS:
            if found:
                found = _activated(found, name)
            else:
                waiting.append(name)
            continue
        if name not in groups:
            raise ReaderError(
                f"layers: expected the names of modules in the state, {_listed(groups)}, or "
                f"activations, {', '.join(ACTIVATIONS)}; found {name!r}"
            )
        used.add(name)
        made = _layers(name, groups[name], options)
        if waiting:
            eye = np.eye(made[0].input_size, dtype=np.float32)
            found += [Dense(eye, None, kind) for kind in waiting]
            waiting = []
        found += made
    left = [name for name in groups if name not in used]
    if left:
        raise ReaderError(
            f"layers: expected every module of the state, found no {_listed(left)}: put it where "
            "it runs, or take its arrays out of the state"
        )
    try:
        return Model(tuple(found), metadata or {})
    except ModelError as error:
        raise ReaderError(f"layers: {error}; the order is perhaps another") from None


# The arrays


def _loaded(path: str | Path) -> dict[str, Array]:
    """The arrays of a .safetensors file."""
    from safetensors import SafetensorError, deserialize, safe_open

    path = Path(path)
    if path.suffix.lower() in PICKLES:
        raise ReaderError(
            f"{path}: expected a .safetensors file, found a pickled one, which may run any code "
            "when it is read. If you trust it, give its state dict: "
            f'torch.load("{path.name}", weights_only=True); or keep it as .safetensors: '
            "safetensors.torch.save_file(module.state_dict(), ...)"
        )
    if path.suffix.lower() != ".safetensors":
        raise ReaderError(
            f"{path}: expected a .safetensors file, found {path.suffix or 'no'} suffix"
        )
    try:
        with safe_open(path, framework="np") as file:
            if "fastlstm" in (file.metadata() or {}):
                raise ReaderError(
                    f"{path}: expected weights under torch's names, found a fastlstm model; read "
                    "it with fastlstm.load"
                )
        entries: Any = deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
    except OSError as error:
        raise ReaderError(f"{path}: cannot be read: {error.strerror or error}") from None
    except SafetensorError as error:
        raise ReaderError(f"{path}: expected a whole .safetensors file, found: {error}") from None
    found = {}
    for name, entry in entries:
        kind, data, shape = entry["dtype"], entry["data"], tuple(entry["shape"])
        if kind == "BF16":
            # The upper half of a float32.
            wide = np.frombuffer(data, "<u2").astype("<u4") << 16
            array: Any = wide.view("<f4").reshape(shape)
        elif kind in DTYPES:
            array = np.frombuffer(data, DTYPES[kind]).reshape(shape)
        elif name.endswith("num_batches_tracked"):
            continue
        else:
            raise ReaderError(f"{path}: {name}: expected floating values, found {kind}")
        found[name] = _single(name, array)
    return found


def _plain(state: Mapping[str, Any]) -> dict[str, Array]:
    """The arrays of a state dict: tensors or arrays, in float32."""
    found = {}
    for name, value in state.items():
        if not isinstance(name, str):
            raise ReaderError(f"expected names of arrays as keys, found {name!r}")
        if name.endswith("num_batches_tracked"):
            continue
        if isinstance(value, Mapping):
            raise ReaderError(
                f"expected arrays by name, found a mapping under {name!r}; if that is the state "
                f"dict, give state[{name!r}]"
            )
        if hasattr(value, "detach"):
            value = value.detach().cpu()
            # NumPy has no bfloat16; every other type is left for the check below.
            value = value.float() if "float16" in str(value.dtype) else value
            if "float8" in str(value.dtype):
                raise ReaderError(f"{name}: expected float32 or float16, found {value.dtype}")
            value = value.numpy()
        if not isinstance(value, np.ndarray):
            raise ReaderError(
                f"{name}: expected a tensor or a NumPy array, found {type(value).__name__}"
            )
        found[name] = _single(name, value)
    return found


def _single(name: str, value: Any) -> Array:
    if value.dtype.kind != "f":
        raise ReaderError(f"{name}: expected floating values, found {value.dtype}")
    with np.errstate(over="ignore"):
        single: Array = value.astype(np.float32)
    if not np.isfinite(value).all():
        where = tuple(int(k) for k in np.argwhere(~np.isfinite(value))[0])
        raise ReaderError(
            f"{name}: expected finite values, found {value[where]} at index {where}; the training "
            "that made it has probably diverged"
        )
    if (single != value).any():
        raise ReaderError(
            f"{name}: expected float32, float16 or bfloat16, found {value.dtype}; convert it to "
            "float32 if that loss is acceptable"
        )
    return single


def _groups(named: Mapping[str, Array]) -> dict[str, dict[str, Array]]:
    """The arrays by module: "lstm.weight_ih_l0" is weight_ih_l0 of lstm; "" is the root."""
    groups: dict[str, dict[str, Array]] = {}
    for name, array in named.items():
        module, _, own = name.rpartition(".")
        if "parametrizations" in name or own in ("weight_g", "weight_v", "weight_orig"):
            raise ReaderError(
                f"{name}: expected plain weights, found those of a parametrization; give the "
                "module itself, or remove the parametrization before its state is taken"
            )
        groups.setdefault(module, {})[own] = array
    if not groups:
        raise ReaderError("expected arrays by name, found an empty state")
    return groups


# The layers


def _only(groups: Mapping[str, dict[str, Array]]) -> list[Entry]:
    """The single recurrent module of a state, which needs no order; else a question."""
    names = list(groups)
    if len(names) == 1 and all(map(_RECURRENT.fullmatch, groups[names[0]])):
        return [names[0]]
    raise ReaderError(
        "layers: expected the order in which the network runs, found none: the weights do not say "
        f"it, nor the activations between. Say layers={names!r} in the order of forward, with "
        f"{', '.join(ACTIVATIONS)} where it has them"
    )


def _entry(entry: Any) -> tuple[str, Mapping[str, Any]]:
    if isinstance(entry, str):
        return entry, {}
    match entry:
        case (str(name), Mapping() as options):
            return name, options
    raise ReaderError(
        f'layers: expected a name, or a pair such as ("norm", {{"eps": 1e-5}}), found {entry!r}'
    )


def _listed(names: Any) -> str:
    return ", ".join(repr(name) for name in names)


def _layers(name: str, arrays: dict[str, Array], options: Mapping[str, Any]) -> list[Layer]:
    """The layers of one module of the state."""
    title = repr(name) if name else "the state"
    kind = _kind(title, arrays, options.get("kind"))
    unknown = set(options) - {"kind", *OPTIONS[kind]}
    if unknown:
        known = ", ".join(("kind", *OPTIONS[kind]))
        raise ReaderError(
            f"layers: {title}: expected the options {known} for {kind}, found {_listed(unknown)}"
        )
    try:
        if kind in ("LSTM", "GRU", "RNN"):
            return _recurrent(title, arrays, options)
        weight, bias = arrays.get("weight"), arrays.get("bias")
        if kind == "Linear":
            assert weight is not None
            return [Dense(weight, bias)]
        eps = _eps(title, kind, options)
        if kind == "LayerNorm":
            assert weight is not None
            return [LayerNorm(weight, bias, eps)]
        mean, variance = arrays["running_mean"], arrays["running_var"]
        if not (variance.astype(np.float64) + eps > 0).all():
            raise ReaderError(f"{title}: expected variances above 0 in running_var, found others")
        return [Affine(*folded(weight, bias, mean, variance, eps))]
    except (ModelError, ValueError) as error:
        if isinstance(error, ReaderError):
            raise
        raise ReaderError(f"{title}: {error}") from None


def _kind(title: str, arrays: dict[str, Array], said: Any) -> str:
    """What a module is by its arrays: one of OPTIONS. Raises where they fit several."""
    shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
    names = set(arrays)
    if said is not None and said not in OPTIONS:
        raise ReaderError(
            f"layers: {title}: expected kind to be one of {', '.join(OPTIONS)}, found {said!r}"
        )
    kinds: list[str] = []
    if all(map(_RECURRENT.fullmatch, names)):
        kinds = [_cell(title, arrays).__name__]
    elif {"running_mean", "running_var"} <= names <= {
        "weight", "bias", "running_mean", "running_var"
    }:  # fmt: skip
        kinds = ["BatchNorm1d"]
    elif "weight" in names and names <= {"weight", "bias"}:
        axes = arrays["weight"].ndim
        if axes == 2 and ("bias" in names or said == "Linear"):
            kinds = ["Linear"]
        elif axes == 2:
            raise ReaderError(
                f"{title}: expected a Linear, found {shapes}, which may be an Embedding too; say "
                f'({title}, {{"kind": "Linear"}}) if it is a Linear without a bias'
            )
        elif axes == 1 and said == "LayerNorm":
            kinds = ["LayerNorm"]
        elif axes == 1:
            raise ReaderError(
                f"{title}: expected a layer whose weights say what it is, found {shapes}, which "
                f'several norms have; say ({title}, {{"kind": "LayerNorm", "eps": 1e-5}}) if it is '
                "a LayerNorm"
            )
    if not kinds:
        raise ReaderError(f"{title}: expected one of {', '.join(OPTIONS)}, found {shapes}")
    if said not in (None, kinds[0]):
        raise ReaderError(f"layers: {title}: expected {kinds[0]} by its weights, found {said!r}")
    return kinds[0]


def _eps(title: str, kind: str, options: Mapping[str, Any]) -> float:
    eps = options.get("eps")
    if not isinstance(eps, float) or not eps > 0:
        raise ReaderError(
            f"layers: {title}: expected the eps of {kind}, which its weights do not say, found "
            f'{eps!r}; say ({title}, {{"kind": "{kind}", "eps": 1e-5}}), torch\'s default, if the '
            "module has no other"
        )
    return eps


def _cell(title: str, arrays: dict[str, Array]) -> Any:
    """LSTM, GRU or RNN by the rows of its first recurrent weight."""
    suffix = "_l0" if "weight_hh_l0" in arrays else ""
    weight, projection = arrays.get(f"weight_hh{suffix}"), arrays.get(f"weight_hr{suffix}")
    if weight is None or weight.ndim != 2 or 0 in weight.shape:
        found = "none" if weight is None else f"shape {weight.shape}"
        raise ReaderError(f"{title}: expected weight_hh{suffix} of two axes, found {found}")
    rows, hidden = weight.shape
    if projection is not None:
        hidden = projection.shape[-1] if projection.ndim else 0
    kind = GATES.get(rows // hidden) if hidden and rows % hidden == 0 else None
    if kind is None or (projection is not None and kind is not LSTM):
        raise ReaderError(
            f"{title}: expected 4 (LSTM), 3 (GRU) or 1 (RNN) rows of weight_hh{suffix} for each of "
            f"{hidden} hidden units, found {rows}"
        )
    return kind


def _recurrent(title: str, arrays: dict[str, Array], options: Mapping[str, Any]) -> list[Layer]:
    make = _cell(title, arrays)
    said = dict(options)
    said.pop("kind", None)
    if make is RNN and "nonlinearity" not in said:
        raise ReaderError(
            f"layers: {title}: expected the nonlinearity of an RNN, which its weights do not say; "
            f'say ({title}, {{"nonlinearity": "tanh"}}), torch\'s default, or "relu"'
        )
    ways: dict[tuple[int, str], dict[str, Array]] = {}
    suffixed = set()
    for name, array in arrays.items():
        match = _RECURRENT.fullmatch(name)
        assert match is not None
        base, layer, reverse = match.groups()
        suffixed.add(layer is not None)
        ways.setdefault((int(layer or 0), reverse or ""), {})[f"{base}_l0"] = array
    count = 1 + max(layer for layer, _ in ways)
    both = any(reverse for _, reverse in ways)
    wanted = [
        (k, r)
        for k in range(min(count, len(ways) + 1))
        for r in (("", "_reverse") if both else ("",))
    ]
    missing = [
        f"{base}_l{k}{r}"
        for k, r in wanted
        for base in ("weight_ih", "weight_hh")
        if f"{base}_l0" not in ways.get((k, r), {})
    ]
    if missing or len(suffixed) != 1:
        what = "names of one style" if len(suffixed) != 1 else missing[0]
        raise ReaderError(f"{title}: expected {what}, found {', '.join(arrays)}")
    halves = [make(**ways[key], **said) for key in wanted]
    if not both:
        return halves
    return [Bidirectional(*halves[k : k + 2]) for k in range(0, len(halves), 2)]


def _activated(found: list[Layer], kind: str) -> list[Layer]:
    """The layers with an activation after them: in the last Dense where that has none yet."""
    last = found[-1]
    if isinstance(last, Dense) and last.activation == "linear":
        return [*found[:-1], Dense(last.weight, last.bias, kind)]
    return [*found, Dense(np.eye(last.output_size, dtype=np.float32), None, kind)]
