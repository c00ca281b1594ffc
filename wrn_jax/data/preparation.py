"""Preparing a CIFAR set as TFDS does, without TensorFlow, from the original binary archive or a copy in another form."""

import contextlib
import hashlib
import http.client
import io
import os
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from wrn_jax.config.datasets import DATASETS
from wrn_jax.data import cifar, forms
from wrn_jax.data.forms import ARCHIVES, Archive, record_bytes
from wrn_jax.runtime import console, entry, files
from wrn_jax.runtime.errors import UserError

CONNECT_TIMEOUT = 15  # seconds without an answer before a download is given up
MAX_NAMES_BYTES = 1 << 16  # a list of class names in an archive is never longer


def prepare(
    name: str,
    data_dir: str | os.PathLike | None,
    archive: str | os.PathLike | None = None,
    download: bool = False,
) -> Path:
    """Makes the TFDS folder of a CIFAR set from its original binary archive, without TensorFlow.

    The folder is built under a temporary name beside its final place and renamed when it is complete, so an interrupted
    preparation leaves nothing that looks whole. A folder that is already there is checked and left as it is.

    Args:
      name: 'cifar100' or 'cifar10'.
      data_dir: TFDS data folder to write to; None: see `cifar.resolve_directory`.
      archive: path of cifar-100-binary.tar.gz or cifar-10-binary.tar.gz, or of the set in another form of `forms`.
      download: whether to fetch the archive when none is given.

    Returns:
      Path of the prepared folder, <data_dir>/<name>/<version>.

    Raises:
      UserError: no archive, or it cannot be fetched, is damaged or is not the expected one; the folder cannot be
        written; or what stands there already is not whole.
    """
    original, data_dir = ARCHIVES[name], cifar.resolve_directory(data_dir)
    existing = cifar.find_version(data_dir, name)
    if existing:
        cifar.verify(name, existing)
        console.tell(f"{existing} was prepared already")
        return existing
    if archive is None and not download:
        raise UserError(
            f"{name} is not prepared at {data_dir / name} and neither an archive nor leave to download was "
            f"given; expected --archive {Path(original.url).name} or --download"
        )
    import tensorflow_datasets as tfds

    final = data_dir / name / str(tfds.builder_cls(name).VERSION)
    try:
        if final.exists():
            expected = "no such folder (remove or rename it)"
            raise UserError(f"{final}: something unfinished is in the way; expected {expected}")
        data_dir.mkdir(parents=True, exist_ok=True)
        # A signal raises, so that nothing is kept of a preparation that is interrupted.
        with entry.unwinding(), tempfile.TemporaryDirectory(prefix=f".{name}-", dir=data_dir) as scratch:
            scratch = Path(scratch)
            if archive is None:
                archive = scratch / Path(original.url).name
                _download(original, archive)
            archive = files.user_path(archive)
            if original := None if download else forms.read(name, archive):
                forms.write_binary(name, original, scratch)
            else:
                _extract(name, archive, scratch)
            built = _build(name, scratch, scratch / "tfds")
            cifar.verify(name, built)  # TFDS accepts any number of records and does not look at the images
            final.parent.mkdir(exist_ok=True)
            try:
                built.rename(final)
            except OSError:
                # Another process may have been faster; then its folder is as good as ours.
                if not cifar.find_version(data_dir, name):
                    raise
    except OSError as error:
        raise UserError(
            f"{error.filename or data_dir}: cannot prepare {name} there ({files.reason(error)}); expected a "
            "folder with the right and the room to write"
        ) from error
    return final


def _download(original: Archive, path: Path) -> None:
    """Fetches the original archive to `path` and checks that it is that."""
    digest, received = hashlib.sha256(), 0
    try:
        with (
            urllib.request.urlopen(original.url, timeout=CONNECT_TIMEOUT) as response,
            open(path, "wb") as file,
            console.announced(f"downloading {original.url}", original.size, "B") as progress,
        ):
            while block := response.read(1 << 20):
                file.write(block)
                digest.update(block)
                received += len(block)
                progress.advance(len(block))
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # this one holds the connection open
        raise UserError(f"{original.url}: the download failed ({files.reason(error)}); expected an archive") from error
    if (received, digest.hexdigest()) != (original.size, original.sha256):
        raise UserError(
            f"{original.url}: received {received} bytes with SHA-256 {digest.hexdigest()}; expected {original.size} bytes "
            f"with {original.sha256}"
        )


def _extract(name: str, archive: Path, folder: Path) -> None:
    """Copies the files that are needed out of an archive into `folder`.

    Only regular files with an expected name and size are taken, and written under names of our own, so nothing else in
    an archive (links, other paths, modes) has any effect.
    """
    original = ARCHIVES[name]
    sizes = {
        file: DATASETS[name].size(split) // len(files) * record_bytes(name)
        for split, files in original.files.items()
        for file in files
    }
    sizes |= {file: None for file, _ in original.label_files.values()}
    missing = {f"{original.folder}/{file}": size for file, size in sizes.items()}
    hint = f"expected a copy of {Path(original.url).name}"
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.name.removeprefix("./") not in missing:
                    continue
                size = missing.pop(member.name.removeprefix("./"))
                if not member.isreg() or (member.size != size if size else member.size > MAX_NAMES_BYTES):
                    kind = "a file" if member.isreg() else "no regular file"
                    raise UserError(
                        f"{archive}: {member.name} is {kind} of {member.size} bytes; expected a file of "
                        f"{size or f'at most {MAX_NAMES_BYTES}'} bytes, as in {Path(original.url).name}"
                    )
                source = tar.extractfile(member)
                assert source, "of regular files there is a reader"
                with source, open(folder / Path(member.name).name, "wb") as target:
                    shutil.copyfileobj(source, target)
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise UserError(f"{archive}: cannot be unpacked ({files.reason(error)}); {hint}") from error
    if missing:
        raise UserError(f"{archive}: {', '.join(missing)} not found in it; {hint}")


def _build(name: str, extracted: Path, data_dir: Path) -> Path:
    """Writes extracted files as TFDS does and returns the folder.

    TFDS's own builder needs TensorFlow to open the binary files and to encode pixels as PNG, so a builder derived from it
    generates the examples; names, features, keys and with them the shuffled order of records are TFDS's.
    """
    import tensorflow_datasets as tfds

    archive, stock = ARCHIVES[name], tfds.builder_cls(name)

    class Builder(stock, skip_registration=True):
        name, VERSION = stock.name, stock.VERSION
        __module__ = stock.__module__  # which the description of the folder names

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            for key, (file, count) in archive.label_files.items():
                names = [line for line in cifar.read_text(extracted / file).split("\n") if line]
                if len(names) != count:
                    raise UserError(f"{name} archive: {file} holds {len(names)} class names; expected {count}")
                cast(Any, self.info.features)[key].names = names
            paths = {split: [extracted / file for file in files] for split, files in archive.files.items()}
            return {split: _examples(name, split, paths[split]) for split in paths}

    # TFDS types every builder as the abstract one.
    builder = cast(Any, Builder)(data_dir=data_dir, file_format="array_record")
    tfds.disable_progress_bar()  # it reports shards, which says nothing here
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it tells of the temporary folder
            builder.download_and_prepare(download_dir=extracted / "downloads")  # nothing is downloaded; it wants a folder
    finally:
        tfds.enable_progress_bar()
    return Path(builder.data_dir)


def _examples(name: str, split: str, paths: Sequence[Path]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (key, example) as TFDS's builder does, with images as PNG."""
    from PIL import Image

    info = DATASETS[name]
    height, width, channels = info.image_shape
    keys = list(ARCHIVES[name].label_files)
    records = np.concatenate([np.fromfile(path, np.uint8).reshape(-1, record_bytes(name)) for path in paths])
    cifar.check_labels(f"{name} archive, {split}", records[:, keys.index("label")], info.num_classes)
    with console.announced(f"preparing {name} {split}", len(records), " images") as progress:
        for index, record in enumerate(records):
            pixels = record[len(keys) :].reshape(channels, height, width).transpose(1, 2, 0)  # stored channel by channel
            png = io.BytesIO()
            Image.fromarray(np.ascontiguousarray(pixels)).save(png, "PNG")
            png.seek(0)
            labels = {key: int(label) for key, label in zip(keys, record, strict=False)}
            yield index, {"id": f"{split}_{index:05d}", "image": png, **labels}
            progress.advance()
