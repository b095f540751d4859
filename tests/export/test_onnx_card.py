"""What an ONNX file says of itself, the versions it needs, and the checks of onnx on it."""

import json
from importlib import metadata

import numpy as np
import pytest

import cases
import onnx_files
from fastlstm import export, reference
from fastlstm.export import onnx_graph
from fastlstm.model import Affine, Difference, Model

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

# What ONNX Runtime 1.20 of November 2024 reads.
NEWEST_OPSET, NEWEST_IR = 21, 10
MODELS = {
    **{
        f"{name}{'-both' if both else ''}": (
            lambda name=name, both=both: onnx_files.chain(name, layers=2, both=both)
        )
        for name in onnx_files.ALL
        for both in (False, True)
    },
    "plain": lambda: Model(
        (
            cases.affine(3),
            cases.difference(3),
            cases.dense(3, 4, "softmax"),
            cases.layer_norm(4),
            cases.dense(4, 4, "relu"),
            cases.residual(2, 4),
            Difference(4),
            cases.affine(4),
        )
    ),
}
VARIANTS = [
    {"bare": bare, "lengths": lengths, "half": half}
    for bare in (False, True)
    for lengths in (False, True)
    for half in (False, True)
]


@pytest.mark.parametrize("name", MODELS)
def test_every_variant_passes_every_check_and_is_read_by_a_runtime_of_two_years_ago(name):
    for options in VARIANTS:
        proto = onnx_graph.build(MODELS[name](), **options)
        (entry,) = proto.opset_import
        assert entry.domain == ""
        assert entry.version <= NEWEST_OPSET
        assert proto.ir_version <= NEWEST_IR
        for node in proto.graph.node:
            # Raises for an operator that this opset has not.
            schema = onnx.defs.get_schema(node.op_type, entry.version)
            assert schema.since_version <= entry.version
            assert not schema.deprecated
        onnx.checker.check_model(proto, full_check=True)
        inferred = onnx.shape_inference.infer_shapes(
            proto, check_type=True, strict_mode=True, data_prop=True
        )
        # What is inferred of the results, without what the graph says of them, has their sizes.
        told = {value.name: value for value in proto.graph.output}
        del proto.graph.output[:]
        proto.graph.output.extend(onnx.helper.make_empty_tensor_value_info(n) for n in told)
        alone = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
        for value in alone.graph.output:
            known = told[value.name].type.tensor_type
            assert value.type.tensor_type.elem_type == known.elem_type
            sizes = [d.dim_value for d in value.type.tensor_type.shape.dim]
            assert len(sizes) == len(known.shape.dim)
            assert sizes[-1] == known.shape.dim[-1].dim_value
        assert len(inferred.graph.value_info) > 0


def written(model, path, **options):
    export.onnx(model, path, **options)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session, json.loads(session.get_modelmeta().custom_metadata_map["fastlstm"])


@pytest.mark.parametrize("lengths", [False, True])
def test_the_card_has_the_names_shapes_and_types_of_the_graph(lengths, tmp_path):
    model = Model((cases.affine(2), *onnx_files.chain("lstm", both=True).layers))
    session, about = written(model, tmp_path / "m.onnx", lengths=lengths)
    types = {"float32": "tensor(float)", "int32": "tensor(int32)"}
    for key, values in (("inputs", session.get_inputs()), ("outputs", session.get_outputs())):
        assert [(v.name, v.shape, v.type) for v in values] == [
            (entry["name"], entry["shape"], types[entry["dtype"]]) for entry in about[key]
        ]
        proto = onnx.load(tmp_path / "m.onnx").graph
        for value, entry in zip(getattr(proto, key[:-1]), about[key], strict=True):
            assert value.doc_string == entry["about"] != ""
    assert about["inputs"][2]["about"] == "state c of layer 1 (Bidirectional) at the start"
    assert (about["input_size"], about["output_size"]) == (2, 3)


def test_the_card_has_the_scaling_and_what_the_training_said(tmp_path):
    columns = {"input_columns": ["temperature"], "unit": "K", "series": "made for the tests"}
    model = Model(cases.model("scaled").layers, columns)
    _, about = written(model, tmp_path / "m.onnx")
    assert about["metadata"] == columns
    first = model.layers[0]
    assert about["scaling"] == {
        "input": {"scale": first.scale.tolist(), "shift": first.shift.tolist()},
        "output": {"scale": [15.0], "shift": [350.0]},
    }
    _, about = written(onnx_files.chain("gru"), tmp_path / "m.onnx")
    assert about["scaling"] == {"input": None, "output": None}
    _, about = written(Model((cases.affine(2),)), tmp_path / "m.onnx")
    assert about["scaling"]["input"]["scale"] == cases.affine(2).scale.tolist()
    assert about["scaling"]["output"] is None


def test_the_card_is_enough_to_check_the_file_and_run_it(tmp_path):
    model = Model((Affine(np.float32([2]), np.float32([1])), cases.recurrent("GRU", 1, 4)))
    session, about = written(model, tmp_path / "m.onnx", lengths=True)
    x = np.array([about["check_input"]], np.float32)
    given = {"x": x, "lengths": np.array([x.shape[1]])}
    given |= {s["input"]: np.array([s["initial"]]) for s in about["states"]}
    feed = {e["name"]: given[e["name"]].astype(e["dtype"]) for e in about["inputs"]}
    found = session.run([entry["name"] for entry in about["outputs"]], feed)
    np.testing.assert_allclose(found[0][0], about["check_output"], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(about["check_output"], reference.run(model, x[0]))


def test_who_made_the_file_and_how_to_use_it():
    proto = onnx_graph.build(onnx_files.chain("peephole", layers=1))
    assert (proto.producer_name, proto.domain) == ("fastlstm", "fastlstm")
    assert proto.producer_version == metadata.version("fastlstm")
    assert "LSTM(2, 9) -> Dense(9, 3)" in proto.doc_string
    assert "feed each output state" in proto.doc_string
    both = onnx_graph.build(onnx_files.chain("peephole", both=True))
    assert "whole sequences" in both.doc_string
    assert "carries no state" in onnx_graph.build(Model((cases.dense(2, 2),))).doc_string
