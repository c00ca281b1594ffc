"""The picture of a run: `curves.png`."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from wrn_jax.config.moving import MOVING, NUMERIC
from wrn_jax.config.timeline import epoch_text
from wrn_jax.runtime.drawing import plain_text
from wrn_jax.runtime.files import write_atomically
from wrn_jax.training.records import SPLITS, EpochRow


@plain_text()
def draw_curves(
    path: Path, rows: Sequence[EpochRow], transitions: Sequence[tuple[float, str]], values: Mapping[str, np.ndarray],
    edges: np.ndarray, title: str,
) -> None:  # fmt: skip
    """Draws accuracy, loss, rate, two more values that move, and the gap over the epochs, transitions marked.

    Args:
      path: the PNG file.
      rows: one an epoch.
      transitions: (epochs since the start, short text) of each transition.
      values: every moving value over the run, float32 [n] by name.
      edges: where each of the values begins, and where the last ends, in finished epochs, [n + 1].
      title: the heading.
    """
    from matplotlib.figure import Figure  # here, since it takes a quarter of a second that a plan or test need not wait
    from matplotlib.ticker import MaxNLocator

    column = lambda name: np.array([getattr(row, name) for row in rows], float)  # noqa: E731
    held_out = np.isfinite(column("valid_accuracy")).any()
    epochs = column("epoch")

    figure = Figure(figsize=(13, 8), layout="constrained")
    axes = figure.subplots(2, 3)
    figure.suptitle(title)
    size = 3 if len(rows) <= 60 else 0  # of markers, which would hide the lines
    styles = {"train": ("tab:blue", "o", "-"), "valid": ("tab:green", "s", "--"), "test": ("tab:orange", "^", "-.")}
    for axis, quantity, factor, label in (
        (axes[0, 0], "accuracy", 100, "accuracy (%)"),
        (axes[0, 1], "loss", 1, "loss"),
    ):
        for split in ("train", "valid", "test") if held_out else ("train", "test"):
            color, marker, line = styles[split]
            name = SPLITS[split] + (" (augmented, mixed)" if split == "train" else "")
            axis.plot(epochs, factor * column(f"{split}_{quantity}"), line, color=color, marker=marker, ms=size, label=name)
        averaged = np.array([row.network == "average" for row in rows])
        if averaged.any():
            for split in ("valid", "test") if held_out else ("test",):
                raw = np.where(averaged, factor * column(f"raw_{split}_{quantity}"), np.nan)
                axis.plot(epochs, raw, ":", color=styles[split][0], lw=1.4, label=f"{SPLITS[split]}, without the average")
        axis.set_title(label, pad=14)
        axis.legend(loc="best", fontsize=8)
    moving = [name for name in NUMERIC[1:] if name in values and np.ptp(values[name])]
    for axis, name in zip((axes[0, 2], axes[1, 0], axes[1, 1]), dict.fromkeys([NUMERIC[0], *moving, *NUMERIC]), strict=False):
        axis.plot(edges, np.append(values[name], values[name][-1]), color="tab:red", drawstyle="steps-post")
        axis.set_title(MOVING[name].label, pad=14)
        axis.set_ylim(0, max(1e-9, 1.08 * float(values[name].max())))
    judge = "valid" if held_out else "test"
    gap = 100 * (column("train_accuracy") - column(f"{judge}_accuracy"))
    axes[1, 2].plot(epochs, gap, color="tab:purple", marker="o", ms=size)
    axes[1, 2].axhline(0, color="black", lw=0.8)
    axes[1, 2].set_title(f"training minus {SPLITS[judge]} accuracy (points)", pad=14)
    marks: dict[float, list[str]] = {}
    for when, text in transitions:
        marks.setdefault(when, []).append(text)
    for axis in axes.flat:
        for number, when in enumerate(marks, 1):
            axis.axvline(when, color="gray", ls=":", lw=1)
            place = {"xycoords": ("data", "axes fraction"), "ha": "center", "va": "bottom"}
            axis.annotate(str(number), (when, 1.01), fontsize=7, color="dimgray", **place)
        axis.set_xlim(0, edges[-1])
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
    if marks:
        lines = [f"{n}  epoch {epoch_text(when + 1)}: {', '.join(texts)}" for n, (when, texts) in enumerate(marks.items(), 1)]
        figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=8)
    figure.savefig(content := io.BytesIO(), format="png", dpi=110)
    write_atomically(path, content.getvalue())
