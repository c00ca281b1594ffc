"""Makes corruptions.npz: what SciPy, scikit-image, OpenCV, Pillow and ImageMagick return for wrn_jax/corruptions.py.

Needs Python 3.11 with the packages below and the library ImageMagick 6.9 (Debian: libmagickwand-6.q16-6); none of them but
Pillow is needed by the package or by its tests. The versions used are stored in the file. From the top folder:

    pip install numpy==2.4.6 scipy==1.17.1 scikit-image==0.26.0 opencv-python-headless==4.14.0.94 pillow==13.0.0 wand==0.7.2
    python tests/vectors/make_corruptions_vectors.py

The images are two of augment.npz, smooth and extremes: `images` [2, 32, 32, 3] uint8. Results are clipped to 0..255 and
the fraction dropped, as in Hendrycks and Dietterich's generator. NAME [5, 2, 32, 32, 3] uint8 holds severities 1 to 5 of

    defocus_blur, zoom_blur, brightness, contrast, pixelate, jpeg_compression, gaussian_blur, saturate

and, for the draws below, [5, 2, ...], of

    glass_blur:         glass_blur_moves [2, 30, 30, 2]: for each round, 1 to go up and 1 to go left
    motion_blur:        motion_blur_angle: degrees
    snow:               snow_layer [32, 32], snow_angle
    fog:                fog_draws [1023], in -1..1
    elastic_transform:  elastic_transform_moves [3, 2], elastic_transform_field [2, 32, 32]
"""

import io
import pathlib

import cv2
import numpy as np
import PIL
import scipy
import skimage
import wand.image
import wand.version
from PIL import Image
from scipy import ndimage
from skimage import color, filters


def whole(fractions):
    """0..1 to whole levels, rounded down."""
    return (np.clip(fractions, 0, 1) * 255).astype(np.uint8)


def gaussian_blur(image, sigma):
    return whole(filters.gaussian(image / 255, sigma=sigma, channel_axis=-1))


def defocus_blur(image, radius, sigma):
    x, y = np.meshgrid(np.arange(-8, 9), np.arange(-8, 9))
    disc = (np.hypot(x, y) <= radius).astype(np.float32)
    kernel = cv2.GaussianBlur(disc / disc.sum(), (3, 3), sigma)
    return whole(np.stack([cv2.filter2D(image[..., channel] / 255, -1, kernel) for channel in range(3)], axis=-1))


def glass_blur(image, sigma, rounds, moves):
    image = gaussian_blur(image, sigma)
    for up, left in np.moveaxis(moves[:rounds].astype(int), -1, 1):
        for row in range(31, 1, -1):
            for column in range(31, 1, -1):
                image[row, column] = image[row - up[row - 2, column - 2], column - left[row - 2, column - 2]]
    return gaussian_blur(image, sigma)


def magick_motion_blur(image, radius, sigma, angle):
    before, png = Image.fromarray(image), io.BytesIO()
    before.save(png, "PNG")
    with wand.image.Image(blob=png.getvalue()) as blurred:
        blurred.motion_blur(radius=radius, sigma=sigma, angle=float(angle))
        after = Image.open(io.BytesIO(blurred.make_blob()))
    assert after.mode in ("RGB", "P", "L", "1")  # 8 bits a value, or one for a black layer
    return np.array(after.convert(before.mode))


def enlarge(image, factor):
    """The middle of [32, 32] or [32, 32, 3], enlarged to 32 x 32."""
    taken = int(np.ceil(32 / factor))
    start = (32 - taken) // 2
    middle = image[start : start + taken, start : start + taken]
    large = ndimage.zoom(middle, (factor, factor, 1)[: image.ndim], order=1)
    start = (len(large) - 32) // 2
    return large[start : start + 32, start : start + 32]


def zoom_blur(image, end):
    image = (image / 255).astype(np.float32)
    return whole(np.mean([image] + [enlarge(image, factor) for factor in np.arange(1, end, 0.01)], axis=0))


def snow(image, zoom, threshold, radius, sigma, share, layer, angle):
    layer = enlarge(layer.astype(float), zoom)
    layer = magick_motion_blur(whole(layer * (layer >= threshold)), radius, sigma, angle)[..., None] / 255
    image = (image / 255).astype(np.float32)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]
    return whole(share * image + (1 - share) * np.maximum(image, 1.5 * grey + 0.5) + layer + layer[::-1, ::-1])


def clouds(draws, decay):
    """Diamond-square, point by point: each is the mean of its four neighbours at its distance, plus a draw."""
    grid, distance, size, draws = np.zeros((32, 32)), 16, 100.0, iter(draws.astype(float))
    while distance:
        corners, middles = range(0, 32, 2 * distance), range(distance, 32, 2 * distance)
        straight = [(0, distance), (0, -distance), (distance, 0), (-distance, 0)]
        diagonal = [(distance, distance), (distance, -distance), (-distance, distance), (-distance, -distance)]
        for rows, columns, offsets in (
            (middles, middles, diagonal),
            (corners, middles, straight),
            (middles, corners, straight),
        ):
            for row in rows:
                for column in columns:
                    around = [grid[(row + down) % 32, (column + right) % 32] for down, right in offsets]
                    grid[row, column] = np.mean(around) + size**2 * next(draws)
        distance, size = distance // 2, size / decay
    return (grid - grid.min()) / (grid.max() - grid.min())


def fog(image, amount, decay, draws):
    image = image / 255
    return whole((image + amount * clouds(draws, decay)[..., None]) * image.max() / (image.max() + amount))


def brightness(image, change):
    hsv = color.rgb2hsv(image / 255)
    hsv[..., 2] = np.clip(hsv[..., 2] + change, 0, 1)
    return whole(color.hsv2rgb(hsv))


def saturate(image, factor, offset):
    hsv = color.rgb2hsv(image / 255)
    hsv[..., 1] = np.clip(hsv[..., 1] * factor + offset, 0, 1)
    return whole(color.hsv2rgb(hsv))


def contrast(image, factor):
    mean = (image / 255).mean(axis=(0, 1))
    return whole(mean + factor * (image / 255 - mean))


def elastic_transform(image, amount, sigma, moves, field):
    points = np.float32([[26, 26], [26, 6], [6, 6]])
    matrix = cv2.getAffineTransform(points, points + moves.astype(np.float32))
    image = cv2.warpAffine((image / 255).astype(np.float32), matrix, (32, 32), borderMode=cv2.BORDER_REFLECT_101)
    right, down = (filters.gaussian(plane.astype(float), sigma, mode="reflect", truncate=3) * amount for plane in field)
    rows, columns = np.mgrid[:32, :32]
    places = [rows + down, columns + right]
    warped = [ndimage.map_coordinates(image[..., channel], places, order=1, mode="reflect") for channel in range(3)]
    return whole(np.stack(warped, axis=-1))


def pixelate(image, share):
    small = Image.fromarray(image).resize((int(32 * share), int(32 * share)), Image.Resampling.BOX)
    return np.array(small.resize((32, 32), Image.Resampling.BOX))


def jpeg_compression(image, quality):
    jpeg = io.BytesIO()
    Image.fromarray(image).save(jpeg, "JPEG", quality=quality)
    return np.array(Image.open(jpeg))


PLAIN = {
    defocus_blur: [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)],
    zoom_blur: [(1.06,), (1.11,), (1.16,), (1.21,), (1.26,)],
    brightness: [(0.05,), (0.1,), (0.15,), (0.2,), (0.3,)],
    contrast: [(0.75,), (0.5,), (0.4,), (0.3,), (0.15,)],
    pixelate: [(0.95,), (0.9,), (0.85,), (0.75,), (0.65,)],
    jpeg_compression: [(80,), (65,), (58,), (50,), (40,)],
    gaussian_blur: [(0.4,), (0.6,), (0.7,), (0.8,), (1,)],
    saturate: [(0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)],
}
GLASS_BLUR = [(0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2)]
MOTION_BLUR = [(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)]
FOG = [(0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)]
SNOW_NOISE = [(0.1, 0.2), (0.1, 0.2), (0.15, 0.3), (0.25, 0.3), (0.3, 0.3)]
SNOW = [
    (1, 0.6, 8, 3, 0.95),
    (1, 0.5, 10, 4, 0.9),
    (1.75, 0.55, 10, 4, 0.9),
    (2.25, 0.6, 12, 6, 0.85),
    (1.25, 0.65, 14, 12, 0.8),
]
ELASTIC_SHIFT = [0.08, 0.07, 0.06, 0.05, 0.03]
ELASTIC = [(0, 0), (0.05, 0.2), (0.08, 0.06), (0.1, 0.04), (0.1, 0.03)]  # these three as fractions of the side


def main():
    images = np.load(pathlib.Path(__file__).with_name("augment.npz"))["images"][[0, 3]]
    rng = np.random.default_rng(101)
    arrays = {
        function.__name__: [[function(image, *row) for image in images] for row in rows] for function, rows in PLAIN.items()
    }

    def uniform(low, high, *shape):
        return rng.uniform(low, high, (5, 2, *shape)).astype(np.float16)

    def drawn(function, constants, **draws):
        """The function on the images at each severity, each with its own draws, which are stored beside the result."""
        for name, values in draws.items():
            arrays[f"{function.__name__}_{name}"] = values
        arrays[function.__name__] = [
            [function(image, *row, *(values[level, index] for values in draws.values())) for index, image in enumerate(images)]
            for level, row in enumerate(constants)
        ]

    layer = np.stack([rng.normal(*row, (2, 32, 32)) for row in SNOW_NOISE]).astype(np.float16)
    shift = 32 * np.array(ELASTIC_SHIFT)[:, None, None, None]
    drawn(glass_blur, GLASS_BLUR, moves=rng.integers(0, 2, (5, 2, 2, 30, 30, 2), dtype=np.uint8))
    drawn(magick_motion_blur, MOTION_BLUR, angle=uniform(-45, 45))
    drawn(snow, SNOW, layer=layer, angle=uniform(-135, -45))
    drawn(fog, FOG, draws=uniform(-1, 1, 1023))
    drawn(
        elastic_transform,
        32 * np.array(ELASTIC),
        moves=(shift * uniform(-1, 1, 3, 2)).astype(np.float16),
        field=uniform(-1, 1, 2, 32, 32),
    )
    arrays = {name.removeprefix("magick_"): np.array(values) for name, values in arrays.items()}
    path = pathlib.Path(__file__).with_name("corruptions.npz")
    np.savez_compressed(
        path,
        versions=f"numpy {np.__version__}, scipy {scipy.__version__}, scikit-image {skimage.__version__}, "
        f"opencv {cv2.__version__}, pillow {PIL.__version__}, {wand.version.MAGICK_VERSION}",
        images=images,
        **arrays,
    )
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
