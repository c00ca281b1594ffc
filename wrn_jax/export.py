"""Writes a run's model for use elsewhere: `python -m wrn_jax.export --workdir DIR --out DIR`. Needs no data set.

model.safetensors  the weights in the PyTorch layout of `wrn_jax.models.weight_layouts`, its metadata telling what they are
model.orbax        {"params", "batch_stats"} as Orbax saves a plain tree, the same facts as custom metadata
model.stablehlo    a program of `jax.export` with the weights in it, for CPU, CUDA and TPU: images [b, 32, 32, 3] uint8, not
                   normalised and for any b, to logits [b, classes] float32; it runs with JAX and flatbuffers alone
"""

import argparse
import dataclasses
import importlib.util
import json
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from flax import nnx
from orbax.checkpoint import v1 as ocp

from wrn_jax import command
from wrn_jax.config import Config, datasets
from wrn_jax.data.normalisation import Normalisation
from wrn_jax.models import weight_layouts
from wrn_jax.models.network import Network
from wrn_jax.runtime import devices, environment
from wrn_jax.runtime.errors import UserError
from wrn_jax.training.checkpoints import Checkpoints, Saved, choose
from wrn_jax.training.workdir import saved_config

FORMATS = ("safetensors", "orbax", "stablehlo")
PLATFORMS = ("cpu", "cuda", "tpu")
PACKAGES = {"safetensors": "safetensors", "stablehlo": "flatbuffers"}
"""What a format needs beside the dependencies of this package."""


@dataclasses.dataclass(frozen=True)
class Model:
    """The model of a run.

    Attributes:
      config: of the run.
      saved: the checkpoint it comes from.
      num_classes: outputs.
      normalisation: of the images.
      params, batch_stats: nested dictionaries of float32 arrays, on the host.
    """

    config: Config
    saved: Saved
    num_classes: int
    normalisation: Normalisation
    params: dict[str, Any]
    batch_stats: dict[str, Any]


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the files that were asked for and tells how to load them. Raises UserError."""
    options = parse(argv)
    targets = {name: options.out / f"model.{name}" for name in FORMATS if name in options.formats}
    check_packages(targets)
    if not options.force:
        check_absent(targets.values())
    model = restore(options.workdir, options.checkpoint)
    facts = describe(model)
    print(
        f"{options.workdir} after epoch {model.saved.epoch}, step {model.saved.step}: "
        f"WideResNet-{facts['depth']}-{facts['widen_factor']}, {model.num_classes} classes"
    )
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        for name, path in targets.items():
            if name == "safetensors":
                write(path, to_safetensors(model, facts))
            elif name == "orbax":
                save_orbax(path, model, facts)
            else:
                write(path, to_stablehlo(model, options.precision))
            print(f"wrote {path}, {size_of(path) / 1e6:.1f} MB\n  {how_to_load(name, path)}")
    except OSError as error:
        raise UserError(f"{error.filename or options.out}: cannot be written: {error.strerror or error}") from None


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command line. Raises UserError."""
    parser = command.parser("export", "Writes the model of a run for PyTorch, Orbax and plain JAX; the data set is not needed.")
    parser.add_argument("--workdir", type=Path, required=True, metavar="DIR", help="the directory of the run")
    parser.add_argument(
        "--checkpoint",
        default="best",
        metavar="WHICH",
        help="best (default), last, or the number of an epoch that was kept",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write; created when missing")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS, help="what to write (default: all)")
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="compute type of the StableHLO program (default float32); weights stay float32",
    )
    parser.add_argument("--force", action="store_true", help="replace files that are there")
    return parser.parse_args(argv)


def check_packages(formats: Collection[str]) -> None:
    """Raises UserError if a format needs a package that is not installed."""
    for name in formats:
        package = PACKAGES.get(name)
        if package is not None and importlib.util.find_spec(package) is None:
            raise UserError(f"--formats {name}: needs {package}, which is not installed: pip install {package}")


def check_absent(paths: Collection[Path]) -> None:
    """Raises UserError if one of the files is there."""
    for path in paths:
        if path.exists():
            raise UserError(f"{path}: is there already; replace it with --force, or choose another --out")


def restore(workdir: Path, which: str) -> Model:
    """The model of the run in `workdir` from the checkpoint that `which` names, see `checkpoints.choose`. Raises UserError."""
    config = saved_config(workdir)
    folder = workdir / "checkpoints"
    if not folder.is_dir():
        raise UserError(f"{workdir}: holds no checkpoints")
    _, num_classes = datasets.planned_sizes(config.data)
    network = Network(config.model, num_classes, "float32")
    with Checkpoints(folder) as checkpoints:
        saved = choose(checkpoints.all(), which, folder)
        where = devices.replicated(devices.make_mesh(1))
        restored = checkpoints.restore_model(saved.step, network.params, network.batch_stats, where)
    info = datasets.info(config.data)
    normalisation = Normalisation(info.mean, info.std)
    return Model(config, saved, config.model.num_classes or num_classes, normalisation, *jax.device_get(restored))


def describe(model: Model) -> dict[str, Any]:
    """What the weights are, as plain JSON data; the accuracy is that of the split which chose the best epoch."""
    config = model.config
    return {
        "depth": config.model.depth,
        "widen_factor": config.model.widen_factor,
        "num_classes": model.num_classes,
        "data": config.data.name,
        "mean": list(model.normalisation.mean),
        "std": list(model.normalisation.std),
        "step": model.saved.step,
        "epoch": model.saved.epoch,
        "accuracy": model.saved.accuracy,
        "accuracy_on": "valid" if config.data.validation_size else "test",
        "versions": environment.versions(),
    }


def to_safetensors(model: Model, facts: Mapping[str, Any]) -> bytes:
    """The content of a safetensors file in PyTorch's layout; what is no text in `facts` becomes JSON."""
    import safetensors.numpy

    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in facts.items()}
    return safetensors.numpy.save(weight_layouts.to_torch(model.params, model.batch_stats), {"format": "pt", **texts})


def save_orbax(path: Path, model: Model, facts: Mapping[str, Any]) -> None:
    """Saves parameters and statistics with Orbax in place of what is at `path`. Raises UserError."""
    try:
        # Host arrays: a checkpoint of device arrays asks for the same devices when it is loaded without a template.
        tree = {"params": model.params, "batch_stats": model.batch_stats}
        ocp.save(path.resolve(), tree, overwrite=True, custom_metadata=dict(facts))
    except OSError:
        raise
    except Exception as error:  # whatever the file system, Orbax or its C++ parts make of it
        raise UserError(f"{path}: cannot be written: {' '.join(str(error).split())[:160]}") from None


def to_stablehlo(model: Model, precision: str) -> bytes:
    """The content of a file for `jax.export.deserialize`: the program from images to logits, with the weights in it.

    Args:
      model: the weights.
      precision: "float32", which accelerators then do not shorten to bfloat16 or TF32, or "bfloat16" or "float16" for the
        convolutions.
    """
    network = Network(model.config.model, model.num_classes, precision)

    def logits(images: jax.Array) -> jax.Array:
        params, batch_stats = jax.tree.map(jnp.asarray, (model.params, model.batch_stats))
        return nnx.merge(network.graphdef, params, batch_stats)(model.normalisation(images))

    (batch,) = jax.export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((batch, *datasets.info(model.config.data).image_shape), np.uint8)
    with jax.default_matmul_precision("highest" if precision == "float32" else "default"):
        exported = jax.export.export(jax.jit(logits), platforms=PLATFORMS)(images)
    return bytes(exported.serialize())


def write(path: Path, content: bytes) -> None:
    """Writes a file so that nobody meets half of it. Raises OSError."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return path.stat().st_size if path.is_file() else sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def how_to_load(name: str, path: Path) -> str:
    """A line for people."""
    if name == "safetensors":
        return f"PyTorch: model.load_state_dict(safetensors.torch.load_file({str(path)!r}))"
    if name == "orbax":
        return f"Orbax: orbax.checkpoint.v1.load({str(path.resolve())!r})  # an absolute path"
    call = f"jax.export.deserialize(open({str(path)!r}, 'rb').read()).call(images)"
    return f"JAX {jax.__version__} or later, with flatbuffers: {call}  # images: uint8 [b, 32, 32, 3]"


if __name__ == "__main__":
    sys.exit(command.run(main, "export"))
