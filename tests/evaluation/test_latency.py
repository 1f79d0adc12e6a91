import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfq.evaluation.latency import BLOCK, WARM_UP, Timing, _ratio, measure_latency
from tfq.execution.interpreter import TfliteModel


def test_models_take_turns(classifier, monkeypatch):
    calls = []
    invoke = TfliteModel.invoke

    def recorded(self):
        calls.append(len(self.content))
        invoke(self)

    monkeypatch.setattr(TfliteModel, "invoke", recorded)
    _, images, first, second = classifier
    inputs = {"image": images[:1]}
    measure_latency({"a": first, "b": second}, {"a": inputs, "b": inputs}, timing=Timing(runs=3 * BLOCK, seconds=0))
    a, b = [len(first)] * (BLOCK + 1), [len(second)] * (BLOCK + 1)
    assert calls == [len(first)] * WARM_UP + [len(second)] * WARM_UP + a + b + b + a + a + b


def test_numbers_belong_together(classifier):
    _, images, first, second = classifier
    inputs = {"image": images[:2]}
    models = {"a": first, "b": second}
    found = measure_latency(
        models, {name: inputs for name in models}, delegate=False, timing=Timing(runs=10, seconds=0, threads=2)
    )
    for latency in found.values():
        assert latency.runs == len(latency.times_ms) == 12
        assert latency.p50_ms == pytest.approx(np.median(latency.times_ms))
        assert latency.p90_ms == pytest.approx(np.percentile(latency.times_ms, 90))
        assert 0 < min(latency.times_ms) <= latency.p50_ms <= latency.p90_ms
        assert (latency.threads, latency.batch, latency.delegate) == (2, 2, False)
    ratios = [np.median(np.reshape(found[name].times_ms, (3, BLOCK)), axis=1) for name in ("a", "b")]
    assert found["b"].ratio.value == pytest.approx(np.median(ratios[1] / ratios[0]))
    assert (found["a"].ratio.value, found["a"].ratio.low, found["a"].ratio.high) == (1.0, 1.0, 1.0)


def test_fast_models_get_more_runs_but_not_endlessly_many(classifier):
    found = measure_latency(
        {"a": classifier[2]}, {"a": {"image": classifier[1][:1]}}, timing=Timing(runs=4, seconds=1e6)
    )
    assert found["a"].runs == 1000


@settings(max_examples=25)  # the oracle is slow
@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=15), st.integers(0, 5))
def test_interval_of_the_ratio_is_the_bootstrap_of_the_median(ratios, seed):
    ratios = np.array(ratios)
    generator = np.random.default_rng(seed)
    medians = [np.median(ratios[row]) for row in generator.integers(0, len(ratios), (2000, len(ratios)))]
    found = _ratio(ratios, seed=seed)
    assert found.value == pytest.approx(np.median(ratios))
    assert [found.low, found.high] == pytest.approx(np.quantile(medians, [0.025, 0.975]))
