"""The shell scripts: their form, what the supervisor does to a trainer, and the commands that scripts/tpu would run."""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPTS = sorted(Path("scripts").rglob("*.sh"))
SOURCED = {"common.sh", "environment.sh"}
TPU = ("create", "setup", "train", "logs", "fetch", "delete")
SSH = ["gcloud", "compute", "tpus", "tpu-vm", "ssh"]

# What the scripts read; a developer's own settings should not decide a test.
SETTINGS = {"NAME", "PROJECT", "TYPE", "ZONE", "RUNTIME", "SPOT", "BUCKET", "CONFIG", "RUN", "WORKER"}
SETTINGS |= {"TRAIN", "MAX_RESTARTS", "MAX_FAILURES", "FIRST_WAIT_MS"}


def environment(**changes):
    """This process's environment without the scripts' settings, and with `changes`."""
    return {name: value for name, value in os.environ.items() if name not in SETTINGS} | changes


def run(*command, **changes):
    """Runs a command to its end; returns exit code, stdout and stderr."""
    done = subprocess.run(
        [str(word) for word in command], env=environment(**changes), capture_output=True, text=True, timeout=30
    )
    return done.returncode, done.stdout, done.stderr


def wait_for(condition):
    """Waits up to ten seconds until `condition()` is true."""
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen within ten seconds")


def executable(path, text):
    path.write_text(f"#!/usr/bin/env bash\n{text}")
    path.chmod(0o755)
    return path


# Form


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_bash_reads_it(script):
    assert run("bash", "-n", script) == (0, "", "")


def test_the_pytorch_baseline_says_what_it_needs():
    bare = sys.executable, "-S"  # without installed packages
    code, _, said = run(*bare, "scripts/pytorch_baseline.py", "--help")
    assert (code, said.splitlines()) == (2, [said.strip()])
    assert "is not installed: pip install torch " in said


def test_shellcheck_finds_nothing():
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    code, output, _ = run("shellcheck", "--external-sources", *SCRIPTS)
    assert code == 0, output


@pytest.mark.parametrize("script", [script for script in SCRIPTS if script.name not in SOURCED], ids=str)
def test_can_be_executed(script):
    assert os.access(script, os.X_OK)


# The supervisor


@pytest.fixture
def trainer(tmp_path):
    """Makes a trainer that notes its starts in tmp_path/starts and then runs the given lines; `$start` counts them."""

    def make(lines):
        return executable(
            tmp_path / "trainer",
            f"""cd {shlex.quote(str(tmp_path))}
            echo "$*" >>starts
            start="$(wc -l <starts)"
            mkdir -p run/checkpoints
            {lines}
            """,
        )

    return make


def supervise(tmp_path, *arguments, **changes):
    """Runs the supervisor with quick restarts; returns exit code, the arguments of each start, and what was said."""
    changes = {"FIRST_WAIT_MS": "1", "TRAIN": str(tmp_path / "trainer"), **changes}
    code, output, errors = run("scripts/supervise.sh", *arguments, **changes)
    assert output == ""
    starts = tmp_path / "starts"
    return code, starts.read_text().splitlines() if starts.exists() else [], errors.splitlines()


def test_restarts_until_the_run_is_done(trainer, tmp_path):
    trainer("""case "$start" in 1) kill -KILL $$ ;; 2) exit 75 ;; 3) exit 1 ;; esac""")
    code, starts, said = supervise(tmp_path, "--config", "some.py", "--workdir", tmp_path / "run", "--config.seed=1")
    assert code == 0
    assert starts == [f"--config some.py --workdir {tmp_path / 'run'} --config.seed=1 --resume=auto"] * 4
    killed, interrupted, crashed, done = said  # a line each, and none by the shell
    assert killed.startswith("supervise: the trainer ended with exit code 137 (killed by SIGKILL); restart 1 of at ")
    assert "exit code 75 (interrupted, all saved); restart 2 " in interrupted
    assert "exit code 1 (crashed); restart 3 " in crashed
    assert done == "supervise: done"


@pytest.mark.parametrize("code", [2, 3])
def test_passes_on_what_a_restart_does_not_mend(trainer, tmp_path, code):
    trainer(f"exit {code}")
    found, starts, said = supervise(tmp_path, f"--workdir={tmp_path / 'run'}")
    assert (found, len(starts), len(said)) == (code, 1, 1)
    assert f"exit code {code}, " in said[0]


def test_gives_up_without_progress_waiting_twice_as_long_each_time(trainer, tmp_path):
    # What a crash leaves of a checkpoint is no progress.
    trainer('mkdir run/checkpoints/"$start".orbax-checkpoint-tmp; exit 134')
    code, starts, said = supervise(tmp_path, "--workdir", tmp_path / "run")
    assert (code, len(starts), len(said)) == (134, 5, 5)
    assert [line.rsplit(" in ")[-1] for line in said[:4]] == ["1 ms", "2 ms", "4 ms", "8 ms"]
    assert said[4].endswith(" 134 (killed by SIGABRT); giving up, failures in a row without progress: 5")


@pytest.mark.parametrize("progress", ["echo {} >>run/metrics.jsonl", 'mkdir run/checkpoints/"$start"'])
def test_progress_starts_the_counting_and_the_waiting_anew(trainer, tmp_path, progress):
    trainer(f'[ "$start" -lt 9 ] || exit 0; [ $((start % 4)) -ne 0 ] || {progress}; exit 1')
    code, starts, said = supervise(tmp_path, "--workdir", tmp_path / "run")
    assert (code, len(starts)) == (0, 9)
    assert [line.rsplit(" in ")[-1] for line in said[:8]] == [f"{wait} ms" for wait in (1, 2, 4, 1, 2, 4, 8, 1)]


def test_gives_up_after_the_most_restarts(trainer, tmp_path):
    trainer("echo {} >>run/metrics.jsonl; exit 1")
    code, starts, said = supervise(tmp_path, "--workdir", tmp_path / "run", MAX_RESTARTS="7")
    assert (code, len(starts)) == (1, 8)
    assert said[-1].endswith("giving up, restarts so far: 7")


@contextlib.contextmanager
def supervisor(tmp_path, wait_ms="1"):
    """A supervisor under way, whose trainer has started."""
    command = ["scripts/supervise.sh", "--workdir", str(tmp_path / "run")]
    settings = environment(FIRST_WAIT_MS=wait_ms, TRAIN=str(tmp_path / "trainer"))
    # A process group of its own, for the test that signals all of it.
    with subprocess.Popen(command, env=settings, stderr=subprocess.PIPE, text=True, process_group=0) as process:
        try:
            wait_for((tmp_path / "ready").exists)
            yield process
        finally:
            if process.poll() is None:
                process.kill()
                with contextlib.suppress(ProcessLookupError, ValueError, FileNotFoundError):
                    os.kill(int((tmp_path / "ready").read_text()), signal.SIGKILL)


@pytest.mark.parametrize(
    ("number", "trainers_code"),
    [(signal.SIGTERM, 75), (signal.SIGINT, 0), (signal.SIGUSR1, 75), (signal.SIGUSR2, 0)],
)
def test_passes_a_signal_on_once_and_ends_with_the_trainers_code(trainer, tmp_path, number, trainers_code):
    trainer(
        f"""for name in TERM INT USR1 USR2; do trap "echo $name >>signals; sleep 0.1; exit {trainers_code}" "$name"; done
        echo $$ >ready.part; mv ready.part ready
        while true; do sleep 0.01; done"""
    )
    with supervisor(tmp_path) as process:
        process.send_signal(number)
        _, errors = process.communicate(timeout=10)
    assert process.returncode == trainers_code
    assert (tmp_path / "signals").read_text().split() == [number.name.removeprefix("SIG")]
    assert len((tmp_path / "starts").read_text().splitlines()) == 1
    passed, ended = errors.splitlines()
    assert passed == f"supervise: {number.name}: passed to the trainer; waiting for it to end"
    assert ended.startswith("supervise: done" if trainers_code == 0 else f"supervise: stopped by {number.name}, ")


def test_a_signal_to_the_whole_group_reaches_the_trainer_once(trainer, tmp_path):
    """As Ctrl-C on a terminal does. A second signal would make the trainer exit without saving."""
    trainer(
        """trap 'echo INT >>signals' INT
        echo $$ >ready.part; mv ready.part ready
        until [ -e signals ]; do sleep 0.01; done; sleep 0.2; exit 75"""
    )
    with supervisor(tmp_path) as process:
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=10)
    assert process.returncode == 75
    assert (tmp_path / "signals").read_text().split() == ["INT"]


def test_a_signal_while_it_waits_ends_it_at_once(trainer, tmp_path):
    trainer("touch ready; exit 9")
    with supervisor(tmp_path, wait_ms="60000") as process:
        assert process.stderr.readline().endswith("restart 1 of at most 100 in 60000 ms\n")
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 9
    assert [line.split(",")[0] for line in errors.splitlines()] == ["supervise: stopped by SIGTERM"]


def test_a_reader_of_its_output_that_goes_away_does_not_end_it(trainer, tmp_path):
    trainer('[ "$start" -lt 4 ] || exit 2; exit 9')
    settings = environment(FIRST_WAIT_MS="1", TRAIN=str(tmp_path / "trainer"))
    command = ["bash", "-c", 'scripts/supervise.sh --workdir "$0" 2>&1 | true; exit "${PIPESTATUS[0]}"', str(tmp_path / "run")]
    assert subprocess.run(command, env=settings, timeout=20).returncode == 2
    command = ["bash", "-c", 'exec scripts/supervise.sh --workdir "$0" 2>&-', str(tmp_path / "run")]
    assert subprocess.run(command, env=settings, timeout=20).returncode == 2
    assert len((tmp_path / "starts").read_text().splitlines()) == 5


def test_a_trainer_that_is_only_stopped_is_waited_for(trainer, tmp_path):
    trainer('[ "$start" = 1 ] || exit 2; echo $$ >ready.part; mv ready.part ready; kill -STOP $$; exit 0')
    with supervisor(tmp_path) as process:
        time.sleep(0.3)
        os.kill(int((tmp_path / "ready").read_text()), signal.SIGCONT)
        process.communicate(timeout=10)
    assert process.returncode == 0
    assert len((tmp_path / "starts").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "changes", "message"),
    [
        ([], {}, "--workdir DIR is missing; a restart finds there what to continue"),
        (["--config", "some.py"], {}, "--workdir DIR is missing; a restart finds there what to continue"),
        (["--workdir"], {}, "--workdir DIR is missing; a restart finds there what to continue"),
        (["--workdir=x"], {"MAX_RESTARTS": "-1"}, "MAX_RESTARTS=-1: should be a whole number, for example 100"),
        (["--workdir=x"], {"MAX_FAILURES": "07"}, "MAX_FAILURES=07: should be a whole number, for example 5"),
        (["--workdir=x"], {"FIRST_WAIT_MS": "1s"}, "FIRST_WAIT_MS=1s: should be a whole number, for example 1000"),
    ],
)
def test_the_supervisors_own_mistakes_are_one_line(tmp_path, arguments, changes, message):
    assert supervise(tmp_path, *arguments, **changes) == (2, [], [f"supervise: {message}"])


def test_the_supervisor_has_help():
    code, output, errors = run("scripts/supervise.sh", "--help")
    assert (code, errors) == (0, "")
    assert output.startswith("Trains until the run is done")
    assert "FIRST_WAIT_MS" in output


# scripts/tpu


@pytest.fixture
def bare_path(tmp_path):
    """A PATH with the few programs that the scripts need themselves, and no gcloud."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("bash", "env", "basename", "dirname", "sed", "cat"):
        (folder / name).symlink_to(shutil.which(name))
    return str(folder)


def dry_run(path, name, *arguments, **changes):
    """The commands of a dry run, as the lists of words that a shell makes of them."""
    code, output, errors = run(f"scripts/tpu/{name}.sh", "--dry-run", *arguments, PATH=path, **changes)
    assert code == 0, errors
    show = "".join(f'{word}() {{ printf "%s\\0" {word} "$@" "<end>"; }}\n' for word in ("gcloud", "git", "mkdir"))
    code, words, errors = run("bash", "-c", show + output)
    assert (code, errors) == (0, "")
    return [command.split("\0")[:-1] for command in words.split("<end>\0")[:-1]]


def remote(command):
    """What a command of a dry run would do on the workers; some shell there must be able to read it."""
    assert command[:5] == SSH
    text = command[-1].removeprefix("--command=")
    assert run("bash", "-n", "-c", text) == (0, "", "")
    return text


def test_dry_run_of_create(bare_path):
    create, describe = dry_run(bare_path, "create")
    assert create == [
        *["gcloud", "compute", "tpus", "queued-resources", "create", "wrn-jax", "--node-id=wrn-jax"],
        *["--zone=us-central1-a", "--accelerator-type=v5litepod-8", "--runtime-version=v2-alpha-tpuv5-lite", "--spot"],
    ]
    assert describe == [
        *["gcloud", "compute", "tpus", "queued-resources", "describe", "wrn-jax"],
        *["--zone=us-central1-a", "--format=value(state.state)"],
    ]


@pytest.mark.parametrize(
    ("type_", "zone", "runtime"),
    [
        ("v4-8", "us-central2-b", "tpu-ubuntu2204-base"),
        ("v5litepod-16", "us-central1-a", "v2-alpha-tpuv5-lite"),
        ("v5p-8", "us-central1-a", "v2-alpha-tpuv5"),
        ("v6e-1", "us-central1-b", "v2-alpha-tpuv6e"),
    ],
)
def test_zone_and_runtime_follow_the_type(bare_path, type_, zone, runtime):
    create, _ = dry_run(bare_path, "create", TYPE=type_)
    assert {f"--accelerator-type={type_}", f"--zone={zone}", f"--runtime-version={runtime}"} <= set(create)


def test_a_flag_comes_before_the_environment(bare_path):
    arguments = ["--name", "mine", "--zone=europe-west4-b", "--runtime=own", "--spot=0", "--project=p"]
    create, _ = dry_run(bare_path, "create", *arguments, NAME="yours", ZONE="nowhere", PROJECT="q", SPOT="1")
    assert {"mine", "--node-id=mine", "--zone=europe-west4-b", "--runtime-version=own", "--project=p"} <= set(create)
    assert "--spot" not in create


def test_dry_run_of_setup(bare_path):
    make_folder, archive, copy, set_up = dry_run(bare_path, "setup", "--project=p")
    assert make_folder == ["mkdir", "-p", "build"]
    assert archive == ["git", "archive", "--format=tar.gz", "--output=build/wrn_jax.tar.gz", "HEAD"]
    assert copy == [
        *["gcloud", "compute", "tpus", "tpu-vm", "scp", "build/wrn_jax.tar.gz", "wrn-jax:"],
        *["--zone=us-central1-a", "--project=p", "--worker=all"],
    ]
    assert set_up[5:-1] == ["wrn-jax", "--zone=us-central1-a", "--project=p", "--worker=all"]
    text = remote(set_up)
    assert "\ntar -xzf wrn_jax.tar.gz -C wrn_jax\n" in text
    assert "\nscripts/train.sh --help >/dev/null\n" in text  # makes .venv
    assert text.endswith("python -m wrn_jax.prepare --name cifar100 --download")
    assert "gcsfuse" not in text


def test_dry_run_of_setup_with_a_bucket(bare_path):
    check, *_, set_up = dry_run(bare_path, "setup", "--bucket=gs://some-bucket/")
    assert check == [
        *["gcloud", "storage", "buckets", "describe", "gs://some-bucket", "--raw"],
        "--format=value(hierarchicalNamespace.enabled)",
    ]
    assert "install gcsfuse\n" in remote(set_up)


def test_dry_run_of_train_on_one_host(bare_path):
    further = ["--config.seed=1", "--config.recipe.dropout.epoch 51=0.2"]
    (start,) = dry_run(bare_path, "train", "--type=v6e-8", "--", *further)
    assert start[5:-1] == ["wrn-jax", "--zone=us-central1-b", "--worker=all"]
    text = remote(start)
    line = (
        "scripts/supervise.sh --config configs/session04.py --workdir runs/session04"
        " --config.seed=1 '--config.recipe.dropout.epoch 51=0.2' >>session04.log 2>&1 </dev/null &\n"
    )
    assert line in text
    assert "nohup setsid " in text
    assert "gcsfuse" not in text


def test_dry_run_of_train_on_several_hosts(bare_path):
    arguments = ["--type=v5p-16", "--bucket=some-bucket", "--config=configs/session02.py", "--run=second"]
    text = remote(*dry_run(bare_path, "train", *arguments))
    assert "scripts/supervise.sh --config configs/session02.py --workdir runs/second --distributed >>second.log" in text
    assert "mountpoint -q runs || gcsfuse " in text
    assert " some-bucket runs\n" in text


def test_dry_run_of_logs(bare_path):
    assert dry_run(bare_path, "logs", "--worker=all", "--run=second") == [
        [*SSH, "wrn-jax", "--zone=us-central1-a", "--worker=all", "--command=tail -n 100 -F wrn_jax/second.log"]
    ]


def test_dry_run_of_fetch(bare_path):
    assert dry_run(bare_path, "fetch") == [
        ["mkdir", "-p", "runs"],
        [
            *["gcloud", "compute", "tpus", "tpu-vm", "scp", "--recurse", "wrn-jax:wrn_jax/runs/session04", "runs/"],
            *["--zone=us-central1-a", "--worker=0"],
        ],
    ]
    assert dry_run(bare_path, "fetch", BUCKET="some-bucket") == [
        ["mkdir", "-p", "runs/session04"],
        ["gcloud", "storage", "rsync", "--recursive", "gs://some-bucket/session04", "runs/session04"],
    ]


def test_dry_run_of_delete(bare_path):
    assert dry_run(bare_path, "delete") == [
        ["gcloud", "compute", "tpus", "queued-resources", "delete", "wrn-jax", "--zone=us-central1-a", "--force"]
    ]


@pytest.mark.parametrize("name", TPU)
def test_help_names_the_settings(bare_path, name):
    code, output, errors = run(f"scripts/tpu/{name}.sh", "--help", PATH=bare_path)
    assert (code, errors) == (0, "")
    assert f"scripts/tpu/{name}.sh" in output
    for setting in ("--name", "--type", "--dry-run"):
        assert f"  {setting} " in output


@pytest.mark.parametrize("name", TPU)
@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--nonsense=1", "--nonsense: no such flag; --help shows all"),
        ("nonsense", "nonsense: no such flag; --help shows all"),
        ("--zone", "--zone: needs a value"),
        ("--type=v7-8", "TYPE=v7-8: should be v4-N, v5litepod-N, v5p-N or v6e-N"),
        ("--name=a;b", "NAME=a;b: should be small letters, digits and dashes"),
    ],
)
def test_mistakes_are_one_line(bare_path, name, argument, message):
    found = run(f"scripts/tpu/{name}.sh", "--dry-run", argument, PATH=bare_path)
    assert found == (2, "", f"{name}.sh: {message}\n")


@pytest.mark.parametrize(
    ("name", "argument", "message"),
    [
        ("create", "--spot=yes", "SPOT=yes: should be 0 or 1"),
        ("setup", "--bucket=gs://a/b", "BUCKET=a/b: should be the name of a bucket, without a folder"),
        ("train", "--run=../x", "RUN=../x: should be letters, digits and -_."),
        ("train", "--config=configs/none.py", "CONFIG=configs/none.py: no such file in the project"),
        ("train", "--type=v4-16", "TYPE=v4-16: has several hosts, which need a BUCKET between them; see --help"),
        ("logs", "--worker=first", "WORKER=first: should be a number or all"),
        ("logs", "--", "--: nothing can follow; --help shows all flags"),
    ],
)
def test_mistakes_of_one_script_are_one_line(bare_path, name, argument, message):
    found = run(f"scripts/tpu/{name}.sh", "--dry-run", argument, PATH=bare_path)
    assert found == (2, "", f"{name}.sh: {message}\n")


@pytest.mark.parametrize("name", TPU)
def test_without_gcloud_it_says_where_to_get_it(bare_path, name):
    code, output, errors = run(f"scripts/tpu/{name}.sh", PATH=bare_path)
    assert (code, output) == (2, "")
    assert errors.startswith(f"{name}.sh: gcloud is not installed (https://")
    assert errors.count("\n") == 1


@pytest.fixture
def gcloud(tmp_path):
    """Makes a gcloud of the given lines and returns a PATH that has it in front."""

    def make(lines):
        folder = tmp_path / "fake"
        folder.mkdir()
        executable(folder / "gcloud", lines)
        return f"{folder}:{os.environ['PATH']}"

    return make


@pytest.mark.parametrize(("state", "expected"), [("ACTIVE", 0), ("SUSPENDED", 1)])
def test_create_asks_once_and_waits_for_an_end(gcloud, tmp_path, state, expected):
    asked = shlex.quote(str(tmp_path / "asked"))
    path = gcloud(f"""case "$4" in
    create) touch {asked} ;;
    describe) [ -e {asked} ] || exit 1; echo {state} ;;
    esac""")
    code, _, errors = run("scripts/tpu/create.sh", PATH=path)
    assert code == expected
    assert errors.splitlines()[0] == f"create.sh: wrn-jax is {state}"
    assert (tmp_path / "asked").exists()


def test_setup_refuses_a_bucket_without_folders(gcloud):
    code, output, errors = run("scripts/tpu/setup.sh", "--bucket=flat", PATH=gcloud("echo False"))
    assert (code, output) == (2, "")
    assert errors.startswith("setup.sh: gs://flat: has no hierarchical namespace; ")
    assert errors.count("\n") == 1


def test_a_run_on_a_worker_outlives_the_connection_and_is_alone(gcloud, tmp_path):
    """The remote command for real, with this machine as the worker, and a supervisor that waits to be ended."""
    home = tmp_path / "home"
    (home / "wrn_jax" / "scripts").mkdir(parents=True)
    executable(
        home / "wrn_jax" / "scripts" / "supervise.sh",
        """echo "$PYTHON $WRN_JAX_HARDWARE $*"
        until [ -e enough ]; do sleep 0.01; done""",
    )
    (home / ".local" / "bin").mkdir(parents=True)
    executable(home / ".local" / "bin" / "uv", "echo the-python")
    # As sshd does: the command in a session of its own, whose processes are all told when the connection ends.
    path = gcloud(
        f"""for word; do case "$word" in --command=*) command="${{word#--command=}}" ;; esac; done
        HOME={shlex.quote(str(home))} setsid --wait bash -c "$command" """
    )
    try:
        code, output, errors = run("scripts/tpu/train.sh", "--", "it's one word", PATH=path)
        assert code == 0, errors
        assert "started; it writes to ~/wrn_jax/session04.log" in output
        log = home / "wrn_jax" / "session04.log"
        wait_for(lambda: log.exists() and log.read_text())
        said = "the-python tpu --config configs/session04.py --workdir runs/session04 it's one word\n"
        assert log.read_text() == said
        code, output, errors = run("scripts/tpu/train.sh", PATH=path)
        assert (code, output) == (1, "")
        assert errors.splitlines()[-1].endswith(": a run is going on already")
    finally:
        (home / "wrn_jax" / "enough").touch()


def test_python_may_lie_in_a_folder_with_a_space_and_a_gpu_is_found_however_it_is_listed(tmp_path):
    folder = tmp_path / "my python"
    folder.mkdir()
    executable(folder / "python", f'exec {shlex.quote(sys.executable)} "$@"')
    executable(folder / "nvidia-smi", "echo 'GPU 0: one'; sleep 0.2; echo 'GPU 1: two'")
    command = "set -euo pipefail; source scripts/environment.sh; find_python; find_hardware"
    given = os.environ | {"PYTHON": str(folder / "python"), "PATH": f"{folder}:{os.environ['PATH']}"}
    given.pop("WRN_JAX_HARDWARE", None)
    done = subprocess.run(["bash", "-c", command], env=given, capture_output=True, text=True)
    assert (done.stdout.splitlines(), done.stderr) == ([str(folder / "python"), "cuda12"], "")


@pytest.mark.parametrize(
    ("present", "user", "works"), [("chromium", 0, 1), ("google-chrome", 0, 1), ("", 0, 1), ("", 0, 0), ("", 7, 1)]
)
def test_root_gets_a_browser_for_the_tests(bare_path, tmp_path, present, user, works):
    folder = tmp_path / "bin"
    executable(folder / "id", f"echo {user}")
    executable(folder / "apt-get", f'echo "$*" >>{tmp_path / "asked"}; [ "$1 {works}" != "install 0" ]')
    if present:
        executable(folder / present, "")
    # No Python is there, so nothing happens after it.
    code, output, errors = run("scripts/test.sh", PATH=bare_path, PYTHON="none")
    assert code == 2
    asked = (tmp_path / "asked").read_text() if (tmp_path / "asked").exists() else ""
    if present or user:
        assert (asked, output) == ("", "")
    else:
        assert asked.splitlines() == ["update -qq", "install -qq --no-install-recommends chromium"]
        assert output == "installing chromium, for the tests of reports in a browser ...\n"
    assert ("could not be installed" in errors) == (not works)
