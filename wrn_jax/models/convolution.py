"""Convolutions of images with square kernels: XLA's own, and on the CPU products of matrices where those are faster.

XLA's convolutions in float32 reach 60 to 85 % of a core's matrix product peak in the output and the input's gradient, but
15 to 60 % in the kernel's gradient (AMD EPYC with AVX-512, JAX 0.10 and 0.12). On the CPU they are replaced by

- Winograd's F(4x4, 3x3) for 3x3 kernels at stride 1: a quarter of the multiplications, 1.5 to 2.5 times as fast from 16
  channels on, if few images are taken at a time, so that they fit into the caches with all that is made of them; its rounding
  error is 2e-6 to 5e-6 of the norm, against 3e-7 of the plain sums;
- one product of matrices for 1x1 kernels, whose gradient is then four to seven times as fast;
- three products for the kernel's gradient of 3x3 layers at stride 2, one for each row of taps: twice as fast; and of the first
  layer, three times as fast from 128 images on.

GPU and TPU always run XLA's convolutions, and so does every type but float32. The platform is the one that a program is
lowered for.
"""

import functools
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jax.typing import DTypeLike

from wrn_jax.runtime import cores, devices

TILE = 4
"""Side of the square of outputs that one Winograd tile yields."""

WINDOW = TILE + 2

# F(4x4, 3x3) of Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", 2016, section 4.3: an output tile is
# A^T [(G w G^T) * (B^T x B)] A.
INPUT = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    np.float32,
)
KERNEL = np.array(
    [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]],
    np.float32,
) / np.float32(24)
OUTPUT = np.array(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
    np.float32,
)


# Where the ways cross over, measured with `runtime.allocator`.
WINOGRAD_CHANNELS = 16
"""Least channels; with fewer the transforms cost what the products save."""
WINOGRAD_PIXELS = 2048
"""Least pixels of a chunk of images: with fewer than 128 tiles the matrices of the products are too flat."""
CHUNK_ELEMENTS = 2**17
"""Least elements of a chunk, half a MB: the loop over chunks costs little, and what is made of one fits into the caches."""
THREADED_CHUNK_ELEMENTS = 2**19
"""`CHUNK_ELEMENTS` with several threads: they share out every loop and wait for each other after it, so loops are longer."""
CHUNK_PIXELS_PER_CHANNEL = 16
"""Least pixels of a chunk per channel: each chunk reads the transformed kernel, four times the size, or adds to it."""
NARROW_CHANNELS = 16
"""Most channels with which the batch is folded into them: the transforms are twice as fast, which pays for transposing."""


def convolve_plain(inputs: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """XLA's convolution. `inputs` [B, H, W, C], `kernel` [K, K, C, O]; padded by K // 2 on every side."""
    if kernel.shape[0] == 1:
        # Of the pixels between, convolution and gradients would move inputs and zeros: 2.3 MB per image of a WRN-28-10.
        inputs, stride = inputs[:, ::stride, ::stride], 1
    padding = kernel.shape[0] // 2  # explicit, since "SAME" pads on one side only at stride 2
    return jax.lax.conv_general_dilated(
        inputs,
        kernel,
        (stride, stride),
        ((padding, padding), (padding, padding)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def plain_input_gradient(kernel: jax.Array, gradient: jax.Array, stride: int, shape: tuple[int, ...]) -> jax.Array:
    """XLA's gradient with respect to the inputs, of this shape; `gradient` is that with respect to the outputs."""
    like = jax.ShapeDtypeStruct(shape, kernel.dtype)
    return jax.linear_transpose(lambda inputs: convolve_plain(inputs, kernel, stride), like)(gradient)[0]


def plain_kernel_gradient(inputs: jax.Array, gradient: jax.Array, stride: int, shape: tuple[int, ...]) -> jax.Array:
    """XLA's gradient with respect to the kernel, of this shape; `gradient` is that with respect to the outputs."""
    like = jax.ShapeDtypeStruct(shape, inputs.dtype)
    return jax.linear_transpose(lambda kernel: convolve_plain(inputs, kernel, stride), like)(gradient)[0]


def combine(matrix: np.ndarray, terms: list[jax.Array]) -> list[jax.Array]:
    """matrix @ terms, written out: the entries are mostly 0 and 1."""
    results = []
    for row in matrix:
        scaled = [term if factor == 1 else float(factor) * term for factor, term in zip(row, terms, strict=True) if factor]
        results.append(functools.reduce(jnp.add, scaled))
    return results


def row_of_tiles(
    factors: jax.Array, rows: list[jax.Array], matrix: np.ndarray, starts: list[int], step: int, count: int, channels: int
) -> jax.Array:
    """One row of matrix @ window @ matrix.T for the windows of all tiles, as [6, number of tiles, C].

    The row's factors come as an array, since the loop over rows is XLA's; the columns are unrolled. `channels` is C; `rows`
    have a multiple of it where the batch is folded into the channels.
    """
    combined = cast(jax.Array, sum(factor * row for factor, row in zip(factors, rows, strict=True)))
    columns = [combined[:, :, start : start + step * (count - 1) + 1 : step] for start in starts]
    return jnp.stack(combine(matrix, columns)).reshape(WINDOW, -1, channels)


def input_row(factors: jax.Array, padded: jax.Array, channels: int) -> jax.Array:
    """A row of B^T x B: `factors` [6] is a row of B^T, `padded` [B, H + 2, W + 2, C]."""
    height, width = padded.shape[1] - 2, padded.shape[2] - 2
    rows = [padded[:, start : start + height - TILE + 1 : TILE] for start in range(WINDOW)]
    return row_of_tiles(factors, rows, INPUT, list(range(WINDOW)), TILE, width // TILE, channels)


def gradient_row(factors: jax.Array, gradient: jax.Array, channels: int) -> jax.Array:
    """A row of A dy A^T: `factors` [4] is a row of A, `gradient` [B, H, W, O]."""
    rows = [gradient[:, start::TILE] for start in range(TILE)]
    return row_of_tiles(factors, rows, OUTPUT.T, list(range(TILE)), TILE, gradient.shape[2] // TILE, channels)


def pad(images: jax.Array) -> jax.Array:
    """[B, H, W, C] with a border of one zero."""
    return jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))


def images_per_chunk(shape: tuple[int, ...], kernel_shape: tuple[int, ...], threads: int) -> int:
    """How many of the images [B, H, W, C] Winograd's products take at a time: the least divisor of B that is large enough."""
    batch, height, width, _ = shape
    channels = max(kernel_shape[2:])
    elements = CHUNK_ELEMENTS if threads == 1 else THREADED_CHUNK_ELEMENTS
    enough = max(WINOGRAD_PIXELS, elements // channels, CHUNK_PIXELS_PER_CHANNEL * channels)
    divisors = (count for count in range(1, batch + 1) if batch % count == 0)
    return next(count for count in divisors if count * height * width >= enough or count == batch)


def cut(images: jax.Array, count: int) -> jax.Array:
    """[B, H, W, C] as [B / count, count, H, W, C]."""
    return images.reshape(-1, count, *images.shape[1:])


def fold_batch(images: jax.Array) -> jax.Array:
    """[B, H, W, C] as [1, H, W, B * C]: XLA's loops are slow over the few channels of one image."""
    batch, height, width, channels = images.shape
    folded = images.transpose(1, 2, 0, 3).reshape(1, height, width, batch * channels)
    return jax.lax.optimization_barrier(folded)  # fused with the padding it would be slow again


def winograd(inputs: jax.Array, kernel: jax.Array, count: int) -> jax.Array:
    """The convolution with a 3x3 kernel at stride 1, in chunks of `count` images, a divisor of their number."""
    both = np.kron(KERNEL, KERNEL)
    tiles = jnp.dot(both, kernel.reshape(9, -1)).reshape(WINDOW, WINDOW, *kernel.shape[2:])
    if count == len(inputs):
        return winograd_chunk(inputs, tiles)
    outputs = jax.lax.map(lambda images: winograd_chunk(images, tiles), cut(inputs, count))
    return outputs.reshape(*inputs.shape[:3], -1)


def winograd_chunk(inputs: jax.Array, tiles: jax.Array) -> jax.Array:
    """`winograd` of all `inputs` at once, with the transformed kernel [6, 6, C, O].

    A loop over the rows of the tiles: its body is compiled once instead of six times, and keeps XLA from folding whatever
    made the inputs into each of the 36 terms.
    """
    batch, height, width, channels = inputs.shape
    is_narrow = max(tiles.shape[2:]) <= NARROW_CHANNELS
    images = fold_batch(inputs) if is_narrow else inputs
    padded = pad(images)
    channels_out = tiles.shape[-1] * batch // len(images)

    def row(carry: None, now: tuple[jax.Array, jax.Array]) -> tuple[None, jax.Array]:
        factors, kernels = now
        products = jax.lax.dot_general(input_row(factors, padded, channels), kernels, (((2,), (1,)), ((0,), (0,))))
        products = products.reshape(WINDOW, -1, channels_out)
        return carry, jnp.stack(combine(OUTPUT, list(products)), axis=1)

    _, rows = jax.lax.scan(row, None, (jnp.asarray(INPUT), tiles))
    rows = rows.reshape(WINDOW, len(images), height // TILE, width, -1)
    outputs = jnp.stack(combine(OUTPUT, list(rows)), axis=2)
    if is_narrow:
        outputs = jax.lax.optimization_barrier(outputs).reshape(height, width, batch, -1).transpose(2, 0, 1, 3)
    return outputs.reshape(batch, height, width, -1)


def winograd_kernel_gradient(inputs: jax.Array, gradient: jax.Array, count: int) -> jax.Array:
    """The gradient with respect to the kernel: G^T [sum over tiles of (B^T x B) (A dy A^T)] G, in chunks of `count` images."""
    channels_in, channels_out = inputs.shape[-1], gradient.shape[-1]
    is_narrow = max(channels_in, channels_out) <= NARROW_CHANNELS

    def one(sums: jax.Array, images: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        inputs, gradient = map(fold_batch, images) if is_narrow else images
        padded = pad(inputs)

        def row(carry: None, now: tuple[jax.Array, jax.Array]) -> tuple[None, jax.Array]:
            input_factors, gradient_factors = now
            left = input_row(input_factors, padded, channels_in)
            right = gradient_row(gradient_factors, gradient, channels_out)
            return carry, jax.lax.dot_general(left, right, (((1,), (1,)), ((0,), (0,))))

        return sums + jax.lax.scan(row, None, (jnp.asarray(INPUT), jnp.asarray(OUTPUT.T)))[1], None

    sums = jnp.zeros((WINDOW, WINDOW, channels_in, channels_out), inputs.dtype)
    sums, _ = jax.lax.scan(one, sums, (cut(inputs, count), cut(gradient, count)))
    both = np.kron(KERNEL, KERNEL).T
    return jnp.dot(both, sums.reshape(WINDOW**2, -1)).reshape(3, 3, channels_in, channels_out)


def im2col_kernel_gradient(inputs: jax.Array, gradient: jax.Array, stride: int, size: int) -> jax.Array:
    """The gradient with respect to the kernel by im2col: one product of matrices for each row of its taps."""
    padding = size // 2
    padded = jnp.pad(inputs, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    height, width = (stride * (extent - 1) + 1 for extent in gradient.shape[1:3])
    flat = gradient.reshape(-1, gradient.shape[-1])

    def row(i: int) -> jax.Array:
        taps = [padded[:, i : i + height : stride, j : j + width : stride] for j in range(size)]
        # Without the barrier the copies become part of the product, which reads them many times.
        columns = jax.lax.optimization_barrier(jnp.concatenate(taps, axis=3))
        return jnp.dot(columns.reshape(-1, size * inputs.shape[-1]).T, flat)

    return jnp.stack([row(i) for i in range(size)]).reshape(size, size, inputs.shape[-1], gradient.shape[-1])


def has_tiles(shape: tuple[int, ...], kernel_shape: tuple[int, ...], stride: int, dtype: DTypeLike) -> bool:
    """Whether images of this shape [B, H, W, C] and type divide into Winograd tiles, and into enough of them."""
    batch, height, width, _ = shape
    fits = kernel_shape[0] == 3 and stride == 1 and height % TILE == 0 and width % TILE == 0
    return fits and dtype == jnp.float32 and batch * height * width >= WINOGRAD_PIXELS


def suits_winograd(shape: tuple[int, ...], kernel_shape: tuple[int, ...], stride: int, dtype: DTypeLike) -> bool:
    """Whether Winograd's way is the fastest, for the outputs and both gradients."""
    return has_tiles(shape, kernel_shape, stride, dtype) and min(kernel_shape[2:]) >= WINOGRAD_CHANNELS


def is_pointwise(kernel_shape: tuple[int, ...], dtype: DTypeLike) -> bool:
    """Whether a 1x1 convolution is done as one product of matrices."""
    return dtype == jnp.float32 and kernel_shape[0] == 1


def suits_im2col(kernel_shape: tuple[int, ...], stride: int, dtype: DTypeLike) -> bool:
    """Whether im2col gives the kernel's gradient faster than XLA does: at stride 2, of 1x1 kernels, and where images come in.

    There XLA takes three times as long for each of 128 images as for each of 32.
    """
    is_narrow = kernel_shape[2] < WINOGRAD_CHANNELS
    return dtype == jnp.float32 and (stride > 1 or is_narrow or kernel_shape[0] == 1)


def cpu_convolve(inputs: jax.Array, kernel: jax.Array, stride: int, threads: int) -> jax.Array:
    """`convolve_plain` by the fastest way on a CPU device with so many threads."""
    if suits_winograd(inputs.shape, kernel.shape, stride, inputs.dtype):
        return winograd(inputs, kernel, images_per_chunk(inputs.shape, kernel.shape, threads))
    if is_pointwise(kernel.shape, kernel.dtype):
        return jnp.einsum("bhwc,co->bhwo", inputs[:, ::stride, ::stride], kernel[0, 0])
    return convolve_plain(inputs, kernel, stride)


def cpu_input_gradient(kernel: jax.Array, gradient: jax.Array, stride: int, size: tuple[int, ...], threads: int) -> jax.Array:
    """The gradient with respect to the inputs [B, *size], likewise."""
    shape = (len(gradient), *size)
    if suits_winograd(gradient.shape, kernel.shape, stride, gradient.dtype):
        return cpu_convolve(gradient, kernel[::-1, ::-1].swapaxes(2, 3), stride, threads)
    if is_pointwise(kernel.shape, kernel.dtype) and shape[1] % stride == shape[2] % stride == 0:
        apart = (0, stride - 1, stride - 1)  # below, above, between
        return jax.lax.pad(
            jnp.einsum("bhwo,co->bhwc", gradient, kernel[0, 0]),
            jnp.zeros((), gradient.dtype),
            ((0, 0, 0), apart, apart, (0, 0, 0)),
        )
    return plain_input_gradient(kernel, gradient, stride, shape)


def cpu_kernel_gradient(inputs: jax.Array, gradient: jax.Array, stride: int, shape: tuple[int, ...], threads: int) -> jax.Array:
    """The gradient with respect to the kernel, of this shape, likewise."""
    if suits_winograd(inputs.shape, shape, stride, inputs.dtype):
        return winograd_kernel_gradient(inputs, gradient, images_per_chunk(inputs.shape, shape, threads))
    if suits_im2col(shape, stride, inputs.dtype):
        return im2col_kernel_gradient(inputs, gradient, stride, shape[0])
    return plain_kernel_gradient(inputs, gradient, stride, shape)


def on_each_device(
    function: Callable[..., jax.Array], mesh: Mesh | None, split: tuple[bool, ...], sum_results: bool = False
) -> Callable[..., jax.Array]:
    """`function`, applied on each device of `mesh` to that device's shards.

    Args:
      function: of arrays.
      mesh: None for a single device, where `function` is returned as it is.
      split: which arguments are sharded over the devices along their first axis; the others are replicated.
      sum_results: whether the results of the devices are summed, and the sum replicated; else they are the shards of the whole.

    Left to XLA, Winograd's loop over sums over the batch would hold a collective, which the CPU backend does not keep in order
    with those outside the loop: processes then receive each other's parts of different sums (JAX 0.10 and 0.12).
    """
    if mesh is None:
        return function
    (axis,) = mesh.axis_names
    sharded, replicated = PartitionSpec(axis), PartitionSpec()
    specs = tuple(sharded if is_split else replicated for is_split in split)
    on_mesh = functools.partial(jax.shard_map, mesh=mesh, in_specs=specs, check_vma=False)
    if sum_results:
        return on_mesh(lambda *shards: jax.lax.psum(function(*shards), axis), out_specs=replicated)
    return on_mesh(function, out_specs=sharded)


def threads_of(mesh: Mesh | None) -> int:
    """The threads among which a CPU device divides its loops."""
    return max(1, cores.cpu_cores() // (1 if mesh is None else devices.local_size(mesh)))


def convolve(inputs: jax.Array, kernel: jax.Array, stride: int, mesh: Mesh | None = None) -> jax.Array:
    """`convolve_plain`, by the fastest way that the platform has for the shapes.

    Args:
      inputs, kernel, stride: see there.
      mesh: the devices that the batch is split over, if there are several.

    A batch whose size is open or that the devices do not divide evenly takes XLA's way.
    """
    batch: Any = inputs.shape[0]  # a symbol where a program is exported for any number of images
    if not isinstance(batch, int) or (mesh is not None and batch % mesh.size):
        return convolve_plain(inputs, kernel, stride)
    return _convolve(inputs, kernel, stride, mesh)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(inputs: jax.Array, kernel: jax.Array, stride: int, mesh: Mesh | None) -> jax.Array:
    on_cpu = functools.partial(cpu_convolve, stride=stride, threads=threads_of(mesh))
    return jax.lax.platform_dependent(
        inputs,
        kernel,
        cpu=on_each_device(on_cpu, mesh, (True, False)),
        default=functools.partial(convolve_plain, stride=stride),
    )


def _forward(
    inputs: jax.Array, kernel: jax.Array, stride: int, mesh: Mesh | None
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _convolve(inputs, kernel, stride, mesh), (inputs, kernel)


def _backward(
    stride: int, mesh: Mesh | None, saved: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    inputs, kernel = saved
    threads = threads_of(mesh)
    input_on_cpu = functools.partial(cpu_input_gradient, stride=stride, size=inputs.shape[1:], threads=threads)
    kernel_on_cpu = functools.partial(cpu_kernel_gradient, stride=stride, shape=kernel.shape, threads=threads)
    by_input = jax.lax.platform_dependent(
        kernel,
        gradient,
        cpu=on_each_device(input_on_cpu, mesh, (False, True)),
        default=functools.partial(plain_input_gradient, stride=stride, shape=inputs.shape),
    )
    by_kernel = jax.lax.platform_dependent(
        inputs,
        gradient,
        cpu=on_each_device(kernel_on_cpu, mesh, (True, True), sum_results=True),
        default=functools.partial(plain_kernel_gradient, stride=stride, shape=kernel.shape),
    )
    return by_input, by_kernel


_convolve.defvjp(_forward, _backward)
