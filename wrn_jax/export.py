"""Writes a run's model for use elsewhere: `python -m wrn_jax.export --workdir DIR --out DIR`. Needs no data set.

model.safetensors  the weights in the PyTorch layout of `wrn_jax.models.weight_layouts`, its metadata telling what they are
model.orbax        {"params", "batch_stats"} as Orbax saves a plain tree, the same facts as custom metadata
model.stablehlo    a program of `jax.export` with the weights in it, for CPU, CUDA and TPU: images [b, H, W, C] uint8, not
                   normalised and for any b, to logits [b, classes] float32; it runs with JAX and flatbuffers alone
"""

from wrn_jax.runtime import entry

if __name__ == "__main__":
    entry.begin("export")

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from wrn_jax import command
from wrn_jax.config import Config, datasets
from wrn_jax.config.datasets import DatasetInfo
from wrn_jax.data.normalisation import Normalisation
from wrn_jax.models import export_formats
from wrn_jax.models.export_formats import FORMATS
from wrn_jax.runtime import devices, environment, files
from wrn_jax.runtime.errors import UserError
from wrn_jax.runtime.files import user_path
from wrn_jax.training.records import Saved
from wrn_jax.training.workdir import check_checkpoints, checkpoints_folder, saved_config


@dataclasses.dataclass(frozen=True)
class Model:
    """The model of a run.

    Attributes:
      config: of the run.
      saved: the checkpoint it comes from.
      network: "average" or "raw".
      num_classes: outputs.
      dataset: facts of the images.
      params, batch_stats: nested dictionaries of float32 arrays, on the host.
    """

    config: Config
    saved: Saved
    network: str
    num_classes: int
    dataset: DatasetInfo
    params: dict[str, Any]
    batch_stats: dict[str, Any]


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the files that were asked for and tells how to load them. Raises UserError."""
    options = parse(argv)
    targets = {name: options.out / f"model.{name}" for name in FORMATS if name in options.formats}
    export_formats.check_packages(targets)
    for path in targets.values():
        if path.exists() and not options.force:
            raise UserError(f"{path}: is there already; replace it with --force, or choose another --out")
    model = restore(options.workdir, options.checkpoint, options.network)
    facts = describe(model)
    average = "" if model.saved.network == "raw" else f", {'weight average' if model.network == 'average' else 'raw network'}"
    print(
        f"{options.workdir} after epoch {model.saved.epoch}, step {model.saved.step}: "
        f"WideResNet-{facts['depth']}-{facts['widen_factor']}, {model.num_classes} classes{average}"
    )
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        for name, path in targets.items():
            if name == "safetensors":
                files.write_atomically(path, export_formats.to_safetensors(model.params, model.batch_stats, facts))
            elif name == "orbax":
                export_formats.save_orbax(path, model.params, model.batch_stats, facts)
            else:
                files.write_atomically(path, to_stablehlo(model, options.precision))
            print(f"wrote {path}, {size_of(path) / 1e6:.1f} MB")
            print(f"  {export_formats.how_to_load(name, path, model.dataset.image_shape)}")
    except OSError as error:
        raise UserError(f"{error.filename or options.out}: cannot be written: {error.strerror or error}") from None


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command line. Raises UserError."""
    parser = command.parser("export", "Writes the model of a run for PyTorch, Orbax and plain JAX; the data set is not needed.")
    parser.add_argument("--workdir", type=user_path, required=True, metavar="DIR", help="the directory of the run")
    parser.add_argument(
        "--checkpoint",
        default="best",
        metavar="WHICH",
        help="best (default), last, or the number of an epoch that was kept",
    )
    command.add_network(parser)
    parser.add_argument("--out", type=user_path, required=True, metavar="DIR", help="where to write; created when missing")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS, help="what to write (default: all)")
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="compute type of the StableHLO program (default float32); weights stay float32",
    )
    parser.add_argument("--force", action="store_true", help="replace files that are there")
    return parser.parse_args(argv)


def restore(workdir: Path, which: str, network_name: str | None = None) -> Model:
    """The model of the run in `workdir` from the checkpoint that `which` names, see `checkpoints.choose`.

    With a weight average, that or the raw network, see `Saved.choose_network`. Raises UserError.
    """
    config = saved_config(workdir)
    folder = checkpoints_folder(workdir)
    from wrn_jax.models.network import Network  # here, since help and refusals need not wait for it
    from wrn_jax.training.checkpoints import Checkpoints

    dataset = datasets.info(config.data)
    network = Network(config.model, dataset.num_classes, "float32")
    with Checkpoints(folder) as checkpoints:
        check_checkpoints(checkpoints.all(), workdir, config)
        where = devices.replicated(devices.make_mesh(1))
        like = (network.params, network.batch_stats, where)
        saved, restored = checkpoints.restore_chosen(which, *like, network=network_name)
    chosen = saved.choose_network(network_name)
    return Model(config, saved, chosen, config.model.num_classes or dataset.num_classes, dataset, *jax.device_get(restored))


def describe(model: Model) -> dict[str, Any]:
    """What the weights are, as plain JSON data; the accuracy is that of the split which chose the best epoch."""
    config = model.config
    return {
        "depth": config.model.depth,
        "widen_factor": config.model.widen_factor,
        "num_classes": model.num_classes,
        "data": config.data.name,
        "mean": list(model.dataset.mean),
        "std": list(model.dataset.std),
        "data_keys": {key: config.to_dict()["data"][key] for key in export_formats.DATA_KEYS},
        "data_digests": model.saved.metadata.get("data_digests") or {},
        "step": model.saved.step,
        "epoch": model.saved.epoch,
        **({"network": model.network} if model.saved.network == "average" else {}),
        # The accuracy that the checkpoint was ranked by is of one of the two.
        "accuracy": model.saved.accuracy if model.network == model.saved.network else None,
        "accuracy_on": "valid" if config.data.validation_size else "test",
        "versions": environment.versions(),
    }


def to_stablehlo(model: Model, precision: str) -> bytes:
    """The program of the model from images to logits, its convolutions in the type `precision`."""
    from wrn_jax.models.network import Network

    network = Network(model.config.model, model.num_classes, precision)
    normalise = Normalisation(model.dataset.mean, model.dataset.std)
    return export_formats.to_stablehlo(network, model.params, model.batch_stats, normalise, model.dataset.image_shape)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return path.stat().st_size if path.is_file() else sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


if __name__ == "__main__":
    sys.exit(command.run(main, "export"))
