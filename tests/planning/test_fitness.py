"""The questions to a machine: all of them on two simulated devices, and by stand-ins what only a GPU can answer."""

import dataclasses
import json
import types

import jax
import numpy as np
import pytest

from wrn_jax import check
from wrn_jax.planning import fitness
from wrn_jax.planning.fitness import Machine, accelerator, small_config, versions
from wrn_jax.planning.trial import Trial
from wrn_jax.runtime import devices
from wrn_jax.runtime.errors import UserError
from wrn_jax.training.setup import make_setup

PLAIN = {"recipe.augmentation": "off", "recipe.mixup_alpha": 0.0, "recipe.dropout": 0.0, "recipe.batch_size": 16}  # sooner


def machine(folder, **changes):
    named = {key.replace("__", "."): value for key, value in changes.items()}
    return Machine(small_config().override(PLAIN | {"devices": 1} | named), folder, None)


@dataclasses.dataclass
class Lowered:
    """A program of so many bytes, with what `memory_report` asks of one."""

    temp_size_in_bytes: int
    argument_size_in_bytes = output_size_in_bytes = alias_size_in_bytes = generated_code_size_in_bytes = 0

    def compile(self):
        return self

    def memory_analysis(self):
        return self


@pytest.mark.slow
def test_a_trial_goes_on_in_the_order_in_memory_that_the_devices_want(monkeypatch):
    """As on a GPU; in another order the compiled step refuses the copy that it begins with."""
    monkeypatch.setitem(devices.KERNEL_LAYOUTS, "cpu", (3, 0, 1, 2))
    trial = Trial(make_setup(small_config().override(PLAIN | {"devices": 1}), devices.make_mesh(1)))
    first, losses = trial.steps(trial.fresh(), 2)
    assert (int(first.step), len(losses)) == (2, 2)
    assert trial.steps(first, 1)[0].step == 3


@pytest.mark.slow
def test_two_devices_answer_everything_and_nothing_stays(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fitness, "HALF_BOUNDS", {"bfloat16": (0.05, 1e-9)})  # no gradient is that near
    # As if a CPU were a chip with published peaks: its program is counted as an accelerator's would be.
    monkeypatch.setattr(fitness, "accelerator", lambda device: fitness.targets.GPUS["t4"])
    # A step that takes so many bytes, some of them for each image.
    monkeypatch.setattr(fitness, "lower", lambda config, mesh, platform: Lowered(10**6 * config.recipe.batch_size))
    monkeypatch.setattr(fitness, "device_memory", lambda device: 2e9)
    overrides = [f"--config.{key}={value}" for key, value in PLAIN.items()]
    with pytest.raises(SystemExit) as ended:
        check.main([*overrides, "--config.devices=2", "--price", "3", "--folder", str(tmp_path), "--json"])
    assert ended.value.code == 1
    answers = {answer["name"]: answer for answer in json.loads(capsys.readouterr().out)["answers"]}
    assert [name for name, answer in answers.items() if answer["status"] != "ok"] == ["precision"]
    assert "--config.precision=float32" in answers["precision"]["advice"]
    assert 0 < answers["precision"]["figures"]["bfloat16"][0] < 0.05
    assert answers["devices"]["figures"]["devices_used"] == 2
    assert answers["step"]["figures"]["largest_batch"] == 2000
    assert answers["same bits"]["figures"] == {"same": True}
    speed = answers["training speed"]["figures"]
    assert 0 < speed["share_of_peak"] < speed["share_of_bound"] < 1
    recipe = answers["the recipe"]["figures"]
    assert recipe["cost"] == pytest.approx(3 * recipe["seconds"] / 3600)
    assert list(tmp_path.iterdir()) == []


def test_what_fails_says_so_and_does_not_stop_the_others(tmp_path, monkeypatch):
    def no_memory(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 98765 bytes.")

    for name in ("lower", "Trial", "_logits_and_gradients"):
        monkeypatch.setattr(fitness, name, no_memory)
    # A full disk, a GPU that JAX does not use, and no data set.
    monkeypatch.setattr(fitness.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=1000))
    monkeypatch.setattr(fitness, "_driver", lambda: "580.65.06")
    one = machine(tmp_path, data__name="cifar100", data__directory=str(tmp_path), data__validation_size=0)
    answers = {answer.name: answer for answer in one.answers()}
    assert {name: answer.status for name, answer in answers.items()} == {
        "versions": "ok", "devices": "failed", "data": "note", "disk": "failed", "step": "failed", "precision": "failed",
        "one and all": "skipped", "same bits": "failed", "checkpoint": "failed", "training speed": "failed",
        "evaluation speed": "failed", "the recipe": "failed",
    }  # fmt: skip
    assert "98765 bytes" in answers["step"].text
    assert "model.recompute=blocks" in answers["step"].advice
    assert "pip install 'wrn_jax[cuda12]'" in answers["devices"].advice
    assert "wrn_jax.prepare" in answers["data"].advice
    text = "\n".join(check.report_lines(list(answers.values()), "a network", 3.0))
    assert text.count("```") == 2
    assert "this machine is NOT fit" in text
    assert "disk: the run keeps up to " in text


@pytest.mark.parametrize(
    ("plugins", "driver", "status", "words"),
    [
        ({}, None, "ok", "jax "),
        ({"cuda12": "same"}, "535.104.05", "ok", "NVIDIA driver 535.104.05"),
        ({"cuda12": "same"}, "470.1", "failed", "a driver from 525 on"),
        ({"cuda13": "same"}, "550.54", "failed", "a driver from 580 on, or the extra cuda12 in place of cuda13"),
        ({"cuda12": "0.1"}, "550.54", "failed", "pip install 'jax[cuda12]=="),
        ({"cuda12": "same", "cuda13": "same"}, "580.1", "failed", "pip uninstall jax-cuda12-plugin"),
    ],
)
def test_packages_and_driver_have_to_fit_each_other(monkeypatch, plugins, driver, status, words):
    """The GPU and its packages are stand-ins."""
    here = jax.lib.__version__
    builds = {f"jax-{name}-plugin": here if version == "same" else version for name, version in plugins.items()}
    monkeypatch.setattr(fitness, "_version", builds.get)
    monkeypatch.setattr(fitness, "_driver", lambda: driver)
    answer = versions()
    assert answer.status == status
    assert words in f"{answer.text} {answer.advice}"


def test_jax_and_jaxlib_need_not_be_of_one_version(monkeypatch):
    """What JAX does not declare to go together, it refuses by itself when it is imported."""
    found = {"python": "3.12.1", "jax": "0.12.0.1", "jaxlib": "0.11.2", "flax": "0.12.12"}
    monkeypatch.setattr(fitness.environment, "versions", lambda: found)
    monkeypatch.setattr(fitness, "_version", {"jax-cuda12-plugin": "0.11.2"}.get)
    monkeypatch.setattr(fitness, "_driver", lambda: "580.65.06")
    assert versions().status == "ok"


def test_the_driver_is_what_nvidia_smi_says(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert fitness._driver() is None
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 580.65.06\necho 580.65.06\n")
    tool.chmod(0o755)
    assert fitness._driver() == "580.65.06"
    tool.write_text("#!/bin/sh\necho 'No devices were found'\nexit 6\n")
    assert fitness._driver() is None


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "NVIDIA H100 SXM"),
        ("NVIDIA A100-SXM4-80GB", "NVIDIA A100 SXM 80GB"),
        ("Tesla T4", "NVIDIA T4"),
        ("NVIDIA L40S", None),
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA A100-SXM4-40GB", None),
        ("TPU v4", "TPU v4"),
        ("TPU v5 lite", "TPU v5e"),
        ("TPU v5", "TPU v5p"),
        ("TPU v6 lite", "TPU v6e"),
        ("cpu", None),
    ],
)
def test_knows_chips_by_what_jax_calls_them(kind, name):
    chip = accelerator(types.SimpleNamespace(device_kind=kind))
    assert (chip and chip.name) == name


def test_bits_that_do_not_repeat_are_told(tmp_path, monkeypatch):
    states = iter([3.0, 4.0, 5.0])
    run = types.SimpleNamespace(fresh=lambda: None, steps=lambda state, count: (np.float32(next(states)), []))
    monkeypatch.setattr(fitness, "_arrays", lambda state: state)
    for deterministic, status, advice in ((False, "note", "train, with --deterministic"), (True, "failed", "report it")):
        one = machine(tmp_path)
        one.__dict__ |= {"_run": run, "_straight": (0, [])}
        monkeypatch.setattr(fitness.devices, "is_deterministic", lambda found=deterministic: found)
        answer = one.same_bits()
        assert (answer.status, answer.figures) == (status, {"same": False})
        assert advice in answer.advice


def test_a_disk_that_gives_other_bits_back_is_told(tmp_path, monkeypatch):
    class Spoilt(fitness.Checkpoints):
        def save(self, *_):
            pass

        def restore_last(self, *_):
            raise UserError("4 is damaged (its checksum is another)")

    monkeypatch.setattr(fitness, "Checkpoints", Spoilt)
    one = machine(tmp_path)
    one.__dict__["_run"] = types.SimpleNamespace(fresh=lambda: None, steps=lambda state, count: (None, []))
    answer = one.checkpoint()
    assert (answer.status, answer.advice) == ("failed", "choose another disk")
    assert "not read back as it was written (4 is damaged" in answer.text


@pytest.mark.parametrize("price", ["-1", "a", "nan", "1e9"])
def test_a_price_is_a_number(price):
    with pytest.raises(UserError, match=r"--price \S+: should be a number"):
        check.main(["--price", price])


def test_memory_in_caches_counts_as_free(monkeypatch, tmp_path):
    read = fitness.Path.read_text
    lines = "MemTotal: 24000000 kB\nMemFree: 1000 kB\nMemAvailable: 2000 kB\n"
    monkeypatch.setattr(fitness.Path, "read_text", lambda path: lines if str(path) == "/proc/meminfo" else read(path))
    assert fitness.free_memory() == 2000 * 1024
    monkeypatch.setattr(fitness.Path, "read_text", lambda path: (tmp_path / "gone").read_bytes())
    monkeypatch.setattr(fitness.os, "sysconf", {"SC_AVPHYS_PAGES": 3, "SC_PAGE_SIZE": 4096}.get)
    assert fitness.free_memory() == 3 * 4096
