"""The training step: ten steps against PyTorch, one device against eight, jit against pmap, precisions."""

import dataclasses
import functools
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

from tests.models.test_wide_resnet import formula_network
from tests.vectors.formula_weights import crc32, formula_batch, sample_stride
from tests.weights import VECTORS, formula_model, relative_error
from wrn_jax.config import Config, Model, Optimizer, load_file
from wrn_jax.config.timeline import Timeline
from wrn_jax.data.mixing import mix
from wrn_jax.data.normalisation import Normalisation
from wrn_jax.models.network import Network
from wrn_jax.models.weight_layouts import to_torch
from wrn_jax.models.wide_resnet import WideResNet
from wrn_jax.planning import compile
from wrn_jax.runtime import devices
from wrn_jax.training import average
from wrn_jax.training.optimizer import SCALE_INITIAL, make_optimizer
from wrn_jax.training.setup import make_setup
from wrn_jax.training.state import create_state
from wrn_jax.training.step import Batch, Streams, cutmix_or_mixup, make_train_step, order_key, repeat, sam_gradients, update

pytestmark = pytest.mark.slow

SOON = {"xla_backend_optimization_level": 0}
"""Compiled in half the time, as suits a few steps."""


def hyperparameters(**changes):
    """Those of a step without dropout, whose augmentation and mixup are in its batch."""
    now = Timeline(Config(), 1).at(jnp.int32(0))
    return dataclasses.replace(now, values=now.values | {name: jnp.float32(value) for name, value in changes.items()})


@pytest.mark.parametrize("name", ["ten_steps", "ten_steps_kernels", "ten_steps_sam", "ten_steps_asam", "ten_steps_groups"])
def test_ten_steps_agree_with_pytorch(name):
    vectors = np.load(VECTORS / f"{name}.npz")
    network, params, stats = formula_network(vectors)
    options = Optimizer(
        clip_norm=float(vectors["max_norm"]),
        nesterov="nesterov" in vectors,
        decay="kernels" if "kernels_only" in vectors else "all",
        sam_adaptive="adaptive" in vectors,
        sam_group=int(vectors["group"]) if "group" in vectors else None,
    )
    fixed = {key: vectors[key] for key in ("momentum", "weight_decay", "label_smoothing")}
    fixed["sam_rho"] = vectors.get("rho", 0.0)
    optimizer = make_optimizer(options)
    state = create_state(network, optimizer, jax.random.key(0))
    averaged = average.init(params, stats) if "average_decays" in vectors else None
    state = dataclasses.replace(state, params=params, batch_stats=stats, average=averaged)
    normalise = Normalisation(tuple(vectors["mean"]), tuple(vectors["std"]))
    setup = SimpleNamespace(network=network, optimizer=optimizer, config=SimpleNamespace(optimizer=options))
    jitted = jax.jit(functools.partial(update, setup, sharpness_aware="rho" in vectors), compiler_options=SOON)
    # The second gradient is taken where the first one's rounding leads.
    nearness = 1e-4 if "rho" in vectors else 1e-5
    for k in range(10):
        images, labels = formula_batch(f"step{k}/{vectors['tags'][k]}", 16)
        assert crc32([images]) == vectors["images_crc32"][k]
        np.testing.assert_array_equal(labels, vectors["labels"][k])
        partner, weight = vectors["permutations"][k], jnp.float32(vectors["lambdas"][k])
        mixed = mix(normalise(jnp.asarray(images)), jnp.asarray(partner), weight)
        batch = Batch(mixed, jnp.asarray(labels), jnp.asarray(labels[partner]), weight)
        decay = vectors["average_decays"][k] if averaged else 0.0
        now = hyperparameters(learning_rate=vectors["learning_rates"][k], average_decay=decay, **fixed)
        state, metrics = jitted(state, batch, now, jax.random.key(0))
        assert relative_error(metrics["loss"], vectors["losses"][k]) < 1e-5
        assert relative_error(metrics["gradient_norm"], vectors["gradient_norms"][k]) < 3e-5
        assert float(metrics["correct"]) == pytest.approx(vectors["correct"][k], abs=1e-4)
    assert int(state.step) == 10
    assert_near(vectors, "final", "running", state.params, state.batch_stats, nearness)
    if averaged:
        assert_near(vectors, "average", "average_running", state.average["params"], state.average["batch_stats"], nearness)


def assert_near(vectors, name, statistics_name, params, batch_stats, nearness):
    """A network's tensors are those of a vector file, under these names."""
    for key, value in to_torch(params, {}).items():
        sample = value.reshape(-1)[:: sample_stride(value.size)]
        assert relative_error(sample, vectors[f"{name}_sample/{key}"]) < nearness, key
        assert relative_error(np.linalg.norm(value), vectors[f"{name}_norm/{key}"]) < nearness, key
    for key, value in to_torch({}, batch_stats).items():
        assert relative_error(value, vectors[f"{statistics_name}/{key}"]) < nearness, key


def worst_error(found, expected):
    """Largest relative error of a tensor."""
    assert found.keys() == expected.keys()
    return max(relative_error(found[key], expected[key]) for key in expected)


@functools.cache
def small_program(dtype, num_devices, changes, sharpness_aware):
    """(step, first state, mesh) of a WRN-10-1 in batches of 16; `changes` of session 04 as JSON. Traced once."""
    config = load_file("configs/session04.py").override(
        {"model.depth": 10, "model.widen_factor": 1, "recipe.batch_size": 16, "recipe.scale": 0.02} | json.loads(changes)
    )
    mesh = devices.make_mesh(num_devices)
    setup = dataclasses.replace(
        make_setup(config.override({"precision": dtype}), mesh),
        timeline=Timeline(config, 5),
        normalisation=Normalisation((0.5,) * 3, (0.25,) * 3),
    )
    averaged = setup.timeline.uses("average_decay")
    state = jax.jit(functools.partial(create_state, setup.network, setup.optimizer, averaged=averaged))(jax.random.key(3))
    step = jax.jit(make_train_step(setup, sharpness_aware), donate_argnums=0, compiler_options=SOON)
    return step, state, mesh


def small_run(dtype="float32", num_devices=1, changes=None, formula=False, sharpness_aware=False):
    """(step, state, arrays): five batches of noise, and the whole training step of session 04 for them."""
    step, first, mesh = small_program(dtype, num_devices, json.dumps(changes or {}), sharpness_aware)
    state = jax.tree.map(jnp.copy, first)
    if formula:
        params, stats = formula_model(10, 1, 100)
        begun = None if state.average is None else average.init(params, stats)
        state = dataclasses.replace(state, params=params, batch_stats=stats, average=begun)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (80, 32, 32, 3), np.uint8)
    labels = random.integers(0, 100, 80).astype(np.int32)
    order = random.permutation(80).astype(np.int32).reshape(5, 16)
    return step, devices.replicate(state, mesh), devices.replicate((images, labels, order), mesh)


def assert_one_device_and_eight_agree(steps, **options):
    results = {}
    for count in (1, 8):
        step, state, arrays = small_run(num_devices=count, formula=True, **options)
        losses = []
        for _ in range(steps):
            state, metrics = step(state, *arrays)
            losses.append(float(metrics["loss"]))
        results[count] = losses, to_torch(state.params, state.batch_stats)
        if state.average is not None:
            results[count][1].update(
                {
                    f"average {key}": value
                    for key, value in to_torch(state.average["params"], state.average["batch_stats"]).items()
                }
            )
    np.testing.assert_allclose(results[1][0], results[8][0], rtol=1e-4)
    assert worst_error(results[8][1], results[1][1]) < 1e-3


def test_cutmix_and_sharpness_aware_groups_are_the_same_on_one_device_and_eight():
    # One kind of mixing after the other.
    changes = {
        "optimizer.sam_rho": 0.1,
        "optimizer.average_decay": {"step 0": 0.0, "step 1": 0.9},
        "optimizer.sam_group": 8,
        "recipe.cutmix_probability": {"step 0": 1.0, "step 2": 0.0},
        "recipe.augmentation": "off",
    }
    assert_one_device_and_eight_agree(3, changes=changes, sharpness_aware=True)


def test_groups_have_dropout_masks_of_their_own_the_same_in_both_passes():
    keys = []

    def gradients_of(params, batch, key):
        keys.append(jax.random.key_data(key).tolist())
        return params, (0.0, 0.0, params)

    batch = Batch(jnp.zeros((4, 1)), jnp.zeros(4), jnp.zeros(4), jnp.float32(1))
    params, now = {"kernel": jnp.ones(2)}, {"sam_rho": jnp.float32(0.1)}
    sam_gradients(Optimizer(sam_group=2), gradients_of, params, batch, now, jax.random.key(0))
    assert keys[0] == keys[1] != keys[2] == keys[3]
    keys.clear()
    sam_gradients(Optimizer(), gradients_of, params, batch, now, jax.random.key(0))
    assert keys == [jax.random.key_data(jax.random.key(0)).tolist()] * 2


def test_the_average_of_ten_steps_is_that_of_numpy_in_float64():
    """Late, with a decay that changes, warmed up, and begun a second time; before, it is the network to the bit."""
    decays = [0.0, 0.0, 0.5, 0.5, 0.999, 0.999, 0.999, 0.0, 0.15, 0.15]
    random = np.random.default_rng(0)
    networks = [{"a": random.normal(size=(3, 4)).astype(np.float32)} for _ in decays]
    state = average.init(networks[0], networks[0])
    expected, updates = networks[0]["a"].astype(np.float64), 0
    move = jax.jit(average.update)
    for network, decay in zip(networks, decays, strict=True):
        state = move(state, network, {"a": 2 * network["a"]}, jnp.float32(decay))
        kept = min(decay, (1 + updates) / (10 + updates))
        updates = updates + 1 if decay else 0
        expected = kept * expected + (1 - kept) * network["a"]
        np.testing.assert_allclose(state["params"]["a"], expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(state["batch_stats"]["a"], 2 * expected, rtol=1e-5, atol=1e-6)
        if not decay:
            np.testing.assert_array_equal(state["params"]["a"], network["a"])
    assert int(state["count"]) == 2


def test_cutmix_weighs_labels_by_area():
    values = {"cutmix_probability": jnp.float32(1.0), "cutmix_alpha": jnp.float32(1.0)}
    for seed in range(20):
        pixels, labels = cutmix_or_mixup(jax.random.key(seed), values, jnp.float32(0.3), (32, 32, 3))
        assert float(labels) == pytest.approx(float(pixels.mean()), abs=1e-6)
    values["cutmix_probability"] = jnp.float32(0.0)
    pixels, labels = cutmix_or_mixup(jax.random.key(0), values, jnp.float32(0.3), (32, 32, 3))
    assert float(labels) == float(pixels.min()) == float(pixels.max()) == pytest.approx(0.3)


def test_one_device_and_eight_give_the_same_five_steps():
    # Everything is on: augmentation, mixup, dropout, smoothing. The weights keep most inputs of the ReLUs away from zero,
    # where rounding, which differs with the order of the sums, would decide a sign.
    assert_one_device_and_eight_agree(5)


def test_a_call_of_several_steps_does_as_many_as_asked_for():
    # Without the network, whose convolutions are slow in a loop on a CPU; a run with it is in test_loop.py.
    def step(state, images, labels, order):
        return state + 1, {"loss": images[order[state]].sum(), "labels": labels[order[state]]}

    arrays = jnp.arange(24, dtype=jnp.float32).reshape(6, 4), jnp.arange(6), jnp.asarray([[5, 0], [3, 1], [4, 2]])
    several = jax.jit(repeat(step, 4))
    state, rows = several(jnp.int32(0), *arrays, np.int32(3))
    assert int(state) == 3
    np.testing.assert_array_equal(rows["loss"], [92, 76, 108, 0])
    np.testing.assert_array_equal(rows["labels"], [[5, 0], [3, 1], [4, 2], [0, 0]])
    with jax.no_tracing(True):  # fewer steps are no other program
        assert int(several(jnp.int32(1), *arrays, np.int32(1))[0]) == 2


@pytest.mark.filterwarnings("ignore:.*pmap.*:DeprecationWarning")
def test_pmap_with_synchronised_statistics_gives_the_same_five_steps():
    # Dropout off: its mask is drawn for the whole batch, which a mapped device does not see.
    network = Network(Model(depth=10, widen_factor=1), 100, "float32")
    optimizer = make_optimizer(Optimizer())
    state = jax.jit(functools.partial(create_state, network, optimizer))(jax.random.key(0))
    params, stats = formula_model(10, 1, 100)
    state = dataclasses.replace(state, params=params, batch_stats=stats)
    random = np.random.default_rng(0)
    images = jnp.asarray(random.normal(size=(5, 32, 32, 32, 3)), jnp.float32)
    labels = jnp.asarray(random.integers(0, 100, (2, 5, 32)), jnp.int32)
    now = hyperparameters(learning_rate=0.05, label_smoothing=0.1)

    mesh = devices.make_mesh(8)
    jitted = jax.jit(functools.partial(update, SimpleNamespace(network=network, optimizer=optimizer)), compiler_options=SOON)
    ours = devices.replicate(state, mesh)
    for k in range(5):
        batch = Batch(images[k], labels[0, k], labels[1, k], jnp.float32(0.7))
        sharded = jax.device_put(
            batch,
            Batch(*[devices.batch_sharded(mesh)] * 3, devices.replicated(mesh)),
        )
        ours, metrics = jitted(ours, sharded, now, jax.random.key(0))

    mapped_model = WideResNet(10, 1, 100, batch_norm_axis="data", rngs=nnx.Rngs(0))
    definition = nnx.split(mapped_model, nnx.Param, nnx.BatchStat)[0]
    mapped_setup = SimpleNamespace(network=SimpleNamespace(graphdef=definition, dtype="float32"), optimizer=optimizer)
    mapped = jax.pmap(lambda state, batch: update(mapped_setup, state, batch, now, jax.random.key(0), "data"), axis_name="data")
    copies = lambda tree: jax.tree.map(lambda leaf: jnp.stack([leaf] * 8), tree)  # noqa: E731
    theirs = copies(state)
    part = lambda array: array.reshape(8, 4, *array.shape[1:])  # noqa: E731
    for k in range(5):
        batch = Batch(part(images[k]), part(labels[0, k]), part(labels[1, k]), copies(jnp.float32(0.7)))
        theirs, their_metrics = mapped(theirs, batch)
    first = jax.tree.map(lambda leaf: leaf[0], (theirs.params, theirs.batch_stats))
    assert float(their_metrics["loss"][0]) == pytest.approx(float(metrics["loss"]), rel=1e-4)
    assert float(their_metrics["correct"][0]) == pytest.approx(float(metrics["correct"]), abs=1e-3)
    assert worst_error(to_torch(*first), to_torch(ours.params, ours.batch_stats)) < 1e-3


def test_the_rate_used_is_the_rate_of_the_timeline_and_nothing_recompiles():
    step, state, arrays = small_run()
    config = load_file("configs/session04.py").override({"recipe.scale": 0.02})
    timeline = Timeline(config, 5)
    state, metrics = step(state, *arrays)
    seen = [metrics]
    with jax.no_tracing(True):
        for _ in range(timeline.steps - 1):
            state, metrics = step(state, *arrays)
            seen.append(metrics)
    for name, values in timeline.values.items():
        np.testing.assert_allclose([float(m[name]) for m in seen], values, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_every_precision_learns_a_batch_by_heart(dtype):
    changes = {
        "recipe.learning_rate": 0.1,
        "recipe.dropout": 0.0,
        "recipe.mixup_alpha": 0.0,
        "recipe.label_smoothing": 0.0,
        "recipe.augmentation": "off",
        "optimizer.weight_decay": 0.0,
    }
    step, state, (images, labels, order) = small_run(dtype, changes=changes)
    same = jnp.broadcast_to(order[:1], order.shape)
    losses = []
    for _ in range(20):
        state, metrics = step(state, images, labels, same)
        losses.append(float(metrics["loss"]))
    assert losses[0] > 4.0
    assert losses[-1] < 0.6


def test_recomputing_the_blocks_gives_the_same_bits():
    ends = []
    for recompute in ("none", "blocks"):
        step, state, arrays = small_run(changes={"model.recompute": recompute, "recipe.augmentation": "off"})
        jaxpr = str(jax.make_jaxpr(step.__wrapped__)(state, *arrays))
        assert ("remat" in jaxpr or "checkpoint" in jaxpr) == (recompute == "blocks")
        step = jax.jit(step.__wrapped__, donate_argnums=0)  # less optimised, both are not rounded alike
        for _ in range(2):
            state, metrics = step(state, *arrays)
        ends.append((state.params, state.batch_stats, metrics["loss"]))
    jax.tree.map(np.testing.assert_array_equal, *ends)


class TestFloat16:
    def test_overflow_skips_the_update_and_halves_the_scale(self):
        step, state, arrays = small_run("float16")
        big = dataclasses.replace(state.loss_scale, scale=state.loss_scale.scale * 0 + 3e38)
        before = jax.tree.map(np.asarray, (state.params, state.batch_stats, state.opt_state))
        state, metrics = step(dataclasses.replace(state, loss_scale=big), *arrays)
        assert not bool(metrics["finite"])
        jax.tree.map(np.testing.assert_array_equal, before, (state.params, state.batch_stats, state.opt_state))
        assert float(state.loss_scale.scale) == pytest.approx(1.5e38, rel=1e-6)
        assert int(state.step) == 1

    def test_a_finite_update_keeps_the_scale_and_counts(self):
        step, state, arrays = small_run("float16")
        state, metrics = step(state, *arrays)
        assert bool(metrics["finite"])
        assert float(state.loss_scale.scale) == SCALE_INITIAL
        assert int(state.loss_scale.good_steps) == 1


def test_state_is_donated():
    step, state, arrays = small_run()
    leaf = state.params["conv1"]["kernel"]
    step(state, *arrays)
    assert leaf.is_deleted()


def test_the_batch_is_sharded_and_the_state_is_not():
    step, state, arrays = small_run(num_devices=8)
    text = step.lower(state, *arrays).compile().as_text()
    assert "all-reduce" in text
    # The stem's convolution works on an eighth of the batch of 16.
    assert "f32[2,32,32,16]" in text
    state, _ = step(state, *arrays)
    assert {leaf.sharding.spec for leaf in jax.tree.leaves(state.params)} == {PartitionSpec()}


@pytest.mark.parametrize(("platform", "dtype"), [("tpu", "bfloat16"), ("cuda", "bfloat16"), ("cuda", "float16")])
def test_lowers_for_accelerators(platform, dtype):
    step, state, arrays = small_run(dtype, num_devices=8)
    text = step.trace(state, *arrays).lower(lowering_platforms=(platform,)).as_text()
    short = {"bfloat16": "bf16", "float16": "f16"}[dtype]
    convolutions = [line for line in text.splitlines() if "stablehlo.convolution" in line]
    # Stem, six in blocks and two shortcuts, each with two gradients; the stem's images need none.
    assert len(convolutions) == 3 * 9 - 1
    assert all(f"x{short}>" in line and "xf32>" not in line for line in convolutions)


@pytest.mark.parametrize("name", ["session02", "session04", "session02_as_executed", "session04_as_executed"])
def test_what_a_recipe_does_not_use_is_no_part_of_its_program(monkeypatch, name):
    """Of CutMix, sharpness-aware steps, the average and the automatic operations nothing is even traced."""

    def refuse(*arguments):
        raise AssertionError("this recipe has no use for it")

    for function in ("step.sam_gradients", "step.cutmix_or_mixup", "average.init", "average.update"):
        monkeypatch.setattr(f"wrn_jax.training.{function}", refuse)
    for function in ("automatic", "_crop_at_random", "_cut_out_the_mean"):
        monkeypatch.setattr(f"wrn_jax.data.augment.{function}", refuse)
    mesh = devices.make_mesh(1)
    config = load_file(f"configs/{name}.py").override({"model.depth": 10, "model.widen_factor": 1})
    setup = make_setup(config, mesh)
    assert setup.abstract_state.average is None
    assert setup.timeline.sharpness_aware_steps == 0
    assert not setup.timeline.sharpness_aware(range(setup.timeline.steps)).any()
    text = compile.lower(config, mesh, "gpu").as_text()
    # One pass: stem, six in blocks and two shortcuts, each with two gradients; the stem's images need none.
    assert text.count("stablehlo.convolution") == 3 * 9 - 1

    at_rest = {"recipe.cutmix_probability": 0.0, "optimizer.sam_rho": 0.0, "optimizer.average_decay": 0.0}
    assert config.override(at_rest) == config
    idle = {"optimizer.sam_group": 8, "optimizer.sam_adaptive": True, "optimizer.sam_every": 2, "optimizer.start_average": True}
    assert compile.lower(config.override(at_rest | idle), mesh, "gpu").as_text() == text


def test_a_recipe_without_dropout_draws_no_masks(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("nothing is dropped")

    monkeypatch.setattr("wrn_jax.models.wide_resnet._random_words", refuse)
    config = load_file("small30").override({"model.depth": 10})
    compile.lower(config, devices.make_mesh(1), "gpu")
    late = {"recipe.dropout": {"epoch 1": 0.0, "epoch 30": 0.1}}
    with pytest.raises(AssertionError, match="nothing is dropped"):
        compile.lower(config.override(late), devices.make_mesh(1), "gpu")


def test_order_of_random_streams_is_by_use():
    key = jax.random.key(0)
    streams = Streams.derive(key, jnp.int32(4))
    later = Streams.derive(key, jnp.int32(5))
    drawn = {tuple(jax.random.key_data(k).tolist()) for s in (streams, later) for k in dataclasses.astuple(s)}
    drawn |= {tuple(jax.random.key_data(order_key(key, rollbacks)).tolist()) for rollbacks in (0, 1, 2)}
    assert len(drawn) == 10 + 3
