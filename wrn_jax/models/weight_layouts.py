"""Weights between this package's nested dictionaries and the flat PyTorch layout of the published models.

The published checkpoints (`best_model.pth` of the two notebooks in pandurangpatil/erav4-backpropbay, session8-ass) are
dictionaries with the keys epoch, model_state_dict, optimizer_state_dict, train_accuracy, test_accuracy, train_loss,
test_loss, timestamp and config. Their model names its parts as `models.wide_resnet` does, so that no table of names is needed:
conv1, block1 to block3 with layer.0, layer.1, ..., in each of these bn1, conv1, bn2, conv2 and, where the width changes,
shortcut; bn1; fc. Only the last part of a name and the order of the axes differ:

  here                        there
  kernel [3, 3, in, out]      weight [out, in, 3, 3]
  kernel [in, out] (of fc)    weight [out, in]
  scale, bias                 weight, bias
  mean, var                   running_mean, running_var

`num_batches_tracked`, which PyTorch keeps beside the running statistics, is ignored when read and not written;
`load_state_dict` does without.
"""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wrn_jax.runtime import files
from wrn_jax.runtime.errors import UserError

_NAMES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
_STATISTICS = {"running_mean": "mean", "running_var": "var"}

WRAPPERS = ("model_state_dict", "state_dict")
"""Keys under which a checkpoint file may hold the weights beside other things."""


class Weights(NamedTuple):
    """A model's weights and the sizes that follow from them.

    Attributes:
      depth, widen_factor, num_classes: of the WideResNet.
      params: parameters, nested dictionaries of float32 arrays.
      batch_stats: running means and variances, likewise.
    """

    depth: int
    widen_factor: int
    num_classes: int
    params: dict[str, Any]
    batch_stats: dict[str, Any]


def shapes(depth: int, widen_factor: int, num_classes: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of every array of a WideResNet-`depth`-`widen_factor`, in PyTorch's layout and order."""
    found: dict[str, tuple[int, ...]] = {}

    def norm(name: str, channels: int) -> None:
        found.update({f"{name}.{leaf}": (channels,) for leaf in ("weight", "bias", "running_mean", "running_var")})

    found["conv1.weight"] = (16, 3, 3, 3)
    channels = 16
    for group in (1, 2, 3):
        width = 16 * widen_factor * 2 ** (group - 1)
        for block in range((depth - 4) // 6):
            name = f"block{group}.layer.{block}"
            norm(f"{name}.bn1", channels)
            found[f"{name}.conv1.weight"] = (width, channels, 3, 3)
            norm(f"{name}.bn2", width)
            found[f"{name}.conv2.weight"] = (width, width, 3, 3)
            if channels != width:
                found[f"{name}.shortcut.weight"] = (width, channels, 1, 1)
            channels = width
    norm("bn1", channels)
    found["fc.weight"], found["fc.bias"] = (num_classes, channels), (num_classes,)
    return found


def to_torch(params: Mapping[str, Any], batch_stats: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Parameters and running statistics by PyTorch's names, in PyTorch's axis order; types and bits are kept.

    Either may be empty, or another tree of the same structure, such as gradients.
    """
    flat = {}
    for tree in (params, batch_stats):
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            *parts, last = (key.key for key in path)
            array = np.asarray(leaf)
            if last == "kernel":
                array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
            flat[".".join([*parts, _NAMES[last]])] = np.ascontiguousarray(array)
    return flat


def from_torch(flat: Mapping[str, np.ndarray], source: str) -> Weights:
    """The weights of a state dict; depth, width and number of classes follow from its names and shapes.

    Args:
      flat: arrays by PyTorch's names. A `module.` before all of them (of `DataParallel`) is taken off, and
        `num_batches_tracked` is ignored. Other floating-point types become float32.
      source: what an error message is to call the origin, such as the file.

    Raises:
      UserError: an array is missing, unknown, misshapen or not of floating-point numbers.
    """
    if all(name.startswith("module.") for name in flat):
        flat = {name.removeprefix("module."): array for name, array in flat.items()}
    flat = {name: array for name, array in flat.items() if not name.endswith("num_batches_tracked")}
    depth, widen_factor, num_classes = _sizes(flat, source)
    expected = shapes(depth, widen_factor, num_classes)
    model = f"a WideResNet-{depth}-{widen_factor}"
    missing = [name for name in expected if name not in flat]
    if missing:
        more = f" (nor {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise UserError(f"{source}: holds no {missing[0]}{more}; {model} has it, of shape {expected[missing[0]]}")
    params: dict[str, Any] = {}
    batch_stats: dict[str, Any] = {}
    for name, array in flat.items():
        shape = tuple(np.shape(array))
        if name not in expected:
            raise UserError(f"{source}: {_shown(name)}, of shape {shape}, is no part of {model}")
        if shape != expected[name]:
            raise UserError(f"{source}: {name} has the shape {shape}; should be {expected[name]} in {model}")
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise UserError(f"{source}: {name}, of shape {shape}, is of type {array.dtype}; should be floating-point")
        *parts, last = name.split(".")
        values = np.asarray(array).astype(np.float32)
        if last in _STATISTICS:
            _put(batch_stats, [*parts, _STATISTICS[last]], values)
        elif last == "bias":
            _put(params, [*parts, "bias"], values)
        elif values.ndim == 1:
            _put(params, [*parts, "scale"], values)
        else:
            _put(params, [*parts, "kernel"], values.transpose(2, 3, 1, 0) if values.ndim == 4 else values.T)
    return Weights(depth, widen_factor, num_classes, params, batch_stats)


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a .safetensors, .pth or .pt file by their names, for `from_torch`.

    A .pth or .pt file is a state dict, or a dictionary with one at one of `WRAPPERS`. It is read by PyTorch, which has to be
    installed, and as weights alone: no code in it runs.

    Raises:
      UserError: the file is absent, damaged or of another kind, or the package that reads it is not installed.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    readers = {".safetensors": _read_safetensors, ".pth": _read_torch, ".pt": _read_torch}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"{path}: should be named *.safetensors, *.pth or *.pt")
    return reader(path)


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        from safetensors import safe_open
    except ImportError:
        raise UserError(f"{path}: is read by safetensors, which is not installed: pip install safetensors") from None
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
    except Exception as error:  # whatever is wrong with the file, for which the package has several
        raise UserError(f"{path}: cannot be read as safetensors ({_reason(error)})") from None


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    try:
        import torch  # pyright: ignore[reportMissingImports]  # only where it is wanted
    except ImportError:
        raise UserError(
            f"{path}: is read by PyTorch, which is not installed: pip install torch, or convert the file to .safetensors"
        ) from None
    # Until then a prepared file could run code in spite of `weights_only` (CVE-2025-32434).
    if tuple(int(part) for part in re.findall(r"\d+", str(torch.__version__))[:2]) < (2, 6):
        raise UserError(f"{path}: is read by PyTorch 2.6 or later, found {torch.__version__}: pip install --upgrade torch")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = torch.load(path, map_location="cpu", weights_only=True)
        loaded = _unwrap(loaded)
        if isinstance(loaded, dict) and all(isinstance(value, torch.Tensor) for value in loaded.values()):
            # float32, since NumPy has no bfloat16 that PyTorch knows of.
            return {str(name): (x.float() if x.is_floating_point() else x).detach().numpy() for name, x in loaded.items()}
    except Exception as error:  # of a dozen types, by where the file is wrong
        raise UserError(f"{path}: is damaged or holds more than weights, and is not read ({_reason(error)})") from None
    wrappers = " or ".join(WRAPPERS)
    raise UserError(f"{path}: holds no weights; should be a state dict, or a dictionary with one at {wrappers}")


def _unwrap(loaded: Any) -> Any:
    """The state dict in what a checkpoint file holds, or what it holds."""
    if isinstance(loaded, dict):
        for key in WRAPPERS:
            if isinstance(loaded.get(key), dict):
                return loaded[key]
    return loaded


def _sizes(flat: Mapping[str, np.ndarray], source: str) -> tuple[int, int, int]:
    """(depth, widen_factor, num_classes), from the number of blocks and the ends of the network."""
    found = [re.match(r"block[123]\.layer\.([0-9]+)\.", name) for name in flat]
    blocks = len({match[1] for match in found if match})
    widths, classes = _shape(flat, "bn1.weight", ("64 k",), source), _shape(flat, "fc.weight", ("classes", "64 k"), source)
    if widths[0] % 64 or not widths[0]:
        raise UserError(f"{source}: bn1.weight has the shape {widths}; should be (64 k,), k being the widen factor")
    if not classes[0]:
        raise UserError(f"{source}: fc.weight has the shape {classes}; should be (classes, {widths[0]})")
    return 6 * max(blocks, 1) + 4, widths[0] // 64, classes[0]


def _shape(flat: Mapping[str, np.ndarray], name: str, axes: tuple[str, ...], source: str) -> tuple[int, ...]:
    wanted = f"of shape ({', '.join(axes)}{',' * (len(axes) == 1)})"
    if name not in flat:
        raise UserError(f"{source}: holds no {name}; a WideResNet has it, {wanted}")
    shape = tuple(np.shape(flat[name]))
    if len(shape) != len(axes):
        raise UserError(f"{source}: {name} has the shape {shape}; should be {wanted.removeprefix('of shape ')}")
    return shape


def _put(tree: dict[str, Any], path: list[str], values: np.ndarray) -> None:
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
    tree[path[-1]] = np.ascontiguousarray(values)


def _shown(name: object) -> str:
    """A name from a file as part of a line."""
    text = str(name)
    return text if text.isprintable() and 0 < len(text) <= 100 else repr(text)[:100]


def _reason(error: Exception) -> str:
    # PyTorch says at length how one could read the file unsafely, and somewhere what it is that it does not read.
    if named := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return f"it holds {named[1]}"
    return f"{type(error).__name__}: {files.reason(error, 100)}" if str(error) else files.reason(error)
