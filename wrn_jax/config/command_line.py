"""Configurations on the command line: `--config.KEY=VALUE`, and the keys as a help text."""

import ast
import json
import warnings
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from wrn_jax.config import schedules
from wrn_jax.config.levels import LEVELS
from wrn_jax.config.schedules import SCHEDULES
from wrn_jax.config.schema import Config, first_error, keys
from wrn_jax.runtime.errors import UserError
from wrn_jax.runtime.text import error, shown


def apply_arguments(config: Config, arguments: Sequence[str]) -> Config:
    """`config` with the overrides of a command line: `--config.model.depth=16` or `--config.model.depth 16`.

    Values are read as JSON or Python literals (16, 0.1, none, true, [1, 2], {"epoch 1": 0.3}), or with schedules as in a file
    ({epoch(1): Linear(0.01, 0.1, epochs(5))}), anything else as text.

    Raises:
      UserError: an argument that is no override, an unknown key, a wrong type or a value out of range.
    """
    changes: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("--config."):
            raise UserError(f"unknown argument {shown(argument)}; keys are set by --config.KEY=VALUE, --help shows all")
        key, equals, text = argument.removeprefix("--config.").partition("=")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise error("command line", f"{key}: a value is missing; write --config.{key}=VALUE")
            text = rest.pop(0)
        kind = "str" if key.startswith("silence.") else dict(keys()).get(key, ("",))[0]
        changes[key] = _parse(text, kind)
    return config.override(changes, "command line")


def _parse(text: str, kind: str) -> Any:
    """The value that `text` means for a key whose type is called `kind` in the help."""
    if text.lower() in ("none", "null"):
        return None
    if kind.startswith("str"):
        return text
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for read in (_json, _literal, _schedules):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Python's, of odd literals
                return read(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    return text


def _json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=lambda pairs: dict(_once([key for key, _ in pairs], pairs)))


def _literal(text: str) -> Any:
    return ast.literal_eval(_parsed(text))


def _parsed(text: str) -> ast.Expression:
    """The syntax tree of an expression. Raises SyntaxError, and UserError for a table with a key that stands twice."""
    tree = ast.parse(text.strip(), mode="eval")
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            _once([ast.unparse(key).strip("'") for key in node.keys if key is not None], ())
    return tree


def _once(keys: Sequence[str], pairs: Sequence[tuple[str, Any]]) -> Sequence[tuple[str, Any]]:
    """The pairs. Raises UserError if a key stands twice, of which Python and JSON would drop the first silently."""
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise error("command line", f"{shown(twice[0])} stands twice in a table")
    return pairs


_FUNCTIONS = ("epoch", "epochs", "step", "steps", "last", "at", "share", "step_decay", "constant_then_decay")
_NAMES = {name: getattr(schedules, name) for name in _FUNCTIONS} | {kind.__name__: kind for kind in SCHEDULES}


def _schedules(text: str) -> Any:
    """Reads literals that hold positions, durations and schedules as configuration files write them: {epoch(1): Linear(...)}.

    Raises ValueError or SyntaxError for anything else; what is no such call or literal is not executed. Raises UserError for
    a call with wrong arguments.
    """
    tree = _parsed(text)
    allowed = (
        ast.Expression,
        ast.Dict,
        ast.Call,
        ast.keyword,
        ast.Name,
        ast.Load,
        ast.Constant,
        ast.UnaryOp,
        ast.USub,
        ast.List,
        ast.Tuple,
    )
    if not isinstance(tree.body, ast.Call | ast.Dict) or not all(isinstance(node, allowed) for node in ast.walk(tree)):
        raise ValueError("not a table of schedules")
    if not all(node.id in _NAMES for node in ast.walk(tree) if isinstance(node, ast.Name)):
        raise ValueError("an unknown name")
    try:
        return eval(compile(tree, "command line", "eval"), {"__builtins__": {}} | _NAMES)
    except ValidationError as wrong:
        raise error("command line", f"{wrong.title}: {first_error(wrong)}") from None
    except (ValueError, TypeError, ArithmeticError, AttributeError) as wrong:
        raise error("command line", f"{shown(text)}: {wrong}") from None


def help_text() -> str:
    """The keys as a text for `--help`: one paragraph each with type, default and meaning."""
    lines = ["configuration keys (set one by --config.KEY=VALUE):"]
    for key, (kind, default, description) in keys():
        if key.startswith("augmentation_levels.") and not key.startswith("augmentation_levels.full."):
            continue
        lines.append(f"  {key}  ({kind}; default {default})")
        if description:
            lines.append(f"      {description}")
    others = ", ".join(LEVELS)
    lines.append(f"  augmentation_levels.LEVEL.*: the same for the levels {others}, or those that a recipe has instead")
    lines.append('phases are a value, or a table such as \'{"epoch 1": 0.3, "epoch 51": 0.2}\'')
    return "\n".join(lines)
