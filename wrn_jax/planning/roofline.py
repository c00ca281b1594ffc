"""The roofline of a compiled step (Williams et al., "Roofline", 2009): what a chip's published peaks allow at best.

Operations, bytes and collectives are counted from the optimised program (`planning.hlo`). The time is a bound and no
measurement; launching, waiting, and everything that keeps a kernel from its peak come on top.
"""

import collections
import math
from typing import Any

from wrn_jax.planning import hlo
from wrn_jax.planning.targets import Accelerator

NOTICE = "This is a bound from published peaks, not a measurement: no such device was used."
NARROW = ("bf16", "f16")
"""The types of 16 bit, as HLO names them."""


def program_report(program: str, chip: Accelerator, num_devices: int, images: int) -> dict[str, Any]:
    """What the optimised program does, and the roofline of it.

    Args:
      program: its text.
      chip: what it was compiled for.
      num_devices: how many of them take part.
      images: on each of them.

    Returns:
      Plain JSON data of one step on one device, unless said otherwise:
      operations: `matrix` by HLO's name of the type, `vector`, `integer` (a multiplication and an addition count as two),
        `matrix_per_image`, and `share_on_matrix_units_in_16_bit` in 0..1.
      traffic: `bytes`, `bytes_per_image`, and `by_kind` of `hlo.Work.kind`.
      collectives: rows of `opcode`, `bytes`, `arrays` and `times`, the largest first.
      bound: `seconds` of compute, memory and network; `bound_by`, the longest of them, and `overlapped_seconds`, its time;
        `kernel_by_kernel_seconds`; `of_compute`, the ratio to compute alone; `images_per_second` of all devices.

    Raises:
      ValueError: the text is no HLO module.
    """
    kernels = hlo.parse(program).kernels()
    collectives = [(work, times) for work, times in kernels if work.kind == "collective"]
    matrix: collections.Counter[str] = collections.Counter()
    by_kind: collections.Counter[str] = collections.Counter()
    vector = integer = 0
    kernel_seconds = 0.0
    for work, times in kernels:
        kernel_seconds += times * max(_matrix_seconds(work.matrix, chip), work.bytes / chip.bandwidth)
        by_kind[work.kind] += times * work.bytes
        vector, integer = vector + times * work.vector, integer + times * work.integer
        matrix.update({dtype: times * count for dtype, count in work.matrix.items()})
    moved, all_matrix = by_kind.total(), matrix.total()
    # A link carries half of its two-way figure in each direction.
    sent = sum(times * _sent(work, num_devices) for work, times in collectives) if num_devices > 1 else 0.0
    seconds = {
        "compute": _matrix_seconds(matrix, chip),
        "memory": moved / chip.bandwidth,
        "network": sent / (chip.interconnect / 2),
    }
    bound = max(seconds.values())
    return {
        "operations": {
            "matrix": dict(matrix),
            "vector": vector,
            "integer": integer,
            "matrix_per_image": all_matrix / images,
            "share_on_matrix_units_in_16_bit": sum(matrix[dtype] for dtype in NARROW) / max(all_matrix + vector, 1),
        },
        "traffic": {"bytes": moved, "bytes_per_image": moved / images, "by_kind": dict(by_kind)},
        "collectives": _joined(collectives),
        "bound": {
            "seconds": seconds,
            "bound_by": max(seconds, key=lambda part: seconds[part]),
            "overlapped_seconds": bound,
            "kernel_by_kernel_seconds": kernel_seconds + seconds["network"],
            "of_compute": bound / seconds["compute"] if seconds["compute"] else math.inf,
            "images_per_second": images * num_devices / bound if bound else 0.0,
        },
    }


def _matrix_seconds(operations: collections.Counter[str], chip: Accelerator) -> float:
    """Time of operations on matrix units, by HLO's name of their type, at the chip's peaks."""
    return sum(count / (chip.matrix_peak if dtype in NARROW else chip.float32_peak) for dtype, count in operations.items())


def _sent(work: hlo.Work, num_devices: int) -> float:
    """Bytes that a device sends, at least (Patarasuk & Yuan, "Bandwidth optimal all-reduce algorithms", 2009)."""
    factor = {"all-reduce": 2 * (num_devices - 1) / num_devices, "all-gather": num_devices - 1}
    return work.sent * factor.get(work.opcode, (num_devices - 1) / num_devices)


def _joined(collectives: list[tuple[hlo.Work, int]]) -> list[dict[str, Any]]:
    """The collectives of a step, equal ones counted together, the largest first."""
    counts: collections.Counter[tuple[str, int, int]] = collections.Counter()
    for work, times in collectives:
        counts[work.opcode, work.sent, work.arrays] += times
    rows = [dict(zip(("opcode", "bytes", "arrays"), key, strict=True), times=times) for key, times in counts.items()]
    return sorted(rows, key=lambda row: -row["bytes"])
