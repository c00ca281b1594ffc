"""For how many devices a CPU is taken, by configuration, purpose and what the run had before."""

import dataclasses
import json

import pytest

from tests import sample_runs
from wrn_jax.runtime import cores, devices
from wrn_jax.training import setup

WRN_16_1 = {"recipe__batch_size": 128, "model__depth": 16, "eval_batch_size": 500, "precision": "auto"}


@pytest.mark.parametrize(
    ("images", "width", "number", "count"),
    [
        *[(256, 1, 1, 1), (256, 1, 2, 2), (64, 4, 2, 2), (63, 4, 2, 1), (128, 2, 8, 4), (256, 2, 8, 8)],
        *[(96, 1, 8, 3), (100, 1, 8, 2), (101, 1, 8, 1), (256, 5, 2, 1), (1, 1, 2, 1)],
    ],
)
def test_as_how_many_devices_a_cpu_is_fastest(monkeypatch, images, width, number, count):
    monkeypatch.setattr(cores, "cpu_cores", lambda: number)
    assert setup.cpu_devices(images, width) == count


@pytest.fixture
def asked(monkeypatch):
    """The numbers that JAX would be asked for, on a machine with eight cores."""
    numbers = []
    monkeypatch.setattr(cores, "cpu_cores", lambda: 8)
    monkeypatch.setattr(devices, "set_cpu_devices", numbers.append)
    return numbers


@pytest.mark.parametrize(
    ("changes", "for_training", "count"),
    [
        ({}, True, 4),  # 32 images each
        ({"precision": "float32"}, True, 4),
        ({"optimizer__sam_group": 64}, True, 2),
        ({}, False, 5),  # 100 images each
        ({"optimizer__sam_group": 64}, False, 5),
        ({"model__widen_factor": 10}, True, 1),
        ({"model__widen_factor": 10}, False, 1),
    ],
)
def test_a_cpu_is_divided_by_what_is_done(asked, changes, for_training, count):
    setup.divide_cpu(sample_runs.config(**WRN_16_1 | changes), for_training=for_training)
    assert asked == [count]


@pytest.mark.parametrize(("changes", "counts"), [({"devices": 3}, [3]), ({"devices": 9}, [8]), ({"precision": "bfloat16"}, [])])
def test_what_the_configuration_settles_counts(asked, changes, counts):
    setup.divide_cpu(sample_runs.config(**WRN_16_1 | changes))
    assert asked == counts


@pytest.mark.parametrize(("platform", "checkpoint", "count"), [("cpu", "40", 3), ("gpu", "40", 4), ("cpu", "", 4)])
def test_a_run_keeps_the_number_that_its_checkpoints_were_computed_with(asked, tmp_path, platform, checkpoint, count):
    header = dataclasses.asdict(sample_runs.HEADER)
    header["hardware"] |= {"platform": platform, "devices_used": 3}
    (tmp_path / "header.jsonl").write_text(json.dumps(header) + "\n")
    (tmp_path / "checkpoints" / checkpoint).mkdir(parents=True)
    setup.divide_cpu(sample_runs.config(**WRN_16_1), tmp_path)
    assert asked == [count]
