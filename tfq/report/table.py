"""Tables: plain text for the terminal, HTML for a notebook."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Mapping, Sequence

from tfq.execution.terminal import one_line


def against_float(lost: float) -> str:
    """Points lost, as every table shows them: the difference to float, below 0 for worse."""
    return f"{round(-lost, 2) + 0.0:+.2f}"


def decibel(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} dB"


def without_empty(header: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """Header and rows without the columns in which every cell is empty."""
    used = [column for column in range(len(header)) if any(row[column] for row in rows)]
    return [header[column] for column in used], [[row[column] for column in used] for row in rows]


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Columns under a ruled header: the first `left` columns flush left, the others flush right.

    Raises ValueError where a row is not as long as the header.
    """
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"the row {list(row)} has {len(row)} cells, the header {len(header)}")
    header, rows = list(map(one_line, header)), [list(map(one_line, row)) for row in rows]
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        aligned = (c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True)))
        return "  ".join(aligned).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *(line(row) for row in rows)])


def csv_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows, at least one, by the names of their columns as the text of a CSV file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, notes: str = "") -> str:
    """The same as an HTML table, with a paragraph of notes below it."""

    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(line(row, "td") for row in rows)
    below = f"<p>{html.escape(notes)}</p>" if notes else ""
    return f"<table><thead>{line(header, 'th')}</thead><tbody>{body}</tbody></table>{below}"
