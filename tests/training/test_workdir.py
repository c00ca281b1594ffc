"""Who may start where: one run a folder, nothing in the way of a start that a dead one left, nothing run over."""

import contextlib
import shutil
import subprocess
import sys

import pytest

from tests.sample_runs import config, write
from wrn_jax.config import Config
from wrn_jax.runtime.errors import UserError
from wrn_jax.training.checkpoints import Saved
from wrn_jax.training.workdir import (
    changes_since,
    check_checkpoints,
    claimed,
    default_workdir,
    holds_progress,
    holds_run,
    saved_config,
    taken,
    write_beginning,
)

CONFIG = config()
OTHER = config(recipe__batch_size=50)


def start(workdir, settings, resume=False):
    """A start that dies as soon as it has begun."""
    with taken(settings, workdir, resume):
        write_beginning(settings, workdir, resume)


def test_a_start_that_came_to_nothing_gives_way_to_any_other(tmp_path):
    workdir = tmp_path / "run"
    (workdir / "checkpoints" / "4.orbax-checkpoint-tmp").mkdir(parents=True)
    assert not holds_run(workdir)
    for settings in (CONFIG, OTHER):
        for resume in (False, True):
            start(workdir, settings, resume)
            (workdir / "metrics.jsonl").write_text("")
            assert not holds_progress(workdir)
            assert saved_config(workdir).recipe == settings.recipe


def test_what_holds_progress_is_not_run_over(tmp_path):
    path = write(tmp_path / "run", [0.1, 0.2])
    assert holds_progress(path)
    for settings, resume, message in (
        (CONFIG, False, "holds a run already"),
        (OTHER, True, r"another configuration: recipe\.batch_size was 100, is 50"),
    ):
        with pytest.raises(UserError, match=message):
            start(path, settings, resume)
    start(path, CONFIG, resume=True)
    (path / "config.json").unlink()
    with pytest.raises(UserError, match="holds no run to resume"):
        start(path, CONFIG, resume=True)
    with pytest.raises(UserError, match=r"holds checkpoints or records, but no config\.json"):
        start(path, CONFIG)


HOLD = """
import sys, pathlib
from wrn_jax.training.workdir import claimed
with claimed(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_has_one_run_at_a_time_and_a_dead_one_lets_go(tmp_path):
    command = [sys.executable, "-c", HOLD, tmp_path / "run"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=rf"run: is in use by process {process.pid} on \S+; wait"):
            start(tmp_path / "run", CONFIG)
        process.kill()
    start(tmp_path / "run", CONFIG)
    with claimed(tmp_path / "run"), pytest.raises(UserError, match="is in use by process"), claimed(tmp_path / "run"):
        pass


def test_a_folder_that_is_deleted_or_replaced_is_noticed(tmp_path):
    with claimed(tmp_path / "run") as check:
        check()
        shutil.rmtree(tmp_path / "run")
        for _ in range(2):
            with pytest.raises(UserError, match="run: was deleted or replaced while the run went on"):
                check()
            with claimed(tmp_path / "run"), pytest.raises(UserError, match="deleted or replaced"):  # somebody else's now
                check()


def test_default_names_differ():
    assert len({default_workdir("session04") for _ in range(100)}) == 100


OWN = Config().override({"seed": 1})
DIGESTS = {"train": "aa", "test": "bb"}


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, None),  # of a version that said nothing
        ({"step": 40, "config": OWN.to_dict(), "data_digests": DIGESTS}, None),
        ({"config": OWN.override({"data.directory": "elsewhere", "devices": 2}).to_dict()}, None),
        ({"data_digests": DIGESTS | {"valid": "cc"}}, None),
        ({"step": 128}, "checkpoints/40: holds the state after 128 updates; give the folder its name again"),
        ({"config": Config().to_dict()}, "checkpoints/40: is a checkpoint of another run: seed was 0, is 1; move it away"),
        ({"config": {"model": 1}}, "checkpoints/40, config: "),
        ({"data_digests": {"train": "dd"}}, r"checkpoints/40: the training images here .* \(digest aa, was dd\)"),
    ],
)
def test_a_checkpoint_says_of_which_run_it_is(tmp_path, metadata, message):
    expected = pytest.raises(UserError, match=message) if message else contextlib.nullcontext()
    with expected:
        check_checkpoints([Saved(40, 4, 0.5, metadata=metadata)], tmp_path, OWN, DIGESTS)


@pytest.mark.parametrize(("metadata", "expected"), [({"config": OWN.to_dict()}, "seed was 1, is 2"), ({}, "seed was 0, is 2")])
def test_changes_are_those_since_the_checkpoint(tmp_path, metadata, expected):
    write_beginning(Config(), tmp_path, resume=False)
    changed = Config().override({"seed": 2, "devices": 2})
    assert changes_since(Saved(40, 4, 0.5, metadata=metadata), tmp_path, changed) == [expected]
