"""ONNX Runtime for Node.js and in Chromium: values against the reference, and faults that end."""

import contextlib
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import cases
import checks
from fastlstm.errors import ExportError, UnsupportedError
from fastlstm.export import javascript_runtimes as javascript
from fastlstm.export import onnx_graph
from fastlstm.export.card import state_names
from fastlstm.verify import truth
from foreign_runtimes import need

KEEPERS = {
    javascript.node_runtime: javascript.node_keeper,
    javascript.web_runtime: javascript.web_keeper,
}
MODELS = ("lstm-stack", "gru-stack", "rnn-relu", "learned-start", "connected-17", "lstm-everything")
GRU = "GRU-8"


@pytest.fixture(params=KEEPERS, ids=("node", "web"))
def runtime(request):
    need(request.param.missing())
    return request.param


@pytest.fixture(scope="module", autouse=True)
def _no_child_stays():
    yield
    for keeper in KEEPERS.values():
        keeper.close()


def graph(name, **options):
    model = cases.model(name)
    return model, onnx_graph.build(model, **options).SerializeToString()


def feed_back(model, found):
    return {before: found[after] for before, after in map(state_names, model.states)}


def batch_of(model, sequences, steps):
    return np.stack([cases.stream(model, steps, seed) for seed in range(sequences)])


def stays_right(runtime, name="LSTM-8"):
    """A graph that is loaded now computes what the reference computes."""
    model, data = graph(name)
    runner = runtime.load(data)
    x = batch_of(model, 2, 9)
    found = runner.run({"x": x, **onnx_graph.initial_states(model, 2)})
    checks.batch_is_right(model, x, found["y"], list(feed_back(model, found).values()))
    runner.close()


@pytest.mark.parametrize("name", MODELS)
def test_one_step_at_a_time_with_the_state_carried(runtime, name):
    model, data = graph(name)
    runner = runtime.load(data)
    x, states, y = cases.stream(model, 24), onnx_graph.initial_states(model), []
    for sample in x:
        found = runner.run({"x": sample[None, None], **states})
        y.append(found["y"][0, 0])
        states = feed_back(model, found)
    runner.close()
    checks.batch_is_right(model, x[None], np.stack(y)[None], list(states.values()))


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_of_seven_sequences(runtime, name):
    model, data = graph(name)
    runner = runtime.load(data)
    x = batch_of(model, 7, 16)
    found = runner.run({"x": x, **onnx_graph.initial_states(model, 7)})
    runner.close()
    assert found["y"].dtype == np.float32
    checks.batch_is_right(model, x, found["y"], list(feed_back(model, found).values()))


def test_sequences_of_several_lengths(runtime):
    model, data = graph("gru-stack", lengths=True)
    runner = runtime.load(data)
    x, lengths = batch_of(model, 7, 12), np.array([12, 1, 7, 3, 12, 5, 2], np.int32)
    found = runner.run({"x": x, **onnx_graph.initial_states(model, 7), "lengths": lengths})
    runner.close()
    states = feed_back(model, found)
    for k, steps in enumerate(lengths):
        true = truth(model, x[k, :steps])
        np.testing.assert_allclose(found["y"][k, :steps], true.output, rtol=0, atol=true.bound)
        assert not found["y"][k, steps:].any()
        for state, expected in zip(states.values(), true.state, strict=True):
            np.testing.assert_allclose(state[k], expected, rtol=0, atol=true.state_bound)


def test_integers_pass_to_the_bit(runtime):
    whole = [TensorProto.INT32, TensorProto.INT64]
    values = [helper.make_tensor_value_info(f"in{k}", t, ["n"]) for k, t in enumerate(whole)]
    results = [helper.make_tensor_value_info(f"out{k}", t, ["n"]) for k, t in enumerate(whole)]
    nodes = [helper.make_node("Identity", [f"in{k}"], [f"out{k}"]) for k in range(2)]
    proto = helper.make_model(
        helper.make_graph(nodes, "integers", values, results),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    runner = runtime.load(proto.SerializeToString())
    feeds = {
        "in0": np.array([-(2**31), 7, 2**31 - 1], np.int32),
        "in1": np.array([-(2**63), 2**53 + 1, 2**63 - 1], np.int64),
    }
    found = runner.run(feeds)
    runner.close()
    for k in range(2):
        assert found[f"out{k}"].dtype == feeds[f"in{k}"].dtype
        np.testing.assert_array_equal(found[f"out{k}"], feeds[f"in{k}"])


def test_two_graphs_at_once_in_one_process(runtime):
    (first, data), (second, other) = graph("LSTM-8"), graph("GRU-33")
    a, b = runtime.load(data), runtime.load(other)
    assert a.child is b.child
    x = batch_of(first, 1, 5)  # both models take two values
    for model, runner in ((first, a), (second, b), (first, a)):
        found = runner.run({"x": x, **onnx_graph.initial_states(model)})
        checks.batch_is_right(model, x, found["y"], list(feed_back(model, found).values()))
    a.close()
    a.close()
    with pytest.raises(ExportError, match="loaded session"):
        a.run({})
    b.close()


@pytest.mark.parametrize("data", [b"", b"no graph", bytes(1000)], ids=("empty", "text", "zeros"))
def test_what_is_no_graph_is_refused_in_the_runtimes_words(runtime, data):
    with pytest.raises(UnsupportedError, match=runtime.name):
        runtime.load(data)
    stays_right(runtime)


def test_an_unknown_operator_is_refused(runtime):
    proto = onnx.load_from_string(graph("LSTM-8")[1])
    proto.graph.node[-1].op_type = "Nonsense"
    with pytest.raises(UnsupportedError, match="Nonsense"):
        runtime.load(proto.SerializeToString())


def test_feeds_that_do_not_fit_are_errors_and_change_nothing(runtime):
    model, data = graph("LSTM-8")
    runner = runtime.load(data)
    x, states = batch_of(model, 2, 9), onnx_graph.initial_states(model, 2)
    for feeds, message in (
        ({"x": x}, "expected values for the inputs c0_l0, h0_l0, x; found x"),
        ({"x": x, **states, "z": x}, "found c0_l0, h0_l0, x, z"),
        ({"x": x.astype(np.float64), **states}, "input x: expected values of float32, int32"),
    ):
        with pytest.raises(ExportError, match=message) as caught:
            runner.run(feeds)
        assert not isinstance(caught.value, UnsupportedError)
    with pytest.raises(UnsupportedError):  # ONNX Runtime's own words: int32 where float32 belongs
        runner.run({"x": x.astype(np.int32), **states})
    found = runner.run({"x": x, **states})
    checks.batch_is_right(model, x, found["y"], list(feed_back(model, found).values()))
    runner.close()


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"nonsense": 1}, "expected load, run or close, found nonsense"),
        ({"run": {}, "session": 10**6}, "expected the number of a loaded session, found 1000000"),
        ({"run": {}}, "expected the number of a loaded session, found undefined"),
    ],
)
def test_wrong_messages_are_errors_and_the_child_goes_on(runtime, message, words):
    child = KEEPERS[runtime].child()
    with pytest.raises(ExportError, match=words):
        child.ask(**message)
    assert child.alive
    stays_right(runtime)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"dims": [1, 1, 2], "type": "float32", "data": "AAAA"}, "expected 8 bytes .* found 3"),
        ({"dims": [1, 1, 2], "type": "complex", "data": ""}, "found complex"),
    ],
)
def test_values_that_are_none_are_errors(runtime, value, words):
    _, data = graph("LSTM-8")
    runner = runtime.load(data)
    feeds = dict.fromkeys(("x", "h0_l0", "c0_l0"), value)
    with pytest.raises(ExportError, match=words):
        runner.child.ask(run=feeds, session=runner.session)
    runner.close()


def test_a_crash_of_the_runtime_is_an_error_and_the_next_graph_runs(runtime):
    """Its GRU over no steps at all ends the process, or the WebAssembly that it runs in."""
    model, data = graph(GRU)
    runner = runtime.load(data)
    x = np.zeros((1, 0, model.input_size), np.float32)
    with pytest.raises(ExportError, match=runtime.name):
        runner.run({"x": x, **onnx_graph.initial_states(model)})
    runner.close()
    stays_right(runtime, GRU)


def test_a_child_that_is_killed_is_an_error_and_the_next_graph_runs(runtime):
    model, data = graph("LSTM-8")
    runner = runtime.load(data)
    os.kill(runner.child.process.pid, signal.SIGKILL)
    feeds = {"x": batch_of(model, 1, 3), **onnx_graph.initial_states(model)}
    for _ in range(2):
        with pytest.raises(ExportError, match=r"ended"):
            runner.run(feeds)
    runner.close()
    stays_right(runtime)


def descendants(pid):
    """Of a process, those alive, from Linux's own list."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, _, rest = status.read_text().rpartition(")")
        except OSError:
            continue  # it has ended since
        parents[int(status.parent.name)] = int(rest.split()[1])
    found, waiting = set(), [pid]
    while waiting:
        parent = waiting.pop()
        children = {child for child, above in parents.items() if above == parent}
        waiting += children
        found |= children
    return found


NEEDS_PROC = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="no /proc on this system"
)


@NEEDS_PROC
def test_a_browser_that_is_killed_is_an_error_and_the_next_graph_runs():
    need(javascript.web_runtime.missing())
    model, data = graph("LSTM-8")
    runner = javascript.web_runtime.load(data)
    for pid in descendants(runner.child.process.pid):
        with contextlib.suppress(ProcessLookupError):  # one ends the others
            os.kill(pid, signal.SIGKILL)
    with pytest.raises(ExportError, match="ended with exit code 1: "):
        runner.run({"x": batch_of(model, 1, 3), **onnx_graph.initial_states(model)})
    stays_right(javascript.web_runtime)


@NEEDS_PROC
def test_close_ends_the_child_and_the_browser(runtime):
    stays_right(runtime)
    keeper = KEEPERS[runtime]
    pid = keeper.child().process.pid
    started = {pid, *descendants(pid)}
    assert len(started) > 2 or runtime is javascript.node_runtime
    keeper.close()
    keeper.close()
    until = time.monotonic() + 10
    while (left := {p for p in started if Path(f"/proc/{p}").exists()}) and (
        time.monotonic() < until
    ):
        time.sleep(0.05)  # the browser's helpers go a moment after it
    assert not left
    stays_right(runtime)


def scripted(source, seconds=20.0):
    """A keeper whose child is a line of JavaScript."""
    if not shutil.which("node"):
        need("node not found: install Node.js 20 or later")
    return javascript.Keeper("stand-in", lambda node: [node, "-e", source], seconds)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("process.exit(3)", "exit code 3"),
        ("throw new Error('no such package')", "exit code 1: Error: no such package"),
        ("console.log('not JSON')", "ended"),
    ],
)
def test_a_child_that_does_not_come_up_is_an_error(source, words):
    with pytest.raises(ExportError, match=words):
        scripted(source).load(b"")


def test_a_child_that_is_silent_is_ended():
    with pytest.raises(ExportError, match=r"stand-in: no answer within 0\.5 s"):
        scripted("setInterval(() => {}, 1000)", 0.5).load(b"")
    keeper = scripted('console.log(\'{"version": "1"}\'); setInterval(() => {}, 1000)', 1.5)
    child = keeper.child()
    assert keeper.version() == "1"
    with pytest.raises(ExportError, match=r"no answer within 1\.5 s"):
        keeper.load(b"")
    assert not child.alive
    keeper.close()


def test_versions_name_the_package_and_what_it_runs_in(runtime):
    version = runtime.version()
    place = {"ONNX Runtime Web": "Chromium "}.get(runtime.name, "Node.js ")
    package, _, rest = version.partition(", ")
    assert package.split(".")[0] == "1"
    assert rest.startswith(place)


def test_what_is_missing_is_named(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(javascript, "CHECKOUT", tmp_path)
    monkeypatch.delenv(javascript.NODE_MODULES, raising=False)
    monkeypatch.delenv(javascript.CHROMIUM, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    for runtime in KEEPERS:
        assert "install Node.js" in runtime.missing()
        with pytest.raises(ExportError, match=r"install Node\.js"):
            javascript.Keeper("none", lambda node: [node]).load(b"")
    tool(tmp_path / "node")
    assert "onnxruntime-node not installed" in javascript.node_runtime.missing()
    assert "onnxruntime-web, playwright-core not installed" in javascript.web_runtime.missing()
    for name in ("onnxruntime-node", "onnxruntime-web", "playwright-core"):
        folder = tmp_path / "elsewhere" / name
        folder.mkdir(parents=True)
        (folder / "package.json").write_text("{}")
    monkeypatch.setenv(javascript.NODE_MODULES, f"absent{os.pathsep}{tmp_path / 'elsewhere'}")
    assert javascript.node_runtime.missing() == ""
    assert "chromium not found" in javascript.web_runtime.missing()
    monkeypatch.setenv(javascript.CHROMIUM, "nowhere")
    assert "names nowhere, which cannot be run" in javascript.web_runtime.missing()
    tool(tmp_path / "google-chrome")
    assert "names nowhere" in javascript.web_runtime.missing()
    monkeypatch.delenv(javascript.CHROMIUM)
    assert javascript.web_runtime.missing() == ""
    assert javascript.browser() == str(tmp_path / "google-chrome")


def tool(path):
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
