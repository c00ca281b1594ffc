"""Prepares CIFAR for reading, from the original binary archive and without TensorFlow.

    python -m wrn_jax.prepare --name cifar100 --archive cifar-100-binary.tar.gz
    python -m wrn_jax.prepare --name cifar100 --download --data-dir ~/data/tfds

Takes half a minute to a minute and writes about 140 MB. Nothing is kept of a preparation that was interrupted.
"""

from wrn_jax.runtime import entry

if __name__ == "__main__":
    entry.begin("prepare")

import shlex
import sys
from collections.abc import Sequence

from wrn_jax import command
from wrn_jax.data import preparation


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line, prepares, and says where. Raises UserError."""
    parser = command.parser(
        "prepare", "Writes CIFAR as TFDS array_record files, from the original binary archive, without TensorFlow."
    )
    parser.add_argument("--name", choices=sorted(preparation.ARCHIVES), default="cifar100", help="data set (default: cifar100)")
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--archive",
        metavar="FILE",
        help="local copy: cifar-100-binary.tar.gz, cifar-10-binary.tar.gz or another form, see docs/data.md",
    )
    source.add_argument("--download", action="store_true", help="fetch the archive (about 170 MB)")
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="TFDS data folder to write to (default: $TFDS_DATA_DIR, else ~/tensorflow_datasets)",
    )
    options = parser.parse_args(argv)
    folder = preparation.prepare(options.name, options.data_dir, options.archive, options.download)
    print(f"{options.name} is in {folder}")
    print(f"export TFDS_DATA_DIR={shlex.quote(str(folder.parent.parent))}")


if __name__ == "__main__":
    sys.exit(command.run(main, "prepare"))
