"""The allocator: what a process freed is used again, unless its environment settles that."""

import os
import subprocess
import sys

import pytest

# JAX allocates in threads of its own, which would have arenas of their own.
CODE = """
import ctypes, resource, threading
from wrn_jax.runtime import allocator
done = {call}
c = ctypes.CDLL(None)
c.malloc.restype, c.malloc.argtypes, c.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
found = []
def use():
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        block = c.malloc(2**26)
        ctypes.memset(block, 1, 2**26)
        c.free(block)
        found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
thread = threading.Thread(target=use)
thread.start()
thread.join()
print(done, found[-1])
"""


def done_and_pages(call, **environment):
    """What `call` returned, and how many pages a block of 64 MB then took from the kernel at its third use."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    code = [sys.executable, "-c", CODE.format(call=call)]
    done = subprocess.run(code, capture_output=True, text=True, check=True, env=inherited | environment)
    found, pages = done.stdout.split()
    return found, int(pages)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_memory_is_used_again():
    assert done_and_pages("None")[1] > 20  # all of them: 16,384 of 4 KB, or 32 where the kernel gives 2 MB at once
    done, pages = done_and_pages("allocator.keep_freed_memory()")
    assert (done, pages < 10) == ("True", True)


@pytest.mark.parametrize("setting", [{"MALLOC_ARENA_MAX": "4"}, {"GLIBC_TUNABLES": "glibc.malloc.arena_max=4"}])
def test_settings_of_the_environment_stay(setting):
    assert done_and_pages("allocator.keep_freed_memory()", **setting)[0] == "False"
