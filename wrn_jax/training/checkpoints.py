"""Checkpoints of a run, by Orbax: save, list, restore, and which ones stay."""

import contextlib
import dataclasses
import gc
import json
import logging
import math
import operator
import re
import shutil
import sys
import warnings
from collections.abc import Collection, Generator, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import jax.numpy as jnp
import tensorstore
from orbax.checkpoint import v1 as ocp

from wrn_jax.runtime import files
from wrn_jax.runtime.devices import wait_for_all
from wrn_jax.runtime.errors import UserError
from wrn_jax.runtime.signals import keeping_interrupts
from wrn_jax.training import average
from wrn_jax.training.records import CheckpointNotes, Saved

FORMAT = 1
"""Version of what is saved; a checkpoint with a higher one is refused."""

# Typed as Any: Orbax's policies do not satisfy the protocols of its own annotations.
_Checkpointer: Any = ocp.training.Checkpointer
_preserve: Any = ocp.training.preservation_policies

# At every save Orbax asks TensorStore for its counters, for a log that is off here, and TensorStore 0.1.86 never frees its
# answers: 35 kB a save.
setattr(tensorstore, "experimental_collect_matching_metrics", lambda *_: [])  # noqa: B010 (typed otherwise)


class SaveFailed(Exception):
    """A checkpoint could not be written; the text is one line."""


class Gone(UserError):
    """A checkpoint that was listed is no longer there: the run that goes on beside has replaced it by a later one."""


class _Damaged(Exception):
    """A checkpoint cannot be read back as it was written."""


def best_of(saved: Iterable[Saved]) -> Saved | None:
    """The one of the best epoch, of checkpoints in their order: the first among equals; None if no epoch was finished."""
    finished = (checkpoint for checkpoint in saved if checkpoint.accuracy is not None)
    return max(finished, key=operator.attrgetter("accuracy"), default=None)


def choose(saved: list[Saved], which: str, folder: Path, *others: str) -> Saved:
    """The one that `which`, the option --checkpoint, names: "best", "last" or an epoch.

    Args:
      saved: the checkpoints in `folder`, in their order.
      which: the option's value.
      folder: where they are, for messages.
      others: further values that the command accepts, for messages.

    Raises:
      UserError: there is none, or none of that name.
    """
    if not saved:
        raise UserError(f"{folder}: holds no complete checkpoint")
    if which == "best":
        best = best_of(saved)
        if best is None:
            raise UserError(f"{folder}: no epoch is finished yet, so there is no best; --checkpoint last is there")
        return best
    if which == "last":
        return saved[-1]
    if not re.fullmatch(r"[0-9]+", which):
        raise UserError(f"--checkpoint {which}: should be {', '.join(('best', 'last', *others))} or the number of an epoch")
    for checkpoint in saved:
        if checkpoint.epoch == int(which) and checkpoint.accuracy is not None:
            return checkpoint
    there = ", ".join(str(checkpoint.epoch) for checkpoint in saved if checkpoint.accuracy is not None) or "none"
    raise UserError(f"--checkpoint {which}: not kept; there are epochs {there}")


@jax.jit
def checksum(tree: Any) -> jax.Array:
    """A uint32 scalar that changes with every bit of every array, and with its place; the same for every sharding."""
    total = jnp.uint32(0)
    for leaf in jax.tree.leaves(tree):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        words = jax.lax.bitcast_convert_type(leaf, jnp.uint32)
        # The weights are odd, hence invertible: no single changed word goes unnoticed. They differ from place to place.
        index = jnp.zeros(leaf.shape, jnp.uint32)
        for axis, size in enumerate(leaf.shape):
            index = index * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis)
        total = total * jnp.uint32(0x01000193) + jnp.sum(words * (2 * index + 1), dtype=jnp.uint32)
    return total


@jax.jit
def is_finite(tree: Any) -> jax.Array:
    """A bool scalar: whether every number in every array is finite."""
    arrays = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.stack([jnp.all(jnp.isfinite(array)) for array in arrays]).all()


class Checkpoints:
    """The checkpoints of one run, named by the number of finished updates.

    Kept are the last two (one to go on from, one in case that is damaged), the best (highest accuracy; the earliest among
    equals), those of `keep`, and for each of `branches` that one and the best until it. Saving is asynchronous. A checkpoint
    becomes visible only when it is complete, and carries a checksum of its arrays.

    Args:
      directory: the folder; created when missing.
      keep: numbers of updates whose checkpoints stay for good.
      branches: those after which other runs go on, which need the best until then as well.
      metadata: plain JSON data stored beside every checkpoint.
    """

    def __init__(
        self,
        directory: Path,
        keep: Collection[int] = (),
        metadata: Mapping[str, Any] | None = None,
        branches: Collection[int] = (),
    ):
        _hush_abandoned_tasks()
        self.directory = directory.resolve()
        self._metadata = dict(metadata or {})
        self._response: Any = None
        self._has_failed = False
        try:
            self._orbax = _Checkpointer(
                self.directory,
                # Orbax's default skips a save while another is in flight; every save asked for here is meant.
                save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
                preservation_policy=_preserve.AnyPreservationPolicy(
                    [
                        _preserve.LatestN(2),
                        _preserve.CustomSteps(sorted({*keep, *branches})),
                        *map(_BestUntil, sorted(branches)),
                        _preserve.BestN(
                            get_metric_fn=_rank,
                            n=1,
                            keep_checkpoints_without_metrics=False,
                        ),
                    ]
                ),
            )
        except Exception as error:  # Orbax reads what all of them say of themselves
            path = next(filter(_is_unreadable, sorted(self.directory.glob("[0-9]*"))), self.directory)
            raise UserError(f"{path}: cannot be read ({files.reason(error)}); move it away") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            try:
                self.wait()
            finally:
                self._orbax.close()
                if self._has_failed:
                    self.remove_unfinished()
        except Exception as failure:
            if error is None:
                raise SaveFailed(files.reason(failure)) from None

    def save(self, state: Any, step: int, epoch: int, accuracy: float | None, notes: CheckpointNotes) -> None:
        """Starts to save a `TrainState`, once the save before is done; one of an unevaluated epoch gives way to the evaluated.

        Args:
          state: the state after `step` updates.
          step: finished updates.
          epoch: finished epochs.
          accuracy: 0..1, ranks the checkpoint; None within an epoch.
          notes: what comes back in `Saved.notes`.

        Raises:
          SaveFailed: this save could not start, or the one before did not succeed; it may be tried again.
        """
        self.wait()
        if self._has_failed:  # again: others of its writers may have gone on for a while
            self.remove_unfinished()
        present = [checkpoint for checkpoint in self._orbax.checkpoints if checkpoint.step == step]
        if present and (accuracy is None or present[0].metrics):
            return  # it got there, though its start ended in an error
        details: dict[str, Any] = {
            "format": FORMAT,
            "step": step,
            "epoch": epoch,
            "checksum": int(checksum(_parts(state))),
            "notes": notes.to_dict(),
        }
        if state.average is not None and state.average["count"] > 0:
            details["network"] = "average"
        try:
            self._response = self._orbax.save_checkpointables_async(
                step,
                _parts(state),
                metrics=None if accuracy is None else {"accuracy": accuracy, "epoch": epoch},
                custom_metadata=self._metadata | details,
                overwrite=bool(present),
            )
        except Exception as error:  # whatever the file system, Orbax or its C++ parts make of it
            raise self._failed(error) from None

    def wait(self) -> None:
        """Waits until what was saved is on disk. Raises SaveFailed if it did not get there."""
        response, self._response = self._response, None
        try:
            try:
                self._orbax.wait()
            finally:  # a response that nobody asks for its result keeps a thread and three descriptors
                if response is not None:
                    response.result()
        except Exception as error:
            raise self._failed(error) from None

    def _failed(self, error: Exception) -> SaveFailed:
        """What to raise for a save that failed, once its remains are gone: on a full disk they would take the last room."""
        self._has_failed = True
        with contextlib.suppress(Exception):
            self._orbax.wait()  # it may have started all the same
        self.remove_unfinished()
        with contextlib.suppress(Exception):
            self._orbax.reload()  # it has forgotten those that the new one would have replaced
        return SaveFailed(why(error))

    def remove_unfinished(self) -> None:
        """Removes what dead or failed saves left; not to be called while another process saves."""
        if jax.process_index() == 0:
            for folder in self.directory.glob("*.orbax-checkpoint-tmp*"):
                shutil.rmtree(folder, ignore_errors=True)

    def all(self) -> list[Saved]:
        """The complete checkpoints that are still there, in the order of time. Raises UserError for one of a newer format."""
        listed = [self._saved(step) for step in sorted(checkpoint.step for checkpoint in self._orbax.checkpoints)]
        return [saved for saved in listed if saved.is_described or (self.directory / str(saved.step)).is_dir()]

    def _saved(self, step: int) -> Saved:
        try:
            description = self._describe(step)
            details, metrics = description.custom_metadata, description.metrics
            version, epoch, _ = (operator.index(details[name]) for name in ("format", "epoch", "checksum"))
            accuracy = _rank(metrics)[0] if metrics else None
            if version < 1 or epoch < 0 or accuracy == -math.inf:
                raise ValueError
        except Exception:  # damaged; `restore_last` sets it aside
            return Saved(step, -1, None, is_described=False)
        if version > FORMAT:
            raise UserError(
                f"{self.directory / str(step)}: is of format {version}, newer than {FORMAT}, which this version reads"
            )
        try:
            return Saved(step, epoch, accuracy, CheckpointNotes.from_dict(details.get("notes"), "notes"), details)
        except UserError:
            return Saved(step, epoch, accuracy, is_described=False)

    @keeping_interrupts()
    def _describe(self, step: int) -> Any:
        """What Orbax keeps beside the arrays of a checkpoint. Raises _Damaged."""
        try:
            return self._orbax.checkpointables_metadata(step)
        except Exception:
            raise _Damaged("its description cannot be read") from None

    def restore_last(
        self, like: Any, shardings: Any, start_average: bool = False, newest: int = sys.maxsize
    ) -> tuple[Saved | None, Any, list[str]]:
        """The newest checkpoint that can be read back as it was written; those after it are set aside.

        Args:
          like: a state, or abstract state, of the same structure.
          shardings: the sharding of each of its arrays; see `devices.state_shardings`.
          start_average: whether an average that a checkpoint does not hold begins from its weights.
          newest: the most updates that it may have; what follows those after it was not finite.

        Returns:
          The checkpoint and its state, or None and `like` if there is none; and a line about each that is set aside.

        Raises:
          UserError: a checkpoint holds a network of another shape, or there are checkpoints and none can be read.
        """
        reasons: dict[int, tuple[str, str]] = {}
        for saved in reversed(self.all()):
            try:
                if saved.step > newest:
                    reasons[saved.step] = "led twice to numbers that are not finite", "diverged"
                    continue
                if not saved.is_described:
                    raise _Damaged("its description cannot be read")
                state = self.restore(saved.step, like, shardings, start_average)
            except _Damaged as error:
                reasons[saved.step] = f"is damaged ({error})", "damaged"
                continue
            return saved, state, [self._set_aside(step, *reason) for step, reason in reasons.items()]
        if reasons:
            step, (reason, _) = next(iter(reasons.items()))
            raise UserError(f"{self.directory}: holds checkpoints, but none can be gone on from; the last, {step}, {reason}")
        return None, like, []

    def _set_aside(self, step: int, reason: str, folder: str) -> str:
        """Moves a checkpoint to this folder of the run, so that its step can be saved again; a line about it."""
        aside = self.directory.with_name(folder) / str(step)
        if jax.process_index() == 0:
            try:
                aside.parent.mkdir(exist_ok=True)
                shutil.rmtree(aside, ignore_errors=True)
                (self.directory / str(step)).rename(aside)
            except OSError as error:
                raise UserError(f"checkpoint {step} {reason}, and cannot be moved to {aside}: {error.strerror}") from None
        wait_for_all(f"checkpoint {step} set aside")
        self._orbax.reload()
        return f"checkpoint {step} {reason}; moved to {aside}"

    def restore(self, step: int, like: Any, shardings: Any, start_average: bool = False) -> Any:
        """The `TrainState` saved after `step` updates; arguments and errors as in `restore_last`."""
        if start_average and like.average is not None and "average" not in self._describe(step).metadata:
            without = (dataclasses.replace(tree, average=None) for tree in (like, shardings))
            state = self.restore(step, *without)
            return dataclasses.replace(state, average=average.init(state.params, state.batch_stats))
        expected = self._describe(step).custom_metadata["checksum"]
        parts = self._load(step, _parts(like), _parts(shardings))
        if int(checksum(parts)) != expected:
            raise _Damaged("its arrays do not have the checksum they were saved with")
        if not is_finite(parts):  # no way to go on from there, and none was ever meant to be saved
            raise _Damaged("its numbers are not finite")
        return dataclasses.replace(like, **parts["model"], **parts["train"], average=parts.get("average"))

    def restore_model(
        self, step: int, params: Any, batch_stats: Any, sharding: jax.sharding.Sharding, network: str = "raw"
    ) -> tuple[Any, Any]:
        """Parameters and running statistics saved after `step` updates, all with one sharding.

        `network` is "raw", or "average" where the checkpoint has one. Raises UserError.
        """
        like: dict[str, Any] = {"model": {"params": params, "batch_stats": batch_stats}}
        if network == "average":
            like = {"average": like["model"] | {"count": jax.ShapeDtypeStruct((), jnp.int32)}}
        with self._reported(step):
            (model,) = self._load(step, like, jax.tree.map(lambda _: sharding, like)).values()
        return model["params"], model["batch_stats"]

    def restore_state(self, saved: Saved, like: Any, shardings: Any, start_average: bool = False) -> Any:
        """The state of a checkpoint of another run, of which nothing is set aside; arguments as `restore_last`.

        Raises UserError, also for a damaged one.
        """
        with self._reported(saved.step):
            return self.restore(saved.step, like, shardings, start_average)

    @contextlib.contextmanager
    def _reported(self, step: int) -> Generator[None]:
        """Raises UserError for a checkpoint that turns out damaged, or gone, in the block."""
        try:
            yield
        except _Damaged as error:
            if not (self.directory / str(step)).is_dir():
                raise Gone(f"{self.directory / str(step)}: the run has replaced it by a later one meanwhile") from None
            raise UserError(f"{self.directory / str(step)}: is damaged ({error})") from None

    def restore_chosen(
        self,
        which: str,
        params: Any,
        batch_stats: Any,
        sharding: jax.sharding.Sharding,
        *others: str,
        network: str | None = None,
    ) -> tuple[Saved, tuple[Any, Any]]:
        """The checkpoint that `which` names, see `choose`, and its model; chosen anew if the run replaces it meanwhile.

        Of the model the network that is asked for, see `Saved.choose_network`. Raises UserError.
        """
        for _ in range(10):
            saved = choose(self.all(), which, self.directory, *others)
            try:
                chosen = saved.choose_network(network)
                return saved, self.restore_model(saved.step, params, batch_stats, sharding, chosen)
            except Gone:
                self._orbax.reload()
        raise Gone(f"{self.directory}: the run replaces its checkpoints faster than they can be read; evaluate it at its end")

    @keeping_interrupts()
    def _load(self, step: int, like: Any, shardings: Any) -> Any:
        saved = self._describe(step).metadata
        try:
            part = "model" if "model" in like else "average"
            want, have = (leaf_shapes(tree[part]) for tree in (like, saved))
            fields = like.get("train", saved["train"]).keys() ^ saved["train"].keys()
        except Exception:
            raise _Damaged("its description cannot be read") from None
        if not have:
            raise _Damaged("its description cannot be read")
        if "train" in like and ("average" in like) != ("average" in saved):
            if "average" in saved:
                raise UserError(
                    f"checkpoint {step}: holds an average, and this recipe has none; keep optimizer.average_decay in it, or "
                    "begin with the weights alone (--init-from)"
                )
            raise UserError(
                f"checkpoint {step}: holds no average, and this recipe has one; --config.optimizer.start_average=true begins "
                "it from the weights of the checkpoint"
            )
        for name in sorted(fields):
            kind = "holds" if name in saved["train"] else "does not hold"
            raise UserError(f"checkpoint {step}: {kind} {name}; it is of another version's training state")
        # Orbax reports another shape as a missing handler; say what is really different.
        different = sorted(want.items() ^ have.items())
        if different:
            name = different[0][0]
            raise UserError(f"checkpoint {step}: {name} is {have.get(name)}, but this network has {want.get(name)}")
        abstract = jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), like, shardings
        )
        try:
            loaded = self._orbax.load_checkpointables(step, abstract)
            return jax.device_put(loaded, shardings)  # Orbax heeds no order in memory
        except (jax.errors.JaxRuntimeError, MemoryError):  # the device's trouble, not the checkpoint's
            raise
        except Exception:  # said in the line below; the text would be about handlers and coroutines
            pass
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            gc.collect()  # coroutines that never began complain when they are collected: now
        raise _Damaged("its files cannot be read")


def why(error: BaseException) -> str:
    """As `files.reason`; of what TensorStore tells, the operating system's reason, which follows long paths."""
    told = re.search(r": ([^:\[]+) \[os_error_code=", str(error))
    return told[1] if told else files.reason(error)


def _hush_abandoned_tasks() -> None:
    """From now on, tasks of Orbax that outlive the read or the save they were part of end without a word.

    When one of its tasks fails, Orbax closes the event loop and leaves the others to the collector; each complains when
    TensorStore is done with it, which may be seconds later and on any thread. Their failure has been reported by then.
    """
    before = sys.unraisablehook
    if getattr(before, "__module__", None) == __name__:
        return

    def hook(unraisable: "sys.UnraisableHookArgs") -> None:
        if not _is_of_abandoned_task(unraisable):
            before(unraisable)

    sys.unraisablehook = hook
    logging.getLogger("asyncio").addFilter(lambda record: not re.search("orbax|tensorstore", record.getMessage()))


def _is_of_abandoned_task(unraisable: "sys.UnraisableHookArgs") -> bool:
    code = getattr(unraisable.object, "cr_code", None)
    if code is not None:
        return "orbax" in Path(code.co_filename).parts
    return isinstance(unraisable.exc_value, RuntimeError) and str(unraisable.exc_value) == "Event loop is closed"


@dataclasses.dataclass(frozen=True)
class _BestUntil:
    """Keeps the best checkpoint of the first `step` updates."""

    step: int

    def should_preserve(self, checkpoints: Any, *, context: Any) -> list[bool]:
        until = [checkpoint for checkpoint in checkpoints if checkpoint.step <= self.step and checkpoint.metrics]
        best = max(until, key=lambda checkpoint: _rank(checkpoint.metrics), default=None)
        return [checkpoint is best for checkpoint in checkpoints]


def _rank(metrics: Any) -> tuple[float, int]:
    """By which checkpoints of the ends of epochs are ordered: accuracy, then the earlier; last those that do not say."""
    try:
        accuracy, epoch = float(metrics["accuracy"]), operator.index(metrics["epoch"])
    except Exception:
        return -math.inf, 0
    return (accuracy, -epoch) if 0 <= accuracy <= 1 else (-math.inf, 0)


def _is_unreadable(folder: Path) -> bool:
    """Whether what a checkpoint says of itself is no JSON object."""
    try:
        paths = [path for path in (folder / "_CHECKPOINT_METADATA", folder / "metrics" / "metrics") if path.exists()]
        return not all(isinstance(json.loads(path.read_bytes()), dict) for path in paths)
    except (OSError, ValueError, RecursionError):
        return True


def _parts(state: Any) -> dict[str, Any]:
    """All fields of the state as named parts, model and average apart so that evaluation reads nothing else. A new dictionary
    at every call, since Orbax adds to the one it is given. Without an average there is no such part."""
    fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    averaged = fields.pop("average")
    parts = {"model": {name: fields.pop(name) for name in ("params", "batch_stats")}, "train": fields}
    return parts if averaged is None else parts | {"average": dict(averaged)}


def leaf_shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """The shape of each array of a tree, by dotted name."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): tuple(leaf.shape) for path, leaf in leaves}
