"""The command: what it runs and skips, how it goes on after any end, and what its report says of the way.

Processes are stood in for: a training is a run made up on the spot, in one or two starts, an evaluation its figures. So what is
tested is the study; that a training goes on bit for bit is tested with the training itself.
"""

import dataclasses
import json
import re
import shutil
import signal

import pytest

from tests import sample_runs, small
from wrn_jax import study
from wrn_jax.report import statistics, writing
from wrn_jax.report.render.markdown import to_markdown
from wrn_jax.runtime import console
from wrn_jax.runtime.errors import Diverged, Interrupted, UserError
from wrn_jax.studies import conduct, display, engine, measure, places, summary
from wrn_jax.studies.design import Design, read, read_recipes
from wrn_jax.studies.progress import Progress, count_done
from wrn_jax.studies.runs import Failure, load, members, missing
from wrn_jax.studies.sharing import Fork
from wrn_jax.training.workdir import claimed

ACCURACY = {"one": 0.5, "two": 0.6}
LATE = {"epoch 1": 0.3, "epoch 51": 0.2, "epoch 81": 0.0}
"""As session 04, to the fourth epoch of five."""

KEYS = [f"--config.{key}={value}" for key, value in sample_runs.CHANGES.items()]


class Killed(BaseException):
    """The study's process is gone."""


class World:
    """What stands in for processes: `commands` that were started, and what `happens` at them, by number from 0.

    What each `says` is added to the log.

    What may happen: "killed" (a training has recorded two epochs, and the study is gone), "signal" (which the study gets), or
    an exit code.
    """

    def __init__(self, monkeypatch, folder):
        self.folder, self.commands, self.happens, self.says, self.stop = folder, [], {}, {}, ""
        self.dropout = {}
        self.write("one", None)
        self.write("two", 0.1)
        monkeypatch.setattr(engine, "start", self.start)
        monkeypatch.setattr(engine, "command_line", list)
        monkeypatch.setattr(engine, "POLL", 0.0)
        monkeypatch.setattr(writing, "write", write_text)
        monkeypatch.setattr(engine.StopRequest, "received", lambda *_: self.stop)

    def write(self, recipe, dropout):
        """Makes a recipe that is session 04 but for its dropout, None for the same."""
        self.dropout[recipe] = {} if dropout is None else {"recipe.dropout": dropout}
        code = f"from wrn_jax.config import load_file\nconfig = load_file('session04').override({self.dropout[recipe]})"
        (self.folder / f"{recipe}.py").write_text(code)

    def start(self, arguments, log, place):
        self.commands.append(arguments)
        number = len(self.commands) - 1
        what = self.happens.pop(number, 0)
        workdir = log.parents[1] / "runs" / log.stem
        recipe, seed = re.fullmatch(r"(\w+)-seed([0-9])", log.stem).groups()
        top = ACCURACY[recipe] + int(seed) / 100
        if arguments[0] == "train" and what in (0, "killed"):
            kept = map(int, arguments[arguments.index("--branches-after") + 1]) if "--branches-after" in arguments else ()
            accuracies = [top - (5 - epoch) / 20 for epoch in range(1, 6 if what == 0 else 3)]
            write_run(workdir, int(seed), accuracies, self.dropout[recipe], kept)
        elif what == 0:
            sample_runs.evaluate(workdir, 5, sample_runs.right(round(400 * top)))
        if what == "killed":
            raise Killed
        if what == "signal":
            self.stop = "SIGINT"
        code = what if isinstance(what, int) else 75
        with log.open("a") as file:
            print(self.says.get(number, f"train: ended with {code}"), file=file)
        return Process(code)


def write_text(groups, document, out):
    """The report without page and pictures, which take seconds."""
    (out / "report.md").write_text(to_markdown(document))
    (out / "comparison.json").write_text(json.dumps(writing.collect(groups)))


@dataclasses.dataclass
class Process:
    returncode: int

    def poll(self):
        return self.returncode

    def terminate(self):
        pass


def write_run(workdir, seed, accuracies, changes, kept=()):
    """A run as far as these accuracies go, in place of what was there of it, with checkpoints after these epochs."""
    checkpoints = [4 * epoch for epoch in {*kept, len(accuracies)}]
    made = sample_runs.write(workdir.with_name("made"), accuracies, seed, checkpoints=checkpoints, **changes)
    shutil.rmtree(workdir / "checkpoints", ignore_errors=True)
    shutil.copytree(made, workdir, dirs_exist_ok=True)
    shutil.rmtree(made)


@pytest.fixture
def world(monkeypatch, tmp_path):
    """With two recipes in its folder."""
    return World(monkeypatch, tmp_path)


def begin(out, *more):
    recipes = [str(out.parent / f"{name}.py") for name in ("one", "two")]
    study.main([*recipes, "--seeds", "2", "--out", str(out), *KEYS, *more])


def again(out, *more):
    study.main(["--out", str(out), *more])


def names(world):
    """What was started: command and run."""
    return [f"{words[0]} {' '.join(words).partition('runs/')[2].split()[0]}" for words in world.commands]


def compared(out):
    """The pairs of recipes at the last epoch."""
    return json.loads((out / "comparison.json").read_text())["differences"]["last"]


def report(out):
    """The text of the report, and its figures, without the place."""
    return [(out / name).read_text().replace(str(out), "OUT") for name in ("report.md", "comparison.json")]


def test_killed_twice_and_finished_it_reports_as_the_one_nothing_interrupted(world, tmp_path, capsys):
    begin(tmp_path / "straight")
    # Seed by seed, and each run is trained and evaluated before the next; best and last are one checkpoint here.
    runs = [f"{recipe}-seed{seed}" for seed in range(2) for recipe in ("one", "two")]
    assert names(world) == [f"{command} {run}" for run in runs for command in ("train", "evaluate")]
    assert "4 of 4 runs are done" in capsys.readouterr().out

    out = tmp_path / "killed"
    world.commands.clear()
    world.happens = {2: "killed", 4: "killed"}  # in a training, and in the evaluation after it
    with pytest.raises(Killed):
        begin(out)
    assert "This study is not finished: 1 of 4 runs are." in (out / "report.md").read_text()
    with pytest.raises(Killed):
        again(out)
    begin(out)
    assert names(world)[2:6] == ["train two-seed0", "train two-seed0", "evaluate two-seed0", "evaluate two-seed0"]
    assert report(out) == report(tmp_path / "straight")

    world.commands.clear()
    again(out)
    assert world.commands == []


def test_finished_runs_need_their_checkpoints_no_more_and_others_go_on_without_them(world, tmp_path):
    """What shares a beginning with one of them is trained apart then; a run that is not evaluated needs its own."""
    world.write("two", LATE)
    out = tmp_path / "out"
    world.happens = {2: "signal"}  # the training of two-seed0
    with pytest.raises(Interrupted):
        begin(out)
    world.stop = ""
    for workdir in (out / "runs").iterdir():
        shutil.rmtree(workdir / "checkpoints", ignore_errors=True)
    world.commands.clear()
    again(out)
    runs = ("two-seed0", "one-seed1", "two-seed1")
    assert names(world) == [f"{command} {run}" for run in runs for command in ("train", "evaluate")]
    assert "--branch-from" not in world.commands[0]
    shutil.rmtree(out / "runs" / "two-seed1" / "checkpoints")
    next((out / "runs" / "two-seed1" / "evaluations").iterdir()).unlink()
    world.commands.clear()
    again(out)
    assert names(world) == ["train two-seed1", "evaluate two-seed1"]


def test_results_outlive_the_checkpoints_and_what_needs_those_is_refused(world, tmp_path, capsys):
    out = tmp_path / "out"
    begin(out)
    for workdir in (out / "runs").iterdir():
        shutil.rmtree(workdir / "checkpoints")
    world.commands.clear()
    with pytest.raises(UserError, match="4 of 4 runs failed"):
        again(out, "--corruptions")
    assert world.commands == []
    assert (
        "has no checkpoints left to be evaluated on corrupted images; --no-corruptions leaves them" in capsys.readouterr().out
    )
    assert "Its training came to its end, and counts; what is missing is an evaluation." in (out / "report.md").read_text()
    assert len(compared(out)) == 1
    again(out, "--no-corruptions")
    assert world.commands == []
    # What is chosen on the hold-out is not evaluated.
    member = dataclasses.replace(members(read(out), out)[0], is_evaluated=False)
    shutil.rmtree(member.workdir / "evaluations")
    assert missing(member, load(member), corruptions=False) is None


def test_what_is_asked_of_the_runs_is_remembered(world, tmp_path):
    out = tmp_path / "out"
    world.happens = {2: "signal"}
    with pytest.raises(Interrupted):
        begin(out, "--corruptions")
    world.stop = ""
    world.commands.clear()
    with pytest.raises(UserError, match="4 of 4 runs failed"):  # what stands in for an evaluation has no corrupted images
        again(out)
    assert all("--corruptions" in words for words in world.commands if words[0] == "evaluate")
    world.commands.clear()
    again(out, "--no-corruptions")
    assert not read(out).corruptions
    assert all("--corruptions" not in words for words in world.commands)


def test_the_next_run_begins_before_the_report_is_written(world, tmp_path, monkeypatch):
    begun = []
    write = summary.write
    monkeypatch.setattr(summary, "write", lambda *them: begun.append(len(world.commands)) or write(*them))
    begin(tmp_path / "out")
    assert begun == [3, 5, 7, 8]  # two commands a run


def test_a_study_with_a_run_that_diverged_is_over(world, tmp_path):
    out = tmp_path / "out"
    world.happens = {4: 3}  # the training of one-seed1
    with pytest.raises(Diverged):
        begin(out)
    text = (out / "report.md").read_text()
    assert "3 of 4 runs came to their end; no run is left. Compared are seeds 0 to 1, of which every run has ended or" in text
    assert "one-seed1 diverged" in text
    assert "This study is not finished" not in text


def test_runs_that_fail_are_told_and_the_others_go_on(world, tmp_path, capsys):
    world.happens = {0: 3, 1: -signal.SIGKILL}
    with pytest.raises(UserError, match="2 of 4 runs failed: one-seed0, two-seed0; see "):
        begin(tmp_path / "out")
    said = capsys.readouterr().out
    assert f"one-seed0: diverged: train: ended with 3 (exit code 3; its output: {tmp_path}/out/logs/one-seed0.log)" in said
    assert "two-seed0: failed: was killed by SIGKILL (too little memory?)" in said
    assert "one-seed0 diverged: train: ended with 3." in (tmp_path / "out/report.md").read_text()

    # What failed is tried again; what diverged would again, until its folder is gone.
    world.commands.clear()
    with pytest.raises(Diverged, match="1 of 4 runs diverged and stay as they are: one-seed0"):
        begin(tmp_path / "out")
    assert names(world) == ["train two-seed0", "evaluate two-seed0"]
    (tmp_path / "out/runs/one-seed0/failure.json").unlink()
    begin(tmp_path / "out")


def test_a_signal_ends_it_cleanly_and_the_same_command_goes_on(world, tmp_path):
    world.happens = {2: "signal"}
    with pytest.raises(Interrupted, match="SIGINT: the runs are saved; the same command goes on with them"):
        begin(tmp_path / "out")
    assert len(world.commands) == 3
    assert not (tmp_path / "out/runs/two-seed0/failure.json").exists()
    world.stop = ""
    begin(tmp_path / "out")
    assert len(world.commands) == 3 + 6


def test_why_a_run_failed_is_what_its_last_start_said(world, tmp_path, capsys):
    world.happens = {0: "signal", 1: 1}
    world.says = {0: "train: SIGINT: saved after step 4", 1: "ValueError: no way"}
    with pytest.raises(Interrupted):
        begin(tmp_path / "out")
    world.stop = ""
    with pytest.raises(UserError, match="1 of 4 runs failed: one-seed0"):
        again(tmp_path / "out")
    assert "one-seed0: failed: ValueError: no way (exit code 1" in capsys.readouterr().out


def test_a_report_that_cannot_be_written_hides_no_interruption(world, tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise UserError("the disk is full")

    monkeypatch.setattr(conduct.summary, "write", refuse)
    world.happens = {0: "signal"}
    with pytest.raises(Interrupted):
        begin(tmp_path / "out")
    assert "the report could not be written (the disk is full); going on" in capsys.readouterr().out


def test_runs_are_counted_without_a_trace(world, tmp_path, capsys):
    out = tmp_path / "out"
    begin(out)
    (out / "runs/one-seed0/metrics.jsonl").write_text("rubbish")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    capsys.readouterr()
    assert count_done(members(conduct.settle(out, [], [], [], None), out)) == 3
    assert capsys.readouterr() == ("", "")
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_the_verdict_and_its_power_are_of_what_was_planned_and_added_seeds_stand_apart(world, tmp_path):
    out = tmp_path / "out"
    begin(out, "--detect", "10")
    again(out, "--seeds", "3")
    assert len(world.commands) == 12
    (addition,) = json.loads((out / "study.json").read_text())["added"]
    assert (addition["seeds"], addition["finished_runs"]) == (3, 4)
    text = (out / "report.md").read_text()
    assert "Seeds were added later, up to seed 2, when 4 runs were finished" in text
    # The verdict stays that of the seeds that were planned; another one stands below.
    (pair,) = json.loads((out / "comparison.json").read_text())["differences"]["last"]
    assert pair["counts"] == [2, 2]
    assert pair["adjusted"] == pair["welch"]["p"]
    verdict, _, marked = text.partition("## With the seeds that were added later")
    assert "n = 3" not in verdict
    assert "This is not the verdict, which is by the 2 seeds of each recipe planned" in marked
    assert re.search(r"With all 3 seeds: \*\*two is better than one.*n = 3 and 3", marked)
    # Accuracies of a recipe differ by a point: of two that is a spread of 0.71, with two degrees of freedom in all.
    assert "Made for a difference of 10 points, said before the first run." in text
    assert "spread by 0.71 points over the seeds (95 % interval 0.37 to 4.4), so 2 seeds of each recipe show" in text
    assert f"difference of {statistics.detectable(2, 0.5**0.5):.2g} points in four of five" in text
    chance = statistics.power_of(2, 10, 0.5**0.5)
    assert f"10 points that it was made for is shown with a chance of {100 * chance:.0f} % (" in text
    assert "(plots/power.png)" in text
    with pytest.raises(UserError, match="--seeds 1: the study has 3 already"):
        again(out, "--seeds", "1")


def test_runs_of_another_program_stand_beside_its_own(world, tmp_path, capsys):
    out = tmp_path / "out"
    for seed in range(2):
        lines = [f"{epoch},{85 + epoch + seed / 10}" for epoch in range(1, 6)]
        (tmp_path / f"two-seed{seed}.csv").write_text("\n".join(["epoch,val/acc", *lines]))
    begin(out, "--beside", str(tmp_path / "two-seed*.csv"), "--columns", "test_accuracy=val/acc")
    written = json.loads((out / "comparison.json").read_text())
    assert written["recipes"]["two (beside)"]["test_accuracy"]["last"]["n"] == 2
    assert len(compared(out)) == 3
    text = (out / "report.md").read_text()
    assert f"Beside it stand runs of other programs ({tmp_path}/two-seed" in text
    assert "named before the first run. They count in Holm's adjustment." in text
    assert "Holm's levels for 3 pairs" in text
    # They are in its design, so the study goes on with them. A recipe of its own may be worse than they are, not the reverse.
    recorded = json.loads((out / "study.json").read_text())["beside"]
    assert (recorded["finished_runs"], recorded["columns"]) == (0, ["test_accuracy=val/acc"])
    with pytest.raises(SystemExit):
        again(out, "--fail-if-worse", "two (beside)")
    for path in tmp_path.glob("two-seed*.csv"):
        path.write_text(re.sub(r",[89]", ",1", path.read_text()))
    again(out, "--fail-if-worse", "one")
    (pair,) = [pair for pair in compared(out) if "beside" in pair["second"] and pair["first"] == "one"]
    assert pair["difference"] > 0
    assert pair["adjusted"] < 0.05

    # Once they are gone it goes on without them, and says so; named anew they have to be there.
    for path in tmp_path.glob("two-seed*.csv"):
        path.unlink()
    capsys.readouterr()
    again(out)
    assert "and no path; going on without the runs beside it" in capsys.readouterr().err
    assert len(compared(out)) == 1
    assert "The runs beside it are not compared: " in (out / "report.md").read_text()
    with pytest.raises(UserError, match="matches no"):
        again(out, "--beside", str(tmp_path / "two-seed*.csv"))


def test_a_folder_of_runs_beside_it_is_seeds_of_one_recipe(world, tmp_path):
    for seed in range(2):
        run = sample_runs.write(
            tmp_path / f"old/seed{seed}", [0.1, 0.2, 0.3, 0.4, 0.45 + seed / 100], seed, recipe__dropout=0.2
        )
        (run / "tensorboard").mkdir()
        (run / "tensorboard/events.out.tfevents.1").touch()
    begin(tmp_path / "out", "--beside", str(tmp_path / "old"))
    written = json.loads((tmp_path / "out/comparison.json").read_text())["recipes"]
    assert [recipe["test_accuracy"]["last"]["n"] for recipe in written.values()] == [2, 2, 2]


def test_a_run_that_outlived_its_study_is_waited_for(world, tmp_path, capsys, monkeypatch):
    with claimed(tmp_path / "out/runs/one-seed0"):
        holds = engine.holder
        # It ends once all others have.
        monkeypatch.setattr(engine, "holder", lambda workdir: holds(workdir) if len(world.commands) < 6 else None)
        begin(tmp_path / "out")
    assert names(world)[0] == "train two-seed0"
    assert names(world)[-2:] == ["train one-seed0", "evaluate one-seed0"]
    assert "one-seed0: is in the hands of process " in capsys.readouterr().out


@pytest.mark.parametrize(("prepare", "arguments", "message"), [
    (None, ["--out", "{0}/out"], "out: holds no study to go on with; name the recipes"),
    (None, ["{0}/one.py", "--detect", "-1", "--out", "{0}/out"], "'-1': should be a number of percentage points"),
    (None, ["{0}/one.py", "--seeds", "0", "--out", "{0}/out"], "--seeds 0: should be at least 1"),
    (None, ["{0}/one.py", "{0}/one.py", "--out", "{0}/out"], "one: two recipes have this name"),
    (None, ["{0}/one.py", "--out", "{0}/out", "--config.seed=1"], "--config.seed=1: a study has seeds 0, 1"),
    (None, ["session04", "{0}/one.py", "--out", "{0}/out"], "session04 and one: are the same recipe"),
    ("study", ["--out", "{0}/out", "--config.seed=1"], "name the recipes too that it changes"),
    ("study", ["--out", "{0}/out", "--detect", "1"], "--detect 1: was none when the study began"),
    ("study", ["--out", "{0}/out", "--dry-run", "--fail-if-worse", "x"], "--fail-if-worse x: should be one of one, two"),
    ("study", ["--out", "{0}/out", "--seeds", "x"], "argument --seeds: 'x': should be a whole number"),
    ("study", ["--out", "{0}/out", "--detect", "x"], "argument --detect: 'x': should be a number of percentage points"),
    ("study", ["--out", "{0}/out", "--jobs", "0"], "argument --jobs: 0: should be at least 1, or auto"),
    ("study", ["--out", "{0}/out", "--unit", "percent"], "say how to read what --beside names"),
    ("study", ["--out", "{0}/out", "--beside", "{0}/no*"], "no[*]: matches none of the runs, and no path"),
    ("study", ["{0}/one.py", "--out", "{0}/out"], "is a study of one, two, not of one; choose another --out"),
    ("study", ["{0}/one.py", "{0}/two.py", "--out", "{0}/out", *KEYS, "--config.recipe.scale=0.1"],
     "one is another recipe now: recipe.scale"),
    ("damage", ["--out", "{0}/out"], "study.json: is not the design of a study"),
])  # fmt: skip
def test_a_mistake_is_one_line(world, tmp_path, prepare, arguments, message):
    if prepare:
        world.happens = {0: "signal"}
        with pytest.raises(Interrupted):
            begin(tmp_path / "out")
    if prepare == "damage":
        (tmp_path / "out/study.json").write_text('{"format": 1}')
    with pytest.raises(UserError, match=message) as refused:
        study.main([argument.format(tmp_path) for argument in arguments])
    assert "\n" not in str(refused.value)


def test_a_study_goes_on_after_an_update_that_knows_more_keys(world, tmp_path):
    begin(tmp_path / "out")
    file = tmp_path / "out/study.json"
    tree = json.loads(file.read_text())
    for recipe in tree["recipes"]:
        del recipe["config"]["optimizer"]["sam_every"]
    file.write_text(json.dumps(tree))
    shutil.rmtree(tmp_path / "out/runs/one-seed1")
    world.commands.clear()
    begin(tmp_path / "out")
    assert names(world)[0] == "train one-seed1"


def test_a_study_goes_on_with_its_recipes_as_they_are_named_now(world, tmp_path):
    out = tmp_path / "out"
    world.happens = {2: "signal"}
    with pytest.raises(Interrupted):
        begin(out, "--config.data.directory=/old/data")
    world.stop = ""
    moved = [tmp_path / "moved" / f"{name}.py" for name in ACCURACY]
    moved[0].parent.mkdir()
    for path in moved:
        (tmp_path / path.name).rename(path)
    world.commands.clear()
    now = ["--config.data.directory=/new/data", "--config.on_nonfinite=rollback"]
    world.happens = {3: "signal"}
    with pytest.raises(Interrupted):
        study.main([*map(str, moved), "--out", str(out), *KEYS, *now])
    world.stop = ""
    again(out)
    for words in world.commands:
        if words[0] == "train":
            assert words[1:3] == ["--config", str(moved[words[2].endswith("two.py")])]
            assert {*now} < {*words}
        else:  # what stands in for a run says nothing of its data
            assert "--config.data.directory=/new/data" in words
    assert names(world)[0] == "train two-seed0"
    assert len(world.commands) == 7
    with pytest.raises(UserError, match=r"one is another recipe now: recipe\.dropout"):
        study.main([*map(str, moved), "--out", str(out), *KEYS, "--config.recipe.dropout=0.5"])


def test_runs_find_as_many_places_as_are_left(monkeypatch):
    monkeypatch.setattr(places, "find", lambda jobs: [places.Place()] * (jobs or 7))
    found = {(jobs, left, there): len(conduct.find_places(jobs, left, there))
             for jobs in (None, 3, 16) for left in (1, 5) for there in (False, True)}  # fmt: skip
    assert found == {(None, 1, False): 7, (None, 1, True): 1, (None, 5, False): 7, (None, 5, True): 5, (3, 1, False): 1,
                     (3, 1, True): 1, (3, 5, False): 3, (3, 5, True): 3, (16, 1, False): 1, (16, 1, True): 1,
                     (16, 5, False): 5, (16, 5, True): 5}  # fmt: skip


def test_a_recipe_that_is_edited_meanwhile_and_a_folder_of_another_run_do_not_mix(world, tmp_path, capsys):
    world.happens = {0: "signal"}
    with pytest.raises(Interrupted):
        begin(tmp_path / "out")
    world.stop = ""
    world.write("two", 0.2)
    sample_runs.write(tmp_path / "out/runs/one-seed1", [0.1], recipe__scale=0.1, seed=1)
    with pytest.raises(UserError, match="3 of 4 runs failed: one-seed1, two-seed0, two-seed1"):
        again(tmp_path / "out")
    said = capsys.readouterr().out
    assert "two.py: was changed since the study began: recipe.dropout.epoch 1 was 0.1, is 0.2" in said
    assert "one-seed1: holds another run: " in said


@pytest.mark.parametrize(("change", "message"), [
    (lambda tree: [], "no table"),
    (lambda tree: tree | {"recipes": []}, "recipes: should be some"),
    (lambda tree: tree | {"recipes": [tree["recipes"][0]] * 2}, "each of another name"),
    (lambda tree: tree | {"recipes": [tree["recipes"][0] | {"name": "../evil"}]}, "'../evil' is no name of a folder"),
    (lambda tree: tree | {"added": [{"time": "", "seeds": 1, "finished_runs": 0}]}, "more each time that some are added"),
])  # fmt: skip
def test_a_design_that_no_study_has_is_refused(world, tmp_path, change, message):
    world.happens = {0: "signal"}
    with pytest.raises(Interrupted):
        begin(tmp_path / "out")
    file = tmp_path / "out/study.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    with pytest.raises(UserError, match=rf"study\.json: is not the design of a study \(.*{message}"):
        again(tmp_path / "out")


def test_before_the_first_seed_is_complete_no_later_one_counts(world, tmp_path):
    world.happens = {0: 2}  # the first run of all; the others come to their end
    with pytest.raises(UserError, match="1 of 6 runs failed: one-seed0"):
        begin(tmp_path / "out", "--seeds", "3")
    assert "is better than" not in (tmp_path / "out/report.md").read_text()
    again(tmp_path / "out")
    (pair,) = compared(tmp_path / "out")
    assert pair["counts"] == [3, 3]


def test_one_seed_has_no_verdict_and_it_is_told(world, tmp_path, capsys):
    begin(tmp_path / "out", "--seeds", "1", "--fail-if-worse", "two")
    said = capsys.readouterr()
    assert "with one seed of each recipe no difference can be shown" in said.out
    assert "study: no verdict against two on one; see the report" in said.err


def test_looks_before_the_end_raise_p_and_a_recipe_that_is_worse_fails(world, tmp_path):
    out = tmp_path / "out"
    world.happens = {10: "signal"}  # two of three seeds are complete, and one run of the third
    with pytest.raises(Interrupted):
        begin(out, "--seeds", "3")
    world.stop = ""
    text = (out / "report.md").read_text()
    assert "not finished: 5 of 6 runs are. Compared are seeds 0 to 1, of which every run has ended or failed." in text
    (early,) = json.loads((out / "comparison.json").read_text())["differences"]["last"]
    assert early["counts"] == [2, 2]
    assert early["adjusted"] == pytest.approx(statistics.after_looks(early["welch"]["p"], [2 / 3]))
    assert early["adjusted"] > 2 * early["welch"]["p"]
    again(out, "--fail-if-worse", "one")  # which is the worse one
    with pytest.raises(SystemExit) as failed:
        again(out, "--fail-if-worse", "two")
    assert failed.value.code == 1
    (late,) = json.loads((out / "comparison.json").read_text())["differences"]["last"]
    assert late["counts"] == [3, 3]
    assert late["adjusted"] == pytest.approx(statistics.after_looks(late["welch"]["p"], [2 / 3, 1]))
    assert "after adjustment for looks" in (out / "report.md").read_text()
    with pytest.raises(UserError, match="--fail-if-worse three: should be one of one, two"):
        again(out, "--fail-if-worse", "three")


def test_a_dry_run_says_what_will_run_what_it_takes_and_what_it_shows(world, tmp_path, capsys, monkeypatch):
    measured = []
    monkeypatch.setattr(measure, "seconds_of_update", lambda arguments, place: measured.append(place) or (0.5, 1, "a machine"))
    world.write("two", LATE)
    begin(tmp_path / "out", "--dry-run", "--seeds", "4", "--engine", "ray", "--jobs", "1000")
    assert "all 8 runs: 8s, 8 runs at a time" in capsys.readouterr().out
    measured.clear()
    begin(tmp_path / "out", "--dry-run", "--detect", "0.5", "--spread", "0.3", "--seeds", "4")
    said = capsys.readouterr().out
    assert world.commands == []
    assert not (tmp_path / "out").exists()
    levels = {seeds: statistics.last_level([n / seeds for n in range(2, seeds + 1)]) for seeds in (4, 7, 8)}
    powers = {seeds: statistics.power_of(seeds, 0.5, 0.3, significance=level) for seeds, level in levels.items()}
    assert powers[7] < 0.8 <= powers[8]
    assert "a difference of 0.5 points needs 8 seeds of each recipe" in said
    detectable = statistics.detectable(4, 0.3, significance=levels[4])
    assert f"4 seeds show a difference of {detectable:.2f} points with 80% power" in said
    assert "findings: 2" in said
    assert "of all runs: " in said
    # 20 updates of 100 images, and 5 evaluations of 400 images at a third of their cost: 10 s and 3.3 s.
    assert "one: 13s a run (measured: 0.5 s an update, on a machine)" in said
    # The other recipe is trained for one epoch of five.
    assert re.search(r"goes on from one after epoch 4 of 5: saves [0-9.e+]+ operations a run", said)
    assert re.search(r"trained once for each seed, to the same bits: saves [0-9.e+]+ of [0-9.e+]+ operations \(40%\)", said)
    assert "two: 3s a run" in said
    assert "all 8 runs: 1m04s, without starting and compiling" in said
    assert len(measured) == 1


def shared(world):
    """What the trainings are told of others: after which epochs those branch off, or the run they go on from and where."""
    options = ("--branches-after", "--branch-from", "--checkpoint")
    trainings = [words for words in world.commands if words[0] == "train"]
    return [[words[words.index(name) + 1].rpartition("/")[2] for name in options if name in words] for words in trainings]


def test_what_recipes_have_in_common_is_trained_once_for_each_seed(world, tmp_path):
    world.write("two", LATE)
    world.happens = {0: 2}  # the first run, so that the one that should go on from it begins by itself
    with pytest.raises(UserError, match="1 of 4 runs failed: one-seed0"):
        begin(tmp_path / "out")
    assert [name for name in names(world) if "train" in name] == [f"train {run}-seed{n}" for n in range(2) for run in ACCURACY]
    assert shared(world) == [["4"], [], ["4"], ["one-seed1", "4"]]


def test_a_run_that_cannot_go_on_from_another_begins_by_itself(world, tmp_path, capsys):
    world.write("two", LATE)
    world.happens = {2: 2, 7: -9}  # damaged, say; one that is killed, on the other hand, has failed
    with pytest.raises(UserError, match="1 of 4 runs failed: two-seed1"):
        begin(tmp_path / "out")
    assert "two-seed0: cannot go on from another run: train: ended with 2; it begins by itself" in capsys.readouterr().out
    assert shared(world) == [["4"], ["one-seed0", "4"], [], ["4"], ["one-seed1", "4"]]


def test_it_is_trained_apart_where_that_is_asked_for(world, tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(conduct, "run", lambda *arguments: given.append(arguments[2].share))
    begin(tmp_path / "out")
    begin(tmp_path / "out", "--no-share")
    assert given == [True, False]


def test_a_run_waits_for_what_it_goes_on_from_as_long_as_that_may_come(world, tmp_path):
    world.write("two", LATE)
    recipes = read_recipes([str(tmp_path / f"{name}.py") for name in ACCURACY], KEYS)
    trunk, run = members(Design(began="", recipes=recipes, seeds=1), tmp_path, {"two": Fork("one", 3, 12)})
    state = Progress([trunk, run])
    assert not engine.waits(trunk, state)
    assert engine.waits(run, state)
    state.failures["one-seed0"] = Failure(2, "")
    assert not engine.waits(run, state)
    state.failures.clear()
    write_run(trunk.workdir, 0, [0.1, 0.2], {})
    state.runs["one-seed0"] = load(trunk)
    assert engine.waits(run, state)
    write_run(trunk.workdir, 0, [0.1, 0.2, 0.3], {})
    assert not engine.waits(run, state)  # the checkpoint is there, though that run goes on
    write_run(trunk.workdir, 0, [0.1, 0.2, 0.3, 0.4, 0.5], {})
    state.runs["one-seed0"] = load(trunk)
    assert not engine.waits(run, state)  # it has ended without
    assert "--branch-from" not in run.train()


@pytest.mark.slow
def test_an_update_is_measured_here(capsys, monkeypatch):
    monkeypatch.setattr(measure, "SECONDS", 0.0)
    changes = [f"--config.{key}={value}" for key, value in small.CHANGES.items()]
    measure.main(["--config", "configs/session04.py", *changes])
    assert 0 < json.loads(capsys.readouterr().out)["seconds"] < 10


def test_the_lines_of_a_terminal_are_replaced_and_elsewhere_come_now_and_then(monkeypatch, capsys):
    monkeypatch.setattr(console, "is_terminal", lambda: True)
    live = display.Display(2)
    live.show(["1 of 4 runs are done; 5m left", "a: epoch 3/40, test accuracy 3.00%"])
    live.show(["2 of 4 runs are done"])
    live.close()
    shown = capsys.readouterr().err
    assert "5m left" in shown
    assert "a: epoch 3/40" in shown
    monkeypatch.setattr(console, "is_terminal", lambda: False)
    monkeypatch.setattr(display, "INTERVAL", 0.0)
    display.Display(2).show(["1 of 4 runs are done", "a: starts"])
    assert capsys.readouterr().out == "1 of 4 runs are done | a: starts\n"


def test_time_left_is_by_operations_until_a_recipe_has_been_timed():
    rows = [dataclasses.replace(sample_runs.row(epoch, 0.1), seconds=2.0) for epoch in (1, 2)]
    operations = {"one": 1.0, "two": 3.0}
    todo = [("one-seed0", "one", 3), ("two-seed0", "two", 5)]
    assert display.seconds_left({"one": [], "two": []}, todo, operations, 1) is None
    assert display.seconds_left({"one": rows, "two": []}, todo, operations, 1) == 3 * 2 + 5 * 6
    assert display.seconds_left({"one": rows, "two": rows}, todo, operations, 1) == 3 * 2 + 5 * 2
    assert display.seconds_left({"one": rows, "two": rows}, todo, operations, 4) == 10  # a run is not divided


def test_runs_find_room_on_gpus_on_shares_of_cores_or_one_after_the_other(monkeypatch):
    def environments(jobs, platform, count, visible=""):
        monkeypatch.setattr(places, "devices_of_runs", lambda: (platform, count))
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        return [dict(place.environment).get("CUDA_VISIBLE_DEVICES") for place in places.find(jobs)]

    assert environments(None, "gpu", 3) == ["0", "1", "2"]
    assert environments(2, "gpu", 3, visible="5,6,7") == ["5", "6"]
    assert environments(None, "gpu", 1) == environments(1, "gpu", 4) == environments(None, "tpu", 8) == [None]
    assert environments(None, "cpu", 1) == [None]
    with pytest.raises(UserError, match="--jobs 4: there are 3 GPUs"):
        environments(4, "gpu", 3)
    with pytest.raises(UserError, match="--jobs 2: all chips of a TPU train one run together"):
        environments(2, "tpu", 8)
    monkeypatch.setattr(places.os, "sched_getaffinity", lambda _: {0, 1, 2, 5, 7})
    monkeypatch.setattr(places, "devices_of_runs", lambda: ("cpu", 1))
    assert [place.cores for place in places.find(2)] == [{0, 1}, {2, 5, 7}]
    with pytest.raises(UserError, match="--jobs 6: there are 5 CPU cores"):
        places.find(6)


def test_without_cores_to_choose_a_study_of_several_jobs_is_not_begun(world, tmp_path, monkeypatch):
    monkeypatch.delattr(places.os, "sched_getaffinity")
    monkeypatch.setattr(places, "devices_of_runs", lambda: ("cpu", 1))
    with pytest.raises(UserError, match="--jobs 2: the cores of a CPU can be divided on Linux alone; leave it out"):
        begin(tmp_path / "out", "--jobs", "2")
    assert not (tmp_path / "out/study.json").exists()


def test_two_studies_do_not_share_a_folder(world, tmp_path):
    with claimed(tmp_path / "out"), pytest.raises(UserError, match="out: is in use by process"):
        begin(tmp_path / "out")
