"""Convolutions of images with square kernels: XLA's own, and on the CPU products of matrices where those are faster.

XLA's convolutions in float32 reach 60 to 85 % of a core's matrix product peak in the output and the input's gradient, but
15 to 60 % in the kernel's gradient (AMD EPYC with AVX-512, JAX 0.10 and 0.12). On the CPU they are replaced by

- Winograd's F(4x4, 3x3) for 3x3 kernels at stride 1: a quarter of the multiplications, 1.5 to 2.5 times as fast from 64
  channels on; its rounding error is 2e-6 to 5e-6 of the norm, against 3e-7 of the plain sums;
- one product of matrices for 1x1 kernels, whose gradient is then four to seven times as fast;
- three products for the kernel's gradient of 3x3 layers at stride 2, one for each row of taps: twice as fast.

GPU and TPU always run XLA's convolutions, and so does every type but float32. The platform is the one that a program is
lowered for.
"""

import functools
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

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


# Where the ways cross over, measured with `runtime.allocator`: with fewer channels the transforms cost what the
# products save, and with fewer tiles than 128 the products are too flat.
WINOGRAD_CHANNELS = 64
WINOGRAD_CHANNEL_PAIRS = 16 * 32
"""Least product of both channel counts for the kernel's gradient, where XLA is slower."""
WINOGRAD_PIXELS = 2048
COLUMN_CHANNELS = 16


def convolve_plain(inputs: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """XLA's convolution. `inputs` [B, H, W, C], `kernel` [K, K, C, O]; padded by K // 2 on every side."""
    padding = kernel.shape[0] // 2  # explicit, since "SAME" pads on one side only at stride 2
    return jax.lax.conv_general_dilated(
        inputs,
        kernel,
        (stride, stride),
        ((padding, padding), (padding, padding)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def plain_input_gradient(kernel: jax.Array, outputs: jax.Array, stride: int, shape: tuple[int, ...]) -> jax.Array:
    like = jax.ShapeDtypeStruct(shape, kernel.dtype)
    return jax.linear_transpose(lambda inputs: convolve_plain(inputs, kernel, stride), like)(outputs)[0]


def plain_kernel_gradient(inputs: jax.Array, outputs: jax.Array, stride: int, shape: tuple[int, ...]) -> jax.Array:
    like = jax.ShapeDtypeStruct(shape, inputs.dtype)
    return jax.linear_transpose(lambda kernel: convolve_plain(inputs, kernel, stride), like)(outputs)[0]


def combine(matrix: np.ndarray, terms: list[jax.Array]) -> list[jax.Array]:
    """matrix @ terms, written out: the entries are mostly 0 and 1."""
    results = []
    for row in matrix:
        scaled = [term if factor == 1 else float(factor) * term for factor, term in zip(row, terms, strict=True) if factor]
        results.append(functools.reduce(jnp.add, scaled))
    return results


def row_of_tiles(
    factors: jax.Array, rows: list[jax.Array], matrix: np.ndarray, starts: list[int], step: int, count: int
) -> jax.Array:
    """One row of matrix @ window @ matrix.T for all windows, as [6, B * T * T, C].

    The row's factors come as an array, since the row is a loop's; the columns are written out.
    """
    combined = cast(jax.Array, sum(factor * row for factor, row in zip(factors, rows, strict=True)))
    columns = [combined[:, :, start : start + step * (count - 1) + 1 : step] for start in starts]
    return jnp.stack(combine(matrix, columns)).reshape(WINDOW, -1, combined.shape[-1])


def input_row(factors: jax.Array, padded: jax.Array) -> jax.Array:
    """A row of B^T x B: `factors` [6] is a row of B^T, `padded` [B, H + 2, W + 2, C]."""
    height, width = padded.shape[1] - 2, padded.shape[2] - 2
    rows = [padded[:, start : start + height - TILE + 1 : TILE] for start in range(WINDOW)]
    return row_of_tiles(factors, rows, INPUT, list(range(WINDOW)), TILE, width // TILE)


def gradient_row(factors: jax.Array, gradient: jax.Array) -> jax.Array:
    """A row of A dy A^T: `factors` [4] is a row of A, `gradient` [B, H, W, O]."""
    rows = [gradient[:, start::TILE] for start in range(TILE)]
    return row_of_tiles(factors, rows, OUTPUT.T, list(range(TILE)), TILE, gradient.shape[2] // TILE)


def pad(images: jax.Array) -> jax.Array:
    return jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))


def winograd(inputs: jax.Array, kernel: jax.Array) -> jax.Array:
    """The convolution with a 3x3 kernel at stride 1.

    A loop over the rows of the tiles: its body is compiled once instead of six times, and keeps XLA from folding whatever
    made the inputs into each of the 36 terms.
    """
    batch, height, width, channels = inputs.shape
    both = np.kron(KERNEL, KERNEL)
    tiles = jnp.dot(both, kernel.reshape(9, -1)).reshape(WINDOW, WINDOW, channels, -1)
    padded = pad(inputs)

    def row(carry: None, now: tuple[jax.Array, jax.Array]) -> tuple[None, jax.Array]:
        factors, kernels = now
        products = jax.lax.dot_general(input_row(factors, padded), kernels, (((2,), (1,)), ((0,), (0,))))
        return carry, jnp.stack(combine(OUTPUT, list(products)), axis=1)

    _, rows = jax.lax.scan(row, None, (jnp.asarray(INPUT), tiles))
    rows = rows.reshape(WINDOW, batch, height // TILE, width, -1)
    return jnp.stack(combine(OUTPUT, list(rows)), axis=2).reshape(batch, height, width, -1)


def winograd_kernel_gradient(inputs: jax.Array, gradient: jax.Array) -> jax.Array:
    """The gradient by the kernel: G^T [sum over tiles of (B^T x B) (A dy A^T)] G."""
    padded = pad(inputs)

    def row(carry: None, now: tuple[jax.Array, jax.Array]) -> tuple[None, jax.Array]:
        input_factors, gradient_factors = now
        left, right = input_row(input_factors, padded), gradient_row(gradient_factors, gradient)
        return carry, jax.lax.dot_general(left, right, (((1,), (1,)), ((0,), (0,))))

    _, products = jax.lax.scan(row, None, (jnp.asarray(INPUT), jnp.asarray(OUTPUT.T)))
    both = np.kron(KERNEL, KERNEL).T
    return jnp.dot(both, products.reshape(WINDOW**2, -1)).reshape(3, 3, inputs.shape[-1], gradient.shape[-1])


def column_kernel_gradient(inputs: jax.Array, gradient: jax.Array, stride: int, size: int) -> jax.Array:
    """The gradient by the kernel: for each row of its taps one product, with the columns of the images below them."""
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
    """Whether Winograd's way is the fastest for the outputs, or for the gradient by the inputs."""
    return has_tiles(shape, kernel_shape, stride, dtype) and min(kernel_shape[2:]) >= WINOGRAD_CHANNELS


def suits_winograd_kernel(shape: tuple[int, ...], kernel_shape: tuple[int, ...], stride: int, dtype: DTypeLike) -> bool:
    """Whether Winograd's way is the fastest for the gradient by the kernel."""
    is_wide = kernel_shape[2] * kernel_shape[3] >= WINOGRAD_CHANNEL_PAIRS and kernel_shape[2] >= COLUMN_CHANNELS
    return has_tiles(shape, kernel_shape, stride, dtype) and is_wide


def is_pointwise(kernel_shape: tuple[int, ...], dtype: DTypeLike) -> bool:
    """Whether a 1x1 convolution is done as one product of matrices."""
    return dtype == jnp.float32 and kernel_shape[0] == 1


def suits_columns(kernel_shape: tuple[int, ...], stride: int, dtype: DTypeLike) -> bool:
    """Whether products with the columns give the kernel's gradient faster than XLA does."""
    strided = dtype == jnp.float32 and stride > 1 and kernel_shape[2] >= COLUMN_CHANNELS
    return strided or is_pointwise(kernel_shape, dtype)


def cpu_convolve(inputs: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    if suits_winograd(inputs.shape, kernel.shape, stride, inputs.dtype):
        return winograd(inputs, kernel)
    if is_pointwise(kernel.shape, kernel.dtype):
        return jnp.einsum("bhwc,co->bhwo", inputs[:, ::stride, ::stride], kernel[0, 0])
    return convolve_plain(inputs, kernel, stride)


def cpu_input_gradient(kernel: jax.Array, gradient: jax.Array, stride: int, shape: tuple[int, ...]) -> jax.Array:
    if suits_winograd(gradient.shape, kernel.shape, stride, gradient.dtype):
        return winograd(gradient, kernel[::-1, ::-1].swapaxes(2, 3))
    if is_pointwise(kernel.shape, kernel.dtype) and shape[1] % stride == shape[2] % stride == 0:
        apart = (0, stride - 1, stride - 1)  # below, above, between
        return jax.lax.pad(
            jnp.einsum("bhwo,co->bhwc", gradient, kernel[0, 0]),
            jnp.zeros((), gradient.dtype),
            ((0, 0, 0), apart, apart, (0, 0, 0)),
        )
    return plain_input_gradient(kernel, gradient, stride, shape)


def cpu_kernel_gradient(inputs: jax.Array, gradient: jax.Array, stride: int, shape: tuple[int, ...]) -> jax.Array:
    if suits_winograd_kernel(inputs.shape, shape, stride, inputs.dtype):
        return winograd_kernel_gradient(inputs, gradient)
    if suits_columns(shape, stride, inputs.dtype):
        return column_kernel_gradient(inputs, gradient, stride, shape[0])
    return plain_kernel_gradient(inputs, gradient, stride, shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(inputs: jax.Array, kernel: jax.Array, stride: int, batch_is_split: bool = False) -> jax.Array:
    """`convolve_plain`, by the fastest way that the platform has for the shapes; as it is where the batch size is open.

    With `batch_is_split`, over several devices, the kernel's gradient is XLA's own. Winograd's is a loop over sums over the
    batch, and so would hold a collective, which XLA's CPU backend does not keep in order with those outside the loop:
    processes then receive each other's parts of different sums (JAX 0.10 and 0.12).
    """
    batch: Any = inputs.shape[0]  # a symbol where a program is exported for any number of images
    if not isinstance(batch, int):
        return convolve_plain(inputs, kernel, stride)
    return jax.lax.platform_dependent(
        inputs,
        kernel,
        cpu=functools.partial(cpu_convolve, stride=stride),
        default=functools.partial(convolve_plain, stride=stride),
    )


def _forward(
    inputs: jax.Array, kernel: jax.Array, stride: int, batch_is_split: bool
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return convolve(inputs, kernel, stride, batch_is_split), (inputs, kernel)


def _backward(
    stride: int, batch_is_split: bool, saved: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    inputs, kernel = saved
    kernel_gradient = plain_kernel_gradient if batch_is_split else cpu_kernel_gradient
    by_input = jax.lax.platform_dependent(
        kernel,
        gradient,
        cpu=functools.partial(cpu_input_gradient, stride=stride, shape=inputs.shape),
        default=functools.partial(plain_input_gradient, stride=stride, shape=inputs.shape),
    )
    by_kernel = jax.lax.platform_dependent(
        inputs,
        gradient,
        cpu=functools.partial(kernel_gradient, stride=stride, shape=kernel.shape),
        default=functools.partial(plain_kernel_gradient, stride=stride, shape=kernel.shape),
    )
    return by_input, by_kernel


convolve.defvjp(_forward, _backward)
