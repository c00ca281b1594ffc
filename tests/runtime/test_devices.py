"""Devices, divisibility, and what `auto` precision means on which hardware."""

import os
import types

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from wrn_jax.models.convolution import convolve_plain
from wrn_jax.runtime import devices
from wrn_jax.runtime.errors import UserError


@pytest.mark.parametrize(("asked", "size"), [(None, 8), (1, 1), (4, 4)])
def test_mesh_has_the_devices_asked_for(asked, size):
    assert devices.make_mesh(asked).size == size


def test_too_many_devices():
    with pytest.raises(UserError, match=r"devices = 9: only 8 cpu device\(s\) found"):
        devices.make_mesh(9)


def test_replicated_and_sharded():
    mesh = devices.make_mesh(4)
    whole = devices.replicate({"a": np.arange(8)}, mesh)["a"]
    assert [shard.data.shape for shard in whole.addressable_shards] == [(8,)] * 4
    parts = jax.device_put(np.arange(8), devices.batch_sharded(mesh))
    assert [shard.data.shape for shard in parts.addressable_shards] == [(2,)] * 4
    assert parts.sharding.spec == PartitionSpec("data")


def test_divisibility():
    mesh = devices.make_mesh(8)
    devices.check_divisible(64, mesh, 8, "recipe.batch_size")
    with pytest.raises(UserError, match=r"recipe\.batch_size = 63: should divide evenly over 8 devices, for example 56"):
        devices.check_divisible(63, mesh, 1, "recipe.batch_size")
    with pytest.raises(UserError, match="for example 8"):
        devices.check_divisible(3, mesh, 1, "recipe.batch_size")
    with pytest.raises(UserError, match=r"batch_norm_groups = 3: should divide recipe\.batch_size = 64"):
        devices.check_divisible(64, mesh, 3, "recipe.batch_size")


def test_determinism_is_a_matter_of_flags_that_add_to_those_there(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=somewhere")
    devices.be_deterministic()
    flags = os.environ["XLA_FLAGS"].split()
    assert flags == ["--xla_dump_to=somewhere", "--xla_gpu_deterministic_ops=true", "--xla_gpu_autotune_level=0"]


def test_split_state_is_split_along_the_longest_axis_that_fits():
    mesh = devices.make_mesh(8)
    shapes = {"kernel": (3, 3, 16, 32), "bias": (10,), "scalar": ()}
    tree = {name: jax.ShapeDtypeStruct(shape, "float32") for name, shape in shapes.items()}
    found = {name: sharding.spec for name, sharding in devices.state_shardings(tree, mesh, "fsdp").items()}
    assert found == {"kernel": PartitionSpec(None, None, None, "data"), "bias": PartitionSpec(), "scalar": PartitionSpec()}


@pytest.mark.parametrize(
    ("platform", "capability", "dtype"),
    [
        ("cpu", None, "float32"),
        ("tpu", None, "bfloat16"),
        ("gpu", "7.5", "float16"),
        ("gpu", "8.0", "bfloat16"),
        ("cuda", "9.0", "bfloat16"),
        ("gpu", "10.0", "bfloat16"),
        ("rocm", "gfx90a", "bfloat16"),
    ],
)
def test_auto_precision(platform, capability, dtype):
    device = types.SimpleNamespace(platform=platform)
    if capability is not None:
        device.compute_capability = capability
    assert devices.compute_dtype("auto", device) == dtype
    assert devices.compute_dtype("float16", device) == "float16"


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="about convolutions on a CPU")
def test_convolutions_run_on_all_threads():
    """YNNPACK's, which is one of JAX 0.10's libraries, does not."""
    images, kernel = np.zeros((128, 32, 32, 32), np.float32), np.zeros((3, 3, 32, 32), np.float32)
    convolve = jax.jit(lambda images, kernel: convolve_plain(images, kernel, 1))
    options = devices.compiler_options(jax.devices()[0])
    text = convolve.lower(images, kernel).compile(compiler_options=options).as_text()
    assert " convolution(" in text
    assert jax.__version_info__ >= (0, 11) or "ynn_fusion" not in text
    assert devices.compiler_options(types.SimpleNamespace(platform="gpu")) == {}
