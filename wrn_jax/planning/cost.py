"""What a recipe costs: operations and memory, counted from shapes alone."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from wrn_jax.config import Config, Model, datasets
from wrn_jax.config.timeline import Timeline
from wrn_jax.models.network import Network
from wrn_jax.planning import hlo
from wrn_jax.training.setup import Setup


def run_operations(setup: Setup) -> int:
    """Operations of all updates of a run: the backward pass counted as twice the forward pass, two gradients as twice one."""
    return 3 * forward_operations(setup.network, setup.dataset.image_shape) * _images(setup.config, setup.timeline)


def recipe_operations(config: Config, timeline: Timeline, steps: int | None = None) -> int:
    """As `run_operations`, of a recipe that need not be set up, or of its first `steps` updates.

    Networks that are alike are counted once.
    """
    info = datasets.info(config.data)
    model = dataclasses.replace(config.model, num_classes=config.model.num_classes or info.num_classes)
    return 3 * _forward_operations(model, info.image_shape) * _images(config, timeline, steps)


@functools.lru_cache(maxsize=64)
def _forward_operations(model: Model, image_shape: tuple[int, ...]) -> int:
    return forward_operations(Network(model, model.num_classes or 0, "float32"), image_shape)


def _images(config: Config, timeline: Timeline, steps: int | None = None) -> int:
    twice = timeline.sharpness_aware_steps if steps is None else int(timeline.sharpness_aware(range(steps)).sum())
    return ((timeline.steps if steps is None else steps) + twice) * config.recipe.batch_size


ALWAYS_KEPT = 3
"""Checkpoints that a run has beside those of its recipe: the best, and the last two."""


def run_bytes(setup: Setup, for_others: int = 0) -> int:
    """Bytes of the checkpoints of a run, at most; `for_others`: how many more it keeps, from which other runs go on."""
    timeline, config = setup.timeline, setup.config
    kept = len(timeline.checkpoint_epochs) + for_others + ALWAYS_KEPT
    if not (config.checkpoint_steps or config.checkpoint_minutes):  # none within an epoch
        kept = min(timeline.epochs, kept)
    return (kept + 1) * state_bytes(setup.abstract_state)  # one more while it is being saved


def state_bytes(state: Any) -> int:
    """Bytes of the arrays of a state, which may be `jax.ShapeDtypeStruct`s."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


@functools.lru_cache(maxsize=8)  # a plan asks twice, and tracing takes half a second
def forward_operations(network: Network, image_shape: tuple[int, ...]) -> int:
    """Operations of one image's forward pass in convolutions and matrix products, a multiplication and an addition each.

    Counted from the lowered program, so it is right for every depth, width and number of classes.
    """

    def forward(params: Any, stats: Any, images: jax.Array) -> jax.Array:
        return nnx.merge(network.graphdef, params, stats)(images)

    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    lowered = jax.jit(forward).trace(network.params, network.batch_stats, image).lower(lowering_platforms=("cpu",))
    return sum(times * work.matrix.total() for work, times in hlo.parse(lowered.as_text("hlo")).kernels())
