"""A Model as one .safetensors file, in and out. The format is written down in the README.

`load` refuses anything malformed, by name, and never loads other numbers in silence.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors

from fastlstm import reference, whole_file
from fastlstm.errors import ModelError, ModelFileError
from fastlstm.layers import LAYERS, Layer, build
from fastlstm.model import Model

FORMAT_VERSION = 1
METADATA_KEY = "fastlstm"
CHECK_INPUT, CHECK_OUTPUT = "check.input", "check.output"
CHECK_STEPS = 16
# The check vector is float64 arithmetic on both sides; another BLAS may sum in another order.
CHECK_TOLERANCE = 1e-9

Tensors = dict[str, NDArray[Any]]


def save(model: Model, path: str | Path) -> Path:
    """Write `model` to `path`, whole or not at all: an older file stays until then."""
    path = Path(path)
    data = to_bytes(model)
    try:
        whole_file.write(path, data)
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be written: {error.strerror or error}") from error
    return path


def to_bytes(model: Model) -> bytes:
    """The file's bytes; the same model gives the same bytes."""
    tensors: Tensors = dict(_weights(model))
    tensors[CHECK_INPUT] = reference.check_input(model, CHECK_STEPS)
    tensors[CHECK_OUTPUT] = reference.run(model, tensors[CHECK_INPUT])
    document = {
        "format_version": FORMAT_VERSION,
        "layers": [{"kind": layer.kind, **layer.options} for layer in model.layers],
        "metadata": dict(model.metadata),
    }
    document["digest"] = digest(document, tensors)
    # One key only: safetensors keeps metadata in a hash map, whose order would change the bytes.
    return to_safetensors(tensors, metadata={METADATA_KEY: _canonical(document)})


def digest(document: dict[str, Any], tensors: Tensors) -> str:
    """SHA-256 of the document without its digest, then of each tensor in the order of names."""
    sha = hashlib.sha256(_canonical({k: v for k, v in document.items() if k != "digest"}).encode())
    for name in sorted(tensors):
        array = tensors[name]
        sha.update(f"{name} {array.dtype.name} {list(array.shape)} ".encode())
        sha.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return "sha256:" + sha.hexdigest()


def load(path: str | Path) -> Model:
    """Read a model file; raises ModelFileError, which says what is wrong with it."""
    path = Path(path)
    document, tensors = _open(path)
    try:
        return _build(document, tensors)
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from error.__cause__
    except (ModelError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: {error}") from error


def _open(path: Path) -> tuple[dict[str, Any], Tensors]:
    if path.is_dir():
        raise ModelFileError(f"{path}: expected a model file, found a folder")
    if not path.is_file():
        raise ModelFileError(f"{path}: no such file")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if METADATA_KEY not in metadata:
                raise ModelFileError(
                    f"{path}: a safetensors file, but not a fastlstm model: its metadata has no "
                    f"{METADATA_KEY!r} entry; read a network's own weights with fastlstm.from_torch"
                )
            tensors: Tensors = {}
            for name in file.keys():  # noqa: SIM118 - safe_open is no mapping
                dtype = file.get_slice(name).get_dtype()
                if dtype != ("F64" if name == CHECK_OUTPUT else "F32"):
                    raise ModelFileError(f"{path}: tensor {name} has the unexpected dtype {dtype}")
                tensors[name] = file.get_tensor(name)
    except SafetensorError as error:
        raise ModelFileError(
            f"{path}: not a whole safetensors file ({error}); it is truncated, padded or damaged: "
            "copy or export it again"
        ) from error
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        document = json.loads(metadata[METADATA_KEY])
    # Too many digits and too many brackets have errors of their own.
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: the architecture is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise ModelFileError(f"{path}: the architecture is no JSON object")
    return document, tensors


def _build(document: dict[str, Any], tensors: Tensors) -> Model:
    version = document.get("format_version")
    if type(version) is not int or version < 1:
        raise ModelFileError(f"expected a format_version of at least 1, found {version!r}")
    if version > FORMAT_VERSION:
        raise ModelFileError(
            f"written in format version {version}, this release reads up to {FORMAT_VERSION}: "
            "upgrade fastlstm"
        )
    specifications, metadata = document.get("layers"), document.get("metadata")
    if not isinstance(specifications, list) or not isinstance(metadata, dict):
        raise ModelFileError(
            "expected a list of layers and an object of metadata in the architecture"
        )
    for name in (CHECK_INPUT, CHECK_OUTPUT):
        if name not in tensors:
            raise ModelFileError(f"tensor {name} is missing")
    model = Model(
        tuple(_layer(k, spec, tensors) for k, spec in enumerate(specifications)), metadata
    )
    known = set(_weights(model)) | {CHECK_INPUT, CHECK_OUTPUT}
    if extra := sorted(set(tensors) - known):
        raise ModelFileError(f"tensors that belong to no layer: {', '.join(extra)}")
    if document.get("digest") != digest(document, tensors):
        raise ModelFileError(
            "the digest does not match: weights or architecture were changed after the file was "
            "written; export it again"
        )
    _replay(model, tensors)
    return model


def _layer(position: int, specification: Any, tensors: Tensors) -> Layer:
    kind = specification.get("kind") if isinstance(specification, dict) else None
    if not isinstance(kind, str):
        raise ModelFileError(
            f"layer {position}: expected a kind among {', '.join(LAYERS)}, found {kind!r}"
        )
    options = {name: value for name, value in specification.items() if name != "kind"}
    prefix = f"layers.{position}."
    arrays: dict[str, Any] = {
        n.removeprefix(prefix): a for n, a in tensors.items() if n.startswith(prefix)
    }
    try:
        return build(kind, arrays, options)
    except ModelError as error:
        raise ModelFileError(f"layer {position}: {error}") from error


def _replay(model: Model, tensors: Tensors) -> None:
    x, expected = tensors[CHECK_INPUT], tensors[CHECK_OUTPUT]
    steps = max(1, len(x)) if x.ndim else 1
    if x.shape != (steps, model.input_size) or expected.shape != (steps, model.output_size):
        raise ModelFileError(
            f"the check vector has shapes {x.shape} and {expected.shape}, which do not fit a "
            f"model of {model.input_size} inputs and {model.output_size} outputs"
        )
    found = reference.run(model, x)
    scale = max(1.0, float(np.abs(expected).max()))
    error = float(np.abs(found - expected).max())
    # Written so that NaN is refused, and infinity, whose tolerance would be infinite too.
    if not error <= CHECK_TOLERANCE * scale < np.inf:
        raise ModelFileError(
            f"the check vector replays with an error of {error:.3g}: this release would compute "
            "other numbers than the one that wrote the file"
        )


def _weights(model: Model) -> Tensors:
    return {
        f"layers.{k}.{name}": array
        for k, layer in enumerate(model.layers)
        for name, array in layer.arrays.items()
    }


def _canonical(document: dict[str, Any]) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
