"""What the commands share: flags, help, exit codes, silence of the libraries.

A command is a module with its own `FLAGS`, a `main(FLAGS)` that imports TensorFlow only when it runs,
and a `run()` that calls `run_command`. Exit codes: 0 done, 1 a defect of tfq (with its traceback),
2 what the user can put right (one line), 130 interrupted.
"""

from __future__ import annotations

import faulthandler
import logging as python_logging
import os
import sys
import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from absl import flags, logging
from tfq_tools.arguments import check_numbers, expanded

from tfq.errors import UserError

_HELP = ("--help", "-help", "-h", "--helpfull", "--helpshort")


def new_flags() -> flags.FlagValues:
    """Flags of one command, with those that every command has."""
    values = flags.FlagValues()
    flags.DEFINE_boolean("verbose", False, "Show what TensorFlow and the other libraries log.", flag_values=values)
    flags.DEFINE_string("flagfile", "", "Read more flags from this file, one a line.", flag_values=values)
    return values


def define_evaluation_flags(values: flags.FlagValues) -> None:
    """Which models are measured on what, for commands that compare .tflite files."""
    flags.DEFINE_list(
        "models", [], "The .tflite files, separated by commas; the first is the baseline.", flag_values=values
    )
    flags.DEFINE_string(
        "evaluation_data",
        "",
        "The samples: an .npz with the input 'x' (or one array per input name) and the labels 'y', or any other"
        " source that tfq-quantize takes.",
        flag_values=values,
    )
    flags.DEFINE_string("preprocess", "none", "none, zero_one, minus_one_one, imagenet or raw.", flag_values=values)
    flags.DEFINE_integer(
        "num_samples", 0, "Use the first samples only; 0 for all of them.", lower_bound=0, flag_values=values
    )
    flags.DEFINE_string(
        "metric", "top1", "top1, top5, auc, f1, mse, sqnr, or your own module:function.", flag_values=values
    )
    flags.DEFINE_integer(
        "seed", 0, "Seed of the bootstrap intervals.", lower_bound=0, upper_bound=2**32 - 1, flag_values=values
    )


def run_command(
    name: str,
    main: Callable[[flags.FlagValues], None],
    flag_values: flags.FlagValues,
    *,
    summary: str,
    groups: Mapping[str, Sequence[str]],
    required: Sequence[str] = (),
    argv: Sequence[str] | None = None,
) -> NoReturn:
    """Parse the flags, run `main` on them, and exit.

    Args:
      name: of the command, as it is called.
      main: raises UserError for what the user can put right.
      flag_values: from `new_flags`, with the command's own flags defined.
      summary: first paragraph of the help.
      groups: heading -> names of its flags, in the order of the help.
      required: names of the flags that must be given.
      argv: arguments without the command's name; by default those of the process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if any(argument in _HELP for argument in arguments):
            print(help_text(name, flag_values, summary=summary, groups=groups), flush=True)
            sys.exit(0)
        _parse(name, arguments, flag_values, required)
        if not flag_values["verbose"].value:
            _silence_libraries()
        main(flag_values)
        sys.stdout.flush()
    except (UserError, flags.Error) as error:
        print(f"{name}: error: {' '.join(str(error).removeprefix('ERROR:: ').split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"\n{name}: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    sys.exit(0)


def help_text(name: str, flag_values: flags.FlagValues, *, summary: str, groups: Mapping[str, Sequence[str]]) -> str:
    """The help page: every flag under its heading, with its choices and its default."""
    lines = [*textwrap.wrap(summary, 100), "", f"usage: {name} --flag=value ..."]
    for heading, names in {**groups, "General": ("verbose", "flagfile")}.items():
        lines += ["", f"{heading}:"]
        for flag in (flag_values[n] for n in names):
            choices = getattr(flag.parser, "enum_values", None)
            form = f"--[no]{flag.name}" if flag.boolean else f"--{flag.name}"
            lines.append("  " + form + (f"={'|'.join(choices)}" if choices else ""))
            default = f" (default: {flag.default_as_str.strip(chr(39))})" if flag.default not in (None, "", []) else ""
            text = flag.help.removeprefix(f"<{'|'.join(choices or ())}>: ")  # absl puts the choices there too
            lines += textwrap.wrap(text + default, 94, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


def _parse(name: str, arguments: Sequence[str], flag_values: flags.FlagValues, required: Sequence[str]) -> None:
    rest = flag_values([name, *expanded(arguments)])[1:]
    check_numbers(flag_values)
    if rest:
        raise UserError(f"unexpected argument {rest[0]!r}; every option has the form --name=value, see --help")
    missing = [f"--{flag}" for flag in required if not flag_values[flag].value]
    if missing:
        raise UserError(f"missing {' and '.join(missing)}; {name} --help lists the flags")


def _silence_libraries() -> None:
    """Keep the libraries' log off the terminal.

    TensorFlow, XNNPACK and others write from C++ straight to file descriptor 2, some before any setting
    reaches them. So the descriptor goes to the null device and Python's own stderr to a copy of the old one.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.set_verbosity(logging.ERROR)
    python_logging.getLogger("tensorflow").addFilter(lambda record: record.levelno >= python_logging.ERROR)
    warnings.simplefilter("ignore")
    sys.stderr.flush()
    terminal = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)
    sys.stderr = os.fdopen(terminal, "w", buffering=1, errors="backslashreplace")
    faulthandler.enable(sys.stderr)
