"""Makes augment.npz: what OpenCV and Albumentations return for the operations of wrn_jax/augment.py.

Needs Python 3.11 with numpy 2.4.6, opencv-python-headless 5.0.0.93 and albumentations 2.0.8, on a processor with AVX2;
neither library is needed by the package or by its tests. The versions used are stored in the file. From the top folder:

    pip install numpy==2.4.6 opencv-python-headless==5.0.0.93 albumentations==2.0.8
    python tests/vectors/make_augment_vectors.py

All images are drawn by this script: two smooth ones with edges, one of noise, one of grey and saturated extremes, and a
smooth one that is not square. Each operation is applied with C sets of parameters to N images:

    images [N, 32, 32, 3], wide_images [1, 20, 28, 3]               uint8, RGB
    flip [N, 32, 32, 3]
    affine_parameters [C, 4]: shift x, shift y (pixels), scale, angle (degrees)
    affine [C, N, 32, 32, 3], wide_affine [C, 1, 20, 28, 3]
    cutout_parameters [C, 3]: top, left, size (pixels)              cutout [C, N, 32, 32, 3]
    brightness_contrast_parameters [C, 2]                           brightness_contrast [C, N, 32, 32, 3]
    hue_saturation_value_parameters [C, 3]: OpenCV's uint8 units    hue_saturation_value [C, N, 32, 32, 3]
"""

import pathlib

import albumentations
import cv2
import numpy as np
from albumentations.augmentations.dropout import functional as dropout
from albumentations.augmentations.geometric import functional as geometric
from albumentations.augmentations.pixel import functional as pixel

AFFINE = [
    (0, 0, 1, 0),
    (2, -1, 1, 0),
    (-1.37, 1.99, 1, 0),
    (0, 0, 1, 15),
    (0, 0, 0.9, 0),
    (0, 0, 1.1, 0),
    (2, 2, 1.1, 15),
    (-2, 1.3, 0.9, -15),
    (-30, 25, 0.4, 100),  # reads up to two images beyond the border
]
CUTOUT = [(0, 0, 8), (24, 24, 8), (13, 5, 6), (3, 28, 4), (7, 9, 1), (5, 5, 0)]
BRIGHTNESS_CONTRAST = [(-0.2, 0), (0, 0.2), (0, -0.2), (0.2, 0.2), (-0.137, 0.093), (0.051, -0.171)]
HUE_SATURATION_VALUE = [
    (0, 0, 0),
    (10, 0, 0),
    (-10, 0, 0),  # red turns past 0
    (0.5, 0.5, 0.5),
    (0, -20, 0),
    (0, 0, -10),
    (9.7, 19.6, 9.9),
    (-9.7, -19.6, -9.9),
    (-3.2, 12.5, -7.1),
    (85, 120, -60),
]


def smooth_image(height, width, seed):
    """A few long waves in each channel, a disc and a diagonal edge: about as smooth as a small photograph."""
    rng = np.random.default_rng(seed)
    y, x = np.meshgrid(np.linspace(0, 1, height), np.linspace(0, 1, width), indexing="ij")
    image = np.full((height, width, 3), 127.0)
    for wave in range(1, 5):
        direction, phase = rng.uniform(-wave, wave, 2), rng.uniform(0, 2 * np.pi)
        wave_image = np.sin(2 * np.pi * (direction[0] * x + direction[1] * y) + phase)
        image += wave_image[..., None] * rng.uniform(-60, 60, 3) / wave
    center = rng.uniform(0.3, 0.7, 2)
    image[np.hypot(x - center[0], y - center[1]) < 0.2] += rng.uniform(-80, 80, 3)
    image[x + y > rng.uniform(1.0, 1.6)] += rng.uniform(-40, 40, 3)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def extreme_image():
    """Greys, almost-greys, pure and dark saturated colours, hues on both sides of 0: 4x4 blocks of 32x32 pixels."""
    greys = [(level, level, level) for level in (0, 1, 2, 64, 127, 128, 254, 255)]
    almost = [(level + r, level + g, level + b) for level in (0, 127, 254) for r, g, b in np.eye(3, dtype=int)]
    pure = [tuple(255 * (code >> bit & 1) for bit in range(3)) for code in range(1, 7)]
    dark = [tuple(3 * (code >> bit & 1) for bit in range(3)) for code in range(1, 7)]
    near_red = [(255, 0, step) for step in (1, 5, 9, 40)] + [(255, step, 0) for step in (1, 5, 9, 40)]
    ramp = [(level, 255 - level, 128) for level in range(0, 256, 10)]
    colors = np.array(greys + almost + pure + dark + near_red + ramp, dtype=np.uint8)
    blocks = colors[np.arange(64) % len(colors)].reshape(8, 8, 3)
    return blocks.repeat(4, axis=0).repeat(4, axis=1)


def affine(image, shift_x, shift_y, scale, angle):
    height, width = image.shape[:2]
    center = ((width - 1) / 2, (height - 1) / 2)
    matrix = cv2.getRotationMatrix2D(center, angle, scale)
    matrix[:, 2] += shift_x, shift_y
    translate, factors, no_shear = {"x": shift_x, "y": shift_y}, {"x": scale, "y": scale}, {"x": 0.0, "y": 0.0}
    same = geometric.create_affine_transformation_matrix(translate, no_shear, factors, angle, center)
    np.testing.assert_allclose(matrix, same[:2], atol=1e-9)
    flags, border = cv2.INTER_LINEAR, cv2.BORDER_REFLECT_101
    return cv2.warpAffine(image, matrix, (width, height), flags=flags, borderMode=border)


def cutout(image, top, left, size):
    hole = np.array([[left, top, left + size, top + size]], dtype=int)
    return dropout.cutout(image, hole, 0, np.random.default_rng(0))


def brightness_contrast(image, brightness, contrast):
    transform = albumentations.RandomBrightnessContrast(brightness_by_max=True)
    return transform.apply(image, alpha=1 + contrast, beta=255 * brightness)


def main():
    # A row of 32 pixels must be whole vectors: OpenCV's scalar remainder of a row rounds, its vector code truncates.
    assert "AVX2" in cv2.getCPUFeaturesLine()
    rng = np.random.default_rng(100)
    noise = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    images = np.stack([smooth_image(32, 32, seed) for seed in (1, 2)] + [noise, extreme_image()])
    wide_images = smooth_image(20, 28, 3)[None]

    def each(operation, parameters, inputs):
        return np.stack([[operation(image, *map(float, row)) for image in inputs] for row in parameters])

    affine_parameters, cutout_parameters, brightness_contrast_parameters, hue_saturation_value_parameters = (
        np.array(rows, dtype=np.float32) for rows in (AFFINE, CUTOUT, BRIGHTNESS_CONTRAST, HUE_SATURATION_VALUE)
    )
    path = pathlib.Path(__file__).with_name("augment.npz")
    np.savez_compressed(
        path,
        versions=f"opencv {cv2.__version__}, albumentations {albumentations.__version__}, numpy {np.__version__}",
        images=images,
        wide_images=wide_images,
        flip=np.stack([cv2.flip(image, 1) for image in images]),
        affine_parameters=affine_parameters,
        affine=each(affine, affine_parameters, images),
        wide_affine=each(affine, affine_parameters, wide_images),
        cutout_parameters=cutout_parameters,
        cutout=each(cutout, cutout_parameters, images),
        brightness_contrast_parameters=brightness_contrast_parameters,
        brightness_contrast=each(brightness_contrast, brightness_contrast_parameters, images),
        hue_saturation_value_parameters=hue_saturation_value_parameters,
        hue_saturation_value=each(pixel.shift_hsv, hue_saturation_value_parameters, images),
    )
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
