import pytest

from tfq.report.table import against_float, format_table, without_empty


def test_columns_line_up():
    text = format_table(["model", "top1", "note"], [["a", "9.10 %", ""], ["longer", "87.69 %", "x"]])
    assert text.splitlines() == [
        "model      top1  note",
        "------  -------  ----",
        "a        9.10 %",
        "longer  87.69 %     x",
    ]


def test_more_columns_flush_left():
    assert format_table(["a", "b"], [["x", "yy"]], left=2).splitlines()[0] == "a  b"


def test_rows_must_fit_the_header():
    with pytest.raises(ValueError, match="has 1 cells, the header 2"):
        format_table(["a", "b"], [["x"]])


def test_columns_that_are_empty_everywhere_are_left_out():
    assert without_empty(["a", "b", "c"], [["x", "", ""], ["", "", "y"]]) == (["a", "c"], [["x", ""], ["", "y"]])


@pytest.mark.parametrize(("lost", "shown"), [(0.4, "-0.40"), (-0.4, "+0.40"), (0.0, "+0.00"), (0.001, "+0.00")])
def test_points_lost_are_shown_as_the_difference_to_float(lost, shown):
    assert against_float(lost) == shown
