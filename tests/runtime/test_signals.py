"""Noticing signals without dying of them, and dying of the second."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from wrn_jax.runtime.signals import StopRequest


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_notices_a_signal_and_restores_the_handlers(name):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with StopRequest() as stop:
        assert stop.received(0) == ""
        os.kill(os.getpid(), getattr(signal, name))
        assert stop.received(1) == name
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


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
