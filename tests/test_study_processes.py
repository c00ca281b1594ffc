"""A study of real processes: killed, alone and with the run at work, it reports in the end as one that nothing interrupted."""

import json
import os
import re
import signal
import sys
import time
from unittest import mock

import pytest

from tests import small
from tests.test_study import Process, write_text
from wrn_jax import evaluate, study, train
from wrn_jax.report import writing
from wrn_jax.studies import engine
from wrn_jax.training import loop

pytestmark = pytest.mark.slow

EPOCHS = 3
RUNS = ["session04-seed0", "other-seed0", "session04-seed1", "other-seed1"]
CODE = "from wrn_jax.config import load_file\nconfig = load_file('session04').override({'recipe.dropout': 0.1})"
COMMANDS = {"train": train, "evaluate": evaluate}


def run_here(arguments, log, place):
    """Stands in for `engine.start`: runs the command in this process."""
    module = COMMANDS[arguments[0]]
    with mock.patch.object(sys, "argv", [module.__file__, *arguments[1:]]):  # which the records quote
        module.main(arguments[1:])
    return Process(0)


def rows(out, run):
    return small.lines(out / "runs" / run / "metrics.jsonl")


def start_and_kill(arguments, out, run, epochs, with_run):
    """Starts the study and kills it once a run has recorded so many epochs, the run with it if that is asked for."""
    process = small.start("study", *arguments, "--out", out)
    try:
        while len(rows(out, run)) < epochs:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.01)
    finally:
        process.kill()
    if with_run:
        os.kill(small.process_of(out / "runs" / run), signal.SIGKILL)
    process.communicate()


def timeless(out):
    """The report and the figures of a finished study, written anew as if all had taken the same time at the same place."""
    for run in RUNS:
        table = [json.loads(line) | dict.fromkeys(small.TIMINGS, 1.0) for line in rows(out, run)]
        (out / "runs" / run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    study.main(["--out", str(out)])
    figures = re.sub(r'"(time|command)": "[^"]*"', r'"\1": ""', (out / "comparison.json").read_text())
    return [text.replace(str(out), "OUT") for text in ((out / "report.md").read_text(), figures)]


def test_killed_twice_it_reports_as_the_one_nothing_interrupted(tmp_path, monkeypatch):
    (tmp_path / "other.py").write_text(CODE)
    changes = [*small.ARGUMENTS[2:], f"--config.recipe.scale={EPOCHS / 100}"]
    arguments = ["session04", str(tmp_path / "other.py"), "--seeds", "2", *changes]
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    with monkeypatch.context() as patch, small.each_program_once():
        patch.setattr(engine, "start", run_here)
        patch.setattr(writing, "write", write_text)
        patch.setattr(loop, "draw", lambda attempt: None)
        study.main([*arguments, "--out", str(straight)])

    start_and_kill(arguments, killed, RUNS[0], 1, with_run=False)  # which goes on alone
    start_and_kill(arguments, killed, RUNS[1], 2, with_run=True)
    assert 2 <= len(rows(killed, RUNS[1])) < EPOCHS
    process = small.start("study", "--out", killed)
    output, errors = process.communicate(timeout=1200)
    assert process.returncode == 0, errors
    assert "4 of 4 runs are done" in output
    assert (killed / "report.html").exists()
    assert len(small.lines(killed / "runs" / RUNS[1] / "header.jsonl")) == 2

    monkeypatch.setattr(writing, "write", write_text)
    assert timeless(killed) == timeless(straight)
