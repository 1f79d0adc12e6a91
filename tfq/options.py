"""Which option acts under which others: the one place that says so.

An option that is given and does nothing is refused, because whoever gave it expects something of it. Given is what
differs from its default. What only repeats what happens anyhow, such as `equalization='none'` of a float model, is no
contradiction and stays allowed.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from tfq.errors import UserError

if TYPE_CHECKING:
    from tfq.recipe import Recipe

_MOST_PACKED_BITS = 4  # of an INT4 tensor
SYNTHETIC = "synthetic"  # of `calibration_data`: made from the model
APPENDABLE = ("ssd", "yolo", "yolov8")
"""Decoders whose boxes TFLite's operator finds; a test compares them with the decoders."""
NEED_LABELS = (  # but top1, the default; a test compares them with the metrics
    *("top5", "auc", "f1", "matthews", "token_accuracy", "exact_match", "map", "ap50", "miou", "pixel_accuracy"),
    *("pck", "pearson", "spearman", "recall1", "recall5", "eer"),
)


@dataclasses.dataclass(frozen=True)
class Rule:
    """Options that act only under a condition.

    Attributes:
      options: names of fields of a Recipe.
      acts: whether they do, in this recipe.
      instead: what is so that they do not, with the recipe's fields in braces, and what to do.
      repeats: values that say what happens anyhow.
    """

    options: tuple[str, ...]
    acts: Callable[[Recipe], bool]
    instead: str
    repeats: tuple[Any, ...] = ()


def _is_int8(recipe: Recipe) -> bool:
    return recipe.may_be_static


def _fits(recipe: Recipe) -> bool:
    return recipe.fits


def _reconstructs(recipe: Recipe) -> bool:
    return recipe.pipeline != "int8" and (recipe.reconstruction_method != "none" or recipe.allocates)


def _scores(recipe: Recipe) -> bool:
    """The metric judges something against labels, or against what the float model gives."""
    return bool(recipe.evaluation_data) or recipe.max_accuracy_drop is not None


_CONVERTERS = "`precision` is {precision}, whose export is TFLiteConverter's own; leave one of the two out"
_PRECISION = "`precision` is {precision}; only `precision='int8'` has this option, leave one of the two out"

RULES = (
    Rule(("weight_bits", "first_last_bits", "mode", "granularity", "workers"), _fits, _CONVERTERS),
    Rule(
        ("per_channel", "calibration_method", "range_tuning", "storage", "equalization"),
        _is_int8,
        _PRECISION,
        repeats=("none",),
    ),
    Rule(("weight_clusters",), _is_int8, _PRECISION),
    Rule(("target",), _is_int8, _PRECISION),
    Rule(("input_type", "output_type"), _is_int8, _PRECISION, repeats=("float32",)),
    Rule(
        ("mode", "granularity", "workers"),
        lambda recipe: recipe.pipeline != "int8",
        "no layer is reconstructed; add `pipeline='advanced'`, or leave it out",
    ),
    Rule(
        ("mode", "granularity", "workers"),
        _reconstructs,
        "`reconstruction` is {reconstruction}, so that no layer is reconstructed; leave one of the two out",
    ),
    Rule(
        ("granularity",),
        lambda recipe: recipe.mode == "sequential" or recipe.pipeline == "advanced" or recipe.allocates,
        "`mode` is parallel, where every layer is fitted to its own output; leave one of the two out",
    ),
    Rule(
        ("network_tuning",),
        lambda recipe: recipe.pipeline == "advanced",
        "`pipeline` is {pipeline}, which has no network tuning; add `pipeline='advanced'`, or leave it out",
        repeats=("none",),
    ),
    Rule(("distill", "distillation_data"), _is_int8, _PRECISION),
    Rule(
        ("distill", "distillation_data"),
        lambda recipe: recipe.pipeline != "int8",
        "`pipeline` is int8, whose weights are only rounded; add `pipeline='light'` or leave it out",
    ),
    Rule(
        ("distillation_steps",),
        lambda recipe: recipe.distills,
        "nothing is distilled; add `distillation_data` or `distill`, or leave it out",
    ),
    Rule(
        ("first_last_bits",),
        lambda recipe: recipe.weight_bits < 8 or recipe.activation_bits < 8 or recipe.weight_clusters > 0,
        "all layers have 8 bits; add `weight_bits`, or leave it out",
    ),
    Rule(
        ("storage",),
        lambda recipe: not recipe.weight_clusters,
        "`weight_clusters` is {weight_clusters}, which are integers of 8 bits; leave one of the two out",
        repeats=("int8",),
    ),
    Rule(
        ("storage",),
        lambda recipe: recipe.allocates or recipe.weight_bits <= _MOST_PACKED_BITS,
        ("`weight_bits` is {weight_bits}; only 4 bits and fewer can be packed, add `weight_bits=4` or leave it out"),
        repeats=("int8",),
    ),
    Rule(
        ("storage",),
        lambda recipe: not (recipe.allocates and recipe.candidates),
        (
            "`candidates` are given, which say their storage themselves; name them as w4-packed, or leave one of the"
            " two out"
        ),
    ),
    Rule(
        ("objective",),
        lambda recipe: recipe.max_accuracy_drop is not None,
        "no `max_accuracy_drop` is given, whose goal it names; add `max_accuracy_drop`, or leave `objective` out",
    ),
    Rule(
        ("selection",),
        lambda recipe: recipe.calibration_data != SYNTHETIC,
        "calibration data is made from the model, so there is nothing to select from; leave one of the two out",
    ),
    Rule(
        ("sensitivity",),
        lambda recipe: recipe.allocates,
        (
            "no budget is given; add `max_accuracy_drop`, `size_budget`, `latency_budget` or"
            " `compute_budget`, or leave `sensitivity` out"
        ),
    ),
    Rule(
        ("metric",),
        lambda recipe: recipe.metric not in NEED_LABELS or _scores(recipe),
        "no `evaluation` is given, so there are no labels; add `evaluation`, or leave `metric` out",
    ),
    Rule(
        ("decoder",),
        lambda recipe: _scores(recipe) or recipe.appends_nms,
        "nothing is scored; add `evaluation` or `max_accuracy_drop`, or leave `decoder` out",
    ),
    Rule(
        ("model_card", "model_explorer"),
        lambda recipe: not recipe.simulated,
        "the model is simulated only, so there is no file that it could describe; leave it out",
    ),
    Rule(
        ("nms",),
        lambda recipe: not recipe.simulated,
        "the model is simulated only, so there is no file that it could be appended to; leave it out",
    ),
    Rule(
        ("nms",),
        lambda recipe: recipe.decoder.split(",")[0] in APPENDABLE,
        f"`decoder` is {{decoder!r}}; TFLite's operator finds the boxes of {', '.join(APPENDABLE)}, give one of them or"
        " leave `nms` out",
    ),
    Rule(
        ("annotations",),
        lambda recipe: bool(recipe.evaluation_data),
        "no `evaluation` is given, whose images they are of; add it, or leave `annotations` out",
    ),
)


def check_options(recipe: Recipe, defaults: Mapping[str, Any]) -> None:
    """Raises UserError for the first option that is given and does nothing.

    Args:
      recipe: what is wanted.
      defaults: of every field.
    """
    for rule in RULES:
        for option in rule.options:
            value = getattr(recipe, option)
            if value != defaults[option] and value not in rule.repeats and not rule.acts(recipe):
                written = str(value).lower() if isinstance(value, bool) else value
                raise UserError(f"`{option}` is {written} and {rule.instead.format(**vars(recipe))}")


def needs_int8(recipe: Recipe) -> bool:
    """Whether an option is given that static int8 alone has."""
    defaults = {field.name: field.default for field in dataclasses.fields(recipe)}
    rules = [rule for rule in RULES if rule.acts is _is_int8]
    given = (
        option
        for rule in rules
        for option in rule.options
        if getattr(recipe, option) not in (defaults[option], *rule.repeats)
    )
    of_static = bool(recipe.latency_table) or any(not precision.is_dynamic for precision in recipe.named_precisions)
    return of_static or recipe.activation_bits != defaults["activation_bits"] or any(given)


def check_journal_acts(recipe: Recipe) -> None:
    """Raises UserError where a journal is given and nothing would be written to it."""
    if not recipe.allocates:
        raise UserError("`journal` is given without a budget, for which layers are measured; add one, or leave it out")
    if recipe.sensitivity != "measured":
        raise UserError(
            f"`journal` is given and `sensitivity` is {recipe.sensitivity}, which measures nothing; leave one out"
        )


def check_engine_acts(recipe: Recipe) -> None:
    """Raises UserError where an executor, or an engine, is given and nothing would be handed to it."""
    if not recipe.allocates and (not _reconstructs(recipe) or recipe.mode == "sequential"):
        raise UserError(
            "`engine` or an executor is given and no layers are worked on apart; add `mode='parallel'` with"
            " `pipeline='advanced'`, or a budget, or leave it out"
        )


def check_written(write: Collection[str], most: int) -> None:
    """Raises UserError where `write` names no points of a frontier of so many at the most."""
    for name in (write,) if isinstance(write, str) else write:
        found = re.fullmatch(r"all|point[_ ]([1-9]\d*)", str(name))
        if not found or isinstance(write, str):
            raise UserError(f"`write` names {name!r}; expected a list of points such as point_3, or of all")
        if found[1] and int(found[1]) > most:
            raise UserError(f"`write` names {name!r}, and there are {most} points at the most; name one of these")


def check_names(given: Iterable[str], known: Collection[str]) -> None:
    """Raises UserError for a name that is no option, with the nearest one that is."""
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise UserError(f"there is no option {name!r}" + "".join(f"; did you mean `{other}`?" for other in near))
