"""Noticing signals without dying of them, and dying of the second."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from wrn_jax.runtime import entry
from wrn_jax.runtime.errors import Diverged
from wrn_jax.runtime.signals import StopRequest


@pytest.mark.parametrize("number", entry.SIGNALS)
def test_notices_a_signal_and_restores_the_handlers(number):
    before = [signal.getsignal(number) for number in entry.SIGNALS]
    with StopRequest() as stop:
        assert stop.received(0) == ""
        os.kill(os.getpid(), number)
        assert stop.pending() == stop.received(1) == number.name
    assert [signal.getsignal(number) for number in entry.SIGNALS] == before


def test_what_ends_otherwise_leaves_the_signal_to_those_who_come_after():
    def diverge():
        with StopRequest():
            os.kill(os.getpid(), signal.SIGINT)
            raise Diverged("no longer finite")

    with pytest.raises(KeyboardInterrupt):
        diverge()


def test_in_a_command_the_exit_code_stays_once_all_is_saved():
    code = (
        "import os, signal, time; from wrn_jax.runtime import entry; entry.begin('some')\n"
        "from wrn_jax.runtime.signals import StopRequest\n"
        "with StopRequest() as stop:\n"
        "    os.kill(os.getpid(), signal.SIGUSR1)\n"
        "    while not stop.received(0): time.sleep(0.01)\n"
        "os.kill(os.getpid(), signal.SIGTERM); time.sleep(0.1); print(stop.received(1), flush=True)\n"
        "with StopRequest():\n"
        "    os.kill(os.getpid(), signal.SIGTERM); time.sleep(1.1); os.kill(os.getpid(), signal.SIGTERM); time.sleep(5)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGTERM, "SIGUSR1\n", "")


def test_a_second_signal_ends_the_process():
    code = (
        "import os, signal, time; from wrn_jax.runtime.signals import StopRequest\n"
        "with StopRequest():\n"
        "    os.kill(os.getpid(), signal.SIGTERM); os.kill(os.getpid(), signal.SIGTERM); print('still here', flush=True)\n"
        "    time.sleep(1.1); os.kill(os.getpid(), signal.SIGTERM)\n"
        "print('too far')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, "still here\n")


def test_a_second_signal_leaves_an_interactive_session_alive(monkeypatch):
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    ticks = iter([10.0, 12.0])
    monkeypatch.setattr("wrn_jax.runtime.signals.time.monotonic", lambda: next(ticks))
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.received(0) == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_is_harmless_on_another_thread():
    found = []

    def enter():
        with StopRequest() as stop:
            found.append(stop.received(0))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == [""]
