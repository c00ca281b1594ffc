"""Evaluation of a whole split: every image counts exactly once."""

from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from wrn_jax import mesh as meshes
from wrn_jax.data import Split
from wrn_jax.step import Normalisation, make_eval_step

Batches = list[tuple[jax.Array, jax.Array]]


class Evaluator:
    """Evaluates parameters on splits that lie on the devices.

    Args:
      graphdef: the network's definition.
      normalisation: of the images.
      batch_size: images per step over all devices; rounded up to a multiple of their number.
      mesh: the devices.
    """

    def __init__(self, graphdef: nnx.GraphDef, normalisation: Normalisation, batch_size: int, mesh: Mesh):
        self._batch_size = -(-batch_size // mesh.size) * mesh.size
        self._sharding = meshes.batch_sharded(mesh)
        self._step = jax.jit(make_eval_step(graphdef, normalisation))

    def put(self, split: Split) -> Batches:
        """The split on the devices as batches of one size; the last is padded, with label -1 on the padding."""
        padding = -len(split.labels) % self._batch_size
        images = np.pad(split.images, ((0, padding), (0, 0), (0, 0), (0, 0)))
        labels = np.pad(split.labels, (0, padding), constant_values=-1)
        place = lambda array: jax.make_array_from_callback(array.shape, self._sharding, lambda index: array[index])  # noqa: E731
        starts = range(0, len(labels), self._batch_size)
        return [(place(images[i : i + self._batch_size]), place(labels[i : i + self._batch_size])) for i in starts]

    def __call__(self, params: Any, batch_stats: Any, batches: Batches) -> dict[str, float]:
        """`loss` (mean cross-entropy), `accuracy` and `top5` (0..1), `count` (images) over all batches of `put`."""
        sums = [self._step(params, batch_stats, images, labels) for images, labels in batches]
        # Sums of a batch are exact or nearly so in float32; over the batches they are added in float64.
        totals = {name: sum(float(s[name]) for s in sums) for name in ("loss", "correct", "top5", "count")}
        count = totals["count"]
        return {
            "loss": totals["loss"] / count,
            "accuracy": totals["correct"] / count,
            "top5": totals["top5"] / count,
            "count": count,
        }
