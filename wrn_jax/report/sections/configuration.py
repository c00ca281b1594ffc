"""The configurations of the compared recipes side by side."""

from collections.abc import Callable, Sequence

from wrn_jax.config import Config, Data, datasets
from wrn_jax.config.levels import in_words
from wrn_jax.config.moving import MOVING
from wrn_jax.config.schedules import extremes
from wrn_jax.config.timeline import Timeline
from wrn_jax.report import formats, measures, published_runs
from wrn_jax.report.formats import NONE, NOT_RECORDED
from wrn_jax.report.render.blocks import Table
from wrn_jax.report.runs import Group, described, recipe_keys

_OWN_ROWS = {
    "model.depth": "network", "model.widen_factor": "network", "data.name": "data set",
    "data.validation_size": "training images",
    "recipe.batch_size": "batch size", "recipe.epochs": "epochs", "recipe.scale": "epochs",
    **{value.key: value.label for value in MOVING.values()},
    "recipe.checkpoint_epochs": "checkpoints kept after epochs", "optimizer.clip_norm": "gradient clipping (global norm)",
    "optimizer.nesterov": "Nesterov", "optimizer.decay": "L2 decays",
    "optimizer.sam_group": "SAM groups", "optimizer.sam_adaptive": "SAM adaptive", "optimizer.sam_every": "SAM every",
    "precision": "precision",
    "early_stopping_patience": "early stopping, patience in epochs",
}  # fmt: skip
"""The row that shows a key, and the keys within it."""


def table(groups: Sequence[Group]) -> Table:
    """The configurations, what differs marked."""
    rows = _rows(groups)
    rows += _other_keys(groups, {label for label, *cells in rows if len(set(cells)) > 1})
    different = frozenset(index for index, (_, *cells) in enumerate(rows) if len(set(cells)) > 1)
    note = "What differs is marked." if len(groups) > 1 else ""
    return Table("Configuration side by side", ["setting", *[group.name for group in groups]], rows, different, note)


def _rows(groups: Sequence[Group]) -> list[list[str]]:
    """The setting and its value in each recipe."""

    def row(label: str, find: Callable[[Config, Timeline], str]) -> list[str]:
        known = [(group.config, group.timeline) for group in groups]
        return [label, *(NOT_RECORDED if config is None or plan is None else find(config, plan) for config, plan in known)]

    def moving(name: str) -> list[str]:
        return row(MOVING[name].label, lambda _, plan: phases(plan, name))

    def level(name: str) -> list[str]:
        return row(_level_label(name), lambda _, plan: in_words(plan.levels[name]) if name in plan.levels else NONE)

    def sharpness(label: str, find: Callable[[Config], str]) -> list[str]:
        return row(label, lambda config, plan: find(config) if plan.uses("sam_rho") else NONE)

    def of_cycle(label: str, find: Callable[[measures.RateCycle], str]) -> list[str]:
        return [label, *(NOT_RECORDED if cycle is None else find(cycle) for cycle in map(measures.rate_cycle, groups))]

    plans = [group.timeline for group in groups if group.timeline is not None]
    details = {
        "augmentation": [level(name) for name in dict.fromkeys(name for plan in plans for name in plan.levels)],
        "sam_rho": [
            sharpness("SAM groups", lambda config: config.optimizer.sam_perturbs),
            sharpness("SAM adaptive", lambda config: _yes_or_no(config.optimizer.sam_adaptive)),
            sharpness("SAM every", lambda config: formats.count(config.optimizer.sam_every, "update")),
        ]
        if any(plan.uses("sam_rho") for plan in plans)
        else [],
    }
    others = [name for name in measures.shown(groups) if name not in ("learning_rate", "weight_decay", "momentum")]
    as_published = [phases(described(group.log), "learning_rate") if group.log else NONE for group in groups]
    published = [["learning rate as published, which never ran", *as_published]]
    return [
        row("network", lambda config, _: config.model.title),
        ["parameters", *map(_parameters, groups)],
        row("data set", lambda config, _: config.data.name),
        row("training images", lambda config, _: _training_images(config.data)),
        row("batch size", lambda config, _: str(config.recipe.batch_size)),
        row("epochs", lambda _, plan: str(plan.epochs)),
        row("updates", lambda _, plan: f"{plan.steps:,}"),
        *(line for name in others for line in [moving(name), *details.get(name, [])]),
        moving("learning_rate"),
        row("warm-up", lambda _, plan: _warm_up(plan)),
        row("highest rate", lambda _, plan: formats.rate(_highest_rate(plan))),
        of_cycle("highest rate after the warm-up", lambda cycle: formats.rate(cycle.peak_after)),
        of_cycle("new cycles of the rate", lambda cycle: str(cycle.restarts)),
        *(published if measures.logs(groups) else []),
        moving("weight_decay"),
        row("L2 decays", lambda config, _: config.optimizer.decays),
        moving("momentum"),
        row("Nesterov", lambda config, _: _yes_or_no(config.optimizer.nesterov)),
        row("gradient clipping (global norm)", lambda config, _: _or_off(config.optimizer.clip_norm)),
        row("precision", lambda config, _: config.precision),
        row("early stopping, patience in epochs", lambda config, _: _or_off(config.early_stopping_patience)),
        ["best epoch chosen on", *(formats.JUDGES[group.judge] for group in groups)],
        row("checkpoints kept after epochs", lambda _, plan: ", ".join(map(str, plan.checkpoint_epochs)) or "none"),
        ["seeds", *map(_seeds, groups)],
    ]


def phases(timeline: Timeline, name: str) -> str:
    """The phases of a hyperparameter in one line, as in 0.3 -> 0.2 (epoch 51) -> 0.1 (epoch 81)."""
    events = [event for event in measures.transitions(timeline) if event.name == name]
    if not events:
        only = timeline.phases([name])[-1].after
        return formats.setting(name, only) + ("" if " " in only or MOVING[name].optional else " (constant)")
    changes = [f"{formats.setting(name, event.after)} ({formats.position(event.step, timeline)})" for event in events]
    return " -> ".join([formats.setting(name, events[0].before), *changes])


def _parameters(group: Group) -> str:
    number = published_runs.NUM_PARAMETERS if group.log else next((header.parameters for header in group.runs[0].headers), None)
    return f"{number:,}" if number is not None else NOT_RECORDED


def _training_images(data: Data) -> str:
    number = datasets.info(data).num_train
    held = f", {data.validation_size:,} more held out" if data.validation_size else ""
    return f"{number - data.validation_size:,}{held}"


def _warm_up(timeline: Timeline) -> str:
    line, _ = measures.warm_up(timeline) or (None, 0)
    return "none" if line is None else f"{line.start:g} to {line.end:g} over {timeline.clock.stretch(line.over)}"


def _highest_rate(timeline: Timeline) -> float:
    """As the recipe gives it: the updates of a warm-up may stop one short of its end."""
    return max(extremes(piece)[1] for _, piece in timeline.beginnings("learning_rate"))


def _or_off(value: float | None) -> str:
    return "off" if value is None else f"{value:g}"


def _yes_or_no(value: bool) -> str:
    return "yes" if value else "no"


def _level_label(name: str) -> str:
    return f"augmentation level {name}"


def _seeds(group: Group) -> str:
    return ", ".join(str(run.seed) for run in group.runs if run.seed is not None) or NOT_RECORDED


def _owner(key: str) -> str | None:
    """The row that shows a key, if one does."""
    if key.startswith("augmentation_levels."):
        return _level_label(key.split(".")[1])
    return next((label for owned, label in _OWN_ROWS.items() if f"{key}.".startswith(f"{owned}.")), None)


def _other_keys(groups: Sequence[Group], different: set[str]) -> list[list[str]]:
    """The keys that differ where no row does; of augmentation levels those that all recipes use."""
    by_group = [None if group.config is None else recipe_keys(group.config) for group in groups]
    known = [keys for keys in by_group if keys is not None]
    rows = []
    for key in sorted(set().union(*known)):
        unused = key.startswith("augmentation_levels.") and not all(key in keys for keys in known)
        if _owner(key) not in different and not unused and any(keys.get(key) != known[0].get(key) for keys in known):
            rows.append([key, *(NOT_RECORDED if keys is None else str(keys.get(key, NONE)) for keys in by_group)])
    return rows
