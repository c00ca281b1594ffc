"""What is known of the data sets before they are read."""

IMAGE_SHAPE = (32, 32, 3)
# Records of each split; a folder or archive with another number is refused.
NUM_EXAMPLES = {
    "cifar10": {"train": 50_000, "test": 10_000},
    "cifar100": {"train": 50_000, "test": 10_000},
}
