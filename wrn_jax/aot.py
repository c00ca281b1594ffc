"""Compiles the training step for an accelerator that is not there, and says what it would cost.

`python -m wrn_jax.aot --config configs/session04.py --target tpu:v5e:2x2`
"""

from wrn_jax.runtime import entry

if __name__ == "__main__":
    entry.begin("aot")

import json
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

import jax

from wrn_jax import command
from wrn_jax.planning import targets
from wrn_jax.planning.roofline import NOTICE
from wrn_jax.planning.tables import table
from wrn_jax.runtime.errors import UserError
from wrn_jax.runtime.files import user_path


def main(argv: Sequence[str] | None = None) -> None:
    """Compiles for a target and prints the report. Raises UserError."""
    parser = command.parser("aot", "Compiles the training step for an accelerator that is not there.", with_keys=True)
    tpu = f"tpu:KIND:TOPOLOGY with KIND {', '.join(targets.TPUS)}, for example tpu:v5e:2x2"
    gpu = f"gpu:KIND[:COUNT] with KIND {', '.join(targets.GPUS)}, for example gpu:h100:8"
    parser.add_argument("--target", metavar="TARGET", help=f"{tpu}; {gpu}")
    chips = "compile for these numbers of chips of the target's kind, recipe.batch_size images on each"
    parser.add_argument("--scaling", metavar="N,N,...", help=chips)
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--hlo", type=user_path, metavar="FILE", help="write the optimised program as text")
    options, overrides = command.parse(parser, argv)
    config = command.read_config(options.config, overrides)
    if options.scaling is not None and options.hlo is not None:
        raise UserError("--hlo: holds one program, and --scaling makes several; choose one")
    if options.target is None:
        raise UserError("--target is missing, for example --target tpu:v5e:2x2 or --target gpu:h100")
    target = targets.find(options.target)
    os.environ.update(targets.environment(target.platform))
    jax.config.update("jax_platforms", "cpu")
    from wrn_jax.planning.compile import analyse  # here, since mistakes above need not wait for it

    if options.scaling is None:
        report = analyse(config, target, options.hlo)
        lines = report_lines(report)
    else:
        report = []
        for size in [target.resized(chips) for chips in parse_sizes(options.scaling)]:
            scaled = config.override({"recipe.batch_size": config.recipe.batch_size * size.chips}, "--scaling")
            report.append(analyse(scaled, size, options.hlo))
        lines = scaling_lines(report)
    print(json.dumps(report, indent=2) if options.json else "\n".join(lines))


def parse_sizes(text: str) -> list[int]:
    """The numbers of chips of `--scaling`. Raises UserError."""
    words = text.split(",")
    if not all(re.fullmatch(r"0*[1-9][0-9]{0,4}", word.strip()) for word in words):
        raise UserError(f"--scaling {text}: should be numbers of chips, for example 1,4,8,32,256")
    return [int(word) for word in words]


def report_lines(report: dict[str, Any]) -> list[str]:
    """The report for people."""
    memory, operations, traffic, bound = (report[key] for key in ("memory", "operations", "traffic", "bound"))
    images, peaks = report["images_per_device"], report["peaks"]
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    matrix = ", ".join(f"{count / images / 1e9:.3f} G in {name}" for name, count in operations["matrix"].items())
    by_kind = sorted(traffic["by_kind"].items(), key=lambda item: -item[1])
    kinds = ", ".join(f"{name} {count / images / 1e6:.1f}" for name, count in by_kind)
    seconds = bound["seconds"]
    lines = [
        f"{report['model']}, {report['precision']}, batch {report['batch_size']} on {report['devices']} x "
        f"{report['accelerator']}, {images} images per chip; {versions}",
        report["notice"],
        *sharpness_lines(report["sharpness_aware_share"]),
        "",
        f"memory per chip: {_mb(memory['total'])} of {_mb(memory['available'])}"
        f" ({'fits' if memory['fits'] else 'DOES NOT FIT'}): arguments {_mb(memory['arguments'])}, temporaries "
        f"{_mb(memory['temporaries'])}, outputs {_mb(memory['outputs'])}, of which in the arguments' memory "
        f"{_mb(memory['aliased'])}, code {_mb(memory['code'])}",
        f"operations per image: {matrix} on matrix units; {operations['vector'] / images / 1e9:.3f} G others on "
        f"floating-point numbers, {operations['integer'] / images / 1e9:.3f} G on integers",
        f"share of the operations on matrix units in 16 bit: {operations['share_on_matrix_units_in_16_bit']:.2%}",
        f"device memory traffic per image: {traffic['bytes_per_image'] / 1e6:.1f} MB ({kinds})",
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


def sharpness_lines(share: float) -> list[str]:
    """Which of a run's two programs the report is of, where it has two."""
    if not share:
        return []
    others = "" if share == 1 else "; the others take one, about half of the time"
    return [f"this is the step with two gradients (sharpness-aware), {share:.1%} of the updates{others}"]


def collective_lines(report: dict[str, Any]) -> list[str]:
    """The collectives of a step: the large ones one by one, the small ones together."""
    rows = report["collectives"]
    large, small = ([row for row in rows if (row["bytes"] >= 2**20) == is_large] for is_large in (True, False))
    texts = [f"{row['times']} x {row['opcode']} of {_mb(row['bytes'])} ({row['arrays']} arrays)" for row in large]
    if small:
        count = sum(row["times"] for row in small)
        texts.append(f"{count} below 1 MB with {sum(row['bytes'] * row['times'] for row in small):,} bytes together")
    return ["collectives per step: " + "; ".join(texts) if rows else "collectives: none"]


def scaling_lines(reports: list[dict[str, Any]]) -> list[str]:
    """Weak scaling, a line for each number of chips: the same number of images on each chip."""
    first = reports[0]["bound"]["images_per_second"] / reports[0]["devices"]
    rows = [("chips", "batch", "memory/chip", "sent/chip", "collectives", "ms/step", "images/s", "efficiency")]
    for report in reports:
        seconds, collectives = report["bound"]["seconds"], report["collectives"]
        # Nothing overlaps with the network: the worse of two bounds on a step that waits for its gradients.
        step = max(seconds["compute"], seconds["memory"]) + seconds["network"]
        speed = report["batch_size"] / step
        rows.append((
            str(report["devices"]), str(report["batch_size"]), _mb(report["memory"]["total"]),
            _mb(sum(row["bytes"] * row["times"] for row in collectives)), str(sum(row["times"] for row in collectives)),
            f"{step * 1e3:.3f}", f"{speed:,.0f}", f"{speed / report['devices'] / first:.1%}",
        ))  # fmt: skip
    head = f"{reports[0]['model']}, {reports[0]['precision']}, {reports[0]['accelerator']}, weak scaling. {NOTICE}"
    return [head, *table(rows)]


def _mb(size: float) -> str:
    return f"{size / 1e6:,.1f} MB" if size < 1e9 else f"{size / 1e9:,.2f} GB"


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    # Programs for a TPU that is not there can be written to the cache, but not be read back.
    jax.config.update("jax_enable_compilation_cache", False)
    sys.exit(command.run(main, "aot"))
