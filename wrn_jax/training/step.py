"""The training step: pure functions, built from what never changes during a run.

The builders close over definitions only; every array is an argument. So the loop, the tests and ahead-of-time compilation
share one definition, and nothing that moves can cause a second compilation.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from wrn_jax.config import Optimizer
from wrn_jax.config.timeline import Hyperparameters
from wrn_jax.data.augment import augment
from wrn_jax.data.mixing import cutmix_box, mix, mixup_weight
from wrn_jax.runtime import devices
from wrn_jax.training import average
from wrn_jax.training.loss import mixed_correct, mixed_cross_entropy
from wrn_jax.training.setup import Setup
from wrn_jax.training.sharpness import perturbed
from wrn_jax.training.state import ORDER, STEPS, TrainState

Metrics = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Streams:
    """The random keys of one step: one for each use, all derived from the run's key and the step."""

    augmentation: jax.Array
    mixup: jax.Array
    partner: jax.Array
    dropout: jax.Array
    cutmix: jax.Array

    @classmethod
    def derive(cls, key: jax.Array, step: jax.Array) -> "Streams":
        """The keys of update `step`. `fold_in` depends on its two arguments alone, so a resumed run draws the same."""
        key = jax.random.fold_in(jax.random.fold_in(key, STEPS), step)
        return cls(*(jax.random.fold_in(key, index) for index in range(5)))


def order_key(key: jax.Array, rollbacks: int) -> jax.Array:
    """The key of the data order, from the run's key and how often the run went back to a checkpoint."""
    key = jax.random.fold_in(key, ORDER)
    return jax.random.fold_in(key, rollbacks) if rollbacks else key


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """What the network is trained on in one step, or a part of it.

    Attributes:
      images: [B, H, W, C] float32, augmented, normalised and mixed.
      labels, partner_labels: [B] int32.
      weight: float32 scalar, the weight of `labels`; under CutMix the area of the own image.
    """

    images: jax.Array
    labels: jax.Array
    partner_labels: jax.Array
    weight: jax.Array

    def split(self, count: int) -> list["Batch"]:
        """`count` batches of neighbouring images, of equal size."""
        size = len(self.labels) // count
        parts = [slice(index * size, (index + 1) * size) for index in range(count)]
        return [Batch(self.images[part], self.labels[part], self.partner_labels[part], self.weight) for part in parts]


def update(
    setup: Setup,
    state: TrainState,
    batch: Batch,
    now: Hyperparameters,
    dropout_key: jax.Array | None,
    axis_name: str | None = None,
    sharpness_aware: bool = False,
) -> tuple[TrainState, Metrics]:
    """One update of `state` on `batch`.

    Of the setup it takes network and optimiser, of the hyperparameters `now` those that neither images nor labels hold yet.
    Without a `dropout_key` nothing is dropped.
    With `axis_name`, the batch is one device's part of it and everything is averaged over that mapped axis; the network must
    then average its statistics over the same axis. With `sharpness_aware`, the gradient is taken twice, see `sharpness`.

    Returns:
      The next state and `loss`, `correct` (sum over the batch), `gradient_norm` (before clipping), `finite`, `loss_scale`.
    """
    scale = state.loss_scale.scale

    def objective(params: Any, batch: Batch, key: jax.Array | None) -> tuple[jax.Array, Any]:
        model = nnx.merge(setup.network.graphdef, params, state.batch_stats)
        logits = model(batch.images, now["dropout"], key, train=True)
        loss = mixed_cross_entropy(logits, batch.labels, batch.partner_labels, batch.weight, now["label_smoothing"])
        correct = mixed_correct(logits, batch.labels, batch.partner_labels, batch.weight)
        return loss * scale, (loss, correct, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)))

    def gradients_of(params: Any, batch: Batch, key: jax.Array | None) -> tuple[Any, Any]:
        gradients, (loss, correct, stats) = jax.grad(objective, has_aux=True)(params, batch, key)
        if axis_name is not None:
            loss, gradients = jax.lax.pmean((loss, gradients), axis_name)
            correct = jax.lax.psum(correct, axis_name)
        return jax.tree.map(lambda g: g / scale, gradients), (loss, correct, stats)

    if sharpness_aware:
        options = setup.config.optimizer
        gradients, (loss, correct, stats) = sam_gradients(options, gradients_of, state.params, batch, now, dropout_key)
    else:
        gradients, (loss, correct, stats) = gradients_of(state.params, batch, dropout_key)
    norm = optax.tree.norm(gradients)
    finite = jnp.isfinite(norm) & jnp.isfinite(loss)
    moving = {name: now[name] for name in ("learning_rate", "momentum", "weight_decay")}
    updates, opt_state = setup.optimizer.update(gradients, state.opt_state, state.params, **moving)
    params: Any = optax.apply_updates(state.params, updates)
    averaged = state.average
    if averaged is not None:
        averaged = average.update(averaged, params, stats, now["average_decay"])
    loss_scale = state.loss_scale
    if setup.network.dtype == "float16":
        # An overflow is expected now and then: leave everything as it was, and lower the scale.
        old = (state.params, state.batch_stats, state.opt_state, state.average)
        params, stats, opt_state, averaged = jax.tree.map(
            lambda new, before: jnp.where(finite, new, before), (params, stats, opt_state, averaged), old
        )
        loss_scale = loss_scale.adjust(finite)
    after = TrainState(
        step=state.step + 1,
        params=params,
        batch_stats=stats,
        opt_state=opt_state,
        loss_scale=loss_scale,
        key=state.key,
        average=averaged,
    )
    metrics = {"loss": loss, "correct": correct, "gradient_norm": norm, "finite": finite, "loss_scale": scale}
    return after, metrics


def sam_gradients(
    options: Optimizer,
    gradients_of: Callable[[Any, Batch, jax.Array | None], tuple[Any, Any]],
    params: Any,
    batch: Batch,
    now: Hyperparameters,
    dropout_key: jax.Array | None,
) -> tuple[Any, Any]:
    """The gradients of sharpness-aware minimisation: those at the parameters perturbed by the gradients of `batch`.

    Each group of `options.sam_group` images (none: the whole batch) goes up its own gradient, with dropout masks of its own;
    the second ones are averaged.

    Args:
      options: the group, and whether the perturbation is adaptive.
      gradients_of: from parameters, batch and dropout key to the gradients and (loss, correct, statistics).
      params: where the step begins.
      batch: whose size the group divides.
      now: for `sam_rho`.
      dropout_key: of the step, if it has dropout.

    Returns:
      What `gradients_of` does: the second gradients, but loss, correct and statistics at `params` themselves.
    """
    count = 1 if options.sam_group is None else len(batch.labels) // options.sam_group
    keys = [dropout_key] * count if count == 1 or dropout_key is None else jax.random.split(dropout_key, count)
    results = []
    for part, key in zip(batch.split(count), keys, strict=True):
        first, (loss, correct, stats) = gradients_of(params, part, key)
        above = perturbed(params, first, now["sam_rho"], options.sam_adaptive)
        second, _ = gradients_of(above, part, key)
        results.append((second, (loss, count * correct, stats)))
    return jax.tree.map(lambda *parts: sum(parts) / count, *results)


def make_train_step(
    setup: Setup,
    sharpness_aware: bool = False,
) -> Callable[[TrainState, jax.Array, jax.Array, jax.Array], tuple[TrainState, Metrics]]:
    """Builds the training step, to be jitted with its first argument donated.

    The step takes
      state: the state before the update, laid out as `Setup.shardings` says,
      images: [N, H * W * C] uint8 (or [N, H, W, C]), the whole training set,
      labels: [N] int32,
      order: [steps_per_epoch, B] int32, the order of this epoch,
    and returns the next state and the metrics of `update`, the hyperparameters it used, and `examples`, all scalars.
    """
    sharded = devices.batch_sharded(setup.mesh)

    def train_step(state: TrainState, images: jax.Array, labels: jax.Array, order: jax.Array):
        now = setup.timeline.at(state.step)
        streams = Streams.derive(state.key, state.step)
        chosen = jax.lax.with_sharding_constraint(order[state.step % order.shape[0]], sharded)
        # Rows of bytes: as a [N, H, W, C] array the compiler for TPU would rearrange the whole set, in every step.
        pixels = images.reshape(len(images), -1)[chosen].reshape(-1, *setup.dataset.image_shape)
        # Bytes, as the partners of mixup may be on any device, and all have to travel.
        mean, used = setup.normalisation.mean, setup.timeline.probabilities
        augmented = augment(pixels, streams.augmentation, now.strengths, mean, used)
        pixel_weight = weight = mixup_weight(streams.mixup, now["mixup_alpha"])
        if setup.timeline.uses("cutmix_probability"):
            pixel_weight, weight = cutmix_or_mixup(streams.cutmix, now, weight, setup.dataset.image_shape)
        partner = jax.random.permutation(streams.partner, chosen.shape[0])
        # Normalising is affine and the weights sum to one, so it may come last, and the images travel as they are.
        mixed = setup.normalisation(mix(augmented, partner, pixel_weight))
        batch = Batch(
            images=jax.lax.with_sharding_constraint(mixed, sharded),
            labels=labels[chosen],
            partner_labels=labels[chosen][partner],
            weight=weight,
        )
        dropout_key = streams.dropout if setup.timeline.uses("dropout") else None
        state, metrics = update(setup, state, batch, now, dropout_key, sharpness_aware=sharpness_aware)
        metrics |= now.values
        metrics["examples"] = jnp.int32(chosen.shape[0])
        return state, metrics

    return train_step


def cutmix_or_mixup(
    key: jax.Array, now: Hyperparameters, mixup: jax.Array, image_shape: tuple[int, ...]
) -> tuple[jax.Array, jax.Array]:
    """The weight of a batch's own images, for each pixel [1, H, W, 1] and for their labels; `mixup` is that of mixup."""
    height, width, _ = image_shape
    choice_key, box_key = jax.random.split(key)
    is_cut = jax.random.uniform(choice_key) < now["cutmix_probability"]
    own = ~cutmix_box(box_key, now["cutmix_alpha"], height, width)
    return jnp.where(is_cut, own[None, :, :, None].astype(jnp.float32), mixup), jnp.where(is_cut, own.mean(), mixup)


def repeat(train_step: Callable[..., tuple[TrainState, Metrics]], limit: int) -> Callable[..., tuple[TrainState, Metrics]]:
    """A function that does up to `limit` training steps in one call, so that a fast device does not wait for Python.

    It takes the arguments of `train_step` and `count`, an int32 scalar in 1..`limit`, and returns the last state and the
    metrics of all steps, each [limit], zeros from `count` on. The steps must lie in one epoch. How many it does is no part
    of the compiled program: the rest of an epoch needs no second one. With `limit` 1 there is no loop, in which XLA's
    convolutions are slow on a CPU.
    """

    def train_steps(state: TrainState, images: jax.Array, labels: jax.Array, order: jax.Array, count: jax.Array):
        if limit == 1:
            state, metrics = train_step(state, images, labels, order)
            return state, jax.tree.map(lambda value: value[None], metrics)
        _, shapes = jax.eval_shape(train_step, state, images, labels, order)
        rows = jax.tree.map(lambda shape: jnp.zeros((limit, *shape.shape), shape.dtype), shapes)

        def body(index: jax.Array, carry: Any) -> Any:
            state, rows = carry
            state, metrics = train_step(state, images, labels, order)
            return state, jax.tree.map(lambda row, value: row.at[index].set(value), rows, metrics)

        return jax.lax.fori_loop(0, count, body, (state, rows))

    return train_steps


def jit_train_steps(setup: Setup, sharpness_aware: bool = False) -> Any:
    """`repeat` of `make_train_step`, jitted as every run does: the state is donated and comes back laid out as it was."""
    return jax.jit(
        repeat(make_train_step(setup, sharpness_aware), setup.steps_per_call),
        donate_argnums=0,
        out_shardings=(setup.shardings, devices.replicated(setup.mesh)),
        compiler_options=devices.compiler_options(setup.mesh),
    )
