"""What a run says, line by line."""

import math
import shlex
from collections.abc import Sequence
from pathlib import Path

from wrn_jax.config import Config, checks
from wrn_jax.config.rates import warm_up_end
from wrn_jax.config.timeline import Timeline
from wrn_jax.runtime import console, devices
from wrn_jax.training.records import SPLITS, EpochRow, Header, describe_hardware

GUESSING_MARGIN = 0.01
"""A training loss that is not by this share below that of guessing counts as no better; see `not_learning`."""

PATIENCE_WITH_LEARNING = 300
"""Updates after the warm-up before a run is asked whether it learns."""


def opening_lines(header: Header, config: Config, timeline: Timeline) -> list[str]:
    """What is about to run, in a few lines."""
    model = config.model
    chosen = "a hold-out" if header.best_chosen_on == "valid" else "the test set (the published way)"
    return [
        f"{model.title}, {header.parameters:,} parameters, {header.precision}, on "
        f"{describe_hardware(header.hardware)}, JAX {header.versions['jax']}",
        *([header.origin.describe()] if header.origin else []),
        f"{config.data.name}: {header.train_examples:,} training images; best epoch chosen on {chosen}",
        f"{timeline.epochs} epochs of {timeline.steps_per_epoch} steps, batch {config.recipe.batch_size}, seed {config.seed}",
        *checks.report(checks.examine(config, timeline), config.silence),
    ]


def epoch_line(row: EpochRow, epochs: int, best_on: str | None, seconds_left: float) -> str:
    """An epoch in one line; `best_on` names the split on which it is the best so far."""
    valid = "" if row.valid_accuracy is None else f"  valid {row.valid_accuracy:.2%}"
    skipped = f"  {row.skipped_steps} skipped" if row.skipped_steps else ""
    left = console.format_duration(seconds_left)
    best = f"  best on {SPLITS[best_on]}" if best_on else ""
    return (
        f"epoch {row.epoch:{len(str(epochs))}d}/{epochs}  loss {row.train_loss:.4f}  train {row.train_accuracy:.2%}"
        f"{valid}  test {row.test_accuracy:.2%}{of_average(row)}  rate {row.moving['learning_rate']:.6f}  "
        f"{row.images_per_second:.0f} images/s{skipped}  {left} left{best}"
    )


def to_go_on(workdir: Path) -> str:
    """What stands after `--resume --workdir` for a run to go on as this process has it, in shell syntax."""
    return f"{shlex.quote(str(workdir))}{' --deterministic' * devices.is_deterministic()}"


def of_average(row: EpochRow) -> str:
    """Says after a test accuracy that it is the weight average's, and what the network itself has; empty where it is not."""
    return "" if row.network != "average" else f" (average; raw {row.raw_test_accuracy:.2%})"


def not_learning(rows: Sequence[EpochRow], timeline: Timeline, num_classes: int) -> str | None:
    """A line about the last row if it is the first that shows a run that does not learn.

    To give every class the same probability costs ln(classes) whatever the targets, for mixed and smoothed ones sum to one
    too: neither moves this bound. They lessen what a network can gain on it, by the entropy of the targets; with 100 classes
    by at most ln 2 = 0.69 nats for mixup and by 0.78 for a smoothing of 0.1, out of 4.61. A margin of 1 %, 0.046 nats, is
    small beside the rest: a WRN-16-2 in session 04 has gained 0.12 after its first epoch, and 1.13 after the first that
    follows the warm-up. The question is asked once the warm-up and `PATIENCE_WITH_LEARNING` updates are over, at the latest
    at the end: small networks on few images begin late.
    """
    guess = math.log(num_classes)
    end = int(timeline.sampled[warm_up_end(timeline.values["learning_rate"])])
    since = min(end + PATIENCE_WITH_LEARNING, timeline.steps)
    losses = [row.train_loss or 0.0 for row in rows if row.epoch * timeline.steps_per_epoch >= since]
    guessing = [loss > (1 - GUESSING_MARGIN) * guess for loss in losses]
    if sum(guessing) != 1 or not guessing[-1]:
        return None
    return (
        f"this run does not learn: after epoch {rows[-1].epoch} its training loss, {losses[-1]:.3f}, is no better "
        f"than guessing (ln {num_classes} = {guess:.3f}); a lower learning rate or less dropout and regularisation may help"
    )
