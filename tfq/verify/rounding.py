"""By how many steps of its output's grid the kernel of a layer may be off, as rounding and approximation explain it.

    3/4     half a step, and a quarter where a kernel rounds twice
    2 1/4   of means (1.2 on x86) and of functions (0.6), which approximate; 1 1/2 of resized images

On int16 kernels multiply by a factor of 16 bits, which is half a step more; functions are tables with straight lines
between their entries: found with LiteRT 2.3 were 1.3 steps for a sigmoid and 3 for tanh. The softmax takes e^-10 for
all that is less, so its error grows with the number of elements, by two steps each.
"""

from __future__ import annotations

from collections.abc import Sequence

from tfq.models.graph import Node

_STEPS = 0.76
_MEANS, _FUNCTIONS = ("Mean", "GlobalAveragePooling2D"), ("Softmax", "HardSwish", "Gelu", "Sigmoid", "Tanh")
_RESIZES, _PLACES_OF_A_PIXEL, _LEVELS = ("Resizing", "UpSampling2D"), 1024, 255
_STEPS_OF = dict.fromkeys((*_MEANS, *_FUNCTIONS), 2.25) | dict.fromkeys(_RESIZES, 1.5)
_WIDE_STEPS, _WIDE_STEPS_OF, _WIDE_STEPS_OF_AN_ELEMENT = 1.26, {"Sigmoid": 2.0, "Tanh": 4.0}, 2.0


def explained(node: Node, sources: Sequence[tuple[int, ...]], target: tuple[int, ...], *, wide: bool) -> float:
    """Steps that the kernel of a node may be off.

    The kernel that resizes an image rounds the ratio of the sizes to 1/1024: the place where it reads is off by more
    with every pixel, of neighbours that may be a whole grid apart (TFLite's `ResizeBilinearInteger`).

    Args:
      node: the layer.
      sources, target: shapes of what it reads and gives.
      wide: its output is int16.
    """
    if wide:
        if node.kind == "Softmax":
            return _WIDE_STEPS_OF_AN_ELEMENT * (1 + target[-1])
        return _WIDE_STEPS_OF.get(node.kind, _WIDE_STEPS)
    most = _STEPS_OF.get(node.kind, _STEPS)
    if node.kind not in _RESIZES or [len(shape) for shape in sources] != [4]:
        return most
    corners = node.config.get("aligned") == "corners"
    for size, wanted in zip(sources[0][1:3], target[1:3], strict=True):
        ratio = (size - corners) / max(wanted - corners, 1)
        most += _LEVELS * wanted * abs(round(ratio * _PLACES_OF_A_PIXEL) / _PLACES_OF_A_PIXEL - ratio)
    return most
