"""Shows recipes without training, and says what is likely wrong with them.

    python -m wrn_jax.plan configs/session04.py
    python -m wrn_jax.plan configs/session02.py configs/session04.py

Of two recipes, A and B, it shows first where they differ.
"""

import csv
import dataclasses
import itertools
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from wrn_jax import command
from wrn_jax import config as configs
from wrn_jax.config import Config, checks, datasets
from wrn_jax.config.checks import WIDTH, Finding
from wrn_jax.config.moving import MOVING, NUMERIC
from wrn_jax.config.schedules import beginnings
from wrn_jax.config.timeline import Timeline, shortest
from wrn_jax.models.network import Network
from wrn_jax.planning.plot import draw_recipe
from wrn_jax.runtime.errors import UserError
from wrn_jax.training.optimizer import make_optimizer
from wrn_jax.training.state import create_state

BARS = " ▁▂▃▄▅▆▇█"


@dataclasses.dataclass(frozen=True)
class Plan:
    """A recipe and what follows from it without training.

    Attributes:
      path: the configuration file.
      config: what it says, changed by the command line.
      num_train: training images after the hold-out.
      timeline: the recipe on the clock of the run.
      network: the network, in float32.
      findings: what the doctor finds.
    """

    path: Path
    config: Config
    num_train: int
    timeline: Timeline
    network: Network
    findings: list[Finding]


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the plan of a run, or of two side by side, and writes what was asked for.

    Raises:
      UserError: a mistake in the arguments or a configuration, or a file that cannot be written.
      SystemExit: with code 1, if --strict was given and there are findings that are not silenced.
    """
    made = command.parser("plan", "Shows what a recipe will do, or two side by side, without training.", with_keys=True)
    made.epilog = f"{checks.explain()}\n\n{made.epilog}"
    made.add_argument("files", nargs="*", type=Path, metavar="FILE", help="one or two configuration files, as --config")
    made.add_argument("--csv", type=Path, metavar="FILE", help="write one row per epoch")
    made.add_argument("--plot", type=Path, metavar="FILE", help="draw the moving values as PNG")
    made.add_argument("--strict", action="store_true", help="exit with 1 if there is a finding that is not silenced")
    options, overrides = command.parse(made, argv)
    files = [*([options.config] if options.config is not None else []), *options.files]
    if not files:
        raise UserError("--config FILE is missing, for example --config configs/session04.py")
    if len(files) > 2:
        raise UserError(f"{len(files)} configuration files: expected one, or two to be shown side by side")
    plans = [make_plan(path, overrides) for path in files]
    if len(plans) == 2:
        between = checks.batch_without_rate(plans[1].config, plans[0].config, "A has")
        plans[1] = dataclasses.replace(plans[1], findings=[*plans[1].findings, *between])
    print("\n".join(describe(plans[0]) if len(plans) == 1 else describe_two(*plans)))
    try:
        if options.csv is not None:
            write_csv(options.csv, [plan.timeline for plan in plans])
            print(f"wrote {options.csv}")
        if options.plot is not None:
            drawn = {label: plan.timeline for label, plan in zip(labels(plans), plans, strict=True)}
            draw_recipe(options.plot, drawn, str(files[0]) if len(plans) == 1 else "")
            print(f"wrote {options.plot}")
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be written: {error.strerror}") from None
    if options.strict and any(checks.loud(plan.findings, plan.config.silence) for plan in plans):
        sys.exit(1)


def make_plan(path: Path, overrides: Sequence[str]) -> Plan:
    """Reads a configuration and plans its run. Raises UserError."""
    written = configs.load_file(path)
    config = configs.apply_arguments(written, overrides)
    num_train, num_classes = datasets.planned_sizes(config.data)
    timeline = Timeline.of(config)
    network = Network(config.model, num_classes, "float32")  # no device is asked: a plan may run beside a training
    return Plan(path, config, num_train, timeline, network, checks.examine(config, timeline, written))


def labels(plans: Sequence[Plan]) -> list[str]:
    """What the recipes are called in headings."""
    if len(plans) == 1:
        return [plans[0].path.stem]
    return [f"{letter}: {plan.path.stem[:40]}" for letter, plan in zip("AB", plans, strict=True)]


def describe(plan: Plan) -> list[str]:
    """One recipe: its length, its phases, its values, its costs, and what is likely wrong with it."""
    config, timeline = plan.config, plan.timeline
    return [
        f"{plan.path}: {config.data.name}, {plan.num_train:,} training images, batch {config.recipe.batch_size}",
        *describe_length(config, timeline),
        "",
        *transition_table(timeline),
        "",
        *sparklines(timeline),
        "",
        *cost_lines(config, plan.network, timeline),
        "",
        *checks.report(plan.findings, config.silence),
    ]


def describe_length(config: Config, timeline: Timeline) -> list[str]:
    """The length of the run, how it was scaled, and what is kept of it."""
    line = f"{timeline.epochs} epochs of {timeline.steps_per_epoch} steps: {timeline.steps:,} updates"
    if timeline.epochs != config.recipe.epochs:
        line += f"; {config.recipe.epochs} epochs as written, scaled by {timeline.clock.scale:g}"
    kept = ", ".join(str(epoch) for epoch in timeline.checkpoint_epochs) or "none"
    held_out = config.data.validation_size
    judge = f"a hold-out of {held_out:,} training images" if held_out else "the test set (the published way, which flatters it)"
    return [
        line,
        *checks.wrapped("checkpoints kept for good after epochs: ", f"{kept}; and the best and the last two"),
        f"best epoch chosen on {judge}",
    ]


def transition_table(timeline: Timeline) -> list[str]:
    """The phases as a table: when, what, value."""
    rows = [("epoch", "step", "hyperparameter", "value")]
    for event in timeline.phases():
        rows.append((f"{event.step / timeline.steps_per_epoch + 1:.4g}", str(event.step), event.name, event.after))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"{a:>{widths[0]}}  {b:>{widths[1]}}  {c:<{widths[2]}}  {d}" for a, b, c, d in rows]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def sparklines(timeline: Timeline, width: int = 80) -> list[str]:
    """Every moving value over the run as one line of bars, each from 0 to its maximum."""
    return [f"{name:<15} {bars(timeline.values[name], width)}" for name in NUMERIC]


def bars(values: np.ndarray, width: int = 80, top: float | None = None) -> str:
    """The means of `width` stretches as bars from 0 to `top`, by default the maximum; what is not 0 has a bar."""
    top = float(values.max()) if top is None else top
    means = [float(part.mean()) for part in np.array_split(values, min(width, len(values)))]
    heights = [max(1, round(mean / top * 8)) if mean > 0 else 0 for mean in means]
    return f"{''.join(BARS[height] for height in heights)}  0 to {top:.4g}"


def cost_lines(config: Config, network: Network, timeline: Timeline) -> list[str]:
    """Parameters, operations per image, and the memory of the state."""
    forward = forward_operations(network)
    total = run_operations(config, network, timeline)
    optimizer = make_optimizer(config.optimizer)
    state = jax.eval_shape(lambda key: create_state(network, optimizer, key), jax.random.key(0))
    state_bytes = sum(_bytes(leaf) for leaf in jax.tree.leaves(state))
    model = config.model
    return [
        f"WideResNet-{model.depth}-{model.widen_factor}: {network.num_parameters:,} parameters",
        f"operations per image: {forward / 1e9:.3f} G forward, {3 * forward / 1e9:.3f} G in training",
        "  (multiplications and additions of convolutions and linear layer; backward counted as twice forward)",
        f"operations of the whole run: {total:.3g}",
        f"memory of the state (parameters, momentum, statistics; float32): {state_bytes / 2**20:.1f} MiB, "
        f"gradients {4 * network.num_parameters / 2**20:.1f} MiB more",
    ]


def run_operations(config: Config, network: Network, timeline: Timeline) -> int:
    """Operations of all updates of a run, the backward pass counted as twice the forward pass."""
    return 3 * forward_operations(network) * timeline.steps * config.recipe.batch_size


def _bytes(leaf: Any) -> int:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.eval_shape(jax.random.key_data, leaf).size * 4
    return leaf.size * leaf.dtype.itemsize


def forward_operations(network: Network) -> int:
    """Operations of one image's forward pass in convolutions and matrix products, a multiplication and an addition each.

    Counted from the traced program, so it is right for every depth, width and number of classes.
    """

    def forward(params, stats, images):
        return nnx.merge(network.graphdef, params, stats)(images)

    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    return _count(jax.make_jaxpr(forward)(network.params, network.batch_stats, image).jaxpr)


def _count(jaxpr: Any) -> int:
    total = 0
    for equation in jaxpr.eqns:
        # The ways that a platform may take stand beside each other; the plain one has the most operations.
        total += max((_count(branch.jaxpr) for branch in equation.params.get("branches", ())), default=0)
        for parameter in equation.params.values():
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                total += _count(inner)
        shapes = [variable.aval.shape for variable in equation.invars]
        output = equation.outvars[0].aval.shape
        if equation.primitive.name == "conv_general_dilated":
            total += 2 * int(np.prod(output)) * int(np.prod(shapes[1][:-1]) if len(shapes[1]) else 1)
        elif equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            total += 2 * int(np.prod(output)) * int(np.prod([shapes[0][axis] for axis in contracted]))
    return total


def describe_two(a: Plan, b: Plan) -> list[str]:
    """Two recipes side by side: where they differ, what is likely wrong with each, and in brief what they share."""
    names = labels([a, b])
    different, shared = compare_keys(a, b)
    lines = [
        *(f"{letter}: {plan.path}: {describe_length(plan.config, plan.timeline)[0]}" for letter, plan in (("A", a), ("B", b))),
        "",
        *(table([("different", *names), *different]) if different else ["different: no key"]),
        "",
    ]
    for name in MOVING:
        if phase_texts(a.timeline, name) != phase_texts(b.timeline, name):
            lines += [*phases_of_two(a.timeline, b.timeline, name, names), ""]
    ranges = differing_values(a.timeline, b.timeline)
    unit = "epochs" if a.timeline.epochs == b.timeline.epochs else "% of run"
    if ranges:
        lines += [*table([("different values", unit, *names), *ranges]), ""]
    elif unit != "epochs":
        lines += ["different values: none, where both runs have come equally far", ""]
    for name, plan in zip(names, (a, b), strict=True):
        head, *rest = checks.report(plan.findings, plan.config.silence)
        lines += [f"{name}: {head}", *rest, ""]
    return lines + checks.wrapped("in both: ", "; ".join(shared))


def table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows as aligned columns, the first as heading; where a line would be too wide, the widest cells are wrapped."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    while sum(widths) + 2 * (len(widths) - 1) > WIDTH:
        widths[widths.index(max(widths))] -= 1
    lines = []
    for row in rows:
        cells = [textwrap.wrap(cell, width, break_on_hyphens=False) for cell, width in zip(row, widths, strict=True)]
        for parts in itertools.zip_longest(*cells, fillvalue=""):
            lines.append("  ".join(f"{part:<{width}}" for part, width in zip(parts, widths, strict=True)).rstrip())
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def facts(plan: Plan) -> dict[str, str]:
    """What follows from the keys, in words."""
    timeline = plan.timeline
    return {
        "network": f"WideResNet-{plan.config.model.depth}-{plan.config.model.widen_factor}",
        "training images": f"{plan.num_train:,}",
        "updates": f"{timeline.epochs} x {timeline.steps_per_epoch} = {timeline.steps:,}",
        "parameters": f"{plan.network.num_parameters:,}",
        "operations of the run": f"{run_operations(plan.config, plan.network, timeline):.3g}",
    }


def flat_keys(tree: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """The keys of a configuration but for the moving values, each with its value as text."""
    for name, value in tree.items():
        if prefix == "recipe." and name in MOVING:
            continue
        if isinstance(value, dict):
            yield from flat_keys(value, f"{prefix}{name}.")
        else:
            yield prefix + name, ", ".join(map(str, value)) or "none" if isinstance(value, list) else _text(value)


def _text(value: bool | float | str | None) -> str:
    return value if isinstance(value, str) else str(value).lower()


def compare_keys(a: Plan, b: Plan) -> tuple[list[tuple[str, str, str]], list[str]]:
    """(name, A's value, B's value) of each fact and key that differs; and in brief what is the same, moving values included."""
    left, right, usual = (dict(flat_keys(config.to_dict())) for config in (a.config, b.config, Config()))
    left, right = facts(a) | left, facts(b) | right
    names = list(dict.fromkeys([*left, *right]))
    different = [(name, left.get(name, "-"), right.get(name, "-")) for name in names if left.get(name) != right.get(name)]
    same = [name for name in names if left.get(name) == right.get(name)]
    at_default = [name for name in same if left[name] == usual.get(name)]
    shared = [f"{name} {left[name]}" for name in same if name not in at_default and not name.startswith("silence.")]
    for name in MOVING:
        texts = phase_texts(a.timeline, name)
        if texts == phase_texts(b.timeline, name):
            shared.append(f"{name} {', '.join(text if when == 1 else f'{text} (epoch {when:.4g})' for when, text in texts)}")
    return different, [*shared, f"{len(at_default)} keys at their defaults"]


def phase_texts(timeline: Timeline, name: str) -> list[tuple[float, str]]:
    """(epoch, from 1; what it does) of each phase of a moving value."""
    return [(event.step / timeline.steps_per_epoch + 1, event.after) for event in timeline.phases() if event.name == name]


def phases_of_two(a: Timeline, b: Timeline, name: str, names: Sequence[str]) -> list[str]:
    """The phases of a moving value in two recipes, those that begin together in one line, and the values as bars."""
    same_length = a.epochs == b.epochs
    rows: dict[float, list[str]] = {}
    for column, timeline in enumerate((a, b)):
        for when, text in phase_texts(timeline, name):
            moment = round(when if same_length else (when - 1) / timeline.epochs, 6)
            rows.setdefault(moment, ["", "", "", ""])[2 * column : 2 * column + 2] = f"{when:>5.4g}", text
    lines = table([("epoch", names[0], "epoch", names[1]), *(tuple(rows[moment]) for moment in sorted(rows))])
    if name in NUMERIC:
        top = max(float(timeline.values[name].max()) for timeline in (a, b))
        lines += [f"{letter}  {bars(timeline.values[name], top=top)}" for letter, timeline in (("A", a), ("B", b))]
    return [name, *lines]


def differing_values(a: Timeline, b: Timeline) -> list[tuple[str, str, str, str]]:
    """(moving value, range, A's values, B's values) wherever they differ.

    Runs of the same number of epochs are compared epoch by epoch, others at the same percentage of their way; where an epoch
    has not as many steps in both, or for percentages, to 2 % of the highest value. A range ends where a phase of either begins.
    """
    same_length = a.epochs == b.epochs
    count = a.epochs if same_length else min(100, a.steps, b.steps)
    rows = []
    for name in MOVING:
        parts_a, parts_b = (_parts(timeline, name, count) for timeline in (a, b))
        joins = {
            begin * count // timeline.steps
            for timeline in (a, b)
            for begin, _ in beginnings(getattr(timeline.recipe, name), timeline.clock)
        }
        tops = [timeline.values[name].max() for timeline in (a, b)]
        differ = [_differ(*pair, 0.02 * float(max(tops))) for pair in zip(parts_a, parts_b, strict=True)]
        first = 0
        for index in range(1, count + 1):
            if index < count and index not in joins and differ[index] == differ[first]:
                continue
            if differ[first]:
                begin, end = (first + 1, index) if same_length else (round(100 * first / count), round(100 * index / count))
                where = str(begin) if begin == end else f"{begin}-{end}"
                title = "" if rows and name in (row[0] for row in rows) else name
                rows.append((title, where, _summary(parts_a[first:index]), _summary(parts_b[first:index])))
            first = index
    return rows


def _parts(timeline: Timeline, name: str, count: int) -> list[np.ndarray]:
    """The values of a run in `count` equal parts; levels by their names."""
    values = timeline.values[name]
    if name == "augmentation":
        values = np.array(timeline.level_names)[values]
    return np.split(values, [round(index * timeline.steps / count) for index in range(1, count)])


def _differ(a: np.ndarray, b: np.ndarray, tolerance: float) -> bool:
    """Whether two parts hold different values; parts of unlike lengths are compared in the middle, to the tolerance."""
    if len(a) == len(b):
        return not np.array_equal(a, b)
    middle_a, middle_b = a[len(a) // 2], b[len(b) // 2]
    return middle_a != middle_b if a.dtype.kind == "U" else bool(abs(middle_a - middle_b) > tolerance)


def _summary(parts: Sequence[np.ndarray]) -> str:
    values = np.concatenate(parts)
    if values.dtype.kind == "U":
        return ", ".join(dict.fromkeys(values.tolist()))
    if values.min() == values.max():
        return f"{shortest(values[0]):g}"
    return f"{values.min():.3g} to {values.max():.3g}, mean {values.mean(dtype=np.float64):.3g}"


def write_csv(path: Path, timelines: Sequence[Timeline]) -> None:
    """Writes the rows of `Timeline.table`, one per epoch; of two recipes both, with _a and _b after the columns' names."""
    tables = [timeline.table() for timeline in timelines]
    if len(tables) == 2:
        columns = [column for column in tables[0][0] if column != "epoch"]
        names = ["epoch", *(f"{column}_{letter}" for column in columns for letter in "ab")]
        rows = [{"epoch": epoch + 1} for epoch in range(max(map(len, tables)))]
        for letter, found in zip("ab", tables, strict=True):
            for row, values in zip(rows, found, strict=False):
                row |= {f"{column}_{letter}": values[column] for column in columns}
    else:
        names, rows = list(tables[0][0]), tables[0]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    sys.exit(command.run(main, "plan"))
