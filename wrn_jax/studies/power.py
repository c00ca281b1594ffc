"""What a study could show, by the spread that its runs turned out to have: at its end, a sentence and a plot."""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from wrn_jax.report import measures, statistics
from wrn_jax.report.render.blocks import Plot, Series
from wrn_jax.report.runs import Group
from wrn_jax.report.statistics import POWER, Spread

_PLACES = 41
"""Differences that the plot has a point for."""


@dataclasses.dataclass(frozen=True)
class Power:
    """The test of two recipes, as sharp as it was in the end.

    Attributes:
      seeds: runs of the two recipes; of unequal numbers the two of which the test is the least sharp.
      pairs: of recipes, that Holm's adjustment is over.
      significance: of one pair at the last look, at the strictest of Holm's levels.
      spread: over the seeds, that the recipes have in common, in points.
      announced: the difference that the study was made for, in points; None for none.
    """

    seeds: tuple[int, int]
    pairs: int
    significance: float
    spread: Spread
    announced: float | None

    def at(self, difference: float, spread: float | None = None) -> float:
        """The chance, 0..1, that a true difference is shown; both in points; `spread` stands in for the one measured."""
        return statistics.power_of(self.seeds, difference, spread or self.spread.sd, significance=self.significance)

    def detectable(self, spread: float) -> float:
        """The difference that is shown with 80 % power if the recipes have this spread, both in points; may be infinite."""
        return statistics.detectable(self.seeds, spread, significance=self.significance)


def measured(own: Sequence[Group], pairs: int, looks: Sequence[float], announced: float | None) -> Power | None:
    """The power of a finished study; None where nothing is tested, or the runs have no spread.

    Args:
      own: its recipes with the runs that count.
      pairs: of recipes that are tested, those of other programs too.
      looks: shares of the seeds at which it was looked at, the last one 1.
      announced: a difference in points.
    """
    runs = sorted(len(group.counted) for group in own)
    if not pairs or runs[0] < 2 or not all(group.finished for group in own):
        return None
    spread = statistics.pooled_spread([[100 * value for value in measures.values(group, "last")] for group in own])
    if not spread.sd:
        return None
    strictest = statistics.SIGNIFICANCE / pairs
    level = statistics.last_level(looks, strictest)
    runs = runs if len(runs) > 1 else 2 * runs  # a single recipe, beside those of other programs
    powers = [Power(seeds, pairs, level, spread, announced) for seeds in sorted(set(itertools.combinations(runs, 2)))]
    return max(powers, key=lambda power: power.detectable(spread.sd))


def sentence(power: Power) -> str:
    """What could be shown, and with which chance what was announced."""
    spread = power.spread
    least, most = power.detectable(spread.low), power.detectable(spread.high)
    holm = f", at the strictest of Holm's levels for {power.pairs} pairs" if power.pairs > 1 else ""
    text = (
        f"Power in the end: the runs of a recipe spread by {points(spread.sd)} points over the seeds (95 % interval "
        f"{points(spread.low)} to {points(spread.high)}), so {_seeds(power)} show a true difference of "
        f"{points(power.detectable(spread.sd))} points in four of five such studies ({points(least)} to {points(most)} within "
        f"that interval{holm})."
    )
    if power.announced is None:
        return text
    likely, worst, best = (_chance(power.at(power.announced, sd)) for sd in (spread.sd, spread.high, spread.low))
    return (
        f"{text} The difference of {power.announced:g} points that it was made for is shown with a chance of {likely} "
        f"({worst} to {best})."
    )


def _seeds(power: Power) -> str:
    first, second = power.seeds
    return f"{first} seeds of each recipe" if first == second else f"{first} seeds of one recipe and {second} of another"


def points(difference: float, style: str = ".2g") -> str:
    """A difference as it is told, in Python's `format`; accuracies cannot have one of 100 points."""
    text = f"{difference:{style}}"
    return text if float(text) < 100 else "more than 100"


def _chance(share: float) -> str:
    """In whole per cent, but neither never nor always."""
    return "below 1 %" if share < 0.005 else "above 99 %" if share > 0.995 else f"{share:.0%}".replace("%", " %")


def plot(power: Power) -> Plot:
    """The chance that a true difference is shown, over the difference, as far as accuracies can have one."""
    spread, detectable = power.spread, power.detectable(power.spread.sd)
    end = min(max(1.6 * detectable, 1.2 * (power.announced or 0.0)), 100.0)
    differences = [float(value) for value in np.linspace(0, end, _PLACES)]
    middle, low, high = ([100 * power.at(value, sd) for value in differences] for sd in (spread.sd, spread.high, spread.low))
    marks = [(detectable, f"shown with {100 * POWER:.0f} % power")] if detectable < 100 else []
    marks += [] if power.announced is None else [(power.announced, "the difference that the study was made for")]
    return Plot(
        "power", "Chance that a true difference is shown", "true difference (points)", "chance that it is shown (%)",
        [Series(_seeds(power), differences, middle, low, high)], marks,
        "Line: by the spread over the seeds that was measured; band: within the 95 % interval of that spread.",
    )  # fmt: skip
