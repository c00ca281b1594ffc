"""The card of a published model: what it is, how good and how sure it is, how it was made, how to run it; as Markdown.

The first lines are the metadata that the Hugging Face Hub reads. A card ends with a digest of itself, by which one that a
person wrote or changed is known and left alone.
"""

import dataclasses
import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wrn_jax.config import datasets
from wrn_jax.report import build, formats, statistics
from wrn_jax.report.render.blocks import Table
from wrn_jax.report.render.markdown import to_markdown_block
from wrn_jax.report.runs import Group, Run
from wrn_jax.training.records import SPLITS, EpochRow, Origin

_MARK = re.compile(r"\n<!-- wrn_jax\.publish ([0-9a-f]{16}) -->\n\Z")

PRIVATE = ("data.directory", "data.archive", "data.cache")
"""Keys of a configuration that say how a disk is arranged: nobody else's business."""

_PLACES = ("--workdir", "--branch-from", "--init-from", "--checkpoint", "--network", *(f"--config.{key}" for key in PRIVATE))
"""Options of a run that say where things lay, and which of what lay there was taken."""


def sealed(text: str) -> str:
    """The card with its digest."""
    text = text.rstrip() + "\n"
    return f"{text}\n<!-- wrn_jax.publish {_digest(text)} -->\n"


def is_own(text: str) -> bool:
    """Whether a card is as this module wrote it."""
    text = text.replace("\r\n", "\n")
    mark = _MARK.search(text)
    return mark is not None and mark[1] == _digest(text[: mark.start()])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write(
    repo: str, run: Run, group: Group, epoch: int, facts: Mapping[str, Any], figures: Mapping[str, Any], pictures: list[str]
) -> str:
    """The card, not `sealed` yet.

    Args:
      repo: USER/NAME.
      run: the run that is published.
      group: it, and further runs of its recipe with other seeds.
      epoch: after which the weights were taken.
      facts: what is in the config.json beside it.
      figures: the evaluation of the weights, as its record gives it; empty without one.
      pictures: those of recipe.png and curves.png that are there.
    """
    name = repo.rpartition("/")[2]
    network = f"WideResNet-{facts['depth']}-{facts['widen_factor']}"
    title = facts["dataset"]
    row = run.rows[epoch - 1]
    parts = [
        _metadata(name, facts, figures, _test_accuracy(row, facts.get("network"))),
        f"# {name}",
        f"{network} ({facts['parameters']:,} parameters) on {title}, trained with the recipe below by `wrn_jax` in JAX. These "
        f"are the weights after epoch {epoch} of {run.epochs}{'' if run.finished else ', of a run that is not finished'}"
        f"{_NETWORKS[facts.get('network')]}.",
        "## How good it is",
        *_accuracy(run, group, row, facts.get("network")),
        *_evaluation(figures),
        "## How it was made",
        *(f"![{words}]({file})" for file, words in _PICTURES.items() if file in pictures),
        *_making(run, facts),
        "## How to run it",
        _USE.replace("USER/NAME", repo),
    ]
    return "\n\n".join(parts)


_NETWORKS = {
    None: "",
    "average": ": their moving average over the updates, which the figures are of",
    "raw": ": those of the last update itself, not their moving average, which the run was evaluated with",
}
"""What is said of weights by the network that they are, in a run with a weight average."""


def _test_accuracy(row: EpochRow, network: str | None) -> float:
    """That of the weights after the epoch: of the network itself where those are published."""
    raw = row.raw_test_accuracy if network == "raw" else None
    return row.test_accuracy if raw is None else raw


_PICTURES = {
    "recipe.png": "The moving values of the recipe over the epochs, and the accuracies of the run",
    "curves.png": "Accuracy, loss and gap over the epochs",
}

_USE = """In PyTorch, with the files of this repository in a folder (`hf download USER/NAME --local-dir model`):

```python
from wide_resnet import load  # wide_resnet.py of the folder; needs torch and safetensors
model = load(".")
logits = model(images)  # uint8 [N, 32, 32, 3], not normalised
```

In JAX, the program with its weights, which needs `jax` and `flatbuffers` alone:

```python
import jax.export
logits = jax.export.deserialize(open("model.stablehlo", "rb").read()).call(images)
```

With `wrn_jax`: `wrn_jax.load_model("hub:USER/NAME")(images)`, or `python -m wrn_jax.evaluate --hub USER/NAME`. Mean, standard
deviation and class names are in `config.json`; the whole configuration of the run is there too."""


def _metadata(name: str, facts: Mapping[str, Any], figures: Mapping[str, Any], accuracy: float) -> str:
    test = figures.get("splits", {}).get("test", {})
    metrics = [{"type": "accuracy", "name": "test accuracy", "value": round(test.get("accuracy", accuracy), 6)}]
    for key in ("top5", "loss", "calibration_error"):
        if test.get(key) is not None:
            metrics.append({"type": key, "name": f"test {key.replace('_', ' ')}", "value": test[key]})
    data = {"type": facts["hub_dataset"] or facts["data"], "name": facts["dataset"], "split": "test"}
    results = [{"task": {"type": "image-classification"}, "dataset": data, "metrics": metrics}]
    keys: dict[str, Any] = {
        "library_name": "wrn_jax",
        "pipeline_tag": "image-classification",
        "tags": ["jax", "flax", "pytorch", "wide-resnet", "image-classification"],
        **({"datasets": [facts["hub_dataset"]]} if facts["hub_dataset"] else {}),
        "metrics": ["accuracy"],
        "model-index": [{"name": name, "results": results}],
    }
    return "---\n" + "".join(f"{key}: {json.dumps(value)}\n" for key, value in keys.items()) + "---"  # JSON is YAML


def _accuracy(run: Run, group: Group, row: EpochRow, network: str | None) -> list[str]:
    chosen = SPLITS[run.judge]
    flatters = "" if run.judge == "valid" else " That flatters it: it was chosen on the very images that it is tested on."
    others = " of the other runs" if group.finished and not run.finished else ""
    rows = [
        ["these weights", f"epoch {row.epoch}", f"{_test_accuracy(row, network):.2%}", "1", ""],
        _over_seeds(f"best epoch{others}, chosen on the {chosen} images", group, "best"),
        _over_seeds(f"last epoch{others}", group, "last"),
    ]
    note = (
        f"The best epoch is the one of the highest accuracy on the {chosen} images.{flatters} In this run the best is epoch "
        f"{run.best.epoch} with {run.best.test_accuracy:.2%} and the last is epoch {run.last.epoch} with "
        f"{run.last.test_accuracy:.2%}: {100 * (run.best.test_accuracy - run.last.test_accuracy):+.2f} points apart."
    )
    if len(group.counted) == 1:
        note += " One seed: nothing is known of the spread over seeds."
    if len(group.runs) > 1 and (unfinished := build.unfinished_runs(group)):
        note += f" Not finished: {formats.listed(unfinished)}; {build.how_counted(group, 'they count in no mean')}."
    return [to_markdown_block(Table("Test accuracy", ["", "epochs", "mean", "n", "standard deviation"], rows, note=note))]


def _over_seeds(label: str, group: Group, which: str) -> list[str]:
    rows: list[EpochRow] = [getattr(one, which) for one in group.counted]
    found = statistics.summarise([row.test_accuracy for row in rows])
    spread = "" if found.sd is None else f"{100 * found.sd:.2f} points (95 % interval {found.low:.2%} to {found.high:.2%})"
    return [label, ", ".join(str(row.epoch) for row in rows), f"{found.mean:.2%}", str(found.n), spread]


def _evaluation(figures: Mapping[str, Any]) -> list[str]:
    if not figures:
        return ["These weights were not evaluated further: no calibration, no corruptions."]
    test = figures["splits"]["test"]
    low, high = test.get("accuracy_interval") or (None, None)
    rows = [["accuracy", f"{test['accuracy']:.2%}" + (f" (95 % interval {low:.2%} to {high:.2%})" if low is not None else "")]]
    if test.get("top5") is not None:
        rows.append(["top-5 accuracy", f"{test['top5']:.2%}"])
    if test.get("loss") is not None:
        rows.append(["loss", f"{test['loss']:.4f}"])
    if test.get("calibration_error") is not None:
        rows.append(["calibration error, 15 bins", f"{test['calibration_error']:.2%}"])
    if temperature := figures.get("temperature"):
        value = f"{temperature['value']:.3f}, fitted on the hold-out"
        if temperature.get("calibration_error") is not None:
            value += f"; calibration error with it {temperature['calibration_error']:.2%}"
        rows.append(["temperature", value])
    else:
        rows.append(["temperature", f"none was fitted: {figures.get('temperature_missing') or 'the reason is not recorded'}"])
    if figures.get("clean_gap") is not None:
        rows.append(["accuracy on clean training images minus that", f"{100 * figures['clean_gap']:.2f} points"])
    if figures.get("mean_corruption_accuracy") is not None:
        origin = f"{len(figures['corruptions_in_mean'])} corruptions, {figures['corruption_images']} images of each"
        rows.append(["accuracy on corrupted images, mean", f"{figures['mean_corruption_accuracy']:.2%} ({origin})"])
    else:
        rows.append(["accuracy on corrupted images", "not measured"])
    return [to_markdown_block(Table("Evaluation of these weights on the test images", ["", "value"], rows))]


def _making(run: Run, facts: Mapping[str, Any]) -> list[str]:
    rows = [
        ["command", _command(run)],
        *([["beginning", origin.describe()]] if (origin := _origin(run)) else []),
        ["configuration", f"in config.json, SHA-256 {facts['config_digest']}"],
        ["seed", str(run.seed)],
        ["hardware", formats.machine(run)],
        ["normalisation", f"mean {facts['mean']}, standard deviation {facts['std']}, for pixels in 0..1"],
    ]
    if run.headers:
        versions = run.headers[-1].versions
        rows.append(
            ["versions", ", ".join(f"{name} {versions[name]}" for name in ("python", "jax", "flax") if name in versions)]
        )
    held_out = facts["run"]["data"]["validation_size"]
    rows.append(["held out of the training images", f"{held_out:,}" if held_out else "none"])
    return [to_markdown_block(Table("The run", ["", "value"], rows))]


def _origin(run: Run) -> Origin | None:
    """Where it began that did not with random weights, by its name alone."""
    return run.origin and dataclasses.replace(run.origin, source=Path(run.origin.source).name)


def _command(run: Run) -> str:
    """The command that started the run, without where things lay; of paths the names alone."""
    try:
        words = iter(shlex.split(build.command_of(run)))
    except ValueError:
        return formats.NOT_RECORDED
    shown: list[str] = []
    for word in words:
        option, sign, value = word.partition("=")
        if option in _PLACES or option == "--config":
            value = value if sign else next(words, "")
            shown += [option, Path(value).name] if option == "--config" else []
        else:
            shown.append(Path(word).name if word.startswith("/") else word)
    return shlex.join(shown)


def dataset_facts(config: Any) -> dict[str, Any]:
    """What a config.json says of the images."""
    info = datasets.info(config.data)
    return {"data": info.name, "dataset": info.title, "hub_dataset": info.hub_name}
