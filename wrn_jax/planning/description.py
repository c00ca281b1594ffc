"""What a plan prints of one recipe: its length, its phases, its values, its costs, and what is likely wrong with it."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wrn_jax.config import Config, checks
from wrn_jax.config.checks import Finding
from wrn_jax.config.moving import NUMERIC
from wrn_jax.config.timeline import Timeline, epoch_text, shortest
from wrn_jax.planning import cost
from wrn_jax.runtime import console, devices
from wrn_jax.training.setup import Setup, make_setup

BARS = " ▁▂▃▄▅▆▇█"


@dataclasses.dataclass(frozen=True)
class Plan:
    """A recipe and what follows from it without training: its file, what it says, changed by the command line, the set-up of
    its run on one device, and what is likely wrong with it."""

    path: Path
    config: Config
    setup: Setup
    findings: list[Finding]

    @property
    def timeline(self) -> Timeline:
        """The recipe on the clock of the run."""
        return self.setup.timeline


def make_plan(path: Path, written: Config, config: Config) -> Plan:
    """Plans the run of a configuration, read from `path` and then changed. Raises UserError."""
    setup = make_setup(config, devices.make_mesh(1))
    return Plan(path, config, setup, checks.examine(config, setup.timeline, written))


def labels(plans: Sequence[Plan]) -> list[str]:
    """What the recipes are called in headings."""
    if len(plans) == 1:
        return [plans[0].path.stem]
    return [f"{letter}: {plan.path.stem[:40]}" for letter, plan in zip("AB", plans, strict=True)]


def describe(plan: Plan) -> list[str]:
    """One recipe: its length, its phases, its values, its costs, and what is likely wrong with it."""
    config, timeline = plan.config, plan.timeline
    return [
        f"{plan.path}: {config.data.name}, {plan.setup.num_train:,} training images, batch {config.recipe.batch_size}",
        *describe_length(config, timeline),
        *console.wrapped("optimiser: ", describe_optimizer(config, timeline)),
        "",
        *transition_table(timeline),
        "",
        *sparklines(timeline),
        "",
        *cost_lines(plan.setup),
        "",
        *checks.report(plan.findings, config.silence),
    ]


def describe_length(config: Config, timeline: Timeline) -> list[str]:
    """The length of the run, how it was scaled, and what is kept of it."""
    line = f"{timeline.epochs} epochs of {timeline.steps_per_epoch} steps: {timeline.steps:,} updates"
    if timeline.epochs != config.recipe.epochs:
        line += f"; {config.recipe.epochs} epochs as written, scaled by {timeline.clock.scale:g}"
    kept = ", ".join(map(str, timeline.checkpoint_epochs)) or "none"
    held_out = config.data.validation_size
    judge = f"a hold-out of {held_out:,} training images" if held_out else "the test set (the published way, which flatters it)"
    looked_at = len(timeline.sampled)
    return [
        line,
        *([f"values are looked at in {looked_at:,} of them; shorter cycles may be missed"] * (looked_at < timeline.steps)),
        *console.wrapped("checkpoints kept for good after epochs: ", f"{kept}; and the best and the last two"),
        f"best epoch chosen on {judge}",
    ]


def describe_optimizer(config: Config, timeline: Timeline) -> str:
    """The optimiser, as in SGD, Nesterov momentum 0.9, L2 0.0005 on all parameters, clip to norm 5."""
    options = config.optimizer
    momentum = f"momentum {_course(timeline, 'momentum')}" if timeline.uses("momentum") else "no momentum"
    decay = f"L2 {_course(timeline, 'weight_decay')} on {options.decays}" if timeline.uses("weight_decay") else "no L2"
    clip = "no clipping" if options.clip_norm is None else f"clip to norm {options.clip_norm:g}"
    nesterov = "Nesterov " if options.nesterov and timeline.uses("momentum") else ""
    return f"SGD, {nesterov}{momentum}, {decay}, {clip}"


def _course(timeline: Timeline, name: str) -> str:
    """The one value of a run, or that it moves, as in that moves (0.85 to 0.95)."""
    low, high = (shortest(end) for end in (timeline.values[name].min(), timeline.values[name].max()))
    return f"{low:g}" if low == high else f"that moves ({low:g} to {high:g})"


def transition_table(timeline: Timeline) -> list[str]:
    """The phases as a table: when, what, value."""
    rows = [("epoch", "step", "hyperparameter", "value")]
    for event in timeline.phases():
        rows.append((epoch_text(event.step / timeline.steps_per_epoch + 1), str(event.step), event.name, event.after))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"{a:>{widths[0]}}  {b:>{widths[1]}}  {c:<{widths[2]}}  {d}" for a, b, c, d in rows]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def sparklines(timeline: Timeline, width: int = 80) -> list[str]:
    """Every moving value over the run as one line of bars, each from 0 to its maximum."""
    names = [name for name in timeline.shown if name in NUMERIC]
    column = max(map(len, names))
    return [f"{name:<{column}} {bars(timeline.values[name], width)}" for name in names]


def bars(values: np.ndarray, width: int = 80, top: float | None = None) -> str:
    """The means of `width` stretches as bars from 0 to `top`, by default the maximum; what is not 0 has a bar."""
    top = float(values.max()) if top is None else top
    means = [float(part.mean()) for part in np.array_split(values, min(width, len(values)))]
    heights = [max(1, round(mean / top * 8)) if mean > 0 else 0 for mean in means]
    return f"{''.join(BARS[height] for height in heights)}  0 to {top:.4g}"


def cost_lines(setup: Setup) -> list[str]:
    """Parameters, operations per image, and the memory of the state."""
    forward = cost.forward_operations(setup.network, setup.dataset.image_shape)
    parameters = setup.network.num_parameters
    has_average = setup.abstract_state.average is not None
    average = ", average of parameters and statistics" if has_average else ""
    rule = "weight average: with n updates since it began min(average_decay, (1 + n) / (10 + n)); it is what is evaluated"
    return [
        f"{setup.config.model.title}: {parameters:,} parameters",
        f"operations per image: {forward / 1e9:.3f} G forward, {3 * forward / 1e9:.3f} G in training",
        "  (multiplications and additions of convolutions and linear layer; backward counted as twice forward)",
        f"operations of the whole run: {cost.run_operations(setup):.3g}",
        *sharpness_lines(setup),
        *([rule] * has_average),
        *console.wrapped(
            "memory of the state ",
            f"(parameters, momentum, statistics{average}; float32): "
            f"{cost.state_bytes(setup.abstract_state) / 2**20:.1f} MiB, gradients {4 * parameters / 2**20:.1f} MiB more",
        ),
    ]


def sharpness_lines(setup: Setup) -> list[str]:
    """How much of the run is sharpness-aware, and what was decided about it; none if nothing is."""
    timeline, options = setup.timeline, setup.config.optimizer
    steps = timeline.sharpness_aware_steps
    if not steps:
        return []
    every = f", every {options.sam_every} updates" if options.sam_every > 1 else ""
    share = f"{steps:,} of {timeline.steps:,} updates ({steps / timeline.steps:.1%})"
    kind = "adaptive (ASAM, eta 0)" if options.sam_adaptive else "SAM"
    return [
        f"{kind} by {options.sam_perturbs}{every}: {share} take two gradients",
        "  (one program for each kind of step; L2 is no part of what perturbs; statistics, loss and accuracy are those of the",
        "  first pass; the same images and dropout masks in both; the clip acts on the average of the second gradients)",
    ]
