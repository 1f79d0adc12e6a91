"""What the commands share: flags, help, exit codes, silence of the libraries.

A command is a module with its own `FLAGS`, a `main(FLAGS)` that imports TensorFlow only when it runs,
and a `run()` that calls `run_command`. `ABSENT` may say why it has no flag that another command has. Exit codes: 0
done, 1 a defect of tfq (with its traceback), 2 what the user can put right (one line), 3 the work is done and what it
gives falls short of what was demanded, 128 + the signal when one ended it.
"""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import gc
import logging as python_logging
import os
import resource
import sys
import textwrap
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import flags, logging
from tfq_tools.arguments import check_numbers, parsed, with_flags
from tfq_tools.supervise import DEFECT, USER_ERROR, is_own_process, supervised

from tfq.errors import UserError
from tfq.evaluation.decoders import DECODERS
from tfq.evaluation.metrics import METRICS
from tfq.execution.files import check_directory, check_file, remove_partials
from tfq.execution.ledger import check_journal
from tfq.execution.terminal import PrintableStream, printable

_SHORT_OF = {
    errno.ENOSPC: "make room, for temporary files where TMPDIR says",
    errno.EDQUOT: "make room, for temporary files where TMPDIR says",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "end other programs",
    errno.ENOMEM: "end other programs, or use a smaller model or less data",
    errno.EIO: "look at the disk",
}
"""What a run may lack, and what to do about it."""
_OF_RECIPE = ("model", "calibration_data")  # what a file of --recipe gives too
METRIC_HELP = f"What is measured: {', '.join(METRICS)}, or your own module:function."
ARGUMENTS = "runs"
"""The flag, a list, that takes what stands without a flag too, where a command has it."""
READING_HELP = {
    "outputs": "Names of the outputs that the metric judges, in the order in which its decoder reads them; by default"
    " all.",
    "decoder": f"What makes boxes of a detector's outputs, for the metrics map and ap50: {', '.join(DECODERS)}, or your"
    " own module:function. Numbers follow the name: yolo,nms=0.5,score=0.001.",
    "annotations": "Boxes or masks of the images in the folder of --evaluation_data: a COCO .json, or a folder of YOLO"
    " .txt, VOC .xml or mask .png files with the images' names.",
}
_EXAMPLES = {
    "model": "model.keras",
    "calibration_data": "calibration.npz",
    "evaluation_data": "test.npz",
    "models": "float.tflite,model.tflite",
    "jobs": "'jobs/*.flags'",
    "output_dir": "out",
    "output": "table.json",
    "runs": "a,b",
}
_HELP = ("--help", "-help", "-h", "--helpfull", "--helpshort")

SAMPLES = {
    "models": "The .tflite files, separated by commas. The others are compared with the first.",
    "evaluation_data": "The samples: an .npz with the input 'x' (or one array per input name) and the labels 'y', or"
    " any other source that tfq-quantize takes.",
    "preprocess": "How images with values 0..255 are scaled: none, zero_one, minus_one_one, imagenet or raw, as in"
    " tfq-quantize.",
    "num_samples": "Use only the first samples; 0: all of them.",
}
SCORE = {
    "metric": METRIC_HELP,
    **READING_HELP,
    "seed": "Seed of the bootstrap, which gives the intervals.",
}
EVALUATION = {
    "models": [],
    "evaluation_data": "",
    "preprocess": "none",
    "num_samples": 0,
    "metric": "top1",
    "outputs": [],
    "decoder": "",
    "annotations": "",
    "seed": 0,
}
"""The defaults of both, for commands that compare .tflite files."""
_MOST_SEED = 2**32 - 1
_NONE: Mapping[str, Any] = {}
DEFINE: Mapping[str, Callable[..., Any]] = {
    "bool": flags.DEFINE_boolean,
    "int": flags.DEFINE_integer,
    "float": flags.DEFINE_float,
    "str": flags.DEFINE_string,
    "list": flags.DEFINE_list,
    "tuple[str, ...]": flags.DEFINE_list,
}
"""What makes a flag of a type."""


def new_flags(
    groups: Mapping[str, Mapping[str, str]] = _NONE,
    defaults: Mapping[str, Any] = _NONE,
    **limits: tuple[float, float | None],
) -> flags.FlagValues:
    """Flags of one command, with those that every command has.

    Args:
      groups: heading -> flag -> its help.
      defaults: flag -> its default, which says its type; a tuple holds the choices, the default first.
      limits: flag -> its smallest and its largest value; a number without is 0 or more, a seed has 32 bits.
    """
    values = flags.FlagValues()
    flags.DEFINE_boolean("verbose", False, "Show the log of TensorFlow and the other libraries.", flag_values=values)
    flags.DEFINE_string(
        "flagfile",
        "",
        "Read more flags from this file, one a line. A flag that stands after it changes what the file says.",
        flag_values=values,
    )
    for name, text in ((name, text) for group in groups.values() for name, text in group.items()):
        default = defaults[name]
        if isinstance(default, tuple):
            flags.DEFINE_enum(name, default[0], default, text, flag_values=values)
            continue
        bounds = limits.get(name, (0, _MOST_SEED if name == "seed" else None))
        kind = type(default).__name__
        known = dict(zip(("lower_bound", "upper_bound"), bounds, strict=True)) if kind in ("int", "float") else {}
        DEFINE[kind](name, default, text, flag_values=values, **known)
    return values


@contextlib.contextmanager
def lasting_imports() -> Iterator[None]:
    """For the imports of the libraries: nothing that they make is searched for garbage, now or later.

    TensorFlow's hundreds of thousands of objects stay until the process ends, and every search would visit them.
    """
    if "tensorflow" in sys.modules:  # a program's own process, whose objects are its affair
        yield
        return
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def run_command(
    name: str,
    main: Callable[[flags.FlagValues], int | None],
    flag_values: flags.FlagValues,
    *,
    summary: str,
    groups: Mapping[str, Collection[str]],
    required: Sequence[str] = (),
    writes: Sequence[str] = (),
    grace: float = 10.0,
) -> NoReturn:
    """Parse the flags, run `main` on them in a process of its own, and exit.

    Args:
      main: gives the exit code, None for 0; raises UserError for what the user can put right.
      flag_values: from `new_flags`, with the command's own flags defined.
      summary, groups: of the help: its first paragraph; heading -> names of its flags, in order.
      required: names of the flags that must be given.
      writes: names of the flags that name files to write; with output_dir and journal they are checked beforehand.
      grace: seconds for the work to end by itself after a signal.
    """
    own = is_own_process()
    if own:
        _open_closed_streams()
    arguments = sys.argv[1:]
    try:
        if any(argument in _HELP for argument in arguments):
            print(help_text(name, flag_values, summary=summary, groups=groups), flush=True)
            sys.exit(0)
        _check(name, parsed(name, arguments, flag_values), flag_values, required)
        outputs = {flag: _path(flag_values, flag) for flag in (*writes, "output_dir", "journal")}
        for flag, path in outputs.items():
            if path is not None:
                {"output_dir": check_directory, "journal": check_journal}.get(flag, check_file)(path)

        def work() -> int:
            if own:
                _set_up(name, verbose=flag_values["verbose"].value)
            return _code(name, lambda: main(flag_values))

        def clean_up() -> None:
            for path in outputs.values():
                if path is not None:
                    remove_partials(path)

        code = supervised(name, work, clean_up=clean_up, grace=grace) if own else work()
    except (UserError, flags.Error) as error:
        _say_error(name, str(error).removeprefix("ERROR:: "))
        code = USER_ERROR
    except BrokenPipeError:
        code = _broken_pipe()
    except KeyboardInterrupt:  # in a caller's process; the command's own has handlers
        code = 130
    sys.exit(code)


def _path(flag_values: flags.FlagValues, flag: str) -> Path | None:
    return Path(flag_values[flag].value) if flag in flag_values and flag_values[flag].value else None


def _code(name: str, main: Callable[[], int | None]) -> int:
    """Exit code of the work; what it raises is told. A KeyboardInterrupt goes through."""
    try:
        code = main()
        _flush()
        return code or 0
    except UserError as error:
        _say_error(name, str(error))
    except BrokenPipeError:
        return _broken_pipe()
    except MemoryError:
        _say_error(name, "there is not enough memory; end other programs, or use a smaller model or less data")
    except SystemExit as error:
        _say_error(
            name, f"sys.exit({error.code!r}) was called before the work was done; no function of yours may do that"
        )
    except OSError as error:
        if error.errno not in _SHORT_OF:
            return _say_defect()
        place = f" ({error.filename})" if error.filename else ""
        _say_error(name, f"{error.strerror}{place}; {_SHORT_OF[error.errno]}")
    except Exception:
        return _say_defect()
    _give_up_unwritten()
    return USER_ERROR


def _flush() -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UserError(f"cannot write what it prints: {error.strerror}; give it another place, as > FILE") from error


def _say_error(name: str, message: str) -> None:
    print(printable(f"{name}: error: {with_flags(' '.join(message.split()))}"), file=sys.stderr)


def _say_defect() -> int:
    traceback.print_exc()
    return DEFECT


def _broken_pipe() -> int:
    """The reader, such as `head`, has seen enough."""
    _give_up_unwritten()
    return 141


def _give_up_unwritten() -> None:
    """What a stream does not take goes nowhere, or Python would complain of it at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def help_text(name: str, flag_values: flags.FlagValues, *, summary: str, groups: Mapping[str, Collection[str]]) -> str:
    """The help page: every flag under its heading, with its choices and its default."""
    arguments = f" {ARGUMENTS.upper()} ..." if ARGUMENTS in flag_values else ""
    lines = [*textwrap.wrap(summary, 100), "", f"usage: {name} --flag=value ...{arguments}"]
    for heading, names in {**groups, "General": ("verbose", "flagfile")}.items():
        lines += ["", f"{heading}:"]
        for flag in (flag_values[n] for n in names):
            choices = getattr(flag.parser, "enum_values", None)
            form = f"--[no]{flag.name}" if flag.boolean else f"--{flag.name}"
            lines.append("  " + form + (f"={'|'.join(choices)}" if choices else ""))
            given = flag.default not in (None, "", [])
            # a space that no line ends at
            default = f" (default:\N{NO-BREAK SPACE}{flag.default_as_str.strip(chr(39))})" if given else ""
            text = flag.help.removeprefix(f"<{'|'.join(choices or ())}>: ")  # absl puts the choices there too
            text = text.partition(";\n")[0]  # and that a flag may be repeated
            lines += textwrap.wrap(text + default, 94, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines).replace("\N{NO-BREAK SPACE}", " ")


def _check(name: str, rest: Sequence[str], flag_values: flags.FlagValues, required: Sequence[str]) -> None:
    """Raises UserError for what no command can use, for what stands without a flag, and for a flag that is missing."""
    check_numbers(flag_values)
    if rest and ARGUMENTS in flag_values:
        flag_values[ARGUMENTS].value = [*flag_values[ARGUMENTS].value, *rest]
    elif rest:
        raise UserError(f"unexpected argument {rest[0]!r}; every option has the form --name=value, see --help")
    held = _OF_RECIPE if "recipe" in flag_values and flag_values["recipe"].value else ()
    missing = [f"--{flag}" for flag in required if not flag_values[flag].value and flag not in held]
    if missing:
        named = " and ".join(filter(None, (", ".join(missing[:-1]), missing[-1])))
        raise UserError(f"missing {named}; for example: {_example(name, required)} ({name} --help lists the flags)")


def _example(name: str, required: Sequence[str]) -> str:
    """A call with the flags that must be given."""
    return " ".join([name, *(f"--{flag}={_EXAMPLES.get(flag, '...')}" for flag in required)])


def _open_closed_streams() -> None:
    """Standard streams that the caller has closed (`>&-`) go nowhere, and no file gets their numbers."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, number)  # inheritable, unlike what open gives
            if null != number:
                os.close(null)
            stream = os.fdopen(number, "w" if number else "r", closefd=False)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def _set_up(name: str, *, verbose: bool) -> None:
    """Make the command's own process ready: its streams, its limits, and what the libraries find in the environment."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    encoding, terminal = sys.stdout.encoding, sys.stdout.isatty()
    sys.stdout = PrintableStream(1, encoding=encoding, line_buffering=terminal)
    sys.stderr = PrintableStream(2 if verbose else _silence_libraries(), encoding=encoding, line_buffering=True)
    if verbose:
        faulthandler.enable(sys.stderr)
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if backend != "tensorflow":
        print(f"{name}: KERAS_BACKEND is {backend}; tfq works with tensorflow, whatever it says", file=sys.stderr)
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ["KERAS_HOME"] = str(_keras_home(Path(os.environ["TMPDIR"]) / "keras"))


def _keras_home(own: Path) -> Path:
    """A folder for Keras with what the user's holds but its settings: float16 as a default would be another run."""
    own.mkdir()
    users = Path(os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras"))
    try:
        found = [path for path in users.iterdir() if path.name != "keras.json"]
    except OSError:
        return own
    for path in found:
        (own / path.name).symlink_to(path.absolute())
    return own


def _silence_libraries() -> int:
    """Keep the libraries' log off the terminal; a descriptor of it for Python's own stderr.

    TensorFlow, XNNPACK and others write from C++ straight to file descriptor 2, some before any setting
    reaches them. So the descriptor goes to the null device.
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
    return terminal
