"""What `import wrn_jax` offers: training, evaluating and using a model from Python.

It changes no setting of JAX. From the first use on, for the sake of checkpoints, three other things of the process change:
`tensorstore.experimental_collect_matching_metrics` gives nothing any more, since its answers leak memory, and
`sys.unraisablehook` and the log `asyncio` leave out what abandoned tasks of Orbax and TensorStore say.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from wrn_jax import config as configs
from wrn_jax import evaluate, export
from wrn_jax.config import Config, datasets
from wrn_jax.data import own_classes
from wrn_jax.data.normalisation import Normalisation
from wrn_jax.evaluation import files as evaluation_files
from wrn_jax.evaluation import metrics
from wrn_jax.evaluation.evaluator import Evaluator
from wrn_jax.models import export_formats, weight_layouts
from wrn_jax.models.network import Network
from wrn_jax.runtime import console, devices, files, hub
from wrn_jax.runtime.errors import UserError
from wrn_jax.training import loop
from wrn_jax.training.checkpoints import Saved
from wrn_jax.training.loop import Summary
from wrn_jax.training.workdir import default_workdir, holds_checkpoints, holds_progress, holds_run


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class TrainedModel:
    """A network with its weights, to be called with images.

    Attributes:
      config: what it was trained with; of a file of weights, the sizes of the network and the data set.
      params: parameters, nested dictionaries of float32 arrays.
      batch_stats: running statistics, likewise.
      class_names: of the outputs, in their order.
      mean, std: of the normalisation, per channel, for pixels in 0..1; the network does it itself.
      checkpoint: that of the run; None for a file of weights.
      network: of a checkpoint with a weight average "average", or "raw" for the network itself; None for others.
      figures: the evaluation of these weights, as in `evaluations/step-STEP.json` of the run; empty where there is none.
    """

    config: Config
    params: dict[str, Any]
    batch_stats: dict[str, Any]
    class_names: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    figures: dict[str, Any]
    _evaluator: Evaluator
    checkpoint: Saved | None = None
    network: str | None = None

    @property
    def temperature(self) -> float | None:
        """What the logits are divided by to be calibrated, as fitted on the hold-out; None where none was."""
        return (self.figures.get("temperature") or {}).get("value")

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Logits [N, classes] float32 of images [N, height, width, 3] uint8. Raises ValueError for other images."""
        shape = datasets.info(self.config.data).image_shape
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != shape or not len(images):
            expected = ", ".join(map(str, shape))
            raise ValueError(f"images: {images.dtype} {list(images.shape)}; should be uint8 [N, {expected}], N at least 1")
        # Few images do not wait for a batch of many; powers of two keep the number of compilations small.
        size = min(self.config.eval_batch_size, 1 << (len(images) - 1).bit_length())
        return np.concatenate(list(self._evaluator.logits(self.params, self.batch_stats, images, size)))

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Probabilities [N, classes] float64, calibrated where there is a `temperature`. Images and errors as of a call."""
        return np.exp(metrics.log_softmax(self(images) / np.float64(self.temperature or 1.0)))


def load_config(path_or_name: str | Path, overrides: Mapping[str, Any] | None = None) -> Config:
    """The configuration in a file, or the recipe of that name, such as "session04".

    Args:
      path_or_name: the file, which is executed, or the name.
      overrides: values by dotted keys, such as {"model.depth": 16}.

    Raises:
      UserError: there is no such file or recipe, or it or an override is wrong.
    """
    return own_classes.described(configs.load_file(path_or_name).override(dict(overrides or {})))


def train_model(
    config: Config | str | Path,
    workdir: str | Path | None = None,
    resume: bool | Literal["auto"] = False,
    log: Callable[[int, dict[str, float]], object] | None = None,
) -> Summary:
    """Trains, and prints how it goes, as `python -m wrn_jax.train`.

    An interrupt (SIGINT, the stop button of a notebook) finishes the step, saves a checkpoint and raises `Interrupted`; the
    same call with `resume=True` goes on from there. Where this does not run in the main thread, signals are not caught.

    Args:
      config: a configuration, or what `load_config` takes.
      workdir: where records and checkpoints go; None: a new folder in `runs/`.
      resume: continue the run in `workdir`; "auto": if there is one, else start it.
      log: called after each epoch with the number of finished updates and its figures by name, such as "test/accuracy", once
        they are in `metrics.jsonl`: a line for another logger. What it raises is said, and stops nothing.

    Returns:
      The work directory, and the rows of the best and the last epoch.

    Raises:
      UserError, Diverged, Interrupted: see `wrn_jax.runtime.errors`.
    """
    name = "run" if isinstance(config, Config) else Path(config).stem
    config = own_classes.described(config if isinstance(config, Config) else load_config(config))
    directory = default_workdir(name) if workdir is None else files.user_path(workdir)
    if resume == "auto":
        resume = holds_run(directory) and holds_progress(directory)
    return loop.train(config, directory, resume, hook=log)


def evaluate_model(workdir: str | Path, checkpoint: str = "best", *options: str) -> dict[str, Any]:
    """Evaluates a checkpoint of a run, and prints and writes what `python -m wrn_jax.evaluate` does.

    Args:
      workdir: the directory of the run.
      checkpoint: "best", "last", or the number of an epoch that was kept.
      options: further options of the command, such as "--flip" or "--no-train".

    Returns:
      All figures, as in `evaluations/step-STEP.json` of the run.

    Raises:
      UserError: something in the run, the data or the options that the user can mend.
    """
    directory = files.user_path(workdir)
    written = evaluate.evaluate(["--workdir", str(directory), "--checkpoint", checkpoint, *options])
    if written is None:
        raise UserError(f"{directory}: the run has replaced every checkpoint before it could be read")
    return json.loads(written.read_text())


def load_model(
    source: str | Path,
    checkpoint: str = "best",
    data: str | None = None,
    network: Literal["average", "raw"] | None = None,
) -> TrainedModel:
    """A trained network, on the first device.

    Args:
      source: the directory of a run, a file of weights (.safetensors, PyTorch's .pth), a folder that `publish` made, or
        "hub:USER/NAME" or "hub:USER/NAME@REVISION" for a repository of the Hugging Face Hub.
      checkpoint: of a run: "best", "last", or the number of an epoch that was kept.
      data: of a file: the data set that it was trained on, where the file does not say; None: that of the default
        configuration.
      network: of a run: "average", its weight average, or "raw"; None: the average where there is one.

    Raises:
      UserError: there is no such run, checkpoint, file or repository, or it is damaged.
    """
    text, saved, network_name, figures, published = os.fspath(source), None, None, {}, None
    if text.startswith(hub.PREFIX):
        path = hub.fetch(text.removeprefix(hub.PREFIX))
        published = path.parent
    else:
        path = files.user_path(source)
        if (path / hub.WEIGHTS[0]).is_file() and not holds_checkpoints(path):
            published, path = path, path / hub.WEIGHTS[0]
    if not path.exists():
        raise UserError(f"{path}: there is no such run or file")
    normalisation = None
    if path.is_dir():
        if data is not None:
            raise UserError(f"data = {data!r}: {path} is a run, which says what it was trained on")
        model = export.restore(path, checkpoint, network)
        config, weights, saved = model.config, (model.params, model.batch_stats), model.saved
        num_classes = model.num_classes
        network_name = model.network if saved.network == "average" else None
        figures = _figures(path / "evaluations" / f"{saved.evaluation_name(model.network)}.json")
    else:
        if network is not None:
            raise UserError(f"network = {network!r}: {path} is a file, which holds one network")
        read = weight_layouts.read_weights(path)
        for note in read.notes:
            console.tell(note)
        config = export_formats.config_of(read, str(path))
        config = config if data is None else config.override({"data.name": data})
        weights, num_classes = (read.params, read.batch_stats), read.num_classes
        normalisation = export_formats.normalisation_of(read, str(path))
        if published and (its := _published(published)):
            config, figures = its
    info = datasets.info(config.data)
    mean, std = normalisation or (info.mean, info.std)
    mesh = devices.make_mesh(1)
    definition = Network(config.model, num_classes, devices.compute_dtype(config.precision, jax.devices()[0]))
    evaluator = Evaluator(definition.graphdef, Normalisation(mean, std), config.eval_batch_size, mesh)
    params, batch_stats = devices.replicate(weights, mesh)
    names = datasets.output_names(info.label_names, num_classes)
    return TrainedModel(config, params, batch_stats, names, mean, std, figures, evaluator, saved, network_name)


def _figures(path: Path) -> dict[str, Any]:
    return evaluation_files.read(path).to_dict() if path.is_file() else {}


def _published(folder: Path) -> tuple[Config, dict[str, Any]] | None:
    """The configuration and the evaluation in a folder that `publish` wrote; None in others. Raises UserError.

    An evaluation that is not of the epoch and the temperature in config.json is one of other weights, and counts for none.
    """
    path = folder / "config.json"
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(tree, dict) or "config_digest" not in tree:
        return None
    config, figures = configs.from_dict(tree["run"], f"{path}, run"), _figures(folder / "evaluation.json")
    found = figures.get("epoch"), (figures.get("temperature") or {}).get("value")
    return config, figures if found == (tree.get("epoch"), tree.get("temperature")) else {}
