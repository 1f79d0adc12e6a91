"""tfq: all commands under one name. `tfq quantize ...` is `tfq-quantize ...`."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Mapping

from tfq_tools.supervise import USER_ERROR

from tfq import __version__

COMMANDS: Mapping[str, str] = {
    "quantize": "turn a model and a few hundred inputs into a verified .tflite, and compare it with the float model",
    "evaluate": "measure .tflite files side by side",
    "inspect": "list the layers of a .tflite",
    "frontier": "what accuracy every size costs, to choose a budget",
    "profile": "measure what every layer takes at every precision, for a latency budget",
    "batch": "many runs of quantize",
    "report": "show runs side by side",
    "bench": "measure .tflite files on a phone, or on this machine as on a phone",
}
"""Name -> what it does; each is the module of this name."""
_HELP = ("--help", "-h", "help")


def help_text() -> str:
    lines = ["From a trained model to the smallest, fastest .tflite that keeps the accuracy.", ""]
    lines += ["usage: tfq COMMAND --flag=value ...", ""]
    lines += [f"  {name:10}{text}" for name, text in COMMANDS.items()]
    return "\n".join([*lines, "", "tfq COMMAND --help lists the flags of a command; tfq --version says the version."])


def run() -> None:
    name, arguments = (sys.argv[1] if len(sys.argv) > 1 else "--help"), sys.argv[2:]
    if name in _HELP and arguments:
        name, arguments = arguments[0], ["--help"]
    if name in _HELP:
        print(help_text())
    elif name in ("--version", "version"):
        print(f"tfq {__version__}")
    elif name in COMMANDS:
        sys.argv = [f"tfq-{name}", *arguments]
        importlib.import_module(f"tfq_tools.{name}").run()
    else:
        near = "".join(f"; did you mean {other}?" for other in difflib.get_close_matches(name, COMMANDS, n=1))
        print(f"tfq: error: there is no command {name!r}{near or '; tfq --help lists them'}", file=sys.stderr)
        sys.exit(USER_ERROR)


if __name__ == "__main__":
    run()
