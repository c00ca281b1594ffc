"""Configuration: round trips, overrides, and one clear line for every mistake."""

import json
import os
import re
from itertools import pairwise

import pytest

from wrn_jax.config import (
    FREE_ON_RESUME,
    MOVING,
    Config,
    Cosine,
    Linear,
    Model,
    Recipe,
    apply_arguments,
    epoch,
    epochs,
    from_dict,
    help_text,
    keys,
    load_file,
    recipes,
    step,
)
from wrn_jax.config.findings import FINDINGS
from wrn_jax.config.schedules import at, extremes
from wrn_jax.config.timeline import Timeline
from wrn_jax.runtime.errors import UserError

FALL = ("dropout", "mixup_alpha", "label_smoothing")
"""The moving values that session 04 lowers step by step."""
RECIPES = recipes.names()


@pytest.mark.parametrize("name", RECIPES)
def test_survives_json(name):
    config = load_file(f"configs/{name}.py")
    assert from_dict(json.loads(json.dumps(config.to_dict())), "test") == config


def test_published_recipes_choose_on_test_and_the_default_does_not():
    assert load_file("configs/session02.py").data.validation_size == 0
    assert load_file("configs/session04.py").data.validation_size == 0
    assert Config().data.validation_size == 5000


def test_rising_falling_and_flat_have_the_same_total_strength():
    totals = {}
    for name in ("rising", "falling", "flat"):
        config = load_file(f"configs/{name}.py")
        timeline = Timeline.of(config)
        means = [timeline.values[value].mean() for value in ("dropout", "mixup_alpha", "learning_rate")]
        levels = [config.augmentation_levels[timeline.level_names[index]] for index in timeline.values["augmentation"]]
        for strength in ("trivial_probability", "mean_cutout_probability", "crop_probability", "flip_probability"):
            means.append(sum(getattr(level, strength) for level in levels) / len(levels))
        totals[name] = means
    assert totals["rising"] == pytest.approx(totals["flat"], rel=1e-4)
    assert totals["falling"] == pytest.approx(totals["flat"], rel=1e-4)


def test_a_key_that_stands_twice_in_a_file_is_refused(tmp_path):
    path = tmp_path / "twice.py"
    path.write_text(
        "from wrn_jax.config import Config, Recipe, epoch\n"
        "config = Config(recipe=Recipe(dropout={epoch(1): 0.3, epoch(5): 0.2,\n    epoch(5): 0.1}))\n"
    )
    with pytest.raises(UserError, match=r"twice\.py: line 3: the key epoch\(5\) stands twice in one table$"):
        load_file(path)
    path.write_text(path.read_text().replace("epoch(5): 0.1", "epoch(6): 0.1, **{epoch(6): 0.1}"))
    assert load_file(path).recipe.dropout[epoch(6)] == 0.1


def test_a_variant_is_built_on_a_file_beside_it_or_on_a_recipe_by_name(tmp_path):
    variant = tmp_path / "variant.py"
    text = "from wrn_jax.config import *\nconfig = load_file({!r}, relative_to=__file__).override({{'model.depth': 16}})\n"
    variant.write_text(text.format("session04"))
    assert load_file(variant) == load_file("session04").override({"model.depth": 16})
    (tmp_path / "session04").write_text("from wrn_jax.config import *\nconfig = Config(seed=7)\n")
    assert load_file(variant) == Config(seed=7).override({"model.depth": 16})
    variant.write_text(text.format("gone.py"))
    with pytest.raises(UserError, match=rf"{tmp_path}/gone\.py: no such configuration file"):
        load_file(variant)


def test_quickstart_has_the_phases_of_session04_at_the_same_places():
    quick, base = load_file("configs/quickstart.py"), load_file("configs/session04.py")
    for name in MOVING:
        ours, theirs = quick.phases(name), base.phases(name)
        assert list(ours) == list(theirs)
        assert [type(value) for value in ours.values()] == [type(value) for value in theirs.values()]
        assert all(
            later <= earlier for earlier, later in pairwise(extremes(value)[1] for value in ours.values() if name in FALL)
        )
    assert quick.recipe.augmentation == base.recipe.augmentation
    assert (quick.recipe.epochs, quick.recipe.scale, quick.data.name) == (base.recipe.epochs, 0.1, "embedded")


class TestArguments:
    @pytest.mark.parametrize(
        ("argument", "key", "value"),
        [
            ("model.depth=16", "model.depth", 16),
            ("precision=bfloat16", "precision", "bfloat16"),
            ("optimizer.clip_norm=none", "optimizer.clip_norm", None),
            ("data.download=false", "data.download", False),
            ("data.directory=2024", "data.directory", "2024"),
            ("data.directory=none", "data.directory", None),
            ("recipe.scale=0.1", "recipe.scale", 0.1),
            ("recipe.scale=2", "recipe.scale", 2.0),
            ("recipe.checkpoint_epochs=[1, 2]", "recipe.checkpoint_epochs", (1, 2)),
            ("recipe.dropout=0.4", "recipe.dropout", {epoch(1): 0.4}),
            ("recipe.dropout={'epoch 1': 0.4, 'step 80': 0}", "recipe.dropout", {epoch(1): 0.4, step(80): 0}),
            ("recipe.augmentation=off", "recipe.augmentation", {epoch(1): "off"}),
            (
                'recipe.learning_rate={"kind": "cosine", "start": 0.1, "end": 0, "over": "9 epochs"}',
                "recipe.learning_rate",
                {epoch(1): Cosine(0.1, 0, epochs(9))},
            ),
        ],
    )
    @pytest.mark.parametrize("apart", [False, True])
    def test_sets_a_key(self, argument, key, value, apart):
        arguments = f"--config.{argument}".split("=", 1) if apart else [f"--config.{argument}"]
        found = apply_arguments(Config(), arguments)
        for part in key.split("."):
            found = getattr(found, part)
        assert found == value

    def test_sets_one_phase_and_one_strength(self):
        base = load_file("configs/session04.py")
        changed = apply_arguments(
            base,
            ["--config.recipe.dropout.epoch 51=0.25", "--config.recipe.learning_rate.epoch 6.peak=0.2",
             "--config.augmentation_levels.full.rotate=5"],
        )  # fmt: skip
        assert changed.recipe.dropout[epoch(51)] == 0.25
        assert changed.recipe.learning_rate[epoch(6)].peak == 0.2
        assert changed.augmentation_levels["full"].rotate == 5
        assert base.recipe.dropout[epoch(51)] == 0.2

    def test_a_level_of_ones_own(self):
        config = apply_arguments(
            Config(),
            ['--config.augmentation_levels.mine={"flip_probability": 0.5}', "--config.recipe.augmentation=mine"],
        )
        assert config.augmentation_levels["mine"].flip_probability == 0.5

    @pytest.mark.parametrize(
        ("argument", "message"),
        [
            ("model.dept=16", "unknown key 'model.dept'; did you mean 'model.depth'?"),
            ("depht=16", "unknown key 'depht'; did you mean 'depth'?"),
            ("zzz=16", "unknown key 'zzz'; --help shows all keys"),
            ("model.depth=17", "model.depth = 17: should be 6n + 4 up to 1000: 10, 16, 22, 28, 34, 40, ..."),
            ("model.depth=ten", "model.depth = 'ten': should be a valid integer"),
            ("model.depth=16.5", "model.depth = 16.5: should be a valid integer"),
            ("model.widen_factor=0", "model.widen_factor = 0: should be greater than or equal to 1"),
            ("seed=true", "seed = True: should be a valid integer"),
            ("precision=fp16", "precision = 'fp16': should be 'auto', 'float32', 'bfloat16' or 'float16'"),
            ("recipe.scale=nan", "recipe.scale = 'nan': should be a valid number"),
            ("recipe.scale=NaN", "recipe.scale = nan: should be a finite number"),
            ("recipe.dropout=1.5", "recipe.dropout.epoch 1 = 1.5: should be between 0 and 0.99"),
            ("recipe.learning_rate=-1", "recipe.learning_rate.epoch 1 = -1.0: should be between 0 and 1000"),
            (
                "recipe.dropout={'epoch 2': 0.1}",
                "recipe.dropout: the first phase should begin at 'epoch 1' (or 'step 0')",
            ),
            (
                "recipe.dropout={'epoch 1': 0.1, 'epoch 9': 0.2, 'epoch 5': 0.3}",
                "recipe.dropout: the positions of the phases should be in the order of time",
            ),
            (
                "recipe.dropout.epoc 51=0.1",
                "recipe.dropout.epoc 51 = 'epoc 51': a position reads like 'epoch 41' (from 1),"
                " 'epoch 41 + 1 step', 'step 980' (from 0), 'last 15 epochs' or '75 %'",
            ),
            (
                'recipe.learning_rate={"kind": "cosine", "start": 0.1, "end": 0, "over": 9}',
                "recipe.learning_rate.epoch 1.over = 9: a duration reads like '5 epochs', '25 steps' or '20 %'",
            ),
            (
                'recipe.learning_rate={"kind": "cosine", "start": 0.1, "end": 0}',
                "recipe.learning_rate.epoch 1.over: is missing",
            ),
            (
                "recipe.augmentation=heavy",
                "recipe.augmentation = 'heavy': should be one of off, minimal, reduced, full",
            ),
            (
                "recipe.augmentation={epoch(1): Ramp('full', 'none at all', epochs(3))}",
                "recipe.augmentation = 'none at all': should be one of off, minimal, reduced, full",
            ),
            (
                "recipe.augmentation=Linear(0, 1, epochs(3))",
                "recipe.augmentation.epoch 1 = {'start': 0.0, 'end': 1.0, 'over': '3 epochs', 'since': N...:"
                " should be the name of an augmentation level, or an object whose 'kind' is ramp",
            ),
            (
                "augmentation_levels.full.rotate=500",
                "augmentation_levels.full.rotate = 500.0: should be between 0 and 180",
            ),
            (
                "augmentation_levels.crop.rotate=3",
                "augmentation_levels.crop.rotate: the recipe has no such level; it has off, minimal, reduced, full",
            ),
            (
                "augmentation_levels.full.rotat=3",
                "unknown key 'augmentation_levels.full.rotat'; did you mean 'augmentation_levels.full.rotate'?",
            ),
            ("a\nb\x1b[31m=1", "unknown key 'a b\\x1b[31m'; --help shows all keys"),
            ("seed=" + "[" * 300 + "]" * 300, "seed.0.0.0: is nested too deeply"),
            ("seed='\\d'", "seed = '\\\\d': should be a valid integer"),
            ("seed=\udcff", "seed = '\\udcff': should be valid Unicode"),
            ("seed=" + "9" * 1001, "seed: should have at most 1000 digits"),
            ("recipe.augmentation=KEY", "recipe.augmentation = 'KEY': should be one of off, minimal, reduced, full"),
            (
                f"recipe.augmentation={'x' * 100}",
                f"recipe.augmentation = '{'x' * 56}...: should be one of off, minimal, reduced, full",
            ),
            ("augmentation_levels={}", "recipe.augmentation = 'full': should be one of augmentation_levels, which is empty"),
            (
                "augmentation_levels.linear={'rotate': 'x'}",
                "augmentation_levels.linear.rotate = 'x': should be a valid number",
            ),
            (
                "augmentation_levels.$x={}",
                "augmentation_levels: a level's name should be 1 to 40 letters, digits, '_' or '-', not '$x'",
            ),
            (
                "recipe.learning_rate={'kind': 'linear', 'start': 0, 'end': 1, 'over': '1e999 steps'}",
                "recipe.learning_rate.epoch 1.over = '1e999 steps': a duration is positive and below 1e9",
            ),
            (
                "recipe.learning_rate={'kind': 'warm_restarts', 'peak': 1, 'floor': 0, 'period': '1 step', 'multiplier': 1001}",
                "recipe.learning_rate.epoch 1.multiplier = 1001: should be less than or equal to 1000",
            ),
            (
                "recipe.epochs=2000000000",
                "recipe.epochs = 2000000000, recipe.scale = 1: the run should have less than 2**31 updates",
            ),
            ("recipe.batch_size=1000001", "recipe.batch_size = 1000001: should be less than or equal to 1000000"),
            ("data.embedded_train=2000000", "data.embedded_train = 2000000: should be less than or equal to 1000000"),
            ("model.depth=1006", "model.depth = 1006: should be 6n + 4 up to 1000: 10, 16, 22, 28, 34, 40, ..."),
            ("model.widen_factor=1001", "model.widen_factor = 1001: should be less than or equal to 1000"),
            ("optimizer.clip_norm=1e300", "optimizer.clip_norm = 1e+300: should be less than or equal to 1000000000"),
            ("data.cache=", "data.cache = '': should be a path: 1 to 1000 printable characters, names up to 255 bytes"),
            (
                "data.archive=a\0b",
                "data.archive = 'a\\x00b': should be a path: 1 to 1000 printable characters, names up to 255 bytes",
            ),
            (
                f"data.directory={'x' * 256}",
                f"data.directory = '{'x' * 56}...: should be a path: 1 to 1000 printable characters, names up to 255 bytes",
            ),
            ("data.cache=~no-such-user/x", "data.cache = '~no-such-user/x': should be a path; this user has no home directory"),
        ],
    )
    def test_a_mistake_is_one_line(self, argument, message):
        with pytest.raises(UserError) as error:
            apply_arguments(Config(), [f"--config.{argument}"])
        assert str(error.value) == f"command line: {message}"

    def test_a_recipe_s_own_levels_are_the_ones_that_are_named(self):
        config = load_file("small30")
        changed = apply_arguments(config, ["--config.augmentation_levels.crop.flip_probability=0.25"])
        assert changed.augmentation_levels["crop"].flip_probability == 0.25
        for key, message in (("full.rotate", "no such level; it has crop"), ("crop.flip_prob", "crop.flip_probability'?")):
            with pytest.raises(UserError, match=re.escape(message)):
                apply_arguments(config, [f"--config.augmentation_levels.{key}=1"])

    def test_other_arguments_are_refused(self):
        with pytest.raises(UserError, match="unknown argument '--depth'"):
            apply_arguments(Config(), ["--depth", "16"])
        with pytest.raises(UserError, match="seed: a value is missing"):
            apply_arguments(Config(), ["--config.seed"])
        with pytest.raises(UserError, match=r"data\.cache: a value is missing"):
            apply_arguments(Config(), ["--config.data.cache", "--config.seed=1"])

    def test_positions_and_durations_keep_all_digits(self):
        rate = {"epoch 1": {"kind": "linear", "start": 0, "end": 1, "over": "12345.678901234567 epochs"}}
        config = apply_arguments(Config(), [f"--config.recipe.learning_rate={rate | {'epoch 2.0000000000000004': 0.1}}"])
        assert epoch(2.0000000000000004) in config.recipe.learning_rate
        assert from_dict(config.to_dict(), "test") == config


class TestFiles:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("config = 3", "assigns no 'config = Config(...)'"),
            (
                "from wrn_jax.config import *\nconfig = Config(model=Model(depth=17))",
                "Model: depth = 17: should be 6n + 4",
            ),
            ("from wrn_jax.config import *\nconfig = Config(modle=Model())", "Config: unknown key 'modle'"),
            (
                "from wrn_jax.config import *\nconfig = Config(recipe=Recipe(dropout=2))",
                "Recipe: dropout.epoch 1 = 2.0: should be between",
            ),
            ("config = Config()", "NameError: name 'Config' is not defined"),
            (
                "from wrn_jax.config import *\nconfig = Config(seed=10**5000)",
                "Config: seed = int: should be less than or equal to 2147483647",
            ),
            (
                "from wrn_jax.config import *\nimport numpy\nconfig = Config(seed=numpy.zeros((2, 1)))",
                "Config: seed = array([[0.], [0.]]): should be a valid integer",
            ),
            ("from wrn_jax.config import *\nconfig = Config(0, 1)", "Config: precision = 1: should be 'auto'"),
            (
                "from wrn_jax.config import *\nLinear(0, 1, epochs(5), None, 'linear', 6)",
                "Linear: argument 6 = 6: unexpected positional argument",
            ),
            (
                "from wrn_jax.config import *\nLinear(0, 1, epochs('5'))",
                "Linear: over = 5 epochs: a duration reads like '5 epochs'",
            ),
            (
                "from wrn_jax.config import *\nLinear(0, 1, steps(float('inf')))",
                "Linear: over = inf steps: a duration is positive and below 1e9",
            ),
            (
                "from wrn_jax.config import *\nRecipe(dropout={epoch(1): 0, epoch('2'): 0})",
                "Recipe: dropout.epoch 2 = epoch 2: a position reads like 'epoch 41'",
            ),
            (
                "from wrn_jax.config import *\nConfig(augmentation_levels={'full': Strengths(rotate='5')})",
                "Config: augmentation_levels.full.rotate = '5': should be between 0 and 180",
            ),
            (
                "from wrn_jax.config import *\nConfig(augmentation_levels={'full': Strengths(rotate=True)})",
                "Config: augmentation_levels.full.rotate = True: should be between 0 and 180",
            ),
            (
                "from wrn_jax.config import *\nconfig = Config()\nconfig.recipe.dropout[epoch(1)] = 2",
                "Recipe: dropout.epoch 1 = 2.0: should be between 0 and 0.99",
            ),
            ("raise ValueError('a\\n\\x1b[31m')", "ValueError: a \\x1b[31m"),
            ("config = (", "SyntaxError: '(' was never closed"),
            ("raise SystemExit(4)", "SystemExit: 4"),
            ("class Own(BaseException): pass\nraise Own('x')", "Own: x"),
        ],
    )
    def test_a_mistake_names_the_file(self, tmp_path, text, message):
        path = tmp_path / "bad.py"
        path.write_text(text)
        with pytest.raises(UserError) as error:
            load_file(path)
        assert str(error.value).startswith(f"{path}: {message}")
        assert "\n" not in str(error.value)

    def test_what_it_prints_and_where_it_goes_is_its_own_affair(self, tmp_path, capsys):
        path = tmp_path / "some.py"
        path.write_text("import os\nprint('hello')\nos.chdir('/')\nfrom wrn_jax.config import Config\nconfig = Config(seed=3)")
        before = os.getcwd()
        assert load_file(path).seed == 3
        assert os.getcwd() == before
        assert capsys.readouterr() == ("", "hello\n")

    def test_a_missing_file(self):
        with pytest.raises(UserError, match=r"nowhere\.py: no such configuration file"):
            load_file("nowhere.py")
        with pytest.raises(UserError, match="no such configuration file"):
            load_file("x" * 300)  # longer than a name may be


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ([1], "the configuration = [1]: should be an object"),
        ({"recipe": {"dropout": {1: 0.3}}}, "recipe.dropout has the key 1: should be text, such as 'epoch 41'"),
        ({"seed": {1}}, "seed = {1}: should be a number, text, true, false, none, or a list or table of these"),
    ],
)
def test_a_wrong_tree_is_one_line(tree, message):
    with pytest.raises(UserError) as error:
        from_dict(tree, "test")
    assert str(error.value) == f"test: {message}"


class TestSilence:
    def test_a_reason_by_name(self, tmp_path):
        config = apply_arguments(Config(), ["--config.silence.ends-high=on purpose", "--config.silence.best-on-test", "2"])
        assert config.silence == {"ends-high": "on purpose", "best-on-test": "2"}
        assert from_dict(json.loads(json.dumps(config.to_dict())), "test") == config
        assert apply_arguments(config, ["--config.silence={'rate-jump': 'so'}"]).silence == {"rate-jump": "so"}
        path = tmp_path / "mine.py"
        path.write_text("from wrn_jax.config import *\nconfig = Config(silence={'ends-high': 'on purpose'})")
        assert load_file(path).silence == {"ends-high": "on purpose"}

    @pytest.mark.parametrize(
        ("argument", "message"),
        [
            ("silence.ends_high=so", "silence: 'ends_high' is no finding; did you mean 'ends-high'?"),
            (f"silence.{'x' * 99}=so", f"silence: '{'x' * 36}... is no finding; python -m wrn_jax.plan --help lists them"),
            ("silence.ends-high=", "silence.ends-high = '': should be a reason of 1 to 200 printable characters"),
            ("silence.ends-high= ", "silence.ends-high = ' ': should be a reason of 1 to 200 printable characters"),
            ("silence.ends-high=a\tb", "silence.ends-high = 'a\\tb': should be a reason of 1 to 200 printable characters"),
            (f"silence.ends-high={'x' * 201}", f"silence.ends-high = '{'x' * 56}...: should be a reason of 1 to 200 printable"),
            ("silence={'ends-high': 3}", "silence.ends-high = 3: should be a valid string"),
            ("silence=ends-high", "silence = 'ends-high': should be an object"),
            ("silence.ends-high.why=so", "unknown key 'silence.ends-high.why'"),
        ],
    )
    def test_a_mistake_is_one_line(self, argument, message):
        with pytest.raises(UserError) as error:
            apply_arguments(Config(), [f"--config.{argument}"])
        assert str(error.value).startswith(f"command line: {message}")
        assert len(str(error.value)) < 400

    def test_may_change_on_resume(self):
        assert {f"silence.{name}" for name in FINDINGS} < set(FREE_ON_RESUME)


def test_objects_check_themselves():
    config = Config(model=Model(depth=16), recipe=Recipe(dropout=0.2))
    assert config.recipe.dropout == {epoch(1): 0.2}
    with pytest.raises(AttributeError):
        config.seed = 3


def test_help_names_every_key_with_its_meaning():
    text = help_text()
    for key, (kind, default, description) in keys():
        if not key.startswith("augmentation_levels."):
            assert f"{key}  ({kind}; default {default})" in text
            assert description, key


LINE = {"epoch 1": {"kind": "linear", "start": 0.01, "end": 0.1, "over": "5 epochs", "since": None}, "epoch 6": 0.1}


class TestScheduleObjects:
    def test_override_takes_them_as_files_do(self):
        changed = Config().override({"recipe.learning_rate": {epoch(1): Linear(0.01, 0.1, epochs(5)), epoch(6): 0.1}})
        assert changed == Config().override({"recipe.learning_rate": LINE})
        assert Config().override({"recipe.dropout": Cosine(0.3, 0, epochs(9))}).recipe.dropout == {
            epoch(1): Cosine(0.3, 0, epochs(9))
        }
        assert Config().override({"model": Model(depth=16)}).model.depth == 16

    def test_the_command_line_takes_them_too(self):
        text = "--config.recipe.learning_rate={epoch(1): Linear(0.01, 0.1, epochs(5)), epoch(6): 0.1}"
        assert apply_arguments(Config(), [text]) == Config().override({"recipe.learning_rate": LINE})

    @pytest.mark.parametrize("text", ["{epoch(1): open('x')}", "epoch.__class__", "{epoch(1): [0.1 for _ in 'a']}"])
    def test_and_nothing_else_is_executed(self, text):
        with pytest.raises(UserError, match=r"^command line: recipe\.dropout"):
            apply_arguments(Config(), [f"--config.recipe.dropout={text}"])

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('{epoch(1): 0, at("75"): 0.1}', r"a position reads like 'epoch 41'"),
            ('{epoch(1): 0, at("120 %"): 0.1}', r"a share of the run is at most 100 %"),
            ('Linear(0.1, 0.0, share("100"))', r"a duration reads like '5 epochs'"),
            ("constant_then_decay(0.1, epochs(5), steps(20))", r"decay: should be in epochs"),
            ("constant_then_decay(0.1, epochs(5), 20)", "a duration reads like '5 epochs'"),
            ("step_decay(0.1, 1e300, [epoch(2), epoch(3)])", "out of range"),
            ("step_decay(0.1, 0.5, 3)", "iterable"),
            ("Exponential(0.1, 0, epochs(1))", r"Exponential: factor = 0: should be greater than 0"),
            ("Linear(0.1)", r"Linear: end: is missing"),
            ("epoch()", r"missing 1 required positional argument"),
        ],
    )
    def test_wrong_arguments_are_named(self, text, message):
        with pytest.raises(UserError, match=rf"^command line: .*{message}"):
            apply_arguments(Config(), [f"--config.recipe.learning_rate={text}"])

    def test_a_wrong_one_is_named(self):
        with pytest.raises(UserError, match=r"recipe.dropout.epoch 1 = .*should be between 0 and 0.99"):
            Config().override({"recipe.dropout": {epoch(1): Linear(0, 1, epochs(5))}})


def test_a_phase_is_set_by_its_position_and_a_new_one_comes_in_the_order_of_time():
    recipe = {"recipe.dropout": {"epoch 1": 0.3, "epoch 51": 0.2, "87.5 %": 0.1, "last 9 epochs": 0.0}}

    def positions(*arguments):
        config = apply_arguments(Config().override(recipe), [f"--config.recipe.dropout.{text}" for text in arguments])
        return {str(position): value for position, value in config.recipe.dropout.items()}

    assert positions("87.5 %=0.25")["87.5 %"] == 0.25
    assert list(positions("epoch 31=0.25", "epoch 91=0.1", "50.5 %=0.1", "last 3.5 epochs=0.05", "last 12 epochs=0.1")) == [
        "epoch 1", "epoch 31", "epoch 51", "50.5 %", "87.5 %", "last 12 epochs", "last 9 epochs", "epoch 91", "last 3.5 epochs",
    ]  # fmt: skip
    within = positions("epoch 1.5=0.25", "epoch 51.5=0.15")  # whose texts begin with those of other phases
    assert list(within)[:3] == ["epoch 1", "epoch 1.5", "epoch 51"]
    assert (within["epoch 1.5"], within["epoch 51.5"]) == (0.25, 0.15)
    line = Config().override({"recipe.dropout": {"epoch 1": 0.1, "87.5 %": {"kind": "linear", "start": 0.3, "end": 0.0,
                                                                           "over": "2 epochs"}}})  # fmt: skip
    assert apply_arguments(line, ["--config.recipe.dropout.87.5 %.start=0.2"]).recipe.dropout[at("87.5 %")].start == 0.2
    for wrong, message in (("soon=1", "a position reads like"), ("epoch 1.peak=1", "unknown key")):
        with pytest.raises(UserError, match=message):
            positions(wrong)


@pytest.mark.parametrize(
    "text",
    [
        '{"epoch 1": 0.3, "epoch 51": 0.2, "epoch 51.0": 0.1}',
        '{epoch(1): 0.3, epoch(51): 0.2, "epoch 51": 0.1}',
        '{"epoch 1": 0.3, "epoch 5e1": 0.2, "epoch 50": 0.1}',
    ],
)
def test_a_position_that_stands_twice_is_refused_however_it_is_written(text):
    with pytest.raises(UserError, match=r"command line: recipe\.dropout: .* stands twice"):
        apply_arguments(Config(), [f"--config.recipe.dropout={text}"])


@pytest.mark.parametrize(
    "text",
    [
        '{"epoch 1": 0.3, "epoch 1": 0.5}',
        "{'epoch 1': 0.3, 'epoch 1': 0.5}",
        "{epoch(1): 0.3, epoch( 1 ): 0.5}",
        '{"epoch 1": {"kind": "linear", "kind": "cosine"}}',
    ],
)
def test_a_key_that_stands_twice_in_a_table_is_refused(text):
    with pytest.raises(UserError, match=r"command line: .* stands twice in a table"):
        apply_arguments(Config(), [f"--config.recipe.dropout={text}"])
