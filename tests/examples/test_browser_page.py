"""examples/browser: the page in Chromium, its figures read off it, and what it streams."""

import http.client
import importlib.util
import itertools
import json
import re
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import cases
import fastlstm
from fastlstm import export
from fastlstm.export import javascript_runtimes, onnx_graph
from fastlstm.verify import truth
from foreign_runtimes import need

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "examples" / "browser"
CONTROLS = {"toggle", "reset", "speed"}
STEPS = 2284  # weeks of examples/data/co2.csv


@pytest.fixture(scope="module")
def model():
    return fastlstm.load(PAGE / "model.safetensors")


@pytest.fixture(scope="module")
def series():
    return json.loads((PAGE / "series.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def true(model, series):
    return truth(model, np.array(series["samples"], np.float32))


def node(script, *arguments):
    need(javascript_runtimes.web_runtime.missing())
    return subprocess.run(
        [shutil.which("node"), script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def check(*arguments):
    """The exit code of check.mjs, and what it read off the page."""
    done = node(PAGE / "check.mjs", *arguments)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def png_size(path):
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", data[16:24])


def test_the_series_is_what_the_reference_makes_of_the_model(model, series, true):
    spec = importlib.util.spec_from_file_location("make_model", PAGE / "make_model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.series_of(model)
    # The order of a sum in float64 differs from machine to machine.
    for name in ("reference", "bound"):
        np.testing.assert_allclose(series[name], made[name], rtol=0, atol=1e-9)
    np.testing.assert_allclose(series["reference"], true.output, rtol=0, atol=1e-9)
    assert {k: v for k, v in series.items() if k not in ("reference", "bound")} == {
        k: v for k, v in made.items() if k not in ("reference", "bound")
    }
    assert len(series["truth"]) == STEPS


def test_the_series_is_the_measured_one(series):
    table = (PAGE.parent / "data" / "co2.csv").read_text("utf-8").splitlines()[1:]
    rows = [line.split(",") for line in table]
    assert series["time"] == [when for when, _ in rows]
    assert series["truth"] == [float(value) for _, value in rows]
    assert series["samples"] == [[float(value)] for _, value in rows]


def test_the_model_file_holds_the_models_weights_and_computes_the_series(model, series, true):
    shipped = onnx.load(PAGE / "model.onnx")
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in shipped.graph.initializer}
    fresh = {t.name: t for t in onnx_graph.build(model).graph.initializer}
    assert weights.keys() == fresh.keys()
    for name, array in weights.items():
        np.testing.assert_array_equal(array, onnx.numpy_helper.to_array(fresh[name]))
    session = onnxruntime.InferenceSession(PAGE / "model.onnx", providers=["CPUExecutionProvider"])
    x = np.array([series["samples"]], np.float32)
    y = session.run(["y"], {"x": x, **onnx_graph.initial_states(model)})[0]
    np.testing.assert_allclose(y[0], series["reference"], rtol=0, atol=true.bound)


@pytest.mark.parametrize(
    ("options", "size"), [((), (1120, 880)), (("--phone", "--dark"), (720, 1480))], ids=str
)
def test_the_page_streams_within_the_bound_and_fits_its_screen(options, size, true, tmp_path):
    picture = tmp_path / "page.png"
    code, found = check(*options, "--screenshot", picture)
    assert (code, found["complaints"]) == (0, [])
    assert (found["state"], found["steps"], found["verdict"]) == ("done", STEPS, "ok")
    assert found["bound"] == pytest.approx(true.bound, rel=1e-9)
    # Float32 at 350 ppm cannot be exact: a difference of 0 would say that nothing was compared.
    assert 1e-6 < found["difference"] <= true.bound
    factor, power = re.fullmatch(r"([\d.]+)\u2009\xd7\u200910⁻(\S) ppm", found["shown"]).groups()
    shown = float(factor) * 10.0 ** -"⁰¹²³⁴⁵⁶⁷⁸⁹".index(power)
    assert shown == pytest.approx(found["difference"], rel=0.05)
    assert found["status"].startswith("The series has ended: 2,284 steps")
    assert 0 < found["median_us"] <= found["p99_us"]
    assert found["runtime"].startswith("onnxruntime-web 1.")
    assert png_size(picture) == size

    layout = found["layout"]
    assert layout["content_width"] <= layout["width"] == (360 if options else 1120)
    controls = {control["id"]: control for control in layout["controls"]}
    assert controls.keys() == CONTROLS
    assert all(control["visible"] and control["height"] >= 44 for control in controls.values())


def test_colours_can_be_told_from_their_ground_in_light_and_dark():
    """By the contrast ratio of WCAG 2: 4.5 for text, 3 for the lines of a chart."""
    light, dark = re.findall(r":root \{(.*?)\}", (PAGE / "style.css").read_text("utf-8"), re.DOTALL)

    def luminance(colour):
        parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    for scheme in (light, dark):
        colours = dict(re.findall(r"--([\w-]+): (#\w{6});", scheme))
        assert len(colours) == 12
        for names, grounds, least in (
            ("ink quiet", "ground card", 4.5),
            ("good bad", "card", 4.5),
            ("on-accent", "accent", 4.5),
            ("truth prediction ink", "card held", 3.0),
            ("accent prediction", "ground card", 3.0),  # of the buttons' and the focus's frames
        ):
            for name, ground in itertools.product(names.split(), grounds.split()):
                low, high = sorted((luminance(colours[name]), luminance(colours[ground])))
                assert (high + 0.05) / (low + 0.05) >= least, (name, ground)


def test_one_wrong_value_of_the_reference_is_found(series, tmp_path):
    wrong = {**series, "reference": [list(row) for row in series["reference"]]}
    wrong["reference"][1000][0] += 0.01
    (tmp_path / "series.json").write_text(json.dumps(wrong))
    code, found = check("--series", tmp_path / "series.json")
    assert (code, found["state"], found["verdict"]) == (1, "done", "beyond")
    assert found["difference"] == pytest.approx(0.01, abs=1e-4)


def test_a_fault_in_mid_stream_stays_on_the_page(series, tmp_path):
    samples = [*series["samples"][:100], [1.0, 2.0], *series["samples"][101:]]
    (tmp_path / "series.json").write_text(json.dumps({**series, "samples": samples}))
    code, found = check("--series", tmp_path / "series.json")
    assert (code, found["state"], found["steps"]) == (1, "failed", 100)
    assert found["status"].endswith("expected 1 values a sample, found 2.")


def test_another_model_of_another_size_and_series(tmp_path):
    other = cases.model("learned-start")
    export.onnx(other, tmp_path / "model.onnx")
    x = cases.stream(other, 300)
    true = truth(other, x)
    table = {
        **dict.fromkeys(("title", "about", "name", "unit", "step"), "noise"),
        "horizon": 1,
        "test_from": 200,
        "bound": true.bound,
        "time": [f"{2000 + k // 50}-01-01" for k in range(len(x))],
        "truth": x[:, 0].tolist(),
        "samples": x.tolist(),
        "reference": true.output.tolist(),
    }
    (tmp_path / "series.json").write_text(json.dumps(table))
    files = ("--model", tmp_path / "model.onnx", "--series", tmp_path / "series.json")
    code, found = check(*files)
    assert (code, found["steps"], found["complaints"]) == (0, 300, [])
    assert 0 < found["difference"] <= true.bound
    # The shipped series does not fit this model, and says so.
    code, found = check("--model", tmp_path / "model.onnx")
    assert (code, found["state"]) == (1, "failed")
    assert (
        "samples and reference outputs of 1 and 1 values, and a model of 1 and 6"
        in found["message"]
    )


@pytest.mark.parametrize(
    ("option", "content", "message"),
    [
        ("--model", b"no graph", "the model model.onnx cannot be loaded: expected an ONNX file"),
        ("--model", None, "the model model.onnx cannot be fetched: the server answers 404"),
        ("--series", b"{", "the series series.json cannot be read"),
        ("--series", b'{"samples": [[1]], "bound": 1}', "found 1, none, none, none, 1"),
    ],
)
def test_what_cannot_be_loaded_is_said_on_the_page(option, content, message, tmp_path):
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    code, found = check(option, path)
    assert (code, found["state"]) == (1, "failed")
    assert message in found["message"]
    assert message in found["status"]


def test_the_buttons_start_pause_and_reset():
    done = node(HERE / "press_buttons.mjs", PAGE, javascript_runtimes.browser())
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["complaints"] == []
    seen = found["seen"]
    assert (seen["by itself"]["toggle"], seen["paused"]["toggle"]) == ("Pause", "Start")
    assert 20 <= seen["by itself"]["steps"] <= seen["paused"]["steps"] < STEPS
    assert seen["still paused"] == seen["paused"]
    assert seen["goes on"]["steps"] >= seen["paused"]["steps"] + 20
    assert seen["reset"]["steps"] == 0
    assert [seen[name]["steps"] for name in ("done", "again")] == [STEPS, STEPS]
    # The state went back to the start, or the second stream would differ.
    assert seen["again"]["difference"] == seen["done"]["difference"]
    assert seen["again"]["verdict"] == "ok"


def test_the_server_keeps_to_its_folder():
    need(javascript_runtimes.web_runtime.missing())
    command = [shutil.which("node"), PAGE / "serve.mjs", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            address = re.match(r"http://([\d.]+):(\d+)/", server.stdout.readline())
            connection = http.client.HTTPConnection(address[1], int(address[2]), timeout=20)
            found = {}
            for path in ("/", "/series.json", "/../node/stream.mjs", "/%2e%2e/data/co2.csv", "/no"):
                connection.request("GET", path)
                reply = connection.getresponse()
                found[path] = reply.status
                body = reply.read()
                if path == "/series.json":
                    assert body == (PAGE / "series.json").read_bytes()
                    assert reply.headers["Content-Type"] == "application/json"
            connection.close()
        finally:
            server.kill()
    assert list(found.values()) == [200, 200, 404, 404, 404]
