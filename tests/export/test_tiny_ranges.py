"""Activations so small that the converter would widen their ranges: an untrained deep net has them."""

import numpy as np
import operator_graphs

from tfq.models.graph import INPUT
from tfq.verify.forced import observe, teacher_forced
from tfq.verify.parity import layer_parity
from tfq.verify.structure import verify_structure


def test_activations_of_any_size_keep_their_grids():
    graph = operator_graphs.convolutions()
    shrunk = []
    for node in graph.nodes:
        weights = dict(node.weights)
        if "bias" in weights:
            weights["bias"] = weights["bias"] * np.float32(1e-9)
        if node.name == "stem":
            weights["kernel"] = weights["kernel"] * np.float32(1e-9)
        shrunk.append(node.replace(weights=weights))
    case = operator_graphs.exported(graph.replace_nodes(shrunk))
    computed = [n.name for n in case.graph.nodes if n.kind not in (INPUT, "Softmax")]
    assert all(255 * case.model.grids[name].scale[0] < 1e-6 for name in computed)
    verify_structure(case.content, case.model)
    few = {name: array[:8] for name, array in case.samples.items()}
    observed = observe(case.content, case.model, few)
    forced = teacher_forced(case.model, observed, few)
    found = layer_parity(forced, observed)
    assert {p.name for p in found} >= set(computed) - {"flat"}
    assert max(p.max_steps for p in found) <= 1
    assert all(len(np.unique(observed[name])) > 20 for name in computed if name in observed)
