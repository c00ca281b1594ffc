"""Weights as files for other programs: safetensors in PyTorch's layout, Orbax, and a StableHLO program of `jax.export`.

What a safetensors file says of itself is read again, so that it is evaluated as it was trained.
"""

import dataclasses
import importlib.util
import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from wrn_jax.config import Config
from wrn_jax.models import weight_layouts
from wrn_jax.models.weight_layouts import MeanStd, Weights
from wrn_jax.runtime import files
from wrn_jax.runtime.errors import UserError

if TYPE_CHECKING:
    from wrn_jax.models.network import Network

FORMATS = ("safetensors", "orbax", "stablehlo")
PLATFORMS = ("cpu", "cuda", "tpu")
PACKAGES = {"safetensors": "safetensors", "stablehlo": "flatbuffers"}
"""What a format needs beside the dependencies of this package."""

DATA_KEYS = (
    "validation_size",
    "validation_seed",
    "embedded_train",
    "embedded_test",
    "embedded_seed",
    "class_names",
    "own_train",
    "own_test",
)
"""Keys of `config.data`, beside its name, that say which images a model was trained on and which were held out."""

_Mean = Annotated[float, Field(ge=0, le=1)]
_Std = Annotated[float, Field(gt=0, le=1)]


@dataclasses.dataclass(frozen=True)
class DataFacts:
    """What exported weights say of the images that they were trained on.

    Attributes:
      data: name of the data set.
      mean, std: of the normalisation.
      data_keys: values of `DATA_KEYS`; an older export has none.
      data_digests: digests of its images by split; likewise.
    """

    data: str
    mean: tuple[_Mean, _Mean, _Mean]
    std: tuple[_Std, _Std, _Std]
    data_keys: dict[str, int | list[str]] = dataclasses.field(default_factory=dict)
    data_digests: dict[str, str] = dataclasses.field(default_factory=dict)


_DATA_FACTS = TypeAdapter(DataFacts)


def data_facts(weights: Weights, source: str) -> DataFacts | None:
    """What weights that this package exported say of their images; None for others. Raises UserError."""
    if not {"data", "mean", "std", "versions"} <= weights.facts.keys():
        return None
    try:
        names = {field.name for field in dataclasses.fields(DataFacts)} & weights.facts.keys()
        facts = {name: weights.facts[name] if name == "data" else json.loads(weights.facts[name]) for name in names}
        return _DATA_FACTS.validate_python(facts)
    except (ValueError, RecursionError, ValidationError) as error:
        raise UserError(f"{source}: its description is damaged ({files.reason(error, 100)})") from None


def config_of(weights: Weights, source: str) -> Config:
    """The configuration that weights in a file imply: sizes of the network, and the images as far as the file names them.

    Of a file that does not, no image is held out: published models were trained on all of them. Raises UserError.
    """
    changes: dict[str, Any] = {f"model.{name}": getattr(weights, name) for name in ("depth", "widen_factor", "num_classes")}
    changes["data.validation_size"] = 0
    if known := data_facts(weights, source):
        keys = {f"data.{key}": value for key, value in known.data_keys.items() if key in DATA_KEYS}
        changes |= {"data.name": known.data, **keys}
    return Config().override(changes, source)


def normalisation_of(weights: Weights, source: str) -> MeanStd | None:
    """Mean and standard deviation that weights in a file want, as far as the file or its layout says. Raises UserError."""
    known = data_facts(weights, source)
    return (known.mean, known.std) if known else weights.normalisation


def check_packages(formats: Collection[str]) -> None:
    """Raises UserError if a format needs a package that is not installed."""
    for name in formats:
        package = PACKAGES.get(name)
        if package is not None and importlib.util.find_spec(package) is None:
            raise UserError(f"--formats {name}: needs {package}, which is not installed: pip install {package}")


def to_safetensors(params: dict[str, Any], batch_stats: dict[str, Any], facts: Mapping[str, Any]) -> bytes:
    """The content of a safetensors file in PyTorch's layout; what is no text in `facts` becomes JSON."""
    import safetensors.numpy

    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in facts.items()}
    return safetensors.numpy.save(weight_layouts.to_torch(params, batch_stats), {"format": "pt", **texts})


def save_orbax(path: Path, params: dict[str, Any], batch_stats: dict[str, Any], facts: Mapping[str, Any]) -> None:
    """Saves host arrays with Orbax in place of what is at `path`. Raises UserError.

    Of host arrays, because a checkpoint of device arrays asks for the same devices when it is loaded without a template.
    """
    from orbax.checkpoint import v1 as ocp  # here, since help and refusals need not wait for it

    try:
        tree = {"params": params, "batch_stats": batch_stats}
        ocp.save(str(path.resolve()), tree, overwrite=True, custom_metadata=dict(facts))
    except OSError:
        raise
    except Exception as error:  # whatever the file system, Orbax or its C++ parts make of it
        raise UserError(f"{path}: cannot be written: {files.reason(error)}") from None


def to_stablehlo(
    network: "Network",
    params: dict[str, Any],
    batch_stats: dict[str, Any],
    normalise: Callable[[jax.Array], jax.Array],
    image_shape: tuple[int, int, int],
) -> bytes:
    """The content of a file for `jax.export.deserialize`: the program from images to logits, with the weights in it.

    Args:
      network: its compute type is that of the convolutions; accelerators do not shorten float32 to bfloat16 or TF32.
      params, batch_stats: the weights.
      normalise: from images [b, H, W, C] uint8 to what the network takes.
      image_shape: (H, W, C).
    """
    from flax import nnx  # here, since help and refusals need not wait for it

    def logits(images: jax.Array) -> jax.Array:
        weights = jax.tree.map(jnp.asarray, (params, batch_stats))
        return nnx.merge(network.graphdef, *weights)(normalise(images))

    (batch,) = jax.export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((batch, *image_shape), np.uint8)
    with jax.default_matmul_precision("highest" if network.dtype == "float32" else "default"):
        exported = jax.export.export(jax.jit(logits), platforms=PLATFORMS)(images)
    return bytes(exported.serialize())


def how_to_load(name: str, path: Path, image_shape: tuple[int, int, int]) -> str:
    """A line for people."""
    if name == "safetensors":
        return f"PyTorch: model.load_state_dict(safetensors.torch.load_file({str(path)!r}))"
    if name == "orbax":
        return f"Orbax: orbax.checkpoint.v1.load({str(path.resolve())!r})  # an absolute path"
    call = f"jax.export.deserialize(open({str(path)!r}, 'rb').read()).call(images)"
    shape = ", ".join(map(str, ("b", *image_shape)))
    return f"JAX {jax.__version__} or later, with flatbuffers: {call}  # images: uint8 [{shape}]"
