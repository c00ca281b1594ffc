"""Evaluates a checkpoint: `python -m wrn_jax.evaluate --workdir DIR --checkpoint best`.

Beside what it prints, it leaves in the run, or in `--out DIR`,
  evaluations/step-STEP.json   (step-STEP-raw.json where --network raw was asked of a checkpoint with a weight average)
                               all figures, and what they were computed by, on and from,
  evaluations/step-STEP.npz    for every test and held-out image, in the order of the data set, the prediction, its
                               probability and that of the right label: enough to compare runs without their models,
  evaluations/step-STEP.html   with --gallery, a page to look at: what is most surely wrong, what is taken for what.
Nothing else in the run is touched.
"""

from wrn_jax.runtime import allocator, entry

if __name__ == "__main__":
    allocator.restart("wrn_jax.evaluate")
    entry.begin("evaluate")

import argparse
import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wrn_jax import command
from wrn_jax import config as configs
from wrn_jax.config import datasets
from wrn_jax.data import cifar, loading, own_classes
from wrn_jax.data.loading import Dataset
from wrn_jax.data.normalisation import Normalisation, in_words
from wrn_jax.evaluation import corrupted as corrupted_sets
from wrn_jax.evaluation import files as evaluation_files
from wrn_jax.evaluation.corrupted import Corrupted
from wrn_jax.evaluation.files import Record
from wrn_jax.evaluation.metrics import Scored
from wrn_jax.models import export_formats, weight_layouts
from wrn_jax.models.weight_layouts import MeanStd
from wrn_jax.runtime import console, devices, environment, files, hub
from wrn_jax.runtime.errors import UserError
from wrn_jax.runtime.files import user_path
from wrn_jax.training.workdir import check_checkpoints, check_digests, checkpoints_folder, saved_config

if TYPE_CHECKING:
    from wrn_jax.training.setup import Setup

DRAWN = "drawn"
"""The value of `--corruptions` that asks for corruptions made here."""


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = command.parser(
        "evaluate",
        "Evaluates checkpoints of a run, or a file of weights, on the test images.\n"
        "--config.KEY=VALUE changes a key of the run's configuration, such as eval_batch_size, precision, data.directory.\n"
        + allocator.HELP,
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--workdir", type=user_path, metavar="DIR", help="the directory of the run")
    source.add_argument("--weights", type=user_path, metavar="FILE", help="safetensors or PyTorch, instead of a run")
    source.add_argument("--hub", metavar="USER/NAME[@REVISION]", help="a repository of the Hugging Face Hub, instead of a run")
    parser.add_argument(
        "--mean",
        nargs="+",
        metavar="X",
        help="of a file of weights: mean of the images that it wants, one number or three in 0..1, or the name of a known "
        f"normalisation: {', '.join(datasets.NORMALISATIONS)} (default: as the file or its layout says, else the data set's)",
    )
    parser.add_argument(
        "--std", nargs="+", metavar="X", help="the standard deviation, likewise (default: that named by --mean)"
    )
    parser.add_argument(
        "--checkpoint",
        metavar="WHICH",
        help="best (default), last, the number of an epoch that was kept, or all that were, one after the other",
    )
    command.add_network(parser)
    parser.add_argument("--no-train", dest="train", action="store_false", help="leave out the training images")
    parser.add_argument("--save-train", action="store_true", help="write the predictions on training images too")
    parser.add_argument("--flip", action="store_true", help="also average the outputs for each image and its mirror image")
    parser.add_argument(
        "--corruptions",
        nargs="?",
        const="",
        metavar="DIR",
        help="also evaluate corrupted test images: those of CIFAR-100-C in DIR; without DIR those of CIFAR-100-C in the data "
        f"directory, or, where it is not there, drawn ones; DIR = {DRAWN} draws in any case",
    )
    parser.add_argument(
        "--corruption-images", type=command.whole_number, metavar="N", help="only the first N of the corrupted images"
    )
    parser.add_argument(
        "--gallery", action="store_true", help="also write a page with the images that were most surely mistaken, to look at"
    )
    parser.add_argument("--out", type=user_path, metavar="DIR", help="where the files go (default: evaluations/ in the run)")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """The command. Raises UserError."""
    evaluate(argv, own_process=True)


def evaluate(argv: Sequence[str] | None = None, own_process: bool = False) -> Path | None:
    """Evaluates what the arguments name, prints a summary, writes the figures, and returns the last file of them, if any.

    Args:
      argv: the arguments of the command; None: those of the process.
      own_process: whether the process is there for this alone, so that JAX may be configured for it.

    Raises:
      UserError: something in the arguments, the run or the data that the user can mend.
    """
    options, overrides = command.parse(make_parser(), argv)
    if options.corruption_images is not None and options.corruptions is None:
        raise UserError("--corruption-images goes with --corruptions")
    asked = asked_normalisation(options.mean, options.std)
    if asked and options.workdir:
        raise UserError("--mean and --std go with --weights or --hub; a run is evaluated as it was trained")
    if options.gallery and not options.workdir and not options.out:
        raise UserError("--gallery of a file of weights goes with --out DIR, where the page is written")
    command.check_of_run(options)
    options.checkpoint = options.checkpoint or "best"
    if options.hub:
        options.weights = hub.fetch(options.hub)
    if options.weights:
        return evaluate_weights(options, overrides, asked, own_process)
    return evaluate_run(options, overrides, own_process)


def evaluate_run(options: argparse.Namespace, overrides: Sequence[str], own_process: bool) -> Path | None:
    """Evaluates checkpoints of a run, which may go on meanwhile; the last file written. Raises UserError."""
    own = saved_config(options.workdir)
    config = configs.apply_arguments(own, overrides)
    check_same_images(own.data, config.data)
    folder = checkpoints_folder(options.workdir)
    from wrn_jax.evaluation.examination import examine  # here, since help and refusals need not wait for it
    from wrn_jax.training.checkpoints import Checkpoints, Gone, best_of, choose
    from wrn_jax.training.setup import divide_cpu, make_setup

    if own_process:
        divide_cpu(config, for_training=False)  # before Orbax asks for devices
    damaged = []
    with Checkpoints(folder) as checkpoints:
        saved = checkpoints.all()
        chosen = saved if options.checkpoint == "all" and saved else [choose(saved, options.checkpoint, folder, "all")]
        out = make_directory(options.out or options.workdir / "evaluations")
        # All devices that are here, whatever the run had: every image counts once on any number of them.
        setup = make_setup(config, devices.make_mesh(), for_training=False)
        dataset = loading.load(config.data)
        check_checkpoints(saved, options.workdir, own, comparable_digests(dataset, own.data, config.data))
        corrupted = corrupted_images(options, dataset, config.data)
        judge = "test" if dataset.valid is None else "valid"
        print(images_line(setup, "that of the run"))
        network = setup.network
        like = (network.params, network.batch_stats, devices.replicated(setup.mesh))
        evaluator = setup.make_evaluator()
        written = None
        for checkpoint in chosen:
            try:
                if options.checkpoint == "all":
                    weights = checkpoints.restore_model(checkpoint.step, *like, checkpoint.choose_network(options.network))
                else:
                    checkpoint, weights = checkpoints.restore_chosen(options.checkpoint, *like, network=options.network)
            except Gone as error:
                console.tell(str(error))
                continue
            except UserError as error:
                if len(chosen) == 1:
                    raise
                damaged.append(str(error))
                continue
            network_name = checkpoint.choose_network(options.network)
            saved = checkpoints.all() or [checkpoint]
            best, last = best_of(saved), saved[-1]
            title = f"{options.workdir} after epoch {checkpoint.epoch}, step {checkpoint.step}, {network.dtype}"
            head: dict[str, Any] = {}
            if checkpoint.network == "average":
                title += ", weight average" if network_name == "average" else ", without its weight average"
                head = {"network": network_name}
            flattered = judge == "test" and checkpoint == best
            examined = examine(evaluator, weights, dataset, corrupted, title, options.train, options.flip, flattered)
            chosen_as = [name for name, which in (("best", best), ("last", last)) if which == checkpoint]
            head |= {"step": checkpoint.step, "epoch": checkpoint.epoch, "chosen_as": chosen_as, "judge": judge}
            stem = checkpoint.evaluation_name(network_name)
            written = write(out, stem, head, setup, examined, options.save_train)
            if options.gallery:
                write_gallery(out / f"{stem}.html", title, dataset, examined)
    if damaged:
        raise UserError("; ".join(damaged))
    return written


def evaluate_weights(
    options: argparse.Namespace, overrides: Sequence[str], asked: MeanStd | None, own_process: bool
) -> Path | None:
    """Evaluates a file of weights, with the normalisation that was asked for; the file written, if one is. Raises UserError."""
    file = f"{hub.PREFIX}{options.hub}" if options.hub else str(options.weights)
    weights = weight_layouts.read_weights(options.weights)
    own = export_formats.config_of(weights, file)
    config = configs.apply_arguments(own, overrides)
    described = export_formats.data_facts(weights, file)
    if config.data.name != own.data.name:  # what the file says of a hold-out is of another set
        config = configs.apply_arguments(export_formats.config_of(weights._replace(facts={}), file), overrides)
        config = own_classes.described(config)
    elif described:
        check_same_images(own.data, config.data)
    if config.model != own.model:
        raise UserError("--config.model: depth, width and number of classes are those of the weights")
    out = make_directory(options.out) if options.out else None
    num_classes = datasets.info(config.data).num_classes
    # A run may have more outputs than classes; its own export says that it is of this set.
    more = described and config.data.name == own.data.name
    if weights.num_classes < num_classes or (weights.num_classes > num_classes and not more):
        raise UserError(
            f"{file}: has {weights.num_classes} outputs, and {config.data.name} {num_classes} classes; "
            "--config.data.name chooses the data set"
        )
    from wrn_jax.evaluation.examination import examine
    from wrn_jax.training.setup import divide_cpu, make_setup

    if own_process:
        divide_cpu(config, for_training=False)
    setup = make_setup(config, devices.make_mesh(), for_training=False)
    known = export_formats.normalisation_of(weights, file)
    if mean_std := asked or known:
        setup = dataclasses.replace(setup, normalisation=Normalisation(*mean_std))
    usual = weight_layouts.LAYOUTS[weights.layout].normalisation
    whose = f"usual for weights by {weights.layout}'s names" if known == usual else "that in the file"
    why = "as asked for" if asked else whose if known else "that of the data set"
    why += "" if asked or described else "; --mean and --std choose another"
    dataset = loading.load(config.data)
    if described and config.data.name == own.data.name:
        check_digests(described.data_digests, comparable_digests(dataset, own.data, config.data), file)
    for line in (*weights.notes, images_line(setup, why)):
        print(line)
    corrupted = corrupted_images(options, dataset, config.data)
    placed = devices.replicate((weights.params, weights.batch_stats), setup.mesh)
    title = f"{file}, {config.model.title}, {setup.network.dtype}"
    examined = examine(setup.make_evaluator(), placed, dataset, corrupted, title, options.train, options.flip)
    if out:
        head = {"step": None, "epoch": None, "weights": file}
        written = write(out, options.weights.stem, head, setup, examined, options.save_train)
        if options.gallery:
            write_gallery(out / f"{options.weights.stem}.html", title, dataset, examined)
        return written
    return None


def asked_normalisation(mean: Sequence[str] | None, std: Sequence[str] | None) -> MeanStd | None:
    """What --mean and --std mean; None where they are not given. Raises UserError."""
    if mean is None and std is None:
        return None
    if mean is None or (std is None and not set(mean) <= datasets.NORMALISATIONS.keys()):
        raise UserError("--mean and --std go together; or --mean NAME alone, see --help")
    return _channels("--mean", mean, 0), _channels("--std", std or mean, 1)


def _channels(option: str, words: Sequence[str], place: int) -> tuple[float, float, float]:
    if len(words) == 1 and words[0] in datasets.NORMALISATIONS:
        return datasets.NORMALISATIONS[words[0]][place]
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 3) or not all(0 <= number <= 1 for number in numbers) or (place and not all(numbers)):
        expected = f"one number or three in 0..1{', none of them 0,' * place} or one of {', '.join(datasets.NORMALISATIONS)}"
        raise UserError(f"{option} {' '.join(words)[:60]!r}: should be {expected}")
    red, green, blue = numbers * (3 // len(numbers))
    return red, green, blue


def images_line(setup: "Setup", why: str) -> str:
    """What the network is evaluated on, and as which numbers it sees it."""
    normalised = in_words(setup.normalisation.mean, setup.normalisation.std)
    name, title = setup.config.data.name, setup.dataset.title
    return f"images: test split of {title} ({name}), normalised with {normalised} ({why})"


def write(
    out: Path,
    stem: str,
    head: dict[str, Any],
    setup: "Setup",
    examined: tuple[dict[str, Any], dict[str, Scored]],
    save_train: bool,
) -> Path:
    """Writes what was examined, says where, and returns the file of the figures. Raises UserError."""
    figures, scored = examined
    record = Record(
        time=environment.now(),
        command=shlex.join(sys.argv),
        precision=setup.network.dtype,
        data=setup.config.data.name,
        mean=setup.normalisation.mean,
        std=setup.normalisation.std,
        hardware=environment.hardware() | {"devices_used": setup.mesh.size},
        versions=environment.versions(),
        **head,
        **figures,
    )
    record, before = evaluation_files.completed(record, out / f"{stem}.json")
    if before:
        print(f"kept from the evaluation before: {', '.join(before)}")
    kept = {split: images for split, images in scored.items() if split != "train" or save_train}
    evaluation_files.write(out, stem, record, kept)
    print(f"written: {out / stem}.json and {stem}.npz")
    return out / f"{stem}.json"


def write_gallery(path: Path, title: str, dataset: Dataset, examined: tuple[dict[str, Any], dict[str, Scored]]) -> None:
    """Writes the page to look at, and says where. Raises UserError."""
    from wrn_jax.report import gallery  # here, since few ask for it
    from wrn_jax.report.render import html_page

    figures, scored = examined
    document = gallery.build(title, figures, scored["test"], dataset.test.images, dataset.class_names)
    try:
        files.write_atomically(path, html_page.to_html(document))
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None
    print(f"written: {path}")


def check_same_images(own: configs.Data, asked: configs.Data) -> None:
    """Refuses keys by which the training and held-out images would be others than the run's. Raises UserError."""
    for name in ("name", "validation_size", "validation_seed", "embedded_train", "embedded_seed"):
        if getattr(own, name) != getattr(asked, name):
            raise UserError(
                f"data.{name} = {getattr(asked, name)}: the run had {getattr(own, name)}; with another value, training and "
                "held-out images would not be the run's"
            )


def comparable_digests(dataset: Dataset, own: configs.Data, asked: configs.Data) -> dict[str, str]:
    """The digests of the images that should be those of the run; of drawn sets the number of test images may be another."""
    digests = loading.digests(dataset)
    if own.embedded_test != asked.embedded_test:
        del digests["test"]
    return digests


def make_directory(directory: Path) -> Path:
    """Makes the directory for the files, and finds out before any work whether it can be written to. Raises UserError."""
    try:
        files.make_directory(directory)
    except UserError as error:
        raise UserError(f"{error}; --out DIR puts the files elsewhere") from None
    return directory


def corrupted_images(options: argparse.Namespace, dataset: Dataset, data: configs.Data) -> Corrupted | None:
    """The corrupted test images that the options ask for. Raises UserError."""
    if options.corruptions is None:
        return None
    total = len(dataset.test.labels)
    count = total if options.corruption_images is None else options.corruption_images
    if not 1 <= count <= total:
        raise UserError(f"--corruption-images {count}: should be between 1 and {total}, the number of test images")
    if options.corruptions not in ("", DRAWN):
        return corrupted_sets.stored(user_path(options.corruptions), dataset.test, count)
    info = datasets.info(data)
    if options.corruptions == "" and not info.drawn:
        folder = cifar.resolve_directory(data.directory) / f"{info.title}-C"
        if folder.is_dir():
            return corrupted_sets.stored(folder, dataset.test, count)
    return corrupted_sets.drawn(dataset.test, count)


if __name__ == "__main__":
    sys.exit(command.run(main, "evaluate"))
