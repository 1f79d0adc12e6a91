"""Damaged and hostile .tflite files are refused in one line, before native code sees them."""

import pathlib
import subprocess
import sys

import fuzz_tflite
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tfq.errors import UserError
from tfq.execution.tflite import arena_bytes, parse_tflite, read_content
from tfq.export import flatbuffer

PROGRAM = pathlib.Path(fuzz_tflite.__file__)


def changed(content, change):
    """The file after a change to its objects."""
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    for holder, field in (
        (model.subgraphs[0].tensors[0], "shapeSignature"),
        (model.subgraphs[0].operators[0], "inputs"),
    ):
        setattr(holder, field, list(getattr(holder, field)))  # parsed arrays are views of the bytes
    change(model, model.subgraphs[0])
    return flatbuffer.serialize(model)


def refused(content, message):
    with pytest.raises(UserError, match=message) as told:
        parse_tflite(content, source="m.tflite")
    assert str(told.value).startswith("m.tflite is truncated or corrupt (")
    assert "\n" not in str(told.value)


def quantized(graph):
    return next(t for t in graph.tensors if t.quantization is not None and t.quantization.scale is not None)


def constant(model, graph):
    return next(i for i, t in enumerate(graph.tensors) if model.buffers[t.buffer].data is not None)


def per_channel(graph):
    scales = [(t, t.quantization and t.quantization.scale) for t in graph.tensors]
    return next(tensor for tensor, found in scales if found is not None and len(found) > 1)


def enlarged(tensor):
    tensor.shape, tensor.shapeSignature = [1, 2**15, 2**15, 4], None


CHANGES = {
    "names a buffer that is not there": lambda _, g: setattr(g.tensors[0], "buffer", 10**6),
    "is of no known type": lambda _, g: setattr(g.tensors[0], "type", 99),
    "has the shape": lambda _, g: setattr(g.tensors[0], "shape", [-5, 3]),
    "and the signature": lambda _, g: setattr(g.tensors[0], "shapeSignature", [-1]),
    "and the signature \\[-1, 9": lambda _, g: g.tensors[0].shapeSignature.__setitem__(1, 9),
    "lacks its inputs \\[1\\]": lambda _, g: g.operators[0].inputs.__setitem__(1, -1),
    "bytes, and its shape takes": lambda m, g: setattr(g.tensors[constant(m, g)], "shape", [2**20, 2**10]),
    "scales that are no numbers": lambda _, g: setattr(quantized(g).quantization, "scale", [float("nan")]),
    "zero-points": lambda _, g: setattr(quantized(g).quantization, "zeroPoint", [0] * 7),
    "a zero-point that its type does not hold": lambda _, g: setattr(quantized(g).quantization, "zeroPoint", [300]),
    "scales along axis": lambda _, g: setattr(per_channel(g).quantization, "quantizedDimension", 9),
    "no operator of the kind": lambda m, _: setattr(m.operatorCodes[0], "builtinCode", 2000),
    "is of no kind that the file names": lambda _, g: setattr(g.operators[0], "opcodeIndex", 77),
    "there is no tensor 5000": lambda _, g: setattr(g.operators[0], "inputs", [5000]),
    "there is no tensor -2": lambda _, g: setattr(g.operators[0], "inputs", [-2]),
    "has no outputs": lambda _, g: setattr(g.operators[0], "outputs", []),
    "reads what nothing has made": lambda _, g: g.operators.reverse(),
    "writes into a constant": lambda m, g: setattr(g.operators[-1], "outputs", [constant(m, g)]),
    "an output is made by nothing": lambda _, g: g.operators.pop(),
    "there is no buffer": lambda m, _: setattr(m.metadata[0], "buffer", 999),
    "a signature names a graph": lambda m, _: setattr(m.signatureDefs[0], "subgraphIndex", 3),
    "a signature names a tensor": lambda m, _: setattr(m.signatureDefs[0].inputs[0], "tensorIndex", 9999),
    "a run would take": lambda _, g: enlarged(g.tensors[g.operators[0].outputs[0]]),
}


@pytest.mark.parametrize("message", CHANGES)
def test_what_is_not_in_order_is_named(classifier, message):
    *_, content = classifier
    parse_tflite(changed(content, lambda *_: None))
    refused(changed(content, CHANGES[message]), message)


def test_graphs_that_call_each_other_in_a_circle(classifier):
    def loop(_, graph):
        call = schema.OperatorT()
        call.opcodeIndex, call.inputs, call.outputs = 0, [0], graph.operators[0].outputs
        call.builtinOptionsType, call.builtinOptions = schema.BuiltinOptions.WhileOptions, schema.WhileOptionsT()
        call.builtinOptions.bodySubgraphIndex = 0
        graph.operators = [call, *graph.operators]

    refused(changed(classifier[3], loop), "call each other in a circle|reads what nothing")


def test_a_table_that_is_referred_to_again_and_again_is_counted(classifier):
    """2,000 references to a graph of some 30 tables each are 60,000 tables; 100,000 references are too many."""

    def many(count):
        def change(model, graph):
            model.subgraphs = [graph]
            model.metadata = None

        plain = changed(classifier[3], change)
        # the vector of graphs, with one element, is put anew at the end of the file
        model = schema.Model.GetRootAs(plain)
        field = model._tab.Offset(8) + model._tab.Pos
        target = model._tab.Vector(model._tab.Offset(8))
        graph = target + int.from_bytes(plain[target : target + 4], "little")
        vector = np.arange(count, dtype=np.int64) * -4 + graph - len(plain) - 4
        found = bytearray(plain) + count.to_bytes(4, "little") + vector.astype("<i4").tobytes()
        found[field : field + 4] = (len(plain) - field).to_bytes(4, "little")
        return bytes(found)

    with pytest.raises(UserError, match="truncated or corrupt"):
        parse_tflite(many(100_000))


def test_the_arena_is_what_is_needed_at_once(classifier):
    _, _, floating, content = classifier
    for model in map(parse_tflite, (floating, content)):
        graph = model.subgraphs[0]
        sizes = [np.prod(t.shape) * (4 if t.type == 0 else 1) for t in graph.tensors]
        largest = max(sizes[o.outputs[0]] + sizes[o.inputs[0]] for o in graph.operators)
        assert largest <= arena_bytes(model) <= 1.5 * largest + 64


def test_not_a_regular_file():
    for path in ("/dev/zero", "/dev/null", "/"):
        with pytest.raises(UserError, match=r"it is a (device|directory), not a regular file"):
            read_content(pathlib.Path(path))
    with pytest.raises(UserError, match="cannot be read"):
        read_content(pathlib.Path("a\0b"))


def test_a_shape_that_is_left_out_is_a_scalars(classifier):
    content = changed(classifier[2], lambda _, g: [setattr(t, "shape", None) for t in g.tensors[-1:]])
    fuzz_tflite.inspected(content, classifier[2])


def fuzz(content, folder, last, *more):
    (folder / "model.tflite").write_bytes(content)
    command = [sys.executable, str(PROGRAM), str(folder / "model.tflite"), "0", str(last), *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seeds = done.stdout.split()
    assert done.returncode == 0, f"after seed {seeds[-1:]}: {done.stderr[-2000:]}"
    assert len(seeds) == last + 1
    assert int(seeds[-1]) < 2000


def test_damaged_files_are_errors_and_never_crashes(classifier, tmp_path):
    for seed in range(100):
        fuzz_tflite.inspected(fuzz_tflite.damaged(classifier[3], seed), classifier[3])
    fuzz(classifier[3], tmp_path, 100)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["float", "int8", "lstm", "mixed"])
def test_2000_damaged_files(classifier, lstm, batch_traps, tmp_path, kind):
    contents = {"float": classifier[2], "int8": classifier[3], "lstm": lstm[-1], "mixed": batch_traps["mixes samples"]}
    fuzz(contents[kind], tmp_path, 2000, "inspect")


def test_an_input_gate_is_whole_or_not_there(lstm):
    model = flatbuffer.parse(lstm[-1])
    operator = model.subgraphs[0].operators[0]
    operator.inputs = [-1 if place == 12 else index for place, index in enumerate(operator.inputs)]
    with pytest.raises(UserError, match=r"operator 0 has a part of the inputs \(1, 5, 12\)"):
        parse_tflite(flatbuffer.serialize(model))
