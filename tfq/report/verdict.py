"""What a run came to, in one sentence: good, or not; why, and what to try.

    not known       float gives one class, or the same numbers, for all samples, finds nothing or gets nothing right, or
                    is no better than chance
    not usable      worse than float by more than 10 points; without points, under 80 % agreement; without classes,
                    under 6 dB
    less accurate   worse than float by more than 1 point; without points, under 95 % agreement; or a largest drop was
                    asked for and no model keeps it
    not known       it looks worse, and so few samples do not tell
    slower          more than float's time on this machine, where the model is made for one like it
    good            none of these

What is said of agreement and SQNR holds for every output but the first, and for parts of them whose channels differ
much in size, too. The whole 95 % interval must say that it is worse, or slower. Where float itself only guesses, by its
score or, without one, by its probabilities, the remedy is other data or another model: no option would help.
"""

from __future__ import annotations

from typing import Any

from tfq.evaluation.bootstrap import Estimate
from tfq.evaluation.evaluate import Evaluation, ModelEvaluation
from tfq.evaluation.metrics import METRICS
from tfq.execution.delegation import Delegation
from tfq.models.forms import FORMS
from tfq.quantized_model import QuantizedModel
from tfq.recipe import Recipe
from tfq.report.summary import interval, number
from tfq.report.words import channels, counted, operators
from tfq.targets import CPU

_UNUSABLE, _NOTED = (-10.0, 80.0, 6.0), (-1.0, 95.0, 0.0)  # points, agreement in %, SQNR in dB

_TOLD = ("FloatConcatenate", "FloatSigmoid", "FloatSoftmax")
_ENOUGH = 8  # samples: fewer may all be of one class
_GUESSED = 2.0  # a score or a mean of the largest probability is under so many times that of chance
_FEW_CLASSES = 4  # so few are told apart by chance too often to say that


def verdict(evaluation: Evaluation, recipe: Recipe, *, attained: bool = True) -> str:
    """The sentence, of the last model against the first; options in backquotes.

    attained: the largest drop that was asked for, if any, is kept.
    """
    baseline, model = evaluation.models[0], evaluation.models[-1]
    accuracy, latency = _accuracy(evaluation), model.latency
    decisions = evaluation.decisions
    if evaluation.constant and evaluation.samples >= _ENOUGH:
        return (
            f"Not known: float gives the same numbers for all {evaluation.samples} samples in"
            f" {', '.join(map(repr, evaluation.constant))}, so nothing shows what was lost; check the samples and the"
            " weights of the model."
        )
    if decisions is not None and decisions.given == 1 and evaluation.samples >= _ENOUGH:
        return (
            f"Not known: float gives one of its {decisions.classes:,} classes for all {evaluation.samples} samples, so"
            " nothing shows what was lost; check the samples and their `preprocess`, or, if the outputs are no classes,"
            " choose another `metric`."
        )
    if _finds_nothing(evaluation) and evaluation.samples >= _ENOUGH:
        return f"Not known: {_nothing(evaluation)}."
    if _worse(model, *_UNUSABLE):
        return f"Not usable: {accuracy}; {_guess(evaluation) or _more_accurate(recipe)}."
    if _worse(model, *_NOTED):
        return f"Less accurate than float: {accuracy}; {_guess(evaluation) or _more_accurate(recipe)}."
    if _by_chance(evaluation):
        return f"Not known: {_guess(evaluation)}."
    if not attained:
        return (
            f"Less accurate than asked for: {accuracy}; no model of these precisions keeps"
            f" `max_accuracy_drop={recipe.max_accuracy_drop}` on the calibration samples; offer more bits or float"
            " layers (`candidates`)."
        )
    if evaluation.samples < _ENOUGH and _worse(model, *_NOTED, surely=False):
        return f"Not known: {accuracy}, which {counted(evaluation.samples, 'sample')} cannot tell; give more samples."
    on_cpu = recipe.target == CPU.name
    if latency is not None and (on_cpu or _runs_better_on_cpu(model.delegation)) and (latency.ratio.low or 0.0) > 1:
        times = f"{interval(latency.ratio)} its time on this CPU"
        return f"Slower than float: {times}; {_faster(model.delegation, recipe)}."
    found = [accuracy]
    if baseline.size is not None and model.size is not None:
        found.append(f"download {model.size.download_bytes / baseline.size.download_bytes:.2f}x")
    if latency is not None and on_cpu:
        found.append(_speed(latency.ratio))
    return f"Good: {', '.join(found)}."


def float_outputs(model: QuantizedModel) -> tuple[str, ...]:
    """Warnings about outputs that are float32 where integers were asked for; the preparation told of _TOLD itself."""
    if model.output_type == "float32":
        return ()
    return tuple(
        f"the output {label!r} is float32, and not {model.output_type} as `output_type` says;"
        f" {model[name].origin[-1]!r} gives it: {model[name].reason}"
        for label, name in zip(model.output_names, model.outputs, strict=True)
        if name not in model.grids and model[name].kind not in _TOLD
    )


def _worse(model: ModelEvaluation, points: float, agreement: float, sqnr: float, *, surely: bool = True) -> bool:
    """Whether it is worse than these. surely: the whole interval says so."""
    difference = model.difference
    if difference is not None and difference.unit == "points":
        return (difference.value or 0.0) < points and (not surely or (difference.high or 0.0) < 0)
    found = [(model.agreement, agreement) if model.agreement is not None else (model.sqnr, sqnr)]
    if model.difference is None:
        found += [(other, sqnr) for other in (*model.other_sqnr, *(part.sqnr for part in model.parts))]
    ends = [(f.high if surely else f.value, least) for f, least in found if f is not None]
    return any(end is not None and end < least for end, least in ends)


def _accuracy(evaluation: Evaluation) -> str:
    """The measure of the first output, and the output or part of one that loses most where there are several."""
    model, names = evaluation.models[-1], evaluation.outputs
    found = {repr(name): sqnr for name, sqnr in zip(names[1:], model.other_sqnr, strict=False)}
    found |= {f"{names[part.output]!r}, {channels(part.channels)}": part.sqnr for part in model.parts}
    values = {name: sqnr.value for name, sqnr in found.items() if sqnr.value is not None}
    if not values:
        return _of_first(model)
    worst = min(values, key=lambda name: values[name])
    return f"{_of_first(model)}, least {number(found[worst], 1)} in {worst}"


def _of_first(model: ModelEvaluation) -> str:
    if model.difference is not None and model.difference.unit == "points":
        return interval(model.difference, sign="+")
    if model.agreement is not None:
        return f"{number(model.agreement, 1)} agreement with float"
    return f"output SQNR {number(model.sqnr, 1)}" if number(model.sqnr) else "outputs equal to float's"


def _speed(ratio: Estimate) -> str:
    if ratio.value is None or (ratio.high or 1.0) >= 1:
        return "as fast as float on this CPU"
    return f"{1 / ratio.value:.1f} times as fast as float on this CPU (a phone differs: tfq-bench)"


def _finds_nothing(evaluation: Evaluation) -> bool:
    """Whether float itself has a score of 0 %."""
    score = evaluation.models[0].score
    return score is not None and score.unit == "%" and score.value == 0


def _nothing(evaluation: Evaluation) -> str:
    """What to look at where float itself has a score of 0 %."""
    metric, score = METRICS.get(evaluation.metric), number(evaluation.models[0].score)
    if metric is not None and metric.reads_boxes:
        what, check = "finds nothing", "that `decoder`, `outputs`, `preprocess` and `annotations` fit the model"
    else:
        what, check = "gets nothing right", "the labels, their order, and the `preprocess` of the samples"
    return f"float itself {what}: its {evaluation.metric} is {score}, so nothing shows what was lost; check {check}"


def _guess(evaluation: Evaluation) -> str:
    """That float itself only guesses, and why; "" where it does not."""
    decisions, score = evaluation.decisions, evaluation.models[0].score
    if decisions is None or decisions.classes <= _FEW_CLASSES:
        return ""
    what, check = "", "weights and data"
    if _by_chance(evaluation):
        what, check = (
            f"{number(score)} of its classes are right",
            "weights, its `preprocess`, and the order of the labels",
        )
    elif score is None and decisions.certainty is not None and decisions.certainty < _GUESSED / decisions.classes:
        what = f"its largest probability is {100 * decisions.certainty:.2g} % on average"
    return what and f"float itself only guesses: {what}, of {decisions.classes:,} classes; check its {check}"


def _by_chance(evaluation: Evaluation) -> bool:
    """Whether the score of float is that of guesses."""
    decisions, score = evaluation.decisions, evaluation.models[0].score
    if decisions is None or decisions.classes <= _FEW_CLASSES or evaluation.metric != "top1" or score is None:
        return False
    return (score.value or 0.0) < 100 * _GUESSED / decisions.classes


def more_accurate(recipe: Recipe) -> dict[str, Any]:
    """The option to change next for accuracy; none where there is no better one."""
    if not recipe.may_be_static:
        if recipe.precision == "dynamic_range" and recipe.weight_bits < 8:
            return {"weight_bits": 8} if recipe.pipeline == "advanced" else {"pipeline": "advanced"}
        others = {"int16x8": "float16", "dynamic_range": "float16", "float16": "float32"}
        return {"precision": others[recipe.precision]} if recipe.precision in others else {}
    if not recipe.per_channel:
        return {"per_channel": True}
    if recipe.pipeline != "advanced":
        return {"pipeline": "advanced"}
    if recipe.activation_bits < 8:
        return {"activation_bits": 8}
    if recipe.weight_clusters:
        return {"weight_clusters": 0}
    return {"weight_bits": 8} if recipe.weight_bits < 8 else {"precision": "dynamic_range"}


def _more_accurate(recipe: Recipe) -> str:
    for name, value in more_accurate(recipe).items():
        return f"try `{name}={value!r}`"
    return "that is a defect"


def _runs_better_on_cpu(delegation: Delegation | None) -> bool:
    """Whether operations outside XNNPACK have a form that runs in it."""
    written = {form.operator for form in FORMS.values() if form.dtype == "int8"}
    return delegation is not None and not written.isdisjoint(delegation.outside)


def _faster(delegation: Delegation | None, recipe: Recipe) -> str:
    if delegation is None or not delegation.outside:
        return "all operations run in XNNPACK; measure on your phone with tfq-bench"
    count = sum(delegation.outside.values())
    cause = f"{operators(delegation.outside)} {'runs' if count == 1 else 'run'} outside XNNPACK"
    if recipe.target != CPU.name:
        return f"{cause}; `target='cpu'` writes what it can in operations that run in it"
    return f"{cause}; measure on your phone with tfq-bench"
