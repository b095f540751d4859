"""One step of a Model for Inductor: plain tensor arithmetic that it fuses into a single kernel.

Compiled in this process by torch.compile, or ahead of time into a .pt2 package of machine code.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any

from fastlstm.errors import ExportError, MissingExtraError

from .card import KEY, to_json
from .replay import Exported, check_place, need_no_future, put, replay
from .torchscript_module import no_legacy_warnings

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from fastlstm.model import Model

SUFFIX = ".pt2"
SNIPPET = """\
import json, torch
step = torch._inductor.aoti_load_package({path!r})
about = json.loads(step.get_metadata()["fastlstm"])
state = [torch.tensor([s["initial"]]) for s in about["states"]]
y, *state = step(torch.zeros(1, {inputs}), *state)  # one step; feed the state to the next
"""


def write(model: Model, path: str | Path) -> Exported:
    """Compile, load the package, replay it step by step, then write it to `path` (.pt2).

    The package is machine code: it runs on CPUs that have the vector instructions of this one, with
    this version of torch. It takes batches of one: x (1, I) and states (1, H), in the order of
    Model.states. Compiling takes about ten seconds.
    """
    path = check_place(path)
    if path.suffix != SUFFIX:
        raise ExportError(f"{path}: expected a name that ends in {SUFFIX}, which torch insists on")
    from .torch_sessions import AotiSession

    with tempfile.TemporaryDirectory(prefix="fastlstm-") as folder:
        package = compile_package(model, Path(folder) / f"model{SUFFIX}")
        done = replay(model, AotiSession(model, package), "AOTInductor")
        put(path, package.read_bytes())
    snippet = SNIPPET.format(path=str(path), inputs=model.input_size)
    return Exported(
        path, "inductor", done.steps, done.max_abs_error, done.bound, snippet, done.ways
    )


def compile_package(model: Model, path: Path) -> Path:
    """An AOTInductor package at `path`, not yet checked; raises ExportError if that fails."""
    step = cell_step(model)
    import torch
    import torch._inductor

    _require_compiler()
    arguments = [torch.zeros(1, model.input_size)]
    arguments += [torch.zeros(1, state.size) for state in model.states]
    try:
        with no_legacy_warnings(), torch.no_grad():
            program = torch.export.export(step, tuple(arguments), strict=False)
            torch._inductor.aoti_compile_and_package(
                program,
                package_path=str(path),
                inductor_configs={"aot_inductor.metadata": {KEY: to_json(model)}},
            )
    except Exception as error:  # the compiler and everything under it may raise anything
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise ExportError(
            f"Inductor could not compile the model: {type(error).__name__}: {reason}"
        ) from None
    return path


def _require_compiler() -> None:
    from torch._inductor import cpp_builder

    try:
        cpp_builder.get_cpp_compiler()
    except Exception as error:
        raise ExportError(
            "Inductor needs a C++ compiler and found none that works "
            f"({type(error).__name__}); install g++ or clang++, or name one in CXX"
        ) from None


def compile_step(model: Model) -> Callable[..., Any]:
    """torch.compile of `cell_step`: the same call, compiled at the first one (in seconds)."""
    step = cell_step(model)
    import torch

    _require_compiler()
    # Dynamo keeps what it compiled with the code object: each model gets its own, so that no other
    # model's graph can be found there and no recompile limit is shared.
    forward = type(step).forward
    own = FunctionType(
        forward.__code__.replace(), forward.__globals__, "step", None, forward.__closure__
    )
    # One stream always calls with the same sizes, so that no guard can fail; asking them all costs
    # 2 us of 20 a step.
    options: dict[str, Any] = {}
    if hasattr(torch.compiler, "skip_all_guards_unsafe"):
        options["guard_filter_fn"] = torch.compiler.skip_all_guards_unsafe
    compiled: Callable[..., Any] = torch.compile(
        MethodType(own, step), fullgraph=True, dynamic=False, options=options
    )
    return compiled


def cell_step(model: Model) -> nn.Module:
    """One step as a module: forward(x (batch, I), *states (batch, H)) -> (y, *states).

    Matrix products are written as a multiplication and a sum: for one row, Inductor fuses these
    with the gates into one kernel, where addmm becomes two calls of a library (11 against 14 us at
    H = 64, 12 against 18 at H = 256). Raises UnsupportedError for a bidirectional model.
    """
    need_no_future(model, "Inductor")
    try:
        import torch
        from torch import nn
    except ImportError:
        raise MissingExtraError("torch", "train", "exporting to Inductor") from None

    class Step(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for k, layer in enumerate(model.layers):
                for name, array in layer.arrays.items():
                    self.register_buffer(f"{name}_{k}", torch.from_numpy(array.copy()))

        def array(self, k: int, name: str) -> Any:
            return getattr(self, f"{name}_{k}", None)

        def forward(self, x: Any, *states: Any) -> tuple[Any, ...]:
            old, new, inputs = list(states), [], []
            for k, layer in enumerate(model.layers):
                kind = layer.kind
                inputs.append(x)
                if kind == "Residual":
                    source = inputs[k - layer.options["back"]]
                    x = x + columns(source, layer.options["columns"])
                    continue
                if kind == "Difference":
                    # A copy: the next step may come in the same memory.
                    x, value = x - old.pop(0), x.clone()
                    new += [value]
                    continue
                if kind == "LayerNorm":
                    weight, bias = self.array(k, "weight"), self.array(k, "bias")
                    x = layer_norm(x, weight, bias, layer.options["eps"])
                    continue
                if kind == "Affine":
                    x = x * self.array(k, "scale") + self.array(k, "shift")
                    continue
                if kind == "Dense":
                    z = product(self.array(k, "weight"), x, self.array(k, "bias"))
                    x = activate(layer.options["activation"], z)
                    continue
                h = old.pop(0)
                z_x = product(self.array(k, "weight_ih_l0"), x, self.array(k, "bias_ih_l0"))
                w_hh, b_hh = self.array(k, "weight_hh_l0"), self.array(k, "bias_hh_l0")
                if kind == "LSTM":
                    peephole, w_hr = self.array(k, "peephole_l0"), self.array(k, "weight_hr_l0")
                    x, c = lstm(z_x + product(w_hh, h, b_hh), old.pop(0), peephole)
                    x = x if w_hr is None else product(w_hr, x)
                    new += [x, c]
                elif kind == "GRU":
                    x = gru(z_x, h, w_hh, b_hh, layer.options["reset"])
                    new += [x]
                else:
                    x = activate(layer.options["nonlinearity"], z_x + product(w_hh, h, b_hh))
                    new += [x]
            # A chain that ends in a recurrent layer would hand out one tensor under two names.
            return (x.clone() if any(x is state for state in new) else x, *new)

    def columns(source: Any, wanted: list[int]) -> Any:
        if len(set(wanted)) == 1:
            return source[:, wanted[0] : wanted[0] + 1]
        # A skip connection as usual needs no gathering.
        return source if wanted == list(range(source.size(1))) else source[:, wanted]

    def layer_norm(x: Any, weight: Any, bias: Any, eps: float) -> Any:
        centred = x - x.mean(-1, keepdim=True)
        variance = (centred * centred).mean(-1, keepdim=True)
        y = centred * torch.rsqrt(variance + eps) * weight
        return y if bias is None else y + bias

    def product(weight: Any, x: Any, bias: Any = None) -> Any:
        z = (weight * x.unsqueeze(1)).sum(-1)
        return z if bias is None else z + bias

    def lstm(z: Any, c: Any, peephole: Any) -> tuple[Any, Any]:
        i, f, g, o = z.chunk(4, 1)
        if peephole is not None:
            p_i, p_f, p_o = peephole.chunk(3)
            i, f = i + p_i * c, f + p_f * c
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        if peephole is not None:
            o = o + p_o * c
        return torch.sigmoid(o) * torch.tanh(c), c

    def gru(z_x: Any, h: Any, w_hh: Any, b_hh: Any, reset: str) -> Any:
        r_x, s_x, n_x = z_x.chunk(3, 1)
        if reset == "after":
            r_h, s_h, n_h = product(w_hh, h, b_hh).chunk(3, 1)
            n = torch.tanh(n_x + torch.sigmoid(r_x + r_h) * n_h)
        else:
            both = 2 * h.size(1)
            b_rz, b_n = (None, None) if b_hh is None else (b_hh[:both], b_hh[both:])
            r_h, s_h = product(w_hh[:both], h, b_rz).chunk(2, 1)
            r = torch.sigmoid(r_x + r_h)
            n = torch.tanh(n_x + product(w_hh[both:], r * h, b_n))
        s = torch.sigmoid(s_x + s_h)
        return (1 - s) * n + s * h

    def activate(kind: str, z: Any) -> Any:
        if kind == "linear":
            return z
        return torch.softmax(z, -1) if kind == "softmax" else getattr(torch, kind)(z)

    return Step().eval()
