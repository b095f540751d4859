"""Small ONNX graphs made by hand, and the same network run by ONNX Runtime as the judge."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from fastlstm import reference

FLOAT = TensorProto.FLOAT
X = {"x": ("batch", "time", 3)}


def constant(name, array, dtype=np.float32):
    """An initializer; whole numbers stay int64."""
    array = np.asarray(array)
    kept = array.dtype.kind in "iub" and dtype is np.float32
    return numpy_helper.from_array(array.astype(np.int64 if kept else dtype), name)


def graph(nodes, constants=None, inputs=None, outputs=("y",), **options):
    """A ModelProto: constants are arrays by name, inputs shapes by name, "i32" first for int32."""
    entries = []
    for name, shape in (inputs or X).items():
        kind = FLOAT
        if shape and shape[0] in ("i32", "i64", "f64"):
            kinds = {"i32": TensorProto.INT32, "i64": TensorProto.INT64, "f64": TensorProto.DOUBLE}
            kind, shape = kinds[shape[0]], shape[1:]
        entries.append(helper.make_tensor_value_info(name, kind, shape))
    ends = [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs]
    initializers = [
        array if isinstance(array, TensorProto) else constant(name, array)
        for name, array in (constants or {}).items()
    ]
    made = helper.make_graph(nodes, "graph", entries, ends, initializers)
    opset = options.pop("opset", 17)
    imports = [helper.make_opsetid("", opset), *options.pop("imports", [])]
    return helper.make_model(made, opset_imports=imports, ir_version=8, **options)


def uniform(*shape, seed=0, limit=0.8):
    """float32 weights."""
    rng = np.random.default_rng([seed, *shape])
    return rng.uniform(-limit, limit, shape).astype(np.float32)


def run(proto, feed):
    """The graph's outputs by ONNX Runtime, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feed)


def agrees(model, proto, *, batch=2, time=6, order="batch first", last=False, feed=None):
    """Assert that ONNX Runtime's first output is the reference's, within twice plain float32."""
    series = [reference.check_input(model, time, seed) for seed in range(batch)]
    x = np.stack(series, axis=0 if order == "batch first" else 1)
    found = run(proto, {"x": x, **(feed or {})})[0]
    exact, single = (
        np.stack([reference.run(model, s, kind) for s in series])
        for kind in (np.float64, np.float32)
    )
    bound = 2 * np.abs(single - exact).max() + 1e-6
    if last:
        exact = exact[:, -1]
    elif order != "batch first":
        exact = exact.swapaxes(0, 1)
    np.testing.assert_allclose(found.reshape(exact.shape), exact, rtol=0, atol=bound)
