"""Ahead-of-time compilation without any accelerator's compiler: CPU devices stand in for the target's, lowering is real."""

import collections
import json
import math
import re
import tempfile
from pathlib import Path

import jax
import pytest

from wrn_jax import aot
from wrn_jax.config import load_file
from wrn_jax.models.network import Network
from wrn_jax.planning import compile, cost, hlo, targets
from wrn_jax.runtime import devices
from wrn_jax.runtime.errors import UserError

pytestmark = pytest.mark.slow

SMALL = {"model.depth": 10, "model.widen_factor": 1, "recipe.batch_size": 16}
KEYS = [f"--config.{key}={value}" for key, value in SMALL.items()]
NORMS = 7  # of a WRN-10: two in each block and one at the end


@pytest.fixture(autouse=True)
def _same_environment(monkeypatch):
    """What the command sets for its process is undone."""
    monkeypatch.setattr(targets, "environment", lambda platform: {})


@pytest.fixture
def stand_in(monkeypatch):
    """CPU devices in place of the target's."""
    monkeypatch.setattr(compile, "find_devices", lambda target: jax.devices()[: target.chips])


def small(**changes):
    return load_file("configs/session04.py").override(SMALL | changes)


NETWORK = Network(small().model, 100, "float32")


def sizes(pattern, text):
    """The numbers of elements of the shapes, such as 16x8x8x64, that a pattern finds."""
    return [math.prod(int(size) for size in shape.split("x")) for shape in re.findall(pattern, text)]


@pytest.mark.parametrize(("platform", "dtype"), [("tpu", "bfloat16"), ("gpu", "bfloat16"), ("gpu", "float16")])
def test_what_the_lowered_step_asks_of_an_accelerator(platform, dtype):
    """A guard without a clock."""
    step = compile.lower(small(precision=dtype), devices.make_mesh(8), platform)
    short, text = {"bfloat16": "bf16", "float16": "f16"}[dtype], step.as_text()
    # Operations per image are those of the plan.
    matrix = collections.Counter()
    for work, times in hlo.parse(step.as_text("hlo")).kernels():
        matrix.update({dtype: count * times for dtype, count in work.matrix.items()})
    linear = 3 * 2 * 64 * 100  # the last layer, in float32
    stem = 2 * 32 * 32 * 16 * 27  # the gradient of the images is not needed
    operations = 3 * cost.forward_operations(NETWORK, (32, 32, 3)) - stem
    assert matrix == {short: 16 * (operations - linear), "f32": 16 * linear}
    # Convolutions are in 16 bit and as many as layers need.
    convolutions = [line for line in text.splitlines() if "stablehlo.convolution" in line]
    assert len(convolutions) == 3 * 9 - 1
    assert all(f"x{short}>" in line and "xf32>" not in line for line in convolutions)
    # Activations are widened only where a kernel narrows them again: statistics and normalising of every norm, twice as many
    # in its gradient, dropout both ways, and the pooling.
    widened = sizes(rf"stablehlo.convert \S+ : \(tensor<([\dx]+)x{short}>\) -> tensor<[\dx]+xf32>", text)
    assert sum(size >= 16 * 8 * 8 * 64 for size in widened) == 4 * NORMS + 2 * 3 + 1
    # Nothing is transposed but the linear layer.
    assert re.findall(r"stablehlo.transpose .* : \(tensor<([\dx]+)x\w+>\)", text) == ["100x64"]
    # Random words are a quarter of what dropout decides, and drawn once.
    drawn = sizes(r"call @threefry2x32\w*\(.*-> \(tensor<([\dx]+)xui32>", text)
    decided = [16 * side * side * channels for side, channels in ((32, 16), (16, 32), (8, 64))]
    assert sorted(size for size in drawn if size > 1000) == sorted(count // 4 for count in decided)


@pytest.fixture(scope="module")
def compiled():
    """(report, program) of the step on eight CPU devices that stand in for T4s."""
    real = compile.lower
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(compile, "find_devices", lambda target: jax.devices()[: target.chips])
        patch.setattr(compile, "lower", lambda config, mesh, platform: real(config, mesh, "cpu"))
        report = compile.analyse(small(), targets.find("gpu:t4:8"), Path(folder) / "program.txt")
        return report, (Path(folder) / "program.txt").read_text()


def test_the_report_of_a_compiled_step(compiled):
    report, program = compiled
    assert (report["precision"], report["devices"], report["images_per_device"]) == ("float16", 8, 2)
    assert report["model"] == "WideResNet-10-1"
    assert hlo.parse(program).entry
    memory = report["memory"]
    parts = memory["arguments"] + memory["outputs"] - memory["aliased"] + memory["temporaries"] + memory["code"]
    assert (memory["total"], memory["fits"]) == (parts, True)
    # Parameters and momentum come back in the memory in which they came.
    assert memory["aliased"] >= 2 * 4 * NETWORK.num_parameters
    assert memory["outputs"] - memory["aliased"] < 2000
    # Gradients are sent once, in whatever type the backend adds them up; the statistics of the norms; images as bytes.
    rows = report["collectives"]
    sent = {kind: sum(row["bytes"] * row["times"] for row in rows if row["opcode"] == kind) for kind in hlo.COLLECTIVES}
    assert 2 * NETWORK.num_parameters <= sent["all-reduce"] <= 4 * NETWORK.num_parameters + 20_000
    assert sent["all-gather"] <= 2 * (32 * 32 * 3 + 8)
    assert sum(sent.values()) == sent["all-reduce"] + sent["all-gather"]
    bound = report["bound"]
    assert bound["overlapped_seconds"] == max(bound["seconds"].values())
    assert bound["seconds"]["memory"] == pytest.approx(report["traffic"]["bytes"] / report["peaks"]["bandwidth"])
    assert bound["kernel_by_kernel_seconds"] >= bound["overlapped_seconds"]
    assert bound["images_per_second"] == pytest.approx(16 / bound["overlapped_seconds"])


def test_the_report_is_printed_as_text_or_json(compiled, stand_in, monkeypatch, capsys):
    monkeypatch.setattr(compile, "analyse", lambda *arguments: compiled[0])
    arguments = ["--config", "configs/session04.py", "--target", "gpu:t4:8", *KEYS]
    aot.main(arguments)
    text = capsys.readouterr().out
    for pattern in ("not a measurement", "8 x NVIDIA T4, 2 images per chip", "bound by (compute|memory|network)"):
        assert re.search(pattern, text)
    aot.main([*arguments, "--json"])
    assert json.loads(capsys.readouterr().out) == compiled[0]


def test_scaling_keeps_the_images_per_chip(monkeypatch, capsys):
    asked = []

    def analyse(config, target, hlo_file):
        asked.append((config.recipe.batch_size, target.chips))
        return {
            "model": "a model", "precision": "bfloat16", "accelerator": "a chip", "devices": target.chips,
            "batch_size": config.recipe.batch_size, "memory": {"total": 2e9},
            "collectives": [{"opcode": "all-reduce", "bytes": 1e6, "times": 2}],
            "bound": {
                "seconds": {"compute": 1e-3, "memory": 2e-3, "network": 0.0 if target.chips == 1 else 2e-3},
                "images_per_second": target.chips * 16 / 2e-3,
            },
        }  # fmt: skip

    monkeypatch.setattr(compile, "analyse", analyse)
    aot.main(["--config", "configs/session04.py", "--target", "tpu:v5e:2x2", "--scaling", "1,32", *KEYS])
    assert asked == [(16, 1), (512, 32)]
    lines = capsys.readouterr().out.splitlines()
    assert lines[3].split() == ["1", "16", "2.00", "GB", "2.0", "MB", "2", "2.000", "8,000", "100.0%"]
    assert lines[4].split() == ["32", "512", "2.00", "GB", "2.0", "MB", "2", "4.000", "128,000", "50.0%"]


@pytest.mark.parametrize(("arguments", "message"), [
    (["--target", "tpu:v5e:2x2"], "--config FILE is missing"),
    (["--config", "configs/session04.py"], "--target is missing, for example --target tpu:v5e:2x2"),
    (["--config", "configs/session04.py", "--target", "gpu:v100"], "unknown; accepted: tpu:v4:TOPOLOGY"),
    (["--config", "configs/session04.py", "--target", "gpu:t4", "--scaling", "1,x"], "should be numbers of chips"),
    (["--config", "configs/session04.py", "--target", "gpu:t4", "--scaling", "0"], "should be numbers of chips"),
    (["--config", "configs/session04.py", "--target", "gpu:t4", "--scaling", "1,2", "--hlo", "a"], "--hlo: holds one program"),
    (["--config", "configs/session04.py", "--target", "gpu:t4", "--scaling", "²"], "--scaling ²: should be numbers of chips"),
    (["--config", "configs/session04.py", "--target", "gpu:t4", "--scaling", "٣"], "--scaling ٣: should be numbers of chips"),
    (["--config", "configs/session04.py", "--target", "tpu:v5e\n:2x2"], r"--target 'tpu:v5e\n:2x2': "),
    (["--config", "configs/session04.py", "--target", "tpu:v4:2x2x1", "--scaling", "5"], "no slice of v4 has 5 chips"),
    (["--config", "configs/session04.py", "--target", "gpu:t4:3"], "should divide evenly over 3 devices"),
])  # fmt: skip
def test_mistakes_are_told_in_one_line(stand_in, arguments, message):
    with pytest.raises(UserError) as error:
        aot.main(arguments)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("target", "error", "message"), [
    ("tpu:v5e:2x2", RuntimeError("JAX TPU support not installed"), r'not installed; pip install "jax\[tpu\]"'),
    ("gpu:t4", NotImplementedError("topology not implemented"), r'not installed; pip install "jax\[cuda12\]"'),
    ("tpu:v5e:3x3", jax.errors.JaxRuntimeError("INVALID\nARGUMENT"), r"does not know this target: INVALID ARGUMENT"),
])  # fmt: skip
def test_a_missing_compiler_is_told_with_what_to_install(monkeypatch, target, error, message):
    def refuse(**arguments):
        raise error

    monkeypatch.setattr(compile.topologies, "get_topology_desc", refuse)
    with pytest.raises(UserError, match=message):
        compile.find_devices(targets.find(target))


@pytest.mark.parametrize(
    ("target", "precision", "expected"),
    [("gpu:t4", "auto", "float16"), ("gpu:l4", "auto", "bfloat16"), ("tpu:v5e:2x2", "auto", "bfloat16"),
     ("gpu:t4", "float32", "float32")],
)  # fmt: skip
def test_the_target_decides_the_precision_and_a_configuration_may_force_it(stand_in, monkeypatch, target, precision, expected):
    asked = []

    def lower(config, mesh, platform):
        asked.append(config.precision)
        raise UserError("enough")

    monkeypatch.setattr(compile, "lower", lower)
    with pytest.raises(UserError, match="enough"):
        compile.analyse(small(precision=precision), targets.find(target))
    assert asked == [expected]
