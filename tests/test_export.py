"""A run's model as files for others: the same bits, the same logits, no data set needed, nothing overwritten by accident."""

import json
import shutil
import subprocess
import sys

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
from flax import nnx
from orbax.checkpoint import v1 as ocp

from tests.small import CHANGES, finish
from tests.weights import formula_model, relative_error
from wrn_jax import export
from wrn_jax.config import load_file
from wrn_jax.config.datasets import DATASETS
from wrn_jax.data import loading
from wrn_jax.data.normalisation import Normalisation
from wrn_jax.models import export_formats, weight_layouts
from wrn_jax.models.network import Network
from wrn_jax.runtime import devices
from wrn_jax.runtime.errors import UserError
from wrn_jax.training.checkpoints import Checkpoints
from wrn_jax.training.optimizer import LossScale, make_optimizer
from wrn_jax.training.records import CheckpointNotes
from wrn_jax.training.setup import resolve
from wrn_jax.training.state import TrainState

pytestmark = pytest.mark.slow

DRAWN = DATASETS["embedded"]
# As (epoch, finished updates, accuracy): the best, one after it, and one within an epoch.
SAVED = [(1, 10, 0.3), (2, 20, 0.2), (2, 25, None)]


def weights_at(step):
    """(parameters, running statistics) of the checkpoint after `step` updates; the formula leaves nothing at 0 or 1."""
    params, stats = formula_model(10, 1, 100)
    return jax.tree.map(lambda leaf: leaf * np.float32(1 + (step - 10) / 100), (params, stats))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("export") / "run"
    config = resolve(load_file("configs/session04.py").override(CHANGES), devices.make_mesh(1))
    with Checkpoints(workdir / "checkpoints", keep=[10, 20]) as checkpoints:
        for epoch, step, accuracy in SAVED:
            params, stats = jax.tree.map(jnp.asarray, weights_at(step))
            optimizer = make_optimizer(config.optimizer).init(params)
            state = TrainState(jnp.int32(step), params, stats, optimizer, LossScale.create("float32"), jax.random.key(0))
            checkpoints.save(state, step, epoch, accuracy, CheckpointNotes(rollbacks=0))
    (workdir / "config.json").write_text(json.dumps(config.to_dict()))
    return workdir


@pytest.fixture(scope="module")
def exported(run):
    """(folder, what was printed) of the command as a user calls it."""
    folder = run.parent / "for others"
    code, output, errors = finish("export", "--workdir", run, "--out", folder)
    assert (code, errors) == (0, "")
    return folder, output


def assert_same(found, expected):
    """The same structure and the same bits."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def logits_here(params, stats, images, normalise):
    """What this package computes, in float32."""
    network = Network(load_file("configs/session04.py").override(CHANGES).model, 100, "float32")
    function = jax.jit(lambda params, stats, images: nnx.merge(network.graphdef, params, stats)(normalise(images)))
    return np.asarray(function(params, stats, images))


def draw_images(count):
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8)


def test_says_what_was_written_and_how_to_load_it(exported, run):
    folder, output = exported
    first, *rest = output.splitlines()
    assert first == f"{run} after epoch 1, step 10: WideResNet-10-1, 100 classes"
    names = ["model.safetensors", "model.orbax", "model.stablehlo"]
    assert [line.split(", ")[0] for line in rest[::2]] == [f"wrote {folder / name}" for name in names]
    assert all(line.endswith(" 0.3 MB") for line in rest[::2])
    assert [line.split(":")[0].split()[0] for line in rest[1::2]] == ["PyTorch", "Orbax", "JAX"]
    assert all(str(folder / name) in line for name, line in zip(names, rest[1::2], strict=True))
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)


def test_safetensors_hold_the_bits_of_the_run_and_what_they_are(exported):
    path = exported[0] / "model.safetensors"
    weights = weight_layouts.read_weights(path)
    assert weights[:3] == (10, 1, 100)
    assert_same((weights.params, weights.batch_stats), weights_at(10))
    with safetensors.safe_open(path, framework="numpy") as file:
        facts = file.metadata()
    assert facts.pop("format") == "pt"
    assert facts.pop("data") == "embedded"
    assert facts.pop("accuracy_on") == "valid"
    facts = {name: json.loads(text) for name, text in facts.items()}
    assert facts.pop("versions")["jax"] == jax.__version__
    assert facts == {
        "depth": 10, "widen_factor": 1, "num_classes": 100, "mean": list(DRAWN.mean), "std": list(DRAWN.std),
        "step": 10, "epoch": 1, "accuracy": 0.3,
        "data_digests": {},
        "data_keys": {
            "validation_size": 100, "validation_seed": 0, "embedded_train": 260, "embedded_test": 100, "embedded_seed": 0,
                "class_names": [], "own_train": 1, "own_test": 1,
        },
    }  # fmt: skip


def test_orbax_loads_the_bits_of_the_run_as_plain_dictionaries(exported):
    folder = exported[0] / "model.orbax"
    params, stats = weights_at(10)
    found = ocp.load(folder)
    assert_same(found, {"params": params, "batch_stats": stats})
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(found))  # asks for no device
    assert ocp.metadata(folder).custom_metadata["depth"] == 10


def test_the_program_needs_jax_alone_and_gives_the_logits_of_the_run(exported, tmp_path):
    code = """if True:
        import sys

        for name in ("wrn_jax", "flax", "orbax", "optax"):
            sys.modules[name] = None  # importing it fails
        import jax.export
        import numpy as np

        program = jax.export.deserialize(open(sys.argv[1], "rb").read())
        images = np.load(sys.argv[2])
        np.savez(sys.argv[3], *(program.call(images[:count]) for count in (1, 5)))
    """
    images, path = draw_images(5), tmp_path / "images.npy"
    np.save(path, images)
    command = [sys.executable, "-c", code, exported[0] / "model.stablehlo", path, tmp_path / "logits.npz"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = logits_here(*weights_at(10), images, Normalisation(DRAWN.mean, DRAWN.std))
    with np.load(tmp_path / "logits.npz") as found:
        assert found["arr_0"].shape == (1, 100)
        assert found["arr_0"].dtype == np.float32
        assert relative_error(found["arr_0"], expected[:1]) < 1e-6
        assert relative_error(found["arr_1"], expected) < 1e-6


def test_the_program_is_for_any_number_of_images_and_every_platform(exported):
    program = jax.export.deserialize((exported[0] / "model.stablehlo").read_bytes())
    assert program.platforms == ("cpu", "cuda", "tpu")
    (images,), (logits,) = program.in_avals, program.out_avals
    assert (str(images.shape), images.dtype) == ("(b, 32, 32, 3)", np.uint8)
    assert (str(logits.shape), logits.dtype) == ("(b, 100)", np.float32)


@pytest.mark.parametrize(
    ("precision", "kind", "tolerance"),
    [("float32", "f32", 1e-6), ("float16", "f16", 0.01), ("bfloat16", "bf16", 0.05)],
)
def test_precision_is_that_of_the_convolutions(run, precision, kind, tolerance):
    model = export.restore(run, "best")
    program = jax.export.deserialize(export.to_stablehlo(model, precision))
    lines = [line for line in program.mlir_module().splitlines() if "stablehlo.convolution" in line]
    assert len(lines) >= 9  # once, or once for each platform
    for line in lines:
        assert line.count(f"x{kind}>") == 3
        # Otherwise a TPU would multiply float32 in bfloat16, and a GPU in TF32.
        assert ("precision HIGHEST" in line) == (precision == "float32")
    images = draw_images(3)
    expected = logits_here(model.params, model.batch_stats, images, Normalisation(DRAWN.mean, DRAWN.std))
    assert relative_error(program.call(images), expected) < tolerance


@pytest.mark.parametrize(("which", "step"), [("last", 25), ("2", 20), ("best", 10)])
def test_exports_the_checkpoint_that_was_asked_for(run, which, step):
    model = export.restore(run, which)
    assert model.saved.step == step
    assert_same((model.params, model.batch_stats), weights_at(step))


def test_needs_no_data_set(run, tmp_path, monkeypatch):
    workdir = tmp_path / "run"
    shutil.copytree(run, workdir)
    config = json.loads((workdir / "config.json").read_text())
    config["data"] |= {"name": "cifar100", "directory": str(tmp_path / "nowhere"), "download": False, "validation_size": 0}
    (workdir / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(loading, "load", lambda _: pytest.fail("the data was read"))
    export.main(["--workdir", str(workdir), "--out", str(tmp_path / "out"), "--formats", "safetensors", "--checkpoint", "last"])
    with safetensors.safe_open(tmp_path / "out" / "model.safetensors", framework="numpy") as file:
        facts = file.metadata()
    assert json.loads(facts["mean"]) == [0.5071, 0.4865, 0.4409]
    assert json.loads(facts["std"]) == [0.2673, 0.2564, 0.2761]
    assert (facts["data"], facts["accuracy"], facts["accuracy_on"]) == ("cifar100", "null", "test")


def test_overwrites_only_when_told_to(run, tmp_path):
    def call(*arguments):
        export.main(["--workdir", str(run), "--out", str(tmp_path / "out"), "--formats", "orbax", "safetensors", *arguments])

    call()
    before = (tmp_path / "out" / "model.safetensors").read_bytes()
    (tmp_path / "out" / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"model.orbax: is there already; replace it with --force"):
        call("--checkpoint", "2")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.orbax"]
    call("--force", "--checkpoint", "2")
    assert_same(ocp.load(tmp_path / "out" / "model.orbax")["params"], weights_at(20)[0])
    assert (tmp_path / "out" / "model.safetensors").read_bytes() != before


class TestMistakes:
    @pytest.mark.parametrize(("name", "package"), [("safetensors", "safetensors"), ("stablehlo", "flatbuffers")])
    def test_a_package_is_missing(self, run, tmp_path, monkeypatch, name, package):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(UserError, match=rf"--formats {name}: needs {package}, .* pip install {package}"):
            export.main(["--workdir", str(run), "--out", str(tmp_path / "out"), "--formats", name])
        assert not (tmp_path / "out").exists()
        export_formats.check_packages({"orbax"})

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--checkpoint", "7"], "--checkpoint 7: not kept; there are epochs 1, 2"),
            (["--formats", "onnx"], "argument --formats: invalid choice: 'onnx'"),
            (["--precision", "int8"], "argument --precision: invalid choice: 'int8'"),
            (["--config.model.depth=16"], "unrecognized arguments: --config.model.depth=16"),
            (["--workdir", "nowhere"], r"nowhere: holds no run \(no readable config.json\)"),
        ],
    )
    def test_on_the_command_line(self, run, tmp_path, arguments, message):
        with pytest.raises(UserError, match=message):
            export.main(["--workdir", str(run), "--out", str(tmp_path / "out"), *arguments])

    def test_a_run_without_checkpoints(self, run, tmp_path):
        shutil.copy(run / "config.json", tmp_path)
        with pytest.raises(UserError, match="holds no checkpoints"):
            export.main(["--workdir", str(tmp_path), "--out", str(tmp_path / "out")])
        assert not (tmp_path / "checkpoints").exists()

    @pytest.mark.parametrize("name", ["safetensors", "orbax", "stablehlo"])
    def test_out_is_a_file(self, run, tmp_path, name):
        (tmp_path / "out").touch()
        with pytest.raises(UserError, match="out: cannot be written: File exists"):
            export.main(["--workdir", str(run), "--out", str(tmp_path / "out"), "--formats", name])

    def test_a_file_that_cannot_be_replaced(self, run, tmp_path):
        (tmp_path / "model.safetensors").mkdir()
        with pytest.raises(UserError, match=r"model.safetensors.*: cannot be written: Is a directory"):
            export.main(["--workdir", str(run), "--out", str(tmp_path), "--formats", "safetensors", "--force"])
        assert [path.name for path in tmp_path.iterdir() if path.is_file()] == []
