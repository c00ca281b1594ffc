"""The files of a run: what a crash leaves, what a resumed run keeps, and the pictures."""

import contextlib
import dataclasses
import json
import re
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event as EventMessage
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

from tests.sample_runs import HEADER
from wrn_jax.config import LEVELS
from wrn_jax.config.timeline import Event
from wrn_jax.planning import plot
from wrn_jax.runtime import environment, files
from wrn_jax.training import curves
from wrn_jax.training.records import EpochRow, read_headers, read_rows
from wrn_jax.training.run_log import RunLog

ROW = EpochRow(
    epoch=1,
    step=10,
    moving={"learning_rate": 0.1, "dropout": 0.3, "mixup_alpha": 0.2, "label_smoothing": 0.1, "augmentation": "full"},
    train_loss=4.0,
    train_accuracy=0.1,
    test_loss=3.9,
    test_accuracy=0.12,
)


def rows(count):
    return [dataclasses.replace(ROW, epoch=n, step=10 * n, test_accuracy=0.1 * n) for n in range(1, count + 1)]


def make_log(workdir, done=(), transitions=(), active=True, **more):
    return RunLog(workdir, HEADER, done, transitions, lambda: None, active, **more)


def transition(step):
    return Event(step, epoch=step // 10 + 1, name="dropout", before="0.3", after="0.2")


def test_a_resumed_log_keeps_what_the_checkpoint_knows(tmp_path):
    with make_log(tmp_path) as log:
        for row in rows(3):
            log.epoch(row)
            assert log.write() is None
    with open(tmp_path / "header.jsonl", "a") as file:
        file.write('{"time": "2026')  # a crash in the middle of a line
    with make_log(tmp_path, done=rows(2)) as again:
        again.epoch(rows(3)[2])
        assert read_rows(tmp_path / "metrics.jsonl") == rows(2)
        again.write()
    assert read_rows(tmp_path / "metrics.jsonl") == rows(3)
    assert read_headers(tmp_path / "header.jsonl") == [HEADER, HEADER]


def test_other_processes_write_nothing(tmp_path):
    with make_log(tmp_path, active=False) as log:
        log.epoch(ROW)
        log.transition(transition(10))
        log.write()
    assert log.rows == [ROW]
    assert list(tmp_path.iterdir()) == []


def test_rows_that_cannot_be_written_are_written_once_they_can(tmp_path):
    with make_log(tmp_path) as log:
        (tmp_path / "metrics.jsonl.tmp").mkdir()
        for row in rows(2):
            log.epoch(row)
            assert log.write() == f"{tmp_path / 'metrics.jsonl.tmp'}: could not be written (Is a directory)"
        (tmp_path / "metrics.jsonl.tmp").rmdir()
        assert log.write() is None
    assert read_rows(tmp_path / "metrics.jsonl") == rows(2)


def read_events(workdir):
    """All events there, in the order of files and within them."""
    for path in sorted((workdir / "tensorboard").glob("events.*")):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            yield EventMessage.FromString(data[12 : 12 + length])
            data = data[16 + length :]


def events(workdir):
    """{tag: [(step, value), ...]} of all events there."""
    found = {}
    for event in read_events(workdir):
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def test_tensorboard_has_each_figure_once_however_often_a_run_began(tmp_path):
    with make_log(tmp_path) as log:
        log.epoch(ROW)
        log.transition(transition(10))
    with make_log(tmp_path) as log:  # killed before the first checkpoint: all of it happens again
        log.epoch(ROW)
        log.transition(transition(10))
        log.transition(transition(15))
        log.epoch(rows(2)[1])
    with make_log(tmp_path, done=rows(1), transitions=[transition(10)]) as log:  # from a checkpoint of step 12
        log.transition(transition(15))
        log.epoch(rows(2)[1])
    found = events(tmp_path)
    assert found["test/accuracy"] == [(10, pytest.approx(0.1)), (20, pytest.approx(0.2))]
    assert [step for step, _ in found["run/learning_rate"]] == [10, 20]
    assert [step for step, _ in found["transitions/dropout/text_summary"]] == [10, 15]
    assert "valid/accuracy" not in found


def test_tensorboard_that_cannot_be_written_is_told_once_and_written_when_it_can(tmp_path, capsys):
    (tmp_path / "tensorboard").write_text("")
    with make_log(tmp_path) as log:
        for row in rows(30):  # more than a queue would hold
            log.epoch(row)
        assert log.write() is None
        (line,) = capsys.readouterr().out.splitlines()
        assert line == f"{tmp_path / 'tensorboard'}: could not be written (File exists); going on without it, and trying again"
        (tmp_path / "tensorboard").unlink()
        log.epoch(dataclasses.replace(ROW, epoch=31, step=310))
    assert [step for step, _ in events(tmp_path)["test/loss"]] == list(range(10, 320, 10))


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "config.json"
    files.write_atomically(path, "one")
    files.write_atomically(path, "two")
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"]
    assert path.read_text() == "two"


ODD = "$\\foo$ 🚀 实验"
"""A title that is no formula, with characters that the font lacks."""


@pytest.mark.parametrize("held_out", [False, True])
def test_curves_are_drawn(tmp_path, held_out):
    drawn = rows(5)
    if held_out:
        drawn = [dataclasses.replace(row, valid_loss=3.8, valid_accuracy=0.1) for row in drawn]
    values = {name: np.linspace(0.3, 0, 50, dtype=np.float32) for name in ("learning_rate", "dropout", "mixup_alpha")}
    edges = np.arange(51) / 10
    curves.draw_curves(tmp_path / "curves.png", drawn, [(2.0, "dropout: 0.2"), (2.0, "mixup: 0")], values, edges, ODD)
    with Image.open(tmp_path / "curves.png") as picture:
        colors = {color for _, color in picture.convert("RGB").getcolors(2**24)}
    assert ((44, 160, 44) in colors) == held_out  # the line of the hold-out
    assert (255, 127, 14) in colors  # the line of the test set
    assert [path.name for path in tmp_path.glob("curves*")] == ["curves.png"]


def make_recipe(first, levels):
    values = {name: np.linspace(first, 0, 50, dtype=np.float32) for name in ("learning_rate", "dropout")}
    values["augmentation"] = np.repeat(np.arange(len(levels), dtype=np.int32), 50 // len(levels))
    strengths = {name: LEVELS.get(name, LEVELS["off"]) for name in levels}
    return SimpleNamespace(values=values, level_names=levels, levels=strengths, edges=np.arange(51) / 10, shown=tuple(values))


BLUE, ORANGE = (31, 119, 180), (255, 127, 14)


def test_recipe_is_drawn(tmp_path):
    plot.draw_recipe(tmp_path / "plan.png", {"one": make_recipe(0.3, ("full", "minimal"))}, ODD)
    with Image.open(tmp_path / "plan.png") as picture:
        assert min(picture.size) > 400
        colors = {color for _, color in picture.convert("RGB").getcolors(2**24)}
    assert BLUE in colors
    assert ORANGE not in colors


def test_what_rests_has_no_panel_but_is_named_and_stronger_levels_stand_higher(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, *args, **options: drawn.append(figure))
    falling, resting, other = (make_recipe(0.3, ("full", "minimal")) for _ in range(3))
    resting.values = resting.values | {"dropout": np.full(50, 0.2, np.float32), "augmentation": np.zeros(50, np.int32)}
    other.values = resting.values | {"dropout": np.zeros(50, np.float32)}
    for recipes in ({"one": falling}, {"one": resting}, {"A": resting, "B": other}):
        plot.draw_recipe(tmp_path / "plan.png", recipes, "")
    panels = [{axis.get_ylabel(): axis for axis in figure.axes} for figure in drawn]
    assert [list(axes) for axes in panels] == [
        ["learning rate", "dropout", "augmentation"], ["learning rate"], ["learning rate", "dropout"],
    ]  # fmt: skip
    texts = [figure.axes[-1].get_xlabel().split("\n")[-1] for figure in drawn]
    assert texts == [
        "epoch (at its beginning)",
        "does not move: dropout 0.2, augmentation full",
        "does not move: augmentation full",
    ]
    levels = panels[0]["augmentation"]
    assert [label.get_text() for label in levels.get_yticklabels()] == ["minimal", "full"]
    assert levels.get_lines()[0].get_ydata()[0] == 1
    assert [label.get_text() for label in panels[2]["dropout"].get_yticklabels()] == ["0", "0.2"]


@pytest.mark.parametrize("dense", ["A", "B"])
def test_two_recipes_are_drawn_over_each_other_and_dense_restarts_hide_nothing(tmp_path, dense):
    recipes = {"A": make_recipe(0.1, ("full", "minimal")), "B": make_recipe(0.1, ("minimal", "mine"))}
    other = recipes["AB"[dense == "A"]]
    for recipe in recipes.values():
        recipe.values["learning_rate"] = np.tile(np.float32([0.1, 0]), 10_000)
        recipe.edges = np.arange(20_001) / 10
        recipe.values["dropout"] = np.linspace(0.1, 0, 20_000, dtype=np.float32)
        recipe.values["augmentation"] = np.zeros(20_000, np.int32)
    other.values["learning_rate"] = np.linspace(0.1, 0, 20_000, dtype=np.float32)
    plot.draw_recipe(tmp_path / "plan.png", recipes, "")
    with Image.open(tmp_path / "plan.png") as picture:
        everything = np.asarray(picture.convert("RGB"))
    pixels, bottom = everything[60:500, 150:-50], everything[580:720, 150:-50]
    line = BLUE if other is recipes["A"] else ORANGE
    found = (pixels == np.array(line)).all(-1).any(0)
    assert found.mean() > (0.9 if line == BLUE else 0.5)  # B is dashed
    blue, orange = ((bottom == np.array(color)).all(-1).any(1) for color in (BLUE, ORANGE))
    assert blue.any()
    assert orange.any()
    assert not (blue & orange).any()  # full and minimal, though both have the index 0


def test_hardware_and_versions_are_plain():
    found = json.loads(json.dumps({"hardware": environment.hardware(), "versions": environment.versions()}))
    assert found["hardware"]["devices"] == 8
    assert found["versions"]["jax"].count(".") >= 2


def test_a_hook_is_told_of_each_epoch_once_it_is_on_disk(tmp_path, capsys):
    calls, fails = [], [True, True, False, False, False]

    def hook(step, figures):
        if fails.pop(0):
            raise OSError("no network")
        assert read_rows(tmp_path / "metrics.jsonl")[-1].step >= step
        calls.append((step, figures["test/accuracy"], figures["run/learning_rate"]))

    with make_log(tmp_path, done=rows(1), hook=hook) as log:
        for row in rows(4)[1:]:
            log.epoch(row)
            assert log.write() is None
            assert log.write() is None
    assert calls == [(20, 0.2, 0.1), (30, pytest.approx(0.3), 0.1), (40, 0.4, 0.1)]  # not those of the start before
    assert capsys.readouterr().out.count("the logger failed (OSError: no network); going on without it") == 1


def test_tensorboard_has_the_hyperparameters_once(tmp_path):
    keys = {"seed": 1, "recipe.rate": [1, 2], "model.num_classes": None, "download": True}
    for _ in range(2):
        with make_log(tmp_path, hyperparameters=keys):
            pass
    plugins = [
        HParamsPluginData.FromString(value.metadata.plugin_data.content)
        for event in read_events(tmp_path)
        for value in event.summary.value
        if value.metadata.plugin_data.plugin_name == "hparams"
    ]
    experiment, start = plugins
    assert {info.name.tag for info in experiment.experiment.metric_infos} == {"test/accuracy", "test/loss"}
    assert set(start.session_start_info.hparams) == {"seed", "recipe.rate", "download"}
    assert start.session_start_info.hparams["recipe.rate"].string_value == "[1, 2]"


def test_the_lines_of_the_documentation_for_other_loggers():
    text = Path("docs/after-training.md").read_text().split("## Other loggers")[1]
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    calls, package = [], SimpleNamespace(train_model=lambda config, workdir, log: log(10, {"test/accuracy": 0.5}))

    def stand_in(name):
        return lambda *arguments, **named: calls.append((name, arguments, named))

    loggers = {
        "wandb": SimpleNamespace(init=stand_in("init"), log=stand_in("log")),
        "mlflow": SimpleNamespace(start_run=contextlib.nullcontext, log_metrics=stand_in("log_metrics")),
        "trackio": SimpleNamespace(import_tf_events=stand_in("import_tf_events")),
    }
    for block in blocks:
        exec(block, {"wrn_jax": package, "config": SimpleNamespace(to_dict=lambda: {"seed": 0})} | loggers)
    figures = ({"test/accuracy": 0.5},), {"step": 10}
    assert calls == [
        ("init", (), {"project": "wrn_jax", "config": {"seed": 0}}), ("log", *figures), ("log_metrics", *figures),
        ("import_tf_events", ("runs/first/tensorboard",), {"project": "wrn_jax"}),
    ]  # fmt: skip
