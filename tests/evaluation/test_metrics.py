"""Figures of logits and labels, against values worked out by hand."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from wrn_jax.evaluation import metrics
from wrn_jax.evaluation.evaluator import masked_counts


def from_probabilities(*rows):
    return np.log(np.array(rows, np.float64)).astype(np.float32)


class TestScore:
    def test_probabilities_and_losses(self):
        scored = metrics.score(from_probabilities([0.7, 0.2, 0.1], [0.1, 0.3, 0.6]), np.array([0, 1], np.int32))
        np.testing.assert_array_equal(scored.predicted, [0, 2])
        np.testing.assert_array_equal(scored.correct, [True, False])
        np.testing.assert_allclose(scored.confidence, [0.7, 0.6], rtol=1e-6)
        np.testing.assert_allclose(scored.own, [0.7, 0.3], rtol=1e-6)
        np.testing.assert_allclose(scored.losses, [-math.log(0.7), -math.log(0.3)], rtol=1e-6)

    def test_large_logits_do_not_overflow(self):
        scored = metrics.score(np.array([[1e30, 0.0], [-1e4, 0.0]], np.float32), np.array([0, 0]))
        np.testing.assert_array_equal(scored.confidence, [1, 1])
        np.testing.assert_allclose(scored.losses, [0, 1e4])

    def test_first_among_equals_is_predicted_and_ties_are_no_rank(self):
        # Seven classes: the label ties with two others, and four score higher.
        logits = np.array([[1, 2, 2, 2, 2, 1, 1], [2, 2, 2, 2, 2, 1, 1]], np.float32)
        scored = metrics.score(logits, np.array([6, 6]))
        np.testing.assert_array_equal(scored.predicted, [1, 0])
        np.testing.assert_array_equal(scored.in_top5, [True, False])

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_no_prediction_where_a_logit_is_not_finite(self, bad):
        logits = np.array([[5, bad, 0, 0, 0, 0], [5, 0, 0, 0, 0, 0]], np.float32)
        scored = metrics.score(logits, np.array([0, 0]))
        np.testing.assert_array_equal(scored.predicted, [6, 0])
        np.testing.assert_array_equal(scored.correct, [False, True])
        np.testing.assert_array_equal(scored.in_top5, [False, True])
        for column in (scored.confidence, scored.own, scored.losses):
            np.testing.assert_array_equal(np.isnan(column), [True, False])

    def test_counts_as_the_training_loop_does(self):
        random = np.random.default_rng(0)
        logits = random.integers(0, 6, (500, 12)).astype(np.float32)  # many ties
        logits[::50, 3] = np.nan
        logits[1::50, 4] = np.inf
        labels = random.integers(0, 12, 500).astype(np.int32)
        expected = masked_counts(jnp.asarray(logits), jnp.asarray(labels), jnp.ones(500))
        scored = metrics.score(logits, labels)
        assert scored.correct.sum() == expected["correct"]
        assert scored.in_top5.sum() == expected["top5"]
        finite = np.isfinite(logits).all(axis=1)
        expected = masked_counts(jnp.asarray(logits[finite]), jnp.asarray(labels[finite]), jnp.ones(finite.sum()))
        assert scored.losses[finite].sum() == pytest.approx(float(expected["loss"]), rel=1e-5)


def test_log_mean_averages_probabilities():
    first, second = from_probabilities([0.9, 0.1], [0.5, 0.5]), from_probabilities([0.3, 0.7], [0.25, 0.75])
    np.testing.assert_allclose(np.exp(metrics.log_mean(first, second)), [[0.6, 0.4], [0.375, 0.625]], rtol=1e-6)
    # Of logits only differences count.
    np.testing.assert_allclose(metrics.log_mean(first + 7, second - 3), metrics.log_mean(first, second), atol=1e-5)
    assert np.isnan(metrics.log_mean(np.array([[np.nan, 1]]), second[:1])).all()


def test_summary():
    logits = from_probabilities([0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.2, 0.2, 0.6], [0.8, 0.1, 0.1])
    found = metrics.summary(metrics.score(logits, np.array([0, 1, 2, 1])))
    assert (found["count"], found["without_prediction"]) == (4, 0)
    assert (found["accuracy"], found["top5"]) == (0.5, 1)
    assert found["accuracy_interval"] == list(metrics.wilson_interval(2, 4))
    assert found["loss"] == pytest.approx(-math.log(0.7 * 0.3 * 0.6 * 0.1) / 4)
    # Bins of a fifteenth: 0.7 right; 0.6 once right, once wrong; 0.8 wrong.
    assert found["calibration_error"] == pytest.approx((0.3 + abs(1.2 - 1) + 0.8) / 4)


def test_summary_of_outputs_that_are_not_finite():
    found = metrics.summary(metrics.score(np.array([[1, np.nan], [1, 0]]), np.array([0, 0])))
    assert (found["count"], found["without_prediction"], found["accuracy"], found["top5"]) == (2, 1, 0.5, 0.5)
    assert math.isnan(found["loss"])
    assert math.isnan(found["calibration_error"])


class TestWilsonInterval:
    @pytest.mark.parametrize(
        ("right", "count", "low", "high"),
        [(8, 10, 0.490162, 0.943318), (0, 10, 0, 0.277533), (10, 10, 0.722467, 1), (4300, 10_000, 0.420325, 0.439728)],
    )
    def test_values(self, right, count, low, high):
        assert metrics.wilson_interval(right, count) == pytest.approx((low, high), abs=1e-6)

    def test_worked_example(self):
        """81 of 263 (Newcombe, 1998, table I, method 3)."""
        assert metrics.wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)

    @pytest.mark.parametrize(("right", "count"), [(0, 0), (3, 2), (-1, 2)])
    def test_needs_a_fraction(self, right, count):
        with pytest.raises(ValueError, match="must"):
            metrics.wilson_interval(right, count)


class TestCalibrationError:
    def test_by_hand(self):
        confidence, correct = np.array([0.95, 0.95, 0.55, 0.55]), np.array([True, False, True, False])
        assert metrics.calibration_error(confidence, correct, bins=10) == pytest.approx(0.25)

    def test_a_bin_holds_its_upper_end(self):
        # In (0, 0.5] both: 0.75 - 1; were 0.5 in the next bin: 0.25 + 0.5.
        assert metrics.calibration_error(np.array([0.25, 0.5]), np.array([False, True]), bins=2) == pytest.approx(0.125)

    def test_ends(self):
        assert metrics.calibration_error(np.array([0.0, 1.0]), np.array([False, True])) == 0
        assert metrics.calibration_error(np.array([1.0]), np.array([False])) == 1

    def test_fifteen_bins(self):
        # An end lies at 2/3, none at 0.7.
        correct = np.array([True, False])
        assert metrics.calibration_error(np.array([0.68, 0.72]), correct) == pytest.approx((1.4 - 1) / 2)
        assert metrics.calibration_error(np.array([0.65, 0.68]), correct) == pytest.approx((0.35 + 0.68) / 2)


class TestFitTemperature:
    def test_two_classes_by_hand(self):
        # Three of four are right, so the best confidence is 3/4: sigmoid(4 / T) = 3/4.
        logits = np.array([[4, 0]] * 4, np.float32)
        assert metrics.fit_temperature(logits, np.array([0, 0, 0, 1])) == pytest.approx(4 / math.log(3), rel=1e-9)

    def test_smallest_loss_of_all(self):
        random = np.random.default_rng(0)
        logits, labels = random.normal(0, 3, (300, 10)), random.integers(0, 10, 300)
        logits[np.arange(300), labels] += 2
        found = metrics.fit_temperature(logits, labels)
        loss = lambda temperature: metrics.score(logits / temperature, labels).losses.mean()  # noqa: E731
        assert loss(found) < min(loss(found * 1.01), loss(found / 1.01))
        assert metrics.fit_temperature(logits * 5, labels) == pytest.approx(found * 5, rel=1e-9)
        assert metrics.fit_temperature(logits + 100, labels) == pytest.approx(found, rel=1e-9)

    @pytest.mark.parametrize(
        ("logits", "labels"),
        [([[1, 0], [1, 0]], [0, 0]), ([[1, 0], [1, 0]], [1, 1]), ([[1, np.nan], [1, 0]], [0, 1]), ([[0, 0], [0, 0]], [0, 1])],
        ids=["all right", "all wrong", "not finite", "constant"],
    )
    def test_none_where_there_is_none(self, logits, labels):
        assert metrics.fit_temperature(np.array(logits, np.float32), np.array(labels)) is None


def scored(labels, predicted, num_classes):
    logits = np.eye(num_classes)[np.array(predicted) % num_classes]
    logits[np.array(predicted) == num_classes] = np.nan
    return metrics.score(logits, np.array(labels))


class TestGroups:
    def test_accuracy_by_class_and_group(self):
        one = scored([0, 0, 1, 2, 2, 2], [0, 1, 1, 2, 3, 0], 5)
        assert metrics.accuracy_by_group(one, range(4), 4) == [0.5, 1, pytest.approx(1 / 3), None]
        assert metrics.accuracy_by_group(one, [1, 1, 0, 0], 3) == [pytest.approx(1 / 3), pytest.approx(2 / 3), None]

    def test_same_group(self):
        # The fifth output is no class, and the last image has no prediction.
        one = scored([0, 0, 1, 2, 2, 2, 0], [0, 1, 2, 2, 3, 4, 5], 5)
        assert metrics.same_group(one, [1, 1, 0, 0]) == pytest.approx(4 / 7)


class TestConfusedPairs:
    def test_order_and_direction(self):
        one = scored([0, 0, 1, 1, 2, 2, 2, 1, 0], [1, 1, 0, 2, 0, 0, 0, 1, 2], 3)
        pairs = metrics.confused_pairs(one, "abc", 20)
        assert pairs == [("c", "a", 3), ("a", "b", 2), ("a", "c", 1), ("b", "a", 1), ("b", "c", 1)]
        assert metrics.confused_pairs(one, "abc", 2) == pairs[:2]

    def test_outputs_without_a_name_and_images_without_a_prediction(self):
        one = scored([0, 0, 1], [3, 4, 1], 4)
        assert metrics.confused_pairs(one, "abc", 20) == [("a", "output 3", 1)]

    def test_none(self):
        assert metrics.confused_pairs(scored([0, 1], [0, 1], 2), "ab", 20) == []
