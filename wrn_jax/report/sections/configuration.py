"""The configurations of the compared recipes side by side."""

from collections.abc import Callable, Sequence

from wrn_jax.config import datasets
from wrn_jax.config.moving import MOVING
from wrn_jax.config.schedules import beginnings, extremes
from wrn_jax.config.timeline import Timeline
from wrn_jax.report import formats, measures, published_runs
from wrn_jax.report.formats import NONE, NOT_RECORDED
from wrn_jax.report.render.blocks import Table
from wrn_jax.report.runs import Group, described, recipe_keys

_OWN_ROWS = {
    "model.depth": "network", "model.widen_factor": "network", "data.name": "data set",
    "data.validation_size": "training images",
    "recipe.batch_size": "batch size", "recipe.epochs": "epochs", "recipe.scale": "epochs",
    **{f"recipe.{name}": value.label for name, value in MOVING.items()},
    "recipe.checkpoint_epochs": "checkpoints kept after epochs", "optimizer.weight_decay": "weight decay (L2)",
    "optimizer.momentum": "momentum", "optimizer.clip_norm": "gradient clipping (global norm)", "precision": "precision",
    "early_stopping_patience": "early stopping, patience in epochs",
}  # fmt: skip
"""The row that shows a key, and the keys within it."""


def table(groups: Sequence[Group]) -> Table:
    """The configurations, what differs marked."""
    found = [[label, *cells] for label, cells in rows(groups)]
    different = frozenset(index for index, row in enumerate(found) if len(set(row[1:])) > 1)
    note = "What differs is marked." if len(groups) > 1 else ""
    return Table("Configuration side by side", ["setting", *[group.name for group in groups]], found, different, note)


def rows(groups: Sequence[Group]) -> list[tuple[str, list[str]]]:
    """(setting, value by recipe)."""

    def row(label: str, find: Callable[[Group], str]) -> tuple[str, list[str]]:
        return label, [NOT_RECORDED if group.config is None else find(group) for group in groups]

    moving = sorted(MOVING, key=lambda name: name == "learning_rate")  # whose row stands above those of its shape
    found = [
        row("network", lambda group: f"WideResNet-{group.config.model.depth}-{group.config.model.widen_factor}"),
        row("parameters", _parameters),
        row("data set", lambda group: group.config.data.name),
        row("training images", _training_images),
        row("batch size", lambda group: str(group.config.recipe.batch_size)),
        row("epochs", lambda group: str(group.timeline.epochs)),
        row("updates", lambda group: f"{group.timeline.steps:,}"),
        *[row(MOVING[name].label, lambda group, name=name: phases(group.timeline, name)) for name in moving],
        row("warm-up", _warm_up),
        row("highest rate", lambda group: formats.rate(_highest_rate(group.timeline))),
        row("highest rate after the warm-up", lambda group: formats.rate(measures.rate_cycle(group).peak_after)),
        row("new cycles of the rate", lambda group: f"{measures.rate_cycle(group).restarts}"),
    ]
    if measures.logs(groups):
        never = [phases(described(group.runs[0]), "learning_rate") if group.log else NONE for group in groups]
        found.append(("learning rate as published, which never ran", never))
    found += [
        row("weight decay (L2)", lambda group: f"{group.config.optimizer.weight_decay:g}"),
        row("momentum", lambda group: f"{group.config.optimizer.momentum:g}"),
        row("gradient clipping (global norm)", lambda group: _or_off(group.config.optimizer.clip_norm)),
        row("precision", lambda group: group.config.precision),
        row("early stopping, patience in epochs", lambda group: _or_off(group.config.early_stopping_patience)),
        ("best epoch chosen on", [formats.JUDGES[group.judge] for group in groups]),
        row("checkpoints kept after epochs", lambda group: ", ".join(map(str, group.timeline.checkpoint_epochs)) or "none"),
        ("seeds", [_seeds(group) for group in groups]),
    ]
    different = {label for label, cells in found if len(set(cells)) > 1}
    return found + _other_keys(groups, different)


def phases(timeline: Timeline, name: str) -> str:
    """The phases of a hyperparameter in one line, as in 0.3 -> 0.2 (epoch 51) -> 0.1 (epoch 81)."""
    events = [event for event in measures.transitions(timeline) if event.name == name]
    if not events:
        only = [event for event in timeline.phases() if event.name == name][-1].after
        return formats.setting(name, only) + ("" if " " in only else " (constant)")
    told = [f"{formats.setting(name, event.after)} ({formats.position(event.step, timeline)})" for event in events]
    return " -> ".join([formats.setting(name, events[0].before), *told])


def _parameters(group: Group) -> str:
    number = published_runs.NUM_PARAMETERS if group.log else next((header.parameters for header in group.runs[0].headers), None)
    return f"{number:,}" if number is not None else NOT_RECORDED


def _training_images(group: Group) -> str:
    data = group.config.data
    number = datasets.info(data).num_train
    held = f", {data.validation_size:,} more held out" if data.validation_size else ""
    return f"{number - data.validation_size:,}{held}"


def _warm_up(group: Group) -> str:
    found = measures.warm_up(group.timeline)
    if found is None:
        return "none"
    line, _ = found
    return f"{line.start:g} to {line.end:g} over {group.timeline.clock.stretch(line.over)}"


def _highest_rate(timeline: Timeline) -> float:
    """As the recipe gives it: the updates of a warm-up may stop one short of its end."""
    return max(extremes(piece)[1] for _, piece in beginnings(timeline.recipe.learning_rate, timeline.clock))


def _or_off(value: float | None) -> str:
    return "off" if value is None else f"{value:g}"


def _seeds(group: Group) -> str:
    return ", ".join(str(run.seed) for run in group.runs if run.seed is not None) or NOT_RECORDED


def _other_keys(groups: Sequence[Group], different: set[str]) -> list[tuple[str, list[str]]]:
    """The keys that differ where no row does; of augmentation levels those that all recipes use."""
    by_group = [None if group.config is None else recipe_keys(group.runs[0]) for group in groups]
    known = [keys for keys in by_group if keys is not None]
    rows = []
    for key in sorted(set().union(*known)):
        owner = next((label for owned, label in _OWN_ROWS.items() if f"{key}.".startswith(f"{owned}.")), None)
        unused = key.startswith("augmentation_levels.") and not all(key in keys for keys in known)
        if owner not in different and not unused and any(keys.get(key) != known[0].get(key) for keys in known):
            rows.append((key, [NOT_RECORDED if keys is None else str(keys.get(key, NONE)) for keys in by_group]))
    return rows
