"""Training: a series and a recipe in, one model file out. Needs the extra `fastlstm[train]`.

Names are fetched when first used, so that `fastlstm.train.network` costs torch and nothing else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fastlstm.errors import MissingExtraError

try:
    import torch as _torch  # noqa: F401 - everything below needs it: say so once, here
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise MissingExtraError("torch", "train", "fastlstm.train") from None

if TYPE_CHECKING:
    from fastlstm.train.evaluation import evaluate
    from fastlstm.train.fit import fit
    from fastlstm.train.network import Network
    from fastlstm.train.recipe import load_recipe, ready_recipes
    from fastlstm.train.variants import fit_variants

__all__ = ["Network", "evaluate", "fit", "fit_variants", "load_recipe", "ready_recipes"]

_HOMES = {
    "Network": "network",
    "evaluate": "evaluation",
    "fit": "fit",
    "fit_variants": "variants",
    "load_recipe": "recipe",
    "ready_recipes": "recipe",
}
_LIBRARIES = ("lightning", "pydantic", "polars", "matplotlib")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        home = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in _LIBRARIES:
            raise
        raise MissingExtraError(library, "train", f"fastlstm.train.{name}") from None
    # Kept, because importing fit.py has just bound the name `fit` to that file's module.
    globals()[name] = getattr(home, name)
    return globals()[name]
