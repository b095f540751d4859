"""Every cell in a model of some layers, its ONNX file in ONNX Runtime, or in doubles."""

import numpy as np

import cases
from fastlstm.export import onnx_graph
from fastlstm.model import Model

CELLS = {
    "lstm": ("LSTM", 7, {}),
    "lstm-no-bias": ("LSTM", 4, {"bias": False}),
    "peephole": ("LSTM", 9, {"peephole": True}),
    "gru": ("GRU", 6, {}),
    "gru-before": ("GRU", 5, {"reset": "before"}),
    "rnn": ("RNN", 6, {}),
    "rnn-relu": ("RNN", 5, {"nonlinearity": "relu", "bias": False}),
}
PROJECTED = {
    "projection": ("LSTM", 9, {"projection": 4}),
    "projection-of-one": ("LSTM", 3, {"projection": 1}),
    "projection-as-large": ("LSTM", 5, {"projection": 5, "bias": False}),
    "projection-larger": ("LSTM", 4, {"projection": 7}),
    "peephole-and-projection": ("LSTM", 13, {"peephole": True, "projection": 6}),
}
ALL = {**CELLS, **PROJECTED}


def chain(name, *, layers=1, both=False, top=True):
    """A model of equal layers, each with a learned start, and a Dense on top."""
    kind, hidden, options = ALL[name]
    make = cases.bidirectional if both else cases.recurrent
    found, size = [], 2
    for seed in range(layers):
        found.append(make(kind, size, hidden, seed=seed, initial=True, **options))
        size = found[-1].output_size
    return Model((*found, cases.dense(size, 3)) if top else tuple(found))


def session(model, **options):
    """The model's graph in ONNX Runtime, on the CPU, with its usual optimisations."""
    import onnxruntime

    data = onnx_graph.build(model, **options).SerializeToString()
    return onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])


def inside(proto):
    """Every node of a graph, those in the bodies of its loops too."""
    waiting = [*proto.graph.node]
    while waiting:
        node = waiting.pop(0)
        yield node
        for attribute in node.attribute:
            waiting += attribute.g.node


def in_doubles(proto):
    """The same graph with every float32 and float16 in it a double, in onnx's own evaluator."""
    from onnx import TensorProto, numpy_helper
    from onnx.reference import ReferenceEvaluator

    floats = (TensorProto.FLOAT, TensorProto.FLOAT16)
    for constant in proto.graph.initializer:
        if constant.data_type in floats:
            array = numpy_helper.to_array(constant).astype(np.float64)
            constant.CopyFrom(numpy_helper.from_array(array, constant.name))
    bodies = [attribute.g for node in inside(proto) for attribute in node.attribute]
    for node in inside(proto):
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i in floats:
                attribute.i = TensorProto.DOUBLE
    for graph in (proto.graph, *bodies):
        for value in (*graph.input, *graph.output):
            if value.type.tensor_type.elem_type in floats:
                value.type.tensor_type.elem_type = TensorProto.DOUBLE
    return ReferenceEvaluator(proto)
