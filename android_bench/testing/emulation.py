"""An arm64 phone's programs on another machine: qemu-user with a sysroot of the cross compiler's libraries.

Scope: Linux's arm64 ABI with glibc, not Android's bionic. The CPU is a Cortex-A76 and nothing more: with `-cpu max`
qemu 7.2 computes wrong int8 products in XNNPACK's SME kernels. libLiteRt reads /proc/cpuinfo and crashes where that is
not an ARM one, so the sysroot holds one, which claims the features that qemu's Cortex-A76 has (AT_HWCAP 0x119ffb).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

CPU = "cortex-a76"
FEATURES = "fp asimd aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
# Where Debian's and Ubuntu's cross compilers put the target's libraries (package libc6-arm64-cross).
TOOLCHAIN = Path("/usr/aarch64-linux-gnu")


def missing() -> str:
    """What emulation needs and this machine lacks, as a text; empty where everything is there."""
    programs = [program for program in ("qemu-aarch64", "cc") if shutil.which(program) is None]
    libraries = [] if (TOOLCHAIN / "lib/ld-linux-aarch64.so.1").exists() else [f"{TOOLCHAIN}/lib"]
    return ", ".join([*programs, *libraries])


def make_sysroot(folder: Path) -> Path:
    """Makes `folder` a sysroot for `qemu-aarch64 -L`: the cross compiler's libraries and an ARM /proc/cpuinfo."""
    (folder / "proc").mkdir(parents=True)
    (folder / "lib").symlink_to(TOOLCHAIN / "lib")
    processor = (
        "processor\t: {}\nBogoMIPS\t: 100.00\n"
        f"Features\t: {FEATURES}\n"
        "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x3\nCPU part\t: 0xd0b\nCPU revision\t: 1\n\n"
    )
    text = "".join(processor.format(number) for number in range(os.cpu_count() or 1))
    (folder / "proc/cpuinfo").write_text(text, encoding="utf-8")
    return folder


def make_preload(folder: Path, sysroot: Path) -> Path:
    """Compiles the library that, preloaded into a shell, sends arm64 programs to qemu (exec_arm64.c)."""
    if lacking := missing():
        raise RuntimeError(f"an arm64 test device needs {lacking} (Debian: qemu-user gcc libc6-arm64-cross)")
    library = folder / "exec_arm64.so"
    defines = {"QEMU": shutil.which("qemu-aarch64"), "SYSROOT": sysroot, "CPU": CPU}
    command = ["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", *(f'-D{k}="{v}"' for k, v in defines.items())]
    source = Path(__file__).with_name("exec_arm64.c")
    subprocess.run([*command, "-o", str(library), str(source), "-ldl"], check=True)
    return library
