"""What the report's statistics do in simulated studies, whose truth is known: `python scripts/simulate_statistics.py`.

Each study is of normal accuracies and goes through the functions that the report calls. Prints, in per cent: how often
intervals cover the truth (95 announced), how often a difference is shown where there is none, with looks before the end and
Holm's adjustment over all pairs (5 at most), and how often a true difference of the size announced for 80 % power is shown.
"""

import argparse
import itertools

import numpy as np

from wrn_jax.report import statistics


def covered(draws, studies, seeds):
    """Shares of the studies whose interval holds the truth: of a mean, of a difference by Welch, of a difference by pairs."""
    held = np.zeros(3)
    for first, second in draws.normal(size=(studies, 2, seeds)):
        results = statistics.summarise(first), statistics.welch(first, second), statistics.paired(first, second)
        held += [result.low < 0 < result.high for result in results]
    return held / studies


def false_positives(draws, studies, recipes, looks):
    """The share of the studies in which any pair of recipes seems to differ at any look."""
    shown = 0
    for runs in draws.normal(size=(studies, recipes, looks[-1])):
        for number, seeds in enumerate(looks, 1):
            fractions = [look / looks[-1] for look in looks[:number]]
            pairs = itertools.combinations(runs[:, :seeds], 2)
            p_values = [statistics.after_looks(statistics.welch(*pair).p, fractions) for pair in pairs]
            if min(statistics.holm(p_values)) < statistics.SIGNIFICANCE:
                shown += 1
                break
    return shown / studies


def power(draws, studies, seeds, paired, correlation=0.5):
    """The share of the studies that show a difference of the size announced for 80 % power."""
    spread = (2 * (1 - correlation)) ** 0.5 if paired else 1.0
    difference, test = statistics.detectable(seeds, spread, paired=paired), statistics.paired if paired else statistics.welch
    shared = correlation**0.5 * draws.normal(size=(studies, 1, seeds)) if paired else 0.0
    runs = shared + ((1 - correlation) ** 0.5 if paired else 1.0) * draws.normal(size=(studies, 2, seeds))
    return np.mean([test(first + difference, second).p < statistics.SIGNIFICANCE for first, second in runs])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draws = np.random.default_rng(options.seed)
    for seeds in (2, 3, 5, 10, 30):
        mean, welch, paired = 100 * covered(draws, options.studies, seeds)
        print(f"{seeds:2} seeds: intervals cover: mean {mean:.1f}, Welch {welch:.1f}, paired {paired:.1f}", flush=True)
    for recipes, looks in ((2, (10,)), (2, (3, 6, 10)), (3, (2, 3, 4, 5)), (4, (3, 6, 10)), (12, (10,))):
        share = 100 * false_positives(draws, options.studies, recipes, looks)
        print(f"{recipes:2} recipes, looks after {looks} seeds: false positives {share:.1f}", flush=True)
    for seeds, paired in itertools.product((2, 3, 5, 10, 30), (False, True)):
        share = 100 * power(draws, options.studies, seeds, paired)
        print(f"{seeds:2} seeds, {'paired' if paired else 'Welch'}: power {share:.1f} (80 announced)", flush=True)


if __name__ == "__main__":
    main()
