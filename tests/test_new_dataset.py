"""A data set that nobody thought of, of another shape and other classes, goes through the commands by its table entry."""

import dataclasses

import jax.export
import numpy as np
import pytest

from tests.small import CHANGES, metrics
from wrn_jax import evaluate, export, plan
from wrn_jax.config import datasets, load_file
from wrn_jax.data import loading
from wrn_jax.data.cifar import Split
from wrn_jax.training import loop

pytestmark = pytest.mark.slow

SHAPE, NAMES = (24, 16, 3), ("left", "middle", "right", "nowhere")


def draw(count, seed):
    rng = np.random.default_rng(seed)
    return Split(rng.integers(0, 256, (count, *SHAPE), np.uint8), np.arange(count, dtype=np.int32) % len(NAMES))


def test_trains_evaluates_plans_and_exports(tmp_path, monkeypatch, capsys):
    # It goes by the name of another, since the names that a configuration accepts are those of the table as it was imported.
    entry = dataclasses.replace(
        datasets.DATASETS["cifar10"], title="Places", image_shape=SHAPE, num_classes=len(NAMES), num_train=96, num_test=40
    )
    monkeypatch.setitem(datasets.DATASETS, entry.name, entry)
    monkeypatch.setattr(loading, "_read", lambda data: ({"train": draw(96, 0), "test": draw(40, 1)}, NAMES))
    changes = {"data.name": entry.name, "data.validation_size": 16, "recipe.scale": 0.02, "devices": 1}
    config = load_file("configs/session04.py").override(CHANGES | changes)
    workdir = tmp_path / "run"

    loop.train(config, workdir)
    rows = metrics(workdir)
    assert len(rows) == 2
    assert rows[-1]["step"] == 2 * 5  # 80 images in batches of 16
    assert np.isfinite(rows[-1]["train_loss"])

    capsys.readouterr()
    evaluate.evaluate(["--workdir", str(workdir)])
    plan.main(["--config", "configs/session04.py", *(f"--config.{key}={value}" for key, value in (CHANGES | changes).items())])
    export.main(["--workdir", str(workdir), "--out", str(tmp_path), "--formats", "stablehlo"])
    assert "[b, 24, 16, 3]" in capsys.readouterr().out
    program = jax.export.deserialize((tmp_path / "model.stablehlo").read_bytes())
    assert program.call(draw(3, 2).images).shape == (3, len(NAMES))
