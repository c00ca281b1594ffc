"""What a learning rate does over a run, read from its values at every step: warm-up, cycles, restarts.

A *cycle* is a stretch in which the rate rises and then falls, or only falls; a restart begins the next.
"""

import numpy as np


def _steady(rates: np.ndarray) -> np.ndarray:
    """The changes from each step to the next, float64 [steps - 1], those within float32's rounding set to 0."""
    rates = rates.astype(np.float64)
    change = np.diff(rates)
    rounding = 1e-6 * np.maximum(rates[1:], rates[:-1]) + 1e-7 * rates.max()
    return np.where(np.abs(change) > rounding, change, 0.0)


def restarts(rates: np.ndarray) -> np.ndarray:
    """The steps (from 0) at which the rate, having fallen, begins to rise: each begins a cycle."""
    change = _steady(rates)
    moved = np.flatnonzero(change)
    up = change[moved] > 0
    return moved[1:][up[1:] & ~up[:-1]] + 1


def warm_up_end(rates: np.ndarray) -> int:
    """The step (from 0) at which the rise that a run begins with has reached its top; 0 if it does not begin with a rise."""
    change = _steady(rates)
    falls = np.flatnonzero(change < 0)
    rise = rates[: falls[0] + 1] if len(falls) else rates
    return int(np.argmax(rise)) if (change[: len(rise) - 1] > 0).any() else 0


def peak_after_warm_up(rates: np.ndarray) -> float:
    """The highest rate after the warm-up, or of the run if the warm-up never ends."""
    after = rates[warm_up_end(rates) + 1 :] if warm_up_end(rates) else rates
    return float(after.max() if len(after) else rates.max())
