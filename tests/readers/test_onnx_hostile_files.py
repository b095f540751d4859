"""ONNX files that are none, or whose weights are elsewhere or not what they claim."""

import contextlib
import os

import numpy as np
import pytest

from fastlstm import from_onnx
from fastlstm.errors import MissingExtraError, ReaderError
from fastlstm.model import Model

onnx = pytest.importorskip("onnx", reason="onnx is not installed")

import onnx_graphs as graphs  # noqa: E402  after the skip
from onnx import TensorProto, numpy_helper  # noqa: E402
from onnx.helper import make_node as node  # noqa: E402

W = graphs.uniform(3, 4)


def refused(source, message):
    data = source if isinstance(source, bytes) else source.SerializeToString()
    with pytest.raises(ReaderError, match=message):
        from_onnx(data)


def dense(weight=None):
    """X @ w, whose weight may be any TensorProto."""
    constants = {"w": W if weight is None else weight}
    return graphs.graph([node("MatMul", ["x", "w"], ["y"], "dense")], constants)


# Files


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 100,
        b"no protobuf at all",
        b"\x3a\xff\xff\xff\xff\x07abc",  # a graph that claims to be 2 GiB long
        b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7fabc",  # and one of 2**63 bytes
        b"\x08\x08",  # an IR version and nothing more
        b"PK\x03\x04" + b"\0" * 60,
    ],
)
def test_no_onnx_file(data):
    refused(data, "expected an ONNX file")


def test_every_truncation():
    whole = dense().SerializeToString()
    for size in range(len(whole)):
        # What is cut between two fields may be a whole message without the rest.
        with contextlib.suppress(ReaderError):
            assert isinstance(from_onnx(whole[:size]), Model)


def test_paths(tmp_path):
    for path, message in ((tmp_path, "folder"), (tmp_path / "none.onnx", "no such file")):
        with pytest.raises(ReaderError, match=message) as caught:
            from_onnx(path)
        assert str(path) in str(caught.value)
    with pytest.raises(ReaderError, match=r"path of an ONNX file.*found int"):
        from_onnx(3)
    with pytest.raises(ReaderError, match=r"cannot be read|no such file"):
        from_onnx("a\0b")
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    with pytest.raises(ReaderError, match="no such file"):
        from_onnx(fifo)
    sparse = tmp_path / "huge.onnx"
    with sparse.open("wb") as file:
        file.truncate(2**31)
    with pytest.raises(ReaderError, match="less than 2 GiB"):
        from_onnx(sparse)


def test_without_onnx(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"fastlstm\[onnx\]"):
        from_onnx(b"")


# Weights


def raw(dims, count, kind=TensorProto.FLOAT, **fields):
    """A tensor that says one shape and holds `count` float32."""
    tensor = TensorProto(name="w", data_type=kind, dims=dims, **fields)
    if not fields:
        tensor.raw_data = b"\0" * 4 * count
    return tensor


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (raw([2**40, 2**40], 12), "48 bytes"),
        (raw([2**62, 4], 12), "48 bytes"),
        (raw([3, 5], 12), "60 bytes, found 48"),
        (raw([], 12), "4 bytes, found 48"),
        (raw([3, -4], 12), "at least 0"),
        (raw([3, 4], 12, float_data=[1.0]), "12 values .* found 1"),
        (raw([3, 4], 12, kind=TensorProto.STRING), "found STRING"),
        (raw([3, 4], 12, kind=TensorProto.COMPLEX64), "found COMPLEX64"),
        (raw([3, 4], 12, kind=77), "found type 77"),
        (raw([3, 4], 12, kind=TensorProto.UNDEFINED), "found UNDEFINED"),
        (numpy_helper.from_array(W.astype(np.int32), "w"), "MatMul node 'dense': .*found int32"),
        (numpy_helper.from_array(W > 0, "w"), "MatMul node 'dense': .*found bool"),
        (numpy_helper.from_array(W.astype(np.float64) / 3, "w"), "dense.*float64 values that are"),
        (graphs.constant("w", np.where(W > 0.3, np.nan, W)), "dense.*finite values"),
        (graphs.constant("w", np.where(W > 0.3, np.inf, W)), "dense.*found inf"),
        (graphs.constant("w", np.zeros((0, 4))), "dense.*do not go together"),
        (graphs.constant("w", np.zeros((3, 0))), "dense"),
        (graphs.constant("w", np.float32(3)), "dense.*single numbers"),
        (graphs.constant("w", graphs.uniform(5, 4)), "dense.*do not go together"),
    ],
)
def test_weights_that_lie_or_are_none(tensor, message):
    refused(dense(tensor), message)


def test_float64_weights_that_are_float32():
    model = from_onnx(dense(numpy_helper.from_array(W.astype(np.float64), "w")).SerializeToString())
    assert np.array_equal(model.layers[0].weight, W.T)


def external(tmp_path, **about):
    """A model in tmp_path/inside, whose weight is in another file, as `about` says."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3, 4], data_location=1)
    for key, value in about.items():
        tensor.external_data.add(key=key, value=str(value))
    folder = tmp_path / "inside"
    folder.mkdir(exist_ok=True)
    (tmp_path / "outside.bin").write_bytes(W.tobytes())
    (folder / "w.bin").write_bytes(b"1234" + W.tobytes())
    path = folder / "model.onnx"
    path.write_bytes(dense(tensor).SerializeToString())
    return path


def test_external_data_inside_the_folder(tmp_path):
    path = external(tmp_path, location="w.bin", offset=4, length=48)
    assert np.array_equal(from_onnx(path).layers[0].weight, W.T)
    refused(path.read_bytes(), "bytes alone")


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"location": "../outside.bin"}, "outside"),
        ({"location": "../inside/../outside.bin"}, "outside"),
        ({"location": "/etc/passwd"}, "outside"),
        ({"location": "link.bin"}, "outside"),
        ({"location": "linked/outside.bin"}, "outside"),
        ({"location": "."}, "outside"),
        ({"location": ""}, "outside"),
        ({}, "outside"),
        ({"location": "none.bin"}, "no such file"),
        ({"location": "folder"}, "no such file"),
        ({"location": "a\0b"}, "cannot be read"),
        ({"location": "w.bin"}, "48 bytes, found 52"),
        ({"location": "w.bin", "offset": 5}, "found 47 bytes"),
        ({"location": "w.bin", "offset": -4}, "from -4"),
        ({"location": "w.bin", "offset": 4, "length": 2**60}, "52 bytes in all"),
        ({"location": "w.bin", "offset": "four"}, "cannot be read"),
        ({"location": "w.bin", "length": -1}, "-1 bytes"),
    ],
)
def test_external_data_elsewhere_or_damaged(tmp_path, about, message):
    path = external(tmp_path, **about)
    (path.parent / "link.bin").symlink_to(tmp_path / "outside.bin")
    (path.parent / "linked").symlink_to(tmp_path)
    (path.parent / "folder").mkdir()
    with pytest.raises(ReaderError, match=rf"weight 'w': .*{message}"):
        from_onnx(path)
