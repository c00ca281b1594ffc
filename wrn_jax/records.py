"""What a run writes for people and programs; process 0 only.

In the work directory:
  config.json    the configuration, fully resolved
  header.jsonl   one object for each start: time, command, hardware, versions
  metrics.jsonl  one object an epoch
  tensorboard/   the same figures as TensorBoard events
  curves.png     the same figures as a picture
"""

import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
import tensorboardX
from tqdm import tqdm

from wrn_jax.errors import UserError

SPLITS = {"train": "training", "valid": "validation", "test": "test"}
"""The splits as the records call them, and as people do."""

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that the result depends on."""
    found = {"python": platform.python_version()}
    for name in ("wrn_jax", *PACKAGES):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def hardware() -> dict[str, Any]:
    """The devices in use, and the machine around them."""
    device = jax.devices()[0]
    return {
        "platform": device.platform,
        "device": device.device_kind if device.platform != "cpu" else _cpu_name(),
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "cpu": _cpu_name(),
        "cpu_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def write_atomically(path: Path, text: str) -> None:
    """Replaces a file so that a reader, or a crash, never meets half of it."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file; an unfinished last line, left by a crash, is ignored."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


class Records:
    """Writes the records of a run.

    Args:
      workdir: the work directory; exists.
      header: what to append to `header.jsonl`.
      config: the configuration as plain data.
      epochs_done: epochs whose records stay; 0 for a new run.
      active: whether this process writes at all.

    Raises:
      UserError: the records of finished epochs are not all there.
    """

    def __init__(self, workdir: Path, header: Mapping[str, Any], config: Mapping[str, Any], epochs_done: int, active: bool):
        self._metrics = workdir / "metrics.jsonl"
        self._active = active
        self.rows = [row for row in read_jsonl(self._metrics) if row["epoch"] <= epochs_done]
        if [row["epoch"] for row in self.rows] != list(range(1, epochs_done + 1)):
            raise UserError(f"{self._metrics}: should hold epochs 1 to {epochs_done}, which the last checkpoint has finished")
        if not active:
            return
        write_atomically(workdir / "config.json", json.dumps(config, indent=2) + "\n")
        with open(workdir / "header.jsonl", "a") as file:
            file.write(json.dumps(dict(header)) + "\n")
        # Epochs after the checkpoint that the run continues from happen again; their records go.
        self._write_rows()
        purge = self.rows[-1]["step"] + 1 if self.rows else None
        self._board = tensorboardX.SummaryWriter(str(workdir / "tensorboard"), purge_step=purge)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Records one epoch. A full disk does not end the run: the next epoch writes what is missing."""
        self.rows.append(dict(row))
        if not self._active:
            return
        try:
            self._write_rows()
            for name, value in row.items():
                if isinstance(value, int | float) and name not in ("epoch", "step"):
                    group, _, rest = name.partition("_")
                    tag = f"{group}/{rest}" if group in ("train", "valid", "test") else f"run/{name}"
                    self._board.add_scalar(tag, value, row["step"])
            self._board.flush()
        except OSError as error:
            say(f"{self._metrics}: could not be written ({error.strerror}); going on, and trying again after the next epoch")

    def _write_rows(self) -> None:
        write_atomically(self._metrics, "".join(json.dumps(row, allow_nan=False) + "\n" for row in self.rows))

    def transition(self, name: str, text: str, step: int) -> None:
        """Records a transition as a TensorBoard text."""
        if self._active:
            self._board.add_text(f"transitions/{name}", text, step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._active:
            self._board.close()


def format_duration(seconds: float) -> str:
    """Seconds as people read them: 42s, 3m05s, 2h07m."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


class Progress:
    """Live progress within an epoch: a bar on a terminal, elsewhere a line every `interval` seconds.

    Args:
      label: what the bar is called.
      total: steps in the epoch.
      active: whether to show anything.
      interval: seconds between lines where there is no terminal.
    """

    def __init__(self, label: str, total: int, active: bool, interval: float = 60.0):
        self._bar = (
            tqdm(total=total, desc=label, unit="step", leave=False, dynamic_ncols=True) if active and is_terminal() else None
        )
        self._label, self._total, self._active, self._interval = label, total, active, interval
        self._done = 0
        self._spoken = time.monotonic()

    def skip(self, steps: int) -> None:
        """Steps that were done before."""
        self._done += steps
        if self._bar is not None:
            self._bar.update(steps)

    def advance(self, loss: float) -> None:
        """One more step is finished, with this loss."""
        self._done += 1
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
            self._bar.update()
        elif self._active and time.monotonic() - self._spoken > self._interval:
            self._spoken = time.monotonic()
            print(f"{self._label}: step {self._done}/{self._total}, loss {loss:.3f}", flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()


def is_terminal() -> bool:
    """Whether live progress can be drawn."""
    return sys.stderr.isatty()


def say(text: str, active: bool = True) -> None:
    """Prints a line without breaking a progress bar."""
    if active:
        tqdm.write(text) if is_terminal() else print(text, flush=True)


def draw_curves(
    path: Path, rows: Sequence[Mapping[str, Any]], transitions: Sequence[tuple[float, str]], values: Mapping[str, np.ndarray],
    steps_per_epoch: int, title: str,
) -> None:  # fmt: skip
    """Draws accuracy, loss, rate, dropout, mixup and the gap over the epochs, transitions marked.

    Args:
      path: the PNG file.
      rows: the objects of `metrics.jsonl`.
      transitions: (epochs since the start, short text) of each transition.
      values: every moving value at every step of the run, float32 [steps] by name.
      steps_per_epoch: updates in an epoch.
      title: the heading.
    """
    from matplotlib.figure import Figure  # here, since it takes a quarter of a second that a plan or test need not wait
    from matplotlib.ticker import MaxNLocator

    column = lambda name: np.array([np.nan if row[name] is None else row[name] for row in rows], float)  # noqa: E731
    held_out = np.isfinite(column("valid_accuracy")).any()
    epochs = column("epoch")
    clock = np.arange(len(values["learning_rate"]) + 1) / steps_per_epoch

    figure = Figure(figsize=(13, 8), layout="constrained")
    axes = figure.subplots(2, 3)
    figure.suptitle(title)
    styles = {"train": ("tab:blue", "o", "-"), "valid": ("tab:green", "s", "--"), "test": ("tab:orange", "^", "-.")}
    for axis, quantity, factor, label in (
        (axes[0, 0], "accuracy", 100, "accuracy (%)"),
        (axes[0, 1], "loss", 1, "loss"),
    ):
        for split in ("train", "valid", "test") if held_out else ("train", "test"):
            color, marker, line = styles[split]
            name = SPLITS[split] + (" (augmented, mixed)" if split == "train" else "")
            axis.plot(epochs, factor * column(f"{split}_{quantity}"), line, color=color, marker=marker, ms=3, label=name)
        axis.set_title(label, pad=14)
        axis.legend(loc="best", fontsize=8)
    for axis, name in ((axes[0, 2], "learning_rate"), (axes[1, 0], "dropout"), (axes[1, 1], "mixup_alpha")):
        axis.plot(clock, np.append(values[name], values[name][-1]), color="tab:red", drawstyle="steps-post")
        axis.set_title(name.replace("_", " "), pad=14)
        axis.set_ylim(0, max(1e-9, 1.08 * float(values[name].max())))
    judge = "valid" if held_out else "test"
    gap = 100 * (column("train_accuracy") - column(f"{judge}_accuracy"))
    axes[1, 2].plot(epochs, gap, color="tab:purple", marker="o", ms=3)
    axes[1, 2].axhline(0, color="black", lw=0.8)
    axes[1, 2].set_title(f"gap: training minus {SPLITS[judge]} accuracy (points)", pad=14)
    marks: dict[float, list[str]] = {}
    for when, text in transitions:
        marks.setdefault(when, []).append(text)
    for axis in axes.flat:
        for number, when in enumerate(marks, 1):
            axis.axvline(when, color="gray", ls=":", lw=1)
            place = {"xycoords": ("data", "axes fraction"), "ha": "center", "va": "bottom"}
            axis.annotate(str(number), (when, 1.01), fontsize=7, color="dimgray", **place)
        axis.set_xlim(0, clock[-1])
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
    if marks:
        lines = [f"{n}  epoch {when + 1:.4g}: {', '.join(texts)}" for n, (when, texts) in enumerate(marks.items(), 1)]
        figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=8)
    temporary = path.with_name(path.name + ".tmp")
    figure.savefig(temporary, format="png", dpi=110)
    os.replace(temporary, path)


def draw_recipe(path: Path, recipes: Mapping[str, Any], title: str) -> None:
    """Draws the moving values of one recipe, or of two over each other, over their epochs.

    Args:
      path: the PNG file.
      recipes: by label, an object with `values` (every moving value at every step, [steps] by name, `augmentation` as index),
        `level_names` (of the augmentation levels) and `steps_per_epoch`, such as a `Timeline`.
      title: the heading; may be empty.
    """
    from matplotlib.figure import Figure

    names = list(next(iter(recipes.values())).values)
    levels = list(dict.fromkeys(level for recipe in recipes.values() for level in recipe.level_names))
    figure = Figure(figsize=(10, 9), layout="constrained")
    axes = figure.subplots(len(names), 1, sharex=True, height_ratios=[2.5] + [1] * (len(names) - 1))
    figure.suptitle(title)
    for axis, name in zip(axes, names, strict=True):
        top = max(float(recipe.values[name].max()) for recipe in recipes.values()) or 1.0
        travelled = [np.abs(np.diff(recipe.values[name])).sum() for recipe in recipes.values()]
        for index, (label, recipe) in enumerate(recipes.items()):
            column = recipe.values[name]
            if name == "augmentation":
                column = np.array([levels.index(level) for level in recipe.level_names])[column]
            epochs = 1 + np.arange(len(column) + 1) / recipe.steps_per_epoch
            # Dense restarts fill an area: they go below, so that they do not hide the other recipe.
            order = 3 if travelled[index] == max(travelled) else 4
            look = {"color": ("tab:blue", "tab:orange")[index], "ls": ("-", "--")[index], "lw": 1.4, "zorder": order}
            axis.plot(epochs, np.append(column, column[-1]), drawstyle="steps-post", label=label, **look)
        axis.set_ylabel(name.replace("_", "\n" if name != "learning_rate" else " "))
        axis.grid(alpha=0.3)
        if name == "augmentation":
            axis.set_yticks(range(len(levels)), levels)
            axis.set_ylim(-0.5, len(levels) - 0.5)
            axis.invert_yaxis()
        else:
            axis.set_ylim(-0.04 * top, 1.1 * top)
    if len(recipes) > 1:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    axes[-1].set_xlabel("epoch")
    axes[-1].set_xlim(1, 1 + max(len(recipe.values[names[0]]) / recipe.steps_per_epoch for recipe in recipes.values()))
    figure.savefig(path, format="png", dpi=110)
