"""The pictures of a page for the documentation: `python -m benchmarks.picture --page=FILE --output=FILE`."""

from __future__ import annotations

import io
import shutil
import subprocess
import tempfile
from pathlib import Path

from absl import flags
from tfq_tools.command import new_flags, run_command

from tfq.errors import UserError

FLAGS = new_flags()
flags.DEFINE_string("page", "out/demo/report.html", "A page that tfq wrote.", flag_values=FLAGS)
flags.DEFINE_string("output", "docs/images/report.png", "The picture.", flag_values=FLAGS)
flags.DEFINE_integer("width", 1280, "Of the window, in pixels.", lower_bound=500, flag_values=FLAGS)
flags.DEFINE_integer("height", 1280, "Of the picture, in pixels.", lower_bound=1, flag_values=FLAGS)

GROUPS = {"Picture": ("page", "output", "width", "height")}
SUMMARY = "Draw the upper part of a page with Chromium."
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_COLOURS = 64


def main(values: flags.FlagValues) -> None:
    from PIL import Image

    browser = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if browser is None:
        raise UserError(f"none of {', '.join(_BROWSERS)} is installed; apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "page.png"
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
        command += [f"--user-data-dir={folder}/profile", f"--window-size={values.width},{values.height}"]
        command += [f"--screenshot={picture}", Path(values.page).resolve().as_uri()]
        subprocess.run(command, check=True, capture_output=True)
        drawn = Image.open(io.BytesIO(picture.read_bytes())).convert("RGB").quantize(_COLOURS)
    output = Path(values.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    drawn.save(output, optimize=True)


def run() -> None:
    run_command("benchmarks.picture", main, FLAGS, summary=SUMMARY, groups=GROUPS)


if __name__ == "__main__":
    run()
