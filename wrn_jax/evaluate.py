"""Evaluates a checkpoint: `python -m wrn_jax.evaluate --workdir DIR --checkpoint best`."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from wrn_jax import command, loop
from wrn_jax import config as configs
from wrn_jax import mesh as meshes
from wrn_jax.checkpoints import Checkpoints, Saved, best_of
from wrn_jax.errors import UserError


def main(argv: Sequence[str] | None = None) -> None:
    """Restores a checkpoint and prints accuracy, top-5 accuracy and loss over all test images. Raises UserError."""
    made = command.parser("evaluate", "Evaluates a checkpoint of a run on the test images.")
    made.add_argument("--workdir", type=Path, required=True, metavar="DIR", help="the directory of the run")
    made.add_argument(
        "--checkpoint",
        default="best",
        metavar="WHICH",
        help="best (default), last, or the number of an epoch that was kept",
    )
    options, overrides = command.parse(made, argv)
    config = loop.saved_config(options.workdir)
    config = configs.apply_arguments(config, overrides)
    folder = options.workdir / "checkpoints"
    if not folder.is_dir():
        raise UserError(f"{options.workdir}: holds no checkpoints")
    # All devices that are here, whatever the run had: every image counts once on any number of them.
    setup = loop.set_up(config, meshes.make_mesh())
    network = setup.network
    with Checkpoints(folder) as checkpoints:
        saved = checkpoints.all()
        chosen = choose(saved, options.checkpoint, folder)
        where = meshes.replicated(setup.mesh)
        params, stats = checkpoints.restore_model(chosen.step, network.params, network.batch_stats, where)
    result = setup.evaluator(params, stats, setup.evaluator.put(setup.dataset.test))
    print(
        f"{options.workdir} after epoch {chosen.epoch}, step {chosen.step}, {network.dtype}: {result['count']:.0f} test images"
    )
    print(f"accuracy  {result['accuracy']:.2%}")
    print(f"top-5     {result['top5']:.2%}")
    print(f"loss      {result['loss']:.4f}")
    if setup.dataset.valid is None and chosen == best_of(saved):
        print("this checkpoint was chosen on these very images (no hold-out), which flatters its accuracy")


def choose(saved: list[Saved], which: str, folder: Path) -> Saved:
    """The checkpoint that `which` names: "best", "last" or an epoch. Raises UserError."""
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
        raise UserError(f"--checkpoint {which}: should be best, last or the number of an epoch")
    for one in saved:
        if one.epoch == int(which) and one.accuracy is not None:
            return one
    there = ", ".join(str(one.epoch) for one in saved if one.accuracy is not None) or "none"
    raise UserError(f"--checkpoint {which}: not kept; there are epochs {there}")


if __name__ == "__main__":
    sys.exit(command.run(main, "evaluate"))
