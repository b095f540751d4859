"""All variants of a recipe, one after the other, and what compares them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastlstm.errors import RecipeError
from fastlstm.train.fit import FitResult, fit
from fastlstm.train.plots import plot_variants
from fastlstm.train.recipe import to_toml, variant_of
from fastlstm.train.trainer import is_main
from fastlstm.whole_file import write

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fastlstm.train.recipe_tables import Recipe

# Of these figures more is better.
HIGHER_IS_BETTER = ("accuracy", "coverage")


@dataclass(frozen=True)
class VariantsResult:
    """What each variant left, by name, and which is best where the recipe says by what."""

    folder: Path
    results: dict[str, FitResult]
    best: str | None
    metrics: dict[str, Any]

    @property
    def files(self) -> tuple[Path, ...]:
        """What compares them, then the files of each."""
        own = (self.folder / name for name in ("metrics.json", "variants.png", "model.safetensors"))
        each = (file for result in self.results.values() for file in result.files)
        return (*(path for path in own if path.is_file()), *each)


def fit_variants(
    recipe: Recipe,
    run_folder: str | Path,
    *,
    only: Iterable[str] = (),
    resume: bool = False,
    progress: bool = True,
) -> VariantsResult:
    """Train the variants of a recipe into folders of their names in the run folder.

    `only` names some of them. With evaluation.best_by, the best one's model is put beside them.
    `resume` goes on with each that was begun and begins the others. Raises as fit does, the
    variants before the one at fault complete.
    """
    folder = Path(run_folder)
    chosen = tuple(only) or tuple(recipe.variants)
    plans = {name: variant_of(recipe, name) for name in chosen}
    metric = recipe.evaluation.best_by
    results = {}
    for name, plan in plans.items():
        there = folder / name
        begun = (there / "unfinished").is_dir() or (there / "model.safetensors").is_file()
        results[name] = fit(plan, there, resume=resume and begun, progress=progress)
    if not is_main():
        return VariantsResult(folder, results, None, {})
    best = None
    if metric is not None:
        best = _best(recipe, results, metric)
        results[best].model.save(folder / "model.safetensors")
    metrics = {
        "recipe": recipe.name,
        "best_by": metric,
        "best": best,
        "variants": {name: result.metrics for name, result in results.items()},
    }
    (folder / "recipe.toml").write_text(to_toml(recipe), "utf-8")
    write(folder / "metrics.json", (json.dumps(metrics, indent=2, allow_nan=False) + "\n").encode())
    shown = metric or recipe.evaluation.metric
    figures = {name: result.metrics[shown] for name, result in results.items()}
    plot_variants(recipe.name, shown, figures, _published(results), folder / "variants.png")
    return VariantsResult(folder, results, best, metrics)


def _published(results: dict[str, FitResult]) -> dict[str, dict[str, float]]:
    return {name: dict(result.metrics.get("published", {})) for name, result in results.items()}


def _best(recipe: Recipe, results: dict[str, FitResult], metric: str) -> str:
    figures: dict[str, Any] = {name: result.metrics.get(metric) for name, result in results.items()}
    if any(value is None for value in figures.values()):
        known = sorted(k for k, v in next(iter(results.values())).metrics.items() if _number(v))
        raise RecipeError(
            f"{recipe.name}: evaluation.best_by: no figure {metric}; there are {', '.join(known)}"
        )
    choose = max if metric in HIGHER_IS_BETTER else min
    return choose(figures, key=figures.__getitem__)


def _number(value: Any) -> bool:
    return isinstance(value, float)
