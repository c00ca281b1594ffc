"""The table of moving values: what is in it is known everywhere, and a new one needs nothing but its entry."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import wrn_jax
from wrn_jax.config import MOVING, Config

FIELD = """    ghost_alpha: Annotated[Phases, MovingValue("ghost alpha", high=5.0)] = Field(
        default_factory=lambda: {epoch(1): 0.0}
    )
"""
COMMANDS = """
import sys
from wrn_jax import compare, plan, train

recipe, workdir, out = sys.argv[1:]
plan.main([recipe])
train.main(["--config", recipe, "--workdir", workdir])
compare.main([workdir, "--out", out])
try:
    train.main(["--config", recipe, "--workdir", workdir + "2", "--config.recipe.ghost_alpha=6"])
except Exception as error:
    print(type(error).__name__, error)
"""


def test_the_table_is_what_recipe_annotates():
    recipe = [
        "learning_rate",
        "dropout",
        "mixup_alpha",
        "cutmix_probability",
        "cutmix_alpha",
        "label_smoothing",
        "augmentation",
    ]
    assert [value.key for value in MOVING.values()] == [
        *(f"recipe.{name}" for name in recipe), "optimizer.momentum", "optimizer.weight_decay", "optimizer.sam_rho",
        "optimizer.average_decay",
    ]  # fmt: skip
    assert [name for name, value in MOVING.items() if value.is_level] == ["augmentation"]
    assert all(value.name == name and value.label for name, value in MOVING.items())


@pytest.mark.slow
def test_a_new_value_needs_its_entry_alone(tmp_path):
    """It is checked, planned, recorded, plotted and compared without another line."""
    changes = {"model.depth": 10, "model.widen_factor": 1, "data.name": "embedded", "data.embedded_train": 200}
    changes |= {"data.embedded_test": 100, "data.validation_size": 0, "recipe.batch_size": 50, "recipe.epochs": 2, "devices": 1}
    config = Config().override(changes)
    tree = config.to_dict()
    tree["recipe"]["ghost_alpha"] = {"epoch 1": 1.0, "epoch 2": 0.5}
    (tmp_path / "new.py").write_text(f"from wrn_jax.config import from_dict\nconfig = from_dict({tree!r}, 'new')\n")
    package = shutil.copytree(Path(wrn_jax.__file__).parent, tmp_path / "changed" / "wrn_jax")
    source = (package / "config" / "moving.py").read_text()
    assert source.count("    checkpoint_epochs:") == 1
    (package / "config" / "moving.py").write_text(source.replace("    checkpoint_epochs:", FIELD + "    checkpoint_epochs:"))
    places = [str(tmp_path / name) for name in ("new.py", "run", "report")]
    environment = os.environ | {"PYTHONPATH": str(package.parent)}
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, *places], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    text = done.stdout
    assert "ghost_alpha: 1 -> 0.5" in text
    assert "ghost_alpha.epoch 1 = 6.0: should be between 0 and 5" in text
    rows = [json.loads(line) for line in Path(tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["ghost_alpha"] for row in rows] == [1.0, 0.5]
    report = next(Path(tmp_path / "report").glob("*.md")).read_text()
    assert "| ghost alpha | 1 -> 0.5 (epoch 2) |" in report
