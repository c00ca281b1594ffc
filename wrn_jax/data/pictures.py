"""Pictures that people have, as the network wants them, and sheets of small pictures with words below them."""

import dataclasses
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from wrn_jax.runtime.errors import UserError
from wrn_jax.runtime.files import reason


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """A picture from a file.

    Attributes:
      pixels: [height, width, 3] uint8, of the size that the network wants.
      size: (width, height) in the file, turned as its camera says.
      change: what was done to bring it to that size, in words; empty where nothing was.
    """

    pixels: np.ndarray
    size: tuple[int, int]
    change: str


def read(path: Path, height: int, width: int) -> Picture:
    """Reads a picture of any format that Pillow knows: its first frame, what is transparent on white.

    Of another shape than the network wants, its middle is taken; of another size, it is resized with antialiasing.

    Raises:
      UserError: it cannot be read.
    """
    try:
        with warnings.catch_warnings(), Image.open(path) as opened:
            warnings.simplefilter("ignore")  # of large files and of odd ones, which are read nevertheless
            image = as_rgb(opened)
    except Exception as error:  # whatever a format's reader makes of damage
        trouble = "is no picture that Pillow reads" if isinstance(error, Image.UnidentifiedImageError) else reason(error, 100)
        raise UserError(f"{path}: cannot be read: {trouble}") from None
    size, (wide, high) = image.size, image.size
    scale = min(wide / width, high / height)
    middle = max(1, round(width * scale)), max(1, round(height * scale))
    changes = []
    if middle != size:
        left, top = (wide - middle[0]) // 2, (high - middle[1]) // 2
        image = image.crop((left, top, left + middle[0], top + middle[1]))
        changes.append(f"cropped to its middle {middle[0]}x{middle[1]}")
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        changes.append(f"resized to {width}x{height}")
    return Picture(np.asarray(image), size, " and ".join(changes))


def _in_eight_bits(image: Image.Image) -> Image.Image:
    """The image with channels of 8 bits; grey of more bits is scaled."""
    if image.mode.startswith(("I", "F")):  # 16 bits or more, which Pillow would cut off at 255
        values = np.asarray(image, np.float64)
        top = 65535.0 if image.mode.startswith("I") else 255.0 if values.max() > 1 else 1.0
        return Image.fromarray((values / top * 255).clip(0, 255).round().astype(np.uint8))
    return image


def as_rgb(image: Image.Image) -> Image.Image:
    """The image in RGB, turned as its camera says, what is transparent on white."""
    image = _in_eight_bits(ImageOps.exif_transpose(image))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def enlarged(pixels: np.ndarray, side: int) -> Image.Image:
    """Pixels [height, width, 3] uint8 as an image about `side` wide, every pixel a square."""
    factor = max(1, side // pixels.shape[1])
    return Image.fromarray(pixels.repeat(factor, axis=0).repeat(factor, axis=1))


def to_png(image: Image.Image) -> bytes:
    """The content of a PNG file."""
    content = io.BytesIO()
    image.save(content, "PNG", optimize=True)
    return content.getvalue()


def sheet(pixels: Sequence[np.ndarray], texts: Sequence[Sequence[str]], columns: int = 6, side: int = 128) -> Image.Image:
    """Small pictures in rows, each [height, width, 3] uint8, with its lines of text below it, cut to its width."""
    font: Any = ImageFont.load_default(size=12)
    images = [enlarged(one, side) for one in pixels]
    width, height, line = images[0].width, images[0].height, 16
    cell = width + 16, height + line * max(map(len, texts)) + 20
    columns = min(columns, len(images))
    whole = Image.new("RGB", (cell[0] * columns, cell[1] * -(-len(images) // columns)), "white")
    draw = ImageDraw.Draw(whole)
    for index, (image, lines) in enumerate(zip(images, texts, strict=True)):
        x, y = cell[0] * (index % columns) + 8, cell[1] * (index // columns) + 8
        whole.paste(image, (x, y))
        for number, text in enumerate(lines):
            while draw.textlength(text, font) > width:
                text = text[:-2] + "…"
            draw.text((x, y + height + 4 + line * number), text, "black", font)
    return whole
