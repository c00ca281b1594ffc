"""Train a WideResNet by the session02 or session04 recipe in PyTorch, as described, for curves to compare with.

    python scripts/pytorch_baseline.py --recipe session04 --scale 0.1 --depth 16 --widen-factor 1 --seed 0 \
        --data TFDS_FOLDER_OR_NPZ --out runs/pytorch-session04-seed0

needs torch, albumentations 2.0.8, opencv-python-headless, array_record and Pillow; the package itself needs none of
them. On busy cores --threads 1 is faster than 2, whose threads wait for each other.

It writes into --out:
- `run.json`: arguments and versions;
- `metrics.jsonl`, one object an epoch: `epoch` (from 1), `step` (updates finished), `learning_rate` (of the last
  step), `train_loss` and `train_accuracy` (means over the epoch's images; accuracy as the recipes count it, on the
  augmented, mixed images with dropout on, 0..1), `test_loss` (cross-entropy without smoothing) and `test_accuracy`
  (0..1), both over all test images in eval mode, `seconds` and `images_per_second` of the training alone.

The recipe is stretched by --scale: 100 * scale epochs of 196 steps, every boundary at the nearest step. The short last
batch is kept. Arithmetic is float32. Early stopping, which never fired, is left out.
"""

import argparse
import collections
import concurrent.futures
import dataclasses
import io
import json
import math
import os
import pathlib
import platform
import sys
import time

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks the network for a newer version at import otherwise

try:
    import albumentations as A
    import cv2
    import numpy as np
    import torch
    from torch.nn import functional as F
except ModuleNotFoundError as error:
    needed = "torch albumentations==2.0.8 opencv-python-headless array_record Pillow"
    print(f"pytorch_baseline: {error.name} is not installed: pip install {needed}", file=sys.stderr)
    sys.exit(2)

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "vectors"))

from pytorch_reference import WideResNet, initialise, mix, mixed_correct, mixed_cross_entropy

MEAN = np.array([0.5071, 0.4865, 0.4409], dtype=np.float32) * 255
STD = np.array([0.2673, 0.2564, 0.2761], dtype=np.float32) * 255
EPOCHS, BATCH_SIZE, STEPS_PER_EPOCH = 100, 256, 196
MOMENTUM, WEIGHT_DECAY, MAX_NORM = 0.9, 1e-3, 1.0
WARMUP_EPOCHS, WARMUP_START = 5, 0.01
EVALUATION_BATCH = 500

# Streams of random numbers; with the seed and an epoch or a step they make every draw independent of the others.
ORDER, AUGMENTATION, MIXUP = range(3)


@dataclasses.dataclass(frozen=True)
class Hyperparameters:
    """What may change from one step to the next, besides the learning rate."""

    dropout_rate: float
    mixup_alpha: float
    label_smoothing: float
    augmentation: str


@dataclasses.dataclass(frozen=True)
class Recipe:
    """`changes` maps an epoch, counted from 1, to the values that hold from its first step on."""

    peak: float
    floor: float
    cycle_epochs: int
    changes: dict
    final_cosine_epoch: int | None = None
    final_floor: float | None = None


START = Hyperparameters(dropout_rate=0.3, mixup_alpha=0.2, label_smoothing=0.1, augmentation="full")
RECIPES = {
    "session02": Recipe(peak=0.1, floor=1e-4, cycle_epochs=25, changes={}),
    "session04": Recipe(
        peak=0.15,
        floor=5e-4,
        cycle_epochs=20,
        final_cosine_epoch=61,
        final_floor=1e-5,
        changes={
            41: {"mixup_alpha": 0.15, "augmentation": "reduced"},
            51: {"dropout_rate": 0.2, "label_smoothing": 0.05},
            71: {"mixup_alpha": 0.0, "augmentation": "minimal"},
            81: {"dropout_rate": 0.1},
        },
    ),
}


# The clock: steps from 0, epochs from 1.


def first_step(epoch, scale):
    """The step at which an epoch of the unscaled recipe begins once it is scaled."""
    return round((epoch - 1) * scale * STEPS_PER_EPOCH)


def hyperparameters_at(recipe, step, scale):
    values = START
    for epoch, change in sorted(recipe.changes.items()):
        if step >= first_step(epoch, scale):
            values = dataclasses.replace(values, **change)
    return values


def learning_rate_at(recipe, step, scale):
    """Linear warm-up, which overrides the cosine; else warm restarts from step 0; else the final cosine."""
    warmup_steps = first_step(1 + WARMUP_EPOCHS, scale)
    if step < warmup_steps:
        return WARMUP_START + (recipe.peak - WARMUP_START) * step / warmup_steps
    if recipe.final_cosine_epoch is not None:
        start = first_step(recipe.final_cosine_epoch, scale)
        if step >= start:
            return cosine(recipe.peak, recipe.final_floor, (step - start) / (first_step(EPOCHS + 1, scale) - start))
    return cosine(recipe.peak, recipe.floor, cycle_fraction(recipe.cycle_epochs, step, scale))


def cycle_fraction(cycle_epochs, step, scale):
    """How much of its cycle is over at a step, in [0, 1). Each boundary is rounded by itself: no error accumulates."""
    start = 0
    for epoch in range(1 + cycle_epochs, EPOCHS + cycle_epochs + 1, cycle_epochs):
        end = first_step(epoch, scale)
        if step < end:
            return (step - start) / (end - start)
        start = end
    raise ValueError(f"step {step} lies past the last cycle, which ends at step {end}")


def cosine(peak, floor, fraction):
    """Half a cosine from `peak` at fraction 0 to `floor` at 1."""
    return floor + (peak - floor) * (1 + math.cos(math.pi * fraction)) / 2


# Data.


def load_data(data, cache):
    """{train,test}_images [n, 32, 32, 3] uint8 and {train,test}_labels [n] int64, from an .npz or a TFDS folder."""
    source = data if data.suffix == ".npz" else cache
    if not source.exists():
        write_cache(data, cache)
    with np.load(source) as arrays:
        return dict(arrays)


def write_cache(folder, cache):
    arrays = {}
    for split in ("train", "test"):
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = read_split(folder, split)
    cache.parent.mkdir(parents=True, exist_ok=True)
    # Renamed once complete: another run that starts meanwhile never reads half a file.
    partial = cache.with_name(f"{cache.stem}.{os.getpid()}.npz")
    np.savez(partial, **arrays)
    partial.replace(cache)


def read_split(folder, split):
    """Decode the array_record shards that TFDS prepared, in their order."""
    from array_record.python.array_record_module import ArrayRecordReader

    shards = sorted(folder.rglob(f"cifar100-{split}.array_record-*"))
    if not shards:
        raise FileNotFoundError(
            f"--data {folder}: no cifar100-{split}.array_record-* below it; expected a TFDS folder or an .npz file"
        )
    examples = []
    for shard in shards:
        reader = ArrayRecordReader(str(shard))
        examples += [decode_example(record) for record in reader.read_all()]
        reader.close()
    images, labels = zip(*examples, strict=True)
    return np.stack(images), np.array(labels, dtype=np.int64)


def decode_example(record):
    """A serialised tf.train.Example with a PNG under 'image' and an integer under 'label' -> ([32, 32, 3] uint8, int).

    Example { Features = 1 { map<string, Feature> = 1 } }, Feature { BytesList = 1 or Int64List = 3 { values = 1 } }.
    """
    from PIL import Image

    features = {}
    for _, entry in fields(dict(fields(record))[1]):
        key_and_value = dict(fields(entry))
        ((_, values),) = fields(key_and_value[2])
        features[key_and_value[1].decode()] = dict(fields(values))[1]
    label, _ = varint(features["label"], 0)
    return np.asarray(Image.open(io.BytesIO(features["image"])).convert("RGB")), label


def fields(message):
    """(number, bytes) of the length-delimited fields of a protocol buffer: the only kind that is needed here."""
    position = 0
    while position < len(message):
        tag, position = varint(message, position)
        if tag & 7 != 2:
            raise ValueError(f"wire type {tag & 7} in a tf.train.Example; only 2 (length-delimited) is expected")
        size, position = varint(message, position)
        yield tag >> 3, message[position : position + size]
        position += size


def varint(message, position):
    """The base-128 integer at `position` and the position after it."""
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, position


# Augmentation.


class ShiftScaleRotate(A.Affine):
    """One affine map: shifts of any fraction of a pixel, one scale for both axes, a rotation; all about the centre.

    The library cuts shifts down to whole pixels. Of the described 2 pixels either way (6.25 % of 32) that would leave
    one, and none at all half the time.
    """

    def __init__(self, shift, scale, rotate, p):
        super().__init__(
            translate_percent=(-shift, shift),
            scale=(1 - scale, 1 + scale),
            rotate=(-rotate, rotate),
            keep_ratio=True,
            interpolation=cv2.INTER_LINEAR,
            border_mode=cv2.BORDER_REFLECT_101,
            p=p,
        )

    def _get_translate_params(self, image_shape):
        height, width = image_shape[:2]
        return {
            "x": self.py_random.uniform(*self.translate_percent["x"]) * width,
            "y": self.py_random.uniform(*self.translate_percent["y"]) * height,
        }


def cutout(size, p):
    """One black square. These are the argument names that albumentations 2 reads; it ignores those of version 1."""
    return A.CoarseDropout(num_holes_range=(1, 1), hole_height_range=(size, size), hole_width_range=(size, size), fill=0, p=p)


def make_pipeline(level, seeds):
    """The transforms of a level on one uint8 image, in the order of the recipes; `seeds` yields one for each."""
    pipelines = {
        "full": lambda: [
            A.HorizontalFlip(p=0.5),
            ShiftScaleRotate(shift=0.0625, scale=0.1, rotate=15, p=0.5),
            cutout(size=8, p=0.5),
            A.RandomBrightnessContrast(brightness_limit=0.2, contrast_limit=0.2, p=0.3),
            A.HueSaturationValue(hue_shift_limit=10, sat_shift_limit=20, val_shift_limit=10, p=0.3),
        ],
        "reduced": lambda: [
            A.HorizontalFlip(p=0.5),
            ShiftScaleRotate(shift=0.05, scale=0.07, rotate=10, p=0.35),
            cutout(size=6, p=0.35),
            A.RandomBrightnessContrast(brightness_limit=0.15, contrast_limit=0.15, p=0.2),
        ],
        "minimal": lambda: [A.HorizontalFlip(p=0.5), cutout(size=4, p=0.3)],
    }
    pipeline = A.Compose(pipelines[level]())
    # Compose's own seed would give every transform the same stream: flip, shift and cutout would then mostly be
    # applied to the same images.
    for transform in pipeline.transforms:
        transform.set_random_seed(int(next(seeds)))
    return pipeline


def random_stream(seed, stream, index):
    return np.random.default_rng([seed, stream, index])


def augmented_batch(images, labels, level, seed, step):
    """uint8 [B, 32, 32, 3] -> normalised float32 [B, 3, 32, 32], with labels. A function of its arguments alone."""
    seeds = iter(random_stream(seed, AUGMENTATION, step).integers(2**32, size=8))
    pipeline = make_pipeline(level, seeds)
    augmented = np.stack([pipeline(image=image)["image"] for image in images])
    return normalised(augmented), torch.from_numpy(labels)


def normalised(images):
    scaled = (images.astype(np.float32) - MEAN) / STD
    return torch.from_numpy(scaled).permute(0, 3, 1, 2)  # a view: channels stay last in memory, which is fastest here


def training_batches(data, recipe, scale, seed, epoch, last_step, workers):
    """Yield (step, images, labels) of an epoch counted from 1; `workers` threads prepare batches ahead, 0: none."""
    order = random_stream(seed, ORDER, epoch).permutation(len(data["train_labels"]))
    start = (epoch - 1) * STEPS_PER_EPOCH
    steps = range(start, min(start + STEPS_PER_EPOCH, last_step))

    def prepare(step):
        chosen = order[(step - start) * BATCH_SIZE :][:BATCH_SIZE]
        level = hyperparameters_at(recipe, step, scale).augmentation
        return step, *augmented_batch(data["train_images"][chosen], data["train_labels"][chosen], level, seed, step)

    if workers == 0:
        yield from map(prepare, steps)
        return
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        waiting = collections.deque()
        for step in steps:
            waiting.append(pool.submit(prepare, step))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


# Training.


def train_step(model, optimizer, images, labels, values, learning_rate, generator):
    """One update. Returns the loss and the sum of correct predictions, weighted as mixup mixed them."""
    lam = float(generator.beta(values.mixup_alpha, values.mixup_alpha)) if values.mixup_alpha > 0 else 1.0
    permutation = torch.from_numpy(generator.permutation(len(labels)))
    labels_b = labels[permutation]
    model.set_dropout_rate(values.dropout_rate)
    optimizer.param_groups[0]["lr"] = learning_rate

    optimizer.zero_grad()
    logits = model(mix(images, lam, permutation) if lam < 1 else images)
    loss = mixed_cross_entropy(logits, labels, labels_b, lam, values.label_smoothing)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
    optimizer.step()
    return loss.item(), mixed_correct(logits, labels, labels_b, lam)


def train_epoch(model, optimizer, batches, recipe, scale, seed):
    """Train on all batches. Returns the epoch's metrics."""
    model.train()
    started, total_loss, total_correct, count = time.perf_counter(), 0.0, 0.0, 0
    for step, images, labels in batches:
        values, rate = hyperparameters_at(recipe, step, scale), learning_rate_at(recipe, step, scale)
        generator = random_stream(seed, MIXUP, step)
        loss, correct = train_step(model, optimizer, images, labels, values, rate, generator)
        if not math.isfinite(loss):
            raise SystemExit(f"the loss is {loss} at step {step}")
        total_loss += loss * len(labels)
        total_correct += correct
        count += len(labels)
    seconds = time.perf_counter() - started
    return {
        "step": step + 1,
        "learning_rate": rate,
        "train_loss": total_loss / count,
        "train_accuracy": total_correct / count,
        "seconds": seconds,
        "images_per_second": count / seconds,
    }


def evaluate(model, images, labels):
    """Mean cross-entropy and accuracy over all images, in eval mode."""
    model.eval()
    total_loss, correct = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(labels), EVALUATION_BATCH):
            part = slice(start, start + EVALUATION_BATCH)
            logits, truth = model(normalised(images[part])), torch.from_numpy(labels[part])
            total_loss += F.cross_entropy(logits, truth, reduction="sum").item()
            correct += (logits.argmax(dim=1) == truth).sum().item()
    return {"test_loss": total_loss / len(labels), "test_accuracy": correct / len(labels)}


def run(args, data):
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(0)  # images of 32 x 32 gain nothing from threads, and the network wants the cores
    recipe = RECIPES[args.recipe]
    model = WideResNet(args.depth, args.widen_factor)
    initialise(model)
    model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=WARMUP_START, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)

    last_step = first_step(EPOCHS + 1, args.scale)
    if args.limit_steps is not None:
        last_step = min(last_step, args.limit_steps)
    epochs = math.ceil(last_step / STEPS_PER_EPOCH)
    for epoch in range(1, epochs + 1):
        batches = training_batches(data, recipe, args.scale, args.seed, epoch, last_step, args.workers)
        trained = train_epoch(model, optimizer, batches, recipe, args.scale, args.seed)
        metrics = {"epoch": epoch} | trained | evaluate(model, data["test_images"], data["test_labels"])
        with (args.out / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(metrics) + "\n")
        print(summary(metrics, epochs), flush=True)


def summary(metrics, epochs):
    return (
        "epoch {epoch}/{epochs}  step {step}  rate {learning_rate:.6f}  train loss {train_loss:.4f} "
        "accuracy {train_accuracy:.4f}  test loss {test_loss:.4f} accuracy {test_accuracy:.4f}  "
        "{seconds:.0f} s  {images_per_second:.0f} images/s"
    ).format(epochs=epochs, **metrics)


def write_header(args):
    """Arguments (paths left out) and versions, so that a curve can be told apart from another."""
    arguments = {key: value for key, value in vars(args).items() if not isinstance(value, pathlib.Path)}
    versions = {"python": platform.python_version(), "torch": torch.__version__, "albumentations": A.__version__}
    header = {"arguments": arguments, "versions": versions, "opencv": cv2.__version__, "machine": platform.machine()}
    (args.out / "run.json").write_text(json.dumps(header, indent=2) + "\n")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", choices=sorted(RECIPES), required=True)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the recipe's 100 epochs, above 0")
    parser.add_argument("--depth", type=int, default=28, help="6 n + 4")
    parser.add_argument("--widen-factor", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="TFDS folder (array_record), or an .npz cache")
    parser.add_argument("--cache", type=pathlib.Path, help="decoded data set; default: cifar100.npz beside --out")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder without metrics.jsonl")
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch")
    parser.add_argument("--workers", type=int, choices=(0, 1, 2), default=1, help="threads that augment ahead")
    parser.add_argument("--limit-steps", type=int, help="stop after so many steps, for a quick trial")
    args = parser.parse_args()
    if args.scale <= 0 or first_step(EPOCHS + 1, args.scale) < 1:
        parser.error(f"--scale {args.scale}: it must leave at least one step")
    if args.limit_steps is not None and args.limit_steps < 1:
        parser.error(f"--limit-steps {args.limit_steps}: it must be at least 1")
    if args.depth < 10 or (args.depth - 4) % 6:
        parser.error(f"--depth {args.depth}: it must be 6 n + 4 with n >= 1")
    if not args.data.exists():
        parser.error(f"--data {args.data}: not there; expected a TFDS folder or an .npz file")
    if (args.out / "metrics.jsonl").exists():
        parser.error(f"--out {args.out}: it holds a metrics.jsonl already")
    args.cache = args.cache or args.out.parent / "cifar100.npz"
    return args


def main():
    args = parse_arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        data = load_data(args.data, args.cache)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    write_header(args)
    run(args, data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
