"""The gallery: every ready recipe is in it, and its judgement of a run is right."""

import importlib.util
import math
import sys
from pathlib import Path

import pytest

from fastlstm.train import ready_recipes

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def gallery():
    spec = importlib.util.spec_from_file_location("gallery", ROOT / "examples" / "gallery.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["gallery"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["gallery"]


def test_every_ready_recipe_is_in_it_and_on_its_page(gallery):
    assert sorted(entry.recipe for entry in gallery.ENTRIES) == ready_recipes()
    page = (ROOT / "docs" / "gallery.md").read_text("utf-8")
    for name in ready_recipes():
        assert f"\n## {name}\n" in page


@pytest.mark.parametrize(
    ("rmse", "verdicts", "cells", "good"),
    [
        (0.4, ("ok", "ok", "unsupported"), ("<= 0.5 (last value)", "yes", "2 of 2"), True),
        (0.6, ("ok", "ok"), ("<= 0.5 (last value)", "no", "2 of 2"), False),
        (0.4, ("ok", "wrong"), ("<= 0.5 (last value)", "yes", "1 of 2"), False),
        (math.nan, ("ok",), ("<= 0.5 (last value)", "no", "1 of 1"), False),
    ],
)
def test_a_run_is_judged_by_its_goal_and_its_roads(gallery, rmse, verdicts, cells, good):
    entry = gallery.Entry("some", (gallery.Goal("rmse", "baselines.last value.rmse"),))
    metrics = {
        "rmse": rmse,
        "baselines": {"last value": {"rmse": 0.5}},
        "epochs": 7,
        "seconds": 12.4,
    }
    verify = {"ok": "wrong" not in verdicts, "rows": [{"verdict": v} for v in verdicts]}
    row, met = gallery.table_row(entry, gallery.Run("some", 3, Path("x"), metrics, verify))
    goal, reached, roads = cells
    assert row == f"| some | 3 | rmse {rmse:.4g} | {goal} | {reached} | 7 | 12 | {roads} |"
    assert met is good


def test_some_figures_must_lie_above(gallery):
    entry = gallery.Entry("some", (gallery.Goal("accuracy", 0.9, above=True),))
    for accuracy, reached in ((0.91, "yes"), (0.9, "no"), (0.5, "no")):
        metrics = {"accuracy": accuracy, "epochs": 1, "seconds": 1.0}
        run = gallery.Run("some", 0, Path("x"), metrics, {"ok": True, "rows": [{"verdict": "ok"}]})
        row, met = gallery.table_row(entry, run)
        assert (f"| {reached} |" in row, met) == (True, reached == "yes")
