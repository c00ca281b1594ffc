"""Weights between this package's nested dictionaries and the flat PyTorch layouts of published models.

`LAYOUTS` has the names that repositories give to the parts of the network of `models.wide_resnet`. This package's own are those
of pandurangpatil/erav4-backpropbay (session8-ass), and are what is written. Beside the names of parts, the last part of a name
and the order of the axes differ:

  here                        there
  kernel [3, 3, in, out]      weight [out, in, 3, 3]
  kernel [in, out] (of fc)    weight [out, in]
  scale, bias                 weight, bias
  mean, var                   running_mean, running_var

`num_batches_tracked`, which PyTorch keeps beside the running statistics, is ignored when read and not written;
`load_state_dict` does without. Networks that only look alike, some with arrays of the same shapes, are refused by name.
"""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from wrn_jax.runtime import files
from wrn_jax.runtime.errors import UserError

MeanStd = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Mean and standard deviation per channel, for pixels in 0..1."""

_NAMES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
_STATISTICS = {"running_mean": "mean", "running_var": "var"}


class Layout(NamedTuple):
    """What a repository calls the parts of the network.

    Attributes:
      stem, norm, linear: the first convolution, the last normalisation, the linear layer.
      block: a block; {g} counts groups from 1 and {b} blocks from 0, {g0} and {b1} the other way.
      parts: in a block, what is bn1, conv1, bn2, conv2 and shortcut here.
      first: the same in the first block of a group, where it differs.
      normalisation: mean and standard deviation of the images that its published weights want, where they are not those of
        the data set.
    """

    stem: str
    norm: str
    linear: str
    block: str
    parts: str
    first: str = ""
    normalisation: MeanStd | None = None


_PARTS = ("bn1", "conv1", "bn2", "conv2", "shortcut")
_ZAGORUYKO = (125.3 / 255, 123.0 / 255, 113.9 / 255), (63.0 / 255, 62.1 / 255, 66.7 / 255)
_HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
_LAYERS = ("conv1", "bn1", "fc", "block{g}.layer.{b}")

LAYOUTS: dict[str, Layout] = {
    "wrn_jax": Layout(*_LAYERS, "bn1 conv1 bn2 conv2 shortcut"),
    # Also bearpaw, hendrycks/outlier-exposure, OpenOOD, RepDistiller, Cutout, RobustBench, TRADES.
    "xternalz": Layout(*_LAYERS, "bn1 conv1 bn2 conv2 convShortcut", normalisation=_ZAGORUYKO),
    "AugMix": Layout(*_LAYERS, "bn1 conv1 bn2 conv2 conv_shortcut", normalisation=_HALF),
    "pytorchcv": Layout(
        "features.init_block", "features.post_activ.bn", "output", "features.stage{g}.unit{b1}",
        "body.conv1.bn body.conv1.conv body.conv2.bn body.conv2.conv identity_conv",
        normalisation=((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    ),
    "hysts": Layout("conv", "bn", "fc", "stage{g}.block{b1}", "bn1 conv1 bn2 conv2 shortcut.conv"),
    "szagoruyko": Layout(
        "conv0", "bn", "fc", "group{g0}.block{b}", "bn0 conv0 bn1 conv1 convdim", normalisation=_ZAGORUYKO
    ),
    "davda54": Layout(
        "f.0_convolution", "f.4_normalization", "f.8_classification", "f.{g}_block.block.{b}",
        "block.0_normalization block.2_convolution block.3_normalization block.6_convolution downsample",
        "norm_act.0_normalization block.0_convolution block.1_normalization block.4_convolution downsample",
    ),
}  # fmt: skip

_RAW = "its shortcuts read the raw input, where here they read the activated one, and its convolutions have biases"
REFUSED = {
    r"layer\.\d\.block\.\d+\.batchnorm_0\.": "DeepMind's network: its convolutions of stride 2 pad one side only, and its "
    "activation is often SiLU; the arrays have the same shapes, and the outputs would be wrong",
    r"conv2\.0\.residual\.": f"weiaicunzai's network: {_RAW}",
    r"layer1\.0\.bn1\.": f"a network as of bmsookim (meliketoy), timgaripov/swa or fast-autoaugment: {_RAW}",
}
"""Networks that are not this one, by a pattern that one of their names begins with, and why."""

PREFIXES = ("module", "model", "net", "_orig_mod", "backbone")
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "params", "ema", "swa_state_dict", "last", "best")
"""Keys under which a checkpoint file may hold the weights beside other things; the first that is there is taken."""

HARMLESS = (
    "argparse.Namespace", "datetime.datetime", "pathlib.PosixPath", "pathlib.WindowsPath", "pathlib._local.PosixPath",
    "pathlib._local.WindowsPath", "numpy.dtype", "numpy.ndarray", "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar", "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct",
)  # fmt: skip
"""What checkpoint files hold beside weights that may be passed over: an empty object is put in its place, so that no code of
these runs either."""


class Weights(NamedTuple):
    """A model's weights and the sizes that follow from them.

    Attributes:
      depth, widen_factor, num_classes: of the WideResNet.
      params: parameters, nested dictionaries of float32 arrays.
      batch_stats: running means and variances, likewise.
      layout: the key of `LAYOUTS` of the names.
      normalisation: of the images, where the file or its layout says.
      notes: lines for people about what was passed over or added.
      facts: texts that a safetensors file says of itself.
    """

    depth: int
    widen_factor: int
    num_classes: int
    params: dict[str, Any]
    batch_stats: dict[str, Any]
    layout: str
    normalisation: MeanStd | None = None
    notes: tuple[str, ...] = ()
    facts: Mapping[str, str] = {}


class File(NamedTuple):
    """The arrays in a file by their names, what else it says of itself, and lines for people."""

    arrays: dict[str, np.ndarray]
    facts: Mapping[str, str] = {}
    notes: tuple[str, ...] = ()


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


def name_in(layout: Layout, name: str) -> str:
    """What a layout calls the array that is called `name` here, such as block1.layer.0.bn1.weight."""
    part, leaf = name.rsplit(".", 1)
    if match := re.fullmatch(r"block(\d)\.layer\.(\d+)\.(\w+)", part):
        group, block = int(match[1]), int(match[2])
        parts = (not block and layout.first) or layout.parts
        return f"{_block(layout, group, block)}.{parts.split()[_PARTS.index(match[3])]}.{leaf}"
    return f"{ {'conv1': layout.stem, 'bn1': layout.norm, 'fc': layout.linear}[part] }.{leaf}"


def _block(layout: Layout, group: int, block: int) -> str:
    return layout.block.format(g=group, g0=group - 1, b=block, b1=block + 1)


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


def read_weights(path: Path) -> Weights:
    """The weights in a file, see `read_file` and `from_torch`. Raises UserError."""
    file = read_file(path)
    weights = from_torch(file.arrays, str(path))
    return weights._replace(notes=file.notes + weights.notes, facts=file.facts)


def from_torch(flat: Mapping[str, np.ndarray], source: str) -> Weights:
    """The weights of a state dict; depth, width and number of classes follow from its names and shapes.

    Args:
      flat: arrays by the names of one of `LAYOUTS`. `PREFIXES` are taken off, and what evaluation does not need is left out.
        Other floating-point types become float32.
      source: what an error message is to call the origin, such as the file.

    Raises:
      UserError: the network is another one, or an array is missing, unknown, misshapen or not of floating-point numbers.
    """
    flat, normalisation, notes = _without_extras(flat, source)
    layout, theirs = _layout_of(flat, source)
    ours = {name: our for our, name in theirs.items()}
    # The functional layout has convolutions without a last part.
    ours |= {name.removesuffix(".weight"): our for our, name in theirs.items() if "conv" in our or "shortcut" in our}
    named = {ours.get(name, name): array for name, array in flat.items()}
    depth, widen_factor, num_classes = _sizes(named, theirs, source)
    expected = shapes(depth, widen_factor, num_classes)
    model = f"a WideResNet-{depth}-{widen_factor}"
    missing = [name for name in expected if name not in named]
    if missing == ["fc.bias"]:
        named["fc.bias"] = np.zeros(num_classes, np.float32)
        notes.append(f"it holds no {theirs['fc.bias']}: taken as 0")
    elif missing:
        more = f" (nor {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise UserError(f"{source}: holds no {theirs[missing[0]]}{more}; {model} has it, of shape {expected[missing[0]]}")
    params: dict[str, Any] = {}
    batch_stats: dict[str, Any] = {}
    for name, array in named.items():
        shape, shown = tuple(np.shape(array)), _shown(theirs.get(name, name))
        if name not in expected:
            raise UserError(f"{source}: {shown}, of shape {shape}, is no part of {model}")
        if shape != expected[name]:
            raise UserError(f"{source}: {shown} has the shape {shape}; should be {expected[name]} in {model}")
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise UserError(f"{source}: {shown}, of shape {shape}, is of type {array.dtype}; should be floating-point")
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
    normalisation = normalisation or LAYOUTS[layout].normalisation
    return Weights(depth, widen_factor, num_classes, params, batch_stats, layout, normalisation, tuple(notes))


def _without_extras(flat: Mapping[str, np.ndarray], source: str) -> tuple[dict[str, np.ndarray], MeanStd | None, list[str]]:
    """The arrays by names without prefixes and without what evaluation does not need; the normalisation kept among them."""
    prefix = re.compile(rf"(?:(?:{'|'.join(PREFIXES)})\.)+")
    named: dict[str, np.ndarray] = {}
    for name, array in flat.items():
        bare = name[prefix.match(name).end() :] if prefix.match(name) else name  # pyright: ignore[reportOptionalMemberAccess]
        if bare in named:
            raise UserError(f"{source}: holds {_shown(bare)} twice, under several prefixes; keep one of the networks")
        named[bare] = array
    named = {name: array for name, array in named.items() if not name.endswith("num_batches_tracked")}
    extras = [name for name in named if name in ("mu", "sigma", "n_averaged") or name.startswith("sub_block1.")]
    mean, std = (tuple(np.ravel(named[name]).tolist()) if name in named else () for name in ("mu", "sigma"))
    known = cast(MeanStd, (mean, std)) if len(mean) == len(std) == 3 and min(std) > 0 else None
    notes = (
        [f"passed over, as evaluation does not need it: {', '.join(extras[:4])}{', ...' * (len(extras) > 4)}"] if extras else []
    )
    return {name: array for name, array in named.items() if name not in extras}, known, notes


def _layout_of(flat: Mapping[str, np.ndarray], source: str) -> tuple[str, dict[str, str]]:
    """The layout that most names are of, and {our name: its name} for as many blocks as there are. Raises UserError."""
    for pattern, reason in REFUSED.items():
        if any(re.match(pattern, name) for name in flat):
            stem, norm = (np.shape(flat.get(name, 0)) for name in ("conv1.weight", "bn1.weight"))
            if stem and norm and stem[0] == norm[0]:
                reason = (
                    "a post-activation network, such as torch-uncertainty's or a ResNet: it normalises after its convolutions"
                )
            raise UserError(f"{source}: is not this package's network but {reason}")
    tables = {key: _names(layout, flat) for key, layout in LAYOUTS.items()}
    best = max(tables, key=lambda key: len(flat.keys() & set(tables[key].values())))
    if flat and not flat.keys() & set(tables[best].values()):
        own = ", ".join(_shown(name) for name in list(flat)[:6])
        raise UserError(f"{source}: its names are of no layout that is known here ({', '.join(LAYOUTS)}); it holds {own}, ...")
    return best, tables[best]


def _names(layout: Layout, flat: Mapping[str, np.ndarray]) -> dict[str, str]:
    blocks = 0
    while any(name.startswith(tuple(f"{_block(layout, group, blocks)}." for group in (1, 2, 3))) for name in flat):
        blocks += 1
    # Of width 2, whose first group has a shortcut too.
    return {name: name_in(layout, name) for name in shapes(6 * max(blocks, 1) + 4, 2, 1)}


def read_file(path: Path) -> File:
    """The arrays in a file of safetensors or of `torch.save`, whatever its name, for `from_torch`.

    The latter is a state dict, or a dictionary with one at one of `WRAPPERS`. It is read by PyTorch, which has to be
    installed, and as weights alone: no code in it runs.

    Raises:
      UserError: the file is absent, damaged or of another kind, or the package that reads it is not installed.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError as error:
        raise UserError(f"{path}: {'there is no such file' if not path.exists() else files.reason(error)}") from None
    suffix, text = path.suffix.lower(), head.lstrip().lower()
    if text.startswith(b"version https://git-lfs"):
        raise UserError(f"{path}: is a Git LFS pointer in the place of the weights; fetch them with `git lfs pull`")
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise UserError(f"{path}: is a web page, not weights; download the file itself (on GitHub and the Hub: raw, resolve)")
    if suffix == ".msgpack":
        raise UserError(f"{path}: is Flax's msgpack, as of google-research/sam, whose network has no shortcut convolutions")
    is_safetensors = head[8:9] == b"{"  # after the length of the header, whose first byte may be that of a pickle
    if not is_safetensors and (head.startswith((b"PK\x03\x04", b"\x80")) or head[257:262] == b"ustar"):
        return _read_torch(path)
    if is_safetensors or suffix == ".safetensors":
        return _read_safetensors(path)
    raise UserError(f"{path}: {'holds neither safetensors nor what torch.save writes' if head else 'is empty'}")


def _read_safetensors(path: Path) -> File:
    try:
        from safetensors import safe_open
    except ImportError:
        raise UserError(f"{path}: is read by safetensors, which is not installed: pip install safetensors") from None
    try:
        with safe_open(path, framework="numpy") as file:
            return File({name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {})  # noqa: SIM118
    except Exception as error:  # whatever is wrong with the file, for which the package has several
        raise UserError(f"{path}: cannot be read as safetensors ({_reason(error)})") from None


class _Inert:
    """What stands for anything of `HARMLESS`."""

    def __init__(self, *_: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _read_torch(path: Path) -> File:
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
        with warnings.catch_warnings(), torch.serialization.safe_globals([(_Inert, name) for name in HARMLESS]):
            warnings.simplefilter("ignore")
            loaded = torch.load(path, map_location="cpu", weights_only=True)
        weights, place = _unwrap(loaded)
        tensors = {str(name): tensor for name, tensor in weights.items() if isinstance(tensor, torch.Tensor)}
        # float32, since NumPy has no bfloat16 that PyTorch knows of.
        arrays = {name: (x.float() if x.is_floating_point() else x).detach().numpy() for name, x in tensors.items()}
    except Exception as error:  # of a dozen types, by where the file is wrong
        raise UserError(f"{path}: is damaged or holds more than weights, and is not read ({_reason(error)})") from None
    if arrays:
        return File(arrays, notes=place)
    raise UserError(f"{path}: holds no weights; should be a state dict, or a dictionary with one at {', '.join(WRAPPERS)}")


def _unwrap(loaded: Any) -> tuple[dict[Any, Any], tuple[str, ...]]:
    """The state dict in what a checkpoint file holds, and a line where the file holds several."""
    notes: list[str] = []
    for _ in range(len(WRAPPERS)):  # one in another; a file can hold itself
        keys = [key for key in WRAPPERS if isinstance(loaded, dict) and isinstance(loaded.get(key), dict) and loaded[key]]
        if len(keys) > 1:
            notes.append(f"of {', '.join(keys)} in the file, {keys[0]} is taken")
        loaded = loaded[keys[0]] if keys else loaded
    return loaded if isinstance(loaded, dict) else {}, tuple(notes)


def _sizes(named: Mapping[str, np.ndarray], theirs: Mapping[str, str], source: str) -> tuple[int, int, int]:
    """(depth, widen_factor, num_classes), from the number of blocks and the ends of the network."""
    widths = _shape(named, theirs, "bn1.weight", ("64 k",), source)
    classes = _shape(named, theirs, "fc.weight", ("classes", "64 k"), source)
    if widths[0] % 64 or not widths[0]:
        raise UserError(f"{source}: {theirs['bn1.weight']} has the shape {widths}; should be (64 k,), k being the widen factor")
    if not classes[0]:
        raise UserError(f"{source}: {theirs['fc.weight']} has the shape {classes}; should be (classes, {widths[0]})")
    blocks = sum(name.startswith("block1") and name.endswith("conv2.weight") for name in theirs)
    return 6 * blocks + 4, widths[0] // 64, classes[0]


def _shape(
    named: Mapping[str, np.ndarray], theirs: Mapping[str, str], name: str, axes: tuple[str, ...], source: str
) -> tuple[int, ...]:
    wanted = f"of shape ({', '.join(axes)}{',' * (len(axes) == 1)})"
    if name not in named:
        raise UserError(f"{source}: holds no {theirs[name]}; a WideResNet has it, {wanted}")
    shape = tuple(np.shape(named[name]))
    if len(shape) != len(axes):
        raise UserError(f"{source}: {theirs[name]} has the shape {shape}; should be {wanted.removeprefix('of shape ')}")
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
        return f"it holds {named[1]}; where it was made, save model.state_dict() alone"
    return f"{type(error).__name__}: {files.reason(error, 100)}" if str(error) else files.reason(error)
