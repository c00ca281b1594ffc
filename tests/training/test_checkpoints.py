"""What stays on disk, what comes back, and what is refused."""

import dataclasses
import functools
import gc
import json
import os
import resource
import signal
import sys
import threading
import time

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wrn_jax.config import Model, Optimizer
from wrn_jax.models.network import Network
from wrn_jax.runtime import devices
from wrn_jax.runtime.errors import UserError
from wrn_jax.training.checkpoints import Checkpoints, Saved, SaveFailed, best_of, checksum, why
from wrn_jax.training.optimizer import make_optimizer
from wrn_jax.training.records import CheckpointNotes
from wrn_jax.training.state import TrainState, create_state

pytestmark = pytest.mark.slow

NOTES = CheckpointNotes(rollbacks=0)


@functools.cache
def create(width):
    """A function from a random key to the state of a small network."""
    network, optimizer = Network(Model(depth=10, widen_factor=width), 10, "float32"), make_optimizer(Optimizer())
    return jax.jit(functools.partial(create_state, network, optimizer))


@functools.cache
def make_state(width=1, seed=0, num_devices=1, sharding="replicated"):
    """(abstract state, state, shardings) of a small network."""
    state = create(width)(jax.random.key(seed))
    abstract = jax.eval_shape(lambda: state)
    shardings = devices.state_shardings(abstract, devices.make_mesh(num_devices), sharding)
    return abstract, jax.device_put(state, shardings), shardings


def test_keeps_last_best_and_milestones_across_restarts(tmp_path):
    _, state, _ = make_state()
    accuracies = [0.1, 0.5, 0.3, 0.5, 0.2, 0.4]
    for part in (range(3), range(3, 6)):  # a restart in between: the best must be remembered from disk
        with Checkpoints(tmp_path / "c", keep=[30], metadata={"config": {"seed": 1}}) as checkpoints:
            for index in part:
                step = 10 * (index + 1)
                checkpoints.save(state, step, index + 1, accuracies[index], CheckpointNotes(rollbacks=2))
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.all() == [Saved(20, 2, 0.5), Saved(30, 3, 0.3), Saved(50, 5, 0.2), Saved(60, 6, 0.4)]
        assert best_of(checkpoints.all()).step == 20
        assert checkpoints.all()[0].notes == CheckpointNotes(rollbacks=2)
        beside = checkpoints._orbax.checkpointables_metadata(20).custom_metadata
    assert beside["config"] == {"seed": 1}


def test_a_branch_finds_its_checkpoint_and_the_best_before_it(tmp_path):
    _, state, _ = make_state()
    with Checkpoints(tmp_path / "c", branches=[30]) as checkpoints:
        for index, accuracy in enumerate([0.1, 0.5, 0.3, 0.6, 0.2, 0.4], 1):
            checkpoints.save(state, 10 * index, index, accuracy, NOTES)
        assert [saved.step for saved in checkpoints.all()] == [20, 30, 40, 50, 60]


def numbers(state):
    """The arrays of a state on the host, random keys as their words."""
    is_key = lambda leaf: jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)  # noqa: E731
    return [np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf) for leaf in jax.tree.leaves(state)]


@pytest.mark.parametrize(("devices", "sharding"), [(1, "replicated"), (2, "replicated"), (4, "fsdp")])
def test_restores_every_bit_onto_other_devices(tmp_path, devices, sharding):
    abstract, state, _ = make_state(num_devices=8)
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(state, 7, 1, 0.5, NOTES)
    _, _, shardings = make_state(num_devices=devices, sharding=sharding)
    with Checkpoints(tmp_path / "c") as checkpoints:
        saved, found, damaged = checkpoints.restore_last(abstract, shardings)
    assert (saved, damaged) == (Saved(7, 1, 0.5), [])
    assert found.step.sharding.num_devices == devices
    is_placed = jax.tree.map(lambda leaf, sharding: leaf.sharding.is_equivalent_to(sharding, leaf.ndim), found, shardings)
    assert all(jax.tree.leaves(is_placed))
    chex.assert_trees_all_equal(numbers(found), numbers(state))


def test_restores_kernels_in_the_order_in_memory_that_the_devices_want(tmp_path, monkeypatch):
    """As on a GPU."""
    abstract, state, _ = make_state()
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(state, 7, 1, 0.5, NOTES)
    monkeypatch.setitem(devices.KERNEL_LAYOUTS, "cpu", (3, 0, 1, 2))
    wanted = devices.state_shardings(abstract, devices.make_mesh(4), "fsdp")
    with Checkpoints(tmp_path / "c") as checkpoints:
        _, found, _ = checkpoints.restore_last(abstract, wanted)
        checkpoints.save(found, 8, 1, 0.5, NOTES)
        _, again, _ = checkpoints.restore_last(abstract, wanted)
    kernels = [pair for pair in zip(*map(jax.tree.leaves, (again, wanted)), strict=True) if pair[0].ndim == 4]
    assert len(kernels) == 2 * len([leaf for leaf in jax.tree.leaves(state.params) if leaf.ndim == 4])  # momentum too
    for kernel, format in kernels:
        assert kernel.format.layout.major_to_minor == (3, 0, 1, 2)
        assert kernel.sharding == format.sharding
    chex.assert_trees_all_equal(numbers(again), numbers(state))


class TestDamage:
    """Bytes changed or lost in the newest checkpoint are noticed, and the one before is used."""

    @pytest.fixture
    def run(self, tmp_path):
        abstract, state, shardings = make_state()
        with Checkpoints(tmp_path / "c") as checkpoints:
            checkpoints.save(state, 1, 0, None, NOTES)
            checkpoints.save(state, 2, 0, None, NOTES)
        return tmp_path / "c", abstract, shardings

    def flip_one_bit(self, path):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

    def cut(self, path):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    @pytest.mark.parametrize(
        ("what", "damage"),
        [
            ("arrays", "flip_one_bit"),
            ("arrays", "cut"),
            ("arrays", "unlink"),
            ("description", "cut"),
            ("description", "unlink"),
        ],
    )
    def test_falls_back(self, run, damage, what):
        folder, abstract, shardings = run
        files = [path for path in (folder / "2").rglob("*") if path.is_file()]
        victim = max(files, key=lambda path: path.stat().st_size)
        if what == "description":
            victim = folder / "2" / "_CHECKPOINT_METADATA"
        path = {"unlink": lambda path: path.unlink()}.get(damage) or getattr(self, damage)
        path(victim)
        with Checkpoints(folder) as checkpoints:
            saved, state, damaged = checkpoints.restore_last(abstract, shardings)
            assert [one.step for one in checkpoints.all()] == [1]
            assert saved.step == 1
            (line,) = damaged
            assert line.startswith("checkpoint 2 is damaged (")
            assert "\n" not in line
            checkpoints.save(state, 2, 0, None, NOTES)  # the place is free again
        assert (folder.with_name("damaged") / "2").is_dir()

    @pytest.mark.parametrize(
        ("name", "value"), [("format", "x"), ("format", -1), ("epoch", "2"), ("checksum", None), ("notes", {"format": 1})]
    )
    def test_what_it_says_of_itself_is_read_strictly(self, run, name, value):
        folder, abstract, shardings = run
        path = folder / "2" / "_CHECKPOINT_METADATA"
        tree = json.loads(path.read_text())
        tree["custom_metadata"][name] = value
        path.write_text(json.dumps(tree))
        with Checkpoints(folder) as checkpoints:
            saved, _, damaged = checkpoints.restore_last(abstract, shardings)
        assert saved.step == 1
        assert damaged[0].startswith("checkpoint 2 is damaged (its description cannot be read); moved to ")

    @pytest.mark.parametrize(("file", "content"), [("_CHECKPOINT_METADATA", "[]"), ("metrics/metrics", '{"accura')])
    def test_what_orbax_cannot_open_is_named(self, run, file, content):
        folder, _, _ = run
        (folder / "2" / file).parent.mkdir(exist_ok=True)
        (folder / "2" / file).write_text(content)
        with pytest.raises(UserError, match=r"c/2: cannot be read \(.*\); move it away$"):
            Checkpoints(folder)

    @pytest.mark.parametrize("metrics", ["[]", '{"accuracy": "x", "epoch": 1}', '{"accuracy": NaN, "epoch": 1}'])
    def test_a_strange_accuracy_is_never_the_best_and_hinders_no_save(self, run, metrics):
        folder, _, _ = run
        _, state, _ = make_state()
        with Checkpoints(folder) as checkpoints:
            checkpoints.save(state, 3, 1, 0.5, NOTES)
        (folder / "3" / "metrics" / "metrics").write_text(metrics)
        with Checkpoints(folder) as checkpoints:
            for step in (4, 5, 6):
                checkpoints.save(state, step, step, 0.1, NOTES)
            checkpoints.wait()
            assert [one.step for one in checkpoints.all()] == [4, 5, 6]

    def test_what_is_not_finite_is_no_checkpoint_to_go_on_from(self, run):
        folder, abstract, shardings = run
        _, state, _ = make_state()
        with Checkpoints(folder) as checkpoints:
            checkpoints.save(dataclasses.replace(state, params=jax.tree.map(lambda x: x / 0, state.params)), 3, 1, 0.1, NOTES)
        with Checkpoints(folder) as checkpoints:
            saved, _, damaged = checkpoints.restore_last(abstract, shardings)
        assert saved.step == 2
        assert damaged[0].startswith("checkpoint 3 is damaged (its numbers are not finite)")

    def test_a_file_in_the_place_of_the_damaged(self, run):
        folder, abstract, shardings = run
        self.cut(folder / "2" / "_CHECKPOINT_METADATA")
        folder.with_name("damaged").write_text("")
        message = r"checkpoint 2 is damaged \(.*\), and cannot be moved to .*damaged/2: File exists"
        with Checkpoints(folder) as checkpoints, pytest.raises(UserError, match=message):
            checkpoints.restore_last(abstract, shardings)

    def test_only_abandoned_tasks_end_without_a_word(self, run, monkeypatch, caplog):
        folder, abstract, shardings = run
        heard = []
        monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: heard.append(unraisable.object))
        for path in (folder / "2").rglob("d/*"):
            self.cut(path)
        with Checkpoints(folder) as checkpoints:
            checkpoints.restore_last(abstract, shardings)
        for _ in range(4):  # TensorStore's threads get to their ends
            gc.collect()
            time.sleep(0.2)
        assert heard == []
        assert [record.message for record in caplog.records if record.name == "asyncio"] == []

        class Ours:
            def __del__(self):
                raise ValueError("still told")

        Ours()
        assert len(heard) == 1

    def test_nothing_left(self, run):
        folder, abstract, shardings = run
        for step in "12":
            self.cut(max((folder / step).rglob("*"), key=lambda path: path.stat().st_size))
        with (
            Checkpoints(folder) as checkpoints,
            pytest.raises(UserError, match=r"none can be gone on from; the last, 2, is damaged \(its"),
        ):
            checkpoints.restore_last(abstract, shardings)
        assert (folder / "1").is_dir()  # nothing was moved: somebody may want to look
        assert (folder / "2").is_dir()


def test_a_newer_format_is_refused(tmp_path, monkeypatch):
    abstract, state, shardings = make_state()
    with monkeypatch.context() as patch, Checkpoints(tmp_path / "c") as checkpoints:
        patch.setattr("wrn_jax.training.checkpoints.FORMAT", 7)
        checkpoints.save(state, 1, 1, 0.5, NOTES)
    with Checkpoints(tmp_path / "c") as checkpoints, pytest.raises(UserError, match="is of format 7, newer than 1"):
        checkpoints.restore_last(abstract, shardings)


def test_checksum_sees_every_change_and_no_sharding():
    _, state, _ = make_state()
    shardings = devices.state_shardings(state, devices.make_mesh(8), "fsdp")
    assert int(checksum(state)) == int(checksum(jax.device_put(state, shardings)))
    kernel = state.params["conv1"]["kernel"]
    for changed in (kernel.at[0, 0, 0, 0].add(1e-7), kernel[::-1], kernel.at[0].set(kernel[1]).at[1].set(kernel[0])):
        assert int(checksum(changed)) != int(checksum(kernel))


def test_a_failed_save_is_told_and_the_next_succeeds(tmp_path):
    abstract, state, shardings = make_state(width=2)
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(state, 1, 1, 0.5, NOTES)
        checkpoints.wait()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # files cannot grow: a full disk in small
        try:
            with pytest.raises(SaveFailed, match=r"Failed writing|File too large"):  # noqa: PT012
                checkpoints.save(state, 2, 2, 0.6, NOTES)
                checkpoints.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, before)
        assert [one.step for one in checkpoints.all()] == [1]
        for _ in range(2):  # the second time by somebody who was not sure
            checkpoints.save(state, 3, 3, 0.7, NOTES)
        checkpoints.wait()
        assert [one.step for one in checkpoints.all()] == [1, 3]
        _, found, _ = checkpoints.restore_last(abstract, shardings)
    chex.assert_trees_all_equal(numbers(found), numbers(state))
    assert {path.name for path in (tmp_path / "c").iterdir()} == {"1", "3"}  # what was written has left the full disk


def test_saves_leave_no_descriptors_and_no_threads(tmp_path):
    fields = {field.name: {} for field in dataclasses.fields(TrainState)}
    state = Wider(**fields | {"average": None, "extra": jnp.arange(3.0)})
    open_now = lambda: (len(os.listdir("/proc/self/fd")), threading.active_count())  # noqa: E731
    with Checkpoints(tmp_path / "c") as checkpoints:
        for step in range(1, 46):
            checkpoints.save(state, step, step, 0.5, NOTES)
            if step == 5:
                descriptors, threads = open_now()
    after = open_now()
    assert after[0] < descriptors + 40  # pools of threads come and go; leaked they would be 120
    assert after[1] < threads + 20  # and 40


def test_saving_is_safe_while_the_state_is_overwritten(tmp_path):
    abstract, state, _ = make_state()
    expected = np.asarray(state.params["fc"]["kernel"]).copy()
    spoil = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf * 0 - 1, tree), donate_argnums=0)
    with Checkpoints(tmp_path / "c") as checkpoints:
        state = jax.tree.map(jnp.copy, state)
        checkpoints.save(state, 1, 1, 0.5, NOTES)
        spoil(state.params)
    with Checkpoints(tmp_path / "c") as checkpoints:
        sharding = devices.replicated(devices.make_mesh(1))
        params, _ = checkpoints.restore_model(1, abstract.params, abstract.batch_stats, sharding)
    np.testing.assert_array_equal(params["fc"]["kernel"], expected)


def test_another_network_is_refused_with_the_difference(tmp_path):
    _, state, _ = make_state(width=1)
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(state, 1, 1, 0.5, NOTES)
    abstract, _, shardings = make_state(width=2)
    message = r"checkpoint 1: .* is \(.*\), but this network has \(.*\)"
    with Checkpoints(tmp_path / "c") as checkpoints, pytest.raises(UserError, match=message):
        checkpoints.restore_last(abstract, shardings)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Wider(TrainState):
    """A state with a field more."""

    extra: jax.Array


def test_a_field_added_to_the_state_is_saved_and_comes_back(tmp_path):
    _, state, _ = make_state()
    wider = Wider(**vars(state), extra=jnp.arange(3.0))
    like = jax.eval_shape(lambda: wider)
    shardings = devices.state_shardings(like, devices.make_mesh(1), "replicated")
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(wider, 1, 1, 0.5, NOTES)
    with Checkpoints(tmp_path / "c") as checkpoints:
        _, found, damaged = checkpoints.restore_last(like, shardings)
    assert damaged == []
    chex.assert_trees_all_equal(numbers(found), numbers(wider))


@pytest.mark.parametrize("more", ["saved", "expected"])
def test_a_state_of_other_fields_is_refused(tmp_path, more):
    abstract, state, shardings = make_state()
    wider = Wider(**vars(state), extra=jnp.arange(3.0))
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(wider if more == "saved" else state, 1, 1, 0.5, NOTES)
    if more == "expected":
        abstract = jax.eval_shape(lambda: wider)
        shardings = devices.state_shardings(abstract, devices.make_mesh(1), "replicated")
    message = f"checkpoint 1: {'holds' if more == 'saved' else 'does not hold'} extra; it is of another version's"
    with Checkpoints(tmp_path / "c") as checkpoints, pytest.raises(UserError, match=message):
        checkpoints.restore_last(abstract, shardings)


def test_an_unfinished_checkpoint_is_not_listed(tmp_path):
    _, state, _ = make_state()
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(state, 1, 1, 0.5, NOTES)
    (tmp_path / "c" / "2.orbax-checkpoint-tmp").mkdir()
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert [one.step for one in checkpoints.all()] == [1]


def test_no_checkpoints(tmp_path):
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.all() == []


def test_step_and_key_are_arrays_of_the_right_kind():
    _, state, _ = make_state()
    assert state.step.dtype == jnp.int32
    assert jnp.issubdtype(state.key.dtype, jax.dtypes.prng_key)


def swallowed(*_):
    """An interrupt that becomes another error on its way out, as in an event loop."""
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        raise ValueError("cancelled") from None


def test_an_interrupt_while_one_is_read_is_no_damage(tmp_path, monkeypatch):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Checkpoints(tmp_path / "checkpoints") as checkpoints:
            monkeypatch.setattr(checkpoints._orbax, "checkpointables_metadata", swallowed)
            with pytest.raises(KeyboardInterrupt):
                checkpoints._describe(1)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('RESOURCE_EXHAUSTED: Failed writing: "/a/b": Failed to write 9 bytes to file 3: No space left on device '
         "[os_error_code='28']", "No space left on device"),
        ("another failure", "another failure"),
    ],
)  # fmt: skip
def test_of_a_failed_write_the_operating_systems_reason_is_told(text, told):
    assert why(ValueError(text)) == told
