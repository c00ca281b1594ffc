"""Shows a recipe without training: `python -m wrn_jax.plan --config configs/session04.py`."""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from wrn_jax import command, data
from wrn_jax import config as configs
from wrn_jax.config import Config
from wrn_jax.errors import UserError
from wrn_jax.optimizer import make_optimizer
from wrn_jax.records import draw_recipe
from wrn_jax.state import Network
from wrn_jax.timeline import SCHEDULED, Timeline

BARS = " ▁▂▃▄▅▆▇█"


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the plan of a run and writes what was asked for. Raises UserError."""
    made = command.parser("plan", "Shows what a recipe will do, without data and without training.", with_keys=True)
    made.add_argument("--csv", type=Path, metavar="FILE", help="write one row per epoch")
    made.add_argument("--plot", type=Path, metavar="FILE", help="draw the moving values as PNG")
    options, overrides = command.parse(made, argv)
    if options.config is None:
        raise UserError("--config FILE is missing, for example --config configs/session04.py")
    config = configs.apply_arguments(configs.load_file(options.config), overrides)
    num_train, num_classes = data.planned_sizes(config.data)
    steps_per_epoch = data.steps_per_epoch(num_train, config.recipe.batch_size)
    timeline = Timeline(config.recipe, config.augmentation_levels, steps_per_epoch)
    print(f"{options.config}: {config.data.name}, {num_train:,} training images, batch {config.recipe.batch_size}")
    print("\n".join([*describe_length(config, timeline), "", *transition_table(timeline), "", *sparklines(timeline), ""]))
    network = Network(config.model, num_classes, "float32")  # no device is asked: a plan may run beside a training
    print("\n".join(cost_lines(config, network, timeline)))
    try:
        if options.csv is not None:
            write_csv(options.csv, timeline)
            print(f"wrote {options.csv}")
        if options.plot is not None:
            draw_recipe(options.plot, timeline.values, timeline.level_names, steps_per_epoch, str(options.config))
            print(f"wrote {options.plot}")
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be written: {error.strerror}") from None


def describe_length(config: Config, timeline: Timeline) -> list[str]:
    """The length of the run, and how it was scaled."""
    line = f"{timeline.epochs} epochs of {timeline.steps_per_epoch} steps: {timeline.steps:,} updates"
    if timeline.epochs != config.recipe.epochs:
        line += f"; {config.recipe.epochs} epochs as written, scaled by {timeline.clock.scale:g}"
    kept = ", ".join(str(epoch) for epoch in timeline.checkpoint_epochs) or "none"
    held_out = config.data.validation_size
    judge = f"a hold-out of {held_out:,} training images" if held_out else "the test set (the published way, which flatters it)"
    lines = [
        line,
        f"checkpoints kept for good after epochs: {kept}; and the best and the last two",
        f"best epoch chosen on {judge}",
    ]
    if timeline.idle():
        lines.append("never reached: " + "; ".join(timeline.idle()))
    return lines


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
    columns = np.array_split(np.arange(timeline.steps), min(width, timeline.steps))
    lines = []
    for name in SCHEDULED:
        values = timeline.values[name]
        top = float(values.max())
        heights = [round(float(values[column].mean()) / top * 8) if top else 0 for column in columns]
        lines.append(f"{name:<15} {''.join(BARS[height] for height in heights)}  0 to {top:g}")
    return lines


def cost_lines(config: Config, network: Network, timeline: Timeline) -> list[str]:
    """Parameters, operations per image, and the memory of the state."""
    forward = forward_operations(network)
    optimizer = make_optimizer(config.optimizer)
    state = jax.eval_shape(lambda key: network.create_state(optimizer, key), jax.random.key(0))
    state_bytes = sum(_bytes(leaf) for leaf in jax.tree.leaves(state))
    total = 3 * forward * timeline.steps * config.recipe.batch_size
    model = config.model
    return [
        f"WideResNet-{model.depth}-{model.widen_factor}: {network.num_parameters:,} parameters",
        f"operations per image: {forward / 1e9:.3f} G forward, {3 * forward / 1e9:.3f} G in training "
        "(multiplications and additions of convolutions and linear layer; backward counted as twice forward)",
        f"operations of the whole run: {total:.3g}",
        f"memory of the state (parameters, momentum, statistics; float32): {state_bytes / 2**20:.1f} MiB, "
        f"gradients {4 * network.num_parameters / 2**20:.1f} MiB more",
    ]


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


def write_csv(path: Path, timeline: Timeline) -> None:
    """Writes the rows of `Timeline.table`, one per epoch."""
    rows = timeline.table()
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    sys.exit(command.run(main, "plan"))
