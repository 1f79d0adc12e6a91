"""Every tfq-quantize command in the documentation is one that tfq takes: its options exist and go together."""

from __future__ import annotations

import copy
import pathlib
import re
import shlex

import pytest
from tfq_tools.quantize import FLAGS
from tfq_tools.recipe_flags import recipe_from_flags

ROOT = pathlib.Path(__file__).resolve().parents[2]
REST = "--model=model.keras --calibration_data=calibration.npz --evaluation_data=test.npz --output_dir=out"


def commands() -> list[tuple[str, str]]:
    """(page, command) of every line of code that calls tfq-quantize, and of every call in a line of text."""
    found = []
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for line in page.read_text(encoding="utf-8").splitlines():
            call = re.match(r"    (tfq-quantize .*)", line)
            spans = [call[1]] if call else re.findall(r"`(tfq-quantize --[^`]*)`", line)
            found += [(page.name, span) for span in spans if not re.search("--(help|recipe)", span)]
    return found


def test_there_are_many() -> None:
    pages = {page for page, _ in commands()}
    assert {"README.md", "options.md", "allocation.md", "reconstruction.md"} <= pages
    assert len(commands()) > 30


@pytest.mark.parametrize(("page", "command"), commands())
def test_the_options_go_together(page: str, command: str) -> None:
    words = [word for word in shlex.split(command, comments=True) if word != "..."]
    given = {word.partition("=")[0] for word in words}
    words += [word for word in REST.split() if word.partition("=")[0] not in given]
    values = copy.deepcopy(FLAGS)
    assert values(words)[1:] == [], f"{page}: {command}"
    recipe_from_flags(values)
