"""The network against PyTorch with the same weights, and its own properties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.vectors.formula_weights import crc32, sample_stride
from tests.weights import VECTORS, formula_model, relative_error
from wrn_jax.config import Model
from wrn_jax.data.normalisation import Normalisation
from wrn_jax.models.network import Network
from wrn_jax.models.weight_layouts import to_torch
from wrn_jax.models.wide_resnet import BatchNorm, WideResNet, dropout, packed_relu_dropout, relu_dropout
from wrn_jax.training.loss import mixed_cross_entropy

pytestmark = pytest.mark.slow


def formula_network(vectors):
    """(network, parameters, statistics) of a vector file, its formula checked to give the bits it gave then."""
    depth, width, classes = (int(vectors[key]) for key in ("depth", "widen_factor", "num_classes"))
    network = Network(Model(depth=depth, widen_factor=width), classes, "float32")
    return network, *jax.tree.map(jnp.asarray, formula_model(depth, width, classes))


@pytest.mark.parametrize("name", ["wrn", "wrn_wide"])
def test_agrees_with_pytorch(name):
    vectors = np.load(VECTORS / f"{name}.npz")
    network, params, stats = formula_network(vectors)
    normalise = Normalisation(tuple(vectors["mean"]), tuple(vectors["std"]))
    images, labels = normalise(jnp.asarray(vectors["images"])), jnp.asarray(vectors["labels"])

    @jax.jit
    def forward(params):
        model = nnx.merge(network.graphdef, params, stats)
        logits = model(images, jnp.float32(0), jax.random.key(0), train=True)
        loss = mixed_cross_entropy(logits, labels, labels, jnp.float32(1), jnp.float32(vectors["label_smoothing"]))
        return loss, (logits, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)))

    (loss, (logits, new_stats)), gradients = jax.value_and_grad(forward, has_aux=True)(params)
    eval_logits = jax.jit(nnx.merge(network.graphdef, params, new_stats))(images)
    assert relative_error(loss, vectors["loss"]) < 1e-5
    assert relative_error(logits, vectors["train_logits"]) < 1e-5
    assert relative_error(eval_logits, vectors["eval_logits"]) < 1e-5
    statistics = to_torch({}, new_stats)
    assert statistics.keys() == {key.removeprefix("running/") for key in vectors if key.startswith("running/")}
    for key, value in statistics.items():
        assert relative_error(value, vectors[f"running/{key}"]) < 1e-5, key
    for key, value in to_torch(gradients, {}).items():
        if f"grad/{key}" in vectors:
            assert relative_error(value, vectors[f"grad/{key}"]) < 1e-4, key
        else:
            sample = value.reshape(-1)[:: sample_stride(value.size)]
            assert relative_error(sample, vectors[f"grad_sample/{key}"]) < 1e-4, key
            assert relative_error(np.linalg.norm(value), vectors[f"grad_norm/{key}"]) < 1e-4, key


def test_formula_gives_the_bits_it_gave_pytorch():
    vectors = np.load(VECTORS / "wrn.npz")
    _, params, stats = formula_network(vectors)
    named = to_torch(params, stats)
    assert crc32(named[key] for key in sorted(named)) == vectors["weights_crc32"]


@pytest.mark.parametrize(("depth", "width", "count"), [(28, 10, 36_536_884), (10, 1, None)])
def test_parameter_count(depth, width, count):
    network = Network(Model(depth=depth, widen_factor=width), 100, "float32")
    if count is None:
        vectors = np.load(VECTORS / "wrn.npz")
        count = sum(vectors[key].size for key in vectors if key.startswith("grad/"))
    assert network.num_parameters == count


def test_wrong_depth_is_refused():
    with pytest.raises(ValueError, match=r"depth 17 is not 6n \+ 4"):
        WideResNet(17, 1, 10, rngs=nnx.Rngs(0))


def test_initial_values():
    model = WideResNet(10, 4, 100, rngs=nnx.Rngs(0))
    kernel = np.asarray(model.block3.layer["0"].conv1.kernel[...])  # 128 to 256 channels: fan-out is twice fan-in
    assert kernel.std() == pytest.approx(np.sqrt(2 / (9 * 256)), rel=0.02)
    # Normal, not truncated: a truncated one has nothing beyond two standard deviations.
    assert np.mean(np.abs(kernel) > 2 * kernel.std()) == pytest.approx(0.0455, abs=0.005)
    linear = np.asarray(model.fc.kernel[...])
    limit = np.sqrt(6 / (256 + 100))
    assert 0.98 * limit < np.abs(linear).max() <= limit
    assert not np.asarray(model.fc.bias[...]).any()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_keeps_parameters_statistics_and_logits_in_float32(dtype):
    network = Network(Model(depth=10, widen_factor=1), 10, dtype)
    images = jax.ShapeDtypeStruct((4, 32, 32, 3), jnp.float32)

    def forward(params, stats, images):
        model = nnx.merge(network.graphdef, params, stats)
        logits = model(images, jnp.float32(0.3), jax.random.key(0), train=True)
        return logits, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

    logits, stats = jax.eval_shape(forward, network.params, network.batch_stats, images)
    assert logits.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves((stats, network.params))} == {jnp.dtype("float32")}
    # As a GPU sees it: the CPU makes products of matrices of the 1x1 convolutions.
    traced = jax.jit(forward).trace(network.params, network.batch_stats, images)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    short = {"bfloat16": "bf16", "float16": "f16"}[dtype]
    convolutions = [line for line in text.splitlines() if "stablehlo.convolution" in line]
    assert len(convolutions) == 9
    assert all(f"x{short}>" in line and "xf32>" not in line for line in convolutions)


@pytest.mark.parametrize("recompute", ["none", "blocks"])
def test_without_a_key_the_bits_are_those_of_rate_0(recompute):
    network = Network(Model(depth=10, widen_factor=1, recompute=recompute), 10, "float32")
    model = WideResNet(10, 1, 10, rngs=nnx.Rngs(0))
    params, stats = (nnx.to_pure_dict(nnx.state(model, kind)) for kind in (nnx.Param, nnx.BatchStat))
    images = jax.random.normal(jax.random.key(1), (8, 32, 32, 3))

    @jax.jit
    def run(params, *arguments):
        def loss(params):
            logits = nnx.merge(network.graphdef, params, stats)(images, *arguments, train=True)
            return jnp.square(logits).sum(), logits

        return jax.grad(loss, has_aux=True)(params)

    jax.tree.map(np.testing.assert_array_equal, run(params), run(params, jnp.float32(0), jax.random.key(0)))
    assert not np.array_equal(run(params)[1], run(params, jnp.float32(0.5), jax.random.key(0))[1])


def test_batch_norm_groups_are_normalised_apart():
    inputs = jax.random.normal(jax.random.key(0), (8, 4, 4, 3)) * jnp.arange(1, 9.0)[:, None, None, None]
    whole, grouped = BatchNorm(3), BatchNorm(3, groups=2)
    halves = [BatchNorm(3), BatchNorm(3)]
    expected = jnp.concatenate([half(inputs[i : i + 4], True) for half, i in zip(halves, (0, 4), strict=True)])
    np.testing.assert_allclose(grouped(inputs, True), expected, rtol=1e-5, atol=1e-5)
    assert not np.allclose(whole(inputs, True), expected, atol=0.1)
    mean_var = (halves[0].var[...] + halves[1].var[...]) / 2
    np.testing.assert_allclose(grouped.var[...], mean_var, rtol=1e-5)


def test_batch_norm_keeps_precision_far_from_zero():
    inputs = 1000 + jax.random.normal(jax.random.key(0), (64, 8, 8, 4))
    norm = BatchNorm(4)
    for _ in range(60):
        outputs = norm(inputs, True)
    assert float(outputs.std()) == pytest.approx(1.0, abs=0.02)


class TestDropout:
    def test_rate_zero_changes_nothing(self):
        inputs = jax.random.normal(jax.random.key(0), (4, 8, 8, 16))
        np.testing.assert_array_equal(dropout(inputs, jnp.float32(0), jax.random.key(1)), inputs)

    @pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.99])
    def test_share_and_expectation(self, rate):
        outputs = np.asarray(dropout(jnp.ones((64, 16, 16, 32)), jnp.float32(rate), jax.random.key(1)))
        assert (outputs == 0).mean() == pytest.approx(round(rate * 256) / 256, abs=0.003)
        assert outputs.mean() == pytest.approx(1.0, abs=0.02)
        assert len(np.unique(outputs)) == 2

    @pytest.mark.parametrize("rate", [0.0, 0.3])
    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    @pytest.mark.parametrize("together", [relu_dropout, packed_relu_dropout])
    def test_gradient_with_relu_is_that_of_the_two_apart(self, rate, dtype, together):
        inputs = jax.random.normal(jax.random.key(0), (8, 6, 8, 16)).astype(dtype)
        weights = jax.random.normal(jax.random.key(2), inputs.shape).astype(dtype)

        def apart(inputs, rate, key):
            return dropout(nnx.relu(inputs), rate, key)

        results = [
            jax.value_and_grad(lambda inputs, f=f: jnp.sum(weights * f(inputs, jnp.float32(rate), jax.random.key(1))))(inputs)
            for f in (apart, together)
        ]
        jax.tree.map(np.testing.assert_array_equal, *results)
        assert 0 < float(jnp.mean(results[0][1] != 0)) < 0.6

    def test_packed_it_keeps_a_byte_for_four_decisions(self):
        inputs = jnp.ones((2, 8, 3, 5))
        _, gradient = jax.vjp(lambda inputs: packed_relu_dropout(inputs, 0.5, jax.random.key(0)), inputs)
        assert {(leaf.shape, leaf.dtype.name) for leaf in jax.tree.leaves(gradient)} >= {((2, 2, 3, 5), "uint8")}

    def test_the_four_bytes_of_a_word_decide_independently(self):
        kept = np.asarray(dropout(jnp.ones((64, 16, 16, 8)), jnp.float32(0.5), jax.random.key(3))) > 0
        rows = kept.reshape(64, 4, 4, -1).transpose(2, 0, 1, 3).reshape(4, -1)
        np.testing.assert_allclose(np.corrcoef(rows), np.eye(4), atol=0.02)

    def test_traced_rate_does_not_recompile(self):
        traces = []

        @jax.jit
        def apply(rate):
            traces.append(1)
            return dropout(jnp.ones((2, 4)), rate, jax.random.key(0))

        for rate in (0.0, 0.3, 0.5):
            apply(np.float32(rate))
        assert len(traces) == 1
