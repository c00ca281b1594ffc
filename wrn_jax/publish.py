"""Publishes the model of a run on the Hugging Face Hub: `python -m wrn_jax.publish --workdir RUN --repo USER/NAME`.

README.md          the model card; one that a person wrote is left alone, and the card is model_card.md beside it
config.json        sizes, class names, normalisation, temperature, and the configuration of the run
model.safetensors  the weights in PyTorch's layout
model.stablehlo    the program with its weights, for JAX
wide_resnet.py     the network in PyTorch
recipe.png         the moving values and the accuracies; curves.png, metrics.jsonl, evaluation.json as they are in the run
"""

from wrn_jax.runtime import entry

if __name__ == "__main__":
    entry.begin("publish")

import hashlib
import importlib.resources
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax

from wrn_jax import command
from wrn_jax.config import Config, datasets
from wrn_jax.data.normalisation import Normalisation
from wrn_jax.models import export_formats
from wrn_jax.planning.plot import draw_recipe
from wrn_jax.report import model_card, runs
from wrn_jax.report.runs import Group, Run
from wrn_jax.runtime import environment, files, hub
from wrn_jax.runtime.errors import UserError
from wrn_jax.runtime.files import user_path
from wrn_jax.training.workdir import holds_checkpoints

if TYPE_CHECKING:
    from wrn_jax.api import TrainedModel

OPTIONAL = ("evaluation.json", "curves.png")
"""Files that not every model has: where it has none, that of another one must not stay beside it."""

CARD, OWN_CARD = "README.md", "model_card.md"


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the folder, and uploads it unless told not to. Raises UserError."""
    parser = command.parser("publish", "Makes a folder of a run's model with a card, and uploads it to the Hugging Face Hub.")
    parser.add_argument("--workdir", type=user_path, required=True, metavar="DIR", help="the directory of the run")
    parser.add_argument("--repo", required=True, metavar="USER/NAME", help="the repository; made if it is not there")
    parser.add_argument(
        "--checkpoint", default="best", metavar="WHICH", help="best (default), last, or the number of an epoch that was kept"
    )
    command.add_network(parser)
    parser.add_argument(
        "--seeds", nargs="+", default=[], metavar="RUN", help="further runs of the recipe, for mean and spread on the card"
    )
    parser.add_argument("--out", type=user_path, metavar="DIR", help="where the folder goes (default: hub/ in the run)")
    parser.add_argument("--dry-run", action="store_true", help="make the folder, and upload nothing")
    options = parser.parse_args(argv)
    hub.check_name(options.repo)
    export_formats.check_packages(["safetensors", "stablehlo"])
    if not options.dry_run:
        hub.check_installed()
    together = [runs.load(str(source)) for source in (options.workdir, *options.seeds)]
    group, *unlike = runs.group(together)
    if unlike:
        raise UserError(f"--seeds: {unlike[0].runs[0].source} is of another recipe than {options.workdir}, or began otherwise")
    out = options.out or options.workdir / "hub"
    if holds_checkpoints(out):
        raise UserError(f"--out {out}: is the directory of a run, whose files would be replaced; choose another")
    names = write_folder(out, options.workdir, options.checkpoint, options.network, options.repo, together[0], group)
    print(f"wrote {out}: {', '.join(names)}")
    if CARD not in names:
        print(f"{out / CARD} was written by a person, and stays; the card is {OWN_CARD}")
    print("the card states no license: add one by hand")
    if options.dry_run:
        return
    upload(out, options.repo, names)


def upload(out: Path, repo: str, names: list[str]) -> None:
    """Uploads the files, and the card in place of one that this command wrote, or beside a person's. Raises UserError."""
    there = hub.read_text(repo, CARD)
    if there is not None and not model_card.is_own(there) and CARD in names:
        files.write_atomically(out / OWN_CARD, (out / CARD).read_bytes())
        names = [*(name for name in names if name != CARD), OWN_CARD]
        print(f"the card of {repo} was written by a person, and stays; this one is uploaded as {OWN_CARD}")
    gone = [name for name in OPTIONAL if name not in names]
    print(f"uploaded to {hub.push(out, repo, names, gone, 'Published by wrn_jax')}")


def write_folder(
    out: Path, workdir: Path, checkpoint: str, network_name: Literal["average", "raw"] | None, repo: str, run: Run, group: Group
) -> list[str]:
    """Writes all files, and returns their names; `OPTIONAL` ones that the model has not are removed. Raises UserError."""
    from wrn_jax import api  # here, since the help need not wait for all that trains
    from wrn_jax.models.network import Network

    model = api.load_model(workdir, checkpoint, network=network_name)
    saved = model.checkpoint
    if saved is None or run.timeline is None or saved.step != saved.epoch * run.timeline.steps_per_epoch:
        raise UserError(f"--checkpoint {checkpoint}: lies within an epoch; publish one from the end of an epoch")
    config, facts = published_config(model.config), describe(model, saved.epoch)
    network = Network(config.model, len(model.class_names), "float32")
    normalise = Normalisation(model.mean, model.std)
    params, batch_stats = jax.device_get((model.params, model.batch_stats))
    told = {name: facts[name] for name in ("depth", "widen_factor", "num_classes", "data", "mean", "std", "versions")}
    told |= {"data_keys": {key: getattr(config.data, key) for key in export_formats.DATA_KEYS}}
    told |= {"data_digests": saved.metadata.get("data_digests") or {}, "step": saved.step, "epoch": saved.epoch}
    told |= {"network": model.network} if model.network else {}
    shape = datasets.info(config.data).image_shape
    content: dict[str, str | bytes] = {
        "config.json": json.dumps(facts, indent=2) + "\n",
        "model.safetensors": export_formats.to_safetensors(params, batch_stats, told),
        "model.stablehlo": export_formats.to_stablehlo(network, params, batch_stats, normalise, shape),
        "wide_resnet.py": (importlib.resources.files("wrn_jax.models") / "wide_resnet_pytorch.py")
        .read_text()
        .partition("\n")[2],
        "metrics.jsonl": (workdir / "metrics.jsonl").read_bytes(),
    }
    if model.figures:
        content["evaluation.json"] = json.dumps(published_figures(model.figures), indent=2) + "\n"
    if (workdir / "curves.png").is_file():
        content["curves.png"] = (workdir / "curves.png").read_bytes()
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in OPTIONAL:
            if name not in content:
                (out / name).unlink(missing_ok=True)
        for name, value in content.items():
            files.write_atomically(out / name, value if isinstance(value, bytes) else hub.without_secrets(value))
        draw_recipe(out / "recipe.png", {run.name: run.timeline}, "", run.rows)
        names = [*content, "recipe.png"]
        text = model_card.write(repo, run, group, saved.epoch, facts, model.figures, names)
        card = out / CARD
        by_a_person = card.is_file() and not model_card.is_own(card.read_text(encoding="utf-8", errors="replace"))
        name = OWN_CARD if by_a_person else CARD
        files.write_atomically(out / name, model_card.sealed(hub.without_secrets(text)))
    except OSError as error:
        raise UserError(f"{error.filename or out}: cannot be written: {error.strerror}") from None
    return [*names, name]


def published_config(config: Config) -> Config:
    """The configuration without what it says of the machine's disks."""
    return config.override(dict.fromkeys(model_card.PRIVATE))


def published_figures(figures: dict[str, Any]) -> dict[str, Any]:
    """The evaluation without its command and where corrupted images lay."""
    origin = figures.get("corruptions_from")
    return figures | {"command": None, "corruptions_from": origin and origin.partition(" at ")[0]}


def describe(model: "TrainedModel", epoch: int) -> dict[str, Any]:
    """What is in config.json."""
    config = published_config(model.config)
    tree = config.to_dict()
    digest = hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()
    return {
        "architecture": "WideResNet",
        "depth": config.model.depth,
        "widen_factor": config.model.widen_factor,
        "num_classes": len(model.class_names),
        "label_names": list(model.class_names),
        "mean": list(model.mean),
        "std": list(model.std),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(model.params)),
        "temperature": model.temperature,
        "epoch": epoch,
        **({"network": model.network} if model.network else {}),
        **model_card.dataset_facts(config),
        "versions": environment.versions(),
        "config_digest": digest,
        "run": tree,
    }


if __name__ == "__main__":
    sys.exit(command.run(main, "publish"))
