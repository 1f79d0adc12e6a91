"""The masks that Keras keeps beside tensors: what a layer gets of them, and what it hands on, as when the model runs.

A model records only those masks that a layer's arguments held when it was built. What stands inside a nested model, or
looks at its tensors itself as attention does, finds them in each run anew.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfq.models.calls import mapped
from tfq.models.carried import leaves
from tfq.models.flatten import Tensor
from tfq.models.refusals import NoRuleError

_MAKERS = ("Embedding", "Masking", "ReversibleEmbedding")
_ONLY_IN_TRAINING = ("BatchNormalization",)
_TRIED = 2  # samples
Compute = Callable[[Any, Callable[..., Any], "list[Any]"], Any]
"""Adds the nodes of a layer's function of these arguments, and returns its outputs."""


class Masks:
    """The masks of the tensors that a walk over a model has found.

    Args:
      by_argument: each argument of a layer may have its mask, as in Keras 3; else only the first has one.
      takes_away: layers after whose call the tensors that they read have none any more.
    """

    def __init__(self, *, by_argument: bool, takes_away: Sequence[str]):
        self._by_argument = by_argument
        self._takes_away = takes_away
        self._of: dict[Tensor, Tensor] = {}

    def beside(self, structure: Any) -> dict[Tensor, Tensor]:
        """The masks of the tensors of `structure`, by these."""
        return {x: self._of[x] for x in leaves(structure) if isinstance(x, Tensor) and x in self._of}

    def given(self, layer: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """`kwargs` with the masks that a layer is given where its caller names none."""
        kwargs = dict(kwargs)
        signature = inspect.signature(layer.call)
        if not self.beside([list(args), kwargs]) or not any("mask" in name for name in signature.parameters):
            return kwargs
        bound = signature.bind(*args, **kwargs).arguments
        read = {key: value for key, value in bound.items() if _holds_tensors(value)}
        if self._by_argument and len(read) > 1:
            wanted = {f"{key}_mask": value for key, value in read.items()}
        else:
            wanted = {"mask": next(iter(bound.values()))}
        for key, value in wanted.items():
            if key in signature.parameters and kwargs.get(key) is None and self.beside(value):
                kwargs[key] = self._masks(value)
        return kwargs

    def hand_on(
        self, compute: Compute, layer: Any, args: Sequence[Any], kwargs: Mapping[str, Any], results: Any
    ) -> None:
        """Note the masks of what a layer makes of its arguments."""
        first = args[0] if args else next(iter(kwargs.values()), None)
        previous = kwargs.get("mask")
        previous = self._masks(first) if previous is None else previous
        if any(isinstance(x, Tensor) for x in leaves(previous)) or _may_make(layer):
            with contextlib.suppress(NoRuleError):
                self._of |= self._made(compute, layer, first, previous, leaves(results))
        if type(layer).__name__ in self._takes_away:
            for read in self.beside([list(args), dict(kwargs)]):
                del self._of[read]

    def _masks(self, structure: Any) -> Any:
        return mapped(lambda x: self._of.get(x) if isinstance(x, Tensor) else None, structure)

    def _made(
        self, compute: Compute, layer: Any, first: Any, previous: Any, results: Sequence[Any]
    ) -> dict[Tensor, Tensor]:
        tried = {x: _example(x) for x in leaves([first, previous]) if isinstance(x, Tensor)}
        found = leaves(layer.compute_mask(*(mapped(lambda x: tried.get(x, x), part) for part in (first, previous))))
        masked = [x for x, mask in zip(results, found, strict=False) if mask is not None]
        found = [mask for mask in found if mask is not None]
        same = {id(value): x for x, value in tried.items()}
        if all(id(mask) in same for mask in found):
            return {x: same[id(mask)] for x, mask in zip(masked, found, strict=True)}

        def masks(*args: Any) -> list[Any]:
            return [mask for mask in leaves(layer.compute_mask(*args)) if mask is not None]

        return dict(zip(masked, leaves(compute(layer, masks, [first, previous])), strict=True))


def with_masks(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, called with its arguments behind the tensors that have masks, and these."""

    def called(tensors: Sequence[Any], masks: Sequence[Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        for tensor, mask in zip(tensors, masks, strict=True):
            tensor._keras_mask = mask  # where either Keras looks for it
        return function(*args, **kwargs)

    return called


def ignores_mask(layer: Any) -> bool:
    """Whether a layer computes the same with and without a mask, outside training."""
    kind = type(layer).__name__
    if kind == "TimeDistributed":
        return "mask" not in inspect.signature(layer.layer.call).parameters or ignores_mask(layer.layer)
    return kind in _ONLY_IN_TRAINING


def _holds_tensors(value: Any) -> bool:
    found = leaves(value)
    return any(isinstance(x, (Tensor, np.ndarray)) for x in found) and all(
        x is None or isinstance(x, (Tensor, np.ndarray)) for x in found
    )


def _may_make(layer: Any) -> bool:
    """Whether a layer may give masks to what has none."""
    own = type(layer).__module__.split(".")[0] in ("keras", "tf_keras")
    return type(layer).__name__ in _MAKERS if own else "compute_mask" in vars(type(layer))


def _example(x: Tensor) -> tf.Tensor:
    return tf.ones((_TRIED, *x.shape[1:]), x.dtype)
