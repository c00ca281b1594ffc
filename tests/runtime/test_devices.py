"""Devices, divisibility, and what `auto` precision means on which hardware."""

import os
import subprocess
import sys
import threading
import types

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from wrn_jax import command
from wrn_jax.models.convolution import convolve_plain
from wrn_jax.runtime import devices
from wrn_jax.runtime.errors import UserError


@pytest.mark.parametrize(("asked", "size"), [(None, 8), (1, 1), (4, 4)])
def test_mesh_has_the_devices_asked_for(asked, size):
    assert devices.make_mesh(asked).size == size


def test_too_many_devices():
    with pytest.raises(UserError, match=r"devices = 9: only 8 cpu device\(s\) found"):
        devices.make_mesh(9)


def test_processes_have_as_many_devices_each(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    of_four = [types.SimpleNamespace(process_index=index // 4, platform="gpu") for index in range(16)]
    for count in (2, 6):
        with pytest.raises(UserError, match=rf"devices = {count}: should be all 16, since each of the 4 processes"):
            devices.make_mesh(count, of_four)


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
    options = devices.compiler_options(devices.make_mesh(1))
    text = convolve.lower(images, kernel).compile(compiler_options=options).as_text()
    assert " convolution(" in text
    assert jax.__version_info__ >= (0, 11) or "ynn_fusion" not in text


def mesh_of(platform, size):
    return types.SimpleNamespace(size=size, devices=np.array([types.SimpleNamespace(platform=platform)] * size))


@pytest.mark.parametrize(("size", "cores", "alone"), [(1, 2, False), (2, 2, True), (2, 4, False), (8, 2, True), (1, 1, False)])
def test_a_cpu_device_computes_alone_where_no_core_is_left_to_help(monkeypatch, size, cores, alone):
    monkeypatch.setattr(devices.cores, "cpu_cores", lambda: cores)
    options = devices.compiler_options(mesh_of("cpu", size))
    assert options.get("xla_cpu_multi_thread_eigen", True) is not alone


@pytest.mark.parametrize(
    ("before", "environment", "found"),
    [
        ("pass", {}, 3),
        ("jax.devices()", {}, 1),
        ("pass", {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}, 2),
        ("pass", {"JAX_NUM_CPU_DEVICES": "1"}, 1),
    ],
)
def test_a_cpu_is_divided_unless_that_is_settled(before, environment, found):
    code = f"import jax; from wrn_jax.runtime import devices; {before}; devices.set_cpu_devices(3); print(len(jax.devices()))"
    inherited = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")}
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=inherited | environment, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == (f"{found}\n", "", 0)


def test_gpus_exchange_the_gradients_in_one_piece():
    gpu, tpu = (devices.compiler_options(mesh_of(name, 4)) for name in ("cuda", "tpu"))
    assert int(gpu["xla_gpu_all_reduce_combine_threshold_bytes"]) > 4 * 36_536_884  # those of a WideResNet-28-10 in float32
    assert tpu == {}


@pytest.mark.parametrize(
    "error", [MemoryError(), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes.")]
)
def test_a_lack_of_memory_names_the_remedies(error):
    text = devices.explain(error)
    assert text.startswith("out of memory (")
    for remedy in ("recipe.batch_size", "model.recompute=blocks", "precision=bfloat16", "wrn_jax.aot"):
        assert remedy in text


def test_other_errors_are_not_explained():
    assert devices.explain(RuntimeError("something else")) is None
    assert devices.explain(AssertionError()) is None  # there are devices


def test_a_platform_that_is_not_there_is_one_line(monkeypatch, capsys):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")

    def fail():
        raise AssertionError

    monkeypatch.setattr(devices.jax, "devices", fail)
    assert command.run(fail, "train") == 2
    assert capsys.readouterr().err.startswith("train: JAX_PLATFORMS=cuda: no such device can be used here; ")


def test_waiting_for_the_others_says_for_whom_and_ends_before_jax_aborts():
    code = (
        "import jax\n"
        "from wrn_jax.runtime import devices\n"
        "devices.WAIT_FOR_OTHERS = 1\n"
        "devices.start_processes('127.0.0.1:1', 2, 1)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "waiting for the 2 processes at 127.0.0.1:1 ..." in done.stderr
    assert done.stderr.splitlines()[-1] == "train: --distributed: the 2 processes did not all come to meet at 127.0.0.1:1"


class Store:
    """What the processes of a run keep in common, and how often one waited until all knew."""

    def __init__(self):
        self.values, self.waited = {}, 0

    def key_value_set(self, key, value):
        if key in self.values:
            raise jax.errors.JaxRuntimeError("ALREADY_EXISTS: there")
        self.values[key] = value

    def key_value_try_get(self, key):
        if key not in self.values:
            raise jax.errors.JaxRuntimeError("NOT_FOUND: not there")
        return self.values[key]

    def wait_at_barrier(self, name, milliseconds):
        self.waited += 1


def test_an_error_of_one_process_ends_the_others_with_its_line(monkeypatch):
    store, ended = Store(), []
    monkeypatch.setattr(devices, "_store", lambda: store)
    monkeypatch.setattr(devices.entry, "end", lambda *how: ended.append(how))
    monkeypatch.setattr(devices, "_ending", threading.Lock())
    devices.end_all("alone", 2)
    assert not store.values
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    times = iter([lambda: None, lambda: devices.end_all("DIR: is gone", 2)])
    # The process that told it ends by itself ...
    devices._hear_of_an_end(types.SimpleNamespace(wait=lambda seconds: next(times)()))
    assert (ended, store.waited) == ([], 1)
    # ... and the others hear of it, once.
    monkeypatch.setattr(devices, "_ending", threading.Lock())
    devices._hear_of_an_end(types.SimpleNamespace(wait=lambda seconds: None))
    assert (ended, store.waited) == ([("train", "DIR: is gone", 2)], 2)


def test_at_the_end_of_python_nobody_listens_for_ends(monkeypatch):
    """A thread that is in JAX's C++ then aborts the process."""
    stops = []
    monkeypatch.setattr(devices, "_store", Store)
    monkeypatch.setattr(devices.atexit, "register", stops.append)
    before = {*threading.enumerate()}
    devices.hear_of_ends()
    (listener,) = {*threading.enumerate()} - before
    stops[0]()
    assert not listener.is_alive()
