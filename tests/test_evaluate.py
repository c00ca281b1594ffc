"""The command: which checkpoint, which images, what it says and what it leaves behind."""

import dataclasses
import functools
import hashlib
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.evaluation.test_evaluator import random_weights
from tests.fake_cifar import one_line
from tests.small import CHANGES
from wrn_jax import config as configs
from wrn_jax import evaluate, export
from wrn_jax.config import Data
from wrn_jax.config.datasets import DATASETS
from wrn_jax.data import corruptions, loading
from wrn_jax.data.loading import Dataset, Split
from wrn_jax.data.normalisation import Normalisation
from wrn_jax.evaluation import metrics
from wrn_jax.models import weight_layouts
from wrn_jax.models.network import Network
from wrn_jax.runtime.errors import UserError
from wrn_jax.training.checkpoints import Checkpoints, Saved, choose
from wrn_jax.training.optimizer import LossScale, make_optimizer
from wrn_jax.training.records import CheckpointNotes
from wrn_jax.training.state import TrainState

pytestmark = pytest.mark.slow

CONFIG = configs.load_file("configs/session04.py").override(CHANGES)
SAVED = [Saved(10, 1, 0.2), Saved(20, 2, 0.5), Saved(40, 4, 0.5), Saved(50, 5, 0.4), Saved(57, 5, None)]


class TestChoose:
    @pytest.mark.parametrize(("which", "epoch"), [("best", 2), ("4", 4), ("5", 5)])
    def test_finds_the_end_of_an_epoch(self, which, epoch):
        assert choose(SAVED, which, Path("run")).step == 10 * epoch

    def test_last_may_lie_within_an_epoch(self):
        assert choose(SAVED, "last", Path("run")).step == 57

    def test_no_best_within_the_first_epoch(self):
        with pytest.raises(UserError, match="no epoch is finished yet"):
            choose([Saved(3, 0, None)], "best", Path("run"))

    @pytest.mark.parametrize(
        ("which", "message"),
        [
            ("3", "not kept; there are epochs 1, 2, 4, 5"),
            ("lats", "should be best, last, all or the number of an epoch"),
            ("٣", "should be best, last, all or the number of an epoch"),
        ],
    )
    def test_says_what_there_is(self, which, message):
        with pytest.raises(UserError, match=message):
            choose(SAVED, which, Path("run"), "all")

    def test_nothing_there(self):
        with pytest.raises(UserError, match="holds no complete checkpoint"):
            choose([], "best", Path("run"))


@pytest.fixture(scope="module")
def dataset():
    """Drawn images, 100 of them for testing, 100 held out, 160 for training."""
    return loading.load(CONFIG.data)


@pytest.fixture(scope="module")
def network():
    return Network(CONFIG.model, 100, "float32")


@pytest.fixture(scope="module")
def logits_of(network, dataset):
    """A function from parameters, statistics and images to logits, without what is tested."""
    normalise = Normalisation(dataset.mean, dataset.std)
    forward = jax.jit(lambda params, stats, images: nnx.merge(network.graphdef, params, stats)(normalise(images)))
    return lambda state, images: np.asarray(forward(state.params, state.batch_stats, np.ascontiguousarray(images)))


@pytest.fixture(scope="module")
def states(network, dataset, logits_of):
    """Two states of a run: a random network, and the same with a last layer that has seen all the images."""
    params, stats = random_weights(network)
    scale, key = LossScale.create("float32"), jax.random.key(0)
    state = TrainState(jnp.int32(0), params, stats, make_optimizer(CONFIG.optimizer).init(params), scale, key)
    splits = (dataset.train, dataset.valid, dataset.test)
    outputs = np.concatenate([logits_of(state, split.images) for split in splits])
    wanted = np.eye(100)[np.concatenate([split.labels for split in splits])]
    # Ridge regression from its outputs to the labels, folded into the layer; not perfect, hence with a best temperature.
    solved = np.linalg.solve(outputs.T @ outputs + 0.1 * np.eye(100), outputs.T @ wanted)
    last = {name: value @ (30 * solved).astype(np.float32) for name, value in params["fc"].items()}
    return state, dataclasses.replace(state, params=params | {"fc": last})


@pytest.fixture(scope="module")
def logits(states, logits_of):
    return functools.partial(logits_of, states[1])


@pytest.fixture(scope="module")
def run(states, dataset, tmp_path_factory):
    """A run of two epochs, the second the better one."""
    workdir = tmp_path_factory.mktemp("run") / "run"
    metadata = {"config": CONFIG.to_dict(), "data_digests": loading.digests(dataset)}
    with Checkpoints(workdir / "checkpoints", metadata=metadata) as checkpoints:
        for epoch, state in enumerate(states, 1):
            checkpoints.save(state, 10 * epoch, epoch, 0.1 * epoch, CheckpointNotes(rollbacks=0))
    (workdir / "config.json").write_text(json.dumps(CONFIG.to_dict()))
    (workdir / "metrics.jsonl").write_text("")
    return workdir


@pytest.fixture(scope="module")
def weights(states, tmp_path_factory):
    """The second state as a file of weights."""
    safetensors = pytest.importorskip("safetensors.numpy")
    path = tmp_path_factory.mktemp("weights") / "some.safetensors"
    safetensors.save_file(weight_layouts.to_torch(states[1].params, states[1].batch_stats), path)
    return path


SMALL = ["--config.data.name=embedded", "--config.data.embedded_train=260", "--config.data.embedded_test=100"]


def fingerprints(folder):
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) for path in files}


def call(*arguments, out=None, stem="step-20"):
    """Runs the command; what it left in `out`, as (figures, arrays)."""
    evaluate.evaluate([*map(str, arguments), *(["--out", str(out)] if out else [])])
    if out:
        with np.load(out / f"{stem}.npz") as arrays:
            return json.loads((out / f"{stem}.json").read_text()), dict(arrays)


def test_figures_and_predictions_of_every_image(run, dataset, logits, tmp_path):
    before = fingerprints(run)
    figures, arrays = call("--workdir", run, "--checkpoint", "last", "--save-train", out=tmp_path / "here")
    assert fingerprints(run) == before
    assert [path.name for path in sorted((tmp_path / "here").iterdir())] == ["step-20.json", "step-20.npz"]
    assert {key: figures[key] for key in ("format", "step", "epoch", "judge", "precision", "flip", "corruptions")} == {
        "format": 1, "step": 20, "epoch": 2, "judge": "valid", "precision": "float32", "flip": None, "corruptions": None,
    }  # fmt: skip
    assert figures["chosen_as"] == ["best", "last"]
    assert figures["hardware"]["devices_used"] == 8
    counts = {}
    for name in ("test", "valid", "train"):
        split, found = getattr(dataset, name), figures["splits"][name]
        outputs = logits(split.images)
        probabilities = np.exp(metrics.log_softmax(outputs))
        own = np.take_along_axis(probabilities, split.labels[:, None], 1)[:, 0]
        counts[name] = found["count"]
        assert found["accuracy"] == pytest.approx((outputs.argmax(1) == split.labels).mean(), abs=1e-6)
        assert found["loss"] == pytest.approx(-np.log(own).mean(), abs=1e-4)
        np.testing.assert_array_equal(arrays[f"{name}_predicted"], outputs.argmax(1))
        np.testing.assert_array_equal(arrays[f"{name}_labels"], split.labels)
        np.testing.assert_allclose(arrays[f"{name}_confidence"], probabilities.max(1), rtol=2e-3)
        np.testing.assert_allclose(arrays[f"{name}_own"], own, rtol=2e-3, atol=1e-7)
        assert (arrays[f"{name}_predicted"].dtype, arrays[f"{name}_own"].dtype) == (np.uint8, np.float16)
    assert counts == {"test": 100, "valid": 100, "train": 160}
    gap = figures["splits"]["train"]["accuracy"] - figures["splits"]["test"]["accuracy"]
    assert figures["clean_gap"] == pytest.approx(gap, abs=1e-6)
    assert arrays["test_digest"] == hashlib.sha256(dataset.test.labels.astype("<i4").tobytes()).hexdigest()

    # Temperature: fitted on the hold-out, applied to the test images.
    temperature = metrics.fit_temperature(logits(dataset.valid.images), dataset.valid.labels)
    assert figures["temperature"]["value"] == pytest.approx(temperature, rel=1e-3)
    assert figures["temperature"]["fitted_on"] == "valid"
    after = metrics.summary(metrics.score(logits(dataset.test.images) / np.float64(temperature), dataset.test.labels))
    assert figures["temperature"]["loss"] == pytest.approx(after["loss"], abs=1e-4)
    assert "temperature_missing" not in figures

    # Classes: in the drawn test set there is one image of each.
    right = arrays["test_predicted"] == arrays["test_labels"]
    assert figures["classes"] == {
        DATASETS["embedded"].class_names[label]: float(r) for label, r in zip(dataset.test.labels, right, strict=True)
    }
    for index, shape in enumerate(DATASETS["embedded"].superclasses):
        assert figures["superclasses"][shape] == pytest.approx(right[arrays["test_labels"] // 10 == index].mean())
    same = arrays["test_predicted"] // 10 == arrays["test_labels"] // 10
    assert figures["superclass_accuracy"] == pytest.approx(same.mean())
    assert len(figures["confused"]) == 20


def test_all_checkpoints_of_a_run_land_in_the_run(run, capsys):
    before = fingerprints(run)
    call("--workdir", run, "--checkpoint", "all", "--no-train", "--gallery")
    after = fingerprints(run)
    new = [run / "evaluations" / f"step-{step}.{kind}" for step in (10, 20) for kind in ("html", "json", "npz")]
    assert set(after) - set(before) == set(new)
    assert {path: after[path] for path in before} == before
    figures = [json.loads((run / "evaluations" / f"step-{step}.json").read_text()) for step in (10, 20)]
    assert [one["epoch"] for one in figures] == [1, 2]
    assert [one["chosen_as"] for one in figures] == [[], ["best", "last"]]
    assert all(one["clean_gap"] is None and "train" not in one["splits"] for one in figures)
    assert "<h1>Mistakes of " in new[0].read_text(encoding="utf-8")
    with np.load(new[2]) as arrays:
        assert not any(name.startswith("train") for name in arrays)
    output = capsys.readouterr().out
    assert f"{run} after epoch 1, step 10, float32: 100 test images\n" in output
    assert "chosen on these very images" not in output
    assert output.count("most confused:") == 2


def test_an_epoch_that_is_neither_best_nor_last(run, tmp_path):
    figures, _ = call("--workdir", run, "--checkpoint", "1", "--no-train", out=tmp_path, stem="step-10")
    assert (figures["epoch"], figures["chosen_as"]) == (1, [])


def test_a_damaged_checkpoint_does_not_keep_all_others_from_being_evaluated(run, tmp_path, monkeypatch):
    restore = Checkpoints.restore_model

    def fail(self, step, *rest):
        if step == 10:
            raise UserError("10: is damaged")
        return restore(self, step, *rest)

    monkeypatch.setattr(Checkpoints, "restore_model", fail)
    with pytest.raises(UserError, match=r"^10: is damaged$"):
        call("--workdir", run, "--checkpoint", "all", "--no-train", "--out", tmp_path)
    assert (tmp_path / "step-20.json").exists()
    assert not (tmp_path / "step-10.json").exists()


@pytest.mark.parametrize(("which", "evaluated"), [("last", 10), ("all", 20)])
def test_checkpoints_that_the_run_deletes_meanwhile_are_no_damage(run, tmp_path, monkeypatch, capsys, which, evaluated):
    workdir, load = tmp_path / "run", Checkpoints._load
    shutil.copytree(run, workdir)

    def delete(self, step, *rest):
        if step != evaluated:
            shutil.rmtree(workdir / "checkpoints" / str(step))
        return load(self, step, *rest)

    monkeypatch.setattr(Checkpoints, "_load", delete)
    written = evaluate.evaluate(
        ["--workdir", str(workdir), "--checkpoint", which, "--no-train", "--out", str(tmp_path / "out")]
    )
    assert written == tmp_path / "out" / f"step-{evaluated}.json"
    told = capsys.readouterr().err
    assert ("checkpoints/10: the run has replaced it" in told) == (which == "all")
    assert "damaged" not in told


def test_flip_is_the_mean_of_image_and_mirror_image(run, dataset, logits, tmp_path, capsys):
    figures, _ = call("--workdir", run, "--checkpoint", "last", "--no-train", "--flip", out=tmp_path)
    test = dataset.test
    both = [np.exp(metrics.log_softmax(logits(images))) for images in (test.images, test.images[:, :, ::-1])]
    mean = (both[0] + both[1]) / 2
    assert figures["flip"]["accuracy"] == pytest.approx((mean.argmax(1) == test.labels).mean(), abs=1e-6)
    own = np.take_along_axis(mean, test.labels[:, None], 1)
    assert figures["flip"]["loss"] == pytest.approx(-np.log(own).mean(), abs=1e-4)
    assert f"accuracy {figures['flip']['accuracy']:.2%}, loss {figures['flip']['loss']:.4f}" in capsys.readouterr().out


def test_drawn_corruptions(run, dataset, logits, tmp_path, monkeypatch, capsys):
    some = {name: corruptions.CORRUPTIONS[name] for name in ("contrast", "saturate")}
    monkeypatch.setattr(corruptions, "CORRUPTIONS", some)
    arguments = ["--workdir", run, "--checkpoint", "last", "--no-train", "--corruptions", "--corruption-images", 50]
    figures, _ = call(*arguments, out=tmp_path)
    labels = dataset.test.labels[:50]
    for name in some:
        for severity, found in enumerate(figures["corruptions"][name], 1):
            images = corruptions.corrupt(dataset.test.images[:50], name, severity, jax.random.key(0))  # they draw nothing
            assert found == pytest.approx((logits(images).argmax(1) == labels).mean(), abs=1e-6), (name, severity)
    assert figures["mean_corruption_accuracy"] == pytest.approx(np.mean(figures["corruptions"]["contrast"]))  # one counts
    assert figures["corruptions_in_mean"] == ["contrast"]
    assert figures["corruptions_from"] == "drawn, key 0"
    assert figures["corruption_images"] == 50
    output = capsys.readouterr().out
    assert "(drawn, key 0; only the first 50 of 100 images)" in output
    assert f"mean corruption accuracy  {figures['mean_corruption_accuracy']:.2%}" in output


def test_what_an_evaluation_before_found_out_is_kept(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(corruptions, "CORRUPTIONS", {"contrast": corruptions.CORRUPTIONS["contrast"]})
    arguments = ["--workdir", run, "--checkpoint", "last"]
    before, _ = call(*arguments, "--flip", "--corruptions", "--corruption-images", 50, out=tmp_path)
    after, _ = call(*arguments, "--no-train", out=tmp_path)
    assert "kept from the evaluation before: corrupted images, mirror images, training images" in capsys.readouterr().out
    for name in ("splits", "clean_gap", "flip", "corruptions", "mean_corruption_accuracy", "corruption_images"):
        assert after[name] == before[name], name
    path = next(tmp_path.glob("*.json"))  # as if it were of other weights
    path.write_text(json.dumps(before | {"splits": before["splits"] | {"test": before["splits"]["test"] | {"loss": 9.0}}}))
    other, _ = call(*arguments, "--no-train", out=tmp_path)
    assert (other["flip"], other["corruptions"], other["clean_gap"]) == (None, None, None)


def test_stored_corruptions_in_an_order_of_their_own(run, dataset, logits, tmp_path):
    order = np.random.default_rng(0).permutation(100)
    images = np.concatenate([dataset.test.images[order] // scale for scale in (1, 2, 3, 4, 5)])
    folder = tmp_path / "CIFAR-100-C"
    folder.mkdir()
    np.save(folder / "frost.npy", images)
    np.save(folder / "labels.npy", np.tile(dataset.test.labels[order], 5))
    arguments = ["--workdir", run, "--checkpoint", "last", "--no-train", f"--corruptions={folder}"]
    figures, _ = call(*arguments, out=tmp_path / "out")
    expected = [(logits(dataset.test.images // scale).argmax(1) == dataset.test.labels).mean() for scale in (1, 2, 3, 4, 5)]
    assert figures["corruptions"] == {"frost": pytest.approx(expected, abs=1e-6)}
    assert expected[0] == figures["splits"]["test"]["accuracy"]
    assert figures["mean_corruption_accuracy"] == pytest.approx(np.mean(expected), abs=1e-6)
    assert figures["corruptions_from"] == f"CIFAR-100-C at {folder}"
    assert figures["corruption_images"] == 100


class TestCorruptedImages:
    TEST = Split(np.zeros((4, 32, 32, 3), np.uint8), np.array([0, 1, 2, 1], np.int32))

    def ask(self, tmp_path, corruptions, count=None, name="cifar100"):
        options = type("Options", (), {"corruptions": corruptions, "corruption_images": count})
        dataset = Dataset(name, 3, ("a", "b", "c"), (0.5,) * 3, (0.5,) * 3, self.TEST, None, self.TEST)
        found = evaluate.corrupted_images(options, dataset, Data(name=name, directory=str(tmp_path)))
        return found and (found.origin, found.count)

    def test_those_in_the_data_directory_come_before_drawn_ones(self, tmp_path):
        assert self.ask(tmp_path, None) is None
        assert self.ask(tmp_path, "", 2) == ("drawn, key 0", 2)
        folder = tmp_path / "CIFAR-100-C"
        folder.mkdir()
        np.save(folder / "fog.npy", np.zeros((20, 32, 32, 3), np.uint8))
        np.save(folder / "labels.npy", np.tile([1, 1, 0, 2], 5))
        assert self.ask(tmp_path, "") == (f"CIFAR-100-C at {folder}", 4)
        assert self.ask(tmp_path, "drawn") == ("drawn, key 0", 4)
        assert self.ask(tmp_path / "nowhere", str(folder)) == (f"CIFAR-100-C at {folder}", 4)
        assert self.ask(tmp_path, "", name="cifar10") == ("drawn, key 0", 4)
        assert self.ask(tmp_path, "", name="embedded") == ("drawn, key 0", 4)

    @pytest.mark.parametrize("count", [0, -1, 5])
    def test_number_out_of_range(self, tmp_path, count):
        with pytest.raises(UserError, match=f"--corruption-images {count}: should be between 1 and 4"):
            self.ask(tmp_path, "", count)


def test_weights_of_a_file_give_the_figures_of_the_run(run, weights, tmp_path, capsys):
    from_run, arrays = call("--workdir", run, "--checkpoint", "last", out=tmp_path / "run")
    assert {name.split("_")[0] for name in arrays} == {"test", "valid"}  # predictions on training images only when asked
    capsys.readouterr()
    before = fingerprints(weights.parent)
    call("--weights", weights, *SMALL)
    assert fingerprints(weights.parent) == before
    output = capsys.readouterr().out
    assert output.startswith(
        "images: test split of drawn shapes (embedded), normalised with mean 0.4980 0.4980 0.4980, "
        "std 0.2450 0.2450 0.2450 (that of the data set; --mean and --std choose another)\n"
        f"{weights}, WideResNet-10-1, float32: 100 test images\naccuracy  "
    )
    assert "no temperature scaling: no hold-out to fit it on, and it is never fitted on test images" in output
    assert "written" not in output
    figures, others = call("--weights", weights, "--no-train", *SMALL, out=tmp_path / "file", stem="some")
    assert figures["splits"]["test"] == from_run["splits"]["test"]
    np.testing.assert_array_equal(others["test_predicted"], arrays["test_predicted"])
    assert others["test_digest"] == arrays["test_digest"]
    assert {key: figures[key] for key in ("step", "epoch", "chosen_as", "judge", "weights", "temperature")} == {
        "step": None, "epoch": None, "chosen_as": [], "judge": None, "weights": str(weights), "temperature": None,
    }  # fmt: skip
    assert "never fitted on test images" in figures["temperature_missing"]


def test_an_export_is_evaluated_on_its_own_images(run, tmp_path, capsys):
    export.main(["--workdir", str(run), "--checkpoint", "last", "--out", str(tmp_path / "model"), "--formats", "safetensors"])
    file = tmp_path / "model" / "model.safetensors"
    from_run, _ = call("--workdir", run, "--checkpoint", "last", "--no-train", out=tmp_path / "run")
    capsys.readouterr()
    figures, _ = call("--weights", file, "--no-train", out=tmp_path / "file", stem="model")  # no key: the file says it all
    # Batches of another size round otherwise.
    near = {name: split | {"loss": pytest.approx(split["loss"], rel=1e-6)} for name, split in from_run["splits"].items()}
    assert figures["splits"] == near
    assert figures["temperature"]["value"] == pytest.approx(from_run["temperature"]["value"], abs=1e-5)
    assert (figures["data"], figures["mean"]) == ("embedded", [0.498] * 3)
    assert "(embedded), normalised with mean 0.4980 0.4980 0.4980, std 0.2450 0.2450 0.2450 (that in" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"data.embedded_train = 600: the run had 260"):
        call("--weights", file, "--config.data.embedded_train=600")


def test_other_images_than_those_of_the_run_are_refused(run, tmp_path, monkeypatch):
    export.main(["--workdir", str(run), "--out", str(tmp_path / "model"), "--formats", "safetensors"])
    real = loading.load

    def load(data):
        """The same images in another order, as of another preparation."""
        dataset = real(data)
        return dataclasses.replace(dataset, train=Split(dataset.train.images[::-1], dataset.train.labels[::-1]))

    monkeypatch.setattr(loading, "load", load)
    for source in (["--workdir", run], ["--weights", tmp_path / "model" / "model.safetensors"]):
        with pytest.raises(UserError, match=r"the training images here are not those of the run, or in another order") as error:
            call(*source, "--no-train", "--out", tmp_path)
        one_line(error)


def test_a_checkpoint_of_another_run_is_refused(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text(json.dumps(CONFIG.override({"seed": 7}).to_dict()))
    with pytest.raises(UserError, match=r"checkpoints/10: is a checkpoint of another run: seed was 0, is 7; move it away"):
        call("--workdir", tmp_path / "run", "--no-train")
    with pytest.raises(UserError, match=r"checkpoints/10: is a checkpoint of another run"):
        export.main(["--workdir", str(tmp_path / "run"), "--out", str(tmp_path / "model")])


def test_the_normalisation_may_be_another(weights, tmp_path, dataset, states, network, capsys):
    options = ["--weights", weights, "--no-train", *SMALL]
    figures, arrays = call(*options, "--mean", "half", "--std", "0.5", "0.4", "0.3", out=tmp_path, stem="some")
    assert (figures["mean"], figures["std"]) == ([0.5] * 3, [0.5, 0.4, 0.3])
    assert "mean 0.5000 0.5000 0.5000, std 0.5000 0.4000 0.3000 (as asked for)" in capsys.readouterr().out
    inputs = Normalisation((0.5,) * 3, (0.5, 0.4, 0.3))(jnp.asarray(dataset.test.images))
    outputs = nnx.merge(network.graphdef, states[1].params, states[1].batch_stats)(inputs)
    np.testing.assert_array_equal(arrays["test_predicted"], outputs.argmax(1))


@pytest.mark.parametrize(
    ("mean", "std", "expected"),
    [
        ("none", None, ((0.0,) * 3, (1.0,) * 3)),
        ("cifar10", None, ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))),
        ("0.5", "half", ((0.5,) * 3, (0.5,) * 3)),
        ("0.5", None, "--mean and --std go together"),
        (None, "half", "--mean and --std go together"),
        ("125.3", "1", "--mean '125.3': should be one number or three in 0..1"),
        ("half", "0", "--std '0': should be one number or three in 0..1, none of them 0"),
        ("a b", "1", "--mean 'a b': should be"),
        ("nan", "1", "--mean 'nan': should be"),
    ],
)
def test_mean_and_std_as_names_and_numbers(mean, std, expected):
    words = (mean and mean.split(), std and std.split())
    if isinstance(expected, tuple):
        assert evaluate.asked_normalisation(*words) == expected
    else:
        with pytest.raises(UserError, match=expected):
            evaluate.asked_normalisation(*words)


@pytest.mark.parametrize("count", [7, 101])
def test_weights_with_too_few_or_too_many_outputs_or_other_sizes(weights, tmp_path, count):
    safetensors = pytest.importorskip("safetensors.numpy")
    flat = safetensors.load_file(weights)
    flat |= {name: np.resize(flat[name], (count, *flat[name].shape[1:])) for name in ("fc.weight", "fc.bias")}
    safetensors.save_file(flat, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=f"has {count} outputs, and embedded 100 classes") as error:
        call("--weights", tmp_path / "other.safetensors", *SMALL)
    one_line(error)
    with pytest.raises(UserError, match="are those of the weights"):
        call("--weights", weights, "--config.model.depth=16", *SMALL)


def test_outputs_that_are_not_finite_are_wrong_and_said(weights, tmp_path, capsys):
    safetensors = pytest.importorskip("safetensors.numpy")
    flat = safetensors.load_file(weights)
    flat["fc.bias"][3] = np.nan
    safetensors.save_file(flat, tmp_path / "nan.safetensors")
    figures, arrays = call("--weights", tmp_path / "nan.safetensors", "--no-train", *SMALL, out=tmp_path / "out", stem="nan")
    test = figures["splits"]["test"]
    assert (test["accuracy"], test["loss"], test["without_prediction"]) == (0, None, 100)
    assert (arrays["test_predicted"] == 100).all()
    assert figures["confused"] == []
    assert "100 images have outputs that are not finite, and count as wrong" in capsys.readouterr().out


def test_best_on_the_test_images_is_flattered(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(evaluate, "check_checkpoints", lambda *_: None)  # they are of the run with a hold-out
    shutil.copytree(run / "checkpoints", tmp_path / "checkpoints")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG.override({"data.validation_size": 0}).to_dict()))
    call("--workdir", tmp_path, "--checkpoint", "all", "--no-train")
    assert capsys.readouterr().out.count("this checkpoint was chosen on these very images (no hold-out)") == 1
    figures = json.loads((tmp_path / "evaluations" / "step-20.json").read_text())
    assert (figures["judge"], figures["chosen_as"]) == ("test", ["best", "last"])
    assert (set(figures["splits"]), figures["temperature"]) == ({"test"}, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.data.validation_size=0"], "data.validation_size = 0: the run had 100"),
        (["--config.data.embedded_seed=1"], "data.embedded_seed = 1: the run had 0"),
        (["--config.data.name=cifar10"], "data.name = cifar10: the run had embedded"),
        (["--config.model.depth=16"], "checkpoint 20: "),
        (["--corruption-images=5"], "--corruption-images goes with --corruptions"),
        (["--corruptions=/nowhere"], "/nowhere: there is no such directory"),
        (["--out=/proc/nowhere"], "--out DIR puts the files elsewhere"),
        (["--checkpoint=7"], "not kept; there are epochs 1, 2"),
        (["--weights=x.pth"], "not allowed with argument"),
    ],
)
def test_mistakes_are_one_line(run, arguments, message, tmp_path):
    with pytest.raises(UserError, match=message) as error:
        call("--workdir", run, "--checkpoint=last", f"--out={tmp_path}", *arguments)
    one_line(error)


def test_needs_something_to_evaluate():
    with pytest.raises(UserError, match="one of the arguments --workdir --weights --hub is required"):
        call("--no-train")


def test_precision_and_batch_size_may_be_others(run, tmp_path):
    arguments = ["--workdir", run, "--checkpoint", "last", "--no-train", "--config.precision=bfloat16"]
    # Training would want a batch that eight devices can share.
    figures, _ = call(*arguments, "--config.eval_batch_size=24", "--config.recipe.batch_size=33", out=tmp_path)
    assert figures["precision"] == "bfloat16"
    assert figures["splits"]["test"]["count"] == 100
