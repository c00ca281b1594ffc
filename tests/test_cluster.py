"""What `scripts/cluster` has for containers, Slurm and Kubernetes, as far as it goes without them."""

import math
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from wrn_jax import train

CLUSTER = Path("scripts/cluster")
EXTRAS = tomllib.loads(Path("pyproject.toml").read_text())["project"]["optional-dependencies"]


def understood(monkeypatch, arguments, folder):
    """What the training command makes of these arguments, whose work directory is in `folder`."""
    called = []
    monkeypatch.setattr("wrn_jax.training.loop.train", lambda *words, **_: called.append(words))
    monkeypatch.setattr(train.devices, "start_processes", lambda *words: None)
    monkeypatch.setattr(train, "closing_lines", lambda summary: [])
    train.main([word.replace("/runs", str(folder)) for word in arguments])
    return called[0]


def test_the_image_is_made_of_files_and_extras_that_are_there():
    text = (CLUSTER / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    words = {line.split()[0] for line in lines}
    assert words == {"FROM", "ARG", "WORKDIR", "COPY", "RUN", "USER", "ENV", "STOPSIGNAL", "ENTRYPOINT", "CMD"}
    for line in lines:
        if line.startswith("COPY"):
            assert all(Path(source).exists() for source in line.split()[1:-1]), line
    accepted = re.search(r"# (cpu, .*)\nARG HARDWARE", text)[1]
    assert {"cpu", "cuda12", "cuda13", "tpu"} == set(re.findall(r"\b[a-z]+[0-9]*\b", re.sub(r"\(.*?\)", "", accepted))) - {"or"}
    assert {"cpu", "cuda12", "cuda13", "tpu", "export"} <= EXTRAS.keys()


@pytest.mark.parametrize(("code", "tasks", "requeued"), [(75, 1, True), (0, 2, False), (2, 1, False), (3, 1, False)])
def test_slurm_requeues_what_was_interrupted_and_nothing_else(tmp_path, code, tasks, requeued):
    """srun and scontrol are stand-ins."""
    for name, end in (("srun", code), ("scontrol", 0)):
        path = tmp_path / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>"{tmp_path}/calls"\nexit {end}\n')
        path.chmod(0o755)
    script, words = CLUSTER / "train.sbatch", ["--config", "session04", "--workdir", "a b"]
    found = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "SLURM_NTASKS": str(tasks)}
    done = subprocess.run([script, *words], env=os.environ | found, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, "")
    first, *rest = (tmp_path / "calls").read_text().splitlines()
    distributed = "--distributed " * (tasks > 1)
    assert first.endswith(f"python -m wrn_jax.train {distributed}--resume=auto --config session04 --workdir a b")
    assert rest == ["scontrol requeue 7"] * requeued


@pytest.mark.parametrize("name", ["job-gpu", "jobset-tpu"])
def test_the_manifests_hold_together(name, monkeypatch, tmp_path):
    yaml = pytest.importorskip("yaml")
    manifest = yaml.safe_load((CLUSTER / f"{name}.yaml").read_text())
    is_set = manifest["kind"] == "JobSet"
    job = manifest["spec"]["replicatedJobs"][0]["template"]["spec"] if is_set else manifest["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["restartPolicy"] == "Never"  # what a policy for exit codes needs
    rules = [(rule["action"], rule["onExitCodes"]) for rule in job["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    assert {exits["containerName"] for _, exits in rules} == {container["name"]}
    by_code = {code: action for action, exits in rules for code in exits["values"]}
    assert by_code == {2: "FailJob", 3: "FailJob"} | ({} if is_set else {75: "Ignore"})
    assert [mount["name"] for mount in container["volumeMounts"]] == [volume["name"] for volume in pod["volumes"]]
    command, *words = container["args"]
    assert command == "train"
    _, workdir, resume, *_ = understood(monkeypatch, words, tmp_path)
    assert (workdir, resume) == (tmp_path / "session04", False)
    if is_set:
        chips = math.prod(map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")))
        assert job["parallelism"] == job["completions"] == chips // container["resources"]["limits"]["google.com/tpu"]
        assert job["backoffLimit"] == 0
        assert "--distributed" in words
