"""What recipes of a study have in common: one of them trains it for each seed, and the others go on from there.

The bits are those of runs trained apart, since a run's randomness is derived from its seed and its clock.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from wrn_jax.config import FREE_ON_RESUME, Config, flatten
from wrn_jax.config.agreement import agreed_steps
from wrn_jax.config.timeline import Timeline


@dataclasses.dataclass(frozen=True)
class Fork:
    """Where a recipe leaves another one: the name of that one, and the epochs that both have in common, also as updates."""

    trunk: str
    epochs: int
    steps: int


def find(recipes: Sequence[tuple[str, Config, Timeline]]) -> dict[str, Fork]:
    """The forks of those recipes, each a name, a configuration and its timeline, that begin as one before them does.

    Each leaves the one that it has most whole epochs in common with, the first among equals: so all is trained once that
    several have in common. A recipe trains at least one epoch of its own.
    """
    forks: dict[str, Fork] = {}
    for index, (name, config, timeline) in enumerate(recipes):
        for trunk, other, its_timeline in recipes[:index]:
            if _is_alike(config, other) and timeline.uses("average_decay") == its_timeline.uses("average_decay"):
                steps = agreed_steps(other, config, (its_timeline, timeline))
                epochs = min(steps // timeline.steps_per_epoch, timeline.epochs - 1)
                if epochs > (forks[name].epochs if name in forks else 0):
                    forks[name] = Fork(trunk, epochs, epochs * timeline.steps_per_epoch)
    return forks


def branching_epochs(forks: Mapping[str, Fork], trunk: str) -> list[int]:
    """The epochs after which others leave a recipe, rising."""
    return sorted({fork.epochs for fork in forks.values() if fork.trunk == trunk})


def _is_alike(one: Config, other: Config) -> bool:
    """Whether two recipes agree in what an agreement of moving values does not look at: early end, going back, rounding."""
    keys = [key for key in ("early_stopping_patience", *FREE_ON_RESUME) if not key.startswith("silence.")]
    first, second = flatten(one.to_dict()), flatten(other.to_dict())
    return all(first.get(key) == second.get(key) for key in keys)
