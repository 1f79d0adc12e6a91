"""The files of many versions of one model that differ in weights, scales and biases: converted once.

What TFLiteConverter makes of a version depends on its nodes, its activation grids, its precisions and on which
biases are all zeros (it leaves some of those out), not on the integers of its weights, their scales or their bits:
the passes (`tfq.export.passes`) write all of these anew. So `finish` over one conversion gives, byte for byte, what
an export of each version from scratch gives, in a few hundredths of a second instead of many seconds.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Hashable

from tfq.export.convert import RepresentativeDataset, convert_quantized
from tfq.export.passes import finish
from tfq.models.graph import Graph
from tfq.simulate.weights import weight_integers
from tfq.spec import QuantizationSpec

_KEPT = 4  # conversions; each is as large as the file


class Exporter:
    """`tfq.export.package.export_quantized` for many versions; may be called from several threads.

    Args:
      representative: as in `convert_quantized`.
    """

    def __init__(self, representative: RepresentativeDataset):
        self._representative = representative
        self._converted: collections.OrderedDict[Hashable, bytes] = collections.OrderedDict()
        self._lock = threading.Lock()

    def export(self, graph: Graph, spec: QuantizationSpec) -> bytes:
        """The .tflite of the specification, without metadata; errors as in `convert_quantized`."""
        return finish(self._conversion(graph, spec), graph, spec)

    def _conversion(self, graph: Graph, spec: QuantizationSpec) -> bytes:
        key = _converters_view(graph, spec)
        with self._lock:
            if key not in self._converted:
                self._converted[key] = convert_quantized(graph, spec, self._representative)
                if len(self._converted) > _KEPT:
                    self._converted.popitem(last=False)
            self._converted.move_to_end(key)
            return self._converted[key]


def _converters_view(graph: Graph, spec: QuantizationSpec) -> Hashable:
    """Equal for versions of which the converter makes the same but for what the passes write."""
    nodes = tuple((n.name, n.kind, repr(sorted(n.config.items())), n.inputs, n.activation) for n in graph.nodes)
    layers = tuple((layer.name, layer.precision, _has_zero_bias(graph, spec, layer.name)) for layer in spec.layers)
    edges = graph.inputs, graph.outputs, graph.output_names, spec.input_type, spec.output_type
    return nodes, layers, tuple(spec.activations.items()), edges


def _has_zero_bias(graph: Graph, spec: QuantizationSpec, name: str) -> bool:
    layer = spec[name]
    return "bias" in layer.weights and not weight_integers(graph[name], layer)["bias"].any()
