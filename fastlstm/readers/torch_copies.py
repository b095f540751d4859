"""Copies of a user's module to trace and to run: in eval mode, in float64, its weights plain.

The module itself is never changed. What it computes of constants is rounded to float32 in a copy's
runs, as it is in the module itself and in the Model that comes of it.
"""

from __future__ import annotations

import copy
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlstm.errors import ReaderError
from fastlstm.readers import torch_layers
from fastlstm.readers.batch_norm import folded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn


@contextmanager
def in_float64() -> Iterator[None]:
    """Modules that make their own zero state make it in the default dtype."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_default_dtype(before)


def still(module: nn.Module) -> nn.Module:
    """A copy on the CPU in eval mode, whose weights are plain tensors, parametrized ones too."""
    import torch
    from torch.nn.utils import parametrize

    # What is left of a training step in a module's attributes cannot be copied by itself.
    memo = {
        id(tensor): tensor.detach().clone()
        for part in module.modules()
        for tensor in _tensors(list(vars(part).values()))
        if tensor.grad_fn is not None
    }
    try:
        twin = copy.deepcopy(module, memo).cpu().eval()
    except Exception as error:
        raise ReaderError(
            f"{type(module).__name__}: expected a module that can be copied with copy.deepcopy, "
            f"found {type(error).__name__}: {error}"
        ) from None
    for part in list(twin.modules()):
        if parametrize.is_parametrized(part):
            names: Any = part.parametrizations
            values = {name: getattr(part, name).detach() for name in names}
            # torch's own removal would take the property from the original too, whose class it is.
            part.__class__ = type(part).__bases__[0]
            del part._modules["parametrizations"]
            for name, value in values.items():
                setattr(part, name, torch.nn.Parameter(value))
    return twin


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors among attributes, in tuples and lists too."""
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for one in value:
            yield from _tensors(one)


def double(module: nn.Module) -> nn.Module:
    """A copy in float64, tensors that it keeps as mere attributes too."""
    import torch

    def widened(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            return value.double()
        if type(value) in (tuple, list):
            return type(value)(widened(one) for one in value)
        return value

    twin = copy.deepcopy(module).double()
    for part in twin.modules():
        for name, value in list(vars(part).items()):
            if not name.startswith("_") and any(True for _ in _tensors(value)):
                vars(part)[name] = widened(value)
    return twin


def full_name(root: nn.Module, name: str) -> str:
    """A submodule's dotted name and class; the root has only its class."""
    kind = type(root.get_submodule(name)).__name__
    return f"{name} ({kind})" if name else kind


def check_stored(root: nn.Module, name: str) -> None:
    """Raise ReaderError unless a parameter or buffer is float32 or less wide, and finite."""
    import torch

    path, _, own = name.rpartition(".")
    tensor = getattr(root.get_submodule(path), own, None)
    if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point():
        return
    title = f"{full_name(root, path)}.{own}"
    if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise ReaderError(
            f"{title}: expected float32, float16 or bfloat16, found "
            f"{str(tensor.dtype).removeprefix('torch.')}; say module.float() if that loss is "
            "acceptable"
        )
    array = tensor.detach().float().numpy()
    if not np.isfinite(array).all():
        where = tuple(int(k) for k in np.argwhere(~np.isfinite(array))[0])
        raise ReaderError(
            f"{title}: expected finite values, found {array[where]} at index {where}; "
            "the training that made it has probably diverged"
        )


@contextmanager
def widened(module: nn.Module) -> Iterator[None]:
    """Where a forward names float32, or the type of its weights, float64 is meant meanwhile.

    Narrower types than that of the weights stay: they round, which no layer of a Model does.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    own = {torch.float32, *(tensor.dtype for tensor in module.parameters())}
    methods = {"float": torch.float32, "half": torch.float16, "bfloat16": torch.bfloat16}

    def is_narrow(value: Any) -> bool:
        return isinstance(value, torch.dtype) and value.is_floating_point and value in own

    class Wide(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if methods.get(getattr(func, "__name__", "")) in own and args:
                return args[0].double()
            args = tuple(torch.float64 if is_narrow(a) else a for a in args)
            kwargs = {k: torch.float64 if is_narrow(a) else a for k, a in (kwargs or {}).items()}
            return func(*args, **kwargs)

    with Wide():
        yield


@contextmanager
def rounding(x: Tensor | None = None) -> Iterator[Any]:
    """Rounds to float32 what is computed of constants alone, and constants that act on values of x.

    Yields x, of which everything is a value of the network that is computed from it. A Model has
    its constants in float32, and the reciprocal of a divisor in its place.
    """
    import torch
    from torch.overrides import TorchFunctionMode
    from torch.utils import _pytree as pytree
    from torch.utils._python_dispatch import TorchDispatchMode

    whole = 0  # recurrent operators that are running, which begin with constants of their own
    kept: list[Any] = [x]  # alive, so that no two storages have the same address
    touched = set() if x is None else {x.untyped_storage()._cdata}

    def leaves(value: Any) -> list[Tensor]:
        return [v for v in pytree.tree_leaves(value) if isinstance(v, torch.Tensor)]

    def is_traced(value: Any) -> bool:
        return any(t.untyped_storage()._cdata in touched for t in leaves(value))

    class Rounding(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            kwargs = kwargs or {}
            if is_traced((args, kwargs)):
                out = _rounded(func, args, kwargs, is_traced)
                kept.append(out)
                touched.update(t.untyped_storage()._cdata for t in leaves(out))
                return out
            out = func(*args, **kwargs)
            for tensor in () if whole else leaves(out):
                if tensor.dtype == torch.float64:
                    single = tensor.float().double()
                    if not torch.equal(single, tensor):
                        tensor.copy_(single)
            return out

    class Whole(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            nonlocal whole
            own = getattr(func, "__name__", "") in torch_layers.RECURRENT
            whole += own
            try:
                return func(*args, **(kwargs or {}))
            finally:
                whole -= own

    with Whole(), Rounding():  # type: ignore[no-untyped-call]
        yield x


def _rounded(func: Any, args: Any, kwargs: Any, is_traced: Any) -> Any:
    """An operator on values of the network, its constants rounded as the Model has them."""
    import torch

    def single(value: Any) -> Any:
        return float(np.float32(value)) if isinstance(value, float) else value

    full = func._schema.name.removeprefix("aten::")
    name = full.rstrip("_")
    if name in ("add", "sub", "rsub", "mul", "lerp", "addcmul"):
        return func(*map(single, args), **{k: single(v) for k, v in kwargs.items()})
    if name == "div" and not is_traced(args[1]) and kwargs.get("rounding_mode") is None:
        divisor = torch.as_tensor(single(args[1]), dtype=torch.float64)
        factor = (1 / divisor).float().double()
        return args[0].mul_(factor) if full.endswith("_") else args[0] * factor
    if "batch_norm" in name and not is_traced(args[1:]):
        return _normed(name, func, args, kwargs)
    if name == "mean":
        total = torch.ops.aten.sum.dim_IntList(args[0], *args[1:], **kwargs)
        return total * float(np.float32(total.numel() / args[0].numel()))
    return func(*args, **kwargs)


def _normed(name: str, func: Any, args: Any, kwargs: Any) -> Any:
    """A BatchNorm in eval mode as the Model holds it: scale and shift, each rounded once."""
    import torch

    # The training flag stands before momentum and eps, except where the name says it.
    training = args[5] if len(args) == 8 else "no_training" not in name
    if training or args[3] is None:
        return func(*args, **kwargs)
    weight, bias, mean, variance = (
        None if tensor is None else np.asarray(tensor.float().numpy()) for tensor in args[1:5]
    )
    assert mean is not None
    assert variance is not None
    eps = args[-1]
    factors = folded(weight, bias, mean, variance, eps)
    around = (-1, *(1,) * (args[0].ndim - 2))
    scale, shift = (torch.from_numpy(factor).double().reshape(around) for factor in factors)
    return args[0] * scale + shift, torch.empty(0), torch.empty(0)
