"""Makes what the page streams: model.onnx, and series.json with the float64 reference's outputs.

`python examples/browser/make_model.py` exports model.safetensors, which lies beside; with --train
it first trains that anew by the ready recipe co2.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import fastlstm
from fastlstm import export, train
from fastlstm.train.series import load_series
from fastlstm.train.split import split
from fastlstm.verify import truth

FOLDER = Path(__file__).parent
RECIPE = "co2"


def main() -> int:
    """Write both files; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", action="store_true", help="train model.safetensors anew")
    if parser.parse_args().train:
        with tempfile.TemporaryDirectory() as folder:
            train.fit(train.load_recipe(RECIPE), folder)
            fastlstm.load(Path(folder) / "model.safetensors").save(FOLDER / "model.safetensors")
    model = fastlstm.load(FOLDER / "model.safetensors")
    done = export.onnx(model, FOLDER / "model.onnx")
    text = json.dumps(series_of(model), separators=(",", ":"), ensure_ascii=False)
    (FOLDER / "series.json").write_text(text + "\n", encoding="utf-8")
    print(f"{done.path}: greatest error {done.max_abs_error:.2e}, bound {done.bound:.2e}")
    return 0


def series_of(model: fastlstm.Model) -> dict[str, Any]:
    """The recipe's series as the page reads it.

    `samples` (steps, inputs) go in; `reference` (steps, outputs) is what the float64 reference
    makes of them; `truth` is the measured value of each step, which output k - horizon predicts
    for step k; steps from `test_from` on were never trained on.
    """
    recipe = train.load_recipe(RECIPE)
    series = load_series(recipe.series)
    samples = series.inputs.astype(np.float32)
    true = truth(model, samples)
    first, last = (str(when)[:4] for when in series.time[[0, -1]])
    name = series.name.replace("CO2", "CO₂")
    return {
        "title": f"{name}, one week ahead",
        "about": f"{name}, weekly, {first} to {last}: C. D. Keeling and T. P. Whorf, 2004, "
        f"public domain. A network of {model.num_parameters:,} weights, trained by the recipe "
        f"{RECIPE} of fastlstm.",
        "name": name,
        "unit": series.unit,
        "step": "week",
        "horizon": recipe.windows.horizon,
        "test_from": split(series, recipe).test[0].first,
        "bound": true.bound,
        "time": [str(when)[:10] for when in series.time],
        "truth": np.round(series.targets[:, 0], 6).tolist(),
        # The shortest decimals that are these float32 values.
        "samples": [[float(str(value)) for value in row] for row in samples],
        "reference": true.output.tolist(),
    }


if __name__ == "__main__":
    sys.exit(main())
