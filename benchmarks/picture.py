"""A picture of a page for the documentation: `python -m benchmarks.picture --page=FILE --output=FILE`."""

from __future__ import annotations

import tempfile
from pathlib import Path

from absl import flags
from tfq_tools.command import new_flags, run_command

from tfq.errors import UserError

FLAGS = new_flags()
flags.DEFINE_string("page", "out/demo/report.html", "A page that tfq wrote.", flag_values=FLAGS)
flags.DEFINE_string("output", "docs/images/report.png", "The picture.", flag_values=FLAGS)
flags.DEFINE_integer("width", 1280, "Of the window, in pixels.", lower_bound=300, flag_values=FLAGS)
flags.DEFINE_integer("height", 1060, "Of the picture, in pixels.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_boolean("dark", False, "For people who prefer dark pages.", flag_values=FLAGS)

GROUPS = {"Picture": ("page", "output", "width", "height", "dark")}
SUMMARY = "Draw the upper part of a page with Chromium."
_COLOURS = 256


def main(values: flags.FlagValues) -> None:
    from PIL import Image

    from benchmarks.browser import CHROMIUM, opened

    if CHROMIUM is None:
        raise UserError("Chromium is not installed; apt-get install chromium")
    output = Path(values.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder)) as tab:
        tab.open(Path(values.page), width=values.width, dark=values.dark)
        tab.picture(output, width=values.width, height=values.height)
    with Image.open(output) as drawn:
        small = drawn.convert("RGB").quantize(_COLOURS)
    small.save(output, optimize=True)


def run() -> None:
    run_command("benchmarks.picture", main, FLAGS, summary=SUMMARY, groups=GROUPS)


if __name__ == "__main__":
    run()
