"""Targets by name, their peaks, and the descriptions for compilers."""

import re

import pytest

from wrn_jax.planning import targets
from wrn_jax.runtime.errors import UserError


@pytest.mark.parametrize(("text", "kind", "chips", "precision"), [
    ("TPU:V6E:16x16", "v6e", 256, "bfloat16"), ("gpu:h100", "h100", 1, "bfloat16"), ("gpu:a100:8", "a100", 8, "bfloat16"),
    ("gpu:l4", "l4", 1, "bfloat16"), ("gpu:t4", "t4", 1, "float16"),
])  # fmt: skip
def test_find(text, kind, chips, precision):
    target = targets.find(text)
    assert (target.kind, target.chips, target.accelerator.precision) == (kind, chips, precision)


@pytest.mark.parametrize(
    "text", ["", "tpu", "tpu:v5e", "tpu:v5e:", "tpu:v5e:2", "tpu:v5e:0x2", "tpu:v3:2x2", "gpu:h200", "gpu:h100:0", "cpu", "gpu"]
)
def test_unknown_targets_are_refused_in_one_line(text):
    with pytest.raises(UserError, match="--target") as error:
        targets.find(text)
    assert "\n" not in str(error.value)
    assert "v5e" in str(error.value) or "h100" in str(error.value)


def test_slices_have_the_number_of_chips_that_they_stand_for():
    for kind, shapes in targets.SLICES.items():
        for chips, shape in shapes.items():
            target = targets.find(f"tpu:{kind}:{shape}")
            assert (target.chips, target.accelerator.precision) == (chips, "bfloat16")


def test_resizing():
    target = targets.find("tpu:v5e:2x2")
    assert target.resized(32).topology == "4x8"
    # No slice of one chip is offered: one of a larger slice stands for it.
    assert (targets.find("tpu:v4:2x2x1").resized(1).chips, target.resized(1).chips, target.resized(1).topology) == (1, 1, "")
    assert targets.find("gpu:h100").resized(8).chips == 8
    with pytest.raises(UserError, match=r"--scaling 3: no slice of v5e has 3 chips; accepted: 1, 4, 8"):
        target.resized(3)


def test_peaks_are_plausible_and_have_sources():
    for chip in (targets.TPUS | targets.GPUS).values():
        # 16-bit operations per byte: no accelerator so far is outside this range, a slip of a unit would be.
        assert 100 < chip.matrix_peak / chip.bandwidth < 600
        assert chip.interconnect < chip.bandwidth
        assert 16e9 <= chip.memory <= 100e9
        assert chip.source


def test_description_of_a_gpu():
    text = targets.gpu_description("t4")
    assert "cuda_compute_capability { major: 7 minor: 5 }" in text
    assert "memory_bandwidth: 320000000000" in text
    assert text.count("{") == text.count("}")
    assert re.search(r'device_description_str: "Tesla T4"$', text)


def test_environment(monkeypatch):
    tpu = targets.environment("tpu")
    assert (tpu["JAX_PLATFORMS"], tpu["TPU_SKIP_MDS_QUERY"]) == ("cpu", "1")
    monkeypatch.setenv("XLA_FLAGS", "--other=1")
    assert targets.environment("gpu")["XLA_FLAGS"] == "--other=1 --xla_gpu_autotune_level=0"
