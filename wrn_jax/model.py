"""WideResNet-d-k for 32x32 images, in Flax NNX.

Zagoruyko & Komodakis, "Wide Residual Networks", 2016: pre-activation blocks BN-ReLU-conv3x3-BN-ReLU-dropout-conv3x3 in three
groups. Parameter paths are the names of the usual PyTorch layout, `block1.layer.0.conv1` and so on, so that weights map one
to one: `kernel` to `weight` (HWIO to OIHW; the linear layer transposed), `scale` to `weight`, `mean` and `var` to the
running statistics.

Layers are built for pure use: `nnx.split` the network once, keep parameters and statistics as plain dictionaries, and
`nnx.merge` inside the jitted function.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn import initializers
from jax.typing import DTypeLike

BATCH_NORM_EPSILON = 1e-5
BATCH_NORM_MOMENTUM = 0.1
"""Weight of the new batch in the running averages (PyTorch's sense; Flax's `momentum` is one minus it)."""


def dropout(inputs: jax.Array, rate: jax.Array, key: jax.Array) -> jax.Array:
    """Inverted dropout with a traced rate (Srivastava et al., "Dropout", 2014).

    One random byte decides over each element, so the rate is rounded to a multiple of 1/256 and a quarter of the random bits
    suffices; the scaling follows the rounded rate, so the expectation is exact. At rate 0 the inputs pass unchanged.

    Args:
      inputs: [B, ..., C] with C divisible by 4.
      rate: float32 scalar in [0, 0.99].
      key: random key.
    """
    *leading, channels = inputs.shape
    # Words are drawn in the layout of the inputs, so that a sharded batch draws its own part of them without communication.
    words = jax.random.bits(key, (*leading, channels // 4), jnp.uint32)
    octets = jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(inputs.shape)
    threshold = jnp.round(rate * 256)
    kept = octets >= threshold.astype(jnp.uint8)
    scaled = inputs.astype(jnp.float32) * (256 / (256 - threshold))
    return jnp.where(kept, scaled, 0).astype(inputs.dtype)


class BatchNorm(nnx.Module):
    """Batch normalisation over all but the last axis (Ioffe & Szegedy, 2015).

    Own code because Flax keeps the biased variance in its running average where the reference keeps the unbiased one, and
    because the batch can be normalised in groups.

    Args:
      channels: size of the last axis.
      groups: parts of the batch that are normalised apart; 1 takes the statistics of the whole batch.
      axis_name: mapped axis over which the statistics are averaged as well, inside `jax.shard_map` or `jax.pmap`.
    """

    def __init__(self, channels: int, groups: int = 1, axis_name: str | None = None):
        self.scale = nnx.Param(jnp.ones((channels,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((channels,), jnp.float32))
        self.mean = nnx.BatchStat(jnp.zeros((channels,), jnp.float32))
        self.var = nnx.BatchStat(jnp.ones((channels,), jnp.float32))
        self.groups = groups
        self.axis_name = axis_name

    def __call__(self, inputs: jax.Array, train: bool) -> jax.Array:
        """Normalised `inputs` [B, ..., C], in their type; statistics in float32. Updates the averages when `train`."""
        channels = inputs.shape[-1]
        if not train:
            mean, var = self.mean[...], self.var[...]
            return self._normalise(inputs, mean, var)
        grouped = inputs.reshape(self.groups, -1, channels)
        wide = grouped.astype(jnp.float32)
        mean = wide.mean(axis=1)
        # Shifted by the running mean, one pass gives both moments without the cancellation of E[x^2] - E[x]^2.
        shift = jax.lax.stop_gradient(self.mean[...])[None, None, :]
        square = jnp.square(wide - shift).mean(axis=1)
        if self.axis_name is not None:
            mean, square = jax.lax.pmean((mean, square), self.axis_name)
        var = jnp.maximum(square - jnp.square(mean - shift[0]), 0.0)
        count = grouped.shape[1] * (1 if self.axis_name is None else jax.lax.axis_size(self.axis_name))
        self._average(mean, var * (count / max(count - 1, 1)))
        return self._normalise(grouped, mean[:, None, :], var[:, None, :]).reshape(inputs.shape)

    def _average(self, mean: jax.Array, var: jax.Array) -> None:
        keep = 1.0 - BATCH_NORM_MOMENTUM
        mean, var = jax.lax.stop_gradient((mean, var))
        self.mean[...] = keep * self.mean[...] + BATCH_NORM_MOMENTUM * mean.mean(axis=0)
        self.var[...] = keep * self.var[...] + BATCH_NORM_MOMENTUM * var.mean(axis=0)

    def _normalise(self, inputs: jax.Array, mean: jax.Array, var: jax.Array) -> jax.Array:
        """One multiplication and one addition per element."""
        factor = jax.lax.rsqrt(var + BATCH_NORM_EPSILON) * self._broadcast(self.scale[...], var)
        offset = self._broadcast(self.bias[...], var) - mean * factor
        factor, offset = self._broadcast(factor, inputs), self._broadcast(offset, inputs)
        return (inputs * factor + offset).astype(inputs.dtype)

    @staticmethod
    def _broadcast(values: jax.Array, like: jax.Array) -> jax.Array:
        return values.reshape((1,) * (like.ndim - values.ndim) + values.shape)


def _conv(channels_in: int, channels_out: int, size: int, stride: int, dtype: DTypeLike, rngs: nnx.Rngs) -> nnx.Conv:
    """A convolution without bias, padded to keep the size at stride 1; Kaiming normal initialisation by fan-out."""
    return nnx.Conv(
        channels_in,
        channels_out,
        (size, size),
        strides=(stride, stride),
        padding=size // 2,  # explicit, since "SAME" pads on one side only at stride 2
        use_bias=False,
        dtype=dtype,
        kernel_init=initializers.variance_scaling(2.0, "fan_out", "normal"),
        rngs=rngs,
    )


class Block(nnx.Module):
    """BN-ReLU-conv3x3-BN-ReLU-dropout-conv3x3 plus shortcut.

    Where width or stride changes the shortcut is a 1x1 convolution of the activated input, elsewhere the raw input itself.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int, norm: dict, dtype: DTypeLike, rngs: nnx.Rngs):
        self.bn1 = BatchNorm(channels_in, **norm)
        self.conv1 = _conv(channels_in, channels_out, 3, stride, dtype, rngs)
        self.bn2 = BatchNorm(channels_out, **norm)
        self.conv2 = _conv(channels_out, channels_out, 3, 1, dtype, rngs)
        changes = channels_in != channels_out or stride != 1
        self.shortcut = _conv(channels_in, channels_out, 1, stride, dtype, rngs) if changes else None

    def __call__(self, inputs: jax.Array, rate: jax.Array, key: jax.Array | None, train: bool) -> jax.Array:
        """[B, H, W, channels_in] to [B, H / stride, W / stride, channels_out]."""
        activated = nnx.relu(self.bn1(inputs, train))
        outputs = nnx.relu(self.bn2(self.conv1(activated), train))
        if train:
            outputs = dropout(outputs, rate, key)
        shortcut = inputs if self.shortcut is None else self.shortcut(activated)
        return self.conv2(outputs) + shortcut


class Group(nnx.Module):
    """Blocks of equal width; the first one changes width and stride."""

    def __init__(self, blocks: int, channels_in: int, channels_out: int, stride: int, norm, dtype, rngs: nnx.Rngs):
        first = Block(channels_in, channels_out, stride, norm, dtype, rngs)
        others = [Block(channels_out, channels_out, 1, norm, dtype, rngs) for _ in range(blocks - 1)]
        # String keys: integer keys come back from a checkpoint as strings, and `jax.export` refuses them.
        self.layer = nnx.Dict({str(index): block for index, block in enumerate([first, *others])})


class WideResNet(nnx.Module):
    """WideResNet-`depth`-`widen_factor`.

    Args:
      depth: 6n + 4.
      widen_factor: multiplier of the widths 16, 32, 64.
      num_classes: number of outputs.
      dtype: type of the convolutions; parameters, statistics and the linear layer are float32. (How an accelerator
        multiplies float32 is JAX's setting: by default a TPU does so in bfloat16, a recent NVIDIA GPU in TF32.)
      batch_norm_groups, batch_norm_axis: see `BatchNorm`.
      rngs: source of the initial values.

    Raises:
      ValueError: `depth` is not 6n + 4.
    """

    def __init__(
        self,
        depth: int,
        widen_factor: int,
        num_classes: int,
        dtype: DTypeLike = jnp.float32,
        batch_norm_groups: int = 1,
        batch_norm_axis: str | None = None,
        *,
        rngs: nnx.Rngs,
    ):
        blocks, remainder = divmod(depth - 4, 6)
        if remainder or blocks < 1:
            raise ValueError(f"depth {depth} is not 6n + 4 (10, 16, 22, 28, ...)")
        widths = [16 * widen_factor, 32 * widen_factor, 64 * widen_factor]
        norm = {"groups": batch_norm_groups, "axis_name": batch_norm_axis}
        self.conv1 = _conv(3, 16, 3, 1, dtype, rngs)
        self.block1 = Group(blocks, 16, widths[0], 1, norm, dtype, rngs)
        self.block2 = Group(blocks, widths[0], widths[1], 2, norm, dtype, rngs)
        self.block3 = Group(blocks, widths[1], widths[2], 2, norm, dtype, rngs)
        self.bn1 = BatchNorm(widths[2], **norm)
        self.fc = nnx.Linear(widths[2], num_classes, kernel_init=initializers.xavier_uniform(), rngs=rngs)

    def __call__(
        self, images: jax.Array, rate: jax.Array | float = 0.0, key: jax.Array | None = None, train: bool = False
    ) -> jax.Array:
        """Logits.

        Args:
          images: [B, 32, 32, 3], normalised.
          rate: dropout rate, float32 scalar; only read when `train`.
          key: random key of the dropout masks; needed when `train`.
          train: whether batch statistics and dropout are used.

        Returns:
          [B, num_classes] float32.
        """
        outputs = self.conv1(images)
        blocks = [block for group in (self.block1, self.block2, self.block3) for block in group.layer.values()]
        for index, block in enumerate(blocks):
            block_key = jax.random.fold_in(key, index) if train else None
            outputs = block(outputs, rate, block_key, train)
        # Without the barrier the CPU compiler of JAX 0.12 makes NaN of the mean in bfloat16.
        outputs = jax.lax.optimization_barrier(nnx.relu(self.bn1(outputs, train)))
        return self.fc(outputs.astype(jnp.float32).mean(axis=(1, 2)))
