"""Variants of a recipe: the product of the values that `--vary KEY=VALUE,VALUE` gives to keys, with names that say them."""

import contextlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence

from wrn_jax.config import FREE_ON_RESUME, Config, flatten
from wrn_jax.runtime.errors import UserError
from wrn_jax.runtime.text import shown

Grid = Mapping[str, tuple[str, ...]]
"""The values of each key that is varied, as they were typed."""

LONGEST = 200
"""Characters of the name of a variant, which is a folder's as well."""

_OPENING, _CLOSING = "([{", ")]}"


def parse(arguments: Sequence[str]) -> Grid:
    """The grid that arguments of the form KEY=VALUE,VALUE give. Raises UserError."""
    grid: dict[str, tuple[str, ...]] = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not (key and equals):
            raise UserError(f"--vary {shown(argument)}: should be KEY=VALUE,VALUE, such as optimizer.weight_decay=5e-4,1e-3")
        if key in grid:
            raise UserError(f"--vary {key}: is given twice; give all its values at once")
        grid[key] = tuple(split(key, text))
    return grid


def split(key: str, text: str) -> list[str]:
    """The values in a text: what commas part that stand in no bracket and no quotation. Raises UserError."""
    values, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in _OPENING:
            depth += 1
        elif character in _CLOSING:
            depth -= 1
        elif character == "," and depth == 0:
            values.append("")
            continue
        values[-1] += character
    values = [value.strip() for value in values]
    if depth or quote:
        raise UserError(f"--vary {key}: {f'the quotation mark {quote}' if quote else 'a bracket'} is not closed")
    if not all(values):
        raise UserError(f"--vary {key}: a value is empty")
    if twice := next((value for value in values if values.count(value) > 1), None):
        raise UserError(f"--vary {key}: {shown(twice)} is given twice")
    return values


def variants(grid: Grid) -> list[tuple[str, tuple[str, ...]]]:
    """What is added to a recipe's name, and the arguments `--config.KEY=VALUE`, of each variant.

    The last key varies fastest; without a key there is one variant, the recipe itself.
    """
    lasts = [key.rpartition(".")[2] for key in grid]
    heads = [key if lasts.count(last) > 1 else last for key, last in zip(grid, lasts, strict=True)]
    keys = [
        [(f"{head}={label(text, place)}", f"--config.{key}={text}") for place, text in enumerate(texts, 1)]
        for head, (key, texts) in zip(heads, grid.items(), strict=True)
    ]
    return [(" ".join(name for name, _ in chosen), tuple(text for _, text in chosen)) for chosen in itertools.product(*keys)]


def label(text: str, place: int) -> str:
    """A value in the name of a variant: a number or a word as it is, anything longer by its place (from 1) among the values."""
    with contextlib.suppress(ValueError):
        text = str(json.loads(text))
    return text if re.fullmatch(r"[\w.+-]{1,24}", text) else f"value{place}"


def check(recipes: Sequence[tuple[str, Config]]) -> None:
    """Raises UserError unless these recipes, each a name and a configuration, can be chosen from on one hold-out."""
    first, images = recipes[0][0], _images(recipes[0][1])
    for name, config in recipes:
        if not config.data.validation_size:
            raise UserError(
                f"{name}: has no hold-out to choose on; --config.data.validation_size=5000 holds so many training images out"
            )
        own = _images(config)
        if different := [key for key in own if own[key] != images[key]]:
            key = different[0]
            raise UserError(f"{first} and {name}: are judged on other images ({key} = {images[key]}, {own[key]})")


def _images(config: Config) -> dict[str, object]:
    """The keys that say which images a recipe is trained and judged on."""
    return {key: value for key, value in flatten(config.to_dict()).items()
            if key.startswith("data.") and key not in FREE_ON_RESUME}  # fmt: skip
