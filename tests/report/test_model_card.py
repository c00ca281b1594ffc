"""What the card of a published model says of runs: figures of these weights, and nothing of the disks that they lay on."""

import dataclasses

import pytest

from tests import sample_runs
from wrn_jax.report import model_card, runs

CURVE = [0.1, 0.2, 0.3, 0.4, 0.5]
HERE = "/home/somebody"


def loaded(directory, curves):
    """Seeds of one recipe, the first of which is published, and their group."""
    made = [runs.load(str(sample_runs.write(directory / f"a-seed{seed}", curve, seed))) for seed, curve in enumerate(curves)]
    (group,) = runs.group(made)
    return made[0], group


@pytest.mark.parametrize(("curves", "rows", "notes"), [
    ([CURVE, CURVE], ["best epoch, chosen on the test images | 5, 5 | 50.00% | 2", "last epoch | 5, 5 | 50.00% | 2"], []),
    ([CURVE, CURVE, [0.1, 0.9]], ["last epoch | 5, 5 | 50.00% | 2"], ["Not finished: a-seed2 (epoch 2 of 5); they count"]),
    ([[0.1, 0.9], CURVE], ["these weights | epoch 2 | 90.00%", "best epoch of the other runs, chosen on the test images | 5 |",
                           "last epoch of the other runs | 5 | 50.00% | 1"],
     ["In this run the best is epoch 2 with 90.00%", "Not finished: a-seed0 (epoch 2 of 5); they count in no mean."]),
    ([[0.1, 0.9], [0.1, 0.2, 0.3]], ["last epoch | 2, 2 | 55.00% | 2"],
     ["a-seed0 (epoch 2 of 5) and a-seed1 (epoch 3 of 5); none is, so all are taken as they were after epoch 2."]),
])  # fmt: skip
def test_runs_that_are_not_finished_are_told_and_stand_for_no_other(tmp_path, curves, rows, notes):
    run, group = loaded(tmp_path, curves)
    (text,) = model_card._accuracy(run, group, run.best, None)
    for part in (*(f"| {row}" for row in rows), *notes):
        assert part in text, part
    assert ("Not finished" in text, "other runs" in text) == (len(notes) > 0, len(notes) > 1 and "no mean" in notes[1])


@pytest.mark.parametrize(("words", "shown"), [
    (f"{HERE}/bin/train.py --config {HERE}/mine.py --workdir={HERE}/a", "python -m wrn_jax.train --config mine.py"),
    (f"train.py --config=../of/me/mine.py --workdir '{HERE}/my runs/a'", "python -m wrn_jax.train --config mine.py"),
    (f"train.py --config session04 --branch-from {HERE}/b --checkpoint 3 --config.seed=1",
     "python -m wrn_jax.train --config session04 --config.seed=1"),
    (f"train.py --config session04 '--init-from={HERE}/b c' --network raw", "python -m wrn_jax.train --config session04"),
    *[(f"train.py --config.data.{key}{sign}{HERE}/x --config.seed 1", "python -m wrn_jax.train --config.seed 1")
      for key in ("directory", "archive", "cache") for sign in " ="],
    (f"{HERE}/ipykernel_launcher.py -f {HERE}/kernel.json", "ipykernel_launcher.py -f kernel.json"),
    (f"train.py --workdir '{HERE}", "not recorded"),
    ("train.py --workdir", "python -m wrn_jax.train"),
])  # fmt: skip
def test_the_command_is_without_places(tmp_path, words, shown):
    run, _ = loaded(tmp_path, [CURVE])
    run = dataclasses.replace(run, headers=(dataclasses.replace(run.headers[0], command=words),))
    assert model_card._command(run) == shown


def test_what_the_weights_began_with_is_told(tmp_path):
    facts = {"config_digest": "", "mean": 0, "std": 1, "run": {"data": {"validation_size": 0}}}
    path = sample_runs.write(tmp_path / "a", CURVE)
    assert "beginning" not in model_card._making(runs.load(str(path)), facts)[0]
    sample_runs.begin(path, kind="weights", source=f"{HERE}/big", checkpoint="best", step=20, epoch=5)
    (text,) = model_card._making(runs.load(str(path)), facts)
    assert "| beginning | began with the weights of big after update 20 (epoch 5) |" in text
