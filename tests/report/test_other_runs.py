"""Runs of other programs, in the forms that these programs write."""

import json
import re
import struct

import pytest
from tensorboardX import SummaryWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import RecordWriter

from tests import sample_runs
from wrn_jax.report import build, other_runs, runs, verdict
from wrn_jax.report.other_runs import Reading
from wrn_jax.report.render.markdown import to_markdown
from wrn_jax.runtime.errors import UserError

CURVE = [0.1, 0.3, 0.55]
VAL = Reading.of(["test_accuracy=val/acc", "test_accuracy=val_accuracy", "test_accuracy=eval_top1", "test_loss=val_loss"])


def csv_file(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def torch_events(folder):
    """PyTorch's SummaryWriter: tags with slashes, steps of updates, the last epoch written again after a restart."""
    with SummaryWriter(str(folder)) as writer:
        for epoch, accuracy in enumerate(CURVE, 1):
            for step in (391 * epoch - 200, 391 * epoch):
                writer.add_scalar("train/loss", 3.0 - step / 1000, step)
            writer.add_scalar("test/acc", 100 * accuracy - (epoch == 3), 391 * epoch)
    with SummaryWriter(str(folder), filename_suffix=".later") as writer:
        writer.add_scalar("test/acc", 100 * CURVE[-1], 3 * 391)
    return folder


def keras_events(folder):
    """TensorFlow 2: folders for training and validation, and a tensor for each scalar."""
    for split in ("train", "test"):
        (folder / split).mkdir(parents=True)
        writer = RecordWriter(str(folder / split / "events.out.tfevents.1.host.v2"))
        for epoch, accuracy in enumerate(CURVE):
            event = Event(step=epoch)
            value = event.summary.value.add(tag="epoch_accuracy")
            value.tensor.dtype = 1
            value.tensor.tensor_content = struct.pack("<f", accuracy)
            writer.write(event.SerializeToString())
        writer.close()
    file = folder / "test" / "events.out.tfevents.1.host.v2"
    file.write_bytes(file.read_bytes() + b"\x10\0\0\0")  # cut in the middle of a record
    return folder


def mlflow(folder):
    for name, factor in (("val/acc", 1.0), ("train_loss", 2.0)):
        lines = [f"17000{epoch} {factor * accuracy} {epoch}" for epoch, accuracy in enumerate(CURVE)]
        csv_file(folder / "metrics" / name, "\n".join(lines) + "\n")
    return folder


def script_line(epoch):
    accuracy = CURVE[epoch - 1]
    line = {"epoch": epoch, "step": 98 * epoch, "test_accuracy": accuracy, "train_accuracy": accuracy, "seconds": 9.0}
    return json.dumps(line) + "\n"


LIGHTNING = (  # a line for validation and one for training, each with blanks
    "epoch,lr-SGD,step,train_acc,train_loss_epoch,val/acc\n0,,97,,,0.1\n0,0.1,97,0.2,4.0,\n1,,195,,,0.3\n1,0.1,195,0.4,3.0,\n"
    "2,,293,,,0.55\n2,0.1,293,0.6,2.0,\n"
)
FORMS = {
    "torch": torch_events,
    "keras": keras_events,
    "mlflow": mlflow,
    "lightning": lambda folder: csv_file(folder / "metrics.csv", LIGHTNING).parent,
    "keras.csv": lambda path: csv_file(
        path, "epoch,accuracy,learning_rate,loss,val_accuracy,val_loss\n0,.2,.1,4,.1,3.9\n1,.4,.1,3,.3,2.9\n2,.6,.1,2,.55,1.9\n"
    ),
    "timm": lambda folder: csv_file(
        folder / "summary.csv", "epoch,eval_loss,eval_top1,eval_top5,lr\n0,3,10,30,.1\n1,2,30,60,.1\n2,1,55,80,.1\n"
    ).parent,
    "wandb.csv": lambda path: csv_file(
        path, '"",_step,_runtime,val/acc,note\n0,0,1.5,0.1,x\n1,1,,,\n2,2,3.5,0.3,y\n3,4,5,0.55,NaN\n'
    ),
    "mlflow.csv": lambda path: csv_file(
        path, "key,value,timestamp,step\nval/acc,10,1,0\nloss,4,1,0\nval/acc,30,1,1\nval/acc,55,1,2\n"
    ),
    "script": lambda folder: csv_file(folder / "metrics.jsonl", "".join(map(script_line, (1, 2, 3)))).parent,
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read(tmp_path, form):
    run = runs.load(str(FORMS[form](tmp_path / form)), VAL if form not in ("torch", "keras", "script") else None)
    assert [row.epoch for row in run.rows] == [1, 2, 3]
    assert [row.test_accuracy for row in run.rows] == pytest.approx(CURVE)
    assert (run.judge, run.seed, run.name) == ("test", None, form.removesuffix(".csv"))
    unit = "per cent" if form in ("torch", "timm", "mlflow.csv") else "fractions of 1"
    assert unit in run.notes[0]
    if form == "torch":
        assert run.rows[0].train_loss == pytest.approx(3.0 - 0.391)
    if form == "lightning":
        assert [row.train_accuracy for row in run.rows] == [0.2, 0.4, 0.6]
    if form == "script":
        assert run.rows[2].seconds == 9.0


@pytest.mark.parametrize(("text", "pairs", "unit", "message"), [
    ("epoch,val_acc,loss\n1,0.5,2\n", [], None, "no column is called a test accuracy; .* one of: val_acc, loss"),
    ("epoch,acc_\n1,0.5\n", ["test_accuracy=nothing"], None, "no column nothing; .* one of: acc_"),
    ("epoch,test_acc\n1,0.01\n2,0.015\n", [], None, "per cent or fractions of 1.*test_accuracy up to 0.015.*--unit"),
    ("epoch,test_acc\n1,0.9\n2,1.0\n", [], None, "per cent or fractions of 1"),
    ("epoch,test_acc,train_acc\n1,60,0.5\n", [], None, "per cent or fractions of 1"),
    ("epoch,test_acc\n1,60 %\n", [], "fraction", "a percent sign stands at accuracies"),
    ("Epoch,Test Accuracy\n1,50\n3,60\n", [], None, "of epochs 1, 3"),
    ("epoch,test_acc\n1,60\n", [], "fraction", "no fraction of 1"),
    ("epoch,test_acc\n1,101\n", [], None, "which are no accuracies"),
    ("epoch,test_acc,loss\n5,60,2\n6,,2\n10,61,2\n", [], None, "of epochs 5, 10"),
    ("epoch,test_acc\n-1,60\n", [], None, "of epochs -1"),
    ("epoch,test_acc\n1,nan\n", [], None, "no column holds finite numbers"),
    ("epoch;test_acc\n1;0,5\n", [], None, "no column holds finite numbers, with a point"),
    ("epoch,test_acc,test_acc\n1,60,61\n", [], None, "column test_acc is there twice"),
    ("step,test_acc\n100,60\n200,61\n900,62\n", [], None, "after 100 to 700 steps"),
])  # fmt: skip
def test_what_cannot_be_told_is_refused_in_one_line(tmp_path, text, pairs, unit, message):
    path = csv_file(tmp_path / "a.csv", text)
    with pytest.raises(UserError, match=message) as refused:
        runs.load(str(path), Reading.of(pairs, unit))
    assert "\n" not in str(refused.value)
    assert str(path) in str(refused.value)


def test_a_log_that_begins_again_is_read_as_it_was_written_last(tmp_path):
    whole = "epoch,test_acc,train_acc\n" + "".join(f"{epoch},{10 * epoch},{11 * epoch}\n" for epoch in range(1, 7))
    anew = csv_file(tmp_path / "anew.csv", whole + "1,5,6\n2,8,9\n")
    resumed = csv_file(tmp_path / "resumed.csv", whole + "5,41,6\n6,42,7\n7,43,8\n")
    backwards = csv_file(tmp_path / "backwards.csv", "epoch,test_acc\n3,30\n2,20\n1,10\n")
    for path, figures in ((anew, [5, 8]), (resumed, [10, 20, 30, 40, 41, 42, 43]), (backwards, [10, 20, 30])):
        run = runs.load(str(path))
        assert [row.test_accuracy for row in run.rows] == pytest.approx([figure / 100 for figure in figures])
        note = f"test_acc begins again at epoch {1 if path is anew else 5}; what was there from then on before is passed over"
        assert (note in run.notes[0]) == (path is not backwards)


def test_events_of_two_starts_are_read_as_they_were_written_last(tmp_path):
    for suffix, accuracies in ((".1", (0.1, 0.2, 0.3, 0.4)), (".2", (0.15, 0.25))):
        with SummaryWriter(str(tmp_path), filename_suffix=suffix) as writer:
            for epoch, accuracy in enumerate(accuracies, 1):
                writer.add_scalar("test/acc", accuracy, 391 * epoch)
    rows = runs.load(str(tmp_path)).rows
    assert [row.test_accuracy for row in rows] == pytest.approx([0.15, 0.25])


def events_without_steps(folder):
    with SummaryWriter(str(folder)) as writer:
        for accuracy in CURVE:
            writer.add_scalar("test/acc", accuracy, 0)
    return folder


@pytest.mark.parametrize("form", [
    events_without_steps,
    lambda folder: csv_file(folder / "metrics/test/acc", "".join(f"17 {accuracy} 0\n" for accuracy in CURVE)).parents[2],
    lambda path: csv_file(path, "key,value,timestamp,step\n" + "".join(f"test/acc,{accuracy},17,0\n" for accuracy in CURVE)),
])  # fmt: skip
def test_accuracies_that_all_lie_at_one_step_are_of_no_epochs(tmp_path, form):
    with pytest.raises(UserError, match="a: test/acc has 3 values, all at step 0, so they are of no epochs; it should be"):
        runs.load(str(form(tmp_path / "a")))


def test_other_figures_that_all_lie_at_one_step_are_left_out(tmp_path):
    for name, lines in (("test_acc", "17 .1 1\n17 .3 2\n"), ("lr", "17 .1 0\n17 .2 0\n")):
        csv_file(tmp_path / "metrics" / name, lines)
    run = runs.load(str(tmp_path))
    assert [(row.test_accuracy, row.moving) for row in run.rows] == [(0.1, {}), (0.3, {})]
    assert "lr has 2 values, all at step 0, so there is no learning_rate" in run.notes[0]


def lines(*accuracies):
    return "".join(f'{{"epoch": {epoch}, "test_acc": {accuracy}}}\n' for epoch, accuracy in accuracies)


@pytest.mark.parametrize(("text", "epochs", "lost"), [
    (lines((1, 0.1), (2, 0.3), (3, "NaN"), (4, "Infinity"), (5, "NaN")), 2, 3),
    (lines((1, 0.1), (1, "NaN"), (2, 0.3), (2, "NaN")), 2, 0),  # what fills a line of something else
    (lines((0.5, "NaN"), (1, 0.1), (1.5, "NaN"), (2, 0.3), (2.5, "NaN")), 2, 0),
    (lines((1, 0.1), (2, "NaN"), (3, "NaN"), (2, 0.3)), 2, 0),  # it goes on from epoch 1, and is at epoch 2
    (lines((1, 0.1), (2, 0.2), (3, "NaN"), (1, 0.3)), 1, 0),
])  # fmt: skip
def test_a_run_whose_accuracy_is_no_number_from_an_epoch_on_diverged(tmp_path, text, epochs, lost):
    (tmp_path / "a.jsonl").write_text(text)
    run = runs.load(str(tmp_path / "a.jsonl"))
    assert (run.last.epoch, run.epochs, run.finished) == (epochs, epochs + lost, not lost)
    note = "test_acc is no number 3 times after epoch 2, so the run counts as one that diverged"
    assert (note in run.notes[0]) == bool(lost)


def test_lines_of_json_may_be_cut_and_have_a_mark(tmp_path):
    path = tmp_path / "a.jsonl"
    text = "\ufeff" + script_line(1) + script_line(2) + script_line(3)[:20]
    path.write_text(text.replace('"seconds": 9.0', f'"seconds": 1{"0" * 400}'), encoding="utf-8")
    assert [row.seconds for row in runs.load(str(path)).rows] == [None, None]
    path.write_text(script_line(1)[:20] + "\n" + script_line(2))
    with pytest.raises(UserError, match="is not JSON line by line"):
        runs.load(str(path))


def test_which_of_several_columns_is_taken_is_said(tmp_path):
    path = csv_file(tmp_path / "a.csv", "epoch,test_acc,test_accuracy\n1,.1,.2\n2,.3,.4\n")
    run = runs.load(str(path))
    assert run.rows[1].test_accuracy == 0.4
    assert "for test_accuracy the column test_accuracy is taken, not test_acc" in run.notes[0]


def test_a_folder_of_runs_is_no_run_and_a_foreign_configuration_makes_none_of_ours(tmp_path):
    sample_runs.write(tmp_path / "runs" / "a", [0.1, 0.2, 0.3, 0.4, 0.5])
    with pytest.raises(UserError, match=r"runs: is a folder of runs; name those in it \(.*runs/\*\)"):
        runs.load(str(tmp_path / "runs"))
    theirs = csv_file(tmp_path / "theirs" / "metrics.jsonl", "".join(map(script_line, (1, 2, 3)))).parent
    (theirs / "config.json").write_text('{"lr": 0.1}')
    assert [row.test_accuracy for row in runs.load(str(theirs)).rows] == CURVE


def test_seeds_without_the_validation_of_others_are_judged_alike(tmp_path):
    for seed, last in enumerate(("0.5", "")):
        text = f"epoch,test_acc,val_acc\n1,0.3,0.2\n2,0.6,{last}\n"
        csv_file(tmp_path / "seeds" / f"{seed}.csv", text)
    loaded = runs.load_all([], [str(tmp_path / "seeds")])
    assert {run.judge for run in loaded} == {"test"}
    assert all(any("so it counts for none" in note for note in run.notes) for run in loaded)


def test_a_percent_sign_elsewhere_says_nothing_of_accuracies(tmp_path):
    head = "epoch,train_accuracy,test_accuracy,learning_rate_at_epoch_end,test_loss,note"
    path = csv_file(tmp_path / "a.csv", f"{head}\n1,0.1,0.12,0.1,4,lr -5%\n2,0.5,0.61,0.1,3,\n")
    assert [row.test_accuracy for row in runs.load(str(path)).rows] == [0.12, 0.61]


def test_a_percent_sign_settles_the_unit(tmp_path):
    path = csv_file(tmp_path / "a.csv", "epoch,test_acc\n1,0.9 %\n2,0.95%\n")
    assert runs.load(str(path)).rows[1].test_accuracy == pytest.approx(0.0095)


def test_seeds_of_one_recipe_are_read_in_one_unit_and_hidden_folders_are_none(tmp_path):
    for seed, last in enumerate((60, 0.6)):
        csv_file(tmp_path / f"torch-seed{seed}" / "metrics.csv", f"epoch,test_acc\n1,{last / 2}\n2,{last}\n")
    (tmp_path / ".ipynb_checkpoints").mkdir()
    with pytest.raises(UserError, match="accuracies of some runs look like per cent, of others like fractions; say --unit"):
        runs.load_all([], [str(tmp_path)])
    csv_file(tmp_path / "torch-seed1" / "metrics.csv", "epoch,test_acc\n1,30\n2,61\n")
    assert len(runs.load_all([], [str(tmp_path)])) == 2


def test_folders_of_runs_are_told_from_runs_in_folders(tmp_path):
    def made(*places):
        root = tmp_path / str(len(list(tmp_path.iterdir())))
        for place in places:
            (root / place).parent.mkdir(parents=True, exist_ok=True)
            (root / place).touch()
        return other_runs.holds_runs(root)

    assert made("seed0/events.out.tfevents.1", "seed1/events.out.tfevents.2")
    assert made("version_0/metrics.csv")
    assert made("seed0/header.jsonl", "seed0/tensorboard/events.out.tfevents.1")
    assert not made("train/events.out.tfevents.1", "validation/events.out.tfevents.2")
    assert not made("events.out.tfevents.1", "accuracy_train/events.out.tfevents.2")
    assert not made("metrics.csv", "plots/picture.png")


def test_a_named_column_that_is_not_there_is_told(tmp_path):
    path = csv_file(tmp_path / "log.csv", "epoch,test_accuracy,val\n1,10.5,\n2,20.5,30\n")
    log = other_runs.read(path, Reading.of(["valid_accuracy=vall", "train_loss=loss", "train_loss=l"]))
    assert log.note.endswith("; no column loss or l, so no train_loss; no column vall, so no valid_accuracy")
    log = other_runs.read(path, Reading.of(["valid_accuracy=val"]))
    assert log.note.endswith("; some epochs have no validation accuracy, so it counts for none")
    assert log.rows[1].valid_accuracy is None


def test_damaged_events_are_refused(tmp_path):
    file = keras_events(tmp_path / "a") / "test" / "events.out.tfevents.1.host.v2"
    file.write_bytes(struct.pack("<Q", 3) + bytes(4) + b"\xff\xff\xff" + bytes(4))
    with pytest.raises(UserError, match="v2: is no file of TensorBoard events, or a damaged one"):
        runs.load(str(tmp_path / "a"))


def test_a_unit_can_be_said():
    assert Reading.of(["test_accuracy=a", "test_accuracy=b", "seconds=t"], "percent").columns["test_accuracy"] == ("a", "b")
    for wrong in ("accuracy=a", "test_accuracy", "test_accuracy="):
        with pytest.raises(UserError, match="--columns"):
            Reading.of([wrong])


def test_small_accuracies_are_read_as_is_said(tmp_path):
    path = csv_file(tmp_path / "a.csv", "epoch,test_acc\n0,0.9\n1,1.1\n")
    assert runs.load(str(path), Reading(unit="percent")).rows[1].test_accuracy == pytest.approx(0.011)


def test_seeds_of_another_program_get_a_verdict_against_ours(tmp_path):
    ours = [str(sample_runs.write(tmp_path / f"ours-seed{s}", [0.1, 0.2, 0.3, 0.4, 0.5 + s / 100], s)) for s in range(3)]
    for seed in range(3):
        lines = [f"{epoch},{10 * epoch + seed / 2}\n" for epoch in range(1, 6)]
        csv_file(
            tmp_path / "theirs" / f"torch-seed{seed}" / "metrics.csv", "epoch,test_acc\n" + "".join(lines[: 5 - seed // 2])
        )
    theirs = [str(path) for path in sorted((tmp_path / "theirs").iterdir())]
    by_name = runs.group(runs.load_all([*ours, *theirs], ["torch-seed*"]))
    by_path = runs.group(runs.load_all(ours, [str(tmp_path / "theirs" / "torch-seed*")]))
    (tmp_path / "theirs" / "notes.txt").write_text("three seeds")
    by_folder = runs.group(runs.load_all(ours, [str(tmp_path / "theirs")]))
    names = [[(group.name, len(group.runs)) for group in groups] for groups in (by_name, by_path, by_folder)]
    assert names == [[("ours", 3), ("torch", 3)], [("ours", 3), ("torch", 3)], [("ours", 3), ("theirs", 3)]]
    assert len(runs.group(runs.load_all([*ours, *theirs]))) == 4  # without a pattern each is a recipe of its own
    with pytest.raises(UserError, match="matches none of the runs, and no path"):
        runs.load_all(ours, ["keras*"])

    reached = verdict.reach(by_name)
    assert "ours" in reached.sentence
    assert reached.findings[0].p is not None
    assert "of different length (last epochs: ours 5, torch 4 and 5)" in reached.sentence
    assert ("program", ["wrn_jax", "another program"]) in verdict.confounds(by_name)
    text = to_markdown(build.build(by_name, operations={"ours": 1e15}))
    assert not re.search(r"\bnan\b", text)
    assert "| training accuracy, last epoch (%) | 50.00 ± 1.00 | - |" in text  # what they did not record


def test_truth_values_are_no_accuracies(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"epoch": 1, "test_acc": true, "loss": 2}\n')
    with pytest.raises(UserError, match=r"no column is called a test accuracy; .* one of: loss"):
        runs.load(str(tmp_path / "a.jsonl"), Reading.of([]))
