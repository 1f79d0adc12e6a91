"""The parts of a calibration set: which samples they hold, and that nothing of them is copied."""

import numpy as np
import pytest

from tfq.data.calibration_set import CalibrationSet
from tfq.data.roles import Roles
from tfq.data.samples import Samples
from tfq.execution.views import View

PARTS = ("fit", "choose", "seen", "judging", "reporting")


def made(count, **options):
    """Samples that hold their own numbers."""
    return CalibrationSet.of(Samples({"x": np.arange(count)}, np.arange(count), np.arange(count)), **options)


@pytest.mark.parametrize("report", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 24, 100])
def test_every_part_holds_the_samples_of_its_role(count, report):
    found, roles = made(count, report=report), Roles.of(count, report=report)
    for part in PARTS:
        samples = getattr(found, part)
        assert samples.read()["x"].tolist() == samples.indices.tolist() == getattr(roles, part).tolist()
        assert isinstance(samples.arrays["x"], View)
        assert samples.arrays["x"].array is found.samples.arrays["x"]
    assert found.reporting.labels is None
    assert found.fit.labels.tolist() == roles.fit.tolist()


@pytest.mark.parametrize("count", [2, 7, 8, 100])
def test_without_those_of_the_report_no_part_reads_them_and_the_others_stay(count):
    whole = made(count, report=True)
    left = whole.without_report()
    kept = np.setdiff1d(np.arange(count), whole.roles.report)
    assert left.samples.read()["x"].tolist() == kept.tolist()
    for part in ("fit", "choose", "seen", "judging"):
        assert getattr(left, part).read()["x"].tolist() == getattr(whole, part).read()["x"].tolist()
    assert not len(left.roles.report)


@pytest.mark.parametrize("count", [2, 7, 8, 9, 24, 2000])
def test_what_is_seen_and_what_judges_never_overlap_and_not_too_many_judge(count):
    found = made(count)
    fitted, judged = (set(part.indices.tolist()) for part in (found.seen, found.judging))
    assert not fitted & judged
    assert len(judged) == min(128, max(1, count // 8))
    assert len(fitted) == count - max(1, count // 8)


def test_one_sample_is_both():
    assert made(1).seen.indices.tolist() == made(1).judging.indices.tolist() == [0]
