"""Reading runs, logs and CSVs, what is refused, and the grouping into recipes."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from tests import sample_runs
from wrn_jax.report import build, published_runs, runs
from wrn_jax.report.other_runs import Reading
from wrn_jax.runtime.errors import UserError
from wrn_jax.training.records import Origin

CURVE = [0.1, 0.2, 0.3, 0.5, 0.4]


def test_a_directory_is_read(tmp_path):
    path = sample_runs.write(tmp_path / "a-seed1", CURVE, seed=1, checkpoints=(4, 10, 20))
    (path / "checkpoints" / "24.orbax-checkpoint-tmp").mkdir()
    run = runs.load(str(path))
    assert (run.name, run.seed, run.judge, run.finished, run.log) == ("a-seed1", 1, "test", True, None)
    assert (run.best.epoch, run.top.epoch, run.last.epoch) == (4, 4, 5)
    assert (run.timeline.epochs, run.timeline.steps_per_epoch) == (5, 4)
    assert run.kept == (runs.Kept("4", 1), runs.Kept("10", None), runs.Kept("20", 5))
    assert (run.headers[0].parameters, run.evaluations) == (83700, ())
    keys = runs.recipe_keys(run.config)  # without where and how safely
    assert "recipe.dropout.epoch 51" in keys
    assert not {"seed", "devices", "data.directory", "augmentation_levels.off.rotate"} & keys.keys()
    # The best epoch is the judge's, and the earliest.
    path = sample_runs.write(tmp_path / "a", CURVE, valid=[0.1, 0.3, 0.3, 0.2, 0.2], data__validation_size=100)
    run = runs.load(str(path))
    assert (run.judge, run.best.epoch, run.top.epoch) == ("valid", 2, 4)


@pytest.mark.parametrize(("patience", "finished"), [(None, False), (2, False), (1, True)])
def test_a_run_is_finished_at_its_end_or_by_its_patience(tmp_path, patience, finished):
    path = sample_runs.write(tmp_path / "a", [0.1, 0.3, 0.2], early_stopping_patience=patience)
    assert runs.load(str(path)).finished == finished


@pytest.mark.parametrize("name", published_runs.LOGS)
def test_a_published_log_is_a_run(name):
    run = runs.load(name)
    assert (run.log, run.seed, run.judge, run.finished) == (name, None, "test", True)
    assert run.rows == tuple(published_runs.rows(name))
    # What the log holds is the rate after the epoch, which the recipe as executed gives.
    planned = [row["learning_rate_next"] for row in run.timeline.table()]
    assert [f"{rate:.6f}" for rate in planned] == [f"{row.moving['learning_rate']:.6f}" for row in run.rows]


def test_a_path_goes_before_a_published_log(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "session02").mkdir()
    with pytest.raises(UserError, match="session02: holds no run"):
        runs.load("session02")


def test_csvs_are_runs_of_unknown_recipes_each_of_its_own(tmp_path):
    for name in "ab":
        shutil.copy("wrn_jax/report/published_logs/session04.csv", tmp_path / f"{name}.csv")
    run = runs.load(str(tmp_path / "a.csv"))
    assert (run.name, run.config, run.timeline, run.judge, run.finished) == ("a", None, None, "test", True)
    assert run.rows == tuple(published_runs.rows("session04"))
    groups = sample_runs.load("session02", tmp_path / "a.csv", tmp_path / "b.csv")
    assert [group.name for group in groups] == ["session02", "a", "b"]


def test_evaluations_are_read_with_their_predictions(tmp_path):
    path = sample_runs.write(tmp_path / "a", CURVE)
    sample_runs.evaluate(path, 5, sample_runs.right(200))
    sample_runs.evaluate(path, 4, sample_runs.right(100), step=17)  # within an epoch
    run = runs.load(str(path))
    (evaluation,) = run.evaluations
    assert (run.evaluation(5), run.evaluation(4)) == (evaluation, None)
    assert (evaluation.digest, evaluation.figures["splits"]["test"]["accuracy"]) == ("same", 0.5)
    np.testing.assert_array_equal(evaluation.correct, sample_runs.right(200))
    (path / "evaluations" / "step-20.npz").unlink()
    assert runs.load(str(path)).evaluation(5).correct is None


def swap(file, old, new, count=-1):
    """A function that replaces a text in a file of a folder."""

    def change(folder):
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new, count))

    return change


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda path: shutil.rmtree(path), "no such run; give a run's directory, a log as CSV, or session02 or session04"),
    (lambda path: (path / "config.json").unlink(), r"holds no run \(no readable config.json\)"),
    (lambda path: (path / "config.json").write_text("{"), "config.json: is not JSON"),
    (lambda path: (path / "config.json").write_text("[]"), "config.json: should be an object"),
    (lambda path: (path / "config.json").write_text('{"seeds": 1}'), "unknown key 'seeds'"),
    (lambda path: (path / "metrics.jsonl").unlink(), "metrics.jsonl: no epoch is finished yet"),
    (lambda path: (path / "metrics.jsonl").write_text("[]\n"), "row 1 should be of epoch 1"),
    (lambda path: (path / "metrics.jsonl").write_bytes(b"\xff\n"), "cannot be read: is not text"),
    (swap("metrics.jsonl", '"epoch": 1', '"epoch": 2'), "row 1 should be of epoch 1"),
    (swap("metrics.jsonl", '"test_loss"', '"loss"'), "epoch 1, test_loss: is missing"),
    (swap("metrics.jsonl", '": 0.5', '": 1.5'), "test_accuracy = 1.5"),
    (swap("metrics.jsonl", '"step": 20', '"step": 21'), "are not of one run"),
    (swap("config.json", '"scale": 0.05', '"scale": 0.03'), "not of one run"),
    (swap("metrics.jsonl", '"learning_rate": 0.1', '"learning_rate": "x"'), "learning_rate = 'x'"),
    (swap("metrics.jsonl", '"valid_accuracy": null', '"valid_accuracy": 0.5', 1), "should be there for all"),
    (swap("metrics.jsonl", '"test_loss": 3.8', '"test_loss": NaN'), "test_loss = nan"),
])  # fmt: skip
def test_rubbish_is_refused_in_one_line(tmp_path, spoil, message):
    path = sample_runs.write(tmp_path / "a", CURVE)
    spoil(path)
    with pytest.raises(UserError, match=message) as refused:
        runs.load(str(path))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("change", [
    lambda folder: (folder / "step-20.json").write_text("{"),
    lambda folder: (folder / "step-20.json").write_text('{"format": 1}'),
    swap("step-20.json", '"epoch": 5', '"epoch": "five"'),
    swap("step-20.json", '"format": 1', '"format": 2'),
    swap("step-20.json", '"epoch": 5', '"epoch": 500'),
    swap("step-20.json", '"accuracy": 0.5', '"accuracy": NaN'),
    swap("step-20.json", '"corruptions": null', '"corruptions": {"fog": 1}'),
    swap("step-20.json", '"corruptions": null', '"corruptions": {"fog": ["x"]}'),
    lambda folder: (folder / "step-20.npz").write_bytes(b"no archive"),
    lambda folder: (folder / "step-20.npz").write_bytes((folder / "step-20.npz").read_bytes()[:200]),
    lambda folder: np.savez(folder / "step-20.npz", test_predicted=np.zeros(3), test_labels=np.zeros(4), test_digest=""),
    lambda folder: np.savez(folder / "step-20.npz", test_predicted=np.zeros(3)),
    lambda folder: np.savez(folder / "step-20.npz", test_predicted=np.array([{}]), test_labels=0, test_digest=0),
])  # fmt: skip
def test_a_damaged_evaluation_is_named(tmp_path, change):
    path = sample_runs.write(tmp_path / "a", CURVE)
    sample_runs.evaluate(path, 5, sample_runs.right(200))
    change(path / "evaluations")
    with pytest.raises(
        UserError, match=r"step-20\.(json|npz): (is no evaluation|is of format 2|holds no readable|epoch = 500: the run has)"
    ):
        runs.load(str(path))


@pytest.mark.parametrize("text", ["", "one,two\n1,2\n", "epoch,train_accuracy\n1,2\n", "\0"])
def test_a_csv_that_is_no_log_is_refused(tmp_path, text):
    (tmp_path / "a.csv").write_text(text)
    reason = "no column is called a test accuracy|no column holds finite numbers|no epoch is finished"
    with pytest.raises(UserError, match=rf"a\.csv: ({reason})"):
        runs.load(str(tmp_path / "a.csv"))


HEADER = "epoch,train_accuracy,learning_rate_at_epoch_end,test_loss,test_accuracy\n"
LOG = HEADER + "1,4.5,0.1,4.5,4.25\n2,10.5,0.2,3.5,13.5\n"


@pytest.mark.parametrize(
    "content",
    [
        LOG.encode(),
        LOG.encode("utf-8-sig"),
        LOG.encode("utf-16"),
        LOG.replace("\n", "\r\n").encode(),
        LOG.replace(",", ", ").encode(),
        LOG.replace(",", ";").encode(),
        LOG.replace("\n1,", "\n1.0,").replace("4.25", "4.25%").encode(),
        LOG.replace("\n2,", "\n,,,,\n\n" + HEADER + "2,").encode(),
        (LOG + "3,20.5,0.3,3.").encode(),
        (LOG + "3,20.5,0.3,3.0,-").encode(),
    ],
)
def test_logs_as_people_have_them(tmp_path, content):
    (tmp_path / "a.csv").write_bytes(content)
    run = runs.load(str(tmp_path / "a.csv"))
    assert [(row.epoch, row.train_accuracy, row.test_accuracy, row.test_loss) for row in run.rows] == [
        (1, 0.045, 0.0425, 4.5), (2, 0.105, 0.135, 3.5),
    ]  # fmt: skip
    assert (run.rows[1].moving, run.notes) == ({"learning_rate": 0.2}, ())


def test_a_log_may_have_no_rate(tmp_path):
    (tmp_path / "a.csv").write_text(LOG.replace("0.1,", ","))
    assert [row.moving for row in runs.load(str(tmp_path / "a.csv")).rows] == [{}, {"learning_rate": 0.2}]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("10.5", "x", "a.csv: line 3, train_accuracy: 'x' is no number"),
        ("\n2,", "\n2.5,", "a.csv: line 3, epoch: '2.5' is no whole number"),
        (",4.25", "", "a.csv: line 2, test_accuracy: '' is no number"),
        ("4.5,4.25", "inf,4.25", "a.csv: line 2, test_loss: 'inf' is no number"),
        ("\n2,", "\n3,", "a.csv: row 2 should be of epoch 2"),
    ],
)
def test_a_wrong_line_of_a_log_is_named(tmp_path, old, new, message):
    (tmp_path / "a.csv").write_text(LOG.replace(old, new))
    with pytest.raises(UserError, match=message):
        runs.load(str(tmp_path / "a.csv"))


def test_accuracies_of_which_none_is_above_1_are_shares_and_it_is_said(tmp_path):
    (tmp_path / "a.csv").write_text(HEADER + "1,0.04,0.1,4.5,0.03\n2,0.5,0.2,3.5,0.57\n")
    run = runs.load(str(tmp_path / "a.csv"))
    assert [row.test_accuracy for row in run.rows] == [0.03, 0.57]
    groups = runs.group([run, runs.load("session02")])
    assert build.how_read(groups) == [
        f"{tmp_path / 'a.csv'}: made by another program; accuracies are read as fractions of 1, since none is above 1 and some "
        "are above 0.02.",
    ]
    assert build.how_read(runs.group([runs.load("session04"), runs.load("session02")])) == []


@pytest.mark.parametrize(
    ("lines", "unit", "found"),
    [
        ("1,0.9%,0.1,4.5,0.8%\n2,0.9%,0.1,4.4,0.95%\n", None, 0.0095),  # below 1 per cent
        ("1,0.9,0.1,4.5,0.8\n2,0.9,0.1,4.4,0.95\n", "percent", 0.0095),
        ("1,0.9,0.1,4.5,0.8\n2,0.9,0.1,4.4,0.95\n", "fraction", 0.95),
        ("1,0.9,0.1,4.5,0.8\n2,0.9,0.1,4.4,0.95\n", None, None),  # chance in per cent, or a good network
        ("1,0.6,0.1,4.5,60\n2,0.6,0.1,4.4,61\n", None, None),  # one in per cent, the other not
        ("1,60%,0.1,4.5,60%\n", "fraction", None),
    ],
)
def test_the_unit_of_a_log_is_told_or_asked_for(tmp_path, lines, unit, found):
    (tmp_path / "a.csv").write_text(HEADER + lines)
    if found is None:
        with pytest.raises(UserError, match=r"a\.csv: .*--unit"):
            runs.load(str(tmp_path / "a.csv"), Reading.of([], unit))
    else:
        run = runs.load(str(tmp_path / "a.csv"), Reading.of([], unit))
        assert run.rows[-1].test_accuracy == pytest.approx(found)


@pytest.mark.parametrize("source", ["", "\0", "/nowhere/at/all", "a" * 5000])
def test_what_is_no_path_is_refused(source):
    with pytest.raises(UserError):
        runs.load(source)


def test_seeds_of_a_recipe_are_grouped(tmp_path):
    for name, seed, changes in (
        ("a-seed0", 0, {}),
        ("b_seed0", 0, {"recipe__dropout": 0.1}),
        ("a-seed1", 1, {"devices": 8, "data__directory": "/elsewhere", "checkpoint_minutes": 3.0}),
        ("a-seed2", 2, {"augmentation_levels__off": {"rotate": 3.0}}),  # a level that it does not use
    ):
        sample_runs.write(tmp_path / name, CURVE, seed=seed, **changes)
    groups = sample_runs.load(*(tmp_path / name for name in ("a-seed0", "b_seed0", "a-seed1", "a-seed2")))
    names = {group.name: [run.name for run in group.runs] for group in groups}
    assert names == {"a": ["a-seed0", "a-seed1", "a-seed2"], "b": ["b_seed0"]}
    assert [group.name for group in runs.group(groups[0].runs + groups[1].runs, ["x", "y"])] == ["x", "y"]


@pytest.mark.parametrize(
    "changes", [{"model__depth": 16}, {"optimizer__weight_decay": 0.0}, {"augmentation_levels__full.rotate": 1.0}]
)
def test_what_changes_the_training_is_another_recipe(tmp_path, changes):
    places = sample_runs.write(tmp_path / "a", CURVE), sample_runs.write(tmp_path / "b", CURVE, seed=1, **changes)
    assert len(sample_runs.load(*places)) == 2


def test_runs_of_a_recipe_that_is_known_are_one_group_whatever_computed_them(tmp_path):
    first, second = (
        runs.load(str(sample_runs.write(tmp_path / f"seed{seed}", [0.1] * 5, seed, precision=precision)))
        for seed, precision in enumerate(("float32", "bfloat16"))
    )
    assert len(runs.group([first, second])) == 2
    (group,) = runs.group([first, second], ["one"], ["one", "one"])
    assert [run.seed for run in group.runs] == [0, 1]


BIG, BASE = ({"kind": "weights", "checkpoint": "best"}, {"kind": "branch", "checkpoint": "2", "step": 8, "epoch": 2})


@pytest.mark.parametrize(("origins", "number"), [
    ([None, BIG | {"source": "/runs/big", "step": 20, "epoch": 5}], 2),
    ([BIG | {"source": f"/runs/big-seed{seed}", "step": 16 + 4 * seed, "epoch": 4 + seed} for seed in range(2)], 1),
    ([BIG | {"source": f"/seed{seed}/a.safetensors"} for seed in range(2)], 1),
    ([BIG | {"source": f"/runs/{name}.safetensors"} for name in "ab"], 2),
    ([BIG | {"source": "/runs/big", "step": 20, "epoch": 5, "network": name} for name in ("raw", "average")], 2),
    ([None, BASE | {"source": "/runs/base", "agreed": 8}], 1),  # with the bits of a run from random weights
    ([None, BASE | {"source": "/runs/base", "agreed": 3}], 2),
    ([BASE | {"source": f"/runs/base-seed{seed}", "agreed": seed} for seed in range(2)], 1),
    ([BASE | {"source": "/runs/base", "agreed": 3}, BASE | {"source": "/runs/base", "agreed": 3, "step": 12}], 2),
])  # fmt: skip
def test_runs_that_began_otherwise_are_of_another_recipe(tmp_path, origins, number):
    made = [sample_runs.write(tmp_path / f"{name}-seed{seed}", CURVE, seed) for seed, name in enumerate("ab")]
    for path, origin in zip(made, origins, strict=True):
        if origin:
            sample_runs.begin(path, **origin)
    assert len(sample_runs.load(*made)) == number


def test_a_run_of_a_logs_recipe_is_not_one_of_its_seeds():
    log = sample_runs.published()[0].runs[0]
    run = runs.Run("mine", "mine", log.rows, log.config, log.timeline)
    assert len(runs.group([log, run])) == 2


def test_recipes_of_one_name_are_told_apart(tmp_path):
    places = [sample_runs.write(tmp_path / name / "run", CURVE, recipe__dropout=0.1 * (name == "y")) for name in "xy"]
    groups = sample_runs.load(*places)
    assert len({group.name for group in groups}) == len({group.runs[0].name for group in groups}) == 2


def test_runs_of_one_name_are_called_by_as_much_of_their_paths_as_tells_them_apart(tmp_path):
    places = [
        sample_runs.write(tmp_path / "x" / recipe / f"seed{seed}", [0.1] * 5, seed, recipe__dropout=dropout)
        for recipe, dropout in (("one", 0.1), ("two", 0.2)) for seed in range(2)
    ]  # fmt: skip
    groups = sample_runs.load(*places)
    names = {group.name: [run.name for run in group.runs] for group in groups}
    assert names == {"one": ["one/seed0", "one/seed1"], "two": ["two/seed0", "two/seed1"]}


def test_says_where_a_run_comes_from_and_what_was_changed(tmp_path):
    path = sample_runs.write(tmp_path / "a", CURVE)
    origin = Origin(kind="branch", source="/runs/old", checkpoint="2", step=8, epoch=2, agreed=3)
    later = dataclasses.replace(
        sample_runs.HEADER, first_step=12, origin=origin, changes=["early_stopping_patience was None, is 3"]
    )
    with open(path / "header.jsonl", "a") as file:
        file.write(json.dumps(later.to_dict()) + "\n")
    assert "origin" not in json.loads((path / "header.jsonl").read_text().splitlines()[0])  # as older versions read it
    run = runs.load(str(path))
    assert run.headers[1] == later
    assert run.notes == (
        "a: branched from /runs/old after update 8 (epoch 2), whose course is not that of this recipe alone from update 4 on",
        "a: from update 13 on: early_stopping_patience was None, is 3",
    )


def test_names_are_one_line_without_markup(tmp_path):
    places = [sample_runs.write(tmp_path / name, CURVE, recipe__dropout=0.1 * (name == "y")) for name in "xy"]
    loaded = [runs.load(str(place)) for place in places]
    assert [group.name for group in runs.group(loaded, ["a\n# H", "**b**\x1b"])] == ["a # H", "∗∗b∗∗\\x1b"]
    with pytest.raises(UserError, match="its own name"):
        runs.group(loaded, ["a b", "a\nb"])


def test_images_of_ones_own_are_told_apart_by_their_digests(tmp_path):
    own = {"data.name": "own", "data.class_names": ["a", "b"], "data.own_train": 400, "data.own_test": 400}
    made = []
    for seed, digest in enumerate(("1", "1", "2", None)):
        run = runs.load(str(sample_runs.write(tmp_path / f"seed{seed}", CURVE, seed)))
        header = dataclasses.replace(run.headers[0], data_digests={"test": digest} if digest else {})
        made.append(dataclasses.replace(run, config=run.config.override(own), headers=(header,)))
    same, again, other, unknown = made
    assert len(runs.group([same, again, unknown])) == 1
    with pytest.raises(UserError, match=r"seed0 and .*seed2: were tested on different images"):
        runs.group([same, again, other])


def test_finished_runs_count_or_all_cut_to_a_common_length(tmp_path):
    group = sample_runs.recipe(tmp_path, "a", [CURVE, CURVE[:3], CURVE])
    assert ([run.seed for run in group.counted], group.finished) == ([0, 2], True)
    group = sample_runs.recipe(tmp_path, "b", [CURVE[:4], CURVE[:2]])
    assert ([len(run.rows) for run in group.counted], group.finished) == ([2, 2], False)


@pytest.mark.parametrize(("second", "names", "message"), [
    (None, None, "is given twice"),
    ({}, None, "the same recipe with the same seed, 0"),
    ({"data__embedded_seed": 1}, None, "were tested on different images .*drawn from seed 0.*seed 1"),
    ({"data__embedded_test": 300}, None, "400 images.*300 images"),
    ({"data__name": "cifar100"}, None, "embedded.*cifar100"),
    ({"seed": 1}, ["a", "b"], "--names: 2 given, but the runs are of 1 recipes: a, b"),
    ({"recipe__dropout": 0.1}, ["a", "a"], "every recipe should have its own name"),
])  # fmt: skip
def test_what_cannot_be_compared_is_refused(tmp_path, second, names, message):
    first = sample_runs.write(tmp_path / "a", CURVE)
    other = first if second is None else sample_runs.write(tmp_path / "b", CURVE, **second)
    loaded = [runs.load(str(first)), runs.load(str(other))]
    with pytest.raises(UserError, match=message):
        runs.group(loaded, names)
