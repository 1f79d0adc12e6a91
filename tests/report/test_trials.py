"""--explain: the remedies of a run, tried on a model that they mend."""

import numpy as np
import tf_keras

import tfq
from tfq.inputs import taken
from tfq.pipeline import explain
from tfq.report.trials import Trial, trial_table


def test_each_remedy_is_tried_once_and_shown_beside_the_run():
    tf_keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)
    kernel = tf_keras.initializers.Constant(np.random.default_rng(1).normal(size=(6, 4)) * [1, 0.01, 0.01, 30])
    signal = tf_keras.Input((6,), name="signal")
    model = tf_keras.Model(signal, tf_keras.layers.Dense(4, kernel_initializer=kernel, name="scaled")(signal))
    options = {"per_channel": False, "metric": "sqnr", "equalization": "none"}
    report = tfq.quantize(model, x, **options).report
    _, inputs = taken(None, model, x, None, options)
    (trial,) = explain(report, inputs)
    assert trial.changes == {"per_channel": True}
    assert trial.causes in (("all layers: the verdict's remedy",), ("scaled: its channels have one weight scale",))
    smaller, larger = (found.models[-1].parts[-1].sqnr.value for found in (report.evaluation, trial.evaluation))
    assert larger >= smaller
    refused = Trial(("all layers",), {"weight_bits": 8}, None, "a budget is given")
    table = trial_table(report.evaluation, (trial, refused)).splitlines()
    assert table[0].startswith("cause ")
    assert table[0].endswith("  latency, x float")
    assert table[2].startswith("as it is ")
    assert "per_channel=True" in table[3]
    assert "a budget is given" in table[4]
    assert trial_table(report.evaluation, ()) == "No remedy is known that is an option."
