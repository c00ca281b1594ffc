"""The recipe: what a run is, as data on one clock.

In: configuration files, the command line, JSON. Out: a checked `Config`, and its `Timeline`, which says what every moving
value is at every step. Imports `runtime` alone.
"""

from wrn_jax.config.command_line import apply_arguments, help_text
from wrn_jax.config.files import load_file
from wrn_jax.config.levels import LEVELS, Strengths
from wrn_jax.config.moving import MOVING, Recipe
from wrn_jax.config.schedules import (
    Cosine,
    Exponential,
    Linear,
    OneCycle,
    Polynomial,
    Ramp,
    WarmRestarts,
    at,
    constant_then_decay,
    epoch,
    epochs,
    last,
    share,
    step,
    step_decay,
    steps,
)
from wrn_jax.config.schema import FREE_ON_RESUME, Config, Data, Model, Optimizer, flatten, from_dict, keys

__all__ = [
    "FREE_ON_RESUME",
    "LEVELS",
    "MOVING",
    "Config",
    "Cosine",
    "Data",
    "Exponential",
    "Linear",
    "Model",
    "OneCycle",
    "Optimizer",
    "Polynomial",
    "Ramp",
    "Recipe",
    "Strengths",
    "WarmRestarts",
    "apply_arguments",
    "at",
    "constant_then_decay",
    "epoch",
    "epochs",
    "flatten",
    "from_dict",
    "help_text",
    "keys",
    "last",
    "load_file",
    "share",
    "step",
    "step_decay",
    "steps",
]
