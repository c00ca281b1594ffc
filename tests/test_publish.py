"""Publishing and reading back by a stand-in of the Hub: nothing of a person is overwritten, and no token shows."""

import importlib.util
import json
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import wrn_jax
from tests.fake_hub import serve
from tests.sample_runs import HEADER
from tests.small import CHANGES
from tests.weights import formula_model, relative_error, save_run
from wrn_jax import evaluate, publish, train
from wrn_jax.config import load_file
from wrn_jax.evaluation.files import Record
from wrn_jax.report import model_card
from wrn_jax.runtime import hub
from wrn_jax.runtime.errors import UserError
from wrn_jax.training.records import EpochRow

pytestmark = pytest.mark.slow

TOKEN = "hf_" + "Secret" * 5
CONFIG = load_file("configs/session04.py").override(
    CHANGES | {"devices": 1, "precision": "float32", "data.directory": "/home/somebody"}
)
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
FILES = {
    "README.md", "config.json", "model.safetensors", "model.stablehlo", "wide_resnet.py", "recipe.png", "metrics.jsonl",
    "evaluation.json",
}  # fmt: skip


def make_run(workdir, seed=0, accuracy=0.3):
    save_run(workdir, CONFIG.override({"seed": seed}), *formula_model(10, 1, 100))
    row = EpochRow(
        epoch=1, step=10, train_loss=4.0, train_accuracy=0.2, valid_loss=3.0, valid_accuracy=accuracy, test_loss=3.0,
        test_accuracy=accuracy,
    )  # fmt: skip
    (workdir / "metrics.jsonl").write_text(json.dumps(row.to_dict()) + "\n")
    command = (
        "/home/somebody/wrn_jax/train.py --config '/home/somebody/my recipes/mine.py' --workdir '/home/somebody/my runs/a' "
        f"--config.data.directory=/home/somebody/data --config.data.cache /home/somebody/cache --note {TOKEN} "
        "'--init-from=/home/somebody/old run' --checkpoint 3 --config.seed 1"
    )
    (workdir / "header.jsonl").write_text(json.dumps((HEADER.to_dict()) | {"command": command}) + "\n")
    test = {"count": 100, "accuracy": accuracy, "calibration_error": 0.25}
    record = Record(
        step=10, epoch=1, splits={"test": test}, temperature={"value": 2.0}, command=f"evaluate {TOKEN}",
        corruptions={"fog": [0.1] * 5}, mean_corruption_accuracy=0.1, corruptions_in_mean=["fog"], corruption_images=100,
        corruptions_from="CIFAR-100-C at /home/somebody/data/CIFAR-100-C",
    )  # fmt: skip
    (workdir / "evaluations").mkdir()
    (workdir / "evaluations" / "step-10.json").write_text(json.dumps(record.to_dict()))
    return workdir


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("publish") / "some-seed0")


@pytest.fixture
def there(monkeypatch, tmp_path):
    """(repositories, tokens) of a stand-in that is the Hub of this process."""
    pytest.importorskip("huggingface_hub")
    from huggingface_hub import constants, file_download

    for module in (constants, file_download.constants):
        monkeypatch.setattr(module, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        monkeypatch.setattr(module, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with serve() as (address, repos, tokens):
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield repos, tokens


def test_the_folder(run, tmp_path, capsys):
    other = make_run(tmp_path / "some-seed1", seed=1, accuracy=0.4)
    out = tmp_path / "folder"
    arguments = ["--workdir", str(run), "--repo", "user/some-model", "--out", str(out), "--dry-run"]
    publish.main([*arguments, "--seeds", str(other)])
    assert {path.name for path in out.iterdir()} == FILES
    everything = b"".join(path.read_bytes() for path in out.iterdir() if path.suffix != ".png")
    assert TOKEN.encode() not in everything
    assert b"/home/somebody" not in everything
    card = (out / "README.md").read_text()
    assert model_card.is_own(card)
    front = dict(line.split(": ", 1) for line in card.split("---\n")[1].splitlines())
    (result,) = json.loads(front["model-index"])[0]["results"]
    assert result["metrics"][0] == {"type": "accuracy", "name": "test accuracy", "value": 0.3}
    digest = json.loads((out / "config.json").read_text())["config_digest"]
    for text in (
        "![The moving values", "35.00% | 2 | 7.07 points", "2.000, fitted on the hold-out", "25.00%", "1 corruptions", "a CPU",
        "a run that is not finished", "chosen on the validation images", digest, "none is, so all are taken as they were after",
        "| command | python -m wrn_jax.train --config mine.py --note *** --config.seed 1 |",
    ):  # fmt: skip
        assert text in card, text

    assert json.loads((out / "evaluation.json").read_text())["corruptions_from"] == "CIFAR-100-C"

    missing = {"splits": {"test": {"accuracy": 0.5}}, "temperature_missing": "no hold-out"}
    text = "".join(model_card._evaluation(missing))
    assert "| temperature | none was fitted: no hold-out |" in text
    assert "not measured" in text

    # The folder as a model: logits, recipe, figures.
    model, original = wrn_jax.load_model(out), wrn_jax.load_model(run)
    np.testing.assert_array_equal(model(PIXELS), original(PIXELS))
    assert (model.temperature, model.config.recipe) == (2.0, CONFIG.recipe)

    # A card that a person changed stays.
    changed = card.replace("These are", "Those are").replace("These weights", "Mine")
    (out / "README.md").write_text(changed)
    publish.main(arguments)
    assert (out / "README.md").read_text() == changed
    assert model_card.is_own((out / "model_card.md").read_text())
    assert "written by a person, and stays" in capsys.readouterr().out

    if importlib.util.find_spec("torch"):
        import torch

        spec = importlib.util.spec_from_file_location("wide_resnet", out / "wide_resnet.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        with torch.no_grad():
            logits = module.load(out)(torch.from_numpy(PIXELS)).numpy()
        assert relative_error(logits, original(PIXELS)) < 1e-5


def test_up_and_down(run, there, tmp_path, capsys, monkeypatch):
    repos, tokens = there
    out = tmp_path / "folder"
    arguments = ["--workdir", str(run), "--repo", "user/some-model", "--out", str(out)]
    publish.main(arguments)
    assert set(repos["user/some-model"]) == FILES
    assert tokens == {f"Bearer {TOKEN}"}
    own = repos["user/some-model"]["README.md"]
    publish.main(arguments)  # again, over its own card
    assert repos["user/some-model"]["README.md"] == own
    for name in ("hub:user/some-model", "hub:user/some-model@v1"):
        np.testing.assert_array_equal(wrn_jax.load_model(name)(PIXELS), wrn_jax.load_model(run)(PIXELS))
    smaller = ["--no-train", "--out", str(tmp_path / "evaluated")]
    evaluate.evaluate(["--hub", "user/some-model", *smaller])
    figures = json.loads((tmp_path / "evaluated" / "model.json").read_text())
    assert figures["weights"] == "hub:user/some-model"

    options = types.SimpleNamespace(branch_from=None, init_from=Path("hub:user/some-model"), checkpoint=None, network=None)
    assert Path(train.origin_of(options).source).name == "model.safetensors"

    # A person's card stays, there too.
    repos["user/some-model"]["README.md"] = b"mine"
    publish.main(arguments)
    assert repos["user/some-model"]["README.md"] == b"mine"
    assert repos["user/some-model"]["model_card.md"] == own
    assert TOKEN not in capsys.readouterr().out

    # Repositories of others hold other files of weights.
    content = repos["user/some-model"]["model.safetensors"]
    repos["other/published"] = {"best_model.pth": content, "config.json": b'{"architectures": []}'}
    np.testing.assert_array_equal(
        wrn_jax.load_model("hub:other/published", data="embedded")(PIXELS), wrn_jax.load_model(run)(PIXELS)
    )
    repos["other/empty"] = {"README.md": b""}
    for name, message in {
        "other/nothing": "there is no such repository",
        "user/some-model@v9": "has no such revision",
        "other/empty": r"holds no weights; looked for model\.safetensors",
        "nonsense": "is no repository of the Hub; should be USER/NAME",
        "../up": "is no repository of the Hub; should be USER/NAME",
    }.items():
        with pytest.raises(UserError, match=message):
            hub.fetch(name)


def test_of_weights_published_before_nothing_stays(run, there, tmp_path):
    repos, _ = there
    out = tmp_path / "folder"
    other = make_run(tmp_path / "other-seed0", accuracy=0.4)
    (other / "curves.png").write_bytes(b"a picture")
    arguments = ["--repo", "user/some-model", "--out", str(out), "--workdir"]
    publish.main([*arguments, str(other)])
    assert set(repos["user/some-model"]) == {path.name for path in out.iterdir()} == FILES | {"curves.png"}
    stale = (out / "evaluation.json").read_bytes()

    shutil.copytree(run, tmp_path / "some-seed0")
    shutil.rmtree(tmp_path / "some-seed0" / "evaluations")
    publish.main([*arguments, str(tmp_path / "some-seed0")])
    assert set(repos["user/some-model"]) == {path.name for path in out.iterdir()} == FILES - {"evaluation.json"}
    for source in (out, "hub:user/some-model"):
        model = wrn_jax.load_model(source)
        assert (model.temperature, model.figures) == (None, {})

    # One that an older version left there is of other weights, and counts for none.
    (out / "evaluation.json").write_bytes(stale)
    assert wrn_jax.load_model(out).figures == {}


@pytest.mark.parametrize(("setting", "is_offline"), [("", False), ("0", False), ("1", True)])
def test_what_cannot_be_asked_for_is_not_taken_to_be_missing(tmp_path, monkeypatch, setting, is_offline):
    package = pytest.importorskip("huggingface_hub")

    def download(repo, file, **_):
        if file != "model.safetensors":
            raise package.errors.LocalEntryNotFoundError("no connection")
        return str(tmp_path / file)

    monkeypatch.setattr(package, "hf_hub_download", download)
    monkeypatch.setattr(package.constants, "HF_HUB_OFFLINE", is_offline)
    monkeypatch.setenv("HF_HUB_OFFLINE", setting)
    if is_offline:  # what the cache has is all there is
        assert hub.fetch("user/name") == tmp_path / "model.safetensors"
        return
    with pytest.raises(UserError, match=r"hub:user/name: config\.json: could not be reached, and is not in the cache"):
        hub.fetch("user/name")


def test_mistakes(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for call in (
        lambda: publish.main(["--workdir", str(run), "--repo", "user/name", "--out", str(tmp_path)]),
        lambda: hub.fetch("user/name"),
    ):
        with pytest.raises(UserError, match=r"huggingface_hub, which is not installed: pip install 'wrn_jax\[hub\]'"):
            call()
    with pytest.raises(UserError, match=r"--out .*: is the directory of a run, whose files would be replaced"):
        publish.main(["--workdir", str(run), "--repo", "user/name", "--out", str(run), "--dry-run"])
    with pytest.raises(UserError, match="'name': is no repository"):
        publish.main(["--workdir", str(run), "--repo", "name", "--dry-run"])
    assert hub.without_secrets(f"a {TOKEN} b") == "a *** b"
    names = ("GatedRepo", "RepositoryNotFound", "RevisionNotFound", "LocalEntryNotFound")
    kinds = dict.fromkeys([*(f"{name}Error" for name in names), "OfflineModeIsEnabled"], FileNotFoundError)
    package = types.SimpleNamespace(errors=types.SimpleNamespace(**kinds))
    assert TOKEN not in hub._explained(ValueError(f"https://hub/x?token={TOKEN}"), package)
