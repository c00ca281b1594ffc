"""Makes automatic.npz.xz: what Pillow returns for the 14 operations of TrivialAugment, in both ranges, at every strength, and
for RandAugment, which does two of them one after the other.

Needs numpy and Pillow 13.0.0, whose version is stored with the results. From the top folder:

    python tests/vectors/make_automatic_vectors.py

Ranges and strengths are those of Müller & Hutter, "TrivialAugment", 2021, arXiv:2103.10158, and of the code that the authors
published: "fixed_standard" and "wide_standard", strengths 0 to 30.

    images [3, 32, 32, 3]: smooth with a patch of noise, greys and saturated extremes, one colour; wide_images [1, 12, 17, 3]
    results [3, 2, 14, 31, 2, 32, 32, 3], wide_results: by image, ranges, operation in the order of OPERATIONS below,
        strength, and sign (+, -); all uint8
    spans [8, 16, 16, 3], spans_results: levels of 24 ranges, and AutoContrast of them, which float64 often rounds down
    pair_strengths [2], pair_operations, pair_signs (1: -) [2, 2, 196], pair_ranges (1: wide) [2, 196]: the choices by
        strength, round and image, every pair of operations once for each strength
    pair_images [196, 12, 17, 3], pair_results [2, 196, 12, 17, 3]: what is changed, and what both operations make of it
"""

import io
import lzma
import pathlib

import numpy as np
import PIL
from PIL import Image, ImageEnhance, ImageOps

OPERATIONS = (
    "Identity", "AutoContrast", "Equalize", "Rotate", "Solarize", "Color", "Posterize", "Contrast", "Brightness", "Sharpness",
    "ShearX", "ShearY", "TranslateX", "TranslateY",
)  # fmt: skip


def pillow(image, operation, wide, strength, negative):
    """An operation on an image, [H, W, 3] uint8, by Pillow."""
    share, sign = strength / 30, -1 if negative else 1
    degrees, shear, shift, low, high, bits = (135, 0.99, 32, 0.01, 2.0, 6) if wide else (30, 0.3, 10, 0.1, 1.9, 4)
    shear, shift = sign * strength * shear / 30, sign * (strength * shift // 30)
    picture = Image.fromarray(image)

    def affine(*matrix):
        return picture.transform(picture.size, Image.Transform.AFFINE, matrix)

    match operation:
        case "Identity":
            result = picture
        case "AutoContrast" | "Equalize":
            result = getattr(ImageOps, operation.lower())(picture)
        case "Rotate":
            result = picture.rotate(sign * int(degrees * share))
        case "Solarize":
            result = ImageOps.solarize(picture, 256 - strength * 256 // 30)
        case "Posterize":
            result = ImageOps.posterize(picture, 8 - strength * bits // 30)
        case "ShearX":
            result = affine(1, shear, 0, 0, 1, 0)
        case "ShearY":
            result = affine(1, 0, 0, shear, 1, 0)
        case "TranslateX":
            result = affine(1, 0, shift, 0, 1, 0)
        case "TranslateY":
            result = affine(1, 0, 0, 0, 1, shift)
        case _:
            result = getattr(ImageEnhance, operation)(picture).enhance(low + (high - low) * strength / 30)
    return np.asarray(result)


def everything(image):
    """[2, 14, 31, 2, H, W, 3]: one image by ranges, operation, strength and sign."""
    return np.array(
        [
            [
                [[pillow(image, operation, wide, strength, negative) for negative in (0, 1)] for strength in range(31)]
                for operation in OPERATIONS
            ]
            for wide in (0, 1)
        ]
    )


def pairs(rng):
    """RandAugment with two operations, as described above; `rng` draws images, signs and ranges."""
    strengths, count = np.array([9, 14]), len(OPERATIONS) ** 2
    operations = np.broadcast_to(np.indices((len(OPERATIONS),) * 2).reshape(2, count), (2, 2, count))
    signs, ranges = rng.integers(0, 2, (2, 2, count)), rng.integers(0, 2, (2, count))
    patches = rng.integers(0, 256, (count, 4, 5, 3), np.uint8)
    images = np.stack([smooth_image(12, 17)] * count)
    images[:, 3:7, 6:11] = patches
    results = np.empty((2, *images.shape), np.uint8)
    for index, image in np.ndindex(2, count):
        changed = images[image]
        for operation, sign in zip(operations[index, :, image], signs[index, :, image], strict=True):
            changed = pillow(changed, OPERATIONS[operation], ranges[index, image], int(strengths[index]), sign)
        results[index, image] = changed
    return {
        "pair_strengths": strengths, "pair_operations": operations, "pair_signs": signs, "pair_ranges": ranges,
        "pair_images": images, "pair_results": results,
    }  # fmt: skip


def smooth_image(height, width):
    """Waves of other directions in each channel, and an edge."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 5 + y / 9), np.sin(x / 11 - y / 6 + 1), np.sin(x / 7 + y / 13 + 2)]
    image = 120 + 90 * np.stack(waves, axis=-1) - 60 * (x + y > 40)[..., None]
    return np.clip(np.rint(image), 20, 240).astype(np.uint8)


def main():
    rng = np.random.default_rng(0)
    smooth = smooth_image(32, 32)
    smooth[10:20, 14:24] = rng.integers(0, 256, (10, 10, 3), np.uint8)
    levels = np.array([0, 1, 2, 127, 128, 254, 255], np.uint8)
    colors = np.concatenate([levels[:, None].repeat(3, axis=1), rng.choice(levels, (57, 3))])
    extremes = colors.reshape(8, 8, 3).repeat(4, axis=0).repeat(4, axis=1)
    images = np.stack([smooth, extremes, np.full((32, 32, 3), (90, 140, 200), np.uint8)])
    wide_images = smooth_image(12, 17)[None]
    lowest, width = rng.integers(0, 68, 24), rng.choice([69, 75, 87, 105, 119, 135, 150, 187], 24)
    spans = (
        np.clip(np.arange(256)[:, None], lowest, lowest + width).astype(np.uint8).reshape(16, 16, 8, 3).transpose(2, 0, 1, 3)
    )
    archive = io.BytesIO()
    np.savez(
        archive,
        version=f"Pillow {PIL.__version__}",
        images=images,
        results=np.stack([everything(image) for image in images]),
        wide_images=wide_images,
        spans=spans,
        spans_results=np.stack([pillow(image, "AutoContrast", False, 0, False) for image in spans]),
        wide_results=np.stack([everything(image) for image in wide_images]),
        **pairs(rng),
    )
    path = pathlib.Path(__file__).with_name("automatic.npz.xz")
    path.write_bytes(lzma.compress(archive.getvalue()))
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
