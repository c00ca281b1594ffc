"""The network of a configuration, before it has values."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from wrn_jax.config.schema import Model
from wrn_jax.models.wide_resnet import WideResNet


def split(model: WideResNet) -> tuple[nnx.GraphDef, dict[str, Any], dict[str, Any]]:
    """The network as (definition, parameters, running statistics), the latter two nested dictionaries of arrays."""
    graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    return graphdef, nnx.to_pure_dict(params), nnx.to_pure_dict(stats)


class Network:
    """The network of a configuration before it has values.

    Args:
      config: depth, width, normalisation groups, what is recomputed.
      num_classes: outputs where the configuration leaves them open.
      dtype: compute type, "float32", "bfloat16" or "float16".
      batch_mesh: the devices that the batch is split over, if there are several.
      pack_dropout: whether training is on accelerators; see `wide_resnet.packed_relu_dropout`.

    Attributes:
      graphdef: the definition, for `nnx.merge`.
      params, batch_stats: nested dictionaries of `jax.ShapeDtypeStruct`.
      dtype: the compute type.
    """

    def __init__(
        self,
        config: Model,
        num_classes: int,
        dtype: str,
        batch_mesh: Mesh | None = None,
        pack_dropout: bool = False,
    ):
        self.build = lambda key: WideResNet(
            config.depth,
            config.widen_factor,
            config.num_classes or num_classes,
            dtype=jnp.dtype(dtype),
            batch_norm_groups=config.batch_norm_groups,
            recompute=config.recompute == "blocks",
            batch_mesh=batch_mesh,
            pack_dropout=pack_dropout,
            rngs=nnx.Rngs(params=key),
        )
        self.dtype = dtype
        self.graphdef, self.params, self.batch_stats = split(nnx.eval_shape(lambda: self.build(jax.random.key(0))))

    @property
    def num_parameters(self) -> int:
        """Number of parameters, running statistics not counted."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.params))
