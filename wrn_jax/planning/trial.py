"""A recipe tried for some updates on random images, which need no data set and are the same everywhere."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wrn_jax.runtime import devices
from wrn_jax.training.setup import Setup
from wrn_jax.training.state import TrainState
from wrn_jax.training.step import jit_train_steps

STEPS = 10
"""Updates that are compared and repeated."""


class Trial:
    """A compiled step with random images, on the devices of a setup: the sharpness-aware one where all updates are so.

    Attributes:
      program: the compiled step.
      gradients: how many it takes in an update.
    """

    def __init__(self, setup: Setup):
        self.setup, batch = setup, setup.config.recipe.batch_size
        self._create = jax.jit(setup.create_state, out_shardings=setup.shardings)
        count = batch * min(STEPS, setup.timeline.steps_per_epoch)
        labels = (np.arange(count) % setup.dataset.num_classes).astype(np.int32)
        order = np.arange(count, dtype=np.int32).reshape(-1, batch)
        images = random_images(setup, count).reshape(count, -1)
        self._data = devices.replicate((images, labels, order), setup.mesh)
        always_sharp = setup.timeline.sharpness_aware_steps == setup.timeline.steps
        self.gradients = 2 if always_sharp else 1
        self.program = jit_train_steps(setup, always_sharp).lower(self.fresh(), *self._data, np.int32(1)).compile()

    def fresh(self) -> TrainState:
        """The state before the first update."""
        return self._create(jax.random.key(self.setup.config.seed))

    def steps(self, state: TrainState, count: int) -> tuple[TrainState, list[float]]:
        """The state after `count` updates, each a call of its own, and their losses. `state` is used up."""
        losses: list[Any] = []
        state = jax.device_put(jax.tree.map(jnp.copy, state), self.setup.shardings)  # a copy lies as JAX has it by default
        for _ in range(count):
            state, metrics = self.program(state, *self._data, np.int32(1))
            losses.append(metrics["loss"][0])
        return state, [float(loss) for loss in losses]

    def seconds_of_update(self, seconds: float) -> float:
        """Mean seconds of an update, of as many in a call as a run does: of three calls and of so many seconds at least."""
        count = np.int32(self.setup.steps_per_call)
        state, _ = self.steps(self.fresh(), 1)
        begin, calls = time.perf_counter(), 0
        while calls < 3 or time.perf_counter() - begin < seconds:
            state, _ = self.program(state, *self._data, count)
            jax.block_until_ready(state)
            calls += 1
        return (time.perf_counter() - begin) / calls / int(count)


def random_images(setup: Setup, count: int) -> np.ndarray:
    """`count` images of the size of the data set's, uint8 [count, H, W, C]."""
    return np.random.default_rng(0).integers(0, 256, (count, *setup.dataset.image_shape), np.uint8)
