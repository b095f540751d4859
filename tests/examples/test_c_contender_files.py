"""examples/contender and files that are no model: each is refused, and no byte beyond it read."""

import json
import math
import shlex
import struct

import numpy as np
import pytest

import cases
from fastlstm.bench.contenders.pipe_process import ContenderError, ContenderProcess
from fastlstm.errors import UnsupportedError
from fastlstm.model import Model
from fastlstm.model_file import to_bytes


def small_model():
    return Model((cases.recurrent("LSTM", 2, 3), cases.affine(3)))


def parts(data):
    """The header and the tensors' bytes of a model file."""
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def whole(header, tensors):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + tensors


def changed(edit, data=None):
    header, tensors = parts(data or to_bytes(small_model()))
    document = json.loads(header["__metadata__"]["fastlstm"])
    edit(header, document)
    header["__metadata__"]["fastlstm"] = json.dumps(document)
    return whole(header, tensors)


def hostile_files():
    """Bytes that are no model file, by what is wrong, and what the program says."""
    good = to_bytes(small_model())
    header, tensors = parts(good)
    w = "layers.0.weight_ih_l0"

    def entry(**values):
        return changed(lambda header, _: header[w].update(values))

    def document(**values):
        return changed(lambda _, document: document.update(values))

    def layer(**values):
        return changed(lambda _, document: document["layers"][0].update(values))

    begin = header[w]["data_offsets"][0]
    infinite = bytearray(tensors)
    infinite[begin : begin + 4] = struct.pack("<f", math.inf)
    return {
        "nothing": (b"", "not a whole safetensors file"),
        "seven bytes": (good[:7], "not a whole safetensors file"),
        "a header beyond the end": (
            struct.pack("<Q", len(good)) + good[8:],
            "not a whole safetensors file",
        ),
        "the longest header": (b"\xff" * 8 + good[8:], "not a whole safetensors file"),
        "cut": (good[:-200], "its data offsets do not fit"),
        "no JSON": (whole(b"{" * 40, tensors), "the header is not JSON"),
        "deep": (whole(b"[" * 100_000 + b"]" * 100_000, tensors), "the header is not JSON"),
        "open string": (whole(b'{"a', tensors), "the header is not JSON"),
        "open escape": (whole(b'{"a\\', tensors), "the header is not JSON"),
        "zeros": (whole(b"\0" * 64, tensors), "the header is not JSON"),
        "an array": (whole(b"[1, 2]", tensors), "no metadata entry fastlstm"),
        "no metadata": (whole({}, tensors), "no metadata entry fastlstm"),
        "metadata of another type": (
            whole({"__metadata__": {"fastlstm": 1}}, tensors),
            "no metadata entry fastlstm",
        ),
        "an architecture cut short": (
            whole({**header, "__metadata__": {"fastlstm": '{"layers":['}}, tensors),
            "the architecture is not JSON",
        ),
        "a later version": (document(format_version=2), "expected the format_version 1"),
        "no layers": (document(layers=[]), "expected at least one layer"),
        "layers of another type": (document(layers={"a": 1}), "expected an array of layers"),
        "a layer of another type": (document(layers=[3]), "layer 0 has no kind"),
        "a line feed in the kind": (good.replace(b"LSTM", b"LS\nM"), 'of kind "LS?M"'),
        "another escape": (good.replace(b"LSTM", b"LS\\n"), "escapes that fastlstm does not"),
        "another kind": (layer(kind="LSTM 2"), 'of kind "LSTM 2"'),
        "an unknown option": (layer(dilation=2), "layer 0: the option dilation"),
        "one size": (entry(shape=[12]), "its data offsets do not fit"),
        "no sizes": (entry(shape=[]), "expected a tensor weight_ih_l0 of one or two axes"),
        "three sizes": (entry(shape=[12, 2, 1]), "of one or two axes"),
        "a size of zero": (entry(shape=[12, 0]), "of one or two axes"),
        "a negative size": (entry(shape=[12, -2]), "of one or two axes"),
        "a fraction": (entry(shape=[12, 2.5]), "of one or two axes"),
        "sizes whose product overflows": (
            entry(shape=[2**32, 2**32]),
            "its data offsets do not fit",
        ),
        "rows that are no gates": (entry(shape=[2, 12]), "expected the shape (0, 12)"),
        "another type": (entry(dtype="F16"), "expected the dtype F32"),
        "offsets that cross": (entry(data_offsets=[96, 0]), "its data offsets do not fit"),
        "offsets beyond the end": (
            entry(data_offsets=[10**9, 10**9 + 96]),
            "its data offsets do not fit",
        ),
        "huge offsets": (entry(data_offsets=[10**30, 10**31]), "its data offsets do not fit"),
        "one offset": (entry(data_offsets=[0]), "its data offsets do not fit"),
        "an infinite weight": (whole(header, bytes(infinite)), "weight_ih_l0: not finite"),
        "a missing tensor": (
            changed(lambda header, _: header.pop("layers.0.weight_hh_l0")),
            "tensor weight_hh_l0 is missing",
        ),
        "a tensor of no layer": (
            changed(lambda header, _: header.update({"layers.0.h1": header[w]})),
            "a tensor belongs to no layer",
        ),
        "layers that do not fit": (
            changed(lambda _, document: document["layers"].reverse()),
            "layer 0: expected a tensor scale",
        ),
    }


@pytest.mark.parametrize("file", hostile_files())
def test_hostile_files_are_refused(c_contender, tmp_path, file):
    data, reason = hostile_files()[file]
    path = tmp_path / "hostile file.safetensors"
    path.write_bytes(data)
    process = ContenderProcess(shlex.quote(str(c_contender)))
    try:
        with pytest.raises((ContenderError, UnsupportedError)) as raised:
            process.ask(f"load {path}")
        assert reason in str(raised.value)
        path.write_bytes(to_bytes(small_model()))
        assert process.ask(f"load {path}") == " 2 3"
    finally:
        process.close()


def test_no_file_makes_it_read_beyond_its_bytes(guarded_process, tmp_path):
    """Every hostile file, every length, and bytes changed at random, under the sanitizers."""
    good = to_bytes(small_model())
    (length,) = struct.unpack("<Q", good[:8])
    rng = np.random.default_rng(0)
    files = [data for data, _ in hostile_files().values()]
    files += [good[:cut] for cut in range(0, len(good), 29)]
    for _ in range(300):
        data = bytearray(good)
        for at in rng.integers(0, 8 + length, rng.integers(1, 4)):
            data[at] = (
                rng.integers(0, 256) if rng.random() < 0.5 else ord(rng.choice(list('"{}[],:0\\')))
            )
        files.append(bytes(data))
    path = tmp_path / "file"
    refused = 0
    for data in files:
        path.write_bytes(data)
        try:
            inputs, outputs = map(int, guarded_process.ask(f"load {path}").split())
        except (ContenderError, UnsupportedError):
            refused += 1
            continue
        answer = guarded_process.ask("step" + " 0.5" * inputs, values=outputs)
        assert len(answer.split()) == outputs
    # A change in free metadata, or in the digest, is none to this program.
    assert 0.5 * len(files) < refused < len(files)
    path.write_bytes(good)
    guarded_process.ask(f"load {path}")
    for request in ("time-steps 4 3 2 1 2 3 4", "time-sequences 1 3 1 1 2", "begin 2"):
        guarded_process.ask(request)
    for request in ("batch 1 2 3 4", "time-batches 3 1 2 1 2 3 4", "reset"):
        guarded_process.ask(request)
    guarded_process.ask("time-scheduled 3 2 1 0 5 1 2 3 4")
