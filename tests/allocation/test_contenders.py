"""Candidates that the program could choose, against what is best at a price; the noise that costs a drop."""

import numpy as np
import pytest

from tfq.allocation.contenders import bearable, contenders
from tfq.allocation.drop import accuracy_drop
from tfq.allocation.sensitivity import Loss

NAMES = ("w2", "w4", "w6", "w8", "e3", "e5")


def drawn(seed, units=40):
    """(costs, losses) of units of many sizes: candidates of more bytes mostly lose less."""
    rng, costs, losses = np.random.default_rng(seed), {}, {}
    for unit in range(units):
        size, scale = 10 ** rng.uniform(2, 5), 10 ** rng.uniform(-3, 0)
        for name in NAMES:
            bits = rng.uniform(1, 8)
            costs[f"u{unit}", name] = size * bits
            losses[f"u{unit}", name] = scale * 4**-bits * rng.uniform(0.3, 3.0)
    return costs, losses


def at_price(costs, losses, price):
    """What is best for every unit."""
    units = dict.fromkeys(unit for unit, _ in costs)
    return [min(((u, n) for n in NAMES), key=lambda k: costs[k] + price * losses[k]) for u in units]


@pytest.mark.parametrize("seed", range(5))
def test_what_is_best_after_a_fit_at_a_price_of_the_range_is_a_contender(seed):
    costs, losses = drawn(seed)
    total = sum(losses[key] for key in at_price(costs, losses, 1e6))
    found = set(contenders(costs, losses, (total / 4, total / 4)))
    assert len(found) < 0.7 * len(costs)
    rng = np.random.default_rng(seed)
    fitted = {key: loss / 4 * rng.uniform(0.5, 1.0) for key, loss in losses.items()}
    for price in (0.7e6, 1e6, 1.4e6):
        assert set(at_price(costs, fitted, 4 * price)) <= found
    assert set(at_price(costs, losses, 1.0)) - found  # far more than may be lost
    assert set(at_price(costs, losses, 1e18)) <= found


def test_without_a_total_all_prices_count_and_what_is_never_best_is_left_out():
    costs = {("u", name): cost for name, cost in zip(NAMES, (1.0, 2.0, 3.0, 4.0, 2.5, 3.5), strict=True)}
    losses = {("u", name): loss for name, loss in zip(NAMES, (1.0, 0.1, 0.01, 0.001, 0.9, 0.025), strict=True)}
    kept = ["w2", "w4", "w6", "w8"]
    assert [name for _, name in contenders(costs, losses)] == kept
    losses["u", "e5"] = 0.009  # half of it would be best at some price
    assert [name for _, name in contenders(costs, losses)] == [*kept, "e5"]


@pytest.mark.parametrize("probabilities", [True, False])
def test_noise_of_the_divergence_that_is_found_costs_the_drop(probabilities):
    rng = np.random.default_rng(0)
    outputs = 2 * rng.normal(size=(1500, 10)).astype(np.float32)
    if probabilities:
        outputs = np.exp(outputs) / np.exp(outputs).sum(-1, keepdims=True)
    loss = Loss({}, [outputs])

    def lost(found):
        return accuracy_drop(outputs, found[0])

    small, large = (bearable(loss, lost, most) for most in (0.5, 5.0))
    assert 0 < small < large / 3
    noise = np.random.default_rng(1).standard_normal(outputs.shape)
    sizes = np.geomspace(1e-3, 3.0, 60)
    noisy = [outputs * np.exp(s * noise) if probabilities else outputs + s * outputs.std() * noise for s in sizes]
    noisy = [v / v.sum(-1, keepdims=True) for v in noisy] if probabilities else noisy
    first = next(values for values in noisy if loss([values]) >= large)
    assert lost([first]).points == pytest.approx(5.0, rel=0.4)
