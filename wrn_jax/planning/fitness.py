"""Whether a machine is fit for a recipe: each question answered by trying, with what to do where the answer is no.

Images are random and the same everywhere, so no data set is needed; nothing is left behind but what a run would find or make as
well: compiled programs, and the data set in the form that is read fastest.
"""

import contextlib
import dataclasses
import functools
import importlib.metadata
import math
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from wrn_jax.config import Config
from wrn_jax.config.datasets import DATASETS
from wrn_jax.data import loading
from wrn_jax.models.network import Network
from wrn_jax.planning import cost, roofline, targets
from wrn_jax.planning.compile import lower, memory_report
from wrn_jax.planning.trial import STEPS, Trial, random_images
from wrn_jax.runtime import console, devices, environment
from wrn_jax.runtime.errors import UserError
from wrn_jax.runtime.files import reason
from wrn_jax.training.checkpoints import Checkpoints, checksum
from wrn_jax.training.records import CheckpointNotes, describe_hardware
from wrn_jax.training.setup import Setup, make_setup
from wrn_jax.training.state import TrainState, create_state

SECONDS = 0.5
"""That updates are timed at least, beside the first call."""

LEAST_DRIVER = {"cuda12": 525, "cuda13": 580}
"""The oldest NVIDIA driver for JAX's two builds (JAX, "Installation")."""

HALF_BOUNDS = {"bfloat16": (0.05, 0.6), "float16": (0.01, 0.2)}
"""Relative differences (of norms) to float32 that logits and gradients of a fresh network may have.

Operations round by 0.004 and 0.0005. That adds up over the layers, and where it turns an activation's sign, its whole gradient
comes or goes. Measured on a CPU at depth 28: logits 0.011 and 0.0014, gradients 0.43 and 0.16.
"""

HALF_SCALE = 1024.0
"""By which the loss is scaled, so that small gradients stay numbers in float16."""

DEVICES_BOUNDS = (1e-4, 1e-2)
"""Relative difference of the loss between one device and all, of the first and of any of the ten updates: rounding differs with
the order of the sums, and grows."""

PROBE_BYTES = 64 * 2**20
"""What is written to measure a disk."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """One question and what was found.

    Attributes:
      name: the question, in few words.
      status: "ok", "failed", "note" (works, but worth a look) or "skipped" (cannot be asked here).
      text: what was found, in one line.
      advice: what to do about it; empty if nothing.
      figures: the same for programs, as plain JSON data.
    """

    name: str
    status: str
    text: str
    advice: str = ""
    figures: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def small_config() -> Config:
    """What is tried where no recipe is given: a network that compiles in seconds."""
    drawn = next(name for name, dataset in DATASETS.items() if dataset.drawn)
    return Config().override(
        {
            "model.depth": 10, "model.widen_factor": 1, "data.name": drawn, "data.embedded_train": 500,
            "data.embedded_test": 100, "data.validation_size": 100, "recipe.batch_size": 40, "eval_batch_size": 40,
            "recipe.epochs": 5, "recipe.augmentation": "minimal", "recipe.dropout": 0.1, "recipe.mixup_alpha": 0.2,
            "recipe.learning_rate": 0.01,
        }
    )  # fmt: skip


class Machine:
    """The questions, which share what one of them has compiled.

    Args:
      config: the recipe.
      folder: where checkpoints would go; something is written there and removed.
      price: of an hour of this machine, in any currency; None: not asked.
    """

    def __init__(self, config: Config, folder: Path, price: float | None):
        self.config, self.folder, self.price = config, folder, price
        self.setup = make_setup(config, devices.make_mesh(config.devices))

    def answers(self) -> Iterator[Answer]:
        """All answers in their order. What fails says so and does not stop the others."""
        questions: dict[str, Callable[[], Answer]] = {
            "versions": versions,
            "devices": self.devices,
            "data": self.data,
            "disk": self.disk,
            "step": self.step,
            "precision": self.precision,
            "one and all": self.one_and_all,
            "same bits": self.same_bits,
            "checkpoint": self.checkpoint,
            "training speed": self.training_speed,
            "evaluation speed": self.evaluation_speed,
            "the recipe": self.recipe,
        }
        for name, ask in questions.items():
            try:
                yield ask()
            except Exception as error:  # whatever it is: that it happens is the answer
                advice = devices.explain(error) or "report it, with the text below"
                yield Answer(name, "failed", f"{type(error).__name__}: {reason(error)}", advice)

    def devices(self) -> Answer:
        """What there is to compute on."""
        found = environment.hardware() | {"devices_used": self.setup.mesh.size}
        memory = device_memory(self.setup.mesh.devices.flat[0])
        left = f", of {found['devices']}" * (found["devices"] > self.setup.mesh.size)
        text = f"{describe_hardware(found)}{left}, {_gb(memory)}{' each' * (self.setup.mesh.size > 1)}"
        figures = found | {"memory": memory}
        if found["platform"] == "cpu" and _driver():
            advice = "install JAX for this driver: pip install 'wrn_jax[cuda12]' or [cuda13]; is JAX_PLATFORMS=cpu set?"
            return Answer("devices", "failed", f"{text}; but nvidia-smi shows a GPU that JAX does not use", advice, figures)
        return Answer("devices", "ok", text, "", figures)

    def data(self) -> Answer:
        """Whether the data set is at hand."""
        try:
            dataset = loading.load(self.config.override({"data.download": False}).data)
        except UserError as error:
            return Answer(
                "data", "note", reason(error), "let the run download it, or prepare it: `python -m wrn_jax.prepare --help`"
            )
        count = len(dataset.train.labels)
        return Answer("data", "ok", f"{self.config.data.name}, {count:,} training images", "", {"train_examples": count})

    def disk(self) -> Answer:
        """How fast checkpoints can be written."""
        free = shutil.disk_usage(self.folder).free
        with tempfile.TemporaryFile(dir=self.folder) as file:
            block = np.random.default_rng(0).bytes(2**20)
            begin = time.perf_counter()
            for _ in range(PROBE_BYTES // len(block)):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
            speed = PROBE_BYTES / (time.perf_counter() - begin)
        size = cost.state_bytes(self.setup.abstract_state)
        text = f"{speed / 1e6:,.0f} MB/s; a checkpoint of {size / 1e6:,.1f} MB takes {size / speed:.2g} s; {_gb(free)} free"
        figures = {"bytes_per_second": speed, "checkpoint_bytes": size, "free": free}
        kept = cost.run_bytes(self.setup)
        if free < 2 * kept:
            return Answer("disk", "failed", text, f"the run keeps up to {_gb(kept)}; choose another --workdir", figures)
        slow = size / speed > 60
        return Answer("disk", "note" if slow else "ok", text, "choose a faster disk for --workdir" * slow, figures)

    def step(self) -> Answer:
        """Whether the step compiles and fits, and the largest batch that would."""
        begin = time.perf_counter()
        account = self._account(self.config)
        seconds = time.perf_counter() - begin
        batch, device = self.config.recipe.batch_size, self.setup.mesh.devices.flat[0]
        smaller = batch - (batch // 2) // self._unit() * self._unit()
        half = self._account(self.config.override({"recipe.batch_size": smaller})) if smaller < batch else None
        total, memory = account["total"], account["available"]
        figures = {"compile_seconds": seconds, "memory": account}
        text = f"compiles in {console.format_duration(seconds)}; {_gb(total)} of {_gb(memory)} on each {device.platform} device"
        if half and total > half["total"]:
            per_image = (total - half["total"]) / (batch - smaller)
            largest = int((memory - total) / per_image + batch) // self._unit() * self._unit()
            figures["largest_batch"] = largest
            text += f"; the largest batch that fits is about {largest:,}"
        advice = "a smaller recipe.batch_size (and rate), model.recompute=blocks, or precision=bfloat16"
        return Answer("step", "ok" if account["fits"] else "failed", text, advice * (not account["fits"]), figures)

    def _unit(self) -> int:
        """What a batch has to be a multiple of."""
        model, optimizer = self.config.model, self.config.optimizer
        return math.lcm(self.setup.mesh.size, model.batch_norm_groups, optimizer.sam_group or 1)

    def _account(self, config: Config) -> dict[str, Any]:
        device = self.setup.mesh.devices.flat[0]
        compiled = lower(config, self.setup.mesh, device.platform).compile()
        return memory_report(compiled.memory_analysis(), device_memory(device))

    def precision(self) -> Answer:
        """Whether 16 bit agree with float32, on one device."""
        images = random_images(self.setup, 32)
        labels = jnp.arange(32) % self.setup.dataset.num_classes
        results = {kind: _logits_and_gradients(self.setup, kind, images, labels) for kind in ("float32", *HALF_BOUNDS)}
        figures = {kind: [_unlike(results[kind][part], results["float32"][part]) for part in (0, 1)] for kind in HALF_BOUNDS}
        parts = [
            f"{kind} logits {found[0]:.2%} (at most {HALF_BOUNDS[kind][0]:.0%}), gradients {found[1]:.2%} (at most "
            f"{HALF_BOUNDS[kind][1]:.0%})"
            for kind, found in figures.items()
        ]
        bad = [kind for kind in figures if not all(np.less_equal(figures[kind], HALF_BOUNDS[kind]))]
        advice = f"train with --config.precision=float32, and report it: {', '.join(bad)} is wrong here" if bad else ""
        return Answer("precision", "failed" if bad else "ok", f"unlike float32 by: {'; '.join(parts)}", advice, figures)

    @functools.cached_property
    def _straight(self) -> tuple[int, list[float]]:
        state, losses = self._run.steps(self._run.fresh(), STEPS)
        return int(checksum(_arrays(state))), losses

    @functools.cached_property
    def _run(self) -> Trial:
        return Trial(self.setup)

    def one_and_all(self) -> Answer:
        """Whether ten updates on all devices are those of one."""
        if self.setup.mesh.size == 1:
            return Answer("one and all", "skipped", "there is one device")
        plain = self.config.override({"precision": "float32"})
        one_device = Trial(make_setup(plain, devices.make_mesh(1)))
        is_plain = self.setup.config.precision == "float32"
        all_devices = self._run if is_plain else Trial(make_setup(plain, self.setup.mesh))
        one, every = (np.array(side.steps(side.fresh(), STEPS)[1]) for side in (one_device, all_devices))
        unlike = np.abs(one - every) / np.abs(one)
        first, worst = float(unlike[0]), float(unlike.max())
        count = self.setup.mesh.size
        text = f"losses of {STEPS} updates on 1 and {count} devices differ by {first:.1g} at first, {worst:.1g} at most"
        good = first <= DEVICES_BOUNDS[0] and worst <= DEVICES_BOUNDS[1]
        advice = "train with --config.devices=1, and report it" * (not good)
        return Answer("one and all", "ok" if good else "failed", text, advice, {"first": first, "worst": worst})

    def same_bits(self) -> Answer:
        """Whether ten updates done again give the same bits."""
        again, _ = self._run.steps(self._run.fresh(), STEPS)
        same = int(checksum(_arrays(again))) == self._straight[0]
        mode = "with --deterministic" if devices.is_deterministic() else "without --deterministic"
        if same:
            return Answer("same bits", "ok", f"{STEPS} updates done twice give the same bits, {mode}", "", {"same": True})
        advice = "report it" if devices.is_deterministic() else "check again, and train, with --deterministic"
        status = "failed" if devices.is_deterministic() else "note"
        return Answer("same bits", status, f"{STEPS} updates done twice give other bits, {mode}", advice, {"same": False})

    def checkpoint(self) -> Answer:
        """Whether a checkpoint is written and restored, and training goes on from it as if nothing had been."""
        setup = self.setup
        with tempfile.TemporaryDirectory(dir=self.folder) as folder, Checkpoints(Path(folder)) as checkpoints:
            state, _ = self._run.steps(self._run.fresh(), STEPS // 2)
            begin = time.perf_counter()
            checkpoints.save(state, STEPS // 2, 0, None, CheckpointNotes(rollbacks=0))
            checkpoints.wait()
            written = time.perf_counter()
            try:
                _, restored, _ = checkpoints.restore_last(setup.abstract_state, setup.shardings)
            except UserError as error:
                return Answer("checkpoint", "failed", f"not read back as it was written ({error})", "choose another disk")
            read = time.perf_counter()
        went_on, _ = self._run.steps(restored, STEPS - STEPS // 2)
        figures = {"write_seconds": written - begin, "read_seconds": read - written}
        text = f"written in {written - begin:.2g} s, read in {read - written:.2g} s"
        if int(checksum(_arrays(went_on))) != self._straight[0]:
            advice = "--deterministic" if not devices.is_deterministic() else "report it"
            return Answer("checkpoint", "note", f"{text}; the updates after it gave other bits", advice, figures)
        return Answer("checkpoint", "ok", f"{text}; the updates after it are those of a run without it", "", figures)

    @functools.cached_property
    def _train_speed(self) -> float:
        return self.config.recipe.batch_size / self._run.seconds_of_update(SECONDS)

    @functools.cached_property
    def _evaluation_speed(self) -> float:
        evaluator, size = self.setup.make_evaluator(), self.config.eval_batch_size
        batches = evaluator.put(loading.Split(random_images(self.setup, size), np.zeros(size, np.int32)))
        state = self._run.fresh()
        evaluator(state.params, state.batch_stats, batches)
        begin = time.perf_counter()
        evaluator(state.params, state.batch_stats, batches * 3)
        return 3 * size / (time.perf_counter() - begin)

    def training_speed(self) -> Answer:
        """Images per second, as a share of the device's peak and of what its peaks allow this program."""
        speed, mesh = self._train_speed, self.setup.mesh
        per_image = 3 * self._run.gradients * cost.forward_operations(self.setup.network, self.setup.dataset.image_shape)
        text = f"{speed:,.0f} images/s, {speed * per_image / 1e9:,.1f} GFLOP/s"
        figures: dict[str, Any] = {"images_per_second": speed, "operations_per_second": speed * per_image}
        chip = accelerator(mesh.devices.flat[0])
        if chip is None:
            return Answer("training speed", "ok", f"{text}; no published peak of this device is known here", "", figures)
        images = self.config.recipe.batch_size // mesh.size
        report = roofline.program_report(self._run.program.as_text() or "", chip, mesh.size, images)
        bound = report["bound"]["images_per_second"]
        figures |= {"share_of_peak": speed * per_image / mesh.size / chip.matrix_peak, "share_of_bound": speed / bound}
        text += f", {figures['share_of_peak']:.1%} of the peak of {chip.name} and {figures['share_of_bound']:.0%} of the bound"
        return Answer("training speed", "ok", text, "", figures)

    def evaluation_speed(self) -> Answer:
        """Images per second."""
        speed = self._evaluation_speed
        return Answer("evaluation speed", "ok", f"{speed:,.0f} images/s", "", {"images_per_second": speed})

    def recipe(self) -> Answer:
        """How long the recipe takes, and what it costs."""
        timeline, dataset = self.setup.timeline, self.setup.dataset
        images = timeline.steps * self.config.recipe.batch_size
        judged = timeline.epochs * (dataset.num_test + self.config.data.validation_size)
        gradients = 1 + timeline.sharpness_aware_steps / timeline.steps
        seconds = images / self._train_speed * gradients / self._run.gradients
        seconds += judged / self._evaluation_speed
        text = f"{timeline.epochs} epochs take about {console.format_duration(seconds)}"
        figures = {"seconds": seconds}
        if self.price is not None:
            figures["cost"] = self.price * seconds / 3600
            text += f" and cost {figures['cost']:,.2f} at {self.price:g} an hour"
        return Answer("the recipe", "ok", text, "", figures)


def versions() -> Answer:
    """Whether the packages, and the driver of an NVIDIA GPU, fit each other."""
    found = environment.versions()
    builds = {name: _version(f"jax-{name}-plugin") for name in LEAST_DRIVER}
    driver = _driver()
    installed = [name for name, version in builds.items() if version]
    text = ", ".join(f"{name} {found[name]}" for name in ("python", "jax", "jaxlib", "flax"))
    text += "".join(f", {name} {builds[name]}" for name in installed) + (f", NVIDIA driver {driver}" if driver else "")
    figures = found | {name: builds[name] for name in installed} | ({"driver": driver} if driver else {})
    if len(installed) > 1:
        return Answer(
            "versions", "failed", f"{text}: two CUDA builds", "pip uninstall jax-cuda12-plugin jax-cuda12-pjrt", figures
        )
    for name in installed:
        if builds[name] != found["jaxlib"]:
            advice = f"pip install 'jax[{name}]=={found['jax']}'"
            return Answer("versions", "failed", f"{text}: the CUDA build is of another version than jaxlib", advice, figures)
        if driver and int(driver.split(".")[0]) < LEAST_DRIVER[name]:
            advice = f"a driver from {LEAST_DRIVER[name]} on" + (
                ", or the extra cuda12 in place of cuda13" * (name == "cuda13")
            )
            return Answer("versions", "failed", f"{text}: the driver is too old for {name}", advice, figures)
    return Answer("versions", "ok", text, "", figures)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _driver() -> str | None:
    """The version of the NVIDIA driver; None where `nvidia-smi` shows no GPU."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    first = done.stdout.split("\n")[0].strip()
    return first if re.fullmatch(r"[0-9]+(\.[0-9]+)*", first) else None


def device_memory(device: Any) -> float:
    """Bytes that programs may use on a device; of a CPU its share of those that the machine has free."""
    if limit := (device.memory_stats() or {}).get("bytes_limit"):
        return float(limit)
    return free_memory() / jax.local_device_count()


def free_memory() -> int:
    """Bytes of the machine's memory that programs can have: what caches hold is given up for them, where the kernel says so."""
    with contextlib.suppress(OSError):
        if found := re.search(r"^MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE):
            return 1024 * int(found[1])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def accelerator(device: Any) -> targets.Accelerator | None:
    """The published peaks of a device; None where they are not known here."""
    kind = device.device_kind
    gpus = {description: targets.GPUS[name] for name, (description, *_) in targets.GPU_FACTS.items()}
    tpu = re.sub("^TPU v5$", "TPU v5p", kind.replace(" lite", "e")).removeprefix("TPU ")
    return gpus.get(kind) or targets.TPUS.get(tpu)


def _logits_and_gradients(setup: Setup, kind: str, images: np.ndarray, labels: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    network = Network(setup.config.model, setup.dataset.num_classes, kind)

    @jax.jit
    def run(params: Any, stats: Any) -> tuple[jax.Array, Any]:
        def loss(params: Any) -> tuple[jax.Array, jax.Array]:
            model = nnx.merge(network.graphdef, params, stats)
            logits = model(setup.normalisation(jnp.asarray(images)), train=True)
            return HALF_SCALE * optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), logits

        gradients, logits = jax.grad(loss, has_aux=True)(params)
        return logits, gradients

    state = jax.jit(functools.partial(create_state, network, setup.optimizer))(jax.random.key(0))
    logits, gradients = jax.device_get(run(state.params, state.batch_stats))
    return np.asarray(logits), np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(gradients)])


def _unlike(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def _arrays(state: TrainState) -> Any:
    return {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}


def _gb(size: float) -> str:
    return f"{size / 1e9:,.2f} GB"
