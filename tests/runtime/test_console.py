"""What a command says while it works."""

from wrn_jax.runtime import console


def test_waiting_tells_the_elapsed_time(capsys):
    with console.waiting("compiling", interval=0.0):
        while "... 0s" not in (text := capsys.readouterr().err):
            assert text in ("", "compiling ...\n")
    assert capsys.readouterr().err.endswith("done in 0s\n")
