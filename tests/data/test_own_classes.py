"""Images of one's own, as a .npz file and as folders: the same data set, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from tests.fake_cifar import one_line
from wrn_jax import config
from wrn_jax.config import Config, Data, datasets
from wrn_jax.data import loading, own_classes, pictures
from wrn_jax.runtime.errors import UserError

NAMES = ("ant", "bee", "cat")


def arrays():
    draw = np.random.default_rng(0)
    return {
        "x_train": draw.integers(0, 256, (12, 32, 32, 3), np.uint8),
        "y_train": np.repeat(np.arange(3), 4),
        "x_test": draw.integers(0, 256, (6, 32, 32, 3), np.uint8),
        "y_test": np.repeat(np.arange(3), 2)[:, None],  # as Keras has them
    }


def write_folder(place, content, tests="test"):
    for split, folder in (("train", "train"), ("test", tests)):
        for index, (image, label) in enumerate(zip(content[f"x_{split}"], content[f"y_{split}"].ravel(), strict=True)):
            path = place / folder / NAMES[label] / f"{index:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return place


def test_a_file_and_folders_are_the_same_set_and_the_configuration_says_what_it_is(tmp_path):
    content = arrays()
    np.savez(tmp_path / "a.npz", class_names=np.array(NAMES), **content)
    write_folder(tmp_path / "b", content, "val")
    digests = []
    for place in ("a.npz", "b"):
        written = Config(data=Data(name="own", directory=str(tmp_path / place), validation_size=3))
        data = own_classes.described(written).data
        assert (data.class_names, data.own_train, data.own_test) == (NAMES, 12, 6)
        info = datasets.info(data)
        assert (info.num_classes, info.num_train, info.num_test) == (3, 12, 6)
        dataset = loading.load(data)
        assert dataset.class_names == NAMES
        np.testing.assert_array_equal(dataset.test.images, content["x_test"])
        digests.append(loading.digests(dataset))
    assert digests[0] == digests[1]
    assert own_classes.described(config.load_file("session04")) == config.load_file("session04")


def test_names_of_bytes_and_images_of_less_common_endings(tmp_path):
    np.savez(tmp_path / "a.npz", class_names=np.array(NAMES, "S"), **arrays())
    assert own_classes.read(tmp_path / "a.npz")[1] == NAMES
    folder = write_folder(tmp_path / "b", arrays())
    (folder / "train" / "ant" / "00.png").rename(folder / "train" / "ant" / "00.JFIF")
    assert len(own_classes.read(folder)[0]["train"].labels) == 12


def test_without_names_classes_are_called_by_their_numbers(tmp_path):
    np.savez(tmp_path / "a.npz", **arrays())
    assert own_classes.read(tmp_path / "a.npz")[1] == ("0", "1", "2")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y_test": None}, "y_test not found, only x_train, y_train, x_test"),
        ({"x_test": np.zeros((6, 28, 28, 3), np.uint8)}, r"x_test is uint8 \[6, 28, 28, 3\]; expected uint8 \[6, 32, 32, 3\]"),
        ({"x_test": np.zeros((6, 32, 32, 3))}, r"x_test is float64 \[6, 32, 32, 3\]"),
        ({"y_test": np.zeros(6)}, r"y_test is float64 \[6\]; expected integers, one for each"),
        ({"y_test": np.array([0, 0, 1, 1, 2, 3])}, "labels of test go from 0 to 3; expected 0 to 2"),
        ({"y_test": np.array([0, 0, 1, 1, 2, -1])}, "labels of test go from -1 to 2"),
        ({"y_train": np.repeat(np.arange(0, 6, 2), 4)}, "no train image of class 1"),
        ({"y_train": np.array([None] * 12)}, "cannot be read"),
    ],
)
def test_a_file_that_is_not_one_is_refused(tmp_path, change, message):
    content = {name: value for name, value in (arrays() | change).items() if value is not None}
    np.savez(tmp_path / "a.npz", **content)
    with pytest.raises(UserError, match=message) as error:
        own_classes.read(tmp_path / "a.npz")
    one_line(error)


def test_images_of_sixteen_bits_are_scaled(tmp_path):
    folder = write_folder(tmp_path / "a", arrays())
    Image.fromarray(np.full((32, 32), 200 * 257, np.uint16)).save(folder / "test" / "ant" / "00.png")
    assert (own_classes.read(folder)[0]["test"].images[0] == 200).all()


def test_images_become_rgb_as_pictures_do_that_are_predicted(tmp_path):
    folder = write_folder(tmp_path / "a", arrays())
    path = folder / "test" / "ant" / "00.png"
    for image in (Image.new("RGBA", (32, 32), (9, 8, 7, 0)), Image.new("LA", (32, 32), (9, 128))):
        image.save(path)
        np.testing.assert_array_equal(own_classes.read(folder)[0]["test"].images[0], pictures.read(path, 32, 32).pixels)
    assert (own_classes.read(folder)[0]["test"].images[0] > 100).all()  # grey on white


def test_folders_that_are_not_one_are_refused(tmp_path):
    folder = write_folder(tmp_path / "a", arrays())
    (folder / "test" / "dog").mkdir()
    with pytest.raises(UserError, match="class 'dog' is in one of train, test only"):
        own_classes.read(folder)
    (folder / "test" / "dog").rmdir()
    Image.new("RGB", (40, 32)).save(folder / "test" / "ant" / "a.png")
    with pytest.raises(UserError, match=r"a\.png: is 40 x 32 pixels; resize all to 32 x 32"):
        own_classes.read(folder)
    (folder / "test" / "ant" / "a.png").write_text("no image")
    with pytest.raises(UserError, match=r"a\.png: cannot be read"):
        own_classes.read(folder)
    (folder / "val").mkdir()
    with pytest.raises(UserError, match="has test and val; leave one of them"):
        own_classes.read(folder)
    with pytest.raises(UserError, match="holds no images of one's own"):
        own_classes.read(tmp_path)
    with pytest.raises(UserError, match=r"data\.directory: should name"):
        own_classes.read(None)


def test_to_describe_a_set_no_image_is_read(tmp_path, monkeypatch):
    np.savez(tmp_path / "a.npz", **(arrays() | {"x_train": np.array(["no images"])}))
    write_folder(tmp_path / "b", arrays())
    for path in (tmp_path / "b").glob("*/*/*.png"):
        path.write_text("no image")
    for place in ("a.npz", "b"):
        data = own_classes.described(Config(data=Data(name="own", directory=str(tmp_path / place)))).data
        assert (data.own_train, data.own_test) == (12, 6)
        with pytest.raises(UserError, match=r"png: cannot be read|x_train is <U9 \[1\]; expected uint8 \[12, "):
            loading.load(data)


def test_other_images_than_the_configuration_says_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", **arrays())
    written = Config(data=Data(name="own", directory=str(tmp_path / "a.npz"), validation_size=0))
    data = own_classes.described(written).data
    np.savez(tmp_path / "a.npz", **(arrays() | {"x_test": arrays()["x_test"][:5], "y_test": np.array([0, 1, 1, 2, 2])}))
    with pytest.raises(UserError, match="holds other classes or numbers of images than the configuration says"):
        loading.load(data)
