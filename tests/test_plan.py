"""The plan: counts that can be checked by hand, and the files."""

import contextlib
import csv
import functools
import io
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from tests import sample_runs
from wrn_jax import command, plan
from wrn_jax.config import Config, Model, load_file
from wrn_jax.config.findings import FINDINGS
from wrn_jax.config.timeline import Timeline
from wrn_jax.models.network import Network
from wrn_jax.planning import cost, description, tables
from wrn_jax.runtime import devices
from wrn_jax.runtime.errors import UserError
from wrn_jax.training.setup import make_setup


@functools.cache
def output(*arguments):
    """What a plan prints, on lines that are no wider than a screen, paths apart."""
    with contextlib.redirect_stdout(io.StringIO()) as text:
        plan.main(arguments)
    assert all(len(line) <= 128 for line in text.getvalue().splitlines() if "/" not in line)
    return text.getvalue()


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
    assert cost.forward_operations(network, (32, 32, 3)) == by_hand(depth, width, classes)
    # A WRN-28-10 has 5.2 billion multiplications an image (Zagoruyko & Komodakis, 2016).
    assert by_hand(28, 10, 100) == pytest.approx(2 * 5.247e9, rel=1e-3)


def test_memory_of_the_state_is_parameters_momentum_and_statistics():
    setup = make_setup(Config(), devices.make_mesh(1))
    line = description.cost_lines(setup)[-1]
    statistics = sum(leaf.size for leaf in jax.tree.leaves(setup.network.batch_stats))
    assert f"{4 * (2 * 36_536_884 + statistics) / 2**20:.1f} MiB" in line


def test_a_recipe_with_sharpness_aware_steps_is_told_in_full():
    text = output("trivial_late_sam", "--config.optimizer.sam_every=2", "--config.optimizer.sam_group=32")
    for part in (
        "\noptimiser: SGD, Nesterov momentum 0.9, L2 0.0005 on all parameters, clip to norm 5\n",
        "    1      0  cutmix_alpha        1\n", "  176  61600  sam_rho             0.1\n",
        "SAM by 32 images, every 2 updates: 4,400 of 70,400 updates (6.2%) take two gradients",
    ):  # fmt: skip
        assert part in text


COSTS = {path.stem: re.findall(r"([\d.]+e\+\d+)\s+operations", path.read_text()) for path in Path("configs").glob("*.py")}
"""What the docstrings of recipes say that they cost."""


@pytest.mark.parametrize("name", [name for name, found in COSTS.items() if found])
def test_a_recipe_costs_what_its_docstring_says(name):
    config = load_file(name)
    assert COSTS[name] == [f"{cost.recipe_operations(config, Timeline.of(config)):.3g}"]


def test_recipes_with_published_parts_say_what_they_cost():
    assert all(COSTS[name] for name in ("base", "trivial", "trivial_late_sam", "sam", "small100"))


def test_an_update_of_the_last_epoch_is_in_that_epoch_of_both():
    last = Timeline.of(load_file("small30")).steps - 1
    text = output("small30", "small30", f'--config.recipe.dropout={{"epoch 1": 0.1, "step {last}": 0.2}}')
    assert "dropout 0.1, 0.2 (epoch 30.99);" in " ".join(text.split())


def rows_of(table):
    with open(table) as file:
        return list(csv.DictReader(file))


def test_prints_the_transition_table_and_writes_the_files(tmp_path):
    table, picture = tmp_path / "plan.csv", tmp_path / "plan.png"
    text = output("--config", "configs/session04.py", f"--csv={table}", f"--plot={picture}")
    for part in (
        "100 epochs of 196 steps: 19,600 updates", "36,536,884 parameters", "   81  15680  dropout          0.1",
        "best epoch chosen on the test set (the published way, which flatters it)",
        "findings: nothing to object to\n  silenced: best-on-test (the published runs of this recipe chose so)\nwrote ",
    ):  # fmt: skip
        assert part in text
    assert picture.read_bytes().startswith(b"\x89PNG")
    rows = rows_of(table)
    assert list(rows[0]) == [
        "epoch", "learning_rate_first", "learning_rate_last", "learning_rate_next", "dropout", "mixup_alpha",
        "cutmix_probability", "cutmix_alpha", "label_smoothing", "augmentation", "momentum", "weight_decay", "sam_rho",
        "average_decay",
    ]  # fmt: skip
    assert len(rows) == 100
    assert rows[0]["learning_rate_first"] == "0.01"
    assert [rows[70][key] for key in ("epoch", "dropout", "mixup_alpha", "label_smoothing", "augmentation")] == [
        "71", "0.2", "0.0", "0.05", "minimal",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["session02", "session04"])
def test_the_recipes_as_executed_have_the_logged_rates(name, tmp_path):
    """All hundred of each, to the printed digits; a log shows the rate that the step after the epoch would use."""
    text = output(f"configs/{name}_as_executed.py", f"--csv={tmp_path / 'plan.csv'}")
    logged = rows_of(f"wrn_jax/report/published_logs/{name}.csv")
    assert len(logged) == 100
    assert [f"{float(row['learning_rate_next']):.6f}" for row in rows_of(tmp_path / "plan.csv")] == [
        f"{float(row['learning_rate_at_epoch_end']):.6f}" for row in logged
    ]
    assert name == "session02" or "findings: 7\n  peak-not-reached       epoch 6 " in text


def test_changes_on_the_command_line():
    text = output("session04", "--config.recipe.epochs=90", "--config.silence.ends-high=a cut on purpose")
    assert "findings: 1\n  checkpoint-after-end" in text
    assert "  silenced: ends-high (a cut on purpose)" in text
    text = output("quickstart", "--config.recipe.batch_size=64")
    assert "batch 64, as written 16, and the same rate" in text
    assert "best epoch chosen on a hold-out of 1,000 training images" in text
    text = output("session04", "--config.recipe.scale=0.1", "--config.data.validation_size=5000")
    assert "45,000 training images" in text
    assert "warm restarts 0.15 to 0.0005 every 2 epochs" in text  # as long as they are in this run
    assert "10 epochs of 176 steps: 1,760 updates; 100 epochs as written, scaled by 0.1" in text


@pytest.fixture
def miniature(tmp_path):
    """A file of session 04 in a tenth of the epochs, with another batch size and all else as it is."""
    changes = {"recipe.scale": 0.1, "recipe.batch_size": 64, "data.name": "embedded", "data.embedded_train": 8000}
    path = tmp_path / "miniature.py"
    path.write_text(f"from wrn_jax.config import load_file\nconfig = load_file('session04').override({changes})\n")
    return path


def test_strict_is_content_with_what_is_silenced_and_without_it_findings_are_no_failure():
    plan.main(["configs/session04.py", "configs/session02.py", "--strict"])
    assert command.run(lambda: plan.main(["configs/session02_as_executed.py"]), "plan") == 0


@pytest.mark.parametrize("files", [["configs/session02_as_executed.py"], ["configs/session04.py", "smaller batch"]])
def test_strict_exits_with_1_after_all_is_written(files, tmp_path, miniature):
    files = [str(miniature) if name == "smaller batch" else name for name in files]
    table = tmp_path / "plan.csv"
    with pytest.raises(SystemExit) as stop:
        command.run(lambda: plan.main([*files, "--strict", "--csv", str(table)]), "plan")
    assert stop.value.code == 1
    assert table.exists()


class TestTwo:
    def test_differences_come_first_then_findings_then_what_is_shared(self):
        lines = output("session02", "session04").splitlines()
        different = lines.index("different                 A: session02                             B: session04")
        kept = "10, 20, 25, 30, 40, 50, 60, 75, 90, 100  10, 20, 30, 40, 50, 60, 70, 80, 90, 100"
        assert lines[different + 2 : different + 4] == [f"recipe.checkpoint_epochs  {kept}", ""]  # no other key differs
        heads = ["learning_rate", "dropout", "mixup_alpha", "label_smoothing", "augmentation"]
        heads = [lines.index(head) for head in heads]
        values = next(i for i, line in enumerate(lines) if line.startswith("different values"))
        found = [lines.index(f"{name}: findings: nothing to object to") for name in ("A: session02", "B: session04")]
        shared = next(i for i, line in enumerate(lines) if line.startswith("in both: "))
        order = [different, *heads, values, *found, shared]
        assert order == sorted(order)
        assert lines[values + 2 :][:10] == [
            "learning_rate     1-5     0.01 to 0.0999, mean 0.055  0.01 to 0.15, mean 0.0799",
            "                  6-60    0.0001 to 0.1, mean 0.0527  0.0005 to 0.15, mean 0.0692",
            "                  61-100  0.0001 to 0.1, mean 0.0406  1e-05 to 0.15, mean 0.075",
            "dropout           51-80   0.3                         0.2",
            "                  81-100  0.3                         0.1",
            "mixup_alpha       41-70   0.2                         0.15",
            "                  71-100  0.2                         0",
            "label_smoothing   51-100  0.1                         0.05",
            "augmentation      41-70   full                        reduced",
            "                  71-100  full                        minimal",
        ]
        assert "network WideResNet-28-10" in lines[shared]
        assert "silence" not in " ".join(lines[shared:])
        rates = [line for line in lines[heads[0] : heads[1]] if line.startswith(("A  ", "B  "))]
        assert rates[0].startswith("A  ▁▂▄▅▅▄▄▄▃▃▂▂▂▁▁▁▁▁▁▁▅▅▅▅▅")  # up to two thirds of B's peak, on one scale
        assert [line[-9:] for line in rates] == ["0 to 0.15", "0 to 0.15"]

    def test_phases_stand_side_by_side(self):
        lines = output("session04", "session04_as_executed").splitlines()
        first = lines.index("learning_rate") + 3
        assert [" ".join(line.split()) for line in lines[first : first + 7]] == [
            "1 linear 0.01 to 0.15 over 5 epochs 1 0.01",
            "1.005 linear 0.01 to 0.15 over 5 epochs",
            "6 warm restarts 0.15 to 0.0005 every 20 epochs since epoch",
            "1",
            "6.005 warm restarts 0.01 to 0.0005 every 20 steps since epoch",
            "6",
            "61 cosine 0.15 to 1e-05 over 40 epochs 61 cosine 0.01 to 1e-05 over 40 steps, up and down again",
        ]
        assert "dropout" not in lines  # the same in both
        text = " ".join(" ".join(lines).split())
        assert "dropout 0.3, 0.2 (epoch 51), 0.1 (epoch 81);" in text
        assert "augmentation_levels.full.holes_probability 0.0 0.5" in text
        assert "early_stopping_patience none 15" in text
        assert "B: session04_as_executed: findings: 7" in text

    def test_a_ramp_is_compared_by_the_share_of_its_way(self, tmp_path):
        path = tmp_path / "ramp.py"
        phases = '{"epoch 1": "full", "epoch 41": Ramp("full", "minimal", epochs(30)), "epoch 71": "minimal"}'
        path.write_text(
            "from wrn_jax.config import *\n"
            f"config = load_file('session04').override({{'recipe.augmentation': {phases}, 'data.validation_size': 5000}})\n"
        )
        lines = [" ".join(line.split()) for line in output("session04", str(path)).splitlines()]
        place = next(i for i, line in enumerate(lines) if line.startswith("different values"))
        assert lines[place + 2] == "augmentation 41-70 reduced full to minimal, 0 to 100 %"
        assert "41 reduced 41 ramp full to minimal over 30 epochs" in lines

    def test_runs_of_other_lengths_are_compared_by_the_share_that_is_done(self, miniature):
        text = output("session04", str(miniature))
        assert "different values: none, where both runs have come equally far" in text
        assert ["51", "0.2", "6", "0.2"] in [line.split() for line in text.splitlines()]
        assert "batch 64, A has 256, and the same rate" in text
        lines = [line.split() for line in output("session02", str(miniature)).splitlines()]
        assert ["dropout", "50-80", "0.3", "0.2"] in lines
        assert ["80-100", "0.3", "0.1"] in lines
        assert ["augmentation", "40-70", "full", "reduced"] in lines

    def test_changes_on_the_command_line_act_on_both(self):
        text = output("session02", "session04", "--config.recipe.epochs=50", "--config.recipe.dropout=0.1")
        assert text.count("50 epochs of 196 steps: 9,800 updates") == 2
        assert "; dropout 0.1; " in " ".join(text.split())

    def test_the_same_twice(self):
        assert "different: no key\n\nA: session02: findings" in output("session02", "--config", "session02")

    def test_a_level_that_one_has_alone(self, tmp_path):
        mine = tmp_path / "mine.py"
        mine.write_text(
            "from wrn_jax.config import *\n"
            "config = Config(augmentation_levels={'mine': Strengths(rotate=5.0, affine_probability=0.5)},"
            " recipe=Recipe(augmentation='mine'))"
        )
        text = output(str(mine), "session02")
        lines = [line.split() for line in text.splitlines()]
        assert ["augmentation_levels.mine.rotate", "5.0", "-"] in lines
        assert ["augmentation", "1-100", "mine", "full"] in lines

    def test_files_hold_both(self, tmp_path):
        table, picture = tmp_path / "plan.csv", tmp_path / "plan.png"
        output("session04", "quickstart", f"--csv={table}", f"--plot={picture}")
        rows = rows_of(table)
        assert (list(rows[0])[:3], len(rows)) == (["epoch", "learning_rate_first_a", "learning_rate_first_b"], 100)
        assert (rows[9]["augmentation_a"], rows[9]["augmentation_b"]) == ("full", "minimal")
        assert (rows[10]["dropout_a"], rows[10]["dropout_b"]) == ("0.3", "")
        assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_run_is_drawn_below_its_recipe(tmp_path):
    run = sample_runs.write(tmp_path / "run", [0.2, 0.4, 0.5])
    (tmp_path / "recipe.py").write_text(
        f"from wrn_jax.config import from_dict\nconfig = from_dict({sample_runs.config().to_dict()!r}, 'recipe')\n"
    )
    sizes = []
    for options in ([], [f"--run={run}"]):
        output(str(tmp_path / "recipe.py"), f"--plot={tmp_path / 'plan.png'}", *options)
        sizes.append(int.from_bytes((tmp_path / "plan.png").read_bytes()[20:24]))  # the height, in a PNG's header
    assert sizes == [990, 1320]


def test_refuses_a_run_that_says_nothing_of_the_recipe(tmp_path):
    run = sample_runs.write(tmp_path / "run", [])
    plot = f"--plot={tmp_path / 'plan.png'}"
    same = ["--config.recipe.scale=0.05", "--config.recipe.batch_size=100"]
    for arguments, message in (
        (["session04", f"--run={run}"], "--run draws below the --plot of one configuration file"),
        (["session04", plot, f"--run={run}"], "is of another recipe"),
        (["session04", *same, "--config.optimizer.weight_decay=0.5", plot, f"--run={run}"], "is of another recipe"),
        (["session04", *same, plot, f"--run={run}"], "has no finished epoch"),
    ):
        with pytest.raises(UserError, match=message):
            plan.main(arguments)
    assert not (tmp_path / "plan.png").exists()


def test_wide_cells_are_wrapped():
    lines = tables.table([("key", "a", "b"), ("x", "word " * 40, "short"), ("y-z", "-", "word " * 20)])
    assert max(map(len, lines)) <= 128
    assert lines[2].startswith("x    word word")
    assert lines[3].startswith("     word word")
    lines = tables.table([("key", "a", "b"), ("x", "found: " + "best-on-test " * 20, "")])
    assert {word for line in lines[2:] for word in line.split()} == {"x", "found:", "best-on-test"}


def test_help_explains_the_findings(capsys):
    with pytest.raises(SystemExit):
        plan.main(["--help"])
    text = capsys.readouterr().out
    assert [name for name in FINDINGS if f"\n  {name}  " not in text] == []


def sparklines(name, steps_per_epoch, **options):
    config = load_file(name)
    return description.sparklines(Timeline(config, steps_per_epoch), **options)


def test_bars_rise_and_fall_and_a_small_value_has_one_but_nothing_has_none():
    assert sparklines("session04", 7, width=10)[1].startswith("dropout         █████▅▅▅▃▃  0 to 0.3")
    assert description.bars(np.float32([1, 0.5, 0.05, 1e-6, 0]), width=5) == "█▄▁▁   0 to 1"
    assert description.bars(np.float32([1, 1]), width=5, top=2.0) == "▄▄  0 to 2"
    assert sparklines("session02_as_executed", 196)[0].endswith("▂▃▅▇" + 76 * "▁" + "  0 to 0.09991")


@pytest.mark.parametrize(("arguments", "message"), [
    ([], "--config FILE is missing"),
    (3 * ["configs/session04.py"], "3 configuration files: expected one, or two to be shown side by side"),
    (["configs/session04.py", "configs/nowhere.py"], r"configs/nowhere\.py: no such configuration file"),
    (["--config", "configs/session04.py", "--csv", "/nowhere/plan.csv"], r"/nowhere/plan\.csv: cannot be written"),
    (["--config", "configs/session04.py", "--config.data.validation_size=60000"], "validation_size"),
])  # fmt: skip
def test_a_mistake_is_one_line(arguments, message):
    with pytest.raises(UserError, match=message):
        plan.main(arguments)
