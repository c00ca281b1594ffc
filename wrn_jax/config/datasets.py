"""What is known of the data sets before they are read: the one table `DATASETS`, and `info`."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from wrn_jax.runtime.errors import UserError

DatasetName = Literal["cifar100", "cifar10", "embedded", "own"]
"""The keys of `DATASETS`, as the type of the key data.name."""


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """A data set: colour images of one size in classes of equal frequency.

    Attributes:
      name: as data.name and TFDS call it.
      title: as people call it.
      image_shape: (height, width, channels).
      num_classes: labels are 0 to num_classes - 1.
      num_train, num_test: images of each split; a folder or archive with another number is refused.
      mean, std: of the training images in 0..1, per channel.
      class_names: in the order of the labels; None where they are the names in `superclasses` in alphabetical order.
      superclasses: the names of the classes in each group of classes; empty where there are none.
      hub_name: its name on the Hugging Face Hub; empty where it is not there.
      drawn: whether the images are drawn by code, as many as the configuration says.
      own: whether they are the user's, in as many classes and numbers as the configuration says.
    """

    name: str
    title: str
    image_shape: tuple[int, int, int]
    num_classes: int
    num_train: int
    num_test: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    class_names: tuple[str, ...] | None = None
    superclasses: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    hub_name: str = ""
    drawn: bool = False
    own: bool = False

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names of the classes in the order of the labels, [num_classes]."""
        return self.class_names or tuple(sorted(name for names in self.superclasses.values() for name in names))

    @property
    def superclass_of(self) -> tuple[int, ...]:
        """For each label the index of its superclass in `superclasses`; empty where there are none."""
        index_of = {name: index for index, names in enumerate(self.superclasses.values()) for name in names}
        return tuple(index_of[name] for name in self.label_names) if index_of else ()

    def size(self, split: str) -> int:
        """Images of "train" or "test"."""
        return {"train": self.num_train, "test": self.num_test}[split]


# The coarse labels of CIFAR-100, in their order, with the classes of each.
_CIFAR100_SUPERCLASSES = {
    "aquatic_mammals": ("beaver", "dolphin", "otter", "seal", "whale"),
    "fish": ("aquarium_fish", "flatfish", "ray", "shark", "trout"),
    "flowers": ("orchid", "poppy", "rose", "sunflower", "tulip"),
    "food_containers": ("bottle", "bowl", "can", "cup", "plate"),
    "fruit_and_vegetables": ("apple", "mushroom", "orange", "pear", "sweet_pepper"),
    "household_electrical_devices": ("clock", "keyboard", "lamp", "telephone", "television"),
    "household_furniture": ("bed", "chair", "couch", "table", "wardrobe"),
    "insects": ("bee", "beetle", "butterfly", "caterpillar", "cockroach"),
    "large_carnivores": ("bear", "leopard", "lion", "tiger", "wolf"),
    "large_man-made_outdoor_things": ("bridge", "castle", "house", "road", "skyscraper"),
    "large_natural_outdoor_scenes": ("cloud", "forest", "mountain", "plain", "sea"),
    "large_omnivores_and_herbivores": ("camel", "cattle", "chimpanzee", "elephant", "kangaroo"),
    "medium_mammals": ("fox", "porcupine", "possum", "raccoon", "skunk"),
    "non-insect_invertebrates": ("crab", "lobster", "snail", "spider", "worm"),
    "people": ("baby", "boy", "girl", "man", "woman"),
    "reptiles": ("crocodile", "dinosaur", "lizard", "snake", "turtle"),
    "small_mammals": ("hamster", "mouse", "rabbit", "shrew", "squirrel"),
    "trees": ("maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"),
    "vehicles_1": ("bicycle", "bus", "motorcycle", "pickup_truck", "train"),
    "vehicles_2": ("lawn_mower", "rocket", "streetcar", "tank", "tractor"),
}

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "heart", "crescent", "bar", "hourglass")
TEXTURES = ("plain", "striped", "barred", "checked", "dotted", "ringed", "rayed", "graded", "speckled", "outlined")
_DRAWN_CLASSES = {shape: tuple(f"{shape}-{texture}" for texture in TEXTURES) for shape in SHAPES}

# Mean and standard deviation of CIFAR as commonly published; of the drawn shapes as measured over 100,000 images, the same
# for all channels, because colours are drawn alike in each.
DATASETS: dict[str, DatasetInfo] = {
    "cifar100": DatasetInfo(
        name="cifar100",
        title="CIFAR-100",
        image_shape=(32, 32, 3),
        num_classes=100,
        num_train=50_000,
        num_test=10_000,
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2761),
        superclasses=_CIFAR100_SUPERCLASSES,
        hub_name="uoft-cs/cifar100",
    ),
    "cifar10": DatasetInfo(
        name="cifar10",
        title="CIFAR-10",
        image_shape=(32, 32, 3),
        num_classes=10,
        num_train=50_000,
        num_test=10_000,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        class_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        hub_name="uoft-cs/cifar10",
    ),
    "embedded": DatasetInfo(
        name="embedded",
        title="drawn shapes",
        image_shape=(32, 32, 3),
        num_classes=100,
        num_train=10_000,
        num_test=2_000,
        mean=(0.498, 0.498, 0.498),
        std=(0.245, 0.245, 0.245),
        class_names=tuple(name for names in _DRAWN_CLASSES.values() for name in names),
        superclasses=_DRAWN_CLASSES,
        drawn=True,
    ),
    # Classes and numbers are the configuration's, which has them from the files; mean and std suit any photographs.
    "own": DatasetInfo(
        name="own",
        title="images of one's own",
        image_shape=(32, 32, 3),
        num_classes=1,
        num_train=1,
        num_test=1,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        own=True,
    ),
}

NORMALISATIONS = {name: (known.mean, known.std) for name, known in DATASETS.items()} | {
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
"""Mean and standard deviation by the names that `evaluate --mean` and `--std` accept."""


class DataKeys(Protocol):
    """What is read here of a `config.Data`."""

    @property
    def name(self) -> str: ...
    @property
    def embedded_train(self) -> int: ...
    @property
    def embedded_test(self) -> int: ...
    @property
    def class_names(self) -> tuple[str, ...]: ...
    @property
    def own_train(self) -> int: ...
    @property
    def own_test(self) -> int: ...
    @property
    def validation_size(self) -> int: ...


def info(data: DataKeys) -> DatasetInfo:
    """The data set that a configuration asks for; of the drawn one, and of one's own, as many images as it says."""
    known = DATASETS[data.name]
    if known.drawn:
        return dataclasses.replace(known, num_train=data.embedded_train, num_test=data.embedded_test)
    if known.own and data.class_names:
        number = len(data.class_names)
        return dataclasses.replace(
            known, num_classes=number, num_train=data.own_train, num_test=data.own_test, class_names=data.class_names
        )
    return known


def output_names(names: Sequence[str], outputs: int) -> tuple[str, ...]:
    """What the outputs of a network are called, which may have more of them than there are classes, or be of another set."""
    return *names[:outputs], *(f"output {index}" for index in range(len(names), outputs))


def planned_sizes(data: DataKeys) -> tuple[int, int]:
    """(training images after the hold-out, classes) of the data set that `data` describes, without reading it.

    Raises:
      UserError: the hold-out cannot be made.
    """
    dataset = info(data)
    check_hold_out(data.validation_size, dataset.num_train // dataset.num_classes, dataset.num_classes)
    return dataset.num_train - data.validation_size, dataset.num_classes


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """Updates in an epoch, the last of which may repeat images of the first."""
    return -(-num_examples // batch_size)


def check_hold_out(size: int, smallest: int, num_classes: int) -> None:
    """Raises UserError unless `size` is a fair hold-out of classes of at least `smallest` examples each."""
    if size < 0 or size % num_classes or (size and size // num_classes >= smallest):
        raise UserError(
            f"data.validation_size: {size} was asked for; expected 0 or a multiple of {num_classes} (the number of "
            f"classes) of at most {max(smallest - 1, 0) * num_classes}, so that every class keeps a training example"
        )
