"""Which samples every stop of a real run reads, and how often the float model runs for the judges."""

import collections
import contextlib
import dataclasses
import pathlib
import sys

import numpy as np
import pytest

from tfq.data.roles import Roles
from tfq.execution.views import View
from tfq.pipeline import quantize
from tfq.quantized_model import QuantizedModel
from tfq.recipe import Recipe
from tfq.simulate import judge

DEMO = pathlib.Path(__file__).resolve().parents[1] / "demo"
COUNT = 64
RECIPE = Recipe(
    model=str(DEMO / "digits.keras"),
    calibration_data=str(DEMO / "calibration.npz"),
    preprocess="raw",
    num_calibration_samples=COUNT,
    weight_bits=4,
)
SEEN, TAKING_PART = {"fit", "choose"}, {"fit", "choose", "judge"}
# Function that reads samples -> the roles that it may read.
STOPS = {
    "tfq.pipeline.begin._by_role": {"report"},  # sets them apart
    "tfq.pipeline.begin.begin": TAKING_PART,  # whether the prepared model equals the given one
    "tfq.pipeline.quantized.quantized": TAKING_PART,  # ranges, whose trials are made without the judges
    "tfq.pipeline.quantized.recalibrated": SEEN,
    "tfq.simulate.judge._floats": {"judge"},
    "tfq.simulate.judge.divergence": {"judge"},
    "tfq.reconstruction.channel_statistics.channel_statistics": SEEN,
    "tfq.reconstruction.range_tuning.tune_ranges": TAKING_PART,  # the trials are made without the judges
    "tfq.reconstruction.bias_correction.correct_biases": {"fit"},
    "tfq.reconstruction.rows.collect_float_rows": SEEN,
    "tfq.reconstruction.reconstruct.solved_in_turn": SEEN,
    "tfq.reconstruction.batch_norm._measure": SEEN,
    "tfq.reconstruction.network_tuning._mixtures": {"fit"},
    "tfq.reconstruction.network_tuning.chosen_by": {"choose"},
    "tfq.allocation.sensitivity.of": TAKING_PART,  # the float outputs of all, which others compare with
    "tfq.allocation.sensitivity._loss_with": {"choose"},
    "tfq.allocation.fisher.gradient_estimates": {"choose"},
    "tfq.export.variants.export": TAKING_PART,  # TFLiteConverter is shown some
    "tfq.allocation.survey.survey": {"judge"},
    "tfq.allocation.survey.measure": {"judge"},
    "tfq.pipeline.road.quantize": TAKING_PART,  # that the file runs, and the range of the inputs in its metadata
}
ALWAYS = {name for name in STOPS if name.startswith(("tfq.pipeline", "tfq.simulate"))}
ALWAYS -= {"tfq.pipeline.quantized.recalibrated"}
ALWAYS |= {"tfq.reconstruction.range_tuning.tune_ranges"}
SEQUENTIAL = {"tfq.reconstruction.rows.collect_float_rows", "tfq.reconstruction.reconstruct.solved_in_turn"}
TUNED = {"tfq.reconstruction.batch_norm._measure", "tfq.pipeline.quantized.recalibrated"}
NETWORK = {name for name in STOPS if name.startswith("tfq.reconstruction.network_tuning")}
ALLOCATION = {name for name in STOPS if name.startswith(("tfq.allocation", "tfq.export"))}
INT8 = ALWAYS | {
    "tfq.reconstruction.channel_statistics.channel_statistics",
    "tfq.reconstruction.bias_correction.correct_biases",
}
RUNS = {
    "int8": ({}, INT8, 1),
    "per tensor": (
        {"per_channel": False},
        INT8,
        2,  # the graph as it is, and equalised
    ),
    "light": ({"pipeline": "light", "reconstruction": "least_squares"}, ALWAYS | SEQUENTIAL, 1),
    "advanced": (
        {"pipeline": "advanced", "mode": "parallel", "batch_norm_tuning": "always", "network_tuning": "always"},
        ALWAYS | SEQUENTIAL | TUNED | NETWORK,
        1,
    ),
    "allocation": (
        {"pipeline": "advanced", "weight_bits": 8, "size_budget": 0.15, "candidates": ("w3", "w8")},
        ALWAYS | SEQUENTIAL | ALLOCATION,
        1,
    ),
}


def stop():
    """The innermost function of STOPS that is at work."""
    frame = sys._getframe(2)
    while frame is not None:
        name = f"{frame.f_globals['__name__']}.{frame.f_code.co_name}"
        if name in STOPS:
            return name
        frame = frame.f_back
    raise AssertionError("samples are read by a function that STOPS does not name")


@contextlib.contextmanager
def watched():
    """(positions that each stop reads, float graphs that judges run)."""
    reads, floats = collections.defaultdict(set), []
    read, run = View.__getitem__, judge.tensor_parts

    def recorded(view, index):
        if len(view.array) == COUNT:  # not those that the report has for itself
            reads[stop()].update(np.atleast_1d(view.positions[index]).tolist())
        return read(view, index)

    def counted(graph, *arguments, **options):
        if not isinstance(graph, QuantizedModel):
            floats.append(graph)
        return run(graph, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(View, "__getitem__", recorded)
        patch.setattr(judge, "tensor_parts", counted)
        yield reads, floats


@pytest.mark.parametrize(
    "name", [name if name == "int8" else pytest.param(name, marks=pytest.mark.slow) for name in RUNS]
)
def test_no_stop_reads_samples_of_a_role_it_may_not(name):
    changes, stops, graphs = RUNS[name]
    with watched() as (reads, floats):
        quantize(dataclasses.replace(RECIPE, **changes))
    roles = Roles.of(COUNT, report=True)
    role_of = {int(p): role for role in ("fit", "choose", "judge", "report") for p in getattr(roles, role)}
    found = {stop: {role_of[position] for position in positions} for stop, positions in reads.items()}
    assert set(found) == stops
    strayed = {stop: found[stop] - STOPS[stop] for stop in stops}
    assert not any(strayed.values()), strayed
    assert found["tfq.simulate.judge._floats"] == {"judge"}
    # for every float model one judge, which runs it once
    assert len(floats) == len({id(graph) for graph in floats}) == graphs
