"""How long an update takes on the devices that are here: `python -m wrn_jax.studies.measure` with the arguments of a training.

It trains on made-up images for some seconds, writes no file, and prints one JSON object.
"""

from wrn_jax.runtime import allocator

if __name__ == "__main__":
    allocator.restart("wrn_jax.studies.measure")

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from wrn_jax.data import own_classes
from wrn_jax.planning.trial import Trial
from wrn_jax.runtime import devices, environment
from wrn_jax.runtime.errors import UserError
from wrn_jax.studies.engine import Place
from wrn_jax.training.records import describe_hardware
from wrn_jax.training.setup import divide_cpu, make_setup

SECONDS = 5.0
"""That are measured at least, beside the first call."""


def main(arguments: Sequence[str]) -> None:
    """Measures the recipe that `--config FILE --config.KEY=VALUE ...` names, and prints the figures."""
    config = own_classes.read_config(arguments[1], arguments[2:])
    divide_cpu(config)
    setup = make_setup(config, devices.make_mesh(config.devices))
    trial = Trial(setup)
    seconds = trial.seconds_of_update(SECONDS)
    hardware = environment.hardware() | {"devices_used": setup.mesh.size}
    print(json.dumps({"seconds": seconds, "gradients": trial.gradients, "where": describe_hardware(hardware)}))


def seconds_of_update(arguments: Sequence[str], place: Place) -> tuple[float, int, str]:
    """Seconds of an update of a recipe, the gradients that it takes, and on what, as a process measures in `place`.

    Raises UserError.
    """
    command = [sys.executable, "-m", "wrn_jax.studies.measure", *arguments]
    with place.entered() as environment:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment)
    try:
        figures: Any = json.loads(done.stdout.splitlines()[-1])
        return figures["seconds"], figures["gradients"], figures["where"]
    except (ValueError, IndexError, KeyError):
        said = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        raise UserError(f"{arguments[1]}: the time of an update cannot be measured here: {said[:200]}") from None


if __name__ == "__main__":
    main(sys.argv[1:])
