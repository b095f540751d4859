"""torch's optimisers and schedules by the names that a recipe gives them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.optim import lr_scheduler

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from fastlstm.train.recipe_tables import Optimiser

_MAKERS: dict[str, Any] = {
    "adagrad": torch.optim.Adagrad,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "lbfgs": torch.optim.LBFGS,
    "nadam": torch.optim.NAdam,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
}


# These update all weights in one call; small networks spend a fifth of a step on the others.
_FUSED = ("adagrad", "adam", "adamw", "sgd")


def configured(
    table: Optimiser,
    parameters: Iterable[Tensor],
    learning_rate: float,
    steps: int,
    *,
    fused: bool = True,
) -> Any:
    """The optimiser and its schedule as Lightning takes them; `steps` is the most there can be.

    `fused` must be False under mixed precision, where Lightning would clip no gradients.
    """
    if table.name == "least_squares":
        # Never takes a step: Lightning counts epochs and checkpoints by it.
        return torch.optim.SGD(parameters, lr=0.0)
    options: dict[str, Any] = {"lr": learning_rate}
    if fused and table.name in _FUSED:
        options["fused"] = True
    if table.name == "lbfgs":
        options |= {"max_iter": table.closure_calls, "history_size": table.history}
        if table.line_search:
            # torch's own tolerances end a step while the closed loop can still gain.
            options |= {
                "line_search_fn": "strong_wolfe",
                "tolerance_grad": 0.0,
                "tolerance_change": 0.0,
            }
    else:
        options["weight_decay"] = table.weight_decay
    if table.momentum:
        options["momentum"] = table.momentum
    optimiser = _MAKERS[table.name](parameters, **options)
    if table.schedule == "constant":
        return optimiser
    if table.schedule == "plateau":
        plateau = lr_scheduler.ReduceLROnPlateau(
            optimiser, factor=0.5, patience=table.plateau_patience
        )
        return [optimiser], [{"scheduler": plateau, "monitor": "monitored"}]
    if table.schedule == "one_cycle":
        schedule: Any = lr_scheduler.OneCycleLR(
            optimiser, learning_rate, total_steps=steps + 1, cycle_momentum=False
        )
    else:
        schedule = lr_scheduler.CosineAnnealingLR(optimiser, steps)
    # By the step: a schedule by the epoch would miss one move when a run is resumed.
    return [optimiser], [{"scheduler": schedule, "interval": "step"}]
