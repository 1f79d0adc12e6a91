"""MODEL_CARD.md: what the Hugging Face Hub shows of a model, as README.md of its repository.

YAML between two lines of `---` tells the Hub how to file the model (its "Model Cards" page and model-index of
modelcard.md); Markdown follows, for people. Only what was measured is said. What tfq cannot know, such as licence,
training data and intended use, is left to the author and named.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from tfq.report import words
from tfq.report.cards import cards
from tfq.report.estimates import interval, number

_TASKS = {"map": "object-detection", "ap50": "object-detection", "miou": "image-segmentation"}
_TASKS |= {"pixel_accuracy": "image-segmentation"}
_CLASSIFIES = ("top1", "top5")
_METRICS = {"top1": "accuracy"}  # the Hub's word
_AUTHOR = (
    "- the licence, as `license:` above\n"
    "- the model that this one was made from, as `base_model:` above\n"
    "- the training data, what the model is meant for, and what it must not be used for"
)


def model_card(report: Mapping[str, Any], how: str) -> str:
    """The card of a run.

    Args:
      report: a report.json, parsed, of a run that gave a file.
      how: its HOWTO.md.
    """
    recipe, evaluation = report["recipe"], report["evaluation"]
    float_model, model = evaluation["models"][0], evaluation["models"][-1]
    task = _TASKS.get(evaluation["metric"], "")
    if evaluation["metric"] in _CLASSIFIES and "| image, " in how:
        task = "image-classification"
    shown = _name(report)
    figures = "\n".join(f"| {card.label} | {card.value} | {card.note} |" for card in cards(report))
    parts = [
        f"# {shown}\n\nMade from {shown} ({report['model']['framework']}) by tfq {report['version']}, {_how(recipe)}:"
        f" {model['name']}, for TensorFlow Lite and LiteRT.",
        f"## Measured\n\n| | | |\n|---|---|---|\n{figures}",
        _accuracy(evaluation, float_model, model),
        f"## Limits\n\n{_limits(report)}",
        f"## For the author to add\n\n{_AUTHOR}",
        "#" + how.strip().replace("\n## ", "\n### "),
    ]
    front = _front(task, shown, PurePath(recipe["evaluation_data"]).name, evaluation, model)
    return f"---\n{front}\n---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def _how(recipe: Mapping[str, Any]) -> str:
    distilled = recipe["distill"] or recipe["distillation_data"]
    return "distilled from the float model without labels" if distilled else "without training"


def _name(report: Mapping[str, Any]) -> str:
    return " ".join(str(report["model"]["name"]).split())


def _front(task: str, name: str, data: str, evaluation: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    """The YAML; its scalars are written as JSON, which is YAML too."""
    lines = ["library_name: tflite", "tags:", *(f"- {tag}" for tag in ("tflite", "litert", "quantized", "tfq"))]
    if task:
        lines.append(f"pipeline_tag: {task}")
    if task and data and model["score"] is not None:
        metric = evaluation["metric"]
        lines += [
            "model-index:",
            f"- name: {json.dumps(name)}",
            "  results:",
            f"  - task:\n      type: {task}",
            f"    dataset:\n      name: {json.dumps(data)}\n      type: {json.dumps(data)}",
            f"    metrics:\n    - type: {_METRICS.get(metric, metric)}\n      value: {model['score']['value']:.4f}",
        ]
    return "\n".join(lines)


def _accuracy(evaluation: Mapping[str, Any], float_model: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    if model["difference"] is None:
        return ""
    return (
        f"Both models were run on the same {words.counted(evaluation['samples'], 'sample')}: {evaluation['metric']} is"
        f" {number(float_model['score'])} in float and {number(model['score'])} here, a difference of"
        f" {interval(model['difference'], sign='+')} (95 % interval, paired bootstrap)."
    )


def _limits(report: Mapping[str, Any]) -> str:
    evaluation, latency = report["evaluation"], report["evaluation"]["models"][-1]["latency"]
    floating = sum(layer["precision"].startswith("float") for layer in report["layers"])
    seen = words.fitted_to(report["calibration_samples"], report["distillation_samples"])
    limits = [
        f"It was fitted to {seen}, and judged by"
        f" {words.counted(evaluation['samples'], 'sample')}. On data of another kind it may lose more.",
    ]
    if latency is not None:
        limits.append(
            f"Times are those of {report['machine']['cpu']} with {report['machine']['runtime']},"
            f" {words.counted(latency['threads'], 'thread')}. On other processors they differ, and so may the ratio."
        )
    if floating:
        limits.append(f"{words.counted(floating, 'layer')} of {len(report['layers'])} compute in float.")
    if evaluation["omitted"]:
        limits.append(f"There is no score: {evaluation['omitted']}.")
    limits.append("Whatever the float model gets wrong, and whomever it treats unfairly, this one does too.")
    return "\n".join(f"- {limit}" for limit in limits)
