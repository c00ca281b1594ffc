"""`python -m tests.restarting CODE ...`: starts itself anew as a command does, then runs the code."""

import sys

from wrn_jax.runtime import allocator

if __name__ == "__main__":
    allocator.restart("tests.restarting")
    exec(sys.argv[1])
