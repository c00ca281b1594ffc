"""The weight average: an exponential moving average of parameters and BatchNorm statistics.

It is a dictionary of `params` and `batch_stats`, as those that are trained, and `count`, int32 scalar: the updates since it
began. Where the decay is 0 it follows the network, so that it begins from the network as it then is. With n updates since
then, the decay of an update is min(decay, (1 + n) / (10 + n)): the network it began from is soon forgotten, and a tenth of the
updates since then is the average's horizon until the decay itself holds (as in TensorFlow's ExponentialMovingAverage).
"""

from typing import Any

import jax
import jax.numpy as jnp


def init(params: Any, batch_stats: Any) -> dict[str, Any]:
    """The average that is this network, in arrays of its own: the state's are donated one by one."""
    copies = jax.tree.map(jnp.copy, {"params": params, "batch_stats": batch_stats})
    return copies | {"count": jnp.int32(0)}


def update(average: dict[str, Any], params: Any, batch_stats: Any, decay: jax.Array) -> dict[str, Any]:
    """The average after an update that led to this network; `decay` is a float32 scalar, traced."""
    count = average["count"]
    has_begun = decay > 0
    kept = jnp.where(has_begun, jnp.minimum(decay, (1 + count) / (10 + count)), 0.0)
    before = {"params": average["params"], "batch_stats": average["batch_stats"]}
    after = {"params": params, "batch_stats": batch_stats}
    # In this form a decay of 0 gives the very bits of the network.
    moved = jax.tree.map(lambda old, new: kept * old + (1 - kept) * new, before, after)
    return moved | {"count": jnp.where(has_begun, count + 1, 0)}
