"""Convolutions: the CPU's own ways against XLA's, values and gradients, and accelerators left alone."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.weights import relative_error
from wrn_jax.models import convolution
from wrn_jax.models.convolution import convolve, convolve_plain

pytestmark = pytest.mark.slow

# Batch, side, channels in and out, kernel size, stride: all ways through the CPU's choice.
SHAPES = [
    (4, 32, 3, 16, 3, 1),
    (4, 32, 64, 64, 3, 1),
    (32, 8, 32, 96, 3, 1),
    (2, 32, 16, 64, 3, 1),
    (2, 32, 64, 128, 3, 2),
    (2, 8, 128, 32, 3, 2),
    (2, 32, 64, 32, 1, 2),
    (2, 9, 16, 32, 1, 2),
    (2, 16, 16, 64, 1, 1),
    (3, 6, 64, 64, 3, 1),
    (16, 32, 16, 16, 3, 1),
]


def arrays(shape, dtype=jnp.float32):
    batch, side, channels_in, channels_out, size, stride = shape
    random = np.random.default_rng(0)
    draw = lambda *sizes: jnp.asarray(random.standard_normal(sizes), dtype)  # noqa: E731
    inputs, kernel = draw(batch, side, side, channels_in), draw(size, size, channels_in, channels_out)
    return inputs, kernel, draw(batch, -(-side // stride), -(-side // stride), channels_out)


def gradients(function, stride):
    """A jitted function of inputs, kernel and cotangent: the outputs and both gradients."""

    def run(inputs, kernel, cotangent):
        outputs, back = jax.vjp(lambda inputs, kernel: function(inputs, kernel, stride), inputs, kernel)
        return outputs, *back(cotangent)

    return jax.jit(run)


def all_three(function, shape, dtype=jnp.float32):
    """Outputs and both gradients."""
    return gradients(function, shape[-1])(*arrays(shape, dtype))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_agrees_with_xla_in_value_and_gradients(shape):
    for name, found, expected in zip(
        ("outputs", "by input", "by kernel"), all_three(convolve, shape), all_three(convolve_plain, shape), strict=True
    ):
        assert found.shape == expected.shape
        assert relative_error(found, expected) < 2e-5, name


def test_the_small_chunks_of_a_single_thread_agree_with_xla(monkeypatch):
    shape = (16, 32, 16, 16, 3, 1)
    monkeypatch.setattr(convolution.cores, "cpu_cores", lambda: 1)
    found = all_three(convolve, shape)
    monkeypatch.setattr(convolution.cores, "cpu_cores", lambda: 2)
    other = all_three(convolve, shape)
    assert any(np.any(one != two) for one, two in zip(found, other, strict=True))  # they are others than those of two threads
    for name, one, expected in zip(("outputs", "by input", "by kernel"), found, all_three(convolve_plain, shape), strict=True):
        assert relative_error(one, expected) < 2e-5, name


def test_each_way_serves_the_layers_it_is_fast_for():
    def chosen(shape, dtype=jnp.float32):
        inputs, kernel, _ = arrays(shape, dtype)
        given = inputs.shape, kernel.shape, shape[-1], inputs.dtype
        return "".join(
            letter
            for letter, suits in (
                ("w", convolution.suits_winograd(*given)),
                ("c", convolution.suits_im2col(*given[1:])),
            )
            if suits
        )

    assert [chosen(shape) for shape in SHAPES] == ["c", "w", "w", "w", "c", "c", "c", "c", "c", "", "w"]
    assert [chosen(shape, jnp.bfloat16) for shape in SHAPES] == [""] * len(SHAPES)


def test_images_are_taken_in_equal_chunks_that_are_large_enough():
    def count(batch, side, channels, threads=1):
        return convolution.images_per_chunk((batch, side, side, channels), (3, 3, channels, channels), threads)

    assert [count(256, 32, 16), count(256, 16, 32), count(256, 8, 64), count(32, 32, 160)] == [8, 16, 32, 4]
    assert [count(32, 16, 320), count(32, 8, 640)] == [32, 32]
    assert [count(30, 32, 16), count(97, 32, 16), count(1, 32, 16)] == [10, 97, 1]
    assert [count(256, 32, 16, 2), count(256, 16, 32, 2), count(256, 8, 64, 2), count(32, 32, 160, 2)] == [32, 64, 128, 4]


def test_the_threads_of_a_device_are_its_share_of_the_cores(monkeypatch):
    monkeypatch.setattr(convolution.cores, "cpu_cores", lambda: 6)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:4])
    assert (convolution.threads_of(None), convolution.threads_of(mesh)) == (6, 1)


def test_a_batch_that_the_devices_do_not_divide_evenly():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    shape = (12, 32, 16, 16, 3, 1)
    found = all_three(lambda *given: convolve(*given, mesh), shape)
    for part, expected in zip(found, all_three(convolve_plain, shape), strict=True):
        np.testing.assert_array_equal(part, expected)


@pytest.mark.parametrize("shape", [SHAPES[1], (2, 32, 64, 32, 1, 2), (2, 8, 128, 32, 3, 2)], ids=str)
def test_low_precision_is_left_to_xla(shape):
    for found, expected in zip(
        all_three(convolve, shape, jnp.bfloat16), all_three(convolve_plain, shape, jnp.bfloat16), strict=True
    ):
        assert found.dtype == jnp.bfloat16
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_accelerators_run_the_plain_convolutions(shape, platform):
    def program(function):
        text = gradients(function, shape[-1]).trace(*arrays(shape)).lower(lowering_platforms=(platform,)).as_text()
        kept = re.findall(r"stablehlo\.(?:convolution|dot_general|while|pad)\b.*", text)
        return sorted(re.sub(r"%\w+", "", line) for line in kept)

    plain = program(convolve_plain)
    assert len([line for line in plain if "convolution" in line]) == 3
    assert program(convolve) == plain


@pytest.mark.parametrize("side", [32, 9])
def test_a_strided_1x1_kernel_moves_only_the_pixels_that_it_meets(side):
    shape = (2, side, 64, 48, 1, 2)

    def strided(inputs, kernel, stride):
        return jax.lax.conv_general_dilated(
            inputs, kernel, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    for found, expected in zip(all_three(convolve_plain, shape), all_three(strided, shape), strict=True):
        assert found.shape == expected.shape
        assert relative_error(found, expected) < 1e-6
    met = -(-side // 2)
    text = gradients(convolve_plain, 2).trace(*arrays(shape)).lower(lowering_platforms=("cuda",)).as_text()
    for line in re.findall(r"stablehlo\.convolution.*", text):
        sizes = [int(size) for array in re.findall(r"tensor<([\dx]+)xf32>", line) for size in array.split("x")]
        assert (sizes.count(side), sizes.count(met)) == (0, 4), line


@pytest.mark.parametrize("shape", [(32, 16, 16, 32, 3, 1), (128, 16, 64, 64, 3, 1), (16, 8, 128, 32, 3, 2)], ids=str)
def test_a_split_batch_gives_the_same_and_sums_nothing_inside_a_loop(shape):
    """Both ways of a device's part: with Winograd's loops, and XLA's where the part has too few pixels for them."""
    whole = all_three(convolve, shape)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    inputs, kernel, cotangent = arrays(shape)
    arguments = jax.device_put(inputs, split), kernel, jax.device_put(cotangent, split)

    compiled = gradients(lambda *given: convolve(*given, mesh), shape[-1]).lower(*arguments).compile()
    for found, expected in zip(compiled(*arguments), whole, strict=True):
        assert relative_error(found, expected) < 1e-5
    # Where a loop holds a collective, the CPU backend mixes it up with those outside.
    inside, entry = compiled.as_text().split("\nENTRY ")
    assert (" while(" in entry) == (shape[0] == 128)
    assert (" all-reduce(" in inside, " all-reduce(" in entry) == (False, True)
