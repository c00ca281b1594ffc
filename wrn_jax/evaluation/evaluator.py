"""Evaluation of a whole split, every image exactly once."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from wrn_jax.data.loading import Split
from wrn_jax.data.normalisation import Normalisation
from wrn_jax.runtime import devices

Batches = list[tuple[jax.Array, jax.Array]]


def masked_counts(logits: jax.Array, labels: jax.Array, mask: jax.Array) -> dict[str, jax.Array]:
    """Sums over the images with `mask` 1: `loss` (plain cross-entropy), `correct`, `top5`, `count`; float32 scalars.

    A label counts as among the top five when fewer than five classes score strictly higher; where the logits are not
    finite, nothing counts as right.

    Args:
      logits: [B, classes] float32.
      labels: [B] int32.
      mask: [B] float32, 0 for padding.
    """
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    own = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    finite = jnp.isfinite(logits).all(axis=-1)
    return {
        "loss": jnp.sum(losses * mask),
        "correct": jnp.sum((logits.argmax(-1) == labels) * finite * mask),
        "top5": jnp.sum((jnp.sum(logits > own, axis=-1) < 5) * finite * mask),
        "count": jnp.sum(mask),
    }


def make_eval_step(
    graphdef: nnx.GraphDef, normalisation: Normalisation
) -> Callable[[dict[str, Any], dict[str, Any], jax.Array, jax.Array], dict[str, jax.Array]]:
    """Builds the evaluation step.

    The step takes parameters, running statistics, images [B, H, W, C] uint8 and labels [B] int32 with -1 on padding, and
    returns the sums of `masked_counts` over the images that are no padding.
    """
    logits_step = make_logits_step(graphdef, normalisation)

    def eval_step(
        params: dict[str, Any], batch_stats: dict[str, Any], images: jax.Array, labels: jax.Array
    ) -> dict[str, jax.Array]:
        logits = logits_step(params, batch_stats, images)
        return masked_counts(logits, jnp.maximum(labels, 0), (labels >= 0).astype(jnp.float32))

    return eval_step


def make_logits_step(
    graphdef: nnx.GraphDef, normalisation: Normalisation
) -> Callable[[dict[str, Any], dict[str, Any], jax.Array], jax.Array]:
    """Builds the step from parameters, running statistics and images [B, H, W, C] uint8 to logits [B, classes] float32."""

    def logits_step(params: dict[str, Any], batch_stats: dict[str, Any], images: jax.Array) -> jax.Array:
        return nnx.merge(graphdef, params, batch_stats)(normalisation(images))

    return logits_step


class Evaluator:
    """Evaluates parameters on splits.

    Args:
      graphdef: the network's definition.
      normalisation: of the images.
      batch_size: images per step over all devices; rounded up to a multiple of their number.
      mesh: the devices.
    """

    def __init__(self, graphdef: nnx.GraphDef, normalisation: Normalisation, batch_size: int, mesh: Mesh):
        self._batch_size = -(-batch_size // mesh.size) * mesh.size
        self._sharding = devices.batch_sharded(mesh)
        compiler_options = devices.compiler_options(mesh)
        self._step: Any = jax.jit(make_eval_step(graphdef, normalisation), compiler_options=compiler_options)
        self._logits_step = jax.jit(make_logits_step(graphdef, normalisation), compiler_options=compiler_options)

    def put(self, split: Split) -> Batches:
        """The split on the devices as batches of one size; the last is padded, with label -1 on the padding."""
        size = self._batch_size
        pairs = zip(self._batches(split.images, 0, size), self._batches(split.labels, -1, size), strict=True)
        return [(self._place(images), self._place(labels)) for images, labels in pairs]

    def compile(self, params: Any, batch_stats: Any, batches: Batches) -> None:
        """Compiles the evaluation of networks and batches of these shapes, and from then on of no others."""
        self._step = self._step.lower(params, batch_stats, *batches[0]).compile()

    def __call__(
        self, params: Any, batch_stats: Any, batches: Batches, check: Callable[[], None] = lambda: None
    ) -> dict[str, float]:
        """`loss` (mean cross-entropy), `accuracy` and `top5` (0..1), `count` (images) over all batches of `put`.

        `check` is called before every batch; what it raises ends the evaluation, with two batches on the devices at most.
        """
        sums: list[dict[str, jax.Array]] = []
        for images, labels in batches:
            if len(sums) > 1:
                jax.block_until_ready(sums[-2])
            check()
            sums.append(self._step(params, batch_stats, images, labels))
        # Sums of a batch are exact or nearly so in float32; over the batches they are added in float64.
        totals = {name: sum(float(s[name]) for s in sums) for name in ("loss", "correct", "top5", "count")}
        count = totals["count"]
        return {
            "loss": totals["loss"] / count,
            "accuracy": totals["correct"] / count,
            "top5": totals["top5"] / count,
            "count": count,
        }

    def logits(self, params: Any, batch_stats: Any, images: np.ndarray, batch_size: int | None = None) -> Iterator[np.ndarray]:
        """The logits of images [N, H, W, C] uint8 on the host, in their order: [n, classes] float32 for every batch of n.

        Two batches are on the devices at a time. Every batch has the same shape, so there is one compilation; `batch_size`, a
        multiple of the number of devices, is another one than the evaluator's.
        """
        waiting, size = None, batch_size or self._batch_size
        for batch in self._batches(images, 0, size):
            coming = self._logits_step(params, batch_stats, self._place(batch))
            if waiting is not None:
                yield np.asarray(waiting)
            waiting = coming
        if waiting is not None:
            yield np.asarray(waiting)[: (len(images) - 1) % size + 1]

    def _batches(self, array: np.ndarray, filler: int, size: int) -> Iterator[np.ndarray]:
        """Batches of one size; what the last one lacks is `filler`."""
        for start in range(0, len(array), size):
            batch = array[start : start + size]
            padding = [(0, size - len(batch))] + [(0, 0)] * (array.ndim - 1)
            yield np.pad(batch, padding, constant_values=filler) if len(batch) < size else batch

    def _place(self, array: np.ndarray) -> jax.Array:
        return jax.make_array_from_callback(array.shape, self._sharding, lambda index: array[index])
