"""Accelerators by name: what they can do, from their makers' documents, and how a compiler for an absent one is asked for.

A target is written `tpu:KIND:TOPOLOGY` (`tpu:v5e:2x2`) or `gpu:KIND[:COUNT]` (`gpu:h100:8`). Peaks are those without
sparsity. Nothing here asks for a device.
"""

import dataclasses
import math
import os
import re

from wrn_jax.runtime.errors import UserError


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """One chip.

    Attributes:
      name: for people.
      precision: the compute type that `precision = auto` means on it.
      matrix_peak: operations per second of the matrix units in that type.
      float32_peak: operations per second of convolutions and matrix products in float32, as JAX computes them by default:
        TPUs multiply in bfloat16 then, NVIDIA GPUs from Ampere on in TF32.
      memory: bytes of device memory.
      bandwidth: bytes per second between chip and device memory.
      interconnect: bytes per second of all links of a chip to others together, both directions counted.
      source: the documents that the figures come from.
    """

    name: str
    precision: str
    matrix_peak: float
    float32_peak: float
    memory: float
    bandwidth: float
    interconnect: float
    source: str


GIB = 2**30

TPUS = {
    "v4": Accelerator("TPU v4", "bfloat16", 275e12, 275e12, 32 * GIB, 1200e9, 300e9,
        "Google Cloud, 'TPU v4' (275 teraflops, 32 GiB, 1200 GB/s); links: Jouppi et al., 'TPU v4', 2023 (6 x 50 GB/s)"),
    "v5e": Accelerator("TPU v5e", "bfloat16", 197e12, 197e12, 16e9, 819e9, 400e9,
        "Google Cloud, 'TPU v5e' (197 TFLOPs, 16 GB, 819 GB/s, 400 GB/s both directions)"),
    "v5p": Accelerator("TPU v5p", "bfloat16", 459e12, 459e12, 95e9, 2765e9, 1200e9,
        "Google Cloud, 'TPU v5p' (459 TFLOPs, 95 GB, 2765 GB/s); links read as both directions of its 4800 Gbit/s"),
    "v6e": Accelerator("TPU v6e", "bfloat16", 918e12, 918e12, 32e9, 1600e9, 800e9,
        "Google Cloud, 'TPU v6e' (918 TFLOPs, 32 GB, 1600 GB/s); links read as both directions of its 3200 Gbit/s"),
}  # fmt: skip

GPUS = {
    "h100": Accelerator("NVIDIA H100 SXM", "bfloat16", 989.4e12, 494.7e12, 80e9, 3350e9, 900e9,
        "NVIDIA H100 Tensor Core GPU data sheet"),
    "a100": Accelerator("NVIDIA A100 SXM 80GB", "bfloat16", 312e12, 156e12, 80e9, 2039e9, 600e9,
        "NVIDIA A100 Tensor Core GPU data sheet"),
    "l4": Accelerator("NVIDIA L4", "bfloat16", 121e12, 60e12, 24e9, 300e9, 64e9,
        "NVIDIA L4 Tensor Core GPU data sheet; links: PCIe 4.0 x16"),
    "t4": Accelerator("NVIDIA T4", "float16", 65e12, 8.1e12, 16e9, 320e9, 32e9,
        "NVIDIA T4 Tensor Core GPU product brief; links: PCIe 3.0 x16"),
}  # fmt: skip

GPU_FACTS = {
    "h100": ("NVIDIA H100 80GB HBM3", (9, 0), (132, 128, 2048, 228 * 1024, 227 * 1024, 50 * 2**20, 1.98)),
    "a100": ("NVIDIA A100-SXM4-80GB", (8, 0), (108, 64, 2048, 164 * 1024, 163 * 1024, 40 * 2**20, 1.41)),
    "l4": ("NVIDIA L4", (8, 9), (58, 128, 1536, 100 * 1024, 99 * 1024, 48 * 2**20, 2.04)),
    "t4": ("Tesla T4", (7, 5), (40, 64, 1024, 64 * 1024, 64 * 1024, 4 * 2**20, 1.59)),
}
"""What XLA wants to know of a GPU besides: its description, compute capability, and `_GPU_FIELDS` (NVIDIA, CUDA C++ Programming
Guide, "Technical Specifications per Compute Capability", and the architecture's white paper)."""

_GPU_FIELDS = ("core_count", "fpus_per_core", "threads_per_core_limit", "shared_memory_per_core",
               "shared_memory_per_block_optin", "l2_cache_size", "clock_rate_ghz")  # fmt: skip
_EVERY_GPU = {
    "threads_per_block_limit": 1024, "threads_per_warp": 32, "shared_memory_per_block": 48 * 1024,
    "registers_per_core_limit": 65536, "registers_per_block_limit": 65536, "block_dim_limit_x": 2**31 - 1,
    "block_dim_limit_y": 65535, "block_dim_limit_z": 65535,
}  # fmt: skip

_CUBES = {4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4", 128: "4x4x8", 256: "4x8x8", 512: "8x8x8"}
_SQUARES = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
SLICES = {"v4": _CUBES, "v5e": _SQUARES, "v5p": _CUBES, "v6e": _SQUARES}
"""Topologies by number of chips, as Google Cloud offers them; one chip of a larger slice stands for one."""


@dataclasses.dataclass(frozen=True)
class Target:
    """What to compile for.

    Attributes:
      text: as it was written.
      platform, kind: "tpu" or "gpu", and the key of its table.
      topology: of a TPU slice, such as "2x2"; "" for GPUs.
      chips, accelerator: number of chips, and one of them.
    """

    text: str
    platform: str
    kind: str
    topology: str
    chips: int
    accelerator: Accelerator

    def resized(self, chips: int) -> "Target":
        """The same kind of chip, in another number. Raises UserError if no such slice is offered."""
        if self.platform == "gpu":
            return find(f"gpu:{self.kind}:{chips}")
        if chips == 1:
            return dataclasses.replace(self, text=f"one chip of {self.kind}", topology="", chips=1)
        if chips not in SLICES[self.kind]:
            offered = ", ".join(str(count) for count in sorted({1, *SLICES[self.kind]}))
            raise UserError(f"--scaling {chips}: no slice of {self.kind} has {chips} chips; accepted: {offered}")
        return find(f"tpu:{self.kind}:{SLICES[self.kind][chips]}")


def find(text: str) -> Target:
    """The target that `text` names. Raises UserError, listing what is accepted."""
    text = text.strip()
    text = text if text.isprintable() else repr(text)
    platform, _, rest = text.lower().partition(":")
    kind, _, size = rest.partition(":")
    if platform == "tpu" and kind in TPUS:
        if re.fullmatch(r"[0-9]{1,4}(x[0-9]{1,4}){1,2}", size) and "0" not in size.split("x"):
            chips = math.prod(int(side) for side in size.split("x"))
            return Target(text, platform, kind, size, chips, TPUS[kind])
        offered = ", ".join(SLICES[kind].values())
        raise UserError(f"--target {text}: should name a topology, tpu:{kind}:TOPOLOGY, for example one of {offered}")
    if platform == "gpu" and kind in GPUS:
        if not size or re.fullmatch(r"[1-9][0-9]{0,2}", size):
            return Target(text, platform, kind, "", int(size or 1), GPUS[kind])
        raise UserError(f"--target {text}: should be gpu:{kind} or gpu:{kind}:COUNT, COUNT from 1 to 999")
    accepted = [f"tpu:{name}:TOPOLOGY" for name in TPUS] + [f"gpu:{name}[:COUNT]" for name in GPUS]
    raise UserError(f"--target {text}: unknown; accepted: {', '.join(accepted)}")


def environment(platform: str) -> dict[str, str]:
    """The variables that compiling without the hardware needs, to be set before JAX asks for a device."""
    changes = {"JAX_PLATFORMS": "cpu"}
    if platform == "tpu":
        # No metadata server to ask, no lock against a second process; and no warnings of a chip that is not there.
        changes |= {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "TPU_MIN_LOG_LEVEL": "3"}
        changes |= {"TPU_WORKER_HOSTNAMES": "localhost", "TPU_ACCELERATOR_TYPE": "v5litepod-4", "TF_CPP_MIN_LOG_LEVEL": "3"}
    else:
        # Choosing kernels by trying them needs the GPU.
        changes["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_autotune_level=0".strip()
    return changes


def gpu_description(kind: str) -> str:
    """The description of a GPU that XLA compiles for: a `GpuTargetConfigProto` as text."""
    description, (major, minor), figures = GPU_FACTS[kind]
    memory = {"memory_bandwidth": int(GPUS[kind].bandwidth), "device_memory_size": int(GPUS[kind].memory)}
    device = _EVERY_GPU | memory | dict(zip(_GPU_FIELDS, figures, strict=True))
    lines = "\n".join(f"{name}: {value}" for name, value in device.items())
    return f"""gpu_device_info {{
{lines}
cuda_compute_capability {{ major: {major} minor: {minor} }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 8 patch: 0 }}
runtime_version {{ major: 12 minor: 9 patch: 0 }}
device_description_str: "{description}\""""
