"""What stays on disk, what comes back, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wrn_jax import mesh as meshes
from wrn_jax.checkpoints import Checkpoints, Saved, best_of
from wrn_jax.config import Model, Optimizer
from wrn_jax.errors import UserError
from wrn_jax.optimizer import make_optimizer
from wrn_jax.state import Network


def make_state(width=1, seed=0, num_devices=1):
    network, optimizer = Network(Model(depth=10, widen_factor=width), 10, "float32"), make_optimizer(Optimizer())
    create = functools.partial(network.create_state, optimizer)
    sharding = meshes.replicated(meshes.make_mesh(num_devices))
    return create, jax.jit(create, out_shardings=sharding)(jax.random.key(seed)), sharding


def test_keeps_last_best_and_milestones_across_restarts(tmp_path):
    _, state, _ = make_state()
    accuracies = [0.1, 0.5, 0.3, 0.5, 0.2, 0.4]
    for part in (range(3), range(3, 6)):  # a restart in between: the best must be remembered from disk
        with Checkpoints(tmp_path / "c", keep=[30], metadata={"config": {"seed": 1}}) as checkpoints:
            for index in part:
                step = 10 * (index + 1)
                checkpoints.save(state, step, index + 1, {"test_accuracy": 0.0}, accuracies[index])
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.list() == [Saved(20, 2, 0.5), Saved(30, 3, 0.3), Saved(60, 6, 0.4)]
        assert best_of(checkpoints.list()).step == 20
        beside = checkpoints._orbax.checkpointables_metadata(20).custom_metadata
    assert beside == {"config": {"seed": 1}, "epoch": 2, "metrics": {"test_accuracy": 0.0}}


def test_restores_every_bit_onto_other_devices(tmp_path):
    create, state, _ = make_state(num_devices=8)
    expected = jax.tree.map(
        lambda leaf: np.asarray(jax.random.key_data(leaf) if leaf.ndim == 0 and leaf is state.key else leaf), state
    )
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(state, 7, 1, {}, 0.5)
    for devices in (1, 2):
        sharding = meshes.replicated(meshes.make_mesh(devices))
        with Checkpoints(tmp_path / "c") as checkpoints:
            found = checkpoints.restore(7, jax.eval_shape(create, jax.random.key(0)), sharding)
        assert found.step.sharding.num_devices == devices
        assert found.key.dtype == state.key.dtype
        np.testing.assert_array_equal(jax.random.key_data(found.key), expected.key)
        jax.tree.map(np.testing.assert_array_equal, found.params, expected.params)
        jax.tree.map(np.testing.assert_array_equal, found.opt_state, expected.opt_state)
        jax.tree.map(np.testing.assert_array_equal, found.batch_stats, expected.batch_stats)


def test_saving_is_safe_while_the_state_is_overwritten(tmp_path):
    _, state, sharding = make_state()
    expected = np.asarray(state.params["fc"]["kernel"]).copy()
    spoil = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf * 0 - 1, tree), donate_argnums=0)
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(state, 1, 1, {}, 0.5)
        spoil(state.params)
    create, _, _ = make_state()
    with Checkpoints(tmp_path / "c") as checkpoints:
        like = jax.eval_shape(create, jax.random.key(0))
        params, _ = checkpoints.restore_model(1, like.params, like.batch_stats, sharding)
    np.testing.assert_array_equal(params["fc"]["kernel"], expected)


def test_another_network_is_refused_with_the_difference(tmp_path):
    _, state, sharding = make_state(width=1)
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(state, 1, 1, {}, 0.5)
    other, _, _ = make_state(width=2)
    with Checkpoints(tmp_path / "c") as checkpoints:
        like = jax.eval_shape(other, jax.random.key(0))
        with pytest.raises(UserError, match=r"checkpoint 1: .* is \(.*\), but this network has \(.*\)"):
            checkpoints.restore(1, like, sharding)


def test_an_unfinished_checkpoint_is_not_listed(tmp_path):
    _, state, _ = make_state()
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(state, 1, 1, {}, 0.5)
    (tmp_path / "c" / "2.orbax-checkpoint-tmp").mkdir()
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert [one.step for one in checkpoints.list()] == [1]


def test_no_checkpoints(tmp_path):
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.list() == []


def test_step_and_key_are_arrays_of_the_right_kind():
    _, state, _ = make_state()
    assert state.step.dtype == jnp.int32
    assert jnp.issubdtype(state.key.dtype, jax.dtypes.prng_key)
