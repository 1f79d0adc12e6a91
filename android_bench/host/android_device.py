"""Android devices by adb: a job in a folder of its own under /data/local/tmp, resumed where it was stopped.

The folder's name is a digest of the job and all its files, so the same command, started again after this process was
killed or the device lost, finds what it had begun. Whatever is there already with the right hash is not sent again, the
runner skips what it has done, and one that is still at work is waited for. A job that is collected is removed.

The runner survives lost connections. After a restart of the device, or when Android kills it, it is started again; a
task during which that happens again and again is given up as a failure, and the rest goes on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import posixpath
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from tfq_bench.adb import Adb, Result
from tfq_bench.adb_answers import DeviceError, DeviceLostError, DeviceTimeoutError
from tfq_bench.elf import ABIS, Target
from tfq_bench.job import JOB, RESULTS, RUNNER, Job, Task, file_sha256
from tfq_bench.results import Collected, Description, Record, read_results

from tfq.errors import UserError

ROOT = "/data/local/tmp/tfq"
# Of the runner, beside exit codes of 128 + signal: it was stopped.
_STOPPED, _UNUSABLE, _UNWRITABLE = 1, 2, 3
_TRIES = 3
_FIRST_PATIENCE = 15.0
_STATE, _OUTPUTS, _COLLECTED = "state", "outputs", "collected"
_PROPERTIES = (
    "ro.product.manufacturer",
    "ro.product.model",
    "ro.product.device",
    "ro.soc.manufacturer",
    "ro.soc.model",
    "ro.board.platform",
    "ro.hardware",
    "ro.build.fingerprint",
    "ro.build.version.release",
    "ro.build.version.sdk",
    "ro.product.cpu.abilist",
)


@dataclasses.dataclass(frozen=True)
class Programs:
    """What a job needs besides its files: the runner and the runtime's library, made for `target`."""

    target: Target
    runner: Path
    library: Path


def describe(serial: str, properties: Mapping[str, str], target: Target | None) -> Description:
    """What is known of a device by its properties; none of them for one that did not answer."""
    named = [properties.get(f"ro.product.{key}", "") for key in ("manufacturer", "model")]
    if named[1].lower().startswith(named[0].lower()):
        named = named[1:]
    return Description(
        name=" ".join(named).strip() or serial,
        serial=serial,
        abi=target.abi if target else "",
        system=target.system if target else "",
        emulated=emulation(properties),
        properties={name: properties[name] for name in _PROPERTIES if name in properties},
    )


def emulation(properties: Mapping[str, str]) -> str:
    """Why the device is no real phone; "" for one that looks like it."""
    fingerprint = properties.get("ro.build.fingerprint", "")
    if fingerprint.startswith("tfq/test_device/"):
        return "this is tfq's device for tests"
    if properties.get("ro.kernel.qemu") == "1" or properties.get("ro.boot.qemu") == "1":
        return "the device runs under qemu"
    if properties.get("ro.hardware", "") in ("goldfish", "ranchu", "cutf_cvm", "vbox86"):
        return f"the device is an emulator ({properties['ro.hardware']})"
    if re.match(r"generic|unknown|google/sdk_|Android/sdk_", fingerprint):
        return f"the device is an emulator ({fingerprint})"
    return ""


def find_target(adb: Adb, properties: Mapping[str, str], find: Callable[[Target], Programs]) -> Programs:
    """The programs for the first of the device's ABIs for which there are any.

    Raises UserError where there are none, for the first ABI.
    """
    bionic = adb.shell(["sh", "-c", "[ -e /system/bin/linker64 ] || [ -e /system/bin/linker ]"]).code == 0
    listed = properties.get("ro.product.cpu.abilist") or properties.get("ro.product.cpu.abi", "")
    abis = [abi for abi in listed.split(",") if abi in ABIS.values()]
    if not abis:
        raise UserError(f"device {adb.serial}: its ABI is {listed!r}; expected one of {', '.join(ABIS.values())}")
    first: UserError | None = None
    for abi in abis:
        try:
            return find(Target(abi, "android" if bionic else "linux"))
        except UserError as error:
            first = first or error
    raise UserError(f"device {adb.serial}: {first}")


def run_on_android(
    adb: Adb, job: Job, local: Path, *, find: Callable[[Target], Programs], keep: bool = False
) -> Collected:
    """Runs a job on a device and collects what it left.

    Args:
      local: an empty folder of this host's for what is sent and what comes back.
      find: the programs for a target; raises UserError where there are none.
      keep: leave the job's folder on the device.

    Raises:
      DeviceLostError: the device did not come back; the same job goes on from there.
      DeviceError: too little space, or anything else that it refused; the job's folder is removed.
      UserError: there is no runner or library for it.
    """
    # A lost device is waited for; one that is not there to begin with only for a moment.
    dataclasses.replace(adb, patience=min(adb.patience, _FIRST_PATIENCE)).connect()
    properties = adb.properties()
    programs = find_target(adb, properties, find)
    device = describe(adb.serial, properties, programs.target)
    folder = posixpath.join(ROOT, _digest(job, programs))
    try:
        collected = _run(adb, job, local, folder, device, programs)
        if keep:
            # Out of the way of the next run, which must measure anew.
            script = 'cd "$1" && shift && rm -rf "$1" && mkdir "$1" && mv "$2" "$3" "$4" "$1"'
            adb.shell(["sh", "-c", script, "sh", folder, _COLLECTED, _STATE, RESULTS, _OUTPUTS])
            return dataclasses.replace(collected, notes=(*collected.notes, f"kept on the device: {folder}"))
    except DeviceLostError as error:
        raise DeviceLostError(f"{error}; the same command continues where it stopped") from error
    except UserError:
        if not keep:
            with contextlib.suppress(DeviceError):  # what went wrong first is what is told
                adb.remove(folder)
        raise
    adb.remove(folder)
    return collected


def _run(adb: Adb, job: Job, local: Path, folder: str, device: Description, programs: Programs) -> Collected:
    before = _state(adb)
    delegate = _push(adb, job, local, folder, programs)
    given_up: dict[str, Record] = {}
    notes: list[str] = []
    stuck, done = 0, _done(adb, folder)
    while True:
        text = job.text(f"./lib/{programs.library.name}", delegate, without=given_up)
        _push_text(adb, text, local / JOB, posixpath.join(folder, JOB))
        reason = _run_once(adb, job, folder)
        if reason is None:
            break
        now = _done(adb, folder)
        notes.append(f"the runner was stopped after {now} of {len(job.tasks)} tasks and started again: {reason}")
        stuck, done = (1, now) if now > done else (stuck + 1, done)
        if stuck >= _TRIES:
            task = _at_work(adb, job, folder, local, given_up)
            if task is None:
                raise DeviceError(f"device {adb.serial}: the runner does not even start: {reason}; check --runner")
            given_up[task.id] = _gave_up(task, f"given up after {stuck} tries: {reason}")
            stuck = 0
    results = local / RESULTS
    adb.pull(posixpath.join(folder, RESULTS), results)
    machine, records = read_results(results)
    outputs: dict[str, Path] = {}
    for task in job.tasks:
        if task.outputs and records.get(task.id, {}).get("status") == "ok":
            outputs[task.outputs] = local / "back" / task.outputs
            outputs[task.outputs].parent.mkdir(parents=True, exist_ok=True)
            adb.pull(posixpath.join(folder, task.outputs), outputs[task.outputs])
    return Collected(device, machine, {**records, **given_up}, outputs, before, _state(adb), tuple(notes))


def _digest(job: Job, programs: Programs) -> str:
    digest = hashlib.sha256(job.fingerprint().encode())
    for path in (programs.runner, programs.library, job.settings.delegate):
        digest.update(file_sha256(path).encode() if path else b"none")
    return digest.hexdigest()[:16]


def _push(adb: Adb, job: Job, local: Path, folder: str, programs: Programs) -> str:
    """Sends what the job needs; the delegate's path in the job, "" for none."""
    # What jobs left that nobody collected within a week.
    adb.make_folders([ROOT])
    adb.shell(["find", ROOT, "-mindepth", "1", "-maxdepth", "1", "-mtime", "+7", "-exec", "rm", "-rf", "{}", "+"])
    tree = local / "sent"
    for name, path in job.files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).hardlink_to(path)
    (tree / "lib").mkdir(exist_ok=True)
    (tree / "lib" / programs.library.name).symlink_to(programs.library.resolve())
    (tree / RUNNER).symlink_to(programs.runner.resolve())
    delegate = ""
    if job.settings.delegate:
        delegate = f"./lib/{job.settings.delegate.name}"
        (tree / delegate).symlink_to(job.settings.delegate.resolve())
    adb.push(tree, folder)
    adb.make_folders([posixpath.join(folder, _OUTPUTS)])
    made = adb.shell(["chmod", "755", posixpath.join(folder, RUNNER)])
    if made.code:
        raise DeviceError(f"device {adb.serial}: chmod: {made.stderr.strip()}; use another device")
    return delegate


def _push_text(adb: Adb, text: str, local: Path, remote: str) -> None:
    local.write_text(text, encoding="utf-8", errors="surrogateescape")
    adb.push(local, remote)


def _run_once(adb: Adb, job: Job, folder: str) -> str | None:
    """Starts the runner, or goes on waiting for it; None when the job is done, else why it was stopped."""
    command = [posixpath.join(folder, RUNNER), JOB, RESULTS]
    try:
        ended: Result = adb.run_detached(command, folder=folder, name=_STATE, timeout=job.most_seconds())
    except (DeviceLostError, DeviceTimeoutError):
        raise
    except DeviceError as error:  # restarted, or killed together with its shell
        return str(error)
    if ended.code == 0:
        return None
    adb.remove(posixpath.join(folder, _STATE))  # or the next call would read this end again
    said = ended.stderr.strip().splitlines()[-1:] or ["no message"]
    if ended.code in (_UNUSABLE, _UNWRITABLE, 126, 127):
        raise DeviceError(f"device {adb.serial}: the runner: exit code {ended.code}: {said[0]}; nothing was measured")
    if ended.code == _STOPPED:
        return said[0]
    return f"exit code {ended.code}{f' (signal {ended.code - 128})' if ended.code > 128 else ''}"


def _done(adb: Adb, folder: str) -> int:
    """Tasks that have a record."""
    counted = adb.shell(["sh", "-c", 'grep -c "^{.kind.:.task" "$1" || true', "sh", posixpath.join(folder, RESULTS)])
    return int(counted.stdout.strip() or 0)


def _at_work(adb: Adb, job: Job, folder: str, local: Path, given_up: Mapping[str, Record]) -> Task | None:
    """The first task without a record: the one that the runner was at; None where it did not even begin."""
    results = posixpath.join(folder, RESULTS)
    if adb.shell(["test", "-s", results]).code:
        return None
    adb.pull(results, local / RESULTS)
    _, records = read_results(local / RESULTS)
    return next((task for task in job.tasks if task.id not in records and task.id not in given_up), None)


def _gave_up(task: Task, error: str) -> Record:
    """In the place of the runner's record."""
    told = {"status": "error", "stage": "device", "signal": None, "error": error, "output_tail": "", "result": None}
    return {"kind": "task", "id": task.id, "mode": task.mode, **told}


def _state(adb: Adb) -> dict[str, float]:
    """Battery and thermal state as Android's services tell it, as far as they do."""
    found: dict[str, float] = {}
    battery = adb.shell(["dumpsys", "battery"]).stdout
    for key, name, unit in (("level", "battery_percent", 1.0), ("temperature", "battery_degrees", 0.1)):
        if match := re.search(rf"^\s*{key}: (-?\d+)\s*$", battery, re.MULTILINE):
            found[name] = int(match[1]) * unit
    if match := re.search(r"Thermal Status: (\d+)", adb.shell(["dumpsys", "thermalservice"]).stdout):
        found["thermal_status"] = float(match[1])
    return found
