"""The process of a command, and the one that watches over it.

What the user starts stays small: it makes the run's temporary directory, starts the work in a process of its own,
hands signals on and waits. So whatever becomes of the work (a crash in native code, a kill for lack of memory, code
that hangs in a library), it ends in one line, with nothing left behind. Killed itself, it takes the work with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from tfq.execution.parent import adopt_orphans, die_with_parent, kill_children
from tfq.execution.temporary import run_directory

STOPPING = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGXCPU)
"""They end a run; one that is ignored from the start (`nohup`) stays ignored."""
DEFECT, USER_ERROR, FAILED, KILLED = 1, 2, 3, 128 + signal.SIGKILL

_SAME = 1.0  # seconds within which a second signal is taken for the first: terminals send it to both processes


def is_own_process() -> bool:
    """Whether this process is the command's alone, and not a program's, such as a test's, that calls the command."""
    own = sys.stdout is sys.__stdout__ and threading.current_thread() is threading.main_thread()
    return own and "tensorflow" not in sys.modules


def supervised(name: str, work: Callable[[], int], *, clean_up: Callable[[], None], grace: float = 10.0) -> int:
    """Exit code of `work`, done in a process of its own, which leaves this function by SystemExit.

    Args:
      work: gives its exit code; interrupted by a signal it gets a KeyboardInterrupt, and gives 128 + the signal.
      clean_up: removes what work that was killed may have left.
      grace: seconds for the work to end by itself after a signal; then it is killed.

    Raises UserError where there is no place for temporary files.
    """
    own = run_directory()
    told, tell = os.pipe()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    adopt_orphans()
    watcher = os.getpid()
    child = os.fork()
    if child == 0:
        os.close(told)
        _work(work, tell, watcher, mask)
    try:
        os.close(tell)
        status, stopped = _watch(child, mask, grace)
        code = _told(told)
        if code is None or code > 128:
            kill_children()
        if code is None:
            clean_up()
            code = 128 + stopped if stopped else _sudden_end(name, os.waitstatus_to_exitcode(status))
    finally:
        own.remove()
    if code > 128 and code - 128 in STOPPING:
        _say_stopped(name, signal.Signals(code - 128))
    return code


def _work(work: Callable[[], int], tell: int, watcher: int, mask: set[int | signal.Signals]) -> NoReturn:
    """In the new process: the work, and its exit code for the one that watches."""
    die_with_parent(watcher)
    came: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        if not came:  # the second one must not interrupt the cleaning up
            came.append(number)
            raise KeyboardInterrupt

    code = None
    try:
        _handle(stop)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        code = work()
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    except KeyboardInterrupt:
        pass
    code = 128 + came[0] if came else 128 + signal.SIGINT if code is None else code
    os.write(tell, bytes([code]))
    _handle(signal.SIG_DFL)  # what is left, such as a thread of a user's function, has nothing to clean up
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    sys.exit(code)


def _watch(child: int, mask: set[int | signal.Signals], grace: float) -> tuple[int, int]:
    """(wait status of the child, the signal that stopped it or 0): signals are handed on, and enforced."""
    first: list[tuple[int, float]] = []

    def kill(*_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)

    def hand_on(number: int, _: FrameType | None) -> None:
        if not first:
            first.append((number, time.monotonic()))
            signal.setitimer(signal.ITIMER_REAL, grace)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)
        elif time.monotonic() - first[0][1] > _SAME:
            kill()

    signal.signal(signal.SIGALRM, kill)
    _handle(hand_on)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    _, status = os.waitpid(child, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    return status, first[0][0] if first else 0


def _handle(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    for number in STOPPING:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def _told(told: int) -> int | None:
    """The exit code that the work told before it ended; None where it did not come to that."""
    os.set_blocking(told, False)  # a process that the work has started may hold the other end
    try:
        said = os.read(told, 1)
    except BlockingIOError:
        said = b""
    finally:
        os.close(told)
    return said[0] if said else None


def _sudden_end(name: str, code: int) -> int:
    """Say how the work ended, which could not itself: its exit code, or the negative of a signal."""
    if code == -signal.SIGKILL:
        why = "killed, as by a system that runs out of memory; end other programs, or use a smaller model or less data"
    elif code < 0:
        why = (
            f"crashed in native code ({signal.Signals(-code).name}): a model file is damaged, or TensorFlow or the"
            " runtime has a defect; --verbose shows where"
        )
    else:
        why = f"the process ended itself (exit code {code}) before the work was done; no function of yours may do that"
    print(f"{name}: error: {why}", file=sys.stderr)
    return KILLED if code == -signal.SIGKILL else USER_ERROR


def _say_stopped(name: str, number: signal.Signals) -> None:
    said = "interrupted" if number == signal.SIGINT else f"stopped by {number.name}"
    with contextlib.suppress(OSError):  # a terminal that hung up
        fresh = "\n" if sys.stderr.isatty() else ""  # after what the terminal shows of the key, ^C
        print(f"{fresh}{name}: {said}", file=sys.stderr, flush=True)
