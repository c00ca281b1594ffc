"""Schedules: against PyTorch's, at both ends, one past the end, and inside every segment."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.weights import VECTORS
from wrn_jax.config.schedules import (
    Clock,
    Cosine,
    Duration,
    Exponential,
    Linear,
    OneCycle,
    Polynomial,
    Position,
    WarmRestarts,
    at,
    beginnings,
    constant_then_decay,
    epoch,
    epochs,
    extremes,
    join,
    last,
    share,
    step,
    step_decay,
    steps,
)


@pytest.mark.parametrize("name", ["restarts_25", "restarts_20", "restarts_5_doubling"])
def test_warm_restarts_agree_with_pytorch(name):
    vectors = np.load(VECTORS / "schedules.npz")
    case = {key: vectors[f"{name}/{key}"].item() for key in ("peak", "floor", "period_epochs", "multiplier", "steps_per_epoch")}
    schedule = WarmRestarts(case["peak"], case["floor"], epochs(case["period_epochs"]), int(case["multiplier"]))
    expected = vectors[f"{name}/rates"]
    found = schedule.at(jnp.arange(len(expected)), Clock(case["steps_per_epoch"]))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_cosine_agrees_with_pytorch():
    vectors = np.load(VECTORS / "schedules.npz")
    expected = vectors["cosine_40/rates"]
    clock = Clock(int(vectors["cosine_40/steps_per_epoch"]))
    found = Cosine(0.15, 1e-5, epochs(40)).at(jnp.arange(len(expected)), clock)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("schedule", "reference"),
    [
        (Polynomial(0.1, 0.01, steps(40), power=3.0), optax.polynomial_schedule(0.1, 0.01, 3.0, 40)),
        (OneCycle(0.1 / 25, 0.1, 0.1 / 25 / 1e4, steps(40)), optax.cosine_onecycle_schedule(40, 0.1)),
        (Exponential(0.1, 0.5, steps(7), floor=0.02), optax.exponential_decay(0.1, 7, 0.5, end_value=0.02)),
    ],
    ids=["polynomial", "one_cycle", "exponential"],
)
def test_schedules_agree_with_optax(schedule, reference):
    found = schedule.at(jnp.arange(60), Clock(10))
    np.testing.assert_allclose(found, [reference(step) for step in range(60)], rtol=2e-5)
    low, high = extremes(schedule)
    assert low <= min(found) * (1 + 1e-6)
    assert high >= max(found) * (1 - 1e-6)


def test_step_decay_agrees_with_optax():
    value = join(step_decay(0.1, 0.2, [epoch(3), at("50 %"), last(2)]), Clock(10, epochs=10))
    reference = optax.piecewise_constant_schedule(0.1, {20: 0.2, 50: 0.2, 80: 0.2})
    np.testing.assert_allclose(value(jnp.arange(101)), [reference(step) for step in range(101)], rtol=1e-6)


@pytest.mark.parametrize("decay", [epochs(2), share("20 %")])
def test_constant_then_decay(decay):
    value = join(constant_then_decay(0.1, epochs(1), decay, end=0.01), Clock(10, epochs=10))
    found = value(jnp.array([0, 5, 10, 11, 79, 80, 81, 90, 100, 101]))
    np.testing.assert_allclose(found, [0, 0.05, 0.1, 0.1, 0.1, 0.1, 0.0955, 0.055, 0.01, 0.01], rtol=1e-5)
    with pytest.raises(ValueError, match="decay: should be in epochs"):
        constant_then_decay(0.1, epochs(1), steps(20))


class TestEnds:
    clock = Clock(10)

    def test_linear(self):
        line = Linear(0.0, 1.0, epochs(2))
        found = line.at(jnp.array([0, 5, 19, 20, 21]), self.clock)
        np.testing.assert_allclose(found, [0, 0.25, 0.95, 1, 1], rtol=1e-6)

    def test_cosine(self):
        found = Cosine(1.0, 0.2, steps(20)).at(jnp.array([0, 10, 20, 21]), self.clock)
        np.testing.assert_allclose(found, [1, 0.6, 0.2, 0.2], rtol=1e-6)

    def test_cosine_that_goes_on(self):
        wave = Cosine(1.0, 0.0, steps(20), beyond="continue")
        found = wave.at(jnp.array([-1, 0, 5, 20, 21, 30, 40, 45, 2_000_000_010]), self.clock)
        expected = 0.5 * (1 + np.cos(np.pi * np.array([0, 0, 5, 20, 21, 30, 40, 45, 10]) / 20))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)

    def test_warm_restarts(self):
        found = WarmRestarts(1.0, 0.0, steps(4)).at(jnp.array([0, 2, 3, 4, 5, 8]), self.clock)
        expected = 0.5 * (1 + np.cos(np.pi * np.array([0, 2, 3, 0, 1, 0]) / 4))
        np.testing.assert_allclose(found, expected, rtol=1e-5)

    def test_warm_restarts_with_multiplier(self):
        # Cycles of 4, 12 and 36 steps begin at 0, 4 and 16.
        found = WarmRestarts(1.0, 0.0, steps(4), multiplier=3).at(jnp.array([3, 4, 15, 16, 17]), self.clock)
        expected = 0.5 * (1 + np.cos(np.pi * np.array([3 / 4, 0, 11 / 12, 0, 1 / 36])))
        np.testing.assert_allclose(found, expected, rtol=1e-4)

    def test_far_out_restarts_stay_exact(self):
        schedule = WarmRestarts(1.0, 0.0, steps(25))
        far = 25 * 40_000_000
        np.testing.assert_allclose(
            schedule.at(jnp.array([far, far + 5]), self.clock), schedule.at(jnp.array([0, 5]), self.clock)
        )


class TestJoin:
    clock = Clock(10)

    def test_positions_far_outside_of_a_run_are_positions(self):
        for position, index in ((epoch(10**12), 2**31 - 1), (last(10**12), -(2**30))):
            assert Clock(10).index(position) == index
        value = join({epoch(1): Linear(0.0, 1.0, steps(4), since=last(99999999))}, self.clock)
        assert value(0) == 1.0

    def test_steps_after_a_position_are_not_scaled(self):
        for scale, index in ((1.0, 43), (0.5, 23), (2.0, 83)):
            assert Clock(10, scale).index(epoch(5, plus=3)) == index
        assert Clock(10, 2.0).index(Position(7, "step", 3)) == 10
        assert str(epoch(5, plus=3)) == "epoch 5 + 3 steps"
        assert str(epoch(5, plus=1)) == "epoch 5 + 1 step"

    def test_piecewise_constant_changes_at_the_first_step_of_the_epoch(self):
        value = join({epoch(1): 0.3, epoch(4): 0.2, step(55): 0.0}, self.clock)
        found = value(jnp.array([0, 29, 30, 54, 55, 1000]))
        np.testing.assert_allclose(found, [0.3, 0.3, 0.2, 0.2, 0, 0], rtol=1e-6)

    def test_a_piece_starts_its_own_clock(self):
        value = join({epoch(1): 0.5, epoch(3): Linear(0.0, 1.0, epochs(1))}, self.clock)
        np.testing.assert_allclose(value(jnp.array([19, 20, 25, 40])), [0.5, 0, 0.5, 1], rtol=1e-6)

    def test_since_moves_the_clock(self):
        value = join({epoch(1): 0.5, epoch(3): Linear(0.0, 1.0, epochs(4), since=epoch(1))}, self.clock)
        np.testing.assert_allclose(value(jnp.array([19, 20, 30])), [0.5, 0.5, 0.75], rtol=1e-6)

    def test_warm_up_overrides_restarts(self):
        value = join(
            {epoch(1): Linear(0.01, 0.1, epochs(5)), epoch(6): WarmRestarts(0.1, 0, epochs(25), since=epoch(1))},
            self.clock,
        )
        found = value(jnp.array([0, 25, 49, 50, 249, 250]))
        cosine = lambda k: 0.05 * (1 + np.cos(np.pi * k / 250))  # noqa: E731
        expected = [0.01, 0.055, 0.01 + 0.09 * 0.98, cosine(50), cosine(249), 0.1]
        np.testing.assert_allclose(found, expected, rtol=1e-4)

    def test_is_jittable_and_float32(self):
        value = join({epoch(1): 1, epoch(2): Cosine(1, 0, epochs(1))}, self.clock)
        found = jax.jit(value)(np.int32(15))
        assert found.dtype == jnp.float32
        assert found.shape == ()
        assert float(found) == pytest.approx(0.5)

    def test_phases_scaled_onto_one_step_leave_the_last(self):
        clock = Clock(2, scale=0.01)
        assert beginnings({epoch(1): 0.3, epoch(2): 0.2, epoch(90): 0.1}, clock) == [(0, 0.2), (2, 0.1)]
        np.testing.assert_allclose(join({epoch(1): 0.3, epoch(2): 0.2}, clock)(jnp.int32(0)), 0.2)


class TestClock:
    def test_scales_epochs_and_not_steps(self):
        clock = Clock(196, scale=0.1)
        assert clock.index(epoch(41)) == 784
        assert clock.index(step(41)) == 41
        assert clock.length(epochs(5)) == 98
        assert clock.length(steps(5)) == 5

    def test_what_counts_from_the_end_follows_the_length(self):
        for clock, total in ((Clock(10, 1.0, 100), 1000), (Clock(10, 0.5, 100), 500), (Clock(10, 1.0, 40), 400)):
            assert clock.index(at("75 %")) == 0.75 * total
            assert clock.index(at("75 % + 2 steps")) == 0.75 * total + 2
            assert clock.index(last(15)) == total - 150 * clock.scale
            assert clock.length(share("20 %")) == 0.2 * total
            assert str(clock.stretch(share("20 %"))) == f"{total // 50} epochs"
        assert Clock(10, 1.0, 10).index(last(15)) < 0  # before the beginning, where the first phase acts from step 0
        assert beginnings({epoch(1): 0.3, last(15): 0.1, last(5): 0.0}, Clock(10, 1.0, 10)) == [(0, 0.1), (50, 0.0)]

    def test_no_duration_vanishes(self):
        assert Clock(1, scale=0.01).length(epochs(5)) == 1


@pytest.mark.parametrize(
    ("quantity", "text"),
    [(epochs(5), "5 epochs"), (epochs(1), "1 epoch"), (steps(25), "25 steps"), (epochs(2.5), "2.5 epochs"),
     (epoch(41), "epoch 41"), (step(980), "step 980"), (last(15), "last 15 epochs"), (last(1), "last 1 epoch"),
     (at("75 %"), "75 %"), (at("last 1.5 epochs + 2 steps"), "last 1.5 epochs + 2 steps"), (share("20 %"), "20 %")],
)  # fmt: skip
def test_quantities_read_as_text(quantity, text):
    assert str(quantity) == text
    assert isinstance(quantity, Duration | Position)
    assert (at if isinstance(quantity, Position) else share)(text) == quantity


def test_extremes():
    assert extremes(0.3) == (0.3, 0.3)
    assert extremes(Linear(0.01, 0.1, epochs(1))) == (0.01, 0.1)
    assert extremes(WarmRestarts(0.1, 0.001, epochs(1))) == (0.001, 0.1)
