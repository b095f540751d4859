"""The README is true: its Python runs, its commands exist, and a stranger can read the file."""

import hashlib
import importlib.util
import json
import re
import struct
from pathlib import Path

import numpy as np
import pytest

import cases
import fastlstm
from fastlstm import reference

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
DOCUMENTS = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "bench" / "results" / "README.md",
    ROOT / "examples" / "contender" / "README.md",
]
BLOCK = re.compile(r"(<!-- not run: [^>]*-->\n)?```(\w*)\n(.*?)```", re.DOTALL)


def blocks(language, *, run_only=False):
    found = [(code, bool(skip)) for skip, name, code in BLOCK.findall(README) if name == language]
    return [code for code, skip in found if not (run_only and skip)]


def needs(*libraries):
    for library in libraries:
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed")


def test_the_quick_start_runs_and_is_short(tmp_path, monkeypatch, capsys):
    needs("torch")
    monkeypatch.chdir(tmp_path)
    section = README.split("## Quick start")[1].split("\n## ")[0]
    ((_, _, code),) = BLOCK.findall(section)
    assert len(code.splitlines()) <= 10
    exec(compile(code, "README.md, quick start", "exec"), {})
    # What it prints is a distance from the reference.
    assert float(capsys.readouterr().out) < 1e-6
    assert (tmp_path / "model.safetensors").is_file()


def test_all_python_runs_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    needs("torch", "lightning", "pydantic", "polars", "matplotlib", "onnx", "onnxruntime")
    monkeypatch.chdir(tmp_path)
    names = {}
    code = blocks("python", run_only=True)
    assert len(code) >= 5
    for k, block in enumerate(code):
        exec(compile(block, f"README.md, block {k} of Python", "exec"), names)
    out = capsys.readouterr().out
    assert "nan at index (0,) is not a finite number" in out
    assert names["done"].max_abs_error <= names["done"].bound
    assert np.isfinite(names["F"]).all()
    assert not names["stream"].output.any()  # it was reset
    section = README.split("The run folder holds")[1].split("\n\n")[0]
    for path in Path("runs/sine").iterdir():
        assert f"`{path.name}{'/' * path.is_dir()}`" in section


def test_what_is_not_run_is_python_all_the_same():
    for code in blocks("python"):
        compile(code, "README.md", "exec")


def test_the_recipe_is_one(tmp_path):
    needs("pydantic", "torch")
    from fastlstm.train import load_recipe

    (code,) = blocks("toml")
    (tmp_path / "power.toml").write_text(code)
    recipe = load_recipe(tmp_path / "power.toml")
    assert recipe.series.target == ("load",)
    assert recipe.windows.warm_up == 24


def shell_lines():
    return [line.split("#")[0].split() for code in blocks("bash") for line in code.splitlines()]


def test_the_commands_and_their_options_exist():
    needs("typer", "rich")
    import typer

    from fastlstm.cli import app

    commands = typer.main.get_command(app).commands
    named = [words[1:] for words in shell_lines() if words[:1] == ["fastlstm"]]
    assert {words[0] for words in named} >= set(commands) - {"inspect"}
    for name, *words in named:
        command = commands[name]
        if hasattr(command, "commands"):
            name, *words = words
            command = command.commands[name]
        options = {text for option in command.params for text in option.opts}
        assert {word for word in words if word.startswith("-")} <= options, name


def test_the_make_targets_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    words = re.findall(r"\bmake ([a-z]+)\b", "\n".join(re.findall(r"`+[^`]+`+", README)))
    assert {"demo", "test", "readme"} <= set(words) <= targets


def test_the_extras_are_those_of_the_project():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    table = dict(re.findall(r"^\| `\.\[(\w+)\]` \| ([^|]+) \|", README, re.MULTILINE))
    assert set(table) == set(extras)
    for name in set(extras) - {"all"}:
        found = {re.match(r"[\w-]+", text)[0] for text in extras[name]}
        assert set(table[name].split(", ")) == found


def test_every_error_and_variable_is_named():
    from fastlstm import errors

    public = {name for name in vars(errors) if name.endswith("Error")} - {"FastLSTMError"}
    assert {name for name in public if f"`{name}`" not in README} == set()
    for name in ("FASTLSTM_CACHE_DIR", "FASTLSTM_VECTOR_WIDTH", "XDG_CACHE_HOME", "CXX"):
        assert f"| `{name}` |" in README


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    text = document.read_text("utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        other = document.parent / path if path else document
        assert other.is_file(), target
        assert not anchor or anchor in anchors(other.read_text("utf-8")), target


def anchors(text):
    """What a link may lead to within a page of Markdown."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_bench_figures_are_those_of_the_result(tmp_path):
    needs("pydantic", "matplotlib")
    from fastlstm.bench.reports import document
    from fastlstm.bench.reports.readme import replace, section, write_plot

    ladder = document.read(ROOT / "bench" / "results" / "ladder.json")
    assert replace(README, section(ladder)) == README
    write_plot(ladder, tmp_path / "bench.svg")
    assert (tmp_path / "bench.svg").read_text() == (ROOT / "docs" / "bench.svg").read_text()


class Stranger:
    """A reader written from "The model file" alone: no safetensors library, none of our code."""

    def __init__(self, data):
        (length,) = struct.unpack_from("<Q", data)
        header = json.loads(data[8 : 8 + length])
        self.text = header.pop("__metadata__")["fastlstm"]
        self.document = json.loads(self.text)
        body = data[8 + length :]
        self.raw, self.tensors, self.shapes = {}, {}, {}
        for name, about in header.items():
            begin, end = about["data_offsets"]
            dtype = {"F32": "<f4", "F64": "<f8"}[about["dtype"]]
            self.raw[name] = (dtype, about["shape"], body[begin:end])
            self.tensors[name] = np.frombuffer(body[begin:end], dtype).reshape(about["shape"])

    def digest(self):
        sha = hashlib.sha256(re.sub(r'^\{"digest":"[^"]*",', "{", self.text).encode("ascii"))
        for name, (dtype, shape, content) in sorted(self.raw.items()):
            word = {"<f4": "float32", "<f8": "float64"}[dtype]
            sizes = "[" + ", ".join(map(str, shape)) + "]"
            sha.update(f"{name} {word} {sizes} ".encode("ascii") + content)
        return "sha256:" + sha.hexdigest()

    def layer(self, k):
        """One function from a whole sequence to another."""
        about = self.document["layers"][k]
        own = {
            n.split(".")[2]: a.astype(np.float64)
            for n, a in self.tensors.items()
            if n.startswith(f"layers.{k}.")
        }

        def in_time(step, rows):
            return np.array([step(row) for row in rows])

        if about["kind"] != "Bidirectional":
            return lambda rows: in_time(self.steps(about["kind"], about, own), rows)

        def both_ways(rows):
            halves = {}, {}
            for name, array in own.items():
                halves[name.endswith("_reverse")][name.removesuffix("_reverse")] = array
            there, back = (self.steps(about["cell"], about, half) for half in halves)
            return np.hstack([in_time(there, rows), in_time(back, rows[::-1])[::-1]])

        return both_ways

    def steps(self, kind, about, own):
        """One function x -> y, which remembers the states."""

        def σ(v):
            return 1 / (1 + np.exp(-v))

        def softmax(v):
            return np.exp(v) / np.exp(v).sum()

        functions = {
            "linear": lambda v: v,
            "relu": lambda v: np.maximum(v, 0),
            "tanh": np.tanh,
            "sigmoid": σ,
            "softmax": softmax,
        }

        def products(x, h):
            a = own["weight_ih_l0"] @ x + own.get("bias_ih_l0", 0)
            b = own["weight_hh_l0"] @ h + own.get("bias_hh_l0", 0)
            return a, b

        def start(state, name):
            size = own["weight_hh_l0"].shape[1] if name == "h" else len(own["weight_hh_l0"]) // 4
            return state.setdefault(name, own.get(f"{name}0", np.zeros(size)))

        def lstm(x, state):
            a, b = products(x, start(state, "h"))
            i, f, g, o = np.split(a + b, 4)
            c = start(state, "c")
            p_i, p_f, p_o = np.split(own.get("peephole_l0", np.zeros(3 * len(c))), 3)
            state["c"] = σ(f + p_f * c) * c + σ(i + p_i * c) * np.tanh(g)
            state["h"] = σ(o + p_o * state["c"]) * np.tanh(state["c"])
            if "weight_hr_l0" in own:
                state["h"] = own["weight_hr_l0"] @ state["h"]
            return state["h"]

        def gru(x, state):
            a, b = (np.split(v, 3) for v in products(x, start(state, "h")))
            r, z = σ(a[0] + b[0]), σ(a[1] + b[1])
            if about["reset"] == "before":
                weight = np.split(own["weight_hh_l0"], 3)[2]
                bias = np.split(own["bias_hh_l0"], 3)[2] if "bias_hh_l0" in own else 0
                n = np.tanh(a[2] + weight @ (r * state["h"]) + bias)
            else:
                n = np.tanh(a[2] + r * b[2])
            state["h"] = (1 - z) * n + z * state["h"]
            return state["h"]

        def rnn(x, state):
            a, b = products(x, start(state, "h"))
            state["h"] = functions[about["nonlinearity"]](a + b)
            return state["h"]

        def dense(x, state):
            return functions[about["activation"]](own["weight"] @ x + own.get("bias", 0))

        def affine(x, state):
            return own["scale"] * x + own["shift"]

        def layer_norm(x, state):
            m = x.sum() / len(x)
            v = ((x - m) * (x - m)).sum() / len(x)
            return (x - m) / np.sqrt(v + about["eps"]) * own["weight"] + own.get("bias", 0)

        def difference(x, state):
            last = state.get("x", own.get("x0", np.zeros(about["size"])))
            state["x"] = x
            return x - last

        kinds = {
            "LSTM": lstm,
            "GRU": gru,
            "RNN": rnn,
            "Dense": dense,
            "Affine": affine,
            "LayerNorm": layer_norm,
            "Difference": difference,
        }
        state = {}
        return lambda x: kinds[kind](x, state)

    def run(self, x):
        rows = x.astype(np.float64)
        inputs = []
        for k, about in enumerate(self.document["layers"]):
            inputs.append(rows)
            if about["kind"] == "Residual":
                source = inputs[k - about["back"]]
                rows = np.stack(
                    [rows[:, j] + source[:, c] for j, c in enumerate(about["columns"])], 1
                )
            else:
                rows = self.layer(k)(rows)
        return rows


READ_BY_A_STRANGER = {
    **{
        name: cases.MODELS[name]().layers
        for name in (
            "mixed",
            "learned-start",
            "no-bias",
            "rnn-relu",
            "gru-stack",
            "scaled",
            "softmax-two",
        )
    },
    "projection": (cases.recurrent("LSTM", 3, 7, projection=2),),
    "peepholes": (cases.recurrent("LSTM", 3, 7, peephole=True, projection=3, initial=True),),
    "reset": (cases.recurrent("GRU", 3, 7, reset="before"),),
    "reset, no bias": (cases.recurrent("GRU", 3, 7, reset="before", bias=False),),
    "differences, norms and residuals": (
        fastlstm.Difference(3, np.array([0.5, -1, 2], np.float32)),
        cases.recurrent("LSTM", 3, 7),
        fastlstm.LayerNorm(cases.dense(1, 7).weight[:, 0], cases.dense(1, 7).bias, 1e-3),
        fastlstm.LayerNorm(cases.dense(1, 7).weight[:, 0]),
        cases.dense(7, 5),
        fastlstm.Residual(5, (2, 2, 0, 1, 2)),
        cases.dense(5, 5, "tanh"),
        fastlstm.Residual(1, (0, 1, 2, 3, 4)),
    ),
    "both ways": (
        cases.bidirectional("LSTM", 3, 7, projection=2, peephole=True, initial=True),
        cases.bidirectional("GRU", 4, 5, reset="before", bias=False),
        cases.bidirectional("RNN", 10, 3, nonlinearity="relu"),
        cases.dense(6, 2, "softmax"),
    ),
}


@pytest.mark.parametrize("name", list(READ_BY_A_STRANGER))
def test_a_stranger_reads_the_file(tmp_path, name):
    layers = READ_BY_A_STRANGER[name]
    model = fastlstm.Model(layers, {"über": [1e-7, 1e22, 1.0, {"digest": "\U0001f600"}]})
    theirs = Stranger(model.save(tmp_path / "model.safetensors").read_bytes())
    assert theirs.document["format_version"] == 1
    assert theirs.document["digest"] == theirs.digest()
    assert theirs.document["metadata"] == dict(model.metadata)
    expected = theirs.tensors["check.output"]
    bound = 1e-9 * max(1, np.abs(expected).max())
    assert np.abs(theirs.run(theirs.tensors["check.input"]) - expected).max() <= bound
    x = cases.stream(model, 50)
    assert np.abs(theirs.run(x) - reference.run(model, x)).max() <= bound


def test_every_key_of_a_recipe_and_every_layer_is_explained():
    needs("pydantic", "torch")
    from fastlstm.train.recipe_layers import LAYERS
    from fastlstm.train.recipe_tables import TABLES

    text = (ROOT / "docs" / "training.md").read_text("utf-8")
    known = {key for table in (*TABLES.values(), *LAYERS.values()) for key in table.model_fields}
    known -= {"kind", "bidirectional"}
    words = set(re.findall(r"[a-z_]+", " ".join(re.findall(r"`([^`]+)`", text))))
    assert known - words == set()
    assert {kind for kind in LAYERS if f"`{kind}`" not in text} == set()
