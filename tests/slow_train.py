"""The training command with a pause after every step, so that a test can interrupt it where it means to, and no picture."""

from wrn_jax.runtime import entry

if __name__ == "__main__":
    entry.begin("train")

import sys
import time

from wrn_jax import command, train
from wrn_jax.training import loop

PAUSE = 0.1  # seconds


def pausing(read_step):
    """`read_step`, and then a pause."""

    def read(*arguments):
        read_step(*arguments)
        time.sleep(PAUSE)

    return read


if __name__ == "__main__":
    loop.read_step = pausing(loop.read_step)
    loop.draw = lambda attempt: None
    sys.exit(command.run(train.main, "train"))
