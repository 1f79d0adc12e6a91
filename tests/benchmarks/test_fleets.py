"""What docs/fleets.md promises, by the benchmark that measures it."""

import pytest

from benchmarks import fleets


@pytest.mark.slow
def test_one_run_has_the_same_bytes_by_every_engine_though_a_node_dies(tmp_path):
    same, _ = fleets.bars("engines", fleets.engines("digits", 64, tmp_path))
    assert same.passed, str(same)


@pytest.mark.slow
def test_a_batch_loses_nothing_where_a_node_dies(tmp_path):
    assert all(bar.passed for bar in fleets.bars("batch", fleets.batch(tmp_path)))


@pytest.mark.slow
def test_a_thousand_jobs_over_four_shards_that_are_killed_twice_are_each_done_once(tmp_path):
    bars = fleets.bars("shards", fleets.shards(tmp_path))
    assert all(bar.passed for bar in bars), list(map(str, bars))
