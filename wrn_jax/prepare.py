"""Prepares CIFAR for reading, from the original binary archive and without TensorFlow.

    python -m wrn_jax.prepare --name cifar100 --archive cifar-100-binary.tar.gz
    python -m wrn_jax.prepare --name cifar100 --download --data-dir ~/data/tfds

Takes half a minute to a minute and writes about 140 MB. Exit code 0 when the folder is there, 2 for an error that
the user can mend, told in one line.
"""

import argparse
import shlex
import sys

from wrn_jax import archive, cifar
from wrn_jax.errors import UserError


def main(argv=None):
    """Parses the command line, prepares, and says where; returns the exit code."""
    args = _parser().parse_args(argv)
    try:
        folder = archive.prepare(args.name, args.data_dir, args.archive, args.download)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; nothing was kept", file=sys.stderr)
        return 130
    print(f"{args.name} is in {folder}")
    print(f"export TFDS_DATA_DIR={shlex.quote(str(folder.parent.parent))}")
    return 0


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m wrn_jax.prepare",
        allow_abbrev=False,
        description="Writes CIFAR as TFDS array_record files, from the original binary archive, without TensorFlow.",
    )
    parser.add_argument("--name", choices=sorted(cifar.CIFAR), default="cifar100", help="data set (default: cifar100)")
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--archive",
        metavar="FILE",
        help="local copy of cifar-100-binary.tar.gz or cifar-10-binary.tar.gz",
    )
    source.add_argument("--download", action="store_true", help="fetch the archive (about 170 MB)")
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="TFDS data folder to write to (default: $TFDS_DATA_DIR, else ~/tensorflow_datasets)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
