"""The CPU cores of this process. Imports nothing but the standard library, as `allocator` asks."""

import os


def cpu_cores() -> int:
    """The CPU cores that the process may use; XLA divides loops among as many threads."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
