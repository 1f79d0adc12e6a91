"""The files of many variants of one model that differ in weights, scales and biases: converted once.

What TFLiteConverter makes of a variant depends on its nodes, its activation grids, its precisions and on which
biases are all zeros (it leaves some of those out), not on the integers of its weights, their scales or their bits:
the passes (`tfq.export.passes`) write all of these anew. So `finish` over one conversion gives, byte for byte, what
an export of each variant from scratch gives, in a few hundredths of a second instead of many seconds.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Hashable

from tfq.execution.views import Arrays
from tfq.export.convert import RepresentativeDataset, convert_quantized
from tfq.export.narrow import narrowed
from tfq.export.passes import finish
from tfq.models.graph import Node
from tfq.quantized_model import QuantizedModel
from tfq.simulate.weights import weight_integers

_KEPT = 4  # conversions; each is as large as the file
_REPRESENTATIVE = 16  # samples that TFLiteConverter is shown; every range is known already


class Exporter:
    """`tfq.export.package.export_quantized` for many variants; may be called from several threads.

    Args:
      representative: as in `convert_quantized`.
    """

    def __init__(self, representative: RepresentativeDataset):
        self._representative = representative
        self._converted: collections.OrderedDict[Hashable, bytes] = collections.OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def of(cls, samples: Arrays) -> Exporter:
        """`samples` [n, ...] by input name show TFLiteConverter what inputs look like."""
        count = min(len(next(iter(samples.values()))), _REPRESENTATIVE)
        return cls(lambda: ({name: values[i : i + 1] for name, values in samples.items()} for i in range(count)))

    def export(self, model: QuantizedModel) -> bytes:
        """The .tflite of the model, without metadata; errors as in `convert_quantized`."""
        return finish(self._conversion(model), model)

    def _conversion(self, model: QuantizedModel) -> bytes:
        key = _converters_view(narrowed(model))
        with self._lock:
            if key not in self._converted:
                self._converted[key] = convert_quantized(model, self._representative)
                if len(self._converted) > _KEPT:
                    self._converted.popitem(last=False)
            self._converted.move_to_end(key)
            return self._converted[key]


def _converters_view(model: QuantizedModel) -> Hashable:
    """Equal for models of which the converter makes the same but for what the passes write."""
    nodes = tuple((n.name, n.kind, repr(sorted(n.config.items())), n.inputs, n.activation) for n in model.nodes)
    layers = tuple((node.precision.arithmetic, _has_zero_bias(node)) for node in model.layers)
    edges = model.inputs, model.outputs, model.output_names, model.input_type, model.output_type
    return nodes, layers, tuple(model.grids.items()), edges


def _has_zero_bias(node: Node) -> bool:
    if "bias" in node.weight_grids:
        return not weight_integers(node)["bias"].any()
    return "bias" in node.weights and bool(node.weight_grids) and not node.weights["bias"].any()
