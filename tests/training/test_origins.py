"""Runs that go on: stopped and resumed with another end, branched from another run, extended, begun with weights."""

import contextlib
import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

import wrn_jax
from tests.small import each_program_once, metrics
from wrn_jax import train
from wrn_jax.config import Config, step
from wrn_jax.models import weight_layouts
from wrn_jax.runtime.errors import UserError
from wrn_jax.training import loop, origins
from wrn_jax.training.checkpoints import Checkpoints
from wrn_jax.training.records import Origin, read_headers
from wrn_jax.training.workdir import saved_config, write_beginning

pytestmark = pytest.mark.slow

# Four epochs of five updates, and no augmentation, so that it compiles soon.
BASE = Config().override(
    {
        "devices": 1, "model.depth": 10, "model.widen_factor": 1, "data.name": "embedded", "data.embedded_train": 100,
        "data.embedded_test": 20, "data.validation_size": 0, "recipe.batch_size": 20, "eval_batch_size": 20,
        "recipe.epochs": 4, "recipe.augmentation": "off", "recipe.dropout": {"epoch 1": 0.1, "epoch 2": 0.2},
        "recipe.mixup_alpha": 0.2, "recipe.checkpoint_epochs": [1, 2, 3, 4], "silence.best-on-test": "a test",
    }
)  # fmt: skip
LATE = {"recipe.dropout": {"epoch 1": 0.1, "epoch 2": 0.2, "epoch 4": 0.0}, "early_stopping_patience": 9}
FALL = {"kind": "linear", "start": 0.1, "end": 0.0, "over": "5 steps"}
NEW = BASE.override(LATE | {"recipe.learning_rate": {"epoch 1": 0.1, "step 15": FALL}})


@pytest.fixture(scope="module", autouse=True)
def _sooner():
    with each_program_once():
        yield


@pytest.fixture(autouse=True)
def lines(monkeypatch):
    lines = []
    monkeypatch.setattr(loop, "draw", lambda attempt: None)
    monkeypatch.setattr(loop.console, "say", lambda text, active=True: lines.append(text))
    return lines


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three epochs of BASE, and NEW from start to end."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "draw", lambda attempt: None)
        summary = loop.train(BASE, folder / "base", stop_after=3)
        loop.train(NEW, folder / "new")
    assert (summary.last.epoch, summary.epochs_left) == (3, 1)
    return folder


def bits(workdir, step=20):
    """The checksum of every array of a checkpoint."""
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        return next(saved.metadata["checksum"] for saved in checkpoints.all() if saved.step == step)


def branch_from(workdir, checkpoint="last"):
    return Origin(kind="branch", source=str(workdir), checkpoint=checkpoint)


def test_a_stopped_run_goes_on_with_what_acts_later_changed(runs, tmp_path, lines):
    workdir = tmp_path / "run"
    shutil.copytree(runs / "base", workdir)
    loop.train(BASE, workdir, resume=True, stop_after=2)
    assert lines[-1] == "epoch 3 is finished already"
    with pytest.raises(UserError, match="--stop-after 5: should be an epoch of the run, 1 to 4"):
        loop.train(BASE, workdir, resume=True, stop_after=5)
    early = BASE.override({"recipe.dropout": {"epoch 1": 0.1, "step 9": 0.3}})
    with pytest.raises(UserError, match=r"recipe\.dropout\.epoch 2 was 0\.2, is None, which acts from update 6 on, and 15"):
        loop.train(early, workdir, resume=True)
    loop.train(NEW, workdir, resume=True)
    assert metrics(workdir) == metrics(runs / "new")
    assert bits(workdir) == bits(runs / "new")
    *before, last = [header.changes for header in read_headers(workdir / "header.jsonl")]
    assert not any(before)
    assert "early_stopping_patience was None, is 9" in last
    assert "changed from here on: early_stopping_patience was None, is 9" in lines


def stop(*_):
    raise KeyboardInterrupt


AVERAGE = {"optimizer.average_decay": {"epoch 1": 0.0, "epoch 4": 0.5}}


@pytest.mark.parametrize(
    ("changes", "digests", "rows", "message"),
    [
        (AVERAGE, {}, 3, r"checkpoint 15: holds no average, and this recipe has one; --config\.optimizer\.start_average=true"),
        ({"data.directory": "elsewhere"}, {"train": "0123"}, 3, "the training images here are not those of the run"),
        ({"early_stopping_patience": 9}, {}, 2, r"metrics\.jsonl: should hold epochs 1 to 3"),
    ],
)
def test_a_resume_that_is_refused_changes_nothing(runs, tmp_path, monkeypatch, changes, digests, rows, message):
    workdir = tmp_path / "run"
    shutil.copytree(runs / "base", workdir)
    records = (workdir / "metrics.jsonl").read_text().splitlines(keepends=True)
    (workdir / "metrics.jsonl").write_text("".join(records[:rows]))
    if digests:
        monkeypatch.setattr(loop.loading, "digests", lambda dataset: digests)
    before = [(workdir / name).read_text() for name in ("config.json", "header.jsonl", "metrics.jsonl")]
    with pytest.raises(UserError, match=message):
        loop.train(BASE.override(changes), workdir, resume=True)
    assert [(workdir / name).read_text() for name in ("config.json", "header.jsonl", "metrics.jsonl")] == before


def test_what_a_resumed_run_changes_is_written_down_though_a_start_was_killed_before(runs, tmp_path, monkeypatch):
    workdir = tmp_path / "run"
    shutil.copytree(runs / "base", workdir)
    for place in ("RunLog", "compile_programs"):  # once its configuration is there, and once its header is
        with monkeypatch.context() as patch:
            patch.setattr(loop, place, stop)
            with pytest.raises(KeyboardInterrupt):
                loop.train(NEW, workdir, resume=True)
        assert saved_config(workdir).early_stopping_patience == 9
    headers = read_headers(workdir / "header.jsonl")
    assert [any("early_stopping_patience" in change for change in header.changes) for header in headers] == [False, True]


def test_what_branches_need_is_kept_by_a_resumed_run_too(runs, tmp_path, lines):
    config, workdir = BASE.override({"recipe.checkpoint_epochs": []}), tmp_path / "run"
    loop.train(config, workdir, stop_after=3, branches=[2])
    loop.train(config, workdir, resume=True, branches=[4])
    assert {10, 20} <= set(loop.checkpoint_steps(workdir))
    assert [header.branches for header in read_headers(workdir / "header.jsonl")] == [(2,), (2, 4)]
    assert not any("--branches-after" in line for line in lines)
    shutil.rmtree(workdir / "checkpoints" / "10")
    loop.train(config, workdir, resume=True)
    assert "--branches-after 2: that epoch is past, and its checkpoint is not there" in lines


def test_a_branch_that_would_stop_before_its_first_update_is_refused(runs, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(runs / "base", source)
    rows = [json.loads(line) | {"test_accuracy": 0.5} for line in (source / "metrics.jsonl").read_text().splitlines()]
    (source / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(
        UserError, match=r"source: the last 2 epochs .* early_stopping_patience = 2 ends .* more than 2, or none"
    ):
        loop.train(BASE.override({"early_stopping_patience": 2}), tmp_path / "run", origin=branch_from(source))
    assert not (tmp_path / "run").exists()
    setup = loop.make_setup(BASE.override({"early_stopping_patience": 3}), loop.devices.make_mesh(1))
    assert origins.begin(setup, {}, branch_from(source)).saved.step == 15


def test_a_branch_ends_in_the_bits_of_the_run_trained_apart(runs, tmp_path, lines):
    branched = tmp_path / "branched"
    with pytest.MonkeyPatch.context() as patch:  # dies before its first checkpoint
        patch.setattr(loop.Saver, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            loop.train(NEW, branched, origin=branch_from(runs / "base", "2"))
    loop.train(NEW, branched, resume=True)
    assert metrics(branched) == metrics(runs / "new")
    assert bits(branched) == bits(runs / "new")
    assert f"branched from {runs / 'base'} after update 10 (epoch 2)" in lines
    with Checkpoints(branched / "checkpoints") as checkpoints:  # its own copies; the best so far among them
        assert [saved.step for saved in checkpoints.all()][-3:] == [10, 15, 20]
    for later in ("15", "20"):
        shutil.rmtree(branched / "checkpoints" / later)
    loop.train(NEW, branched, resume=True, stop_after=1)  # from its own copy
    headers = read_headers(branched / "header.jsonl")
    assert [header.first_step for header in headers] == [10, 10, 10]
    assert {(header.origin.step, header.origin.epoch, header.origin.agreed) for header in headers} == {(10, 2, 10)}


def test_a_branch_may_have_another_seed_and_another_beginning(runs, tmp_path):
    setup = loop.make_setup(NEW.override({"seed": 7}), loop.devices.make_mesh(1))
    beginning = origins.begin(setup, {}, branch_from(runs / "base"))
    assert [saved.step for saved, _ in beginning.to_save][-1] == beginning.saved.step == 15
    np.testing.assert_array_equal(jax.random.key_data(beginning.state.key), jax.random.key_data(jax.random.key(7)))
    assert beginning.origin.agreed == 0
    assert "whose course is not that of this recipe alone from update 1 on" in beginning.origin.describe()
    begun = shutil.copytree(runs / "base", tmp_path / "begun")
    weights = {"kind": "weights", "source": "elsewhere", "checkpoint": "best"}
    branch = {"kind": "branch", "source": "elsewhere", "checkpoint": "2", "step": 10, "epoch": 2}
    setup = loop.make_setup(BASE, loop.devices.make_mesh(1))
    for origin, agreed in ((weights, 0), (branch | {"agreed": 7}, 7), (branch | {"agreed": 10}, 15)):
        (begun / "origin.json").write_text(json.dumps(origin))
        assert origins.begin(setup, {}, branch_from(begun)).origin.agreed == agreed
    with pytest.raises(UserError, match="base: its checkpoint of step 7, where this run began, is gone"):
        origins.begin(setup, {}, dataclasses.replace(branch_from(runs / "base"), step=7))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model.widen_factor": 2},
            r"--branch-from .*base: model\.widen_factor was 1, is 2; network, data and batch size go",
        ),
        ({"data.embedded_seed": 1}, r"data\.embedded_seed was 0, is 1"),
        ({"recipe.batch_size": 10}, r"recipe\.batch_size was 20, is 10"),
        (
            {"recipe.epochs": 2},
            r"--branch-from .*base: 15 updates are done at checkpoint last, and the new recipe has 10 in",
        ),
    ],
)
def test_a_branch_that_does_not_fit_is_refused_and_leaves_nothing(runs, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        loop.train(BASE.override(changes), tmp_path / "run", origin=branch_from(runs / "base"))
    assert not (tmp_path / "run").exists()


def test_a_finished_run_is_extended_in_its_own_folder(runs, monkeypatch):
    asked = []
    monkeypatch.setattr("wrn_jax.training.loop.train", lambda *arguments, **_: asked.append(arguments))
    monkeypatch.setattr(train, "closing_lines", lambda summary: [])
    train.main(["--extend", "2", "--workdir", str(runs / "new"), '--config.recipe.dropout={"step 0": 0.3}'])
    config, workdir, resume, stop_after, origin = asked[0]
    assert (config.recipe.epochs, config.recipe.dropout[step(0)], resume, stop_after, origin) == (6, 0.3, True, None, None)
    assert workdir == runs / "new"
    with pytest.raises(UserError, match=r"is at epoch 3 of 4, and --extend continues a finished run; --resume goes on"):
        train.main(["--extend", "1", "--workdir", str(runs / "base")])
    with pytest.raises(UserError, match=r"--extend: needs --workdir"):
        train.main(["--extend", "0", "--workdir", str(runs / "new")])


@pytest.fixture
def asked(monkeypatch):
    """(resume, kind of origin) of what would be trained."""
    asked = []

    def note(config, workdir, resume, stop_after=None, origin=None, **_):
        asked.append((resume, origin and origin.kind))

    monkeypatch.setattr("wrn_jax.training.loop.train", note)
    monkeypatch.setattr(train, "closing_lines", lambda summary: [])
    return asked


def test_auto_starts_anew_where_a_start_came_to_nothing(runs, tmp_path, asked):
    workdir = tmp_path / "run"
    workdir.mkdir()
    write_beginning(BASE, workdir, False, Origin(kind="weights", source="elsewhere", checkpoint="best"))
    auto, config = ["--resume=auto", "--workdir", str(workdir)], ["--config", "quickstart"]
    train.main([*auto, *config, "--init-from", str(runs / "base")])
    train.main([*auto, "--branch-from", str(runs / "base")])
    train.main([*auto, *config])
    train.main(auto)  # which says nothing else to start
    wrn_jax.train_model(BASE, workdir, resume="auto")
    assert asked == [(False, "weights"), (False, "branch"), (False, None), (True, None), (False, None)]


CACHED = "hub/models--user--name/snapshots/0123/model.safetensors"


@pytest.mark.parametrize(
    ("kind", "source", "named", "message"),
    [
        ("weights", "there", "there", None),
        ("weights", "here/../there", "there", None),
        ("weights", CACHED, "hub:user/name@v1", None),
        (
            "weights",
            CACHED,
            "hub:user/other",
            r"--init-from hub:user/other: the run in run began with the weights of \S+; leave",
        ),
        ("weights", "elsewhere", "there", r"--init-from there: the run in run began with the weights of \S+elsewhere; leave"),
        ("branch", "there", "there", r"run branched from \S+there; leave --init-from out, or choose another --workdir"),
        (None, "", "there", "run began with random weights; leave"),
    ],
)
def test_auto_goes_on_with_a_run_that_began_there_alone(runs, tmp_path, monkeypatch, asked, kind, source, named, message):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(runs / "base", "run")
    (tmp_path / "here").mkdir()
    if kind is not None:
        write_beginning(BASE, tmp_path / "run", False, Origin(kind=kind, source=str(tmp_path / source), checkpoint="best"))
    expected = pytest.raises(UserError, match=message) if message else contextlib.nullcontext()
    with expected:
        train.main(["--config", "quickstart", "--workdir", "run", "--resume=auto", "--init-from", named])
    assert asked == ([] if message else [(True, None)])


def test_begins_with_the_weights_of_a_run_or_a_file_and_another_head(runs, tmp_path):
    setup = loop.make_setup(BASE, loop.devices.make_mesh(1))
    with Checkpoints(runs / "base" / "checkpoints") as checkpoints:
        saved = checkpoints.all()[-1]
        trained = jax.device_get(checkpoints.restore_state(saved, setup.abstract_state, setup.shardings))
    file = tmp_path / "weights.safetensors"
    save_file(weight_layouts.to_torch(trained.params, trained.batch_stats), file)
    wider = loop.make_setup(BASE.override({"model.num_classes": 101}), setup.mesh)
    broader = loop.make_setup(BASE.override({"model.widen_factor": 2}), setup.mesh)
    for source, of_setup in ((runs / "base", setup), (file, wider)):
        origin = Origin(kind="weights", source=str(source), checkpoint="last")
        beginning = origins.begin(of_setup, {}, origin)
        state, fresh = (jax.device_get(one.state) for one in (beginning, origins.begin(of_setup, {}, None)))
        expected = trained.params if of_setup is setup else trained.params | {"fc": fresh.params["fc"]}
        jax.tree.map(np.testing.assert_array_equal, state.params, expected)
        jax.tree.map(np.testing.assert_array_equal, state.batch_stats, trained.batch_stats)
        jax.tree.map(np.testing.assert_array_equal, state.opt_state, fresh.opt_state)
        assert (beginning.saved.step, state.step, beginning.origin.step) == (0, 0, 15 if source.is_dir() else None)
        anew = ", the last layer anew: 101 classes instead of 100"
        assert (anew in beginning.origin.describe()) == (of_setup is wider)
        with pytest.raises(UserError, match=r"\S+ is \(.*, but this network has \(.*; set model\.depth and"):
            origins.begin(broader, {}, origin)


def test_weights_that_a_run_begins_with_again_are_those_it_began_with(runs, tmp_path):
    """Though the run that they are from has gone on meanwhile."""
    setup = loop.make_setup(BASE, loop.devices.make_mesh(1))
    source = tmp_path / "base"
    shutil.copytree(runs / "base", source)
    for epoch in (2, 3):
        origin = Origin(kind="weights", source=str(source), checkpoint="last", step=5 * epoch, epoch=epoch)
        with Checkpoints(source / "checkpoints") as checkpoints:
            saved = next(saved for saved in checkpoints.all() if saved.epoch == epoch)
            expected = checkpoints.restore_state(saved, setup.abstract_state, setup.shardings).params
        again = origins.begin(setup, {}, origin)
        assert again.origin.step == 5 * epoch
        jax.tree.map(np.testing.assert_array_equal, again.state.params, expected)
    gone = dataclasses.replace(origin, step=12)
    with pytest.raises(UserError, match=r"--init-from .*base: its checkpoint of step 12, where this run began, is gone"):
        origins.begin(setup, {}, gone)


def test_weights_and_an_average_begin_in_the_order_in_memory_that_the_devices_want(runs, tmp_path, monkeypatch):
    """As on a GPU; in another order the second call of the compiled step refuses them."""
    monkeypatch.setitem(loop.devices.KERNEL_LAYOUTS, "cpu", (3, 0, 1, 2))
    averaged = BASE.override({"optimizer.average_decay": 0.5, "optimizer.start_average": True})
    origin = Origin(kind="weights", source=str(runs / "base"), checkpoint="last")
    assert loop.train(averaged, tmp_path / "weights", origin=origin, stop_after=2).last.network == "average"
    branch = Origin(kind="branch", source=str(runs / "base"), checkpoint="last")
    assert loop.train(averaged, tmp_path / "branch", origin=branch).last.network == "average"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--branch-from", "a", "--init-from", "b"], "--branch-from and --init-from: choose one"),
        (["--init-from", "a", "--resume", "--workdir", "b"], "--init-from and --resume: once the run is there, --resume alone"),
        (["--checkpoint", "best"], "--checkpoint: says where to begin, with --branch-from or --init-from"),
        (["--network", "raw"], "--network: says which weights to begin with, with --init-from"),
        (["--branch-from", "nowhere"], "nowhere: holds no run"),
    ],
)
def test_beginnings_that_make_no_sense_are_one_line(options, message):
    with pytest.raises(UserError, match=message):
        train.main(options)
