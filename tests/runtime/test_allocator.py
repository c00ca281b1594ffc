"""The allocator: a command starts itself once more with settings that keep memory, and nobody notices otherwise."""

import os
import subprocess
import sys

import pytest

from wrn_jax.runtime import allocator

OURS = ":".join(f"{name}={value}" for name, value in allocator.settings().items())
WITH_GLIBC = pytest.mark.skipif(not allocator.has_glibc(), reason="glibc's allocator")

# JAX allocates in threads of its own, which have heaps of their own; those hold less than 64 MB in one piece.
USE = """
import ctypes, resource, threading
c = ctypes.CDLL(None)
c.malloc.restype, c.malloc.argtypes, c.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
found = []
def use():
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        block = c.malloc(3 * 2**24)
        ctypes.memset(block, 1, 3 * 2**24)
        c.free(block)
        found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
thread = threading.Thread(target=use)
thread.start()
thread.join()
print(found[-1])
"""


FREED = """
import ctypes, os
from wrn_jax.runtime import allocator
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 2**20
c = ctypes.CDLL(None)
c.malloc.restype, c.malloc.argtypes, c.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
blocks = [c.malloc(2**22) for _ in range(50)]
for block in blocks:
    ctypes.memset(block, 1, 2**22)
full = resident()
for block in blocks[:-1]:  # the last one lies behind the hole
    c.free(block)
kept = resident()
allocator.give_back()
print(full - kept, kept - resident())
"""


def settled_by_nobody():
    """The environment without what settles the allocator."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_", "WRN_JAX_ALL"))}


def run(code, *arguments, shell='exec "$@"', options=(), given=None, **environment):
    """Runs Python code after the start of a command, by these words of a shell: (exit code, standard output, errors)."""
    command = ["bash", "-c", shell, "bash", sys.executable, *options, "-m", "tests.restarting", code, *arguments]
    environment = settled_by_nobody() | {"JAX_PLATFORMS": "cpu"} | environment
    done = subprocess.run(command, capture_output=True, env=environment, input=given, timeout=20)
    return done.returncode, done.stdout, done.stderr


@WITH_GLIBC
def test_memory_is_used_again():
    assert int(run(USE, WRN_JAX_ALLOCATOR="off")[1]) > 20  # all of it: 12,288 pages of 4 KB, or 24 of 2 MB
    assert int(run(USE)[1]) < 10


@WITH_GLIBC
def test_what_is_free_is_given_back_when_told_so():
    alone, told = map(int, run(FREED)[1].split())  # MiB
    assert alone < 20
    assert 150 < told <= 200


@WITH_GLIBC
def test_it_stays_the_process_that_it_was():
    code = (
        "import os, signal, sys, subprocess\n"
        "from pathlib import Path\n"
        "print(os.getpid() == int(sys.argv[2]), os.environ['GLIBC_TUNABLES'], os.environ['WRN_JAX_ALLOCATOR'])\n"
        "print(sys.argv[3:], sys.flags.utf8_mode, sys.stdin.read(), Path('/proc/self/fd/7').exists())\n"
        "print(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN, signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)\n"
        "print('said', file=sys.stderr)\n"
        "sys.exit(75)"
    )
    # The number of the shell, which becomes the command.
    shell = """exec 7</dev/null; trap '' HUP; exec "${@:1:5}" $$ "${@:6}\""""
    code, output, errors = run(code, "a b", "\udcff", "", shell=shell, options=["-Xutf8"], given=b"typed")
    first, second, third = output.decode("utf8", "replace").splitlines()
    assert (code, errors) == (75, b"said\n")
    assert first == f"True {OURS} set"
    assert second == "['a b', '\\udcff', ''] 1 typed True"
    assert third == "True True"


@WITH_GLIBC
def test_it_does_so_once_and_children_do_not_again():
    code = (
        "import os, subprocess, sys\n"
        "os.environ['GLIBC_TUNABLES'] = ''\n"
        "child = [sys.executable, '-m', 'tests.restarting', 'import os; print(repr(os.environ[\"GLIBC_TUNABLES\"]))']\n"
        "subprocess.run(child, check=True)"
    )
    assert run(code)[:2] == (0, b"''\n")


def test_only_a_command_does():
    code = "import runpy, sys; sys.argv[1:] = ['print(0)']; runpy.run_module('tests.restarting', run_name='__main__')"
    command = [sys.executable, "-c", f"import os; os.execve = None\n{code}"]
    done = subprocess.run(command, capture_output=True, env=settled_by_nobody() | {"JAX_PLATFORMS": "cpu"}, check=True)
    assert done.stdout == b"0\n"


def test_where_it_cannot_start_anew_it_goes_on(monkeypatch):
    asked = []

    def refuse(*arguments):
        asked.append(arguments)
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(allocator, "tunables", lambda *arguments: OURS)
    monkeypatch.setattr(allocator, "has_glibc", lambda: True)
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "some"])
    monkeypatch.setattr(os, "execve", refuse)
    allocator.restart("some")
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("environment", "devices"),
    [
        ({"WRN_JAX_ALLOCATOR": "off"}, []),
        ({"WRN_JAX_ALLOCATOR": "set"}, []),
        ({"MALLOC_ARENA_MAX": "4"}, []),
        ({"JAX_PLATFORMS": "cuda,cpu"}, []),
        ({}, ["null", "nvidia0"]),
        ({}, ["accel3"]),
        ({}, ["vfio/7"]),
        ({}, ["kfd"]),
    ],
)
def test_what_is_settled_or_computes_elsewhere_stays(environment, devices):
    assert allocator.tunables(environment, devices) is None


@pytest.mark.parametrize(
    ("environment", "devices"),
    [({}, ["null", "nvidiactl", "accel", "vfio/vfio"]), ({"JAX_PLATFORMS": "cpu"}, ["nvidia0"])],
)
def test_a_cpu_has_the_settings(environment, devices):
    assert allocator.tunables(environment, devices) == OURS


def test_tunables_of_the_user_are_kept():
    found = allocator.tunables({"GLIBC_TUNABLES": "glibc.malloc.arena_max=4:glibc.rtld.nns=2"}, [])
    assert found is not None
    assert found.startswith("glibc.malloc.arena_max=4:glibc.rtld.nns=2:glibc.malloc.hugetlb=1:")
    assert found.count("arena_max") == 1


@pytest.mark.parametrize(("version", "good"), [("glibc 2.36", True), ("glibc 2.34", False), (None, False)])
def test_old_and_other_libraries_are_left_alone(monkeypatch, version, good):
    monkeypatch.setattr(os, "confstr", lambda name: version)
    assert allocator.has_glibc() is good
