"""WideResNet-d-k for 32x32 images, in Flax NNX.

Zagoruyko & Komodakis, "Wide Residual Networks", 2016: pre-activation blocks BN-ReLU-conv3x3-BN-ReLU-dropout-conv3x3 in three
groups. Parameter paths are the names of the usual PyTorch layout, `block1.layer.0.conv1` and so on, so that weights map one
to one: `kernel` to `weight` (HWIO to OIHW; the linear layer transposed), `scale` to `weight`, `mean` and `var` to the
running statistics.

Layers are built for pure use: `nnx.split` the network once, keep parameters and statistics as plain dictionaries, and
`nnx.merge` inside the jitted function.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn import initializers
from jax.sharding import Mesh
from jax.typing import DTypeLike

from wrn_jax.models import convolution

BATCH_NORM_EPSILON = 1e-5
BATCH_NORM_MOMENTUM = 0.1
"""Weight of the new batch in the running averages (PyTorch's sense; Flax's `momentum` is one minus it)."""


def dropout(inputs: jax.Array, rate: jax.Array | float, key: jax.Array) -> jax.Array:
    """Inverted dropout with a traced rate (Srivastava et al., "Dropout", 2014).

    One random byte decides over each element, so the rate is rounded to a multiple of 1/256 and a quarter of the random bits
    suffices; the scaling follows the rounded rate, so the expectation is exact. At rate 0 the inputs pass unchanged.

    Args:
      inputs: [B, N, ...].
      rate: float32 scalar in [0, 0.99].
      key: random key.
    """
    batch, rows, *rest = inputs.shape
    octets = (_random_words(inputs.shape, key) >> _along_rows(range(0, 32, 8), rest)) & 255
    return _drop(inputs, octets.reshape(batch, -1, *rest)[:, :rows] >= _least_octet(rate), rate)


def _random_words(shape: tuple[int, ...], key: jax.Array) -> jax.Array:
    """[B, N / 4, 1, ...] uint32, of which each serves four rows of a [B, N, ...].

    They are of the same image: a sharded batch draws its own part without communication, and the four bytes are taken apart
    along an axis that no accelerator keeps in the tiles of its memory. (Along the channels the compiler for TPU writes the
    words out four times over and rearranges them: 19 MB per image of a WRN-28-10.)
    """
    batch, rows, *rest = shape
    return jax.random.bits(key, (batch, -(-rows // 4), 1, *rest), jnp.uint32)


def _along_rows(shifts: range, rest: Sequence[int]) -> jax.Array:
    return jnp.array(shifts, jnp.uint32).reshape(1, 1, 4, *(1 for _ in rest))


def _least_octet(rate: jax.Array | float) -> jax.Array:
    """The least byte that keeps its element."""
    return jnp.round(rate * 256).astype(jnp.uint32)


def _drop(inputs: jax.Array, kept: jax.Array, rate: jax.Array | float) -> jax.Array:
    scaled = inputs.astype(jnp.float32) * _dropout_scale(rate)
    return jnp.where(kept, scaled, 0).astype(inputs.dtype)


def _dropout_scale(rate: jax.Array | float) -> jax.Array:
    return 256 / (256 - jnp.round(rate * 256))


@jax.custom_vjp
def relu_dropout(inputs: jax.Array, rate: jax.Array | float, key: jax.Array) -> jax.Array:
    """`dropout` of the rectified `inputs`; arguments as there.

    The gradient passes where an element was kept and positive, and there alone the output is positive. The convolution after it
    saves the output anyway, so the backward pass reads no random bits, and none are stored.
    """
    return dropout(nnx.relu(inputs), rate, key)


def _relu_dropout_forward(inputs: jax.Array, rate: jax.Array, key: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    outputs = relu_dropout(inputs, rate, key)
    return outputs, (outputs, rate)


def _relu_dropout_backward(saved: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, None, None]:
    outputs, rate = saved
    return _drop(gradient, outputs > 0, rate), None, None


relu_dropout.defvjp(_relu_dropout_forward, _relu_dropout_backward)


@jax.custom_vjp
def packed_relu_dropout(inputs: jax.Array, rate: jax.Array | float, key: jax.Array) -> jax.Array:
    """`relu_dropout`, the same values, for accelerators.

    There the compiler would store random words, and masks of a byte for each element. Here it is the decisions that are kept,
    four to a byte, and the way back reads them beside the inputs, which the gradient of what made them needs anyway. A CPU
    would only pack in vain.
    """
    return _packed_forward(inputs, rate, key)[0]


def _packed_forward(
    inputs: jax.Array, rate: jax.Array | float, key: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array | float]]:
    packed = pack_decisions(inputs.shape, rate, key)
    return _drop(nnx.relu(inputs), unpack_decisions(packed, inputs.shape[1]), rate), (inputs, packed, rate)


def _packed_backward(saved: tuple[jax.Array, jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, None, None]:
    inputs, packed, rate = saved
    return _drop(gradient, unpack_decisions(packed, inputs.shape[1]) & (inputs > 0), rate), None, None


packed_relu_dropout.defvjp(_packed_forward, _packed_backward)


def pack_decisions(shape: tuple[int, ...], rate: jax.Array | float, key: jax.Array) -> jax.Array:
    """Which elements of a [B, N, ...] `dropout` keeps, [B, N / 4, ...] uint8: bit k of row i is that of row 4 i + k."""
    words = _random_words(shape, key)[:, :, 0]
    bits = [((words >> 8 * place) & 255 >= _least_octet(rate)).astype(jnp.uint8) << place for place in range(4)]
    # Behind a barrier, or the compiler would draw the words a second time instead of reading these.
    return jax.lax.optimization_barrier(functools.reduce(jnp.bitwise_or, bits))


def unpack_decisions(packed: jax.Array, rows: int) -> jax.Array:
    """The decisions of `pack_decisions` on the first `rows` rows, [B, rows, ...] bool."""
    batch, _, *rest = packed.shape
    bits = (packed[:, :, None] >> _along_rows(range(4), rest).astype(jnp.uint8)) & 1
    return bits.reshape(batch, -1, *rest)[:, :rows] == 1


@jax.custom_vjp
def scale_and_shift(inputs: jax.Array, factor: jax.Array, offset: jax.Array) -> jax.Array:
    """inputs * factor + offset, in the type of `inputs` [G, N, C]; `factor` and `offset` [G, C] float32.

    The gradient is written out for the sake of its sums: over the middle axis of [1, N, C], XLA's CPU backend of JAX 0.10
    is twenty times slower than over the first of [N, C].
    """
    return (inputs * factor[:, None, :] + offset[:, None, :]).astype(inputs.dtype)


def _scale_and_shift_forward(
    inputs: jax.Array, factor: jax.Array, offset: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return scale_and_shift(inputs, factor, offset), (inputs, factor)


def _scale_and_shift_backward(
    saved: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    inputs, factor = saved
    wide = gradient.astype(jnp.float32)
    by_input = (wide * factor[:, None, :]).astype(inputs.dtype)
    inputs = inputs.astype(jnp.float32)
    if len(inputs) == 1:
        return by_input, (wide[0] * inputs[0]).sum(axis=0)[None, :], wide[0].sum(axis=0)[None, :]
    return by_input, (wide * inputs).sum(axis=1), wide.sum(axis=1)


scale_and_shift.defvjp(_scale_and_shift_forward, _scale_and_shift_backward)


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
            whole = inputs.reshape(1, -1, channels)
            return self._normalise(whole, self.mean[...][None, :], self.var[...][None, :]).reshape(inputs.shape)
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
        return self._normalise(grouped, mean, var).reshape(inputs.shape)

    def _average(self, mean: jax.Array, var: jax.Array) -> None:
        keep = 1.0 - BATCH_NORM_MOMENTUM
        mean, var = jax.lax.stop_gradient((mean, var))
        self.mean[...] = keep * self.mean[...] + BATCH_NORM_MOMENTUM * mean.mean(axis=0)
        self.var[...] = keep * self.var[...] + BATCH_NORM_MOMENTUM * var.mean(axis=0)

    def _normalise(self, inputs: jax.Array, mean: jax.Array, var: jax.Array) -> jax.Array:
        """One multiplication and one addition per element of [G, N, C]; `mean` and `var` [G, C]."""
        factor = jax.lax.rsqrt(var + BATCH_NORM_EPSILON) * self.scale[...][None, :]
        return scale_and_shift(inputs, factor, self.bias[...][None, :] - mean * factor)


class Convolution(nnx.Module):
    """A convolution without bias, padded to keep the size at stride 1; Kaiming normal initialisation by fan-out."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        size: int,
        stride: int,
        *,
        dtype: DTypeLike,
        batch_mesh: Mesh | None,
        rngs: nnx.Rngs,
    ):
        initialise = initializers.variance_scaling(2.0, "fan_out", "normal")
        self.kernel = nnx.Param(initialise(rngs.params(), (size, size, channels_in, channels_out), jnp.float32))
        self.stride = stride
        self.dtype = dtype
        self.batch_mesh = batch_mesh

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """[B, H, W, channels_in] to [B, H / stride, W / stride, channels_out], in the compute type."""
        kernel = self.kernel[...].astype(self.dtype)
        return convolution.convolve(inputs.astype(self.dtype), kernel, self.stride, self.batch_mesh)


class Block(nnx.Module):
    """BN-ReLU-conv3x3-BN-ReLU-dropout-conv3x3 plus shortcut.

    Where width or stride changes the shortcut is a 1x1 convolution of the activated input, elsewhere the raw input itself.
    `norm` and `conv` make the layers: `BatchNorm` and `Convolution` with all but sizes and stride settled. `pack_dropout`:
    whether `packed_relu_dropout` is the dropout.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        stride: int,
        norm: Callable[[int], BatchNorm],
        conv: Callable[[int, int, int, int], Convolution],
        pack_dropout: bool,
    ):
        self.pack_dropout = pack_dropout
        self.bn1 = norm(channels_in)
        self.conv1 = conv(channels_in, channels_out, 3, stride)
        self.bn2 = norm(channels_out)
        self.conv2 = conv(channels_out, channels_out, 3, 1)
        changes = channels_in != channels_out or stride != 1
        self.shortcut = conv(channels_in, channels_out, 1, stride) if changes else None

    def __call__(self, inputs: jax.Array, rate: jax.Array | float, key: jax.Array | None, train: bool) -> jax.Array:
        """[B, H, W, channels_in] to [B, H / stride, W / stride, channels_out]."""
        activated = nnx.relu(self.bn1(inputs, train))
        outputs = self.bn2(self.conv1(activated), train)
        drop = packed_relu_dropout if self.pack_dropout else relu_dropout
        outputs = nnx.relu(outputs) if key is None else drop(outputs, rate, key)
        shortcut = inputs if self.shortcut is None else self.shortcut(activated)
        return self.conv2(outputs) + shortcut


def _run_and_recompute(
    block: Block, inputs: jax.Array, rate: jax.Array | float, key: jax.Array | None, train: bool
) -> jax.Array:
    """As `Block.__call__`; the gradient starts from the inputs again."""
    graphdef, *states = nnx.split(block, nnx.Param, nnx.BatchStat)

    @jax.checkpoint
    def run(
        params: Any, stats: Any, inputs: jax.Array, rate: jax.Array | float, key: jax.Array | None
    ) -> tuple[jax.Array, Any]:
        copy = nnx.merge(graphdef, params, stats)  # a variable of the outer trace must not be written to in here
        outputs = copy(inputs, rate, key, train)
        return outputs, nnx.to_pure_dict(nnx.state(copy, nnx.BatchStat))

    outputs, stats = run(*map(nnx.to_pure_dict, states), inputs, rate, key)
    nnx.update(block, stats)
    return outputs


class Group(nnx.Module):
    """Blocks of equal width; the first one changes width and stride. The last three arguments as in `Block`."""

    def __init__(
        self,
        blocks: int,
        channels_in: int,
        channels_out: int,
        stride: int,
        norm: Callable[[int], BatchNorm],
        conv: Callable[[int, int, int, int], Convolution],
        pack_dropout: bool,
    ):
        first = Block(channels_in, channels_out, stride, norm, conv, pack_dropout)
        others = [Block(channels_out, channels_out, 1, norm, conv, pack_dropout) for _ in range(blocks - 1)]
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
      recompute: whether training keeps only the inputs of the blocks and computes what is inside once more on the way back
        (Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016). The results are the same.
      batch_mesh: `mesh` of `convolution.convolve`; only matters on CPU devices.
      pack_dropout: see `Block`; only matters for training.
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
        recompute: bool = False,
        batch_mesh: Mesh | None = None,
        pack_dropout: bool = False,
        *,
        rngs: nnx.Rngs,
    ):
        blocks, remainder = divmod(depth - 4, 6)
        if remainder or blocks < 1:
            raise ValueError(f"depth {depth} is not 6n + 4 (10, 16, 22, 28, ...)")
        widths = [16 * widen_factor, 32 * widen_factor, 64 * widen_factor]
        norm = functools.partial(BatchNorm, groups=batch_norm_groups, axis_name=batch_norm_axis)
        conv = functools.partial(Convolution, dtype=dtype, batch_mesh=batch_mesh, rngs=rngs)
        self.recompute = recompute
        self.conv1 = conv(3, 16, 3, 1)
        self.block1 = Group(blocks, 16, widths[0], 1, norm, conv, pack_dropout)
        self.block2 = Group(blocks, widths[0], widths[1], 2, norm, conv, pack_dropout)
        self.block3 = Group(blocks, widths[1], widths[2], 2, norm, conv, pack_dropout)
        self.bn1 = norm(widths[2])
        self.fc = nnx.Linear(widths[2], num_classes, kernel_init=initializers.xavier_uniform(), rngs=rngs)

    def __call__(
        self, images: jax.Array, rate: jax.Array | float = 0.0, key: jax.Array | None = None, train: bool = False
    ) -> jax.Array:
        """Logits.

        Args:
          images: [B, H, W, C], normalised.
          rate: dropout rate, float32 scalar.
          key: random key of the dropout masks; without one nothing is dropped.
          train: whether the batch's own statistics are used.

        Returns:
          [B, num_classes] float32.
        """
        outputs = self.conv1(images)
        blocks = [block for group in (self.block1, self.block2, self.block3) for block in group.layer.values()]
        for index, block in enumerate(blocks):
            block_key = None if key is None else jax.random.fold_in(key, index)
            run = _run_and_recompute if train and self.recompute else Block.__call__
            outputs = run(block, outputs, rate, block_key, train)
        # Without the barrier the CPU compiler of JAX 0.12 makes NaN of the mean in bfloat16.
        outputs = jax.lax.optimization_barrier(nnx.relu(self.bn1(outputs, train)))
        return self.fc(outputs.astype(jnp.float32).mean(axis=(1, 2)))
