"""All variants of a recipe in one go, against each trained alone."""

import json

import pytest

import runs
from fastlstm import model_file
from fastlstm.errors import RecipeError
from fastlstm.train import load_recipe
from fastlstm.train.recipe import variant_of
from fastlstm.train.variants import fit_variants

VARIANTS = {
    "as_it_is": {},
    "faster": {"optimiser": {"learning_rate": 0.1}},
    "gru": {
        "network": {
            "layers": [{"kind": "GRU", "hidden_size": 3}, {"kind": "Dense", "output_size": 1}]
        }
    },
}


def recipe(**overrides):
    return runs.small(variants=VARIANTS, **{"evaluation.best_by": "rmse"}, **overrides)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("variants") / "run"
    return fit_variants(recipe(), folder, progress=False)


def test_each_variant_is_the_run_that_it_would_be_alone(trained, tmp_path):
    assert list(trained.results) == list(VARIANTS)
    for name, result in trained.results.items():
        assert result.folder == trained.folder / name
        alone = variant_of(recipe(), name)
        assert load_recipe(result.folder) == alone
        runs.same_run(runs.quick(alone, tmp_path / name), result)


def test_the_best_one_s_model_stands_beside_them(trained):
    figures = {name: result.metrics["rmse"] for name, result in trained.results.items()}
    assert trained.best == min(figures, key=figures.get)
    best = model_file.load(trained.folder / "model.safetensors")
    assert best.metadata["recipe"] == f"sine-{trained.best}"
    written = json.loads((trained.folder / "metrics.json").read_text())
    assert written == trained.metrics
    assert written["variants"] == {n: r.metrics for n, r in trained.results.items()}
    assert (written["best"], written["best_by"]) == (trained.best, "rmse")
    assert load_recipe(trained.folder) == recipe()
    names = {path.relative_to(trained.folder).as_posix() for path in trained.files}
    assert {"metrics.json", "variants.png", "model.safetensors", "gru/loss.png"} <= names


def test_resuming_trains_only_what_is_missing(trained, tmp_path, monkeypatch):
    first = fit_variants(recipe(), tmp_path / "run", only=["as_it_is"], progress=False)
    assert list(first.results) == ["as_it_is"]
    with monkeypatch.context() as patch:
        runs.cut_at(patch, 3)
        with pytest.raises(runs.PowerCutError):
            fit_variants(recipe(), tmp_path / "run", only=["faster"], progress=False)
    done = fit_variants(recipe(), tmp_path / "run", resume=True, progress=False)
    assert done.best == trained.best
    for name, result in done.results.items():
        runs.same_run(result, trained.results[name])


def test_what_is_chosen_by_must_be_there(tmp_path):
    other = runs.small(variants={"one": {}}, **{"evaluation.best_by": "beauty"})
    with pytest.raises(RecipeError, match=r"best_by: no figure beauty; there are .*rmse"):
        fit_variants(other, tmp_path / "run", progress=False)


def test_a_variant_that_is_not_there(tmp_path):
    with pytest.raises(RecipeError, match=r"no variant grew; it has as_it_is, faster, gru"):
        fit_variants(recipe(), tmp_path / "run", only=["grew"], progress=False)
    assert not (tmp_path / "run").exists()
