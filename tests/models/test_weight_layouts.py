"""Weights in PyTorch's layout: names, shapes, bits, and what is said of files that are not what they should be."""

import argparse
import contextlib
import datetime
import importlib.util
import json
import pathlib
import re
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


def test_safetensors_are_told_by_what_they_hold(tmp_path):
    """The length of the header comes first, whose first byte may be any multiple of 8: that of a pickle too."""
    first_bytes = set()
    for pad in range(0, 256, 8):
        content = safetensors.numpy.save(weights_of(), {"pad": "x" * pad})
        first_bytes.add(content[0])
        (tmp_path / "weights.bin").write_bytes(content)
        assert weight_layouts.read_file(tmp_path / "weights.bin").facts == {"pad": "x" * pad}
    assert 0x80 in first_bytes


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
        assert_same(weight_layouts.read_file(path).arrays, weights_of())

    def test_reads_bfloat16(self, tmp_path):
        path, numbers = tmp_path / "model.safetensors", np.array([1.5, -2], ml_dtypes.bfloat16)
        header = json.dumps({"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header + numbers.tobytes())
        assert_same(weight_layouts.read_file(path).arrays, {"a": numbers})

    @pytest.mark.parametrize("length", [0, 4, 8, 100, 5000, -1])
    def test_damaged(self, tmp_path, length):
        path = tmp_path / "model.safetensors"
        path.write_bytes(safetensors.numpy.save(weights_of())[:length])
        self.assert_one_line(path)

    @pytest.mark.parametrize("content", [b"\xff" * 100, b"not weights"])
    def test_something_else(self, tmp_path, content):
        path = tmp_path / "model.safetensors"
        path.write_bytes(content)
        self.assert_one_line(path)

    @staticmethod
    def assert_one_line(path):
        with pytest.raises(UserError, match=r"model.safetensors: cannot be read as safetensors") as caught:
            weight_layouts.read_file(path)
        assert "\n" not in str(caught.value)

    def test_without_the_package(self, tmp_path, monkeypatch):
        path = tmp_path / "model.safetensors"
        path.write_bytes(safetensors.numpy.save({}))
        monkeypatch.setitem(sys.modules, "safetensors", None)
        with pytest.raises(UserError, match=r"model.safetensors: is read by safetensors, .* pip install safetensors"):
            weight_layouts.read_file(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.pth", None, "absent.pth: there is no such file"),
        ("model.bin", b"what", "model.bin: holds neither safetensors nor what torch.save writes"),
        ("best.pth", b"", "best.pth: is empty"),
        ("best.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:0", r"is a Git LFS pointer .* `git lfs pull`"),
        ("m.safetensors", b"\n<!DOCTYPE html><html>", "m.safetensors: is a web page, not weights; download the file itself"),
        ("wrn.msgpack", b"\x82\xa6params", "wrn.msgpack: is Flax's msgpack, as of google-research/sam"),
        ("folder", ..., "folder: Is a directory"),
    ],
)
def test_no_file_of_weights(tmp_path, name, content, message):
    path = tmp_path / name
    if content is ...:
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        weight_layouts.read_file(path)


def test_the_content_tells_the_kind_whatever_the_name(tmp_path):
    path = tmp_path / "0a1b2c3d"
    path.write_bytes(safetensors.numpy.save(weights_of()))
    assert_same(weight_layouts.read_file(path).arrays, weights_of())


OURS = "block2.layer.0.bn1 block2.layer.0.conv1 block2.layer.1.conv2"
NAMES = {
    "xternalz": ("conv1", f"{OURS} block3.layer.0.convShortcut", "bn1", "fc"),
    "AugMix": ("conv1", f"{OURS} block3.layer.0.conv_shortcut", "bn1", "fc"),
    "pytorchcv": (
        "features.init_block",
        "features.stage2.unit1.body.conv1.bn features.stage2.unit1.body.conv1.conv features.stage2.unit2.body.conv2.conv "
        "features.stage3.unit1.identity_conv",
        "features.post_activ.bn", "output",
    ),
    "hysts": ("conv", "stage2.block1.bn1 stage2.block1.conv1 stage2.block2.conv2 stage3.block1.shortcut.conv", "bn", "fc"),
    "szagoruyko": ("conv0", "group1.block0.bn0 group1.block0.conv0 group1.block1.conv1 group2.block0.convdim", "bn", "fc"),
    "davda54": (
        "f.0_convolution",
        "f.2_block.block.0.norm_act.0_normalization f.2_block.block.0.block.0_convolution "
        "f.2_block.block.1.block.6_convolution f.3_block.block.0.downsample",
        "f.4_normalization", "f.8_classification",
    ),
}  # fmt: skip
"""As the repositories' own files have them: stem; of group 2 the first block's bn1 and conv1 and the second's conv2, of group 3
the shortcut; last normalisation; linear layer."""


def in_layout(layout, flat):
    """A state dict by the names of another layout."""
    return {weight_layouts.name_in(weight_layouts.LAYOUTS[layout], name): array for name, array in flat.items()}


class TestLayouts:
    @pytest.mark.parametrize("layout", NAMES)
    def test_each_gives_the_same_bits_by_its_own_names(self, layout):
        flat = weights_of(16, 2, 7)
        renamed = in_layout(layout, flat)
        stem, blocks, norm, linear = NAMES[layout]
        theirs, ours = [stem, *blocks.split(), norm, linear], ["conv1", *OURS.split(), "block3.layer.0.shortcut", "bn1", "fc"]
        for their, our in zip(theirs, ours, strict=True):
            np.testing.assert_array_equal(renamed[f"{their}.weight"], flat[f"{our}.weight"])
        found = weight_layouts.from_torch(renamed, "here")
        assert (found[:3], found.layout) == ((16, 2, 7), layout)
        assert_same(weight_layouts.to_torch(found.params, found.batch_stats), flat)

    def test_every_layout_is_tried(self):
        assert {"wrn_jax", *NAMES} == set(weight_layouts.LAYOUTS)

    def test_the_functional_layout_has_bare_convolutions(self):
        flat = weights_of()
        bare = {re.sub(r"(conv\w*)\.weight$", r"\1", name): array for name, array in in_layout("szagoruyko", flat).items()}
        assert {"conv0", "group1.block0.convdim"} <= bare.keys()
        found = weight_layouts.from_torch(bare, "here")
        assert_same(weight_layouts.to_torch(found.params, found.batch_stats), flat)

    def test_prefixes_and_what_evaluation_does_not_need(self):
        flat = weights_of()
        renamed = {f"module.model.{name}": array for name, array in in_layout("xternalz", flat).items() if name != "fc.bias"}
        renamed |= {"module.model.sub_block1.layer.0.bn1.weight": np.zeros(16, np.float32)}
        renamed |= {"module.mu": np.full((1, 3, 1, 1), 0.5), "module.sigma": np.full((1, 3, 1, 1), 0.25)}
        found = weight_layouts.from_torch(renamed, "here")
        assert_same(weight_layouts.to_torch(found.params, found.batch_stats), flat | {"fc.bias": np.zeros(7, np.float32)})
        assert found.normalisation == ((0.5,) * 3, (0.25,) * 3)
        assert found.notes == (
            "passed over, as evaluation does not need it: sub_block1.layer.0.bn1.weight, mu, sigma",
            "it holds no fc.bias: taken as 0",
        )

    def test_normalisation_of_published_weights(self):
        assert weight_layouts.from_torch(weights_of(), "here").normalisation is None  # that of the data set
        assert weight_layouts.from_torch(in_layout("AugMix", weights_of()), "here").normalisation == ((0.5,) * 3,) * 2

    def test_one_network_under_two_prefixes(self):
        flat = weights_of() | {"module.fc.bias": np.zeros(7, np.float32)}
        with pytest.raises(UserError, match=r"x: holds fc.bias twice, under several prefixes"):
            weight_layouts.from_torch(flat, "x")

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            ({"layer.0.block.0.batchnorm_0.weight": (16,)}, "x: is not this package's network but DeepMind's"),
            ({"conv2.0.residual.0.weight": (16,)}, "but weiaicunzai's network: its shortcuts read the raw input"),
            (
                {"layer1.0.bn1.weight": (16,), "conv1.weight": (16, 3, 3, 3), "bn1.weight": (64,)},
                "but a network as of bmsookim",
            ),
            (
                {"layer1.0.bn1.weight": (16,), "conv1.weight": (16, 3, 3, 3), "bn1.weight": (16,)},
                "but a post-activation network",
            ),
            (
                {"stem.weight": (1,), "head.bias": (1,)},
                r"are of no layout that is known here \(wrn_jax,.*; it holds stem.weight, head",
            ),
        ],
    )
    def test_other_networks_are_refused_by_name(self, names, message):
        flat = {f"module.{name}": np.zeros(shape, np.float32) for name, shape in names.items()}
        with pytest.raises(UserError, match=message):
            weight_layouts.from_torch(flat, "x")


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

    def torch(self, load, version):
        context = types.SimpleNamespace(safe_globals=lambda allowed: contextlib.nullcontext())
        return types.SimpleNamespace(load=load, Tensor=self.Tensor, __version__=version, serialization=context)

    def read(self, tmp_path, monkeypatch, loaded, version="2.6.0+cpu"):
        """What `read_file` makes of a file from which PyTorch loads `loaded`."""
        path = tmp_path / "best_model.pth"
        path.write_bytes(b"\x80\x02")

        def load(found, **options):
            assert found == path
            assert options == {"map_location": "cpu", "weights_only": True}
            if isinstance(loaded, Exception):
                raise loaded
            return loaded

        monkeypatch.setitem(sys.modules, "torch", self.torch(load, version))
        return weight_layouts.read_file(path)

    @pytest.mark.parametrize("wrapper", [None, *weight_layouts.WRAPPERS])
    def test_a_state_dict_and_its_wrappers(self, tmp_path, monkeypatch, wrapper):
        flat = weights_of() | {"bn1.num_batches_tracked": np.array(7)}
        loaded = {name: self.Tensor(array) for name, array in flat.items()}
        if wrapper:
            others = {"epoch": 99, "optimizer_state_dict": {"state": {}}, "timestamp": "2025-10-11", "config": {"dropout": 0.3}}
            loaded = {wrapper: loaded, **others}
        assert_same(self.read(tmp_path, monkeypatch, loaded).arrays, flat)

    def test_of_several_networks_the_first_is_taken_and_said(self, tmp_path, monkeypatch):
        loaded = {name: self.Tensor(array) for name, array in weights_of().items()}
        itself = {"net": {"state_dict": loaded, "swa_state_dict": {"a": self.Tensor(np.zeros(1))}}}
        found = self.read(tmp_path, monkeypatch, itself)
        assert_same(found.arrays, weights_of())
        assert found.notes == ("of state_dict, swa_state_dict in the file, state_dict is taken",)
        itself["net"] = itself  # no end to it
        with pytest.raises(UserError, match="holds no weights"):
            self.read(tmp_path, monkeypatch, itself)

    @pytest.mark.parametrize("loaded", [[1, 2], {"epoch": 1}, {"model_state_dict": {"conv1.weight": 1.0}}])
    def test_anything_else(self, tmp_path, monkeypatch, loaded):
        with pytest.raises(
            UserError, match=r"best_model.pth: holds no weights; should be a state dict, or .* model_state_dict, "
        ):
            self.read(tmp_path, monkeypatch, loaded)

    @pytest.mark.parametrize(
        ("error", "shown"),
        [
            (
                ValueError("one could set weights_only to False\n\nTrying to load unsupported GLOBAL os.system"),
                r"it holds os.system; where it was made, save model.state_dict\(\) alone",
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
        (tmp_path / "a.pt").write_bytes(b"\x80")
        monkeypatch.setitem(sys.modules, "torch", None)
        with pytest.raises(UserError, match=r"a.pt: is read by PyTorch, which is not installed: pip install torch, or"):
            weight_layouts.read_file(tmp_path / "a.pt")


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
class TestPyTorch:
    def test_gives_what_was_written(self, tmp_path):
        import torch

        path, flat = tmp_path / "best_model.pth", weights_of()
        torch.save({"epoch": 1, "model_state_dict": {name: torch.from_numpy(array) for name, array in flat.items()}}, path)
        assert_same(weight_layouts.read_file(path).arrays, flat)
        path.write_bytes(path.read_bytes()[:-50])
        with pytest.raises(UserError, match="is damaged or holds more than weights"):
            weight_layouts.read_file(path)

    def test_runs_no_code(self, tmp_path):
        import torch

        class Harmful:
            def __reduce__(self):
                return open, (str(tmp_path / "ran"), "w")

        torch.save({"model_state_dict": {}, "epoch": Harmful()}, tmp_path / "best_model.pth")
        with pytest.raises(UserError, match=r"is damaged or holds more than weights, and is not read .it holds .*open"):
            weight_layouts.read_file(tmp_path / "best_model.pth")
        assert not (tmp_path / "ran").exists()

    def test_harmless_things_beside_the_weights_are_passed_over(self, tmp_path):
        import torch

        path, flat = tmp_path / "last.pth.tar", weights_of()
        others = {
            "opt": argparse.Namespace(depth=10, folder=pathlib.Path("a")),
            "acc": np.float64(0.5), "row": np.zeros(3), "when": datetime.datetime(2026, 1, 1),
        }  # fmt: skip
        for zipped in (True, False):
            torch.save(
                {"model": {name: torch.from_numpy(array) for name, array in flat.items()}} | others,
                path, _use_new_zipfile_serialization=zipped,
            )  # fmt: skip
            assert_same(weight_layouts.read_file(path).arrays, flat)
