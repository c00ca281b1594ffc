"""The plan: counts that can be checked by hand, and the files."""

import csv

import jax
import pytest

from wrn_jax import plan
from wrn_jax.config import Config, Model, load_file
from wrn_jax.errors import UserError
from wrn_jax.state import Network
from wrn_jax.timeline import Timeline


def by_hand(depth, width, classes):
    """Operations of the forward pass, from the shapes of the layers."""
    blocks, total = (depth - 4) // 6, 2 * 32 * 32 * 9 * 3 * 16
    channels = 16
    for group, size in enumerate((32, 16, 8)):
        out = 16 * width * 2**group
        for block in range(blocks):
            inward = channels if block == 0 else out
            total += 2 * size * size * 9 * (inward * out + out * out)
            if block == 0 and (inward != out or group > 0):
                total += 2 * size * size * inward * out
        channels = out
    return total + 2 * channels * classes


@pytest.mark.parametrize(("depth", "width", "classes"), [(28, 10, 100), (16, 4, 10), (10, 1, 100)])
def test_operations_are_those_of_the_layers(depth, width, classes):
    network = Network(Model(depth=depth, widen_factor=width), classes, "float32")
    assert plan.forward_operations(network) == by_hand(depth, width, classes)


def test_memory_of_the_state_is_parameters_momentum_and_statistics():
    config = Config()
    network = Network(config.model, 100, "float32")
    line = plan.cost_lines(config, network, Timeline(config.recipe, config.augmentation_levels, 196))[-1]
    statistics = sum(leaf.size for leaf in jax.tree.leaves(network.batch_stats))
    assert f"{4 * (2 * 36_536_884 + statistics) / 2**20:.1f} MiB" in line


def test_prints_the_transition_table_and_writes_the_files(tmp_path, capsys):
    table, picture = tmp_path / "plan.csv", tmp_path / "plan.png"
    plan.main(["--config", "configs/session04.py", "--csv", str(table), "--plot", str(picture)])
    output = capsys.readouterr().out
    for text in (
        "100 epochs of 196 steps: 19,600 updates",
        "36,536,884 parameters",
        "   81  15680  dropout          0.1",
    ):
        assert text in output
    assert picture.read_bytes().startswith(b"\x89PNG")
    with open(table) as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "epoch", "learning_rate_first", "learning_rate_last", "learning_rate_next", "dropout", "mixup_alpha",
        "label_smoothing", "augmentation",
    ]  # fmt: skip
    assert len(rows) == 100
    assert rows[0]["learning_rate_first"] == "0.01"
    assert [rows[70][key] for key in ("epoch", "dropout", "mixup_alpha", "label_smoothing", "augmentation")] == [
        "71", "0.2", "0.0", "0.05", "minimal",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["session02", "session04"])
def test_the_recipes_as_executed_have_the_logged_rates(name, tmp_path):
    """All hundred of each, to the printed digits; a log shows the rate that the step after the epoch would use."""
    table = tmp_path / "plan.csv"
    plan.main(["--config", f"configs/{name}_as_executed.py", "--csv", str(table)])
    with open(table) as file, open(f"wrn_jax/reference_logs/{name}.csv") as log:
        planned = [f"{float(row['learning_rate_next']):.6f}" for row in csv.DictReader(file)]
        logged = [f"{float(row['learning_rate_at_epoch_end']):.6f}" for row in csv.DictReader(log)]
    assert len(logged) == 100
    assert planned == logged


def test_says_how_a_recipe_was_scaled(capsys):
    plan.main(["--config", "configs/session04.py", "--config.recipe.scale=0.1"])
    output = capsys.readouterr().out
    assert "warm restarts 0.15 to 0.0005 every 2 epochs" in output  # as long as they are in this run
    assert "10 epochs of 196 steps: 1,960 updates; 100 epochs as written, scaled by 0.1" in output


def test_says_on_what_the_best_epoch_is_chosen(capsys):
    plan.main(["--config", "configs/session04.py"])
    assert "best epoch chosen on the test set (the published way, which flatters it)" in capsys.readouterr().out
    plan.main(["--config", "configs/quickstart.py"])
    assert "best epoch chosen on a hold-out of 1,000 training images" in capsys.readouterr().out


def test_counts_the_hold_out(capsys):
    plan.main(["--config", "configs/session04.py", "--config.data.validation_size=5000"])
    assert "45,000 training images" in capsys.readouterr().out


def test_sparklines_rise_and_fall():
    config = load_file("configs/session04.py")
    lines = plan.sparklines(Timeline(config.recipe, config.augmentation_levels, 7), width=10)
    assert lines[1].startswith("dropout         █████▅▅▅▃▃")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--config FILE is missing"),
        (["--config", "configs/session04.py", "--csv", "/nowhere/plan.csv"], r"/nowhere/plan\.csv: cannot be written"),
        (["--config", "configs/session04.py", "--config.data.validation_size=60000"], "validation_size"),
    ],
)
def test_a_mistake_is_one_line(arguments, message):
    with pytest.raises(UserError, match=message):
        plan.main(arguments)
