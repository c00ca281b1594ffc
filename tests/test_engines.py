"""Studies on clusters: what Ray and submitit are asked for, and what is made of their answers.

Both are stood in for by modules that speak the same calls; one test each asks the real one. What a study does with a command
that has ended is tested in test_study.py.
"""

import importlib
import os
import signal
import sys
import time
import types

import pytest

from tests import small
from wrn_jax import study
from wrn_jax.runtime.errors import UserError
from wrn_jax.studies import clusters
from wrn_jax.studies.engine import Place

COMMAND = ["train", "--config", "session04", "--workdir", "out/runs/a-seed0", "--resume=auto"]


class Ray(types.ModuleType):
    """A cluster of two machines, one with two GPUs. A task's answer is what the test puts into `answers`, by number."""

    class exceptions:
        class TaskCancelledError(Exception):
            pass

    def __init__(self):
        super().__init__("ray")
        self.asked, self.tasks, self.answers, self.is_there = [], [], {}, True

    def is_initialized(self):
        return False

    def init(self, **options):
        if not self.is_there:
            raise ConnectionError
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))

    def nodes(self):
        gpus = {"Alive": True, "Resources": {"CPU": 16.0, "GPU": 2.0}}
        return [{"Alive": False, "Resources": {"TPU": 8.0}}, {"Alive": True, "Resources": {"CPU": 4.0}}, gpus]

    def remote(self, function):
        assert function is clusters.run_here
        return self

    def options(self, **wanted):
        if "speed" in wanted:
            raise ValueError("Invalid option keyword: 'speed'")
        self.asked.append(wanted)
        ray = self

        class Function:
            def remote(self, *arguments):
                ray.tasks.append(arguments)
                return len(ray.tasks) - 1

        return Function()

    def wait(self, references, timeout):
        assert timeout == 0
        return [reference for reference in references if reference in self.answers], []

    def get(self, reference):
        if isinstance(self.answers[reference], Exception):
            raise self.answers[reference]
        return self.answers[reference]

    def cancel(self, reference):
        self.answers[reference] = self.exceptions.TaskCancelledError()


class Submitit(types.ModuleType):
    """Jobs that end when the test says so."""

    def __init__(self):
        super().__init__("submitit")
        self.jobs, self.made, self.is_there = [], {}, True

    def AutoExecutor(self, **made):
        if not self.is_there:
            raise RuntimeError('Could not detect "srun", are you indeed on a slurm cluster?')
        self.made |= made
        return self

    def update_parameters(self, **parameters):
        if "speed" in parameters:
            raise NameError("Unknown argument\n'speed'")
        self.made |= parameters

    def submit(self, function, *arguments):
        assert function is clusters.run_here
        self.jobs.append(SlurmJob(arguments))
        return self.jobs[-1]


class SlurmJob:
    def __init__(self, arguments):
        self.arguments, self.state, self.answer, self.cancelled = arguments, "PENDING", None, False

    def done(self):
        return self.answer is not None

    def exception(self):
        return self.answer if isinstance(self.answer, Exception) else None

    def result(self):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def cancel(self, check):
        self.cancelled, self.answer, self.state = True, RuntimeError("no result"), "CANCELLED by 0"


@pytest.fixture
def ray(monkeypatch):
    module = Ray()
    monkeypatch.setitem(sys.modules, "ray", module)
    return module


@pytest.fixture
def submitit(monkeypatch):
    module = Submitit()
    monkeypatch.setitem(sys.modules, "submitit", module)
    return module


def test_a_run_is_a_task_of_ray_that_asks_for_its_device(ray, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", "/shared/data")
    handler = signal.getsignal(signal.SIGTERM)
    start = clusters.find("ray", [], tmp_path)
    assert signal.getsignal(signal.SIGTERM) is handler
    clusters.find("ray", ["num_cpus=4", 'resources={"TPU": 4}'], tmp_path)
    assert ray.asked == [
        {"max_retries": -1, "num_gpus": 1},
        {"max_retries": -1, "num_cpus": 4, "resources": {"TPU": 4}},
    ]
    job = start(COMMAND, tmp_path / "log", Place())
    ((arguments, log, folder, environment),) = ray.tasks
    assert (arguments, log, folder) == (COMMAND, str(tmp_path / "log"), os.getcwd())
    assert environment["TFDS_DATA_DIR"] == "/shared/data"
    assert job.poll() is None
    ray.answers[0] = 3
    assert (job.poll(), job.returncode) == (3, 3)


def test_where_no_gpu_is_a_run_asks_for_all_of_the_smallest_machine():
    def nodes(*resources):
        return [{"Alive": True, "Resources": each} for each in resources]

    assert clusters._devices(nodes({"CPU": 8.0}, {"CPU": 2.0}, {})) == {"num_cpus": 2}
    assert clusters._devices(nodes({"CPU": 8.0}, {"CPU": 96.0, "TPU": 4.0})) == {"resources": {"TPU": 4}}


def test_what_others_interrupt_is_submitted_anew_and_what_the_study_does_is_not(ray, tmp_path):
    job = clusters.find("ray", [], tmp_path)(COMMAND, tmp_path / "log", Place())
    ray.answers[0] = 75
    assert job.poll() is None
    assert len(ray.tasks) == 2
    job.terminate()
    assert job.poll() == 75
    assert len(ray.tasks) == 2


def test_an_error_of_the_engine_is_a_failure_that_the_log_tells(ray, tmp_path):
    job = clusters.find("ray", [], tmp_path)(COMMAND, tmp_path / "log", Place())
    ray.answers[0] = OSError("no\nway")
    assert job.poll() == 1
    assert (tmp_path / "log").read_text() == "the engine: OSError: no way\n"


def test_a_job_that_cannot_be_submitted_is_a_failure_that_the_log_tells(submitit, tmp_path, monkeypatch):
    def refuse(*_):
        raise RuntimeError("sbatch: error: QOSMaxSubmitJobPerUserLimit")

    start = clusters.find("slurm", [], tmp_path)
    later = start(COMMAND, tmp_path / "later", Place())
    monkeypatch.setattr(submitit, "submit", refuse)
    job = start(COMMAND, tmp_path / "log", Place())
    job.terminate()
    assert job.poll() == 1
    submitit.jobs[0].answer = 75  # interrupted by others, so it is to be submitted anew
    assert [later.poll(), later.poll()] == [None, 1]
    for name in ("log", "later"):
        assert (tmp_path / name).read_text() == "the engine: RuntimeError: sbatch: error: QOSMaxSubmitJobPerUserLimit\n"


def test_a_run_is_a_job_of_slurm(submitit, tmp_path):
    start = clusters.find("slurm", ["slurm_partition=gpu", "gpus_per_node=1", "timeout_min=90"], tmp_path)
    assert submitit.made == {
        "folder": tmp_path / "logs" / "slurm", "cluster": "slurm", "name": "wrn_jax", "timeout_min": 90,
        "slurm_partition": "gpu", "gpus_per_node": 1,
    }  # fmt: skip
    job = start(COMMAND, tmp_path / "log", Place())
    assert submitit.jobs[0].arguments == (COMMAND, str(tmp_path / "log"), os.getcwd(), {})
    assert job.poll() is None
    # Its machine is gone, and so is the one after it; then its time is over, and the run has saved.
    for state, answer in (("NODE_FAIL", RuntimeError("no result")), ("PREEMPTED", RuntimeError("no result")), ("", 75)):
        submitit.jobs[-1].state, submitit.jobs[-1].answer = state, answer
        assert job.poll() is None
    assert len(submitit.jobs) == 4
    job.terminate()
    assert submitit.jobs[-1].cancelled
    assert job.poll() == 1
    assert "the engine: RuntimeError: no result" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(("arguments", "message"), [
    (["--engine", "slurm"], "--engine slurm: Could not detect \"srun\""),
    (["--engine", "ray"], "--engine ray: no cluster; ray start --head begins one"),
    (["--engine-options", "num_gpus=1"], "--engine-options goes with --engine ray or slurm"),
])  # fmt: skip
def test_a_cluster_that_is_not_there_is_said_in_a_line(ray, submitit, tmp_path, arguments, message):
    ray.is_there = submitit.is_there = False
    with pytest.raises(UserError, match=message):
        study.main(["session04", "--out", str(tmp_path / "out"), *arguments])
    assert not (tmp_path / "out/study.json").exists()


@pytest.mark.parametrize(("name", "option", "message"), [
    ("ray", "speed=1", "--engine-options: Invalid option keyword: 'speed'"),
    ("slurm", "speed=1", "--engine-options: Unknown argument 'speed'"),
    ("slurm", "speed", "--engine-options speed: should be KEY=VALUE"),
])  # fmt: skip
def test_an_engine_refuses_what_it_does_not_know(ray, submitit, tmp_path, name, option, message):
    with pytest.raises(UserError, match=message):
        clusters.find(name, [option], tmp_path)


def test_an_engine_that_is_not_installed_is_named(monkeypatch, tmp_path):
    for name, extra in (("ray", "ray"), ("submitit", "slurm")):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(UserError, match=rf"needs the package {name}: pip install 'wrn_jax\[{extra}\]'"):
            clusters.find(extra, [], tmp_path)


def test_a_machine_of_the_cluster_runs_the_command_in_the_folder(tmp_path, monkeypatch):
    code = "import os, sys; print(os.getcwd(), os.environ['TFDS_DATA_DIR']); sys.exit(3)"
    monkeypatch.setattr(clusters, "command_line", lambda arguments: [sys.executable, "-c", code])
    handlers = [signal.getsignal(number) for number in clusters.PASSED_BY]
    try:
        assert clusters.run_here(COMMAND, str(tmp_path / "log"), str(tmp_path), {"TFDS_DATA_DIR": "here"}) == 3
    finally:
        for number, handler in zip(clusters.PASSED_BY, handlers, strict=True):
            signal.signal(number, handler)
    assert (tmp_path / "log").read_text() == f"{tmp_path} here\n"


def wait_until(is_so):
    for _ in range(6000):
        if is_so():
            return
        time.sleep(0.1)
    raise AssertionError("ten minutes have passed")


def training(workdir):
    """A command that trains for twenty epochs of four updates."""
    shorter = ["--config.recipe.scale=0.2", "--config.data.embedded_train=260"]
    return ["train", *small.ARGUMENTS, *shorter, "--workdir", str(workdir), "--resume=auto"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what submitit leaves to the collector
def test_a_job_that_is_told_to_make_room_goes_on_in_the_next(tmp_path):
    """By submitit's own executor on this machine. The signal is Slurm's, some time before the job's is over."""
    start = clusters.find("slurm", ["cluster=local", "timeout_min=20"], tmp_path)
    job = start(training(tmp_path / "run"), tmp_path / "log", Place())
    wait_until(lambda: len(small.lines(tmp_path / "run/metrics.jsonl")) > 1)
    os.kill(small.process_of(tmp_path / "run"), signal.SIGUSR2)
    wait_until(lambda: job.poll() is not None)
    assert job.returncode == 0
    assert len(small.lines(tmp_path / "run/header.jsonl")) == 2
    assert len(small.lines(tmp_path / "run/metrics.jsonl")) == 20


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what Ray leaves to the collector
def test_a_run_whose_machine_is_gone_goes_on_at_another(tmp_path, monkeypatch):
    """By Ray, on a cluster of two nodes that are made up on this machine; one is killed."""
    cluster_utils = importlib.import_module("ray.cluster_utils")
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        node = cluster.add_node(num_cpus=1)
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        job = clusters.find("ray", [], tmp_path)(training(tmp_path / "run"), tmp_path / "log", Place())
        wait_until(lambda: len(small.lines(tmp_path / "run/metrics.jsonl")) > 1)
        cluster.add_node(num_cpus=1)
        cluster.remove_node(node, allow_graceful=False)
        wait_until(lambda: job.poll() is not None)
        assert job.returncode == 0
        assert len(small.lines(tmp_path / "run/header.jsonl")) == 2
        assert len(small.lines(tmp_path / "run/metrics.jsonl")) == 20
    finally:
        importlib.import_module("ray").shutdown()
        cluster.shutdown()
