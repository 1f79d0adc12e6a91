"""Who sees which samples: the split itself."""

import itertools

import numpy as np
import pytest

from tfq.data.roles import Roles


def positions(roles):
    return {name: getattr(roles, name).tolist() for name in ("fit", "choose", "judge", "report")}


@pytest.mark.parametrize(("count", "report"), itertools.product([*range(1, 26), 100, 513], [False, True]))
def test_no_sample_has_two_roles_and_all_have_one(count, report):
    roles = Roles.of(count, report=report)
    parts = positions(roles)
    assert sorted(itertools.chain(*parts.values())) == list(range(count))
    assert all(part == sorted(part) for part in parts.values())
    assert len(roles) == count
    assert parts["fit"]
    assert report or not parts["report"]
    assert roles.seen.tolist() == sorted(parts["fit"] + parts["choose"])
    assert positions(Roles.of(count, report=report)) == parts


@pytest.mark.parametrize("report", [False, True])
def test_of_many_every_eighth_judges_chooses_and_is_reported_on(report):
    parts = positions(Roles.of(64, report=report))
    assert parts["judge"] == list(range(7, 64, 8))
    assert parts["choose"] == list(range(3, 64, 8))
    assert parts["report"] == (list(range(5, 64, 8)) if report else [])


@pytest.mark.parametrize(
    ("count", "report", "fit", "choose", "judge", "reported"),
    [
        (1, False, [0], [], [], []),
        (1, True, [0], [], [], []),
        (2, False, [0], [], [1], []),
        (2, True, [0], [], [1], []),
        (3, False, [0], [1], [2], []),
        (3, True, [0], [], [2], [1]),
        (5, False, [0, 1, 2], [3], [4], []),
        (5, True, [0, 1], [2], [4], [3]),
        (16, True, [0, 1, 2, 4, 6, 8, 9, 10, 12, 14], [3, 11], [7, 15], [5, 13]),
    ],
)
def test_of_few_some_roles_get_none_and_it_is_said(count, report, fit, choose, judge, reported):
    roles = Roles.of(count, report=report)
    assert positions(roles) == {"fit": fit, "choose": choose, "judge": judge, "report": reported}
    assert bool(roles.shortage(report=report)) == (not choose or not judge)
    assert roles.judging.tolist() == (judge or fit)
    assert roles.reporting.tolist() == (reported or judge or fit)


def test_what_is_done_without_a_role_is_said():
    assert Roles.of(1, report=True).shortage(report=True) == (
        "1 calibration sample: it was fitted to, judges and is reported on; give 8 or more"
    )
    assert "agreement is measured on the sample that judged" in Roles.of(2, report=True).shortage(report=True)
    assert "agreement" not in Roles.of(2).shortage(report=False)
    assert Roles.of(3, report=True).shortage(report=True).endswith("the network is not tuned; give 8 or more")
    assert not Roles.of(4, report=True).shortage(report=True)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 21, 100])
def test_without_those_of_the_report_the_others_keep_their_roles(count):
    roles = Roles.of(count, report=True)
    left = np.delete(np.arange(count), roles.report)
    found = roles.without_report()
    assert len(found) == len(left)
    for name in ("fit", "choose", "judge"):
        assert left[getattr(found, name)].tolist() == getattr(roles, name).tolist()
    assert not len(found.report)
