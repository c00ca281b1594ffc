"""What a command does before its imports: streams that never fail, signals that always end it, packages that do not load."""

import os
import signal
import subprocess
import sys

import pytest

from wrn_jax.runtime import entry

BEGIN = "import os, signal, sys, time\nfrom wrn_jax.runtime import entry\nentry.begin('some')\n"


def run(code, shell='exec "$@"', **options):
    """Runs Python code that has begun as a command, by these words of a shell; exit code, standard output and error."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    command = ["bash", "-c", shell, "bash", sys.executable, "-c", BEGIN + code]
    done = subprocess.run(command, text=True, encoding="utf-8", timeout=20, **options)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("number", entry.SIGNALS)
def test_a_signal_ends_it_in_one_line_also_where_an_exception_would_be_swallowed(number):
    code = (
        "class Callback:\n"
        "    def __del__(self):\n"
        f"        os.kill(os.getpid(), {int(number)}); time.sleep(5)\n"
        "Callback(); print('went on')"
    )
    text = "interrupted" if number == signal.SIGINT else f"interrupted by {number.name}"
    assert run(code) == (128 + number, "", f"some: {text}\n")


def test_a_hang_up_that_is_ignored_stays_ignored():
    code = "os.kill(os.getpid(), signal.SIGHUP); time.sleep(0.1); print('went on')"
    assert run(code, """trap '' HUP; exec "$@" """) == (0, "went on\n", "")


def test_what_has_to_be_cleaned_up_is():
    code = (
        "try:\n"
        "    with entry.unwinding():\n"
        "        os.kill(os.getpid(), signal.SIGTERM); time.sleep(5)\n"
        "except KeyboardInterrupt as error: print(error.args)"
    )
    assert run(code) == (0, "(15,)\n", "")


def test_a_decided_exit_code_stays():
    assert run("entry.listener().settle(75); os.kill(os.getpid(), signal.SIGTERM); time.sleep(5)") == (75, "", "")


LINES = "for _ in range(9): print('x' * 9000, flush=True)\nprint('y', file=sys.stderr)\n"


def test_output_that_nobody_reads_ends_nothing():
    reader, writer = os.pipe()
    os.close(reader)
    assert run(LINES + "sys.exit(bool(entry.lost_output()))", stdout=writer)[::2] == (0, "y\n")
    os.close(writer)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_a_full_device_ends_nothing_and_is_remembered():
    with open("/dev/full", "w") as full:
        assert run(LINES + "print(entry.lost_output(), file=sys.stderr)", stdout=full)[::2] == (
            0,
            "y\nNo space left on device\n",
        )
        assert run(LINES, stderr=full)[0] == 0


def test_closed_streams_end_nothing_and_no_file_takes_their_place():
    code = LINES + "file = open('/dev/null'); sys.exit(file.fileno() <= 2)"
    assert run(code, 'exec "$@" <&- >&- 2>&-') == (0, "", "")


def test_characters_that_cannot_be_encoded():
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    assert run("print('▁▄█ → ü')", env=environment) == (0, ".=# > \\xfc\n", "")


def test_a_package_that_cannot_be_loaded_is_one_line():
    code, output, errors = run("raise ImportError('cannot map\\nsegment')")
    assert (code, output) == (2, "")
    assert errors.startswith("some: a package cannot be loaded: cannot map segment; is there too little memory (ulimit -v)")
    assert errors.count("\n") == 1
    code, _, errors = run("1 / 0")
    assert code == 1
    assert "ZeroDivisionError" in errors


def test_too_few_addresses_are_refused_before_anything_aborts():
    code, output, errors = run("print('went on')", 'ulimit -v 1500000; exec "$@"')
    assert (code, output) == (2, "")
    assert errors == "some: memory is limited to 1.4 GiB (ulimit -v); JAX needs 2 GiB or more\n"
    assert run("print('went on')", 'ulimit -v 3000000; exec "$@"') == (0, "went on\n", "")
