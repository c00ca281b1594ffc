"""One rule for the paths that a user names."""

from pathlib import Path

import pytest

from wrn_jax.runtime.errors import UserError
from wrn_jax.runtime.files import user_path


def test_the_home_folder_and_all_else_as_it_is(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/runs/a") == tmp_path / "runs/a"
    assert user_path("runs/~a $x") == Path("runs/~a $x")
    assert user_path(Path("ü")) == Path("ü")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gs://bucket/run", "is a remote path"),
        (Path("s3://bucket"), "is a remote path"),
        ("", "is no path"),
        ("a\0b", "is no path"),
        ("runs/\udcfc", "PYTHONUTF8=1"),
        ("~nobody-of-this-name/x", "no such user"),
    ],
)
def test_what_no_file_can_be_is_one_printable_line(text, message):
    with pytest.raises(UserError, match=message) as error:
        user_path(text)
    assert str(error.value).isprintable()
