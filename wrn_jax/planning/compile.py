"""Compiles the training step for an accelerator that is not there, and reports what it would cost.

Memory is what XLA reports. Operations, bytes, collectives and the bound on the time are `planning.roofline`'s.
"""

import contextlib
import dataclasses
import importlib.metadata
import math
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import Mesh

from wrn_jax.config import Config
from wrn_jax.config.timeline import Timeline
from wrn_jax.planning import roofline, targets
from wrn_jax.planning.targets import Target
from wrn_jax.runtime import console, devices
from wrn_jax.runtime.errors import UserError
from wrn_jax.runtime.files import reason
from wrn_jax.training.setup import make_setup
from wrn_jax.training.step import jit_train_steps

INSTALL = {"tpu": 'pip install "jax[tpu]" (libtpu, for Linux)', "gpu": 'pip install "jax[cuda12]" (no GPU is needed)'}


def analyse(config: Config, target: Target, hlo_file: Path | None = None) -> dict[str, Any]:
    """Compiles the training step of `config` for `target`.

    Returns:
      The report as plain JSON data: sizes in bytes, times in seconds, all per device and step unless named otherwise.

    Raises:
      UserError: the compiler for the target is missing or refuses, or the configuration does not fit the target.
    """
    mesh = devices.make_mesh(config.devices, find_devices(target))
    timeline = Timeline.of(config)
    if config.precision == "auto":
        config = config.override({"precision": target.accelerator.precision})
    batch_size = config.recipe.batch_size
    begin = time.perf_counter()
    with console.waiting(f"compiling for {target.text}, {mesh.size} device(s), {config.precision}, batch {batch_size}"):
        lowered = lower(config, mesh, target.platform)
        try:
            compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            raise UserError(f"--target {target.text}: the compiler refused: {reason(error, 300)}") from None
    seconds = time.perf_counter() - begin
    program = compiled.as_text() or ""
    if hlo_file is not None:
        try:
            hlo_file.write_text(program)
        except OSError as error:
            raise UserError(f"{hlo_file}: cannot be written: {error.strerror}") from None
    counted = compiled.cost_analysis() or {}
    return {
        "notice": roofline.NOTICE,
        "target": target.text,
        "accelerator": target.accelerator.name,
        "peaks": dataclasses.asdict(target.accelerator),
        "versions": _versions(target.platform),
        "model": config.model.title,
        "precision": config.precision,
        "devices": mesh.size,
        "batch_size": batch_size,
        "images_per_device": batch_size // mesh.size,
        "sharpness_aware_share": timeline.sharpness_aware_steps / timeline.steps,
        "compile_seconds": round(seconds, 1),
        "memory": memory_report(compiled.memory_analysis(), target.accelerator.memory),
        "counted_by_xla": {name: counted[name] for name in ("flops", "bytes accessed") if name in counted},
        **roofline.program_report(program, target.accelerator, mesh.size, batch_size // mesh.size),
    }


def find_devices(target: Target) -> list[Any]:
    """The devices of a target, none of which is there. Raises UserError if its compiler is not installed or refuses it."""
    try:
        if target.platform == "tpu":
            name = f"{target.kind}:{target.topology or min(targets.SLICES[target.kind].items())[1]}"
            # Chips of two cores work as one device, as they do on Cloud TPU.
            two_cores = {"chip_config_name": "megacore"} if target.kind in ("v4", "v5p") else {}
            topology = topologies.get_topology_desc(platform="tpu", topology_name=name, **two_cores)
        else:
            description = targets.gpu_description(target.kind)
            topology = topologies.get_topology_desc(
                platform="cuda", topology_name="", target_config=description, topology=f"1x1x{target.chips}"
            )
    except (RuntimeError, NotImplementedError, ImportError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError):
            raise UserError(f"--target {target.text}: the compiler does not know this target: {reason(error)}") from None
        advice = INSTALL[target.platform]
        raise UserError(f"--target {target.text}: its compiler is not installed; {advice} ({reason(error, 100)})") from None
    # A chip of the smallest slice stands for a single one where no slice of one is offered.
    return list(topology.devices)[: target.chips]


def lower(config: Config, mesh: Mesh, platform: str) -> jax.stages.Lowered:
    """The training step of `config`, lowered for `platform` ("tpu", "gpu" or "cpu"), from shapes alone.

    Raises:
      UserError: the configuration does not fit the mesh.
    """
    setup = make_setup(config, mesh)
    array = partial(jax.ShapeDtypeStruct, sharding=devices.replicated(mesh))
    arguments = (
        jax.tree.map(lambda leaf, place: array(leaf.shape, leaf.dtype, sharding=place), setup.abstract_state, setup.shardings),
        array((setup.num_train, math.prod(setup.dataset.image_shape)), jnp.uint8),
        array((setup.num_train,), jnp.int32),
        array((setup.timeline.steps_per_epoch, config.recipe.batch_size), jnp.int32),
        array((), jnp.int32),
    )
    train_steps = jit_train_steps(setup, setup.timeline.sharpness_aware_steps > 0)  # the dearer of two programs
    return train_steps.trace(*arguments).lower(lowering_platforms=({"gpu": "cuda"}.get(platform, platform),))


def _versions(platform: str) -> dict[str, str]:
    names = ["jax", "jaxlib", *(["libtpu"] if platform == "tpu" else ["jax-cuda12-plugin", "jax-cuda13-plugin"])]
    versions = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def memory_report(stats: Any, available: float) -> dict[str, Any]:
    """XLA's account of a device's memory. Outputs that reuse the memory of arguments count once."""
    parts = {
        "arguments": stats.argument_size_in_bytes,
        "outputs": stats.output_size_in_bytes,
        "aliased": stats.alias_size_in_bytes,
        "temporaries": stats.temp_size_in_bytes,
        "code": stats.generated_code_size_in_bytes,
    }
    total = sum(parts.values()) - 2 * parts["aliased"]
    return parts | {"total": total, "available": available, "fits": total <= available}
