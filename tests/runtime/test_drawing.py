"""Names of any kind in pictures."""

import pytest

from wrn_jax.runtime.drawing import plain_text


@pytest.mark.parametrize("text", [r"$\foo$", "a $ b $ c", "run 🚀 实验", "a\nb\tc", "\\"])
def test_any_name_is_drawn_as_it_is_and_without_a_warning(tmp_path, text):
    from matplotlib.figure import Figure

    with plain_text():
        figure = Figure()
        figure.suptitle(text)
        figure.savefig(tmp_path / "some.png")
        (title,) = figure.texts
        assert not title.get_parse_math()
