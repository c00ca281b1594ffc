"""The story of a run, top to bottom: set up, restore, compile, epochs, evaluate, save."""

import dataclasses
import functools
import json
import math
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from wrn_jax.config import FREE_ON_RESUME, Config, checks, flatten, from_dict
from wrn_jax.config.moving import NUMERIC
from wrn_jax.config.timeline import Timeline, shortest
from wrn_jax.data import loading
from wrn_jax.data.normalisation import Normalisation
from wrn_jax.evaluation.evaluator import Evaluator
from wrn_jax.models.network import Network
from wrn_jax.runtime import console, devices, environment, files
from wrn_jax.runtime.errors import Diverged, Interrupted, UserError
from wrn_jax.runtime.signals import StopRequest
from wrn_jax.training import curves
from wrn_jax.training.checkpoints import Checkpoints, Saved, SaveFailed
from wrn_jax.training.records import SPLITS, CheckpointNotes, EpochRow, EpochSums, Header, best_row
from wrn_jax.training.run_log import RunLog
from wrn_jax.training.setup import make_setup
from wrn_jax.training.state import create_state
from wrn_jax.training.step import Metrics, jit_train_steps, order_key

Say = Callable[[str], None]

CURVES_INTERVAL = 60.0
"""Least seconds between two drawings of the curves."""


@dataclasses.dataclass(frozen=True)
class Summary:
    """How a run ended.

    Attributes:
      workdir: where everything lies.
      judge: the split that chose the best epoch, "valid" or "test".
      best, last: rows of these epochs.
    """

    workdir: Path
    judge: str
    best: EpochRow
    last: EpochRow


@dataclasses.dataclass(frozen=True)
class EvaluationSetup:
    """What training and evaluation of a configuration share.

    Attributes:
      mesh: the devices.
      dataset: the data, on the host.
      network: the network, without values.
      normalisation: of the images.
      evaluator: for whole splits.
    """

    mesh: Mesh
    dataset: loading.Dataset
    network: Network
    normalisation: Normalisation
    evaluator: Evaluator


def set_up(config: Config, mesh: Mesh) -> EvaluationSetup:
    """Loads the data and defines the network. Raises UserError."""
    dataset = loading.load(config.data)
    dtype = devices.compute_dtype(config.precision, mesh.devices.flat[0])
    network = Network(config.model, dataset.num_classes, dtype, batch_is_split=mesh.size > 1)
    normalisation = Normalisation(dataset.mean, dataset.std)
    evaluator = Evaluator(network.graphdef, normalisation, config.eval_batch_size, mesh)
    return EvaluationSetup(mesh, dataset, network, normalisation, evaluator)


def train(config: Config, workdir: Path, resume: bool = False) -> Summary:
    """Trains the run that `config` describes, going back to a checkpoint when it diverges and the configuration says so.

    Args:
      config: the configuration.
      workdir: where records and checkpoints go; created when missing.
      resume: whether to continue the run in `workdir`.

    Raises:
      UserError: something in configuration, data or work directory that the user can mend.
      Diverged: loss or gradient norm became non-finite.
      Interrupted: a signal came; everything is saved.
    """
    rollbacks = 0
    while True:
        try:
            return run(config, workdir, resume, rollbacks)
        except Diverged as error:
            if config.on_nonfinite == "stop":
                raise
            if error.rollbacks >= config.max_rollbacks:
                raise Diverged(f"{error}; gave up after {error.rollbacks} rollbacks") from None
            rollbacks, resume = error.rollbacks + 1, True
            text = f"{error}; going back to it, with the data in another order (rollback {rollbacks} of {config.max_rollbacks})"
            console.say(text, active=jax.process_index() == 0)


def run(config: Config, workdir: Path, resume: bool, rollbacks: int) -> Summary:
    """One attempt of `train`, from the last checkpoint to the end; `rollbacks` counts the attempts that diverged."""
    lead = jax.process_index() == 0
    say = functools.partial(console.say, active=lead)
    mesh = devices.make_mesh(config.devices)
    setup = make_setup(config, mesh)
    config, timeline = setup.config, setup.timeline
    check_workdir(config, workdir, resume)
    devices.wait_for_all("work directory checked")  # before the first process writes to it

    # Set up.
    dataset = loading.load(config.data)
    evaluator = Evaluator(setup.network.graphdef, setup.normalisation, config.eval_batch_size, mesh)
    if lead:
        make_directory(workdir)
    num_train, batch_size = setup.num_train, config.recipe.batch_size
    splits = {name: split for name, split in (("valid", dataset.valid), ("test", dataset.test)) if split is not None}
    judge = next(iter(splits))
    eval_batches = {name: evaluator.put(split) for name, split in splits.items()}
    images, labels = devices.replicate((dataset.train.images.reshape(num_train, -1), dataset.train.labels), mesh)

    # Restore.
    key = jax.random.key(config.seed)
    versions = environment.versions()
    keep = [epoch * timeline.steps_per_epoch for epoch in timeline.checkpoint_epochs]
    with (
        StopRequest() as stop,
        Checkpoints(workdir / "checkpoints", keep, {"config": config.to_dict(), "versions": versions}) as checkpoints,
    ):
        saved, state, damaged = checkpoints.restore_last(setup.abstract_state, setup.shardings)
        if saved is None:
            saved = Saved(step=0, epoch=0, accuracy=None, notes=CheckpointNotes(rollbacks=0))
            create = functools.partial(create_state, setup.network, setup.optimizer)
            state = jax.jit(create, out_shardings=setup.shardings)(key)
        rollbacks = max(rollbacks, saved.notes.rollbacks)
        header = Header(
            time=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            command=shlex.join(sys.argv),
            first_step=saved.step,
            rollbacks=rollbacks,
            seed=config.seed,
            precision=setup.network.dtype,
            best_chosen_on=judge,
            parameters=setup.network.num_parameters,
            train_examples=num_train,
            steps_per_epoch=timeline.steps_per_epoch,
            hardware=environment.hardware() | {"devices_used": mesh.size},
            versions=versions,
            deterministic=devices.is_deterministic(),
        )
        with RunLog(workdir, header, config.to_dict(), saved.epoch, lead) as log:
            for line in [*opening_lines(header, config, timeline), *damaged]:
                say(line)
            if resume:
                say(f"resuming at step {saved.step} of {timeline.steps}" if saved.step else "no checkpoint: starting anew")
            best = best_row(log.rows, judge)
            patience = config.early_stopping_patience or timeline.epochs
            if saved.epoch == timeline.epochs or (best and saved.epoch - best.epoch >= patience):
                say("this run is finished already")
                if lead:
                    draw(workdir, log.rows, timeline, judge)  # it may have ended just before
                return Summary(workdir, judge, best, log.rows[-1])

            # Compile, before the clock starts. A compiled program refuses other shapes: nothing compiles a second time.
            say("compiling the training step ...")
            begin = time.perf_counter()
            order_of = jax.jit(
                lambda key, epoch: loading.epoch_order(order_key(key, rollbacks), epoch, num_train, batch_size),
                out_shardings=devices.replicated(mesh),
            )
            first_order = order_of(key, np.int32(1))
            train_steps = jit_train_steps(setup).lower(state, images, labels, first_order, np.int32(1)).compile()
            say(f"compiled in {console.format_duration(time.perf_counter() - begin)}")

            # Epochs.
            saver = Saver(checkpoints, saved.step, config.checkpoint_steps, config.checkpoint_minutes, rollbacks, say)

            def close() -> None:
                saver.finish()
                if lead and log.rows:
                    draw(workdir, log.rows, timeline, judge)

            started = drawn = time.perf_counter()
            for epoch in range(saved.epoch + 1, timeline.epochs + 1):
                first_step, end_step = (epoch - 1) * timeline.steps_per_epoch, epoch * timeline.steps_per_epoch
                order = order_of(key, np.int32(epoch))
                sums = EpochSums()
                if saved.step > first_step:  # a checkpoint within this epoch
                    first_step, sums = saved.step, dataclasses.replace(saved.notes.sums)
                epoch_begin = time.perf_counter() - sums.seconds
                pending = None
                with console.Progress(f"epoch {epoch}/{timeline.epochs}", timeline.steps_per_epoch, lead) as progress:
                    progress.skip(first_step % timeline.steps_per_epoch)
                    read = functools.partial(read_step, setup.network.dtype, sums, progress, saver, epoch)
                    step = first_step
                    while step < end_step:
                        count = min(setup.steps_per_call, saver.steps_until_due(step), end_step - step)
                        for index in range(step, step + count):
                            for event in timeline.events_at(index):
                                say(f"epoch {epoch}, step {index}: {event}")
                                log.transition(event.name, f"{event.before} -> {event.after}", index)
                        state, metrics = train_steps(state, images, labels, order, np.int32(count))
                        # Reading the metrics of the call before, while this one runs, keeps the device busy.
                        read_steps(read, pending)
                        pending = (metrics, step, count)
                        for index in range(step, step + count):
                            name = stop.received(index)
                        step += count
                        if step < end_step and (name or saver.is_due(step)):
                            read_steps(read, pending)
                            pending = None
                            sums.seconds = time.perf_counter() - epoch_begin
                            saver.save(state, step, epoch - 1, None, CheckpointNotes(rollbacks=rollbacks, sums=sums))
                        if name:
                            break
                    read_steps(read, pending)
                if name and step < end_step:
                    close()
                    raise Interrupted(f"{name}: saved after step {step}; continue with --resume --workdir {workdir}")
                train_seconds = time.perf_counter() - epoch_begin

                # Evaluate.
                results = {
                    split: evaluator(state.params, state.batch_stats, batches) for split, batches in eval_batches.items()
                }

                # Record and save, in this order: a resumed run drops records that its checkpoint does not reach.
                speed = timeline.steps_per_epoch * batch_size / train_seconds
                row = make_row(epoch, timeline, sums, results, speed, time.perf_counter() - epoch_begin)
                if not math.isfinite(sum(result["loss"] for result in results.values())):
                    raise Diverged(f"the loss of the evaluation after epoch {epoch} is no longer finite", rollbacks)
                log.epoch(row)
                saver.save(state, end_step, epoch, row.accuracy(judge), CheckpointNotes(rollbacks=rollbacks, metrics=row))
                best = best_row(log.rows, judge)
                per_step = (time.perf_counter() - started) / (end_step - saved.step)
                left = per_step * (timeline.steps - end_step)
                say(epoch_line(row, timeline.epochs, judge if best.epoch == epoch else None, left))
                if lead and time.perf_counter() - drawn > CURVES_INTERVAL:
                    draw(workdir, log.rows, timeline, judge)
                    drawn = time.perf_counter()
                if epoch - best.epoch >= patience:
                    say(f"stopping early: no better {SPLITS[judge]} accuracy in {patience} epochs")
                    break
                if (name := stop.received(end_step)) and epoch < timeline.epochs:
                    close()
                    raise Interrupted(f"{name}: saved after epoch {epoch}; continue with --resume --workdir {workdir}")
            close()
    return Summary(workdir, judge, best, log.rows[-1])


class Saver:
    """Decides when to save within an epoch, and goes on when a save fails.

    Args:
      checkpoints: where to save.
      last_step: finished updates of the checkpoint that the run goes on from; 0 for none.
      every_steps: updates between checkpoints within an epoch, or None.
      every_minutes: minutes between checkpoints within an epoch, or None.
      rollbacks: how often the run has gone back to a checkpoint.
      say: prints a line.

    Attributes:
      rollbacks: as given.
      last_step: finished updates of the last save that was started, at first as given.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        last_step: int,
        every_steps: int | None,
        every_minutes: float | None,
        rollbacks: int,
        say: Say,
    ):
        self._checkpoints, self._say, self.rollbacks = checkpoints, say, rollbacks
        self.last_step = last_step
        self._every_steps = every_steps
        # Clocks differ between processes, and all must save together: in a run of several, only steps count.
        self._every_seconds = 60 * every_minutes if every_minutes and jax.process_count() == 1 else math.inf
        self._saved_at = time.monotonic()

    def steps_until_due(self, step: int) -> int:
        """Updates after `step` until a checkpoint is due by their number, at least 1."""
        return self._every_steps - step % self._every_steps if self._every_steps else sys.maxsize

    def is_due(self, step: int) -> bool:
        """Whether to save within an epoch, after `step` updates."""
        by_steps = self._every_steps is not None and step % self._every_steps == 0
        return by_steps or time.monotonic() - self._saved_at >= self._every_seconds

    def save(self, state: Any, step: int, epoch: int, accuracy: float | None, notes: CheckpointNotes) -> None:
        """As `Checkpoints.save`; if the save before failed, says so and saves anew."""
        self._saved_at = time.monotonic()
        for _ in range(2):  # the first failure may be the save before's
            try:
                self._checkpoints.save(state, step, epoch, accuracy, notes)
                self.last_step = step
                return
            except SaveFailed as error:
                self._say(f"a checkpoint could not be saved ({error}); going on, and trying again")

    def finish(self) -> None:
        """Waits for the last save. Raises UserError if it failed."""
        try:
            self._checkpoints.wait()
        except SaveFailed as error:
            raise UserError(
                f"{self._checkpoints.directory}: the last checkpoint could not be saved ({error}); mend it, then --resume"
            ) from None


def saved_config(workdir: Path) -> Config:
    """The configuration of the run in `workdir`. Raises UserError if there is none."""
    path = workdir / "config.json"
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise UserError(f"{workdir}: holds no run (no readable config.json)") from None
    return from_dict(tree, str(path))


def holds_run(workdir: Path) -> bool:
    """Whether a run was started in `workdir`."""
    return (workdir / "config.json").exists() or (workdir / "checkpoints").exists()


def check_workdir(config: Config, workdir: Path, resume: bool) -> None:
    """Refuses to start anew over a run, or to continue a run of another configuration. Raises UserError."""
    if not holds_run(workdir):
        if resume:
            raise UserError(f"{workdir}: holds no run to resume")
        return
    if not resume:
        raise UserError(f"{workdir}: holds a run already; continue it with --resume, or choose another --workdir")
    old, new = flatten(saved_config(workdir).to_dict()), flatten(config.to_dict())
    different = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key) and key not in FREE_ON_RESUME)
    if different:
        shown = "; ".join(f"{key} was {old.get(key)}, is {new.get(key)}" for key in different[:3])
        more = f"; and {len(different) - 3} more" if len(different) > 3 else ""
        raise UserError(f"{workdir}: holds a run of another configuration: {shown}{more}")


def make_directory(workdir: Path) -> None:
    """Makes the work directory, and finds out whether it can be written to. Raises UserError."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        files.write_atomically(workdir / ".writable", "")
        (workdir / ".writable").unlink()
    except OSError as error:
        raise UserError(f"{workdir}: cannot be written to: {error.strerror}") from None


def read_step(
    dtype: str, sums: EpochSums, progress: console.Progress, saver: "Saver", epoch: int, metrics: Metrics, step: int
) -> None:
    """Fetches the metrics of update `step` (from 0), adds them up and shows them. Raises Diverged on a non-finite value."""
    found = {name: value.item() for name, value in jax.device_get(metrics).items()}
    # In float16 an overflow only skips the update, as long as a smaller scale may help.
    if not found["finite"] and (dtype != "float16" or found["loss_scale"] < 1.0):
        last = f"the last checkpoint is of step {saver.last_step}" if saver.last_step else "there is no checkpoint yet"
        since = step - sums.skipped_in_a_row
        steps = f"at step {step}" if since == step else f"at steps {since} to {step}"
        raise Diverged(
            f"no longer finite {steps}, in epoch {epoch}: loss {found['loss']:g}, gradient norm "
            f"{found['gradient_norm']:g} (a lower learning rate or a longer warm-up may help); {last}",
            saver.rollbacks,
        )
    sums.add(found)
    progress.advance(found["loss"])


def read_steps(read: Callable[[Metrics, int], None], pending: tuple[Metrics, int, int] | None) -> None:
    """Calls `read` with the metrics of each step of a call (metrics, first step, count), in order; waits for the device."""
    if pending is None:
        return
    metrics, first, count = pending
    found = jax.device_get(metrics)
    for index in range(count):
        read({name: values[index] for name, values in found.items()}, first + index)


def make_row(
    epoch: int,
    timeline: Timeline,
    sums: EpochSums,
    results: dict[str, dict[str, float]],
    speed: float,
    seconds: float,
) -> EpochRow:
    """The row of an epoch; the moving values are those that its last step used."""
    level = timeline.level_names[int(sums.last["augmentation"])]
    counted = max(sums.examples, 1)
    valid = results.get("valid", {})
    return EpochRow(
        epoch=epoch,
        step=epoch * timeline.steps_per_epoch,
        moving={name: shortest(sums.last[name]) for name in NUMERIC} | {"augmentation": level},
        train_loss=sums.loss / counted,
        train_accuracy=sums.correct / counted,
        valid_loss=valid.get("loss"),
        valid_accuracy=valid.get("accuracy"),
        test_loss=results["test"]["loss"],
        test_accuracy=results["test"]["accuracy"],
        skipped_steps=sums.skipped,
        seconds=round(seconds, 3),
        images_per_second=round(speed, 2),
    )


def epoch_line(row: EpochRow, epochs: int, best_on: str | None, seconds_left: float) -> str:
    """An epoch in one line; `best_on` names the split on which it is the best so far."""
    valid = "" if row.valid_accuracy is None else f"  valid {row.valid_accuracy:.2%}"
    skipped = f"  {row.skipped_steps} skipped" if row.skipped_steps else ""
    left = console.format_duration(seconds_left)
    best = f"  best on {SPLITS[best_on]}" if best_on else ""
    return (
        f"epoch {row.epoch:{len(str(epochs))}d}/{epochs}  loss {row.train_loss:.4f}  train {row.train_accuracy:.2%}"
        f"{valid}  test {row.test_accuracy:.2%}  rate {row.moving['learning_rate']:.6f}  {row.images_per_second:.0f} images/s"
        f"{skipped}  {left} left{best}"
    )


def draw(workdir: Path, rows: list[EpochRow], timeline: Timeline, judge: str) -> None:
    """Draws `curves.png` anew."""
    transitions = [(event.step / timeline.steps_per_epoch, f"{event.name}: {event.after}") for event in timeline.events()]
    best = best_row(rows, judge)
    title = f"{workdir.name}: best {SPLITS[judge]} accuracy {best.accuracy(judge):.2%} at epoch {best.epoch}"
    path = workdir / "curves.png"
    try:
        curves.draw_curves(path, rows, transitions, timeline.values, timeline.steps_per_epoch, title)
    except OSError as error:
        console.say(f"{path}: could not be drawn ({error.strerror}); going on")


def opening_lines(header: Header, config: Config, timeline: Timeline) -> list[str]:
    """What is about to run, in a few lines."""
    hardware, model = header.hardware, config.model
    chosen = "a hold-out" if header.best_chosen_on == "valid" else "the test set (the published way)"
    return [
        f"WideResNet-{model.depth}-{model.widen_factor}, {header.parameters:,} parameters, {header.precision}, on "
        f"{hardware['devices_used']} x {hardware['device']} ({hardware['platform']}, {hardware['cpu_cores']} CPU cores), "
        f"JAX {header.versions['jax']}",
        f"{config.data.name}: {header.train_examples:,} training images; best epoch chosen on {chosen}",
        f"{timeline.epochs} epochs of {timeline.steps_per_epoch} steps, batch {config.recipe.batch_size}, seed {config.seed}",
        *checks.report(checks.examine(config, timeline), config.silence),
    ]
