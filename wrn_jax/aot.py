"""Compiles the training step for an accelerator that is not there, and says what it would cost.

`python -m wrn_jax.aot --config configs/session04.py --target tpu:v5e:2x2`

Memory is what XLA reports. Operations, bytes and collectives are counted from the optimised program (`planning.hlo`). The
time is a roofline (Williams et al., "Roofline", 2009): what the chip's published peaks allow at best. It is a bound and no
measurement; launching, waiting, and everything that keeps a kernel from its peak come on top.
"""

import collections
import contextlib
import dataclasses
import importlib.metadata
import json
import math
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies

from wrn_jax import command
from wrn_jax import config as configs
from wrn_jax.config import Config
from wrn_jax.planning import hlo, targets
from wrn_jax.planning.targets import Target
from wrn_jax.runtime import devices
from wrn_jax.runtime.console import format_duration
from wrn_jax.runtime.errors import UserError
from wrn_jax.training.setup import make_setup
from wrn_jax.training.step import jit_train_steps

NOTICE = "This is a bound from published peaks, not a measurement: no such device was used."
PROGRESS_INTERVAL = 30.0
INSTALL = {"tpu": 'pip install "jax[tpu]" (libtpu, for Linux)', "gpu": 'pip install "jax[cuda12]" (no GPU is needed)'}


def main(argv: Sequence[str] | None = None) -> None:
    """Compiles for a target and prints the report. Raises UserError."""
    made = command.parser("aot", "Compiles the training step for an accelerator that is not there.", with_keys=True)
    made.add_argument(
        "--target",
        metavar="TARGET",
        help=f"tpu:KIND:TOPOLOGY with KIND {', '.join(targets.TPUS)}, for example tpu:v5e:2x2; "
        f"gpu:KIND[:COUNT] with KIND {', '.join(targets.GPUS)}, for example gpu:h100:8",
    )
    made.add_argument(
        "--scaling",
        metavar="N,N,...",
        help="compile for these numbers of chips of the target's kind, recipe.batch_size images on each",
    )
    made.add_argument("--json", action="store_true", help="print the report as JSON")
    made.add_argument("--hlo", type=Path, metavar="FILE", help="write the optimised program as text")
    options, overrides = command.parse(made, argv)
    if options.config is None:
        raise UserError("--config FILE is missing, for example --config configs/session04.py")
    if options.target is None:
        raise UserError("--target is missing, for example --target tpu:v5e:2x2 or --target gpu:h100")
    config = configs.apply_arguments(configs.load_file(options.config), overrides)
    target = targets.find(options.target)
    targets.apply_environment(target.platform)
    jax.config.update("jax_platforms", "cpu")
    reports = []
    if options.scaling is None:
        reports.append(analyse(config, target, options.hlo))
        text = report_lines(reports[0])
    else:
        per_chip = config.recipe.batch_size
        sizes = [target.resized(chips) for chips in parse_sizes(options.scaling)]
        for size in sizes:
            scaled = config.override({"recipe.batch_size": per_chip * size.chips}, "--scaling")
            reports.append(analyse(scaled, size, options.hlo))
        text = scaling_lines(reports)
    print(json.dumps(reports if options.scaling else reports[0], indent=2) if options.json else "\n".join(text))


def parse_sizes(text: str) -> list[int]:
    """The numbers of chips of `--scaling`. Raises UserError."""
    words = text.split(",")
    if not all(word.strip().isdigit() and 0 < int(word) <= 100_000 for word in words):
        raise UserError(f"--scaling {text}: should be numbers of chips, for example 1,4,8,32,256")
    return [int(word) for word in words]


def analyse(config: Config, target: Target, hlo_file: Path | None = None) -> dict[str, Any]:
    """Compiles the training step of `config` for `target`.

    Returns:
      The report as plain JSON data: sizes in bytes, times in seconds, all per device and step unless named otherwise.

    Raises:
      UserError: the compiler for the target is missing or refuses, or the configuration does not fit the target.
    """
    mesh = devices.make_mesh(config.devices, find_devices(target))
    devices.check_divisible(config.recipe.batch_size, mesh, config.model.batch_norm_groups, "recipe.batch_size")
    dtype = target.accelerator.precision if config.precision == "auto" else config.precision
    label = f"{target.text}, {mesh.size} device(s), {dtype}, batch {config.recipe.batch_size}"
    begin = time.perf_counter()
    with progress(f"compiling for {label}"):
        lowered = lower(config, dtype, mesh, target.platform)
        try:
            compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"--target {target.text}: the compiler refused: {reason}") from None
    seconds = time.perf_counter() - begin
    text = compiled.as_text()
    if hlo_file is not None:
        try:
            hlo_file.write_text(text)
        except OSError as error:
            raise UserError(f"{hlo_file}: cannot be written: {error.strerror}") from None
    report = {
        "notice": NOTICE,
        "target": target.text,
        "accelerator": target.accelerator.name,
        "peaks": dataclasses.asdict(target.accelerator),
        "versions": _versions(target.platform),
        "model": f"WideResNet-{config.model.depth}-{config.model.widen_factor}",
        "precision": dtype,
        "devices": mesh.size,
        "batch_size": config.recipe.batch_size,
        "images_per_device": config.recipe.batch_size // mesh.size,
        "compile_seconds": round(seconds, 1),
    }
    report["memory"] = memory_report(compiled.memory_analysis(), target.accelerator.memory)
    cost = compiled.cost_analysis() or {}
    report["counted_by_xla"] = {name: cost[name] for name in ("flops", "bytes accessed") if name in cost}
    return report | program_report(text, report)


def find_devices(target: Target) -> list[Any]:
    """The devices of a target, none of which is there. Raises UserError if its compiler is not installed or refuses it."""
    try:
        if target.platform == "tpu":
            name = f"{target.kind}:{target.topology or min(targets.SLICES[target.kind].items())[1]}"
            # Chips of two cores work as one device, as they do on Cloud TPU.
            two_cores = {"chip_config_name": "megacore"} if target.kind in ("v4", "v5p") else {}
            found = topologies.get_topology_desc(platform="tpu", topology_name=name, **two_cores)
        else:
            description = targets.gpu_description(target.kind)
            found = topologies.get_topology_desc(
                platform="cuda", topology_name="", target_config=description, topology=f"1x1x{target.chips}"
            )
    except (RuntimeError, NotImplementedError, ImportError) as error:
        reason = " ".join(str(error).split())
        if isinstance(error, jax.errors.JaxRuntimeError):
            raise UserError(f"--target {target.text}: the compiler does not know this target: {reason[:200]}") from None
        advice = INSTALL[target.platform]
        raise UserError(f"--target {target.text}: its compiler is not installed; {advice} ({reason[:100]})") from None
    # A chip of the smallest slice stands for a single one where no slice of one is offered.
    return list(found.devices)[: target.chips]


def lower(config: Config, dtype: str, mesh: Any, platform: str) -> Any:
    """The training step of `config`, lowered for `platform` ("tpu", "gpu" or "cpu"), from shapes alone."""
    setup = make_setup(config.override({"precision": dtype}), mesh)
    whole = devices.replicated(mesh)
    place = lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)  # noqa: E731
    arguments = (
        jax.tree.map(place, setup.abstract_state, setup.shardings),
        jax.ShapeDtypeStruct((setup.num_train, math.prod(setup.dataset.image_shape)), jnp.uint8, sharding=whole),
        jax.ShapeDtypeStruct((setup.num_train,), jnp.int32, sharding=whole),
        jax.ShapeDtypeStruct((setup.timeline.steps_per_epoch, config.recipe.batch_size), jnp.int32, sharding=whole),
        jax.ShapeDtypeStruct((), jnp.int32, sharding=whole),
    )
    return jit_train_steps(setup).trace(*arguments).lower(lowering_platforms=({"gpu": "cuda"}.get(platform, platform),))


@contextlib.contextmanager
def progress(text: str) -> Iterator[None]:
    """Says on standard error what is going on, and for how long already."""
    done = threading.Event()
    begin = time.perf_counter()

    def watch():
        while not done.wait(PROGRESS_INTERVAL):
            print(f"... {format_duration(time.perf_counter() - begin)}", file=sys.stderr, flush=True)

    print(f"{text} ...", file=sys.stderr, flush=True)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    print(f"compiled in {format_duration(time.perf_counter() - begin)}", file=sys.stderr, flush=True)


def _versions(platform: str) -> dict[str, str]:
    names = ["jax", "jaxlib", *(["libtpu"] if platform == "tpu" else ["jax-cuda12-plugin", "jax-cuda13-plugin"])]
    found = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


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


def program_report(text: str, report: dict[str, Any]) -> dict[str, Any]:
    """What the optimised program does, and the roofline of it.

    Args:
      text: the program.
      report: with `peaks`, `devices` and `images_per_device`.
    """
    counter = hlo.Counter(hlo.parse(text))
    kernels = counter.kernels()
    peaks = report["peaks"]
    images, devices = report["images_per_device"], report["devices"]
    matrix, by_kind = collections.Counter(), collections.Counter()
    vector = integer = 0
    compute_seconds = kernel_seconds = 0.0
    bandwidth = peaks["bandwidth"]
    for work, times in kernels:
        needed = sum(
            count / (peaks["matrix_peak"] if dtype in ("bf16", "f16") else peaks["float32_peak"])
            for dtype, count in work.matrix.items()
        )
        compute_seconds += times * needed
        kernel_seconds += times * max(needed, work.bytes / bandwidth)
        by_kind[work.kind] += times * work.bytes
        vector, integer = vector + times * work.vector, integer + times * work.integer
        for dtype, count in work.matrix.items():
            matrix[dtype] += times * count
    moved = sum(by_kind.values())
    memory_seconds = moved / bandwidth
    # A link carries half of its two-way figure in each direction.
    per_direction = peaks["interconnect"] / 2
    network_seconds = sum(c.times * _sent(c, devices) / per_direction for c in counter.collectives) if devices > 1 else 0.0
    parts = {"compute": compute_seconds, "memory": memory_seconds, "network": network_seconds}
    bound = max(parts.values())
    all_matrix = sum(matrix.values())
    narrow = sum(count for dtype, count in matrix.items() if dtype in ("bf16", "f16"))
    return {
        "operations": {
            "matrix": dict(matrix),
            "vector": vector,
            "integer": integer,
            "matrix_per_image": all_matrix / images,
            "share_on_matrix_units_in_16_bit": narrow / max(all_matrix + vector, 1),
        },
        "traffic": {"bytes": moved, "bytes_per_image": moved / images, "by_kind": dict(by_kind)},
        "collectives": _joined(counter.collectives),
        "bound": {
            "seconds": parts,
            "bound_by": max(parts, key=parts.get),
            "overlapped_seconds": bound,
            "kernel_by_kernel_seconds": kernel_seconds + network_seconds,
            "of_compute": bound / compute_seconds if compute_seconds else math.inf,
            "images_per_second": report["images_per_device"] * devices / bound if bound else 0.0,
        },
    }


def _sent(collective: hlo.Collective, devices: int) -> float:
    """Bytes that a device sends, at least (Patarasuk & Yuan, "Bandwidth optimal all-reduce algorithms", 2009)."""
    factor = {"all-reduce": 2 * (devices - 1) / devices, "all-gather": devices - 1}
    return collective.bytes * factor.get(collective.opcode, (devices - 1) / devices)


def _joined(collectives: list[hlo.Collective]) -> list[dict[str, Any]]:
    """The collectives of a step, equal ones counted together, the largest first."""
    counts = collections.Counter()
    for one in collectives:
        counts[dataclasses.replace(one, times=1)] += one.times
    rows = [{"opcode": one.opcode, "bytes": one.bytes, "arrays": one.arrays, "times": times} for one, times in counts.items()]
    return sorted(rows, key=lambda row: -row["bytes"])


def report_lines(report: dict[str, Any]) -> list[str]:
    """The report for people."""
    memory, operations, traffic, bound = (report[key] for key in ("memory", "operations", "traffic", "bound"))
    images, peaks = report["images_per_device"], report["peaks"]
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    matrix = ", ".join(f"{count / images / 1e9:.3f} G in {name}" for name, count in operations["matrix"].items())
    kinds = sorted(traffic["by_kind"].items(), key=lambda item: -item[1])
    seconds = bound["seconds"]
    lines = [
        f"{report['model']}, {report['precision']}, batch {report['batch_size']} on {report['devices']} x "
        f"{report['accelerator']}, {images} images per chip; {versions}",
        f"{report['notice']}",
        "",
        f"memory per chip: {_mb(memory['total'])} of {_mb(memory['available'])}"
        f" ({'fits' if memory['fits'] else 'DOES NOT FIT'}): arguments {_mb(memory['arguments'])}, temporaries "
        f"{_mb(memory['temporaries'])}, outputs {_mb(memory['outputs'])}, of which in the arguments' memory "
        f"{_mb(memory['aliased'])}, code {_mb(memory['code'])}",
        f"operations per image: {matrix} on matrix units; {operations['vector'] / images / 1e9:.3f} G others on "
        f"floating-point numbers, {operations['integer'] / images / 1e9:.3f} G on integers",
        f"share of the operations on matrix units in 16 bit: {operations['share_on_matrix_units_in_16_bit']:.2%}",
        f"device memory traffic per image: {traffic['bytes_per_image'] / 1e6:.1f} MB ("
        + ", ".join(f"{name} {count / images / 1e6:.1f}" for name, count in kinds)
        + ")",
        *collective_lines(report),
        "",
        f"bound per step: compute {seconds['compute'] * 1e3:.3f} ms, memory {seconds['memory'] * 1e3:.3f} ms, network "
        f"{seconds['network'] * 1e3:.3f} ms: bound by {bound['bound_by']}, {bound['of_compute']:.2f} x compute, at most "
        f"{bound['images_per_second']:,.0f} images/s",
        f"one kernel after the other, each at its own bound: {bound['kernel_by_kernel_seconds'] * 1e3:.3f} ms, at most "
        f"{report['batch_size'] / bound['kernel_by_kernel_seconds']:,.0f} images/s",
        f"peaks: {peaks['matrix_peak'] / 1e12:g} TFLOP/s in {peaks['precision']}, {peaks['bandwidth'] / 1e9:g} GB/s memory, "
        f"{peaks['interconnect'] / 1e9:g} GB/s links per chip ({peaks['source']})",
    ]
    if report["counted_by_xla"]:
        counted = report["counted_by_xla"]
        lines.append(
            f"XLA itself counts {counted.get('flops', 0) / images / 1e9:.3f} G operations and "
            f"{counted.get('bytes accessed', 0) / images / 1e6:.1f} MB per image (all memories, no padding taps)"
        )
    return lines


def collective_lines(report: dict[str, Any]) -> list[str]:
    """The collectives of a step: the large ones one by one, the small ones together."""
    rows = report["collectives"]
    if not rows:
        return ["collectives: none"]
    large = [row for row in rows if row["bytes"] >= 2**20]
    small = [row for row in rows if row["bytes"] < 2**20]
    texts = [f"{row['times']} x {row['opcode']} of {_mb(row['bytes'])} ({row['arrays']} arrays)" for row in large]
    if small:
        count = sum(row["times"] for row in small)
        texts.append(f"{count} below 1 MB with {sum(row['bytes'] * row['times'] for row in small):,} bytes together")
    return ["collectives per step: " + "; ".join(texts)]


def scaling_lines(reports: list[dict[str, Any]]) -> list[str]:
    """Weak scaling as a table: the same number of images on each chip."""
    lines = [
        f"{reports[0]['model']}, {reports[0]['precision']}, {reports[0]['accelerator']}, weak scaling. {NOTICE}",
        "",
        f"{'chips':>6} {'batch':>8} {'memory/chip':>14} {'sent/chip':>12} {'collectives':>12} {'ms/step':>9} "
        f"{'images/s':>12} {'efficiency':>10}",
    ]
    first = reports[0]["bound"]["images_per_second"] / reports[0]["devices"]
    for report in reports:
        bound, rows = report["bound"], report["collectives"]
        # Nothing overlaps with the network: the worse of two bounds on a step that waits for its gradients.
        seconds = max(bound["seconds"]["compute"], bound["seconds"]["memory"]) + bound["seconds"]["network"]
        speed = report["batch_size"] / seconds
        lines.append(
            f"{report['devices']:>6} {report['batch_size']:>8} {_mb(report['memory']['total']):>14} "
            f"{_mb(sum(row['bytes'] * row['times'] for row in rows)):>12} {sum(row['times'] for row in rows):>12} "
            f"{seconds * 1e3:>9.3f} {speed:>12,.0f} {speed / report['devices'] / first:>10.1%}"
        )
    return lines


def _mb(size: float) -> str:
    return f"{size / 1e6:,.1f} MB" if size < 1e9 else f"{size / 1e9:,.2f} GB"


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    # Programs for a TPU that is not there can be written to the cache, but not be read back.
    jax.config.update("jax_enable_compilation_cache", False)
    sys.exit(command.run(main, "aot"))
