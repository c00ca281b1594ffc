"""Says what is in pictures: `python -m wrn_jax.predict --workdir RUN image.png ...`.

Pictures may be of any size and format that Pillow reads. Probabilities are calibrated where the run's checkpoint was evaluated
with a hold-out.
"""

from wrn_jax.runtime import entry

if __name__ == "__main__":
    entry.begin("predict")

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wrn_jax import command
from wrn_jax.config import datasets
from wrn_jax.data import pictures
from wrn_jax.data.pictures import Picture
from wrn_jax.runtime import files, hub
from wrn_jax.runtime.errors import UserError
from wrn_jax.runtime.files import user_path
from wrn_jax.runtime.text import printable

if TYPE_CHECKING:
    from wrn_jax.api import TrainedModel

TOP = 5
"""Classes named for each picture."""


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the likeliest classes of each picture. Raises UserError, for pictures that cannot be read after the others."""
    parser = command.parser("predict", "Says what is in pictures: the likeliest classes and their probabilities.")
    sources = parser.add_mutually_exclusive_group(required=True)
    sources.add_argument("--workdir", type=user_path, metavar="DIR", help="the directory of the run")
    sources.add_argument("--weights", type=user_path, metavar="FILE", help="safetensors or PyTorch, instead of a run")
    sources.add_argument("--hub", metavar="USER/NAME[@REVISION]", help="a repository of the Hugging Face Hub, instead of a run")
    parser.add_argument("--checkpoint", metavar="WHICH", help="of a run: best (default), last, or the number of an epoch")
    command.add_network(parser)
    parser.add_argument("--data", choices=datasets.DATASETS, help="of a file that does not say: what it was trained on")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--contact-sheet", type=user_path, metavar="FILE", help="also draw the pictures and classes as PNG")
    parser.add_argument("images", nargs="+", type=user_path, metavar="IMAGE", help="a picture in a file")
    options = parser.parse_args(argv)
    command.check_of_run(options)
    if options.data and options.workdir:
        raise UserError("--data goes with --weights: a run says what it was trained on")
    from wrn_jax import api  # here, since the help need not wait for all that trains

    source = options.workdir or options.weights or f"{hub.PREFIX}{options.hub}"
    model = api.load_model(source, options.checkpoint or "best", options.data, options.network)
    height, width, _ = datasets.info(model.config.data).image_shape
    read: dict[Path, Picture] = {}
    troubles: list[str] = []
    for path in options.images:
        try:
            read[path] = pictures.read(path, height, width)
        except UserError as error:
            troubles.append(str(error))
    if read:
        probabilities = model.probabilities(np.stack([picture.pixels for picture in read.values()]))
        found = [likeliest(row, model.class_names) for row in probabilities]
        print(json.dumps(as_json(model, read, found), indent=2) if options.json else "\n".join(as_text(model, read, found)))
        if options.contact_sheet:
            write_sheet(options.contact_sheet, read, found)
    if troubles:
        raise UserError("; ".join(troubles))


def likeliest(probabilities: np.ndarray, names: Sequence[str]) -> list[tuple[str, float]]:
    """The `TOP` likeliest classes, [classes] in 0..1, the first among equals first; none where the outputs are not finite."""
    if not np.isfinite(probabilities).all():
        return []
    best = np.argsort(-probabilities, kind="stable")[:TOP]
    return [(names[int(label)], float(probabilities[label])) for label in best]


def as_json(model: "TrainedModel", read: dict[Path, Picture], found: list[list[tuple[str, float]]]) -> dict[str, Any]:
    """What was predicted, as plain JSON data."""
    return {
        "network": model.network,
        "temperature": model.temperature,
        "images": [
            {
                "path": str(path),
                "width": picture.size[0],
                "height": picture.size[1],
                "change": picture.change or None,
                "classes": [{"name": name, "probability": round(probability, 6)} for name, probability in classes],
            }
            for (path, picture), classes in zip(read.items(), found, strict=True)
        ],
    }


def as_text(model: "TrainedModel", read: dict[Path, Picture], found: list[list[tuple[str, float]]]) -> list[str]:
    """What was predicted, as lines for people."""
    temperature = model.temperature
    calibrated = "not calibrated; no temperature was fitted to these weights"
    if temperature:
        calibrated = f"calibrated with temperature {temperature:.3f}, fitted on the hold-out"
    network = {"average": " of the weight average", "raw": " without the weight average"}.get(model.network or "", "")
    lines = [f"probabilities{network}: {calibrated}"]
    for (path, picture), classes in zip(read.items(), found, strict=True):
        size = f"{picture.size[0]}x{picture.size[1]}"
        lines.append(f"{printable(str(path))} ({', '.join(filter(None, [size, picture.change]))})")
        lines += [f"  {probability:7.2%}  {name}" for name, probability in classes] or ["  the outputs are not finite"]
    return lines


def write_sheet(file: Path, read: dict[Path, Picture], found: list[list[tuple[str, float]]]) -> None:
    """Draws the pictures as the network sees them, with their classes. Raises UserError."""
    texts = [
        [printable(path.name), *(f"{probability:.0%} {name}" for name, probability in classes[:3])]
        for path, classes in zip(read, found, strict=True)
    ]
    drawn = pictures.sheet([picture.pixels for picture in read.values()], texts)
    try:
        files.write_atomically(file, pictures.to_png(drawn))
    except OSError as error:
        raise UserError(f"{file}: cannot be written: {error.strerror}") from None


if __name__ == "__main__":
    sys.exit(command.run(main, "predict"))
