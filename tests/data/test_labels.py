"""Class names: how a file is read, and what is said of names that do not fit the model."""

import pytest

from tfq.data.labels import label_notes, read_labels
from tfq.errors import UserError


@pytest.mark.parametrize(
    "content",
    [b"a\nb c\n\xc3\xa9\n", b"a\r\nb c\r\n\xc3\xa9", b"\xef\xbb\xbfa\nb c\n\xc3\xa9\n\n \n", b"a \rb c\r\xc3\xa9\r"],
)
def test_one_name_a_line(content, tmp_path):
    (tmp_path / "labels.txt").write_bytes(content)
    assert read_labels(str(tmp_path / "labels.txt")) == ("a", "b c", "é")


def test_no_file_means_no_names():
    assert read_labels("") == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; expected one class name a line"),
        (b"\n \n", "is empty"),
        (b"a\n\nb\n", "line 2 of the labels .* is empty"),
        ("a\nb".encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
        (b"caf\xe9", "is no UTF-8 text .byte 3 is 0xe9."),
        (b"a\0b", "holds null bytes"),
    ],
)
def test_what_is_no_list_of_names(content, message, tmp_path):
    (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_labels(str(tmp_path / "labels.txt"))


def test_as_many_names_as_classes():
    assert label_notes(("a", "b", "c"), (), (3,)) == ()
    assert label_notes(("no", "yes"), (), (1,)) == label_notes(("yes",), (), (1,)) == ()
    assert label_notes((), (), (3,)) == ()
    for count in (2, 4):
        with pytest.raises(UserError, match=f"`labels` names {count} classes, and the model's first output has 3"):
            label_notes("abcd"[:count], (), (3,))


def test_doubts_are_told():
    (twice,) = label_notes(("a", "b", "a"), (), (3,))
    assert "gives 1 names to several classes (a)" in twice
    (numbered,) = label_notes((), ("x", "y"), (3,))
    assert "2 class sub-folders and the model 3 classes" in numbered
    assert label_notes((), ("x", "y"), (1,)) == ()
