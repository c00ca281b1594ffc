"""Where a run begins that does not begin with random weights: at a checkpoint of another run, or with weights from elsewhere.

A branch goes on from another run's checkpoint: the same clock, state and records up to there, another recipe afterwards. A run
from weights begins at update 0, with a fresh optimiser. Both read their source as long as they have no checkpoint of their own.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from wrn_jax.config import datasets
from wrn_jax.config.agreement import changed_keys, first_differences
from wrn_jax.config.timeline import Timeline
from wrn_jax.data.normalisation import in_words
from wrn_jax.models import export_formats, weight_layouts
from wrn_jax.models.network import Network
from wrn_jax.runtime import devices
from wrn_jax.runtime.errors import UserError
from wrn_jax.training import average
from wrn_jax.training.checkpoints import Checkpoints, Saved, best_of, choose, leaf_shapes
from wrn_jax.training.optimizer import LossScale
from wrn_jax.training.records import EpochRow, Origin, epochs_without_better, finished_rows
from wrn_jax.training.setup import Setup
from wrn_jax.training.state import TrainState
from wrn_jax.training.workdir import check_checkpoints, check_digests, checkpoints_folder, saved_config, saved_origin

HEAD = "fc"
"""The part of the parameters that depends on the number of classes."""


@dataclasses.dataclass(frozen=True, eq=False)
class Beginning:
    """What a run without a checkpoint of its own begins with.

    Attributes:
      origin: where it is from, with the step; None: random weights.
      saved: the checkpoint that it goes on from; of step 0 where it begins.
      state: after `saved.step` updates.
      rows: of the epochs that are finished.
      to_save: what a branch keeps as its own checkpoints: this state, and that of the best epoch before it if it was kept.
      notes: what a reader must know of how it was read, in lines.
    """

    origin: Origin | None
    saved: Saved
    state: TrainState
    rows: list[EpochRow] = dataclasses.field(default_factory=list)
    to_save: list[tuple[Saved, TrainState]] = dataclasses.field(default_factory=list)
    notes: tuple[str, ...] = ()


def begin(setup: Setup, digests: Mapping[str, str], origin: Origin | None) -> Beginning:
    """The beginning of a run; `digests` are of the images here, see `loading.digests`. Raises UserError if it does not fit."""
    if origin is not None and origin.kind == "branch":
        return _branch(setup, origin, digests)
    state = jax.jit(setup.create_state, out_shardings=setup.shardings)(jax.random.key(setup.config.seed))
    beginning = Beginning(origin, Saved(step=0, epoch=0, accuracy=None), state)
    return beginning if origin is None else _with_weights(setup, origin, beginning)


def goes_on(key: str) -> bool:
    """Whether a branch has to have the value of a key that the run has which it begins at."""
    return key.startswith("data.") or key in ("model.depth", "model.widen_factor", "model.num_classes", "recipe.batch_size")


def _branch(setup: Setup, origin: Origin, digests: Mapping[str, str]) -> Beginning:
    """Goes on from another run's checkpoint, with the key and the compute type of `setup`."""
    workdir, timeline = Path(origin.source), setup.timeline
    config = saved_config(workdir)
    changes = changed_keys(config, setup.config)
    for key in changes:
        if goes_on(key):
            raise UserError(f"--branch-from {workdir}: {key} {changes[key]}; network, data and batch size go on as they were")

    def restored(saved: Saved) -> tuple[Saved, TrainState]:
        start_average = setup.config.optimizer.start_average
        state = checkpoints.restore_state(saved, setup.abstract_state, setup.shardings, start_average)
        key = jax.jit(lambda: jax.random.key(setup.config.seed), out_shardings=setup.shardings.key)()
        state = dataclasses.replace(state, key=key)
        if config.precision != setup.config.precision:
            scale = jax.device_put(LossScale.create(setup.network.dtype), setup.shardings.loss_scale)
            state = dataclasses.replace(state, loss_scale=scale)
        return saved, state

    with Checkpoints(checkpoints_folder(workdir, "--branch-from")) as checkpoints:
        there = checkpoints.all()
        check_checkpoints(there, workdir, config)
        saved = _where_it_began(there, origin, "--branch-from") or choose(there, origin.checkpoint, checkpoints.directory)
        check_digests(saved.metadata.get("data_digests") or {}, digests, str(checkpoints.directory / str(saved.step)))
        if saved.step >= timeline.steps:
            raise UserError(
                f"--branch-from {workdir}: {saved.step} updates are done at checkpoint {origin.checkpoint}, and the new recipe "
                f"has {timeline.steps} in all"
            )
        rows = finished_rows(workdir / "metrics.jsonl", config, Timeline.of(config), saved.epoch)
        check_patience(setup, rows, origin)
        best = best_of(other for other in there if other.step < saved.step)
        to_save = [restored(best)] if best else []
        to_save.append(restored(saved))
    agreed = min([_seamless_steps(workdir, saved), *first_differences(config, setup.config).values()])
    origin = dataclasses.replace(origin, step=saved.step, epoch=saved.epoch, agreed=agreed)
    return Beginning(origin, *to_save[-1], rows, to_save)


def check_patience(setup: Setup, rows: Sequence[EpochRow], origin: Origin) -> None:
    """Raises UserError for a branch that would stop early before its first update, by the epochs that it takes over."""
    patience, judge = setup.config.early_stopping_patience, "valid" if setup.config.data.validation_size else "test"
    since = epochs_without_better(rows, judge)
    if patience and since >= patience:
        raise UserError(
            f"--branch-from {origin.source}: the last {since} epochs there were no better than the one before them, and "
            f"early_stopping_patience = {patience} ends a run then; make it more than {since}, or none, or begin at another "
            "--checkpoint"
        )


def _where_it_began(there: Sequence[Saved], origin: Origin, option: str) -> Saved | None:
    """Of the other run's checkpoints the one of a run that begins again; None for one that begins. Raises UserError if it is
    gone."""
    if origin.step is None:
        return None
    if found := next((saved for saved in there if saved.step == origin.step), None):
        return found
    raise UserError(f"{option} {origin.source}: its checkpoint of step {origin.step}, where this run began, is gone")


def _seamless_steps(workdir: Path, saved: Saved) -> int:
    """The first updates of a run's checkpoint that are those of its recipe alone, from random weights on."""
    origin, steps = saved_origin(workdir), saved.step
    if saved.notes.rollbacks:  # the data came in another order from there on
        steps = min(saved.notes.back_to, default=0)
    if origin is not None and not origin.is_seamless:
        steps = min(steps, origin.agreed or 0)
    return steps


def _with_weights(setup: Setup, origin: Origin, beginning: Beginning) -> Beginning:
    """The beginning with the weights that `origin` names; the last layer stays as it was if it has another number of classes.

    Raises UserError where the weights cannot be read, or are of another network.
    """
    source, state, notes = Path(origin.source), beginning.state, []
    if source.is_dir():
        origin, params, stats = _weights_of_run(source, origin)
    elif origin.network:
        raise UserError(f"--network {origin.network}: {source} is a file, which holds one network")
    else:
        read = weight_layouts.read_weights(source)
        params, stats, notes = read.params, read.batch_stats, [*read.notes]
        wanted = export_formats.normalisation_of(read, str(source))
        here = setup.normalisation.mean, setup.normalisation.std
        if wanted and not np.allclose(wanted, here, atol=5e-5):
            notes.append(
                f"{source}: its weights were trained on images normalised with {in_words(*wanted)}; here it is with "
                f"{in_words(*here)}"
            )
    has, wants = leaf_shapes(params), leaf_shapes(state.params)
    unlike = [name for name in sorted(has.keys() | wants.keys()) if has.get(name) != wants.get(name)]
    other = [name for name in unlike if not name.startswith(f"{HEAD}.")]
    if other:
        name = other[0]
        raise UserError(
            f"--init-from {source}: {name} is {has.get(name, 'missing')}, but this network has {wants.get(name, 'none')}; set "
            "model.depth and model.widen_factor as they were there"
        )
    if unlike:
        params = params | {HEAD: state.params[HEAD]}
    place = lambda new, old: jax.device_put(np.asarray(new, np.float32), old.sharding)  # noqa: E731
    params, stats = jax.tree.map(place, (params, stats), (state.params, state.batch_stats))
    classes = (has[f"{HEAD}.bias"][0], wants[f"{HEAD}.bias"][0]) if unlike else None
    origin = dataclasses.replace(origin, classes=classes)
    averaged = None if state.average is None else average.init(params, stats)
    state = dataclasses.replace(state, params=params, batch_stats=stats, average=averaged)
    return dataclasses.replace(beginning, origin=origin, state=state, notes=tuple(notes))


def _weights_of_run(workdir: Path, origin: Origin) -> tuple[Origin, Any, Any]:
    """What `origin` names, found, and its parameters and statistics. Raises UserError."""
    config = saved_config(workdir)
    network = Network(config.model, datasets.info(config.data).num_classes, "float32")
    with Checkpoints(checkpoints_folder(workdir, "--init-from")) as checkpoints:
        there = checkpoints.all()
        check_checkpoints(there, workdir, config)
        where = devices.replicated(devices.make_mesh(1, jax.local_devices()))
        like = (network.params, network.batch_stats, where)
        if saved := _where_it_began(there, origin, "--init-from"):
            weights = checkpoints.restore_model(saved.step, *like, saved.choose_network(origin.network))
        else:
            saved, weights = checkpoints.restore_chosen(origin.checkpoint, *like, network=origin.network)
    which = saved.choose_network(origin.network) if saved.network == "average" else None
    return dataclasses.replace(origin, step=saved.step, epoch=saved.epoch, network=which), *jax.device_get(weights)
