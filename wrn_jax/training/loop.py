"""The story of a run, top to bottom: prepare, compile, and epoch by epoch train, evaluate, record and save."""

import contextlib
import dataclasses
import functools
import math
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from wrn_jax.config import Config, flatten
from wrn_jax.config.moving import MOVING
from wrn_jax.data import loading
from wrn_jax.evaluation import files as evaluation_files
from wrn_jax.evaluation.evaluator import Batches, Evaluator
from wrn_jax.runtime import allocator, console, devices, environment, files
from wrn_jax.runtime.errors import Diverged, Interrupted, UserError
from wrn_jax.runtime.signals import StopRequest
from wrn_jax.training import curves, origins
from wrn_jax.training.checkpoints import Checkpoints, Saved
from wrn_jax.training.messages import epoch_line, not_learning, opening_lines, to_go_on
from wrn_jax.training.records import (
    SPLITS,
    CheckpointNotes,
    EpochRow,
    EpochSums,
    Header,
    Origin,
    best_row,
    epochs_without_better,
    finished_rows,
    read_headers,
)
from wrn_jax.training.run_log import Hook, RunLog
from wrn_jax.training.saver import Saver
from wrn_jax.training.setup import Setup, make_setup
from wrn_jax.training.state import TrainState
from wrn_jax.training.step import Metrics, jit_train_steps, order_key
from wrn_jax.training.workdir import (
    changes_since,
    check_checkpoints,
    check_workdir,
    checkpoint_steps,
    saved_origin,
    taken,
    write_beginning,
)

CURVES_INTERVAL = 60.0
"""Least seconds between two drawings of the curves."""

Results = dict[str, dict[str, float]]
"""What the evaluator says of a network, by split."""

ADVICE = "a lower recipe.learning_rate, a longer warm-up or clipped gradients (optimizer.clip_norm) usually help; start anew"
"""To somebody whose run diverges wherever it begins."""


@dataclasses.dataclass(frozen=True)
class Summary:
    """How a run ended.

    Attributes:
      workdir: where everything lies.
      judge: the split that chose the best epoch, "valid" or "test".
      best, last: rows of these epochs.
      epochs_left: epochs after `last` that the recipe has; 0 for a run that is finished, early or not.
    """

    workdir: Path
    judge: str
    best: EpochRow
    last: EpochRow
    epochs_left: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Request:
    """What `train` is asked for, and what came of it so far.

    Attributes:
      config, workdir, resume, stop_after, origin, hook, branches: see `train`.
      rollbacks: how often the run went back to a checkpoint.
      back_to: the finished updates of those checkpoints.
    """

    config: Config
    workdir: Path
    resume: bool
    stop_after: int | None
    origin: Origin | None
    hook: Hook | None
    branches: Sequence[int]
    rollbacks: int = 0
    back_to: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class PlacedData:
    """The data set on the devices.

    Attributes:
      images, labels: [N, H * W * C] uint8 and [N] int32, the training images.
      splits: "valid", if there is a hold-out, and "test", as batches for the evaluator.
      digests: see `loading.digests`.
    """

    images: jax.Array
    labels: jax.Array
    splits: dict[str, Batches]
    digests: dict[str, str]

    @property
    def judge(self) -> str:
        """The split that chooses the best epoch."""
        return next(iter(self.splits))


@dataclasses.dataclass(eq=False)
class Attempt:
    """A run under way, from the checkpoint that it goes on from.

    Attributes:
      setup: what the configuration means on the devices.
      workdir: where everything goes.
      is_lead: whether this process is the one that prints and writes.
      say: prints a line, on the lead.
      data: on the devices.
      evaluator: for its splits.
      rollbacks: how often the run has gone back to a checkpoint.
      back_to: the finished updates of those checkpoints.
      saved: the checkpoint; of step 0 where there was none.
      state: the state after all updates so far.
      stop: whether to stop.
      saver, log: where checkpoints and records go.
      began, drawn: when the clock started and when the curves were last drawn, by `time.perf_counter`.
    """

    setup: Setup
    workdir: Path
    is_lead: bool
    say: Callable[[str], None]
    data: PlacedData
    evaluator: Evaluator
    rollbacks: int
    back_to: tuple[int, ...]
    saved: Saved
    state: TrainState
    stop: StopRequest
    saver: Saver
    log: RunLog
    began: float = 0.0
    drawn: float = 0.0

    def notes(self, sums: EpochSums | None = None, metrics: EpochRow | None = None) -> CheckpointNotes:
        """Those of a checkpoint within an epoch, with its `sums`, or after one, with its row."""
        return CheckpointNotes(rollbacks=self.rollbacks, back_to=self.back_to, sums=sums, metrics=metrics)


@dataclasses.dataclass(frozen=True, eq=False)
class Programs:
    """What is compiled before the clock starts. Compiled programs refuse other shapes: nothing compiles a second time.

    Attributes:
      order_of: from the number of an epoch to its order, [steps_per_epoch, B] int32.
      train_steps: see `step.repeat`; of plain (False) and of sharpness-aware (True) steps, as far as the run has them. A choice
        within one program would cost many times the step on a CPU.
    """

    order_of: Callable[[int], jax.Array]
    train_steps: dict[bool, Callable[..., tuple[TrainState, Metrics]]]


def train(
    config: Config,
    workdir: str | Path,
    resume: bool = False,
    stop_after: int | None = None,
    origin: Origin | None = None,
    hook: Hook | None = None,
    branches: Sequence[int] = (),
) -> Summary:
    """Trains the run that `config` describes, going back to a checkpoint when it diverges and the configuration says so.

    It goes back to the newest checkpoint that it has not gone back to before. One from which it diverges again is set aside:
    its numbers may be finite and the run beyond saving all the same.

    Args:
      config: the configuration.
      workdir: where records and checkpoints go; created when missing.
      resume: whether to continue the run in `workdir`.
      stop_after: the epoch (from 1) after which to end, to be resumed; None: the last.
      origin: where a run begins that is started and not resumed; None: with random weights.
      hook: of the records, see `RunLog`.
      branches: epochs after which other runs are to go on from this one, besides those of its starts before; see
        `Checkpoints`.

    Raises:
      UserError: something in configuration, data or work directory that the user can mend.
      Diverged: loss or gradient norm became non-finite.
      Interrupted: a signal came; everything is saved.
    """
    request = Request(config, files.user_path(workdir), resume, stop_after, origin, hook, branches)
    while True:
        try:
            return run(request)
        except Diverged as error:
            if config.on_nonfinite == "stop":
                raise
            own = error.rollbacks - devices.lead_says(rollbacks_taken_over(request.workdir))
            if own >= config.max_rollbacks:
                raise Diverged(f"{error}; gave up after {own} rollbacks; {ADVICE}") from None
            left = set(checkpoint_steps(request.workdir) or [0]) - set(error.back_to)
            target = devices.lead_says(max(left, default=-1))
            if target < 0:
                raise Diverged(f"{error}; the run went back there before, and nothing before it is left; {ADVICE}") from None
            rollbacks = error.rollbacks + 1
            # Those after it are set aside; what is saved there anew has not been tried.
            back_to = (*(step for step in error.back_to if step < target), target)
            request = dataclasses.replace(request, resume=True, rollbacks=rollbacks, back_to=back_to)
            where = f"step {target}" if target else "the beginning"
            how = f"with the data in another order (rollback {own + 1} of {config.max_rollbacks})"
            console.say(f"{error}; going back to {where}, {how}", active=jax.process_index() == 0)


def run(request: Request) -> Summary:
    """One attempt of `train`, from the last checkpoint, or the last gone back to, to the end."""
    workdir, stop_after = request.workdir, request.stop_after
    with contextlib.ExitStack() as to_close:
        attempt = prepare(request, to_close)
        done, epochs = attempt.saved.epoch, attempt.setup.timeline.epochs
        is_over = is_finished(attempt)
        if is_over or (stop_after and done >= stop_after):
            attempt.say("this run is finished already" if is_over else f"epoch {done} is finished already")
            close(attempt)  # it may have ended just before
            return summarise(attempt)
        programs = compile_programs(attempt)
        to_close.enter_context(attempt.stop)  # until here a signal ends the process: there is nothing new to save
        try:
            for epoch in range(done + 1, epochs + 1):
                sums = train_epoch(attempt, programs, epoch)
                finish_epoch(attempt, epoch, sums)
                if stopped_early(attempt):
                    judge = SPLITS[attempt.data.judge]
                    attempt.say(f"stopping early: no better {judge} accuracy in {patience(attempt)} epochs")
                    break
                if epoch == stop_after and epoch < epochs:
                    attempt.say(f"stopping after epoch {epoch} of {epochs}, as --stop-after asks; --resume goes on")
                    break
                signal = attempt.stop.received(epoch * attempt.setup.timeline.steps_per_epoch)
                if signal and epoch < epochs:
                    raise Interrupted(
                        f"{signal}: saved after epoch {epoch}; continue with --resume --workdir {to_go_on(workdir)}"
                    )
        except Interrupted:
            close(attempt)
            raise
        close(attempt)
        return summarise(attempt)


def prepare(request: Request, to_close: contextlib.ExitStack) -> Attempt:
    """Sets up, reads the data, restores the last checkpoint and opens the records. Raises UserError.

    What is opened is closed by `to_close`.
    """
    is_lead = jax.process_index() == 0
    say = functools.partial(console.say, active=is_lead)
    workdir, resume, origin, back_to = request.workdir, request.resume, request.origin, request.back_to
    setup = make_setup(request.config, devices.make_mesh(request.config.devices))
    config, timeline = setup.config, setup.timeline
    check_epochs(request, timeline.epochs)
    check_workdir(config, workdir, resume)
    headers = read_headers(workdir / "header.jsonl") if resume else []
    devices.wait_for_all("work directory checked")  # before the first process writes to it
    evaluator = setup.make_evaluator()
    data = place_data(setup, evaluator)
    begin = functools.partial(origins.begin, setup, data.digests)
    beginning = None if resume else begin(origin)  # before anything is written: what does not fit leaves nothing behind
    origin = beginning.origin if beginning else saved_origin(workdir)
    check = to_close.enter_context(taken(config, workdir, resume)) if is_lead else lambda: None

    keep = [epoch * timeline.steps_per_epoch for epoch in timeline.checkpoint_epochs]
    branches = sorted({*request.branches, *(epoch for header in headers for epoch in header.branches)})
    branched = [epoch * timeline.steps_per_epoch for epoch in branches]
    metadata = {"config": config.to_dict(), "versions": environment.versions(), "data_digests": data.digests}
    checkpoints = to_close.enter_context(Checkpoints(workdir / "checkpoints", keep, metadata, branched))
    checkpoints.remove_unfinished()
    check_checkpoints(checkpoints.all(), workdir, config, data.digests)
    newest = back_to[-1] if back_to else sys.maxsize
    saved, state, aside = checkpoints.restore_last(
        setup.abstract_state, setup.shardings, config.optimizer.start_average, newest
    )
    to_save: list[tuple[Saved, TrainState]] = []
    changes: list[str] = []
    if saved is None:
        beginning = beginning or begin(origin)
        origin, saved, state, rows = beginning.origin, beginning.saved, beginning.state, beginning.rows
        to_save, aside = beginning.to_save, [*aside, *beginning.notes]
        latest = saved.notes
    else:
        rows = finished_rows(workdir / "metrics.jsonl", config, timeline, saved.epoch)
        changes = changes_since(saved, workdir, config)
        latest = latest_notes(saved, headers)
    if saved.step != int(state.step):
        raise UserError(f"{checkpoints.directory / str(saved.step)}: holds the state after {int(state.step)} updates")
    # Wherever it is from, what the compiled step is called with has to lie as what it gives back.
    state = jax.device_put(state, setup.shardings)
    if is_lead:
        aside += evaluation_files.set_aside(workdir / "evaluations", saved.step)
    rollbacks, back_to = max(request.rollbacks, latest.rollbacks), back_to or latest.back_to
    header = make_header(setup, data, saved.step, rollbacks, back_to, origin, changes, branches)
    past = [event for event in timeline.events() if event.step < saved.step]
    if is_lead:
        write_beginning(config, workdir, resume, origin)
    log = to_close.enter_context(RunLog(workdir, header, rows, past, check, is_lead, flatten(config.to_dict()), request.hook))
    saver = Saver(checkpoints, log, saved.step, config.checkpoint_steps, config.checkpoint_minutes, say)
    for kept, its_state in to_save:  # the run can go on without the one that it branched from
        saver.save(its_state, kept.step, kept.epoch, kept.accuracy, kept.notes)
    for line in [*opening_lines(header, config, timeline), f"everything goes to {workdir}", *aside]:
        say(line)
    if resume:
        say(f"resuming at step {saved.step} of {timeline.steps}" if saved.step else "no checkpoint: starting anew")
    for line in changes:
        say(f"changed from here on: {line}")
    there = {*checkpoint_steps(workdir), *(kept.step for kept, _ in to_save)}
    for epoch, step in zip(branches, branched, strict=True):
        if step <= saved.step and step not in there:
            say(f"--branches-after {epoch}: that epoch is past, and its checkpoint is not there")
    return Attempt(
        setup=setup,
        workdir=workdir,
        is_lead=is_lead,
        say=say,
        data=data,
        evaluator=evaluator,
        rollbacks=rollbacks,
        back_to=back_to,
        saved=saved,
        state=state,
        stop=StopRequest(),
        saver=saver,
        log=log,
    )


def latest_notes(saved: Saved, headers: Sequence[Header]) -> CheckpointNotes | Header:
    """What says how often, and where to, the run had gone back when it last went on from this checkpoint of its own.

    A checkpoint knows only of those before it was saved, and the header of a start that went back to it of that as well.
    """
    starts = [header for header in headers if header.first_step == saved.step]
    return max([saved.notes, *starts], key=lambda notes: notes.rollbacks)


def rollbacks_taken_over(workdir: Path) -> int:
    """Of the rollbacks that a run counts, those of the run that it branched from: what it began with. Raises UserError."""
    return next((header.rollbacks for header in read_headers(workdir / "header.jsonl")), 0)


def check_epochs(request: Request, epochs: int) -> None:
    """Raises UserError for epochs of the request that a run of so many has not."""
    asked = [("--branches-after", epoch) for epoch in request.branches]
    if request.stop_after is not None:
        asked.append(("--stop-after", request.stop_after))
    for option, epoch in asked:
        if not 1 <= epoch <= epochs:
            raise UserError(f"{option} {epoch}: should be an epoch of the run, 1 to {epochs}")


def place_data(setup: Setup, evaluator: Evaluator) -> PlacedData:
    """Reads the data set and puts it on the devices. Raises UserError."""
    dataset = loading.load(setup.config.data)
    splits = {name: split for name, split in (("valid", dataset.valid), ("test", dataset.test)) if split is not None}
    batches = {name: evaluator.put(split) for name, split in splits.items()}
    flat = dataset.train.images.reshape(setup.num_train, -1)
    images, labels = devices.replicate((flat, dataset.train.labels), setup.mesh)
    return PlacedData(images, labels, batches, loading.digests(dataset))


def compile_programs(attempt: Attempt) -> Programs:
    """Compiles what the epochs call, and starts the clock."""
    setup, data = attempt.setup, attempt.data
    num_train, batch_size, rollbacks = setup.num_train, setup.config.recipe.batch_size, attempt.rollbacks
    timeline, aware = setup.timeline, setup.timeline.sharpness_aware_steps
    is_sure = len(timeline.sampled) == timeline.steps
    kinds = [kind for kind, count in ((False, timeline.steps - aware), (True, aware)) if count or (aware and not is_sure)]
    attempt.say(
        "compiling the training step ..." if len(kinds) == 1 else "compiling the plain and the sharpness-aware step ..."
    )
    begin = time.perf_counter()
    key = jax.random.key(setup.config.seed)
    order = jax.jit(
        lambda key, epoch: loading.epoch_order(order_key(key, rollbacks), epoch, num_train, batch_size),
        out_shardings=devices.replicated(setup.mesh),
    )
    example = (attempt.state, data.images, data.labels, order(key, np.int32(1)), np.int32(1))
    train_steps = {kind: jit_train_steps(setup, kind).lower(*example).compile() for kind in kinds}
    attempt.evaluator.compile(attempt.state.params, attempt.state.batch_stats, data.splits["test"])
    allocator.give_back()
    attempt.began = attempt.drawn = time.perf_counter()
    attempt.say(f"compiled in {console.format_duration(attempt.began - begin)}")
    return Programs(lambda epoch: order(key, np.int32(epoch)), train_steps)


def train_epoch(attempt: Attempt, programs: Programs, epoch: int) -> EpochSums:
    """Does the updates of an epoch, those after the checkpoint if it lies within. Raises Diverged, Interrupted."""
    setup, data, timeline, saver = attempt.setup, attempt.data, attempt.setup.timeline, attempt.saver
    step, end = (epoch - 1) * timeline.steps_per_epoch, epoch * timeline.steps_per_epoch
    sums = EpochSums()
    if attempt.saved.step > step:
        step, sums = attempt.saved.step, dataclasses.replace(attempt.saved.notes.sums or sums)
    order = programs.order_of(epoch)
    begin = time.perf_counter() - sums.seconds
    with console.Progress(f"epoch {epoch}/{timeline.epochs}", timeline.steps_per_epoch, "step", attempt.is_lead) as progress:
        progress.skip(step % timeline.steps_per_epoch)
        read = functools.partial(read_steps, attempt, epoch, sums, progress)
        unread = None
        while step < end:
            count = min(setup.steps_per_call, saver.steps_until_due(step), end - step)
            kinds = timeline.sharpness_aware(range(step, step + count)).tolist()
            # A call does steps of one kind.
            count = next((index for index, kind in enumerate(kinds) if kind != kinds[0]), count)
            announce_transitions(attempt, epoch, range(step, step + count))
            train_steps = programs.train_steps[kinds[0]]
            attempt.state, metrics = train_steps(attempt.state, data.images, data.labels, order, np.int32(count))
            # Reading the metrics of the call before, while this one runs, keeps the device busy.
            read(unread)
            unread = (metrics, range(step, step + count))
            signal = [attempt.stop.received(index) for index in unread[1]][-1]
            step += count
            if step < end and (signal or saver.is_due(step)):
                read(unread)
                unread = None
                sums.seconds = time.perf_counter() - begin
                saver.save(attempt.state, step, epoch - 1, None, attempt.notes(sums=sums))
            if signal and step < end:
                raise Interrupted(
                    f"{signal}: saved after step {step}; continue with --resume --workdir {to_go_on(attempt.workdir)}"
                )
        read(unread)
    sums.seconds = time.perf_counter() - begin
    return sums


def finish_epoch(attempt: Attempt, epoch: int, sums: EpochSums) -> None:
    """Evaluates, records, saves and tells. Raises Diverged, Interrupted."""
    timeline, state, judge = attempt.setup.timeline, attempt.state, attempt.data.judge
    begin, step = time.perf_counter(), epoch * timeline.steps_per_epoch
    try:
        results, raw_results = evaluate_epoch(attempt, epoch, sums)
    except Interrupted:  # the resumed run evaluates
        attempt.saver.save(state, step, epoch - 1, None, attempt.notes(sums=sums))
        raise
    if not math.isfinite(sum(result["loss"] for result in [*results.values(), *(raw_results or {}).values()])):
        text = f"the loss of the evaluation after epoch {epoch} is no longer finite"
        raise Diverged(text, attempt.rollbacks, attempt.back_to)

    # The saver records, then saves: a resumed run drops records that its checkpoint does not reach.
    row = make_row(attempt.setup, epoch, sums, results, sums.seconds + time.perf_counter() - begin, raw_results)
    attempt.log.epoch(row)
    attempt.saver.save(state, step, epoch, row.accuracy(judge), attempt.notes(metrics=row))

    per_step = (time.perf_counter() - attempt.began) / max(step - attempt.saved.step, 1)
    is_best = epochs_without_better(attempt.log.rows, judge) == 0
    attempt.say(epoch_line(row, timeline.epochs, judge if is_best else None, per_step * (timeline.steps - step)))
    if line := not_learning(attempt.log.rows, timeline, attempt.setup.dataset.num_classes):
        attempt.say(line)
    if time.perf_counter() - attempt.drawn > CURVES_INTERVAL:
        draw(attempt)
        attempt.drawn = time.perf_counter()


def evaluate_epoch(attempt: Attempt, epoch: int, sums: EpochSums) -> tuple[Results, Results | None]:
    """The results of the epoch, and in a run with a weight average those of the network itself. Raises Interrupted."""
    state, step = attempt.state, epoch * attempt.setup.timeline.steps_per_epoch

    def check() -> None:
        if signal := attempt.stop.pending():
            text = f"{signal}: saved after step {step}, before the evaluation of epoch {epoch}"
            raise Interrupted(f"{text}; continue with --resume --workdir {to_go_on(attempt.workdir)}")

    def evaluate(params: Any, batch_stats: Any) -> Results:
        splits = attempt.data.splits.items()
        return {name: attempt.evaluator(params, batch_stats, batches, check) for name, batches in splits}

    raw = evaluate(state.params, state.batch_stats)
    if state.average is None:
        return raw, None
    if sums.last["average_decay"] == 0:
        return raw, raw
    return evaluate(state.average["params"], state.average["batch_stats"]), raw


def close(attempt: Attempt) -> None:
    """Waits for the last save and draws what there is. Raises UserError if the save failed."""
    attempt.saver.finish()
    draw(attempt)


def summarise(attempt: Attempt) -> Summary:
    """How the run ended."""
    rows, judge = attempt.log.rows, attempt.data.judge
    left = 0 if stopped_early(attempt) else attempt.setup.timeline.epochs - len(rows)
    return Summary(attempt.workdir, judge, best_row(rows, judge), rows[-1], left)


def is_finished(attempt: Attempt) -> bool:
    """Whether no epoch is left."""
    return len(attempt.log.rows) == attempt.setup.timeline.epochs or stopped_early(attempt)


def stopped_early(attempt: Attempt) -> bool:
    """Whether the last epochs were no better than the one before them, and the configuration has the run end then."""
    return epochs_without_better(attempt.log.rows, attempt.data.judge) >= patience(attempt)


def patience(attempt: Attempt) -> int:
    """Epochs without a better one after which the run ends."""
    return attempt.setup.config.early_stopping_patience or sys.maxsize


def announce_transitions(attempt: Attempt, epoch: int, steps: range) -> None:
    """Says which phases begin at these updates (from 0)."""
    for step in steps:
        for event in attempt.setup.timeline.events_at(step):
            attempt.say(f"epoch {epoch}, step {step}: {event}")
            attempt.log.transition(event)


def read_steps(
    attempt: Attempt, epoch: int, sums: EpochSums, progress: console.Progress, unread: tuple[Metrics, range] | None
) -> None:
    """Fetches the metrics of a call, which did these updates; waits for the device. Raises Diverged."""
    if unread is None:
        return
    values = jax.device_get(unread[0])
    for index, step in enumerate(unread[1]):
        read_step(attempt, epoch, sums, progress, {name: rows[index].item() for name, rows in values.items()}, step)


def read_step(
    attempt: Attempt, epoch: int, sums: EpochSums, progress: console.Progress, metrics: dict[str, Any], step: int
) -> None:
    """Adds up and shows the metrics of update `step` (from 0). Raises Diverged on a non-finite value."""
    # In float16 an overflow only skips the update, as long as a smaller scale may help.
    if not metrics["finite"] and (attempt.setup.network.dtype != "float16" or metrics["loss_scale"] < 1.0):
        last = attempt.saver.last_step
        since = step - sums.skipped_in_a_row
        raise Diverged(
            f"no longer finite {f'at step {step}' if since == step else f'at steps {since} to {step}'}, in epoch {epoch}: "
            f"loss {metrics['loss']:g}, gradient norm {metrics['gradient_norm']:g} (a lower learning rate or a longer warm-up "
            f"may help); {f'the last checkpoint is of step {last}' if last else 'there is no checkpoint yet'}",
            attempt.rollbacks,
            attempt.back_to,
        )
    sums.add(metrics)
    progress.advance(note=f"loss {metrics['loss']:.3f}")


def make_row(
    setup: Setup,
    epoch: int,
    sums: EpochSums,
    results: Results,
    seconds: float,
    raw_results: Results | None = None,
) -> EpochRow:
    """The row of an epoch; the moving values are those that its last step used.

    With an average, `results` are of it once it has begun, and `raw_results` of the network itself.
    """
    timeline = setup.timeline
    counted = max(sums.examples, 1)
    valid = results.get("valid", {})
    of_network = {}
    if raw_results is not None:
        of_network["network"] = "average" if sums.last["average_decay"] > 0 else "raw"
        of_network |= {f"raw_{split}_{name}": of[name] for split, of in raw_results.items() for name in ("loss", "accuracy")}
    return EpochRow(
        epoch=epoch,
        step=epoch * timeline.steps_per_epoch,
        moving={name: timeline.written(name, sums.last[name]) for name in MOVING},
        train_loss=sums.loss / counted,
        train_accuracy=sums.correct / counted,
        valid_loss=valid.get("loss"),
        valid_accuracy=valid.get("accuracy"),
        test_loss=results["test"]["loss"],
        test_accuracy=results["test"]["accuracy"],
        skipped_steps=sums.skipped,
        seconds=round(seconds, 3),
        images_per_second=round(timeline.steps_per_epoch * setup.config.recipe.batch_size / sums.seconds, 2),
        **of_network,
    )


def draw(attempt: Attempt) -> None:
    """Draws `curves.png` anew, on the lead, once an epoch is finished."""
    timeline, rows, judge = attempt.setup.timeline, attempt.log.rows, attempt.data.judge
    if not attempt.is_lead or not rows:
        return
    best = best_row(rows, judge)
    transitions = [(event.step / timeline.steps_per_epoch, f"{event.name}: {event.after}") for event in timeline.events()]
    title = f"{attempt.workdir.name}: best {SPLITS[judge]} accuracy {best.accuracy(judge):.2%} at epoch {best.epoch}"
    path = attempt.workdir / "curves.png"
    try:
        curves.draw_curves(path, rows, transitions, timeline.values, timeline.edges, title)
    except Exception as error:  # whatever it is: a picture is a convenience
        attempt.say(f"{path}: could not be drawn ({files.reason(error)}); going on")


def make_header(
    setup: Setup,
    data: PlacedData,
    first_step: int,
    rollbacks: int,
    back_to: tuple[int, ...],
    origin: Origin | None,
    changes: Sequence[str],
    branches: Sequence[int],
) -> Header:
    """The header of a start that goes on from `first_step` finished updates; further arguments as in `Header`."""
    return Header(
        time=environment.now(),
        command=shlex.join(sys.argv),
        first_step=first_step,
        rollbacks=rollbacks,
        seed=setup.config.seed,
        precision=setup.network.dtype,
        best_chosen_on=data.judge,
        parameters=setup.network.num_parameters,
        train_examples=setup.num_train,
        steps_per_epoch=setup.timeline.steps_per_epoch,
        hardware=environment.hardware() | {"devices_used": setup.mesh.size},
        versions=environment.versions(),
        deterministic=devices.is_deterministic(),
        origin=origin,
        changes=list(changes),
        data_digests=data.digests,
        back_to=back_to,
        branches=tuple(branches),
    )
