import dataclasses

import numpy as np
import operator_graphs
import pytest

from tfq.calibration.calibrate import calibrate
from tfq.calibration.specify import specify
from tfq.calibration.statistics import Range
from tfq.precision import Precision
from tfq.simulate.eager import tensor_parts
from tfq.simulate.judge import Judge, is_proved, signed_ranks


@pytest.fixture(scope="module")
def setting():
    """(graph, ranges, samples that no range was fitted to)."""
    graph = operator_graphs.convolutions()
    samples = operator_graphs.draw(graph)
    ranges = calibrate(graph, [samples], method="minmax", total=24).ranges
    return graph, ranges, operator_graphs.draw(graph, seed=1)


def narrowed(ranges, factor):
    return {name: Range(r.low * factor, r.high * factor) for name, r in ranges.items()}


def test_a_bad_specification_is_rolled_back(setting):
    graph, ranges, samples = setting
    bad, good = specify(graph, narrowed(ranges, 0.1)), specify(graph, ranges)
    kept, guarded = Judge(graph, samples).keep_better(("kl", bad), ("minmax", good))
    assert kept is good
    assert guarded.kept == "minmax"
    assert guarded.divergences["kl"] > 5 * guarded.divergences["minmax"]
    assert guarded.samples == 24
    assert guarded.note("calibration by kl").startswith(
        "calibration by kl made the outputs of 24 held-back samples worse than minmax"
    )
    alone = dataclasses.replace(guarded, samples=1)
    assert alone.note("it").startswith("it made the outputs of 1 held-back sample worse than minmax")


def test_a_better_specification_is_kept(setting):
    graph, ranges, samples = setting
    good, bad = specify(graph, ranges), specify(graph, narrowed(ranges, 30.0))
    kept, guarded = Judge(graph, samples).keep_better(("kl", good), ("minmax", bad))
    assert kept is good
    assert guarded.kept == "kl"
    assert guarded.divergences["kl"] < guarded.divergences["minmax"]
    assert guarded.note("calibration by kl") == ""


@pytest.mark.parametrize(("must_gain", "winner"), [(False, "kl"), (True, "minmax")])
def test_a_tie_keeps_the_candidate_unless_it_has_to_gain(setting, must_gain, winner):
    graph, ranges, samples = setting
    models = {name: specify(graph, ranges) for name in ("kl", "minmax")}
    judge = Judge(graph, samples)
    kept, (guarded,) = judge.keep_best(
        ("minmax", models["minmax"]), [("kl", models["kl"])], tolerance=0.0, must_gain=must_gain
    )
    assert kept is models[winner]
    assert guarded.kept == winner
    assert guarded.standard_error == 0


def test_a_gain_on_most_samples_is_proved_and_one_on_few_is_not(setting):
    graph, ranges, samples = setting
    fine, coarse = ((f"w{bits}", specify(graph, ranges, Precision(weight_bits=bits))) for bits in (8, 2))
    assert Judge(graph, samples).keep_best(coarse, [fine], must_gain=True)[0] is fine[1]
    few = {name: array[:4] for name, array in samples.items()}
    kept, (chance,) = Judge(graph, few).keep_best(coarse, [fine], must_gain=True)
    assert kept is coarse[1]
    assert chance.divergences["w8"] < chance.divergences["w2"]
    assert chance.reason == "chance, z = -1.8"  # of four samples, all
    kept, (gained, lost) = Judge(graph, samples).keep_best(coarse, [fine, coarse], must_gain=True)
    assert kept is fine[1]
    assert (gained.reason, lost.reason) == ("", "worse")
    rng = np.random.default_rng(0)
    chance = np.array([signed_ranks(rng.standard_t(2, 25)) for _ in range(2000)])
    assert abs(chance.mean()) < 0.1
    assert chance.std() == pytest.approx(1, abs=0.07)
    outlier = np.append(rng.normal(size=24), -100.0)
    assert outlier.mean() < 0
    assert signed_ranks(outlier) > -2
    assert signed_ranks(-np.abs(rng.standard_t(2, 25))) < -4
    assert signed_ranks(np.zeros(5)) == 0


def test_signed_ranks_are_those_of_the_definition():
    d = np.array([0.5, -0.2, 0.0, 3.0, -1.0])
    assert signed_ranks(d) == pytest.approx((2 - 1 + 4 - 3) / np.sqrt(1 + 4 + 9 + 16))


def test_a_gain_is_proved_by_most_samples_and_on_average():
    assert is_proved(np.linspace(-1, -2, 8))
    assert not is_proved(np.linspace(-1, -2, 4))
    assert not is_proved(np.array([-1.0]))
    assert not is_proved(np.append(np.linspace(-1, -2, 20), 100.0))
    assert not is_proved(np.append(np.linspace(1, 2, 20), -100.0))


def test_one_sample_suffices(setting):
    graph, ranges, samples = setting
    good, bad = specify(graph, ranges), specify(graph, narrowed(ranges, 0.05))
    few = {name: array[:1] for name, array in samples.items()}
    assert Judge(graph, few).keep_better(("kl", bad), ("minmax", good))[0] is good


def test_more_bits_win(setting):
    graph, ranges, samples = setting
    fine, coarse = specify(graph, ranges, Precision(weight_bits=8)), specify(graph, ranges, Precision(weight_bits=2))
    assert Judge(graph, samples).keep_better(("coarse", coarse), ("fine", fine))[0] is fine


def test_the_last_model_kept_and_the_float_model_are_run_once(setting, monkeypatch):
    graph, ranges, samples = setting
    models = [specify(graph, narrowed(ranges, factor)) for factor in (30.0, 4.0, 1.0)]
    runs = []

    def counted(model, *arguments, **options):
        runs.append(model)
        return tensor_parts(model, *arguments, **options)

    monkeypatch.setattr("tfq.simulate.judge.tensor_parts", counted)
    judge = Judge(graph, samples)
    first, _ = judge.keep_better(("b", models[1]), ("a", models[0]))
    second, _ = judge.keep_better(("c", models[2]), ("b", first))
    assert first is models[1]
    assert second is models[2]
    assert len(runs) == 1 + 3  # the float model, and each of the three
    np.testing.assert_array_equal(judge.divergence(second), Judge(graph, samples).divergence(second))
