"""Weights in PyTorch's layout: names, shapes, bits, and what is said of files that are not what they should be."""

import importlib.util
import json
import sys
import types

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from tests.weights import VECTORS
from wrn_jax.config import Model
from wrn_jax.models import weight_layouts
from wrn_jax.models.network import Network
from wrn_jax.runtime.errors import UserError


def weights_of(depth=10, widen_factor=1, num_classes=7):
    """A state dict of distinct numbers."""
    random = np.random.default_rng(0)
    return {
        name: random.normal(size=shape).astype(np.float32)
        for name, shape in weight_layouts.shapes(depth, widen_factor, num_classes).items()
    }


def assert_same(found, expected):
    """The same names, and the same bits and type under each."""
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


class TestNames:
    @pytest.mark.parametrize("name", ["wrn", "wrn_wide"])
    def test_are_those_of_pytorch(self, name):
        # The vectors hold a gradient, or a sample of one, of every parameter, and all running statistics.
        vectors = np.load(VECTORS / f"{name}.npz")
        kinds = ("grad", "grad_sample", "running")
        names = {key.split("/")[1] for key in vectors if "/" in key and key.split("/")[0] in kinds}
        shapes = weight_layouts.shapes(*(int(vectors[key]) for key in ("depth", "widen_factor", "num_classes")))
        assert shapes.keys() == names
        for key in vectors:
            if key.split("/")[0] in ("grad", "running"):
                assert shapes[key.split("/")[1]] == vectors[key].shape, key

    def test_begin_and_end_as_in_the_published_model(self):
        names = list(weight_layouts.shapes(28, 10, 100))
        assert names[:6] == [
            "conv1.weight",
            *(f"block1.layer.0.bn1.{leaf}" for leaf in ("weight", "bias", "running_mean", "running_var")),
            "block1.layer.0.conv1.weight",
        ]
        assert names[-2:] == ["fc.weight", "fc.bias"]
        assert [name for name in names if "shortcut" in name] == [f"block{i}.layer.0.shortcut.weight" for i in (1, 2, 3)]
        sizes = [np.prod(shape) for name, shape in weight_layouts.shapes(28, 10, 100).items() if "running" not in name]
        assert sum(sizes) == 36_536_884

    @pytest.mark.parametrize(("depth", "width"), [(10, 1), (22, 3)])
    def test_are_all_that_the_network_has(self, depth, width):
        network = Network(Model(depth=depth, widen_factor=width), 9, "float32")
        zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), (network.params, network.batch_stats))
        flat = weight_layouts.to_torch(*zeros)
        assert {name: array.shape for name, array in flat.items()} == weight_layouts.shapes(depth, width, 9)
        found = weight_layouts.from_torch(flat, "network")
        assert jax.tree.structure((found.params, found.batch_stats)) == jax.tree.structure(zeros)


class TestFromTorch:
    @pytest.mark.parametrize("sizes", [(10, 1, 7), (16, 2, 100), (22, 1, 1)])
    def test_there_and_back_gives_the_same_bits_and_the_sizes(self, sizes):
        flat = weights_of(*sizes)
        found = weight_layouts.from_torch(flat, "here")
        assert found[:3] == sizes
        assert_same(weight_layouts.to_torch(found.params, found.batch_stats), flat)

    def test_axes(self):
        flat = weights_of()
        found = weight_layouts.from_torch(flat, "here")
        kernel = found.params["block2"]["layer"]["0"]["conv1"]["kernel"]
        assert kernel[0, 2, 3, 4] == flat["block2.layer.0.conv1.weight"][4, 3, 0, 2]
        assert found.params["fc"]["kernel"][5, 6] == flat["fc.weight"][6, 5]
        np.testing.assert_array_equal(found.params["bn1"]["scale"], flat["bn1.weight"])
        np.testing.assert_array_equal(found.batch_stats["bn1"]["var"], flat["bn1.running_var"])

    def test_prefix_of_parallel_training_and_counts_of_batches_are_dropped(self):
        flat = weights_of()
        extended = {f"module.{name}": array for name, array in flat.items()}
        extended["module.bn1.num_batches_tracked"] = np.int64(7)
        found = weight_layouts.from_torch(extended, "here")
        assert_same(weight_layouts.to_torch(found.params, found.batch_stats), flat)

    @pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
    def test_other_floating_point_types_become_float32(self, dtype):
        flat = {name: array.astype(dtype) for name, array in weights_of().items()}
        found = weight_layouts.from_torch(flat, "here")
        assert {leaf.dtype for leaf in jax.tree.leaves(found.params)} == {np.dtype(np.float32)}
        np.testing.assert_array_equal(found.params["fc"]["bias"], flat["fc.bias"].astype(np.float32))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"conv1.weight": None}, r"x.pth: holds no conv1.weight; a WideResNet-10-1 has it, of shape \(16, 3, 3, 3\)"),
            ({"bn1.weight": None}, r"x.pth: holds no bn1.weight; a WideResNet has it, of shape \(64 k,\)"),
            ({"fc.weight": None}, r"x.pth: holds no fc.weight; a WideResNet has it, of shape \(classes, 64 k\)"),
            (
                {"fc.bias": None, "bn1.running_mean": None},
                r"x.pth: holds no bn1.running_mean \(nor 1 more\); a WideResNet-10-1 has it, of shape \(64,\)",
            ),
            ({"block1.layer.0.bn3.weight": (16,)}, r"x.pth: block1.layer.0.bn3.weight, of shape \(16,\), is no part of"),
            ({"block4.layer.0.bn1.weight": (16,)}, r"x.pth: block4.layer.0.bn1.weight, of shape \(16,\), is no part of"),
            ({"block1.layer.1.bn1.weight": (16,)}, r"x.pth: holds no block1.layer.1.bn1.bias \(nor \d+ more\); .*-16-1 has it"),
            ({"a\nb" * 60: (1,)}, r"x.pth: 'a\\nba\\nb.*, of shape \(1,\), is no part of a WideResNet-10-1"),
            ({"fc.bias": (8,)}, r"x.pth: fc.bias has the shape \(8,\); should be \(7,\) in a WideResNet-10-1"),
            ({"conv1.weight": (16, 1, 3, 3)}, r"x.pth: conv1.weight has the shape \(16, 1, 3, 3\); should be \(16, 3, 3, 3\)"),
            ({"bn1.weight": (65,)}, r"x.pth: bn1.weight has the shape \(65,\); should be \(64 k,\), k being the widen factor"),
            ({"bn1.weight": (0,)}, r"x.pth: bn1.weight has the shape \(0,\); should be \(64 k,\)"),
            ({"bn1.weight": ()}, r"x.pth: bn1.weight has the shape \(\); should be \(64 k,\)"),
            ({"fc.weight": (64,)}, r"x.pth: fc.weight has the shape \(64,\); should be \(classes, 64 k\)"),
            ({"fc.weight": (0, 64)}, r"x.pth: fc.weight has the shape \(0, 64\); should be \(classes, 64\)"),
        ],
    )
    def test_says_what_is_missing_extra_or_misshapen(self, changes, message):
        flat = weights_of()
        for name, shape in changes.items():
            if shape is None:
                del flat[name]
            else:
                flat[name] = np.zeros(shape, np.float32)
        with pytest.raises(UserError, match=message) as caught:
            weight_layouts.from_torch(flat, "x.pth")
        assert "\n" not in str(caught.value)

    def test_refuses_integers(self):
        flat = weights_of() | {"fc.bias": np.zeros(7, np.int32)}
        with pytest.raises(UserError, match=r"x: fc.bias, of shape \(7,\), is of type int32; should be floating-point"):
            weight_layouts.from_torch(flat, "x")

    def test_nothing_at_all(self):
        with pytest.raises(UserError, match=r"x: holds no bn1.weight"):
            weight_layouts.from_torch({}, "x")


class TestSafetensors:
    def test_gives_what_was_written(self, tmp_path):
        path = tmp_path / "model.SAFETENSORS"
        safetensors.numpy.save_file(weights_of(), path)
        assert_same(weight_layouts.read_weights(path), weights_of())

    def test_reads_bfloat16(self, tmp_path):
        path, numbers = tmp_path / "model.safetensors", np.array([1.5, -2], ml_dtypes.bfloat16)
        header = json.dumps({"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header + numbers.tobytes())
        assert_same(weight_layouts.read_weights(path), {"a": numbers})

    @pytest.mark.parametrize("length", [0, 4, 8, 100, 5000, -1])
    def test_damaged(self, tmp_path, length):
        path = tmp_path / "model.safetensors"
        path.write_bytes(safetensors.numpy.save(weights_of())[:length])
        self.assert_one_line(path)

    @pytest.mark.parametrize("content", [b"\xff" * 100, b"\x80\x02}q\x00.", b"PK\x03\x04" + bytes(100), b"version https://git"])
    def test_something_else(self, tmp_path, content):
        path = tmp_path / "model.safetensors"
        path.write_bytes(content)
        self.assert_one_line(path)

    @staticmethod
    def assert_one_line(path):
        with pytest.raises(UserError, match=r"model.safetensors: cannot be read as safetensors") as caught:
            weight_layouts.read_weights(path)
        assert "\n" not in str(caught.value)

    def test_without_the_package(self, tmp_path, monkeypatch):
        path = tmp_path / "model.safetensors"
        path.touch()
        monkeypatch.setitem(sys.modules, "safetensors", None)
        with pytest.raises(UserError, match=r"model.safetensors: is read by safetensors, .* pip install safetensors"):
            weight_layouts.read_weights(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.pth", "absent.pth: there is no such file"),
        ("model.bin", r"model.bin: should be named \*.safetensors, \*.pth or"),
    ],
)
def test_no_file_of_weights(tmp_path, name, message):
    (tmp_path / "model.bin").touch()
    with pytest.raises(UserError, match=message):
        weight_layouts.read_weights(tmp_path / name)


class TestPyTorchIsAskedForWeightsAlone:
    """PyTorch replaced by what the reader uses of it, so that these run where it is not installed."""

    class Tensor:
        def __init__(self, array):
            self.array = array

        def is_floating_point(self):
            return self.array.dtype.kind == "f"

        def float(self):
            return type(self)(self.array.astype(np.float32))

        def detach(self):
            return self

        def numpy(self):
            return self.array

    def read(self, tmp_path, monkeypatch, loaded, version="2.6.0+cpu"):
        """What `read_weights` makes of a file from which PyTorch loads `loaded`."""
        path = tmp_path / "best_model.pth"
        path.touch()

        def load(found, **options):
            assert found == path
            assert options == {"map_location": "cpu", "weights_only": True}
            if isinstance(loaded, Exception):
                raise loaded
            return loaded

        monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(load=load, Tensor=self.Tensor, __version__=version))
        return weight_layouts.read_weights(path)

    @pytest.mark.parametrize("wrapper", [None, "model_state_dict", "state_dict"])
    def test_a_state_dict_and_its_wrappers(self, tmp_path, monkeypatch, wrapper):
        flat = weights_of() | {"bn1.num_batches_tracked": np.array(7)}
        loaded = {name: self.Tensor(array) for name, array in flat.items()}
        if wrapper:
            others = {"epoch": 99, "optimizer_state_dict": {"state": {}}, "timestamp": "2025-10-11", "config": {"dropout": 0.3}}
            loaded = {wrapper: loaded, **others}
        assert_same(self.read(tmp_path, monkeypatch, loaded), flat)

    @pytest.mark.parametrize("loaded", [[1, 2], {"epoch": 1}, {"model_state_dict": {"conv1.weight": 1.0}}])
    def test_anything_else(self, tmp_path, monkeypatch, loaded):
        with pytest.raises(
            UserError, match=r"best_model.pth: holds no weights; should be a state dict, or .* model_state_dict or"
        ):
            self.read(tmp_path, monkeypatch, loaded)

    @pytest.mark.parametrize(
        ("error", "shown"),
        [
            (
                ValueError("one could set weights_only to False\n\nTrying to load unsupported GLOBAL os.system"),
                "it holds os.system",
            ),
            (EOFError(), "EOFError"),
            (RuntimeError("invalid\nheader"), "RuntimeError: invalid header"),
            (RuntimeError("no " * 100), r"RuntimeError: no no [no ]*\.\.\."),
        ],
    )
    def test_what_it_refuses(self, tmp_path, monkeypatch, error, shown):
        with pytest.raises(UserError, match=rf"is damaged or holds more than weights, and is not read \({shown}\)$"):
            self.read(tmp_path, monkeypatch, error)

    def test_a_version_that_can_be_tricked(self, tmp_path, monkeypatch):
        with pytest.raises(UserError, match=r"best_model.pth: is read by PyTorch 2.6 or later, found 2.5.1\+cu118"):
            self.read(tmp_path, monkeypatch, {}, version="2.5.1+cu118")

    def test_not_installed(self, tmp_path, monkeypatch):
        (tmp_path / "a.pt").touch()
        monkeypatch.setitem(sys.modules, "torch", None)
        with pytest.raises(UserError, match=r"a.pt: is read by PyTorch, which is not installed: pip install torch, or"):
            weight_layouts.read_weights(tmp_path / "a.pt")


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
class TestPyTorch:
    def test_gives_what_was_written(self, tmp_path):
        import torch

        path, flat = tmp_path / "best_model.pth", weights_of()
        torch.save({"epoch": 1, "model_state_dict": {name: torch.from_numpy(array) for name, array in flat.items()}}, path)
        assert_same(weight_layouts.read_weights(path), flat)
        path.write_bytes(path.read_bytes()[:-50])
        with pytest.raises(UserError, match="is damaged or holds more than weights"):
            weight_layouts.read_weights(path)

    def test_runs_no_code(self, tmp_path):
        import torch

        class Harmful:
            def __reduce__(self):
                return open, (str(tmp_path / "ran"), "w")

        torch.save({"model_state_dict": {}, "epoch": Harmful()}, tmp_path / "best_model.pth")
        with pytest.raises(UserError, match=r"is damaged or holds more than weights, and is not read .it holds .*open"):
            weight_layouts.read_weights(tmp_path / "best_model.pth")
        assert not (tmp_path / "ran").exists()
