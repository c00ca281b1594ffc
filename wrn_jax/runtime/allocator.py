"""What the allocator of the C library does with the memory of a training step.

XLA's CPU backend allocates the intermediate results of a step anew each time: one block that holds nearly all of them, and
beside it what its convolutions and products work in. By default glibc gives all that back to the kernel, which clears every
page of 4 KB again in the next step: a quarter of the time. Kept in the heap as a whole it is not cleared, but small things
settle in the hole that the block leaves, so that the next one does not fit: the process grows to three times what it needs.

So the large block is the kernel's, in pages of 2 MB, which costs little, and everything smaller stays in the heap. glibc reads
these settings only when a process starts, from the variable GLIBC_TUNABLES. A command that trains or evaluates on a CPU sets it
and starts itself once more, in the same process. The package as a library changes nothing.

Imports the standard library and `cores` alone, since what was loaded before the second start is loaded twice.
"""

import contextlib
import ctypes
import os
import re
import sys
from collections.abc import Iterable, Mapping

from wrn_jax.runtime.cores import cpu_cores

SWITCH = "WRN_JAX_ALLOCATOR"
"""The environment variable that says whether to start anew: "off" for no, and "set" in the process that was."""

HELP = f"""\
On a CPU with Linux it starts itself once more, with GLIBC_TUNABLES set so that memory is taken in large pages and kept;
{SWITCH}=off: it does not."""

LARGE_BLOCK = 64 * 2**20
"""Blocks from so many bytes on are mapped by the kernel and given back when freed. A heap of glibc has 64 MiB at most."""

_ACCELERATOR = re.compile(r"nvidia\d+|dxg|kfd|accel\d+|vfio/\d+")


def restart(module: str) -> None:
    """Starts this process anew with the settings, if it is `python -m MODULE` and they are of use; else returns.

    To be called first of all: the process keeps its number and open files, and signals act as Python finds them at its start.
    """
    is_command = ("-m", module) in zip(sys.orig_argv, sys.orig_argv[1:], strict=False)
    if is_command and (changes := environment()):
        with contextlib.suppress(OSError, ValueError):  # where it cannot be, it goes on as it is
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | changes)


def give_back() -> None:
    """Gives the kernel what the heaps hold free, if this process has the settings, by which it would be kept for ever.

    After a compiler, which leaves holes of hundreds of megabytes that the blocks of a step do not fit into.
    """
    if os.environ.get(SWITCH) == "set":
        ctypes.CDLL(None).malloc_trim(0)


def environment() -> dict[str, str]:
    """What a process that trains is to find in its environment beside what this one has; empty where nothing is to change."""
    value = tunables(os.environ, _devices()) if has_glibc() else None
    return {} if value is None else {"GLIBC_TUNABLES": value, SWITCH: "set"}


def settings() -> dict[str, int]:
    """The tunables of glibc, by name, for a process on the CPU cores that this one may use."""
    return {
        "glibc.malloc.hugetlb": 1,  # pages of 2 MB where the kernel has them ("transparent huge pages"; glibc 2.35)
        # A heap for each thread that computes and one for all others, or they wait for each other.
        "glibc.malloc.arena_max": cpu_cores() + 1 if cpu_cores() > 1 else 1,
        "glibc.malloc.mmap_threshold": LARGE_BLOCK,
        "glibc.malloc.trim_threshold": 2**40,  # the end of the heap is never given back
    }


def tunables(environment: Mapping[str, str], devices: Iterable[str]) -> str | None:
    """The GLIBC_TUNABLES for a process that computes on a CPU, those of `environment` kept; None if it is to stay as it is.

    It is where it has been settled (`SWITCH`, or any MALLOC_... variable), and where JAX computes on an accelerator:
    JAX_PLATFORMS names one, or names nothing and there is one among `devices`, paths below /dev.
    """
    if SWITCH in environment or any(name.startswith("MALLOC_") for name in environment):
        return None
    platforms = environment.get("JAX_PLATFORMS", "")
    if platforms.split(",")[0] != "cpu" and (platforms or any(map(_ACCELERATOR.fullmatch, devices))):
        return None
    present = environment.get("GLIBC_TUNABLES", "")
    named = {item.split("=")[0] for item in present.split(":")}
    ours = (f"{name}={value}" for name, value in settings().items() if name not in named)
    return ":".join([*[present] * bool(present), *ours])


def has_glibc() -> bool:
    """Whether the C library is glibc 2.35 or later; in older ones the settings would do harm."""
    try:
        name, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()
        return name == "glibc" and tuple(int(number) for number in version.split(".")[:2]) >= (2, 35)
    except (AttributeError, OSError, ValueError):  # another C library: musl, macOS, Windows
        return False


def _devices() -> list[str]:
    found: list[str] = []
    for folder in ("", "vfio/"):
        with contextlib.suppress(OSError):
            found += [folder + name for name in os.listdir(f"/dev/{folder}")]
    return found
