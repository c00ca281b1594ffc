"""What a run writes for people and programs; process 0 only.

In the work directory:
  config.json    the configuration, fully resolved
  header.jsonl   one object for each start: time, command, hardware, versions
  metrics.jsonl  one object an epoch
  tensorboard/   the same figures as TensorBoard events
  curves.png     the same figures as a picture
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import tensorboardX

from wrn_jax.runtime.console import say
from wrn_jax.runtime.errors import UserError
from wrn_jax.runtime.files import write_atomically
from wrn_jax.training.records import EpochRow, Header, read_rows


class RunLog:
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

    def __init__(self, workdir: Path, header: Header, config: Mapping[str, Any], epochs_done: int, active: bool):
        self._metrics = workdir / "metrics.jsonl"
        self._active = active
        self.rows = read_rows(self._metrics)[:epochs_done]
        if len(self.rows) < epochs_done:
            raise UserError(f"{self._metrics}: should hold epochs 1 to {epochs_done}, which the last checkpoint has finished")
        if not active:
            return
        write_atomically(workdir / "config.json", json.dumps(config, indent=2) + "\n")
        with open(workdir / "header.jsonl", "a") as file:
            file.write(json.dumps(header.to_dict()) + "\n")
        # Epochs after the checkpoint that the run continues from happen again; their records go.
        self._write_rows()
        purge = epochs_done * header.steps_per_epoch + 1 if epochs_done else None
        self._board = tensorboardX.SummaryWriter(str(workdir / "tensorboard"), purge_step=purge)

    def epoch(self, row: EpochRow) -> None:
        """Records one epoch. A full disk does not end the run: the next epoch writes what is missing."""
        self.rows.append(row)
        if not self._active:
            return
        try:
            self._write_rows()
            for name, value in row.to_dict().items():
                if isinstance(value, int | float) and name not in ("format", "epoch", "step"):
                    group, _, rest = name.partition("_")
                    tag = f"{group}/{rest}" if group in ("train", "valid", "test") else f"run/{name}"
                    self._board.add_scalar(tag, value, row.step)
            self._board.flush()
        except OSError as error:
            say(f"{self._metrics}: could not be written ({error.strerror}); going on, and trying again after the next epoch")

    def _write_rows(self) -> None:
        write_atomically(self._metrics, "".join(json.dumps(row.to_dict(), allow_nan=False) + "\n" for row in self.rows))

    def transition(self, name: str, text: str, step: int) -> None:
        """Records a transition as a TensorBoard text."""
        if self._active:
            self._board.add_text(f"transitions/{name}", text, step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._active:
            self._board.close()
