"""Devices, the mesh over them, and where arrays live."""

import atexit
import contextlib
import os
import re
import threading
from collections.abc import Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.experimental.layout import Format, Layout
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from wrn_jax.runtime import console, cores, entry
from wrn_jax.runtime.errors import UserError
from wrn_jax.runtime.files import reason


class Device(Protocol):
    """What is asked of a `jax.Device`, which has no type that a checker can see."""

    platform: str
    device_kind: str


AXIS = "data"
"""Name of the mesh's only axis; the batch is split over it."""

GPU_PLATFORMS = ("gpu", "cuda", "rocm")
"""JAX's platform names of GPUs, those included that are only compiled for."""

KERNEL_LAYOUTS = dict.fromkeys(GPU_PLATFORMS, (3, 0, 1, 2))
"""By platform: the axes of a convolution's kernel [H, W, I, O] from the outermost in memory to the innermost.

cuDNN wants the output channels outermost. Kernels kept as they come are rearranged there and back in every step.
"""

WAIT_FOR_OTHERS = 120
"""Seconds that a process waits for the others of its run."""


def set_cpu_devices(count: int) -> None:
    """Configures JAX to show the CPU as `count` devices.

    Does nothing where their number is set already, by flag or environment, or where JAX has made its devices.
    """
    by_flag = "host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    by_setting = getattr(jax.config, "jax_num_cpu_devices", -1) >= 1
    if count > 1 and not by_flag and not by_setting:
        with contextlib.suppress(RuntimeError):  # devices are there: it stays as it is
            jax.config.update("jax_num_cpu_devices", count)


def make_mesh(num_devices: int | None = None, devices: Sequence[Device] | None = None) -> Mesh:
    """A one-dimensional mesh over the first `num_devices` (none: all) of `devices` (none: those that are there).

    Raises UserError if there are fewer, or if processes would not have as many each.
    """
    devices = jax.devices() if devices is None else devices
    count = len(devices) if num_devices is None else num_devices
    if count > len(devices):
        raise UserError(f"devices = {count}: only {len(devices)} {devices[0].platform} device(s) found")
    owners = [getattr(device, "process_index") for device in devices[:count]]  # noqa: B009 (JAX does not declare it)
    counts = {owners.count(process) for process in range(jax.process_count())}
    if len(counts) > 1 and len(devices) > len(jax.local_devices()):
        raise UserError(
            f"devices = {count}: should be all {len(devices)}, since each of the {jax.process_count()} processes has to have "
            "as many; leave it out"
        )
    return jax.make_mesh((count,), (AXIS,), axis_types=(AxisType.Auto,), devices=devices[:count])


def local_size(mesh: Mesh) -> int:
    """The devices of `mesh` in each process; all have as many."""
    return mesh.size // jax.process_count()


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharded(mesh: Mesh) -> NamedSharding:
    """The first axis split over the devices."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def state_shardings(tree: Any, mesh: Mesh, sharding: str) -> Any:
    """Where each array of a state lives, as a tree of shardings; of formats for kernels that lie in memory in another order.

    Args:
      tree: arrays or `jax.ShapeDtypeStruct`s.
      mesh: the devices.
      sharding: "replicated", or "fsdp": every array is split over the devices along its longest axis that they divide
        evenly; what has no such axis is replicated (Zhao et al., "PyTorch FSDP", 2023; Rajbhandari et al., "ZeRO", 2020).
    """

    order = KERNEL_LAYOUTS.get(mesh.devices.flat[0].platform)

    def choose(leaf: Any) -> NamedSharding | Format:
        if order is not None and len(leaf.shape) == len(order):
            return Format(Layout(order), place(leaf))
        return place(leaf)

    def place(leaf: Any) -> NamedSharding:
        axes = [axis for axis, size in enumerate(leaf.shape) if size % mesh.size == 0 and size >= mesh.size]
        if sharding == "replicated" or not axes:
            return replicated(mesh)
        longest = max(axes, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[AXIS if axis == longest else None for axis in range(len(leaf.shape))]))

    return jax.tree.map(choose, tree)


def replicate(tree: Any, mesh: Mesh) -> Any:
    """The arrays of `tree`, the same on every process, as arrays with a copy on every device."""
    sharding = replicated(mesh)

    def put(leaf: Any) -> jax.Array:
        if isinstance(leaf, np.ndarray) and jax.process_count() > 1:
            # Every process holds all of it: no comparison over the network, which costs seconds for a data set.
            return jax.make_array_from_process_local_data(sharding, leaf, global_shape=leaf.shape)
        return jax.device_put(leaf, sharding)

    return jax.tree.map(put, tree)


def check_divisible(batch_size: int, mesh: Mesh, groups: int, key: str) -> None:
    """Raises UserError unless `batch_size` divides evenly over the devices and the normalisation groups."""
    if batch_size % mesh.size:
        nearest = max(mesh.size, batch_size // mesh.size * mesh.size)
        raise UserError(f"{key} = {batch_size}: should divide evenly over {mesh.size} devices, for example {nearest}")
    if batch_size % groups:
        raise UserError(f"model.batch_norm_groups = {groups}: should divide {key} = {batch_size}")


def compute_dtype(precision: str, device: Device) -> str:
    """The compute type that `precision` means on `device`: "float32", "bfloat16" or "float16"."""
    if precision != "auto":
        return precision
    if device.platform == "tpu":
        return "bfloat16"
    if device.platform in GPU_PLATFORMS:
        capability = getattr(device, "compute_capability", "0")
        # ROCm reports an architecture name here; its GPUs in use have bfloat16.
        is_new = not re.fullmatch(r"[0-9]+(\.[0-9]+)?", capability) or float(capability) >= 8.0
        return "bfloat16" if is_new else "float16"
    return "float32"


def steps_per_call(wanted: int | None, device: Device) -> int:
    """Updates in one call of the compiled program: `wanted`, or what suits `device`.

    On a CPU one, since XLA's convolutions run many times slower inside a loop there. On an accelerator a few, so that a small
    network's device does not wait for Python, and a large one's run is asked often enough whether to save or to stop.
    """
    return wanted or (1 if device.platform == "cpu" else 8)


def compiler_options(mesh: Mesh) -> dict[str, Any]:
    """XLA's settings for programs with convolutions on the devices of `mesh`.

    JAX 0.10 hands a CPU's convolutions of 32 channels and more to YNNPACK, which runs them on one thread (measured up to 64
    channels). Without it Eigen's run on all. Products and sums stay YNNPACK's. Where each core is a device, no other one is
    free to help it.

    For GPUs XLA gathers the gradients in portions of 30 MB, each of which the devices wait for; here they are one.
    """
    platform = mesh.devices.flat[0].platform
    if platform in GPU_PLATFORMS:
        return {"xla_gpu_all_reduce_combine_threshold_bytes": str(2**30)}
    options: dict[str, Any] = {}
    if platform == "cpu" and jax.__version_info__ < (0, 11):
        options["xla_cpu_experimental_ynn_fusion_type"] = "LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_REDUCE"
    if platform == "cpu" and 1 < local_size(mesh) >= cores.cpu_cores():
        options["xla_cpu_multi_thread_eigen"] = False
    return options


def explain(error: BaseException) -> str | None:
    """What to do about an error of JAX that the user can mend, in one line; None for any other."""
    text = str(error)
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text or "out of memory" in text.lower():
        return (
            f"out of memory ({reason(error)}); less is needed with a smaller recipe.batch_size (and the learning rate smaller "
            "by the same factor), model.recompute=blocks, or precision=bfloat16; `python -m wrn_jax.aot` tells for a GPU or TPU"
        )
    # JAX asserts that the platforms it was told to use gave a device.
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if platforms and (isinstance(error, AssertionError) or "initialize backend" in text or "platform" in text.lower()):
        with contextlib.suppress(Exception):
            jax.devices()
            return None
        return f"JAX_PLATFORMS={platforms}: no such device can be used here; unset it, or install JAX for it"
    return None


def start_processes(coordinator: str | None, count: int | None, index: int | None) -> None:
    """Joins this process to the others of a multi-host run; to be called before anything that asks for devices.

    Args:
      coordinator: HOST:PORT of process 0; None where JAX finds out by itself: on Cloud TPU slices, under SLURM and the like.
      count, index: number of processes, and which one this is, from 0; None likewise.

    Raises:
      UserError: the others cannot be reached. Where JAX would abort the process for that, it ends before, with exit code 2.
    """
    others = f"the {count} processes" if count else "the other processes"
    where = f"at {coordinator}" if coordinator else "where JAX finds them (Cloud TPU, SLURM and the like; else --coordinator)"
    failure = f"--distributed: {others} did not all come to meet {where}"
    limit = threading.Timer(WAIT_FOR_OTHERS, entry.end, ("train", failure, 2))
    limit.daemon = True
    limit.start()
    try:
        with console.waiting(f"waiting for {others} {where}"):
            # Half a minute without a sign of life, and a process counts as gone; the default is a hundred seconds.
            jax.distributed.initialize(
                coordinator, count, index, initialization_timeout=WAIT_FOR_OTHERS + 30, heartbeat_timeout_seconds=30
            )
    except (ValueError, RuntimeError) as error:
        raise UserError(f"--distributed: {reason(error, 300)}") from None
    finally:
        limit.cancel()
    hear_of_ends()


_ENDED = "wrn_jax/ended"
_ending = threading.Lock()
"""Held by the thread that ends this process because of an error."""


def end_all(text: str, code: int) -> None:
    """Has the other processes of the run end with this line and exit code, wherever they are; nothing if there are none.

    They may wait in a computation for this process, so no computation can tell them. Returns once they know, after a few
    seconds at most. Not again in a process that another one is ending.
    """
    if jax.distributed.is_initialized():
        _ending.acquire()
        store = _store()
        with contextlib.suppress(Exception):  # another one was first
            store.key_value_set(_ENDED, f"{code} {text}")
        with contextlib.suppress(Exception):
            store.wait_at_barrier(_ENDED, 5_000)


def hear_of_ends() -> None:
    """From here on this process ends when another one calls `end_all`."""
    over = threading.Event()
    listener = threading.Thread(target=_hear_of_an_end, args=(over,), daemon=True)
    listener.start()

    def stop() -> None:
        over.set()
        listener.join(10)

    # A thread that comes back from JAX's C++ when Python has ended aborts the process.
    atexit.register(stop)


def _hear_of_an_end(over: threading.Event) -> None:
    store = _store()
    while not over.wait(0.5):
        try:
            code, _, text = store.key_value_try_get(_ENDED).partition(" ")
        except jax.errors.JaxRuntimeError as error:
            if "NOT_FOUND" in str(error):
                continue
            return  # the first process is gone: JAX tells
        if _ending.acquire(blocking=False):
            with contextlib.suppress(Exception):
                store.wait_at_barrier(_ENDED, 5_000)
            entry.end("train", text, int(code))
        return


def _store() -> Any:
    """What the processes of a run keep in common on the first one, by key; JAX has no public way there."""
    from jax._src import distributed

    return distributed.global_state.client


def wait_for_all(name: str) -> None:
    """Returns when every process of the run has come to the same call."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def lead_says(value: int) -> int:
    """What the first process of the run gives, a number of 31 bits, on every process; all must call it."""
    return value if jax.process_count() == 1 else int(multihost_utils.broadcast_one_to_all(np.int32(value)))


_DETERMINISTIC = "--xla_gpu_deterministic_ops=true"


def be_deterministic() -> None:
    """Makes GPUs repeat themselves bit for bit, at some cost of speed; to be called before anything that asks for devices.

    Atomic additions and the measurements that choose kernels are what differs from run to run.
    """
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_DETERMINISTIC} --xla_gpu_autotune_level=0".strip()


def is_deterministic() -> bool:
    """Whether `be_deterministic` was called, or the user asked for the same."""
    return _DETERMINISTIC in os.environ.get("XLA_FLAGS", "")
