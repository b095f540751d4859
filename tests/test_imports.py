"""Who may import whom: every module-level import against the table of CONTRIBUTING.md.

And the guard behind it: the runtime streams right on a machine where torch cannot be imported.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
# A package and the folder that holds it, the longest name first.
FOLDERS = {
    "fastlstm.export": ROOT / "export",
    "fastlstm.bench": ROOT / "bench",
    "fastlstm": ROOT / "fastlstm",
}
ANYTHING = ("*",)
FORBIDDEN_AT_IMPORT = ("torch", "onnx", "onnxruntime", "lightning")


class Rule(NamedTuple):
    """What a module may import at module level: of ours, and of others beside the stdlib."""

    ours: tuple[str, ...]
    others: tuple[str, ...]


RUNTIME = (
    "model",
    "layers",
    "plain_layers",
    "recurrent_layers",
    "reference",
    "model_file",
    "compiled",
    "stream",
    "verify",
    "warmup",
    "errors",
    "kernels",
)
# The first rule whose name is the module's or a package above it holds.
RULES = {
    "fastlstm.__init__": Rule((*RUNTIME, "readers", "roads"), ()),
    "fastlstm.__main__": Rule(("cli",), ()),
    "fastlstm.cli": Rule(ANYTHING, ANYTHING),
    "fastlstm.cli_bench": Rule(ANYTHING, ANYTHING),
    "fastlstm.cli_evaluate": Rule(ANYTHING, ANYTHING),
    "fastlstm.cli_export": Rule(ANYTHING, ANYTHING),
    "fastlstm.cli_output": Rule(ANYTHING, ANYTHING),
    "fastlstm.cli_series": Rule(ANYTHING, ANYTHING),
    "fastlstm.cli_stream": Rule(ANYTHING, ANYTHING),
    "fastlstm.cli_train": Rule(ANYTHING, ANYTHING),
    "fastlstm.cli_tables": Rule(ANYTHING, ANYTHING),
    "fastlstm.cli_matrix": Rule(ANYTHING, ANYTHING),
    "fastlstm.cli_matrix_page": Rule(ANYTHING, ANYTHING),
    "fastlstm.cli_verify": Rule(ANYTHING, ANYTHING),
    "fastlstm.cli_warmup": Rule(ANYTHING, ANYTHING),
    "fastlstm.errors": Rule((), ("numpy",)),
    "fastlstm.base_layer": Rule(("errors",), ("numpy",)),
    "fastlstm.plain_layers": Rule(("base_layer", "errors"), ("numpy",)),
    "fastlstm.recurrent_layers": Rule(("base_layer", "errors"), ("numpy",)),
    "fastlstm.layers": Rule(("base_layer", "plain_layers", "recurrent_layers", "errors"), ()),
    "fastlstm.model": Rule(
        ("base_layer", "layers", "plain_layers", "recurrent_layers", "errors"), ("numpy",)
    ),
    "fastlstm.reference": Rule(("model",), ("numpy",)),
    "fastlstm.whole_file": Rule((), ()),
    "fastlstm.model_file": Rule(
        ("model", "layers", "errors", "reference", "whole_file"), ("numpy", "safetensors")
    ),
    "fastlstm.kernels": Rule(("kernels",), ("numpy", "numba", "llvmlite")),
    "fastlstm.compiled": Rule(("model", "kernels"), ("numpy",)),
    "fastlstm.stream": Rule(("model", "kernels", "compiled", "errors"), ("numpy",)),
    "fastlstm.sequence": Rule(("model", "stream"), ("numpy",)),
    "fastlstm.verify": Rule(("model", "reference", "errors"), ("numpy",)),
    "fastlstm.warmup": Rule(("model", "kernels", "compiled", "sequence", "errors"), ()),
    # The list of roads knows every runtime, but imports one only when that road is asked for.
    "fastlstm.roads": Rule(ANYTHING, ("numpy",)),
    # A format's library is imported inside the function that reads it; the reference checks the
    # reading against the original.
    "fastlstm.readers": Rule(("model", "errors", "reference", "readers"), ("numpy",)),
    "fastlstm.train": Rule(("model", "errors", "whole_file", "train"), ANYTHING),
    "fastlstm.export": Rule(
        ("model", "verify", "reference", "errors", "whole_file", "export", "train.network"),
        ANYTHING,
    ),
    "fastlstm.bench": Rule(ANYTHING, ANYTHING),
}


class Import(NamedTuple):
    """One import statement's target, and where it stands."""

    target: str
    line: int


def modules() -> Iterator[tuple[str, Path]]:
    for package, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            yield ".".join((package, *parts)), path


def rule_for(module: str) -> Rule:
    name = module
    while name not in RULES:
        name, dot, _ = name.rpartition(".")
        if not dot or name == "fastlstm":
            raise AssertionError(f"{module} has no line in the import table: give it one")
    return RULES[name]


def module_level_imports(module: str, source: str) -> list[Import]:
    """Imports that run with the module: not those in functions or under TYPE_CHECKING."""
    package = module.rpartition(".")[0]
    found = []
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            found += [Import(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            home = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                home = ".".join([*above, home]).rstrip(".")
            # `from fastlstm import x` is an edge to x, and so is `from fastlstm.export import x`.
            found += [Import(f"{home}.{alias.name}", node.lineno) for alias in node.names]
        waiting.extend(ast.iter_child_nodes(node))
    return found


def within(target: str, names: tuple[str, ...]) -> bool:
    return names == ANYTHING or any(target == n or target.startswith(n + ".") for n in names)


def breaches(module: str, source: str) -> list[str]:
    rule = rule_for(module)
    found = []
    for target, line in module_level_imports(module, source):
        top, _, rest = target.partition(".")
        if top == "fastlstm":
            good = within(rest, rule.ours)
        else:
            good = top in sys.stdlib_module_names or within(top, rule.others)
        if not good:
            found.append(f"{module}, line {line}: must not import {target}")
    return found


@pytest.mark.parametrize(("module", "path"), [pytest.param(m, p, id=m) for m, p in modules()])
def test_every_module_level_import_is_allowed(module, path):
    assert breaches(module, path.read_text()) == []


@pytest.mark.parametrize(
    ("module", "source", "target"),
    [
        ("fastlstm.reference", "from fastlstm.kernels.lstm import lstm_step", "fastlstm.kernels"),
        ("fastlstm.kernels.lstm", "from fastlstm import reference", "fastlstm.reference"),
        ("fastlstm.kernels.lstm", "from ..model import Model", "fastlstm.model"),
        ("fastlstm.stream", "import torch", "torch"),
        ("fastlstm.stream", "try:\n    import torch\nexcept ImportError:\n    pass", "torch"),
        ("fastlstm.readers.onnx_file", "import onnx", "onnx"),
        ("fastlstm.train.fit", "from fastlstm.bench import timing", "fastlstm.bench"),
        ("fastlstm.export.onnx_file", "from ..bench import timing", "fastlstm.bench"),
    ],
)
def test_a_forbidden_import_is_found(module, source, target):
    (breach,) = breaches(module, source)
    assert module in breach
    assert target in breach


def test_imports_inside_functions_and_for_type_checkers_are_let_be():
    source = (
        "if TYPE_CHECKING:\n    import torch\n"
        "def read():\n    import torch\n"
        "class A:\n    def f(self):\n        from fastlstm import bench\n"
    )
    assert breaches("fastlstm.readers.torch_module", source) == []


def python(source: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", source, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_fastlstm_brings_no_trainer_and_no_foreign_runtime():
    loaded = python("import sys, fastlstm; print(*sys.modules)").split()
    assert not set(FORBIDDEN_AT_IMPORT) & set(loaded)


def test_a_model_streams_where_torch_cannot_be_imported(tmp_path):
    """Everything optional is made unimportable, then a file is loaded, streamed and compared."""
    path = tmp_path / "model.safetensors"
    python(
        """
import sys
import numpy as np
import fastlstm
r = np.random.default_rng(1)
a = lambda *shape: (0.4 * r.standard_normal(shape)).astype(np.float32)
fastlstm.Model((
    fastlstm.Affine(a(2), a(2)),
    fastlstm.LSTM(a(68, 2), a(68, 17), a(68), a(68)),
    fastlstm.GRU(a(15, 17), a(15, 5), a(15), a(15)),
    fastlstm.RNN(a(3, 5), a(3, 3), a(3), a(3)),
    fastlstm.Dense(a(1, 3), a(1)),
)).save(sys.argv[1])
""",
        str(path),
    )
    error = python(
        """
import sys
for name in ("torch", "lightning", "onnx", "onnxruntime", "polars", "pydantic", "matplotlib",
             "typer", "rich"):
    sys.modules[name] = None
import numpy as np
import fastlstm
model = fastlstm.load(sys.argv[1])
x = np.random.default_rng(2).standard_normal((300, 2)).astype(np.float32)
stream = model.stream()
y = np.array([stream.step(sample) for sample in x])
again = model.stream().run(x)
assert y.tobytes() == np.asarray(again).tobytes(), "run and step differ"
print(np.abs(y - fastlstm.reference.run(model, x)).max())
""",
        str(path),
    )
    assert float(error) < 2e-6  # three recurrent layers of float32, contract 1
