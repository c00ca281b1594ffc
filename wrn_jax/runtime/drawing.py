"""Pictures by matplotlib, whose text is whatever a user calls things."""

import contextlib
import warnings
from collections.abc import Generator


@contextlib.contextmanager
def plain_text(formulas: bool = False) -> Generator[None]:
    """Text in pictures made here stands as it is: a `$` begins no formula, and what the font lacks is a box without a warning.

    With `formulas` a `$` does begin one, where nothing says otherwise: the labels of a logarithmic axis are such.
    """
    import matplotlib  # here, since it takes a quarter of a second

    with matplotlib.rc_context({"text.parse_math": formulas}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing from", UserWarning)
        yield
