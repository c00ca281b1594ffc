"""Using a model: the same logits from a run, its safetensors and its StableHLO; pictures of all kinds; what is said of them."""

import json
import shutil
import types

import jax.export
import numpy as np
import pytest
from PIL import Image

import wrn_jax
from tests.small import CHANGES
from tests.weights import formula_model, relative_error, save_run
from wrn_jax import evaluate, export, predict
from wrn_jax.config import datasets, load_file
from wrn_jax.data import pictures
from wrn_jax.evaluation.files import Record
from wrn_jax.runtime.errors import UserError

CONFIG = load_file("configs/session04.py").override(CHANGES | {"devices": 1, "precision": "float32"})
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose best checkpoint was evaluated, with a temperature of 2."""
    workdir = save_run(tmp_path_factory.mktemp("predict") / "run", CONFIG, *formula_model(10, 1, 100))
    record = Record(step=10, epoch=1, splits={"test": {"count": 100, "accuracy": 0.3}}, temperature={"value": 2.0})
    (workdir / "evaluations").mkdir()
    (workdir / "evaluations" / "step-10.json").write_text(json.dumps(record.to_dict()))
    return workdir


@pytest.fixture(scope="module")
def model(run):
    return wrn_jax.load_model(run)


@pytest.mark.slow
def test_the_run_its_safetensors_and_its_program_agree(run, model, tmp_path):
    export.main(["--workdir", str(run), "--out", str(tmp_path), "--formats", "safetensors", "stablehlo"])
    logits = model(PIXELS)
    assert logits.shape == (5, 100)
    from_file = wrn_jax.load_model(tmp_path / "model.safetensors")
    shutil.copy(tmp_path / "model.safetensors", run)
    assert wrn_jax.load_model(run).checkpoint == model.checkpoint  # a run all the same
    (run / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"network = 'raw': .* is a file, which holds one network"):
        wrn_jax.load_model(tmp_path / "model.safetensors", network="raw")
    with pytest.raises(UserError, match=r"data = 'cifar10': .* is a run, which says"):
        wrn_jax.load_model(run, data="cifar10")
    np.testing.assert_array_equal(from_file(PIXELS), logits)
    program = jax.export.deserialize((tmp_path / "model.stablehlo").read_bytes())
    assert relative_error(program.call(PIXELS), logits) < 1e-5
    assert relative_error(model(PIXELS[:1]), logits[:1]) < 1e-5  # batches of any size
    drawn = datasets.DATASETS["embedded"]
    for one, figures in ((model, 2.0), (from_file, None)):
        assert (one.class_names, one.mean, one.std) == (drawn.class_names, drawn.mean, drawn.std)
        assert one.temperature == figures
    assert model.figures["splits"]["test"]["accuracy"] == 0.3
    assert model.config == CONFIG
    expected = np.exp(logits.astype(np.float64) / 2)
    np.testing.assert_allclose(model.probabilities(PIXELS), expected / expected.sum(1, keepdims=True), rtol=1e-4)


@pytest.mark.slow
def test_says_what_is_in_pictures(run, model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("wrn_jax.api.load_model", lambda *_: model)
    small, large, broken = tmp_path / "small.png", tmp_path / "große Datei.jpg", tmp_path / "broken.png"
    Image.fromarray(PIXELS[0]).save(small)
    Image.new("RGB", (640, 480), "teal").save(large)
    broken.write_bytes(small.read_bytes()[:200])
    sheet = tmp_path / "sheet.png"
    names = [str(path) for path in (small, broken, large)]
    with pytest.raises(UserError, match=r"^\S+broken.png: cannot be read: "):
        predict.main(["--workdir", str(run), "--contact-sheet", str(sheet), *names])
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "probabilities: calibrated with temperature 2.000, fitted on the hold-out"
    assert lines[0] == f"{small} (32x32)"
    assert lines[6] == f"{large} (640x480, cropped to its middle 480x480 and resized to 32x32)"
    assert len(lines) == 12
    best = model.class_names[model(PIXELS[:1]).argmax()]
    assert lines[1].split("%  ")[1] == best
    with Image.open(sheet) as drawn:
        assert drawn.size[0] == 2 * 144

    predict.main(["--workdir", str(run), "--json", str(small)])
    found = json.loads(capsys.readouterr().out)
    assert found["temperature"] == 2.0
    (image,) = found["images"]
    assert (image["path"], image["width"], image["change"]) == (str(small), 32, None)
    assert image["classes"][0]["name"] == best
    assert image["classes"][0]["probability"] == pytest.approx(model.probabilities(PIXELS[:1]).max(), abs=1e-6)


def test_pictures_of_all_kinds(tmp_path):
    def read(image, name="image.png", **options):
        image.save(tmp_path / name, **options)
        return pictures.read(tmp_path / name, 32, 32)

    np.testing.assert_array_equal(read(Image.fromarray(PIXELS[0])).pixels, PIXELS[0])
    grey = read(Image.new("L", (10, 20), 77))
    assert grey.change == "cropped to its middle 10x10 and resized to 32x32"
    assert (grey.pixels == 77).all()
    assert (read(Image.new("RGBA", (32, 32), (255, 0, 0, 0))).pixels == 255).all()  # transparent: white
    assert (read(Image.fromarray(np.full((32, 32), 257 * 99, np.uint16))).pixels == 99).all()  # 16 bits
    assert (read(Image.new("1", (32, 32), 1)).pixels == 255).all()
    assert read(Image.new("P", (32, 32)), "image.gif").pixels.shape == (32, 32, 3)
    assert read(Image.new("CMYK", (32, 32)), "image.jpg").pixels.min() > 250
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held on its side
    assert read(Image.new("RGB", (64, 32)), "image.jpg", exif=turned).size == (32, 64)
    for name, content in {"text.png": b"no picture", "empty.png": b""}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name}: cannot be read: is no picture that Pillow reads"):
            pictures.read(tmp_path / name, 32, 32)
    with pytest.raises(UserError, match=r"nowhere\.png: cannot be read: No such file or directory"):
        pictures.read(tmp_path / "nowhere.png", 32, 32)


def test_names_of_outputs():
    assert all(len(info.label_names) == info.num_classes for info in datasets.DATASETS.values() if not info.own)
    assert datasets.DATASETS["cifar100"].label_names[:2] == ("apple", "aquarium_fish")
    assert datasets.output_names(("a", "b"), 3) == ("a", "b", "output 2")
    assert datasets.output_names(("a", "b"), 1) == ("a",)


def test_without_a_temperature_it_says_so():
    text = "not calibrated; no temperature was fitted to these weights"
    for network, of in ((None, ""), ("average", " of the weight average"), ("raw", " without the weight average")):
        (line,) = predict.as_text(types.SimpleNamespace(temperature=None, network=network), {}, [])
        assert line == f"probabilities{of}: {text}"


def test_the_network_that_is_asked_for_is_the_one_that_is_loaded(monkeypatch):
    def load(source, checkpoint, data, network):
        raise UserError(f"asked for {network}")

    monkeypatch.setattr("wrn_jax.api.load_model", load)
    for network, asked in (([], "None"), (["--network", "raw"], "raw")):
        with pytest.raises(UserError, match=f"^asked for {asked}$"):
            predict.main(["--workdir", "run", *network, "image.png"])
    for option, value in (("--network", "raw"), ("--checkpoint", "last")):
        with pytest.raises(UserError, match=rf"^{option} goes with --workdir"):
            predict.main(["--weights", "model.safetensors", option, value, "image.png"])
        with pytest.raises(UserError, match=rf"^{option} goes with --workdir"):
            evaluate.main(["--weights", "model.safetensors", option, value])
    with pytest.raises(UserError, match=r"^--data goes with --weights"):
        predict.main(["--workdir", "run", "--data", "cifar10", "image.png"])
