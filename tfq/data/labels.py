"""Class names from a text file, one a line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tfq.errors import UserError
from tfq.execution.inputs import read_text

MOST_BYTES = 16 << 20


def read_labels(path: str | Sequence[str]) -> tuple[str, ...]:
    """The names in a file, or those given; none for an empty path.

    Raises UserError for a file that holds no names, for an empty line, and for names that are no texts.
    """
    if not isinstance(path, str):
        given = tuple(path) if isinstance(path, Iterable) else (path,)
        if not all(isinstance(name, str) and name.strip() for name in given):
            raise UserError("`labels` holds what is no text, or an empty one; expected a name for each class")
        return tuple(str(name).strip() for name in given)
    if not path:
        return ()
    text = read_text(Path(path), what=f"the file of labels {path}", most=MOST_BYTES)
    names = [line.strip() for line in text.replace("\r\n", "\n").replace("\r", "\n").rstrip().split("\n")]
    if not any(names):
        raise UserError(f"the file of labels {path} is empty; expected one class name a line")
    if "" in names:
        raise UserError(f"line {names.index('') + 1} of the labels {path} is empty; expected one class name a line")
    return tuple(names)


def label_notes(labels: Sequence[str], folders: Sequence[str], output: tuple[int, ...]) -> tuple[str, ...]:
    """What a person should know about the names of the classes, one line each.

    Args:
      labels: the names; may be empty.
      folders: class sub-folders of the data, where it has any and there are no labels to number them by.
      output: shape of the model's first output, without the batch axis; one unit stands for one or two classes.

    Raises UserError where the model has more or fewer classes than there are labels.
    """
    classes = output[-1] if output else 1
    possible = (1, 2) if classes == 1 else (classes,)
    if labels and len(labels) not in possible:
        raise UserError(
            f"`labels` names {len(labels)} classes, and the model's first output has {classes}; give a name for each of"
            " them, one a line, or leave the labels out"
        )
    twice = sorted({name for name, count in Counter(labels).items() if count > 1})
    notes = []
    if twice:
        notes.append(f"`labels` gives {len(twice)} names to several classes ({', '.join(twice[:5])}); is that right?")
    if not labels and folders and len(folders) != max(2, classes):
        notes.append(
            f"the data has {len(folders)} class sub-folders and the model {max(2, classes)} classes; the folders are"
            " numbered from 0 in their sorted order: give `labels` to match them by name"
        )
    return tuple(notes)
