"""Checkpoints of a run, by Orbax: save, list, restore, and which ones stay."""

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
from orbax.checkpoint import v1 as ocp

from wrn_jax.errors import UserError

_preserve = ocp.training.preservation_policies


@dataclasses.dataclass(frozen=True)
class Saved:
    """A checkpoint on disk: `step` (finished updates), `epoch` (from 1), `accuracy` (0..1, of the selecting split)."""

    step: int
    epoch: int
    accuracy: float


def best_of(saved: Collection[Saved]) -> Saved:
    """The one of highest accuracy, the earliest among equals."""
    return max(saved, key=lambda one: (one.accuracy, -one.step))


class Checkpoints:
    """The checkpoints of one run, named by the number of finished updates.

    Kept are the last, the best (highest accuracy; the earliest among equals) and those of `keep`. Saving is asynchronous;
    leaving the `with` block waits for it. A checkpoint becomes visible only when it is complete.

    Args:
      directory: the folder; created when missing.
      keep: numbers of updates whose checkpoints stay for good.
      metadata: plain JSON data stored beside every checkpoint.
    """

    def __init__(self, directory: Path, keep: Collection[int] = (), metadata: Mapping[str, Any] | None = None):
        self._metadata = dict(metadata or {})
        self._orbax = ocp.training.Checkpointer(
            directory.resolve(),
            # Orbax's default skips a save while another is in flight; every save asked for here is meant.
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=_preserve.AnyPreservationPolicy(
                [
                    _preserve.LatestN(1),
                    _preserve.CustomSteps(sorted(keep)),
                    _preserve.BestN(
                        get_metric_fn=lambda metrics: (metrics["accuracy"], -metrics["epoch"]),
                        n=1,
                        keep_checkpoints_without_metrics=False,
                    ),
                ]
            ),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._orbax.close()

    def save(self, state: Any, step: int, epoch: int, metrics: Mapping[str, Any], accuracy: float) -> None:
        """Starts to save a `TrainState` after `step` updates. `metrics` are stored beside it; `accuracy` ranks it."""
        self._orbax.save_checkpointables_async(
            step,
            _parts(state),
            metrics={"accuracy": accuracy, "epoch": epoch},
            custom_metadata=self._metadata | {"epoch": epoch, "metrics": dict(metrics)},
        )

    def list(self) -> list[Saved]:
        """The complete checkpoints in the order of time."""
        found = []
        for checkpoint in self._orbax.checkpoints:
            found.append(Saved(checkpoint.step, int(checkpoint.metrics["epoch"]), float(checkpoint.metrics["accuracy"])))
        return sorted(found, key=lambda one: one.step)

    def restore(self, step: int, like: Any, sharding: jax.sharding.Sharding) -> Any:
        """The `TrainState` saved after `step` updates.

        Args:
          step: one of `list()`.
          like: a state, or abstract state, of the same structure.
          sharding: where the arrays go.

        Raises:
          UserError: the checkpoint holds a network of another shape.
        """
        found = self._load(step, _parts(like), sharding)
        return dataclasses.replace(like, **found["model"], **found["train"])

    def restore_model(self, step: int, params: Any, batch_stats: Any, sharding: jax.sharding.Sharding) -> tuple[Any, Any]:
        """Parameters and running statistics saved after `step` updates; arguments and errors as in `restore`."""
        like = {"model": {"params": params, "batch_stats": batch_stats}}
        model = self._load(step, like, sharding)["model"]
        return model["params"], model["batch_stats"]

    def _load(self, step: int, like: Any, sharding: jax.sharding.Sharding) -> Any:
        # Orbax reports another shape as a missing handler; say what is really different.
        saved = self._orbax.checkpointables_metadata(step).metadata["model"]
        want, have = (_shapes(tree) for tree in (like["model"], saved))
        different = sorted(want.items() ^ have.items())
        if different:
            name = different[0][0]
            raise UserError(f"checkpoint {step}: {name} is {have.get(name)}, but this network has {want.get(name)}")
        abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), like)
        return self._orbax.load_checkpointables(step, abstract)


def _parts(state: Any) -> dict[str, Any]:
    """The state as named parts, the model apart so that evaluation reads nothing else. A new dictionary at every call,
    since Orbax adds to the one it is given."""
    return {
        "model": {"params": state.params, "batch_stats": state.batch_stats},
        "train": {
            "step": state.step,
            "opt_state": state.opt_state,
            "loss_scale": state.loss_scale,
            "key": state.key,
        },
    }


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): tuple(leaf.shape) for path, leaf in leaves}
