"""The model file: the same bytes for the same model, and no damage that loads in silence."""

import hashlib
import json
import os
import struct

import numpy as np
import pytest
from safetensors.numpy import load as read_tensors
from safetensors.numpy import save as write_tensors

import cases
import fastlstm
from fastlstm import model_file, reference
from fastlstm.errors import ModelFileError
from fastlstm.model import Affine, Model

# The file of GOLDEN, byte for byte: a change here is a change of the format, and needs a new
# format version that still reads this one.
GOLDEN_SHA256 = "6f631f9f7db73f57dea870a6eb3a2b1df92408e87960480b66cfecb9a758800c"


def golden():
    scale, shift = np.array([2, 0.5], np.float32), np.array([1, -1], np.float32)
    return Model((Affine(scale, shift),), {"unit": "ppm"})


def document_of(data):
    size = struct.unpack("<Q", data[:8])[0]
    return json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["fastlstm"])


def with_document(data, change, *, digest=True):
    """The file with its architecture changed, and by default a digest that fits."""
    tensors, document = read_tensors(data), document_of(data)
    change(document, tensors)
    if digest:
        document["digest"] = model_file.digest(document, tensors)
    return write_tensors(tensors, metadata={"fastlstm": json.dumps(document)})


def saved_and_loaded(model, path):
    """The model read back, after everything in it was found to be as it was."""
    loaded = fastlstm.load(model.save(path))
    for ours, theirs in zip(model.layers, loaded.layers, strict=True):
        assert (ours.kind, ours.options) == (theirs.kind, theirs.options)
        assert ours.arrays.keys() == theirs.arrays.keys()
        for key, array in ours.arrays.items():
            assert np.array_equal(array, theirs.arrays[key])
    assert model_file.to_bytes(loaded) == path.read_bytes()
    return loaded


@pytest.mark.parametrize("name", list(cases.MODELS))
def test_round_trip(tmp_path, name):
    model = cases.model(name)
    loaded = saved_and_loaded(model, tmp_path / "model.safetensors")
    x = cases.stream(model, 20)
    assert np.array_equal(loaded.stream().run(x), model.stream().run(x))


def test_metadata_comes_back(tmp_path):
    metadata = {"unit": "ppm", "columns": ["a", "b"], "rate_hz": 48000, "nested": {"ok": True}}
    model = Model((cases.affine(1),), metadata)
    assert dict(fastlstm.load(model.save(tmp_path / "m")).metadata) == metadata


def test_golden_bytes():
    data = model_file.to_bytes(golden())
    assert hashlib.sha256(data).hexdigest() == GOLDEN_SHA256


def test_a_stranger_can_read_it():
    """The README's rules alone: no code of ours, from the bytes to the numbers."""
    data = model_file.to_bytes(golden())
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    document = json.loads(header["__metadata__"]["fastlstm"])
    assert document["format_version"] == 1
    assert document["layers"] == [{"kind": "Affine"}]
    assert document["metadata"] == {"unit": "ppm"}

    def tensor(name):
        entry = header[name]
        begin, end = entry["data_offsets"]
        kind = {"F32": "<f4", "F64": "<f8"}[entry["dtype"]]
        return np.frombuffer(data[8 + size :][begin:end], kind).reshape(entry["shape"])

    x, y = tensor("check.input"), tensor("check.output")
    scale, shift = tensor("layers.0.scale"), tensor("layers.0.shift")
    assert np.array_equal(x.astype(np.float64) * scale + shift, y)

    stated = document.pop("digest")
    sha = hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode())
    for name in sorted(header.keys() - {"__metadata__"}):
        array = tensor(name)
        sha.update(f"{name} {array.dtype.name} {list(array.shape)} ".encode() + array.tobytes())
    assert stated == "sha256:" + sha.hexdigest()


def test_the_network_twin_loads_its_weights(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from safetensors.torch import load_file

    from fastlstm.train.network import Network

    model = cases.model("mixed")
    tensors = load_file(model.save(tmp_path / "model.safetensors"))
    weights = {name: value for name, value in tensors.items() if name.startswith("layers.")}
    network = Network.from_model(Model(cases.model("mixed").layers))
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    network.load_state_dict(weights)
    x = reference.check_input(model, 10)
    found = network.double()(torch.tensor(x, dtype=torch.float64)[None])[0][0].detach().numpy()
    np.testing.assert_allclose(found, reference.run(model, x), atol=1e-12)


GOOD = model_file.to_bytes(cases.stack("LSTM", 3, 1))


def change_layers(document, tensors):
    document["layers"][0]["kind"] = "GRU"


def swap_shapes(document, tensors):
    tensors["layers.0.weight_hh_l0"] = tensors["layers.0.weight_ih_l0"]


def transpose(document, tensors):
    tensors["layers.1.weight"] = np.ascontiguousarray(tensors["layers.1.weight"].T)


def flip_weight(document, tensors):
    tensors["layers.0.weight_hh_l0"][0, 0] += 1


def spoil_weight(document, tensors):
    tensors["layers.0.weight_hh_l0"][0, 0] = np.nan


def widen(document, tensors):
    tensors["layers.1.weight"] = tensors["layers.1.weight"].astype(np.float64)


def infinite_check(document, tensors):
    tensors["check.output"] = np.full_like(tensors["check.output"], np.inf)


def empty_check(document, tensors):
    for name in ("check.input", "check.output"):
        tensors[name] = tensors[name][:0]


def drop(name):
    return lambda document, tensors: tensors.pop(name)


def add(name):
    return lambda document, tensors: tensors.update({name: np.zeros(1, np.float32)})


def put(key, value):
    return lambda document, tensors: document.update({key: value})


def without_activation(document, tensors):
    del document["layers"][1]["activation"]


def option(name, value):
    return lambda document, tensors: document["layers"][1].update({name: value})


def lying_header(data):
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    header["layers.1.weight"]["shape"] = [3, 3]
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + size :]


def huge_header(data):
    return struct.pack("<Q", 2**63) + data[8:]


def flip_byte(data):
    spoiled = bytearray(data)
    spoiled[-5] ^= 0x40
    return bytes(spoiled)


HOSTILE = {
    "empty": (b"", "not a whole safetensors file"),
    "text": (b"hello, this is not a model at all", "not a whole safetensors file"),
    "truncated": (GOOD[:-3], "truncated, padded or damaged"),
    "header only": (GOOD[:40], "truncated"),
    "padded": (GOOD + b"\0\0\0", "truncated, padded or damaged"),
    "lying header": (lying_header(GOOD), "not a whole safetensors file"),
    "huge header": (huge_header(GOOD), "not a whole safetensors file"),
    "flipped byte": (flip_byte(GOOD), "digest does not match"),
    "plain tensors": (write_tensors({"a": np.zeros(2, np.float32)}), "not a fastlstm model"),
    "no JSON": (
        write_tensors({"a": np.zeros(2, np.float32)}, metadata={"fastlstm": "{"}),
        "not valid JSON",
    ),
    "a list": (
        write_tensors({"a": np.zeros(2, np.float32)}, metadata={"fastlstm": "[]"}),
        "no JSON object",
    ),
    "JSON too deep": (
        write_tensors({"a": np.zeros(2, np.float32)}, metadata={"fastlstm": "[" * 100_000}),
        "not valid JSON",
    ),
    "endless digits": (
        write_tensors({"a": np.zeros(2, np.float32)}, metadata={"fastlstm": "9" * 5000}),
        "not valid JSON",
    ),
    "newer": (with_document(GOOD, put("format_version", 2)), "upgrade fastlstm"),
    "version text": (with_document(GOOD, put("format_version", "1")), "format_version"),
    "version true": (with_document(GOOD, put("format_version", True)), "format_version"),
    "no layers": (with_document(GOOD, put("layers", [])), "at least one layer"),
    "layers no list": (with_document(GOOD, put("layers", {"a": 1})), "expected a list of layers"),
    "layer no object": (with_document(GOOD, put("layers", [1, 2])), "layer 0: expected a kind"),
    "unknown kind": (with_document(GOOD, put("layers", [{"kind": "Conv"}])), "found 'Conv'"),
    "kind changed": (with_document(GOOD, change_layers), "layer 0"),
    "swapped shapes": (with_document(GOOD, swap_shapes), "layer 0: LSTM.weight_hh_l0"),
    "transposed": (with_document(GOOD, transpose), "layer 1"),
    "not a number": (with_document(GOOD, spoil_weight), "finite"),
    "float64 weights": (with_document(GOOD, widen), "layers.1.weight has the unexpected dtype F64"),
    "missing weight": (
        with_document(GOOD, drop("layers.0.weight_hh_l0")),
        r"layer 0: LSTM: the arrays",
    ),
    "missing bias": (with_document(GOOD, drop("layers.0.bias_hh_l0")), "bias_ih_l0 and bias_hh"),
    "extra tensor": (with_document(GOOD, add("other")), "belong to no layer: other"),
    "extra parameter": (with_document(GOOD, add("layers.1.gain")), "layer 1"),
    "layer too many": (with_document(GOOD, add("layers.2.scale")), "layers.2.scale"),
    "unknown option": (
        with_document(GOOD, option("stride", "2")),
        r"layer 1: Dense: expected the options \(activation\), found \(activation, stride\)",
    ),
    "array as option": (with_document(GOOD, option("bias", None)), r"found \(activation, bias\)"),
    "option left out": (with_document(GOOD, without_activation), r"found \(none\)"),
    "wrong option": (with_document(GOOD, option("activation", "gelu")), "'gelu'"),
    "option no text": (with_document(GOOD, option("activation", 3)), "found 3"),
    "no check": (with_document(GOOD, drop("check.input")), "check.input is missing"),
    "no check output": (with_document(GOOD, drop("check.output")), "check.output is missing"),
    "infinite check": (with_document(GOOD, infinite_check), "check vector replays"),
    "empty check": (with_document(GOOD, empty_check), "check vector has shapes"),
    "weight changed": (with_document(GOOD, flip_weight, digest=False), "digest does not match"),
    "weight changed, digest too": (with_document(GOOD, flip_weight), "check vector replays"),
    "metadata changed": (
        with_document(GOOD, put("metadata", {"a": 1}), digest=False),
        "digest does not match",
    ),
    "metadata no object": (with_document(GOOD, put("metadata", [1])), "object of metadata"),
}


@pytest.mark.parametrize("name", list(HOSTILE))
def test_a_damaged_file_is_refused_and_says_why(tmp_path, name):
    refused(tmp_path, *HOSTILE[name])


def refused(tmp_path, data, words):
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match=words) as caught:
        fastlstm.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("step", range(0, len(GOOD), 97))
def test_no_flipped_byte_loads_other_numbers(tmp_path, step):
    spoiled = bytearray(GOOD)
    spoiled[step] ^= 0x15
    path = tmp_path / "model.safetensors"
    path.write_bytes(spoiled)
    try:
        loaded = fastlstm.load(path)
    except ModelFileError:
        return
    # A space in the header may become another: then it is the same model.
    assert model_file.to_bytes(loaded) == GOOD


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    for path, words in ((tmp_path / "nothing.safetensors", "no such file"), (tmp_path, "a folder")):
        with pytest.raises(ModelFileError, match=words) as caught:
            fastlstm.load(path)
        assert str(path) in str(caught.value)


def test_a_failed_save_keeps_the_older_file(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    cases.stack("LSTM", 3, 1).save(path)
    before = path.read_bytes()

    def fail(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ModelFileError, match="No space left"):
        cases.stack("GRU", 5, 1).save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ModelFileError, match="cannot be written"):
        cases.stack("LSTM", 3, 1).save(tmp_path / "nowhere" / "model.safetensors")
