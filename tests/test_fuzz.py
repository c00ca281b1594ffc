"""Arbitrary input, however wrong, ends in a configuration that works or in one line that says what is wrong."""

import json
import os
import re

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir

from wrn_jax import train
from wrn_jax.config import Config, Recipe, apply_arguments, from_dict, keys, load_file
from wrn_jax.config.schedules import Clock, Linear, WarmRestarts, epochs, steps
from wrn_jax.config.timeline import Timeline
from wrn_jax.runtime.errors import UserError

pytestmark = pytest.mark.slow

set_hypothesis_home_dir(os.environ["MPLCONFIGDIR"])  # the working copy stays as it is

KEYS = [key for key, _ in keys()]
PHASED = [key for key, (kind, _, _) in keys() if kind == "phases"]
SECTIONS = ["model", "data", "recipe", "optimizer", "augmentation_levels", "augmentation_levels.full"]


def examples(count):
    """Settings of a test: repeatable, without a clock and without a folder of its own."""
    unimportant = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    return settings(max_examples=count, deadline=None, derandomize=True, database=None, suppress_health_check=unimportant)


# Text, numbers and trees of all sorts.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
INTEGERS = st.one_of(
    st.integers(-3, 40), st.integers(), st.sampled_from([2**31 - 1, 2**31, 2**63, 2**64, 10**399, -(10**1200), 10**4200])
)
FLOATS = st.one_of(st.floats(0, 1), st.floats(), st.sampled_from([1e-320, 1e300, 2.0, 1000.0]))
LEAVES = st.one_of(st.none(), st.booleans(), INTEGERS, FLOATS, TEXT)

# Moving values, right and nearly right.
COUNTS = st.one_of(
    st.integers(0, 120), st.floats(1, 90), st.integers(0, 10**10), st.sampled_from(["1e999", "-1", "1e-9", "", "nan"])
)
POSITIONS = st.one_of(
    st.sampled_from(["epoch 1", "step 0"]), st.builds("{} {}".format, st.sampled_from(["epoch", "step"]), COUNTS)
)
DURATIONS = st.builds("{} {}".format, COUNTS, st.sampled_from(["epochs", "steps", "epoch", "step"]))
LEVELS = st.floats(0, 0.99) | st.sampled_from([0, 1, 1000.0, 1e-320]) | FLOATS
SCHEDULES = st.one_of(
    LEVELS,
    st.fixed_dictionaries(
        {"kind": st.sampled_from(["linear", "cosine"]), "start": LEVELS, "end": LEVELS, "over": DURATIONS},
        optional={"since": POSITIONS},
    ),
    st.fixed_dictionaries(
        {"kind": st.just("warm_restarts"), "peak": LEVELS, "floor": LEVELS, "period": DURATIONS},
        optional={"since": POSITIONS, "multiplier": INTEGERS},
    ),
)
PHASES = st.one_of(
    SCHEDULES,
    st.builds(lambda first, rest: {"epoch 1": first, **rest}, SCHEDULES, st.dictionaries(POSITIONS, SCHEDULES, max_size=2)),
)
NAMES = st.one_of(TEXT, st.sampled_from([*(key.rpartition(".")[2] for key in KEYS), *SECTIONS, "kind", "full", "epoch 1"]))
TREES = st.recursive(
    LEAVES | PHASES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)

# What people type for a value.
LITERALS = st.recursive(
    LEAVES | st.binary(max_size=5) | st.complex_numbers(),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner),
    max_leaves=4,
)
NESTED = st.builds(
    lambda opening, closing, count: opening * count + "1" + closing * count,
    st.sampled_from(["[", "(", '{"a": ', "{'epoch 1': ", "-", "+"]),
    st.sampled_from(["]", ")", "}", ""]),
    st.sampled_from([3, 12, 190, 250, 960, 5000]),
)
ODD = st.sampled_from(
    ["", " ", "'\\d'", '"\\ud800"', "0x" + "f" * 5000, "9" * 5000, "1_000", "1e999", "\x00", "\x1b[31m", "KEY"]
)
SHOWN = st.one_of(LITERALS, INTEGERS.filter(lambda number: abs(number) < 10**4000)).map(repr)
VALUES = st.one_of(TEXT, TREES.map(json.dumps), SHOWN, NESTED, ODD, PHASES.map(json.dumps))
FITTING = st.one_of(st.integers(1, 200), st.floats(0, 1), st.none(), st.sampled_from(["true", "off", "fsdp"]))


@st.composite
def misspelt(draw):
    """A key with a character changed, added, left out, or something else appended."""
    key, letter = draw(st.sampled_from(KEYS)), draw(st.characters(exclude_categories=["Cs"], exclude_characters="="))
    where = draw(st.integers(0, len(key)))
    whole = draw(st.sampled_from(["change", "add", "drop", "extend", "other"]))
    if whole == "other":
        return draw(TEXT).replace("=", "") * draw(st.sampled_from([1, 1, 40]))
    if whole == "extend":
        return f"{key}.{draw(POSITIONS)}".replace("=", "")
    return key[:where] + ("" if whole == "drop" else letter) + key[where + (whole != "add") :]


def check_line(error, limit=400):
    """The error's text, which is one line that can be printed."""
    text = str(error.value)
    assert text.isprintable()
    assert 10 < len(text) <= limit
    return text


def check_accepted(config):
    """Survives JSON exactly, and its recipe can be evaluated."""
    assert from_dict(json.loads(json.dumps(config.to_dict())), "again") == config
    line = Timeline(config, 7)
    line.events()
    for step in (0, min(line.steps, 2**31) - 1):
        for leaf in jax.tree.leaves(line.at(step)):
            assert np.isfinite(leaf)


def try_arguments(arguments):
    """The error's line, or None and the configuration is good."""
    try:
        config = apply_arguments(Config(), arguments)
    except UserError:
        with pytest.raises(UserError) as error:
            apply_arguments(Config(), arguments)
        return check_line(error)
    check_accepted(config)
    return None


@examples(350)
@given(key=st.sampled_from(KEYS), value=VALUES | FITTING.map(str), apart=st.booleans())
def test_a_value_of_a_key(key, value, apart):
    line = try_arguments([f"--config.{key}", value] if apart else [f"--config.{key}={value}"])
    assert line is None or key in line


@examples(150)
@given(key=st.sampled_from(PHASED), value=PHASES)
def test_moving_values(key, value):
    line = try_arguments([f"--config.{key}={json.dumps(value)}"])
    assert line is None or key in line


@examples(75)
@given(scale=st.floats(1e-6, 1000), epochs=st.integers(1, 2**31), batch_size=st.integers(1, 10**6), value=PHASES)
def test_lengths(scale, epochs, batch_size, value):
    changes = {"scale": scale, "epochs": epochs, "batch_size": batch_size, "learning_rate": json.dumps(value)}
    line = try_arguments([f"--config.recipe.{name}={text}" for name, text in changes.items()])
    assert line is None or any(f"recipe.{name}" in line for name in changes)


@examples(75)
@given(
    period=st.integers(1, 10**9 - 1).map(steps) | st.integers(1, 10**9 - 1).map(epochs),
    multiplier=st.integers(1, 1000),
    step=st.integers(0, 2**31 - 2),
)
def test_long_cycles_are_exact(period, multiplier, step):
    clock = Clock(196, 2.0)
    begin, length = 0, clock.length(period)
    if multiplier == 1:
        begin = step // length * length
    while begin + length <= step:
        begin, length = begin + length, length * multiplier
    expected = (1 + np.cos(np.pi * (step - begin) / length)) / 2
    found = WarmRestarts(1, 0, period, multiplier).at(np.int32(step), clock)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    line = Linear(0, 1, period).at(np.int32(step), clock)
    np.testing.assert_allclose(line, min(1, step / clock.length(period)), rtol=1e-6)


@examples(125)
@given(key=st.sampled_from(SECTIONS), value=VALUES)
def test_a_value_of_a_section(key, value):
    line = try_arguments([f"--config.{key}={value}"])
    assert line is None or key.partition(".")[0] in line


@examples(200)
@given(key=misspelt(), value=VALUES | FITTING.map(str))
def test_a_misspelt_key(key, value):
    line = try_arguments([f"--config.{key}={value}"])
    shown = " ".join("".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(key.split())).split())
    assert line is None or shown[:90] in line or key.rpartition(".")[0] in line


@examples(100)
@given(tree=st.dictionaries(NAMES, TREES, max_size=4) | TREES)
def test_a_tree(tree):
    try:
        config = from_dict(tree, "config.json")
    except UserError:
        with pytest.raises(UserError, match=r"^config\.json: .+") as error:
            from_dict(tree, "config.json")
        check_line(error)
    else:
        check_accepted(config)


@examples(150)
@given(data=st.data())
def test_a_tree_with_one_part_changed(data):
    tree = Config().to_dict()
    key = data.draw(st.sampled_from(KEYS))
    *folders, leaf = key.split(".")
    node = tree
    for folder in folders:
        node = node[folder]
    node[leaf] = data.draw(TREES | FITTING)
    try:
        config = from_dict(tree, "config.json")
    except UserError:
        with pytest.raises(UserError) as error:
            from_dict(tree, "config.json")
        assert key in check_line(error)
    else:
        check_accepted(config)


# Configuration files: a template, filled in with literals that do nothing.
NUMBERS = LEAVES.map(lambda value: f"float('{value}')" if isinstance(value, float) else repr_of(value))
STARTS = st.builds("{}({})".format, st.sampled_from(["epoch", "step"]), NUMBERS | st.sampled_from(["1", "0"]))
LENGTHS = st.builds("{}({})".format, st.sampled_from(["epochs", "steps"]), NUMBERS | st.sampled_from(["3", "0.5"]))
PIECES = st.one_of(
    NUMBERS,
    st.builds("{}({}, {}, {})".format, st.sampled_from(["Linear", "Cosine", "WarmRestarts"]), NUMBERS, NUMBERS, LENGTHS),
    st.builds("{}(0.1, 0, {}, since={})".format, st.sampled_from(["Linear", "Cosine", "WarmRestarts"]), LENGTHS, STARTS),
)
EXPRESSIONS = st.one_of(
    PIECES,
    LITERALS.filter(lambda value: not isinstance(value, float | complex | list | tuple)).map(lambda value: repr_of(value)),
    st.lists(NUMBERS, max_size=3).map(lambda parts: f"[{', '.join(parts)}]"),
    st.lists(NUMBERS, max_size=3).map(lambda parts: f"({', '.join(parts)}{',' * (len(parts) == 1)})"),
    st.lists(st.tuples(STARTS | NUMBERS, PIECES), max_size=3).map(
        lambda parts: "{" + ", ".join(f"{where}: {piece}" for where, piece in parts) + "}"
    ),
    st.builds("{{'full': Strengths(rotate={}, shift={})}}".format, NUMBERS, NUMBERS),
)
CLASSES = {"model": "Model", "data": "Data", "recipe": "Recipe", "optimizer": "Optimizer"}


def repr_of(value):
    """As `repr`, also for numbers of thousands of digits."""
    return hex(value) if type(value) is int else repr(value)


@examples(200)
@given(key=st.sampled_from([key for key in KEYS if key.count(".") < 2] + ["augmentation_levels"]), value=EXPRESSIONS)
def test_a_configuration_file(tmp_path_factory, key, value):
    section, _, name = key.rpartition(".")
    inner = f"{section}={CLASSES[section]}({name}={value})" if section else f"{name}={value}"
    path = tmp_path_factory.getbasetemp() / "fuzzed.py"
    path.write_text(f"from wrn_jax.config import *\nconfig = Config({inner})\n", encoding="utf-8")
    try:
        config = load_file(path)
    except UserError:
        with pytest.raises(UserError, match=f"^{re.escape(str(path))}: ") as error:
            load_file(path)
        line = check_line(error, limit=400 + len(str(path)))
        # An error in a piece of a recipe names its class, as one about the whole names the key.
        assert name in line or re.search(r": (Linear|Cosine|WarmRestarts): \w+ = |stands twice in one table$", line)
    else:
        check_accepted(config)


@examples(60)
@given(name=TEXT.filter(lambda text: not text.startswith(("h", "config."))), value=TEXT, bare=st.booleans())
def test_an_unknown_option(name, value, bare):
    with pytest.raises(UserError):
        train.main([f"--x{name}", value] if bare else [f"--x{name}={value}"])


@examples(60)
@given(arguments=st.lists(TEXT | VALUES, max_size=3).filter(lambda texts: not any(text.startswith("-") for text in texts)))
def test_stray_arguments(arguments):
    with pytest.raises(UserError):
        train.main(arguments)
    with pytest.raises(UserError) as error:
        apply_arguments(Config(), [*(f"--{argument}" for argument in arguments), "--config.seed"])
    check_line(error)


@examples(60)
@given(changes=st.fixed_dictionaries({}, optional={"epochs": st.integers(1, 10**4), "scale": st.floats(1e-9, 1000)}))
def test_no_run_is_shorter_than_an_epoch(changes):
    config = Config(recipe=Recipe(batch_size=10**5, **changes))
    check_accepted(config)
    assert Timeline(config, 7).steps >= 7
