"""The quantised model: what its nodes carry, what graphs of one structure share, and how it is written down."""

import dataclasses
import pickle

import numpy as np
import operator_graphs
import pytest

from tfq.errors import UserError
from tfq.grid import activation_grid
from tfq.models.equality import tensor_shapes
from tfq.models.graph import Graph, Node, once_per_structure, share_structure
from tfq.models.grids import grid_groups
from tfq.models.rewrite import sole_readers
from tfq.models.widths import units
from tfq.precision import (
    ARITHMETICS,
    CANDIDATES,
    COARSE,
    FLOAT16,
    FLOAT32,
    FOR_DOWNLOADS,
    GRIDS,
    INT8,
    Precision,
    precision_of,
)
from tfq.quantized_model import QuantizedModel
from tfq.spec import Specification

FUNCTIONS = (tensor_shapes, grid_groups, sole_readers, units)


def small():
    """x [4] -> first [3], relu -> second [2]."""
    rng = np.random.default_rng(0)

    def dense(name, source, inputs, outputs):
        weights = {"kernel": rng.normal(size=(inputs, outputs)).astype(np.float32)}
        return Node(name, "Dense", {"units": outputs, "use_bias": False}, (source,), weights)

    nodes = (
        Node("x", "Input", {"shape": (4,), "dtype": "float32"}),
        dense("first", "x", 4, 3),
        Node("relu", "ReLU", {}, ("first",)),
        dense("second", "relu", 3, 2),
    )
    return Graph(nodes, ("x",), ("second",))


def test_a_graph_of_known_structure_goes_to_another_process():
    graph = small()
    known = [function(graph) for function in FUNCTIONS]
    again = pickle.loads(pickle.dumps(graph))
    assert [function(again) for function in FUNCTIONS] == known
    assert [(node.name, node.kind, node.inputs) for node in again.nodes] == Counted()(graph)
    np.testing.assert_array_equal(again["first"].weights["kernel"], graph["first"].weights["kernel"])


class Counted:
    """A function of a graph's structure that counts its calls."""

    def __init__(self):
        self.calls = 0
        self.__name__ = self.__qualname__ = "counted"

    def __call__(self, graph):
        self.calls += 1
        return [(node.name, node.kind, node.inputs) for node in graph.nodes]


@pytest.fixture
def counted():
    return Counted()


class TestStructure:
    def test_a_function_of_it_is_computed_once(self, counted):
        known, graph = once_per_structure(counted), small()
        first = known(graph)
        assert known(graph) is first
        other = graph.with_nodes(graph["first"].replace(weights={"kernel": np.zeros((4, 3), np.float32)}))
        assert known(other) is first
        assert counted.calls == 1
        assert known(small()) == first  # as like as can be, but made apart
        assert counted.calls == 2

    def test_what_a_later_graph_computed_an_earlier_one_knows(self, counted):
        known, graph = once_per_structure(counted), small()
        other = graph.with_nodes(graph["first"].replace(precision=INT8))
        assert known(other) is known(graph)
        assert counted.calls == 1

    def test_another_process_gets_the_graph_without_what_is_known_of_it(self, counted):
        known, graph = once_per_structure(counted), small()
        known(graph)
        assert "first" in graph.by_name
        other = pickle.loads(pickle.dumps(graph))
        assert set(vars(other)) == {field.name for field in dataclasses.fields(Graph)}
        assert [node.name for node in other.nodes] == [node.name for node in graph.nodes]

    def test_functions_do_not_get_each_others_results(self):
        graph = small()
        names, kinds = (once_per_structure(lambda g, x=x: [getattr(n, x) for n in g.nodes]) for x in ("name", "kind"))
        assert names(graph) == ["x", "first", "relu", "second"]
        assert kinds(graph) == ["Input", "Dense", "ReLU", "Dense"]

    @pytest.mark.parametrize(
        "changes",
        [
            {"weights": {"kernel": np.ones((4, 3), np.float32)}},
            {"activation": "relu"},
            {"origin": ("other",)},
            {"precision": FLOAT16, "reason": "chosen"},
            {"grid": activation_grid(0.5, 0)},
            {"weight_grids": {"kernel": activation_grid(0.5, 0)}},
        ],
        ids=lambda changes: next(iter(changes)),
    )
    def test_weights_and_what_was_decided_are_no_part_of_it(self, counted, changes):
        known, graph = once_per_structure(counted), small()
        changed = graph.with_nodes(graph["first"].replace(**changes))
        assert known(changed) is known(graph)
        for name, value in changes.items():
            assert getattr(changed["first"], name) is value

    @pytest.mark.parametrize(
        ("name", "changes"),
        [
            ("relu", {"kind": "Sigmoid"}),
            ("first", {"config": {"units": 3, "use_bias": True}}),
            ("second", {"inputs": ("first",)}),
            ("second", {"group": "first"}),
        ],
        ids=["kind", "config", "inputs", "group"],
    )
    def test_another_one_is_computed_anew(self, counted, name, changes):
        known, graph = once_per_structure(counted), small()
        before = known(graph)
        changed = graph.with_nodes(graph[name].replace(**changes))
        assert known(changed) is not before
        assert counted.calls == 2
        assert known(graph) is before

    def test_a_graph_of_other_names_inputs_or_outputs_or_length_shares_nothing(self, counted):
        known, fewer = once_per_structure(counted), small()
        graph = dataclasses.replace(fewer, nodes=(*fewer.nodes, Node("unread", "ReLU", {}, ("relu",))))
        others = [
            fewer,
            dataclasses.replace(graph, nodes=(*fewer.nodes, graph["unread"].replace(name="renamed"))),
            dataclasses.replace(graph, outputs=("relu",)),
            dataclasses.replace(graph, inputs=()),
        ]
        before = known(graph)
        for number, other in enumerate(others, start=2):
            assert known(share_structure(other, graph)) is not before
            assert counted.calls == number

    def test_a_widening_of_a_layer_changes_the_shapes(self):
        """A real function: what is known of the graph before must not answer for the one after."""
        graph = small()
        assert tensor_shapes(graph)["first"] == (3,)
        wide = graph["first"].replace(
            config={"units": 5, "use_bias": False}, weights={"kernel": np.ones((4, 5), np.float32)}
        )
        second = graph["second"].replace(weights={"kernel": np.ones((5, 2), np.float32)})
        assert tensor_shapes(graph.with_nodes(wide, second))["first"] == (5,)

    def test_a_layer_that_joins_another_is_of_its_unit(self):
        graph = small()
        assert [unit.nodes for unit in units(graph)] == [("first",), ("second",)]
        joined = graph.with_nodes(graph["second"].replace(group="first"))
        assert [unit.nodes for unit in units(joined)] == [("first", "second")]

    @pytest.mark.parametrize("name", operator_graphs.ALL)
    def test_a_quantised_model_knows_what_its_float_graph_knows(self, name):
        graph = operator_graphs.ALL[name]()
        model = operator_graphs.specified(graph, operator_graphs.draw(graph), Precision(weight_bits=4))
        apart = Graph(model.nodes, model.inputs, model.outputs, model.output_names)
        for function in FUNCTIONS:
            assert function(model) is function(graph)
            assert function(apart) == function(graph)


class TestNodes:
    def test_they_are_found_by_name(self):
        graph = small()
        assert graph["relu"] is graph.nodes[2]
        with pytest.raises(KeyError, match="dense"):
            graph["dense"]

    def test_with_nodes_replaces_those_of_the_same_names_and_keeps_the_rest(self):
        model = operator_graphs.case("convolutions", "uint8", "float32").model
        bare = model["stem"].replace(weight_grids={}, precision=FLOAT32, reason="a test")
        changed = model.with_nodes(bare)
        assert isinstance(changed, QuantizedModel)
        assert (changed.input_type, changed.output_type) == ("uint8", "float32")
        assert (changed.inputs, changed.outputs) == (model.inputs, model.outputs)
        assert changed.output_names == model.output_names
        assert changed["stem"] is bare
        assert model["stem"].weight_grids
        for before, after in zip(model.nodes, changed.nodes, strict=True):
            assert (after is before) == (before.name != "stem")

    def test_layers_are_all_nodes_but_the_inputs(self):
        model = operator_graphs.case("arithmetic").model
        assert [n.name for n in model.layers] == [n.name for n in model.nodes if n.name not in model.inputs]
        assert len(model.layers) == len(model.nodes) - 2

    def test_grids_are_those_of_the_outputs_that_have_one(self):
        model = operator_graphs.case("islands").model
        assert model.grids == {n.name: n.grid for n in model.nodes if n.grid is not None}
        assert 0 < len(model.grids) < len(model.nodes)
        assert all(model[name].grid is grid for name, grid in model.grids.items())

    def test_a_node_that_nobody_quantised_is_float_for_no_reason(self):
        node = small()["first"]
        assert (node.precision, node.reason, node.grid, node.weight_grids) == (FLOAT32, "", None, {})


class TestSpecification:
    @pytest.mark.parametrize("name", operator_graphs.ALL)
    def test_of_a_model_it_goes_through_json_and_back(self, name):
        graph = operator_graphs.ALL[name]()
        model = operator_graphs.specified(graph, operator_graphs.draw(graph), input_type="uint8")
        spec = Specification.of(model)
        assert Specification.from_json(spec.to_json()) == spec
        assert [layer.name for layer in spec.layers] == [node.name for node in model.layers]
        assert spec.activations == model.grids
        assert (spec.input_type, spec.output_type) == ("uint8", "int8")
        for layer in spec.layers:
            node = model[layer.name]
            assert layer.precision == node.precision.arithmetic
            assert layer.weights == node.weight_grids
            assert (layer.kind, layer.inputs, layer.output) == (node.kind, node.inputs, node.name)
            assert (layer.origin, layer.reason) == (node.origin, node.reason)

    def test_of_a_model_of_mixed_precisions(self):
        graph = operator_graphs.residual()
        precisions = {
            "stem": FLOAT16,
            "depthwise": FLOAT32,
            "branch": Precision(weight_bits=4, storage="packed"),
            "dense": Precision(entropy_bits=3),
        }
        model = operator_graphs.specified(graph, operator_graphs.draw(graph), precisions)
        spec = Specification.of(model)
        assert Specification.from_json(spec.to_json()) == spec
        found = {layer.name: layer for layer in spec.layers}
        assert {name: found[name].precision for name in precisions} == {
            "stem": "float16",
            "depthwise": "float32",
            "branch": "int8",
            "dense": "int8",
        }
        assert not found["stem"].weights
        assert found["stem"].reason.startswith("chosen")
        assert (found["branch"].weights["kernel"].bits, found["branch"].weights["kernel"].storage) == (4, "int4")
        assert found["dense"].weights["kernel"].entropy_bits == 3

    def test_codebooks_come_back(self):
        graph = operator_graphs.residual()
        spec = Specification.of(operator_graphs.specified(graph, operator_graphs.draw(graph), Precision(clusters=4)))
        assert Specification.from_json(spec.to_json()) == spec
        assert {len(layer.weights["kernel"].codebook) for layer in spec.layers if "kernel" in layer.weights} == {4}

    def test_a_float_layer_without_a_reason_is_refused(self):
        model = operator_graphs.case("convolutions").model
        bare = model["stem"].replace(precision=FLOAT16, weight_grids={})
        with pytest.raises(ValueError, match="layer 'stem' is float16 without a reason"):
            Specification.of(model.with_nodes(bare))


class TestPrecisions:
    def test_names_are_unique_and_lead_back_to_the_candidate(self):
        names = [precision.name for precision in CANDIDATES.values()]
        assert len(set(names)) == len(names)
        assert names == list(CANDIDATES)
        for precision in CANDIDATES.values():
            assert precision_of(precision.name) == precision

    def test_every_list_of_them_holds_candidates(self):
        assert {*GRIDS, *COARSE, *FOR_DOWNLOADS, FLOAT16, FLOAT32, INT8} <= set(CANDIDATES.values())

    @pytest.mark.parametrize(
        ("precision", "name"),
        [
            (Precision(), "w8"),
            (Precision(weight_bits=3), "w3"),
            (Precision(weight_bits=4, storage="packed"), "w4-packed"),
            (Precision(weight_bits=4, activation_bits=4), "w4a4"),
            (Precision(weight_bits=3, activation_bits=5), "w3a5"),
            (Precision("int16x8"), "w8a16"),
            (Precision("dynamic_range"), "d8"),
            (Precision(entropy_bits=3), "e3"),
            (Precision(clusters=16), "c16"),
            (FLOAT16, "float16"),
            (FLOAT32, "float32"),
        ],
    )
    def test_names_are_as_users_write_them(self, precision, name):
        assert precision.name == name

    def test_names_of_all_arithmetics_differ(self):
        assert len({Precision(arithmetic).name for arithmetic in ARITHMETICS}) == len(ARITHMETICS)

    @pytest.mark.parametrize("name", ["w9", "", "W8", "int8", "w4a8", "w5-packed"])
    def test_no_candidate_is_one_line_that_names_them_all(self, name):
        with pytest.raises(UserError) as caught:
            precision_of(name)
        assert str(caught.value) == f"{name!r} is no precision; it must be one of {', '.join(CANDIDATES)}"

    def test_an_unknown_arithmetic_is_refused(self):
        with pytest.raises(ValueError, match=r"arithmetic \(='int7'\) must be one of int8, float32"):
            Precision("int7")

    def test_what_they_say_of_themselves(self):
        assert [p.name for p in CANDIDATES.values() if not p.has_grid] == ["float16", "float32"]
        assert [p.name for p in CANDIDATES.values() if p.is_simulated] == ["w4a4"]
        dynamic = [f"d{bits}" for bits in range(2, 9)]
        assert [p.name for p in CANDIDATES.values() if p.is_dynamic] == dynamic
        for precision in CANDIDATES.values():
            assert precision.is_int8 + precision.is_int16 + precision.is_float == 1
        assert not any(Precision(a).is_int8 for a in ARITHMETICS if a != "int8")
        stored = {p.name: p.bits_stored for p in CANDIDATES.values()}
        assert stored["w3"] == stored["w3-packed"] == stored["e3"] == 3
        assert (stored["float16"], stored["float32"], stored["w8"], stored["w4a4"]) == (16, 32, 8, 4)
