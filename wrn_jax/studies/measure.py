"""How long an update takes on the devices that are here: `python -m wrn_jax.studies.measure` with the arguments of a training.

It trains on made-up images for some seconds, writes no file, and prints one JSON object.
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from wrn_jax.data import own_classes
from wrn_jax.runtime import devices, environment
from wrn_jax.runtime.errors import UserError
from wrn_jax.training.setup import make_setup
from wrn_jax.training.step import jit_train_steps

SECONDS = 5.0
"""That are measured at least, beside the first call."""


def main(arguments: Sequence[str]) -> None:
    """Measures the recipe that `--config FILE --config.KEY=VALUE ...` names, and prints the figures."""
    config = own_classes.read_config(arguments[1], arguments[2:])
    setup = make_setup(config, devices.make_mesh(config.devices))
    state = jax.jit(setup.create_state, out_shardings=setup.shardings)(jax.random.key(0))
    batch_size, steps = setup.config.recipe.batch_size, setup.timeline.steps_per_epoch
    images = np.zeros((setup.num_train, int(np.prod(setup.dataset.image_shape))), np.uint8)
    order = (np.arange(steps * batch_size, dtype=np.int32) % setup.num_train).reshape(steps, batch_size)
    data = devices.replicate((images, np.zeros(setup.num_train, np.int32), order), setup.mesh)
    count = np.int32(min(setup.steps_per_call, steps))
    train_steps = jit_train_steps(setup).lower(state, *data, count).compile()
    state, _ = train_steps(state, *data, count)
    jax.block_until_ready(state)
    begin, calls = time.perf_counter(), 0
    while calls < 3 or time.perf_counter() - begin < SECONDS:
        state, _ = train_steps(state, *data, count)
        jax.block_until_ready(state)
        calls += 1
    seconds = (time.perf_counter() - begin) / calls / int(count)
    hardware = environment.hardware()
    print(json.dumps({"seconds": seconds, "where": f"{setup.mesh.size} x {hardware['device']} ({hardware['platform']})"}))


def seconds_of_update(arguments: Sequence[str]) -> tuple[float, str]:
    """Seconds of an update of a recipe, and on what; as a process measures that then ends. Raises UserError."""
    command = [sys.executable, "-m", "wrn_jax.studies.measure", *arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    try:
        figures: Any = json.loads(done.stdout.splitlines()[-1])
        return figures["seconds"], figures["where"]
    except (ValueError, IndexError, KeyError):
        said = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        raise UserError(f"{arguments[1]}: the time of an update cannot be measured here: {said[:200]}") from None


if __name__ == "__main__":
    main(sys.argv[1:])
