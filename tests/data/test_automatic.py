"""The 14 operations against Pillow's results, byte for byte; draws, rounds and sharding of TrivialAugment and RandAugment."""

import dataclasses
import io
import itertools
import lzma
import pathlib

import jax
import numpy as np
import pytest

from wrn_jax.config.levels import Strengths
from wrn_jax.data import automatic
from wrn_jax.data.pixels import pack, unpack

VECTORS = np.load(io.BytesIO(lzma.decompress((pathlib.Path(__file__).parents[1] / "vectors/automatic.npz.xz").read_bytes())))
CASES = np.array(list(itertools.product(range(2), range(14), range(31), range(2))), np.int32)

operate = jax.jit(lambda images, *choice: unpack(automatic.operate(pack(images), *choice)))


@pytest.mark.parametrize("prefix", ["", "wide_"])
def test_operations_are_pillows_byte_for_byte(prefix):
    for image, results in zip(VECTORS[f"{prefix}images"], VECTORS[f"{prefix}results"], strict=True):
        wide, operation, strength, negative = CASES.T
        images = np.broadcast_to(image, (len(CASES), *image.shape))
        found = np.asarray(operate(images, operation, strength, negative == 1, wide == 1))
        wrong = (found != results.reshape(found.shape)).any(axis=(1, 2, 3))
        assert not wrong.any(), {automatic.OPERATIONS[index] for index in operation[wrong]}


def test_autocontrast_rounds_as_pillow_does():
    """Where its float64 comes out below a whole number."""
    choice = np.full(8, automatic.OPERATIONS.index("AutoContrast"), np.int32), np.zeros(8, np.int32), np.zeros(8, bool)
    np.testing.assert_array_equal(operate(VECTORS["spans"], *choice, choice[-1]), VECTORS["spans_results"])


def test_randaugment_is_pillows_byte_for_byte(monkeypatch):
    """The whole of it, with draws that lead to the stored choices: each pair of operations, one after the other."""
    images, ranges = VECTORS["pair_images"], VECTORS["pair_ranges"]
    monkeypatch.setattr(jax.random, "fold_in", lambda draws, index: draws[1][index - 1])
    monkeypatch.setattr(jax.random, "uniform", lambda draws, shape: draws[0] if len(draws) == 2 else draws)

    @jax.jit
    def randaugment(shared, rounds, strength):
        strengths = arrays(Strengths(randaugment_probability=1.0, randaugment_operations=2.0, wide_ranges=0.5))
        strengths = dataclasses.replace(strengths, randaugment_magnitude=strength)
        return unpack(automatic.automatic(pack(images), (shared, rounds), strengths))

    for index, strength in enumerate(VECTORS["pair_strengths"]):
        operations, signs = (VECTORS[f"pair_{name}"][index] for name in ("operations", "signs"))
        # As they are drawn: what rounds have in common is whether there are any, and the ranges.
        shared = np.stack([np.zeros(len(images)), 0.75 - 0.5 * ranges[index], np.zeros(len(images))])
        rounds = np.stack([0 * signs, 0 * signs, (operations + 0.5) / 14, 0.75 - 0.5 * signs], axis=1)
        found = randaugment(*map(np.float32, (shared, rounds, strength)))
        wrong = (found != VECTORS["pair_results"][index]).any(axis=(1, 2, 3))
        assert not wrong.any(), [[automatic.OPERATIONS[place] for place in pair] for pair in operations[:, wrong].T]


def recorded(monkeypatch, strengths, batch=20_000):
    """What `automatic` asks `operate` for, [rounds, 4, B]: operation, strength, negative and wide of each image."""
    rounds = []

    def note(pixels, *choice):
        jax.debug.callback(lambda *columns: rounds.append(np.stack(columns)), *choice, ordered=True)
        return pixels

    monkeypatch.setattr(automatic, "operate", note)
    jax.block_until_ready(automatic.automatic(np.zeros((batch, 1, 1), np.uint32), jax.random.key(3), arrays(strengths)))
    jax.effects_barrier()
    return np.array(rounds).astype(int)


def arrays(strengths):
    return jax.tree.map(np.float32, strengths)


def test_trivialaugment_draws_every_operation_strength_sign_and_ranges_alike(monkeypatch):
    (drawn,) = recorded(monkeypatch, Strengths(trivial_probability=1.0, wide_ranges=0.25))
    for column, shares in zip(drawn, (14 * [1 / 14], 31 * [1 / 31], [0.5, 0.5], [0.75, 0.25]), strict=True):
        np.testing.assert_allclose(np.bincount(column) / column.size, shares, atol=0.013)  # four standard deviations
    assert np.abs(np.corrcoef(drawn) - np.eye(4)).max() < 0.03
    assert len(np.unique(drawn[:2], axis=1).T) == 14 * 31


def test_randaugment_does_its_number_of_operations_at_its_magnitude(monkeypatch):
    strengths = Strengths(randaugment_probability=0.5, randaugment_operations=1.5, randaugment_magnitude=14.0)
    first, second = recorded(monkeypatch, strengths)
    assert set(first[1]) == set(second[1]) == {14}
    touched = [(drawn[0] > 0).mean() for drawn in (first, second)]
    np.testing.assert_allclose(touched, [0.5 * 13 / 14, 0.25 * 13 / 14], atol=0.015)
    assert not ((first[0] == 0) & (second[0] > 0)).mean() > 0.25 / 14 + 0.01  # the second follows a first
    np.testing.assert_allclose(np.bincount(first[0])[1:] / first[0].size, 0.5 / 14, atol=0.01)
    assert abs(np.corrcoef(first[0][second[0] > 0], second[0][second[0] > 0])[0, 1]) < 0.06


def test_rounds_are_those_asked_for(monkeypatch):
    both = Strengths(
        trivial_probability=0.3, randaugment_probability=1.0, randaugment_operations=2.0, randaugment_magnitude=9.0
    )
    assert len(recorded(monkeypatch, Strengths())) == 0
    assert len(recorded(monkeypatch, Strengths(randaugment_operations=3.0, randaugment_magnitude=30.0))) == 0
    trivial, first, second = recorded(monkeypatch, both)
    assert abs((trivial[0] > 0).mean() - 0.3 * 13 / 14) < 0.015
    assert len(set(trivial[1])) == 31
    assert set(first[1]) == set(second[1]) == {9}
    assert abs((second[0] > 0).mean() - 13 / 14) < 0.01
