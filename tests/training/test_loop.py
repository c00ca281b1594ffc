"""A whole run through all phases, and what it leaves behind."""

import dataclasses
import json
import shutil
import types

import jax
import numpy as np
import pytest

from tests.sample_runs import HEADER
from tests.small import CHANGES, each_program_once, metrics
from wrn_jax.config import Config, load_file
from wrn_jax.config.moving import MOVING
from wrn_jax.config.timeline import Timeline
from wrn_jax.evaluation.evaluator import Evaluator
from wrn_jax.runtime import devices
from wrn_jax.runtime.errors import Diverged, Interrupted, UserError
from wrn_jax.training import loop, messages
from wrn_jax.training.checkpoints import Checkpoints, SaveFailed
from wrn_jax.training.records import EpochSums, read_headers, read_rows
from wrn_jax.training.setup import resolve
from wrn_jax.training.workdir import saved_config

pytestmark = pytest.mark.slow

KEYS = [
    "format", "epoch", "step", *MOVING, "train_loss", "train_accuracy", "valid_loss", "valid_accuracy",
    "test_loss", "test_accuracy", "skipped_steps", "seconds", "images_per_second",
]  # fmt: skip


def small_config(**changes):
    named = {key.replace("__", "."): value for key, value in changes.items()}
    return load_file("configs/session04.py").override(CHANGES | named)


@dataclasses.dataclass
class Finished:
    config: object
    workdir: object
    summary: object
    output: str
    compiled: list


@pytest.fixture(scope="module", autouse=True)
def _sooner():
    with each_program_once():
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One run of session 04 through all its phases."""
    workdir = tmp_path_factory.mktemp("runs") / "small"
    compiled, lines = [], []
    listener = lambda name, seconds, **about: (  # noqa: E731
        compiled.append(about.get("fun_name")) if name == "/jax/core/compile/backend_compile_duration" else None
    )
    jax.monitoring.register_event_duration_secs_listener(listener)
    config = small_config()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.console, "say", lambda text, active=True: lines.append(text))
        summary = loop.train(config, workdir)
    jax.monitoring.unregister_event_duration_listener(listener)
    return Finished(config, workdir, summary, "\n".join(lines), compiled)


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch):
    """Only the run above draws its curves, which takes a second."""
    monkeypatch.setattr(loop, "draw", lambda attempt: None)


def test_compiles_the_training_step_once_over_all_phases(finished):
    assert finished.compiled.count("jit(train_steps)") == 1
    assert finished.compiled.count("jit(eval_step)") == 1


def test_records_one_object_an_epoch_with_the_values_of_the_timeline(finished):
    rows = [json.loads(line) for line in (finished.workdir / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["step"] for row in rows] == [10, 20, 30, 40, 50]
    assert all(list(row) == KEYS for row in rows)
    table = Timeline(finished.config, 10).table()
    for row, planned in zip(rows, table, strict=True):
        assert row["learning_rate"] == pytest.approx(planned["learning_rate_last"], rel=1e-6)
        for name in ("dropout", "mixup_alpha", "label_smoothing", "augmentation"):
            assert row[name] == planned[name]
        assert 0 <= row["train_accuracy"] <= 1
        assert row["images_per_second"] > 0


def test_the_training_loss_falls(finished):
    first, last = (json.loads(line) for line in (finished.workdir / "metrics.jsonl").read_text().splitlines()[::4])
    assert last["train_loss"] < first["train_loss"]


def test_a_run_that_learns_is_not_told_otherwise(finished):
    assert "this run does not learn" not in finished.output


def test_announces_every_transition_when_it_happens(finished):
    lines = finished.output.splitlines()
    expected = Timeline(finished.config, 10).events()
    announced = [line for line in lines if ", step " in line]
    assert announced == [f"epoch {event.epoch}, step {event.step}: {event}" for event in expected]
    for event in expected:
        own = lines.index(f"epoch {event.epoch}, step {event.step}: {event}")
        ends = [i for i, line in enumerate(lines) if line.startswith("epoch ") and "images/s" in line]
        assert sum(end < own for end in ends) == event.epoch - 1


def test_one_line_an_epoch_says_all(finished):
    line = next(line for line in finished.output.splitlines() if line.startswith("epoch 3/5"))
    for word in ("loss", "train", "valid", "test", "rate", "images/s", "left"):
        assert word in line


def test_several_steps_in_a_call_make_the_same_run(finished, tmp_path, capsys):
    """Calls of up to 4 steps, cut short by checkpoints after every 3: the same losses up to rounding, which grows."""
    loop.train(small_config(steps_per_call=4, checkpoint_steps=3), tmp_path / "run", stop_after=1)
    (row,), one = metrics(tmp_path / "run"), metrics(finished.workdir)[0]
    assert row.keys() == one.keys()
    for name in ("step", "learning_rate", "dropout", "augmentation"):
        assert row[name] == one[name]
    assert row["train_loss"] == pytest.approx(one["train_loss"], rel=1e-4)
    assert row["valid_loss"] == pytest.approx(one["valid_loss"], rel=1e-3)


def test_keeps_the_recipes_checkpoints_the_best_and_the_last(finished):
    with Checkpoints(finished.workdir / "checkpoints") as checkpoints:
        kept = [one.epoch for one in checkpoints.all()]
    # Session 04's every ten epochs are every half epoch here: all five ends of an epoch.
    assert kept == [1, 2, 3, 4, 5]
    assert finished.summary.judge == "valid"
    rows = read_rows(finished.workdir / "metrics.jsonl")
    assert finished.summary.best == max(rows, key=lambda row: (row.valid_accuracy, -row.epoch))


def test_writes_config_header_curves_and_events(finished):
    # Fully resolved: what the configuration left open is settled.
    settled = {"precision": "float32", "model.num_classes": 100}
    assert saved_config(finished.workdir) == finished.config.override(settled)
    header = json.loads((finished.workdir / "header.jsonl").read_text())
    assert header["hardware"]["platform"] == "cpu"
    assert header["versions"]["jax"] == jax.__version__
    assert header["seed"] == 0
    assert header["rollbacks"] == 0
    assert header["parameters"] == 83_700
    assert (finished.workdir / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert list((finished.workdir / "tensorboard").glob("events.out.tfevents.*"))
    names = {path.name for path in finished.workdir.iterdir()}
    assert names == {".lock", "config.json", "header.jsonl", "metrics.jsonl", "curves.png", "tensorboard", "checkpoints"}


def test_starting_anew_over_a_run_is_refused(finished):
    with pytest.raises(UserError, match="holds a run already; continue it with --resume, or choose another --workdir"):
        loop.train(finished.config, finished.workdir)


def test_resuming_a_finished_run_changes_nothing(finished):
    before = (finished.workdir / "metrics.jsonl").read_text()
    summary = loop.train(finished.config, finished.workdir, resume=True)
    assert summary == finished.summary
    assert (finished.workdir / "metrics.jsonl").read_text() == before


def test_resuming_with_another_configuration_names_the_keys(finished):
    with pytest.raises(UserError, match=r"another configuration: model\.depth was 10, is 16"):
        loop.train(finished.config.override({"model.depth": 16}), finished.workdir, resume=True)


def test_resuming_from_a_renamed_checkpoint_is_refused(finished, tmp_path):
    shutil.copytree(finished.workdir, tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "50").rename(tmp_path / "run" / "checkpoints" / "60")
    with pytest.raises(UserError, match="checkpoints/60: holds the state after 50 updates"):
        loop.train(finished.config, tmp_path / "run", resume=True)


def test_resuming_with_other_images_is_refused(finished, monkeypatch):
    monkeypatch.setattr(loop.loading, "digests", lambda dataset: {"train": "0123"})
    with pytest.raises(UserError, match=r"checkpoints/\d+: the training images here are not those of the run, or in another"):
        loop.train(finished.config, finished.workdir, resume=True)


def test_paths_of_the_data_are_kept_whole(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    config = Config().override({"data.directory": "sets/tfds", "data.cache": "~/cache"})
    data = resolve(config, devices.make_mesh(1)).data
    assert (data.directory, data.archive, data.cache) == (str(tmp_path / "sets/tfds"), None, "/home/somebody/cache")


def test_resuming_nothing_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no run to resume"):
        loop.train(small_config(), tmp_path / "none", resume=True)


def test_early_stopping_counts_epochs_since_the_best_and_holds_on_resume(tmp_path, monkeypatch):
    evaluate, accuracies = (
        Evaluator.__call__,
        iter([0.1, 0.1, 0.3, 0.3, 0.2, 0.2, 0.9, 0.9]),
    )  # of both splits
    call = lambda self, *arguments: evaluate(self, *arguments) | {"accuracy": next(accuracies)}  # noqa: E731
    monkeypatch.setattr(Evaluator, "__call__", call)
    config = small_config(early_stopping_patience=1, recipe__checkpoint_epochs=[])
    summary = loop.train(config, tmp_path / "early")
    assert (summary.best.epoch, summary.last.epoch) == (2, 3)
    with Checkpoints(tmp_path / "early" / "checkpoints") as checkpoints:
        assert [one.epoch for one in checkpoints.all()] == [2, 3]
    assert loop.train(config, tmp_path / "early", resume=True) == summary


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"devices": 3}, r"recipe\.batch_size = 16: should divide evenly over 3 devices, for example 15"),
        ({"devices": 9}, r"devices = 9: only 8 cpu device\(s\) found"),
        ({"model.batch_norm_groups": 3}, r"model\.batch_norm_groups = 3: should divide recipe\.batch_size = 16"),
        ({"model.num_classes": 10}, r"model\.num_classes = 10: embedded has 100 classes"),
    ],
)
def test_what_does_not_fit_is_one_line_before_anything_is_written(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        loop.train(small_config().override(changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_unwritable_work_directory_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written to: Not a directory"):
        loop.train(small_config(), tmp_path / "file" / "run")


def assert_like_one_device(workdir, finished, epochs):
    rows, expected = metrics(workdir), metrics(finished.workdir)[:epochs]
    for row, one in zip(rows, expected, strict=True):
        # Rounding differs with the order of the sums, and grows with the steps.
        assert row["train_loss"] == pytest.approx(one["train_loss"], rel=1e-4 if row["epoch"] == 1 else 1e-2)
        assert (row["epoch"], row["learning_rate"]) == (one["epoch"], one["learning_rate"])


def test_a_signal_in_an_evaluation_saves_before_it_and_the_run_goes_on_as_if_nothing_had_been(finished, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        asked = iter(["", "", "", "SIGTERM"])  # at the first batch of the second split
        patch.setattr(loop.StopRequest, "pending", lambda self: next(asked))
        patch.setattr(loop.StopRequest, "received", lambda self, step: "")
        with pytest.raises(Interrupted, match="SIGTERM: saved after step 10, before the evaluation of epoch 1; continue"):
            loop.train(small_config(), tmp_path / "run")
    summary = loop.train(small_config(), tmp_path / "run", resume=True, stop_after=2)
    with Checkpoints(tmp_path / "run" / "checkpoints") as checkpoints:
        assert [(one.step, one.accuracy) for one in checkpoints.all()][-1] == (20, summary.last.valid_accuracy)
    assert metrics(tmp_path / "run") == metrics(finished.workdir)[:2]


def test_eight_devices_train_like_one_and_the_run_continues_on_two_and_on_one(finished, tmp_path, monkeypatch):
    for count, sharding, last in ((8, "fsdp", 13), (2, "replicated", 21)):
        with monkeypatch.context() as patch:  # as if a signal came in the second epoch, and again in the third
            patch.setattr(loop.StopRequest, "received", lambda self, step, last=last: "SIGTERM" if step == last else "")
            with pytest.raises(Interrupted, match=f"SIGTERM: saved after step {last + 1}"):
                loop.train(small_config(devices=count, sharding=sharding), tmp_path / "run", resume=last > 13)
    loop.train(small_config(devices=1), tmp_path / "run", resume=True, stop_after=3)
    assert_like_one_device(tmp_path / "run", finished, 3)


def test_a_full_disk_does_not_end_a_run(finished, tmp_path, monkeypatch):
    real, failing = loop.Checkpoints.save, iter([True, True, False, True])
    lines = []

    def save(self, *arguments):
        if next(failing, False):
            raise SaveFailed("No space left on device")
        real(self, *arguments)

    monkeypatch.setattr(loop.Checkpoints, "save", save)
    monkeypatch.setattr(loop.console, "say", lambda text, active=True: lines.append(text))
    workdir = tmp_path / "run"
    assert loop.train(finished.config, workdir).last.epoch == 5
    assert sum("could not be saved (No space left on device); going on" in line for line in lines) == 2
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        assert [one.epoch for one in checkpoints.all()] == [2, 3, 4, 5]  # the first epoch's failed twice
    assert metrics(workdir) == metrics(finished.workdir)


@pytest.mark.parametrize(
    ("old", "new"),
    [('"step": 20', '"step": 21'), ('"valid_loss"', '"format": 1, "x"'), ('"epoch": 2', '"epoch": "2"'), ('"epoch": 2, ', "")],
)
def test_resuming_with_edited_records_is_refused(finished, tmp_path, old, new):
    shutil.copytree(finished.workdir, tmp_path / "run")
    path = tmp_path / "run" / "metrics.jsonl"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError, match=r"metrics\.jsonl: (row 2|epoch [12])"):
        loop.train(finished.config, tmp_path / "run", resume=True)


def test_says_what_a_run_never_reaches(tmp_path):
    config = small_config(recipe__dropout={"epoch 1": 0.1, "epoch 500": 0.2})
    line = Timeline(config, 10)
    assert line.idle() == ["dropout 0.2 at epoch 500"]
    lines = " ".join(messages.opening_lines(HEADER, config, line)).split()
    assert "never has: dropout 0.2 at epoch 500" in " ".join(lines)


def test_a_network_whose_loss_is_not_finite_has_diverged_though_its_average_is_well(monkeypatch):
    attempt = types.SimpleNamespace(
        setup=types.SimpleNamespace(timeline=types.SimpleNamespace(steps_per_epoch=10)), state=None, rollbacks=1, back_to=(4,),
        data=types.SimpleNamespace(judge="test"),
    )  # fmt: skip
    monkeypatch.setattr(loop, "evaluate_epoch", lambda *_: ({"test": {"loss": 1.0}}, {"test": {"loss": float("nan")}}))
    with pytest.raises(Diverged, match="the loss of the evaluation after epoch 2 is no longer finite") as caught:
        loop.finish_epoch(attempt, 2, EpochSums())
    assert (caught.value.rollbacks, caught.value.back_to) == (1, (4,))


class TestReadStep:
    metrics = {"loss": 2.0, "finite": True, "correct": 3.0, "examples": 4, "loss_scale": 1024.0, "gradient_norm": 1.0}  # noqa: RUF012

    def read(self, dtype, sums, **changed):
        attempt = types.SimpleNamespace(
            setup=types.SimpleNamespace(network=types.SimpleNamespace(dtype=dtype)),
            saver=types.SimpleNamespace(last_step=40),
            rollbacks=2,
            back_to=(30, 20),
        )
        with loop.console.Progress("epoch", 3, "step", active=False) as progress:
            loop.read_step(attempt, 1, sums, progress, self.metrics | changed, 2)

    def test_names_all_steps_that_were_skipped_in_a_row(self):
        sums = EpochSums(skipped_in_a_row=2)
        with pytest.raises(Diverged, match="at steps 0 to 2, in epoch 1"):
            self.read("float16", sums, finite=False, loss_scale=0.5)

    def test_float16_counts_skipped_steps(self):
        sums = EpochSums()
        self.read("float16", sums)
        self.read("float16", sums, finite=False, loss=np.inf)
        assert (sums.skipped, sums.loss, sums.examples) == (1, 8.0, 4)

    @pytest.mark.parametrize(("dtype", "scale"), [("float16", 0.5), ("bfloat16", 1.0), ("float32", 1.0)])
    def test_what_scaling_cannot_help_ends_the_run(self, dtype, scale):
        with pytest.raises(Diverged, match=r"at step 2, in epoch 1: loss nan.*; the last checkpoint is of step 40") as error:
            self.read(dtype, EpochSums(), finite=False, loss=np.nan, loss_scale=scale)
        assert (error.value.rollbacks, error.value.back_to) == (2, (30, 20))


@pytest.mark.parametrize(
    ("saved", "anew", "back_to"),
    [([10, 20, 30], {}, [(30,), (20,), (10,)]), ([], {}, [(0,)]), ([10, 20], {3: 20}, [(20,), (10,), (10, 20)])],
)
def test_goes_back_to_no_checkpoint_twice(tmp_path, monkeypatch, saved, anew, back_to):
    """`anew`: what the runs of these numbers save before they diverge."""
    began, there = [], [*saved]

    def run(request):
        began.append((request.resume, request.back_to))
        there[:] = [step for step in there if step <= max(request.back_to, default=30)]
        there.extend([anew[len(began)]] if len(began) in anew else [])
        raise Diverged("no longer finite", request.rollbacks, request.back_to)

    monkeypatch.setattr(loop, "run", run)
    monkeypatch.setattr(loop, "checkpoint_steps", lambda workdir: there)
    with pytest.raises(
        Diverged, match=r"no longer finite; the run went .*nothing before it is left; a lower recipe\.learning_"
    ):
        loop.train(Config().override({"on_nonfinite": "rollback", "max_rollbacks": 9}), tmp_path)
    assert began == [(False, ()), *((True, steps) for steps in back_to)]


class TestRollback:
    @pytest.fixture
    def lines(self, monkeypatch):
        lines, real = [], loop.read_step
        self.failures = 0

        def read_step(attempt, epoch, sums, progress, metrics, step):
            if step == 23 and self.failures > 0:
                self.failures -= 1
                metrics = metrics | {"finite": False, "loss": np.nan}
            real(attempt, epoch, sums, progress, metrics, step)

        monkeypatch.setattr(loop, "read_step", read_step)
        monkeypatch.setattr(loop.console, "say", lambda text, active=True: lines.append(text))
        return lines

    def test_goes_back_and_takes_the_data_in_another_order(self, finished, tmp_path, lines):
        self.failures = 2
        workdir = tmp_path / "run"
        assert loop.train(small_config(on_nonfinite="rollback"), workdir).last.epoch == 5
        told = [line.partition("; going back to ")[2] for line in lines if "going back to" in line]
        order = "with the data in another order"
        assert told == [f"step 20, {order} (rollback 1 of 3)", f"step 10, {order} (rollback 2 of 3)"]
        # The one that led there twice is out of the way, and saved anew.
        aside = workdir.resolve() / "diverged" / "20"
        assert f"checkpoint 20 led twice to numbers that are not finite; moved to {aside}" in lines
        assert aside.is_dir()
        with Checkpoints(workdir / "checkpoints") as checkpoints:
            assert [saved.notes.back_to for saved in checkpoints.all()] == [(), *[(10,)] * 4]
        before, after = metrics(finished.workdir), metrics(workdir)
        assert after[:1] == before[:1]
        assert after[1]["train_loss"] != before[1]["train_loss"]
        assert [row["epoch"] for row in after] == [1, 2, 3, 4, 5]
        headers = [json.loads(line) for line in (workdir / "header.jsonl").read_text().splitlines()]
        assert [(header["first_step"], header["rollbacks"]) for header in headers] == [(0, 0), (20, 1), (10, 2)]

    def test_gives_up_after_the_last(self, tmp_path, lines):
        self.failures = 9
        config = small_config(on_nonfinite="rollback", max_rollbacks=1)
        with pytest.raises(Diverged, match=r"last checkpoint is of step 20; gave up after 1 rollbacks; .*usually help"):
            loop.train(config, tmp_path / "run")
        # What was learned about the order of the data, and where the run went back to, survives a restart.
        self.failures = 1
        loop.train(small_config(on_nonfinite="rollback", max_rollbacks=2), tmp_path / "run", resume=True, stop_after=3)
        starts = [(header.first_step, header.rollbacks) for header in read_headers(tmp_path / "run" / "header.jsonl")]
        assert starts == [(0, 0), (20, 1), (20, 1), (10, 2)]


@pytest.mark.parametrize("taken_over", [0, 2])
def test_gives_up_after_rollbacks_of_its_own(tmp_path, monkeypatch, taken_over):
    """Though a branch counts on from those of the run that it branched from."""
    counts = []

    def run(request):
        counts.append(max(taken_over, request.rollbacks))
        raise Diverged("no longer finite", counts[-1], request.back_to)

    header = dataclasses.replace(HEADER, rollbacks=taken_over)
    (tmp_path / "header.jsonl").write_text(json.dumps(header.to_dict()) + "\n")
    monkeypatch.setattr(loop, "run", run)
    monkeypatch.setattr(loop, "checkpoint_steps", lambda workdir: [10, 20, 30, 40])
    with pytest.raises(Diverged, match="gave up after 1 rollbacks"):
        loop.train(Config().override({"on_nonfinite": "rollback", "max_rollbacks": 1}), tmp_path)
    assert counts == [taken_over, taken_over + 1]
