"""Lines, durations and live progress, on a terminal and without one."""

import math

import pytest

from wrn_jax.runtime import console


@pytest.mark.parametrize(("seconds", "text"), [(0, "0s"), (59.4, "59s"), (61, "1m01s"), (3599.6, "1h00m"), (7620, "2h07m")])
def test_durations(seconds, text):
    assert console.format_duration(seconds) == text


def test_progress_without_a_terminal_speaks_now_and_then(capsys):
    with console.Progress("epoch 1/2", 3, "step", interval=0.0) as progress:
        for loss in (4.0, 3.0, 2.0):
            progress.advance(note=f"loss {loss:.3f}")
    output = capsys.readouterr().out.splitlines()
    assert output == [f"epoch 1/2: step {n}/3, loss {loss:.3f}" for n, loss in ((1, 4.0), (2, 3.0), (3, 2.0))]
    with console.Progress("epoch 1/2", 3, "step", active=False, interval=0.0) as progress:
        progress.advance()
    assert capsys.readouterr().out == ""


class TestProgress:
    def test_lines_with_the_time_left(self, capsys, monkeypatch):
        ticks = iter([0, 10, 20, 45, 50])
        with monkeypatch.context() as patch:
            patch.setattr(console.time, "monotonic", lambda: next(ticks))
            with console.Progress("train images", 10, "image", interval=15) as progress:
                for count in (1, 3, 2, 4):
                    progress.advance(count)
        assert capsys.readouterr().out.splitlines() == ["train images: 4 of 10, 30s left", "train images: 6 of 10, 30s left"]

    def test_nothing_when_it_is_quick(self, capsys):
        with console.Progress("train images", 10, "image", interval=math.inf) as progress:
            progress.advance(10)
        assert capsys.readouterr() == ("", "")

    def test_a_bar_on_a_terminal(self, capsys, monkeypatch):
        monkeypatch.setattr("wrn_jax.runtime.console.is_terminal", lambda: True)
        with console.Progress("train images", 10, "image") as progress:
            progress.advance(10)
        output, errors = capsys.readouterr()
        assert output == ""
        assert "train images" in errors


def test_waiting_tells_the_elapsed_time(capsys):
    with console.waiting("compiling", interval=0.0):
        while "... 0s" not in (text := capsys.readouterr().err):
            assert text in ("", "compiling ...\n")
    assert capsys.readouterr().err.endswith("done in 0s\n")
