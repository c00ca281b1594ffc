"""The verdict on a set of recipes: stated rules, the figures they are applied to, and what follows; never more than follows."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import numpy as np

from wrn_jax.report import formats, measures, statistics
from wrn_jax.report.measures import Pair
from wrn_jax.report.runs import Group, recipe_keys
from wrn_jax.report.statistics import SIGNIFICANCE

_DECIDES = "test accuracy, last epoch"

_MEASURES = {"top-5 accuracy": "%", "calibration error": "%", "clean gap": "points", "mean corruption accuracy": "%"}
"""What of an evaluation recipes are compared by, with its unit."""

RULES = (
    "Judged is the test accuracy after the last epoch, which nobody chose. The best epoch stands beside it; where it was "
    "chosen on the test set it is flattered, and it decides nothing.",
    "A recipe is judged from two finished runs of different seeds on. With one run there is no verdict, since nothing tells "
    "the recipe from its seed.",
    f"A difference is shown if Welch's t test over the seeds, two-sided, gives p < {SIGNIFICANCE} (after Holm's adjustment "
    "over all pairs where there are more than two recipes, and after alpha spending for looks at a study before its end). If "
    "not, that does not show that there is none: the interval holds what is not excluded. Where recipes have unequal numbers "
    f"of runs, fewer than {statistics.FEW} of one, the test has that number less 1 for its degrees of freedom: with two runs "
    "of one, hardly any difference can be shown.",
    "Tests over images (McNemar) compare these networks, not the recipes, and decide nothing here.",
    "A gap between training and test accuracy has no merit in itself: what counts on new images is the accuracy on new images. "
    "The gap under augmentation depends on how hard the training images are made, so it does not compare two recipes either.",
    f"The other aspects are secondary. Each is tested by itself at {SIGNIFICANCE}, without adjustment, so of twenty that do "
    "not differ one would seem to, on average. They are leads.",
)


@dataclasses.dataclass(frozen=True)
class Aspect:
    """Something in which recipes may differ.

    Attributes:
      unit: "%" or "points" for fractions, "nats", "epochs", or "".
      better: "higher", "lower", or "" where neither is.
      values: of each run that counts, by recipe; None where it is not known.
    """

    name: str
    unit: str
    better: str
    values: Mapping[str, Sequence[float] | None]

    @property
    def factor(self) -> int:
        """From the values to the unit."""
        return 100 if self.unit in ("%", "points") else 1


@dataclasses.dataclass(frozen=True)
class Finding:
    """An aspect looked at.

    Attributes:
      ahead: the recipe of the best mean (of the lowest, where neither is better); None where they are equal or not known.
      margin: to the next one, not negative.
      p: of Welch's test against the next one, for the first aspect after Holm's adjustment; None where it is not judged.
      shown: whether the difference is; None where it is not judged.
    """

    aspect: Aspect
    ahead: str | None = None
    margin: float | None = None
    p: float | None = None
    shown: bool | None = None


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What follows from the figures.

    Attributes:
      sentence: the verdict.
      refused: whether there is none.
      pairs: what it rests on, pair by pair, in words.
      findings: the aspects, the one that decides first.
      uses: when to use which.
    """

    sentence: str
    refused: bool
    pairs: tuple[str, ...]
    findings: tuple[Finding, ...]
    uses: tuple[str, ...]


def reach(groups: Sequence[Group]) -> Verdict:
    """The verdict on the recipes."""
    last, best = measures.compare(groups, "last"), measures.compare(groups, "best")
    findings = tuple(_judge(aspect, groups) for aspect in aspects(groups))
    if len(groups) == 1:
        summary = statistics.summarise(measures.values(groups[0], "last"))
        text = f"{groups[0].name}: {formats.spread(summary)} % test accuracy after the last epoch (n = {summary.n})"
        return Verdict(f"There is one recipe, so nothing to compare it with. {text}.", True, (), findings, ())
    by_name, alike = {group.name: group for group in groups}, unlike(groups)
    texts = tuple(_pair_text(pair, by_name) for pair in last)
    sentence = f"{texts[0]} {_at_best(best[0], last[0], by_name)}" if len(groups) == 2 else _ranking(groups, last)
    refused = all(why_not([by_name[pair.first], by_name[pair.second]], pair) for pair in last)
    sentence += f" **The runs are not alike**: {'; '.join(alike)}." if alike else ""
    return Verdict(sentence, refused, texts, findings, tuple(_uses(groups, last, findings)))


def significant(pair: Pair) -> bool:
    """Whether the difference between two recipes is shown."""
    return pair.adjusted is not None and pair.adjusted < SIGNIFICANCE


def why_not(groups: Sequence[Group], pair: Pair | None = None) -> str:
    """Why recipes, or the two of `pair`, are not judged; empty if they are."""
    reasons = []
    if names := [group.name for group in groups if not group.finished]:
        reasons.append(f"no finished run of {formats.listed(names)}")
    if names := [group.name for group in groups if len(group.counted) == 1]:
        reasons.append(f"n = 1 for {formats.listed(names)}, and one run does not tell the recipe from its seed")
    if not reasons and pair is not None and pair.adjusted is None:
        reasons.append("the runs of each recipe agree to the last digit, so there is no spread to judge by")
    return "; ".join(reasons)


def _pair_text(pair: Pair, groups: Mapping[str, Group]) -> str:
    counts = f"n = {pair.counts[0]} and {pair.counts[1]}"
    reason = why_not([groups[pair.first], groups[pair.second]], pair)
    if reason or pair.welch is None:
        return (
            f"**No verdict on {pair.first} and {pair.second}**: {reason}. After the last epoch {_ahead(pair, groups, 'last')}."
        )
    kind = adjustment(groups.values())
    adjusted = f", {formats.p_value(pair.adjusted)} after {kind}" if pair.adjusted != pair.welch.p else ""
    means = _means(pair, groups, "last")
    if significant(pair):
        return f"{_better(pair)} ({means} %; {counts}{adjusted})."
    alone = " The interval is of this pair alone, before the adjustment." if adjusted else ""
    return (
        f"**No difference shown between {pair.first} and {pair.second}** after the last epoch: "
        f"{formats.difference(pair.welch)} of test accuracy ({means} %; {counts}{adjusted}). What lies within the interval is "
        f"not excluded.{alone}"
    )


def adjustment(groups: Iterable[Group]) -> str:
    """What was done to p values, in words."""
    return "adjustment for looks and pairs" if any(group.looks for group in groups) else "Holm's adjustment"


def _means(pair: Pair, groups: Mapping[str, Group], which: str) -> str:
    return ", ".join(f"{name} {formats.percent(measures.mean(groups[name], which))}" for name in (pair.first, pair.second))


def _ahead(pair: Pair, groups: Mapping[str, Group], which: str) -> str:
    """Which of two recipes is ahead, and by how much."""
    means = _means(pair, groups, which)
    if abs(pair.difference) < 5e-5:
        return f"they are level ({means} % test accuracy)"
    ahead = pair.first if pair.difference > 0 else pair.second
    return f"{ahead} is ahead by {formats.percent(abs(pair.difference))} points ({means} % test accuracy)"


def _better(pair: Pair) -> str:
    assert pair.welch is not None  # since it is significant
    first, second, welch = pair.first, pair.second, pair.welch
    if pair.difference < 0:
        first, second, welch = second, first, welch.reverse()
    return f"**{first} is better than {second}** after the last epoch, by {formats.difference(welch)} of test accuracy"


def _at_best(best: Pair, last: Pair, groups: Mapping[str, Group]) -> str:
    if measures.best_is_last([*groups.values()]):
        return "That was the best epoch of every run."
    judges = {groups[name].judge for name in (best.first, best.second)}
    chosen = {"test": "chosen on the test set, which flatters both,", "valid": "chosen on the hold-out,"}
    how = chosen[judges.pop()] if len(judges) == 1 else "chosen on unlike sets, so that it compares nothing,"
    reverses = "the order reverses: " if best.difference * last.difference < 0 else ""
    return f"At the best epoch, {how} {reverses}{_ahead(best, groups, 'best')}."


def _ranking(groups: Sequence[Group], pairs: Sequence[Pair]) -> str:
    """The verdict on more than two recipes: what is shown of the one ahead, and how many of the other pairs differ."""
    best = max(groups, key=lambda group: measures.mean(group, "last"))
    judged = [pair for pair in pairs if pair.adjusted is not None]
    texts: list[str] = []
    if len(judged) < len(pairs):
        reason = why_not(groups) or "some runs agree to the last digit, so there is no spread to judge by"
        texts.append(f"**No verdict{' on some of them' if judged else ''}**: {reason}.")
    ahead = f"{formats.values(measures.values(best, 'last'))} % test accuracy, n = {len(best.counted)}"
    own, others = ([pair for pair in judged if (best.name in (pair.first, pair.second)) == its] for its in (True, False))
    if beaten := [pair for pair in own if significant(pair)]:
        every = f"all {len(beaten)} others"
        names = every if len(beaten) == len(groups) - 1 > 3 else formats.listed([_other(pair, best.name) for pair in beaten])
        highest = formats.p_value(max(pair.adjusted or 0.0 for pair in beaten))
        leads = [abs(pair.difference) for pair in beaten]
        lead = (
            f"{formats.percent(min(leads))} to {formats.percent(max(leads))}" if len(leads) > 1 else formats.percent(leads[0])
        )
        adjusted = f"{highest}{' or less' if len(beaten) > 1 and '=' in highest else ''} after {adjustment(groups)}"
        texts.append(f"**{best.name} is better than {names}** after the last epoch, by {lead} points ({ahead}; {adjusted}).")
    else:
        texts.append(f"After the last epoch {best.name} is ahead ({ahead}).")
    if level := [_other(pair, best.name) for pair in own if not significant(pair)]:
        names = f"{len(level)} of the others" if len(level) > formats.MOST_COMPARED else formats.listed(level)
        texts.append(f"**No difference shown between {best.name} and {names}**.")
    if shown := [f"{_better(pair)}." for pair in others if significant(pair)]:
        number = f"Of the other {len(others)} pairs that are judged, {len(shown)} differ."
        texts += shown if len(others) == 1 else [number]
    return " ".join(texts)


def _other(pair: Pair, name: str) -> str:
    return pair.second if pair.first == name else pair.first


def unlike(groups: Sequence[Group]) -> list[str]:
    """In what the runs that are compared differ though their figures stand side by side: length, beginning, versions."""
    lengths = [sorted({run.last.epoch for run in group.counted}) for group in groups]
    ends = ", ".join(f"{group.name} {' and '.join(map(str, epochs))}" for group, epochs in zip(groups, lengths, strict=True))
    texts = [f"of different length (last epochs: {ends})"] if len({tuple(epochs) for epochs in lengths}) > 1 else []
    begun = {group.name: group.runs[0].beginning for group in groups if group.config is not None}
    if len(set(begun.values())) > 1:
        texts.append(f"of different beginnings ({'; '.join(f'{name} began with {what}' for name, what in begun.items())})")
    by_program: dict[str, dict[str, list[str]]] = {}
    for group in groups:
        for program, version in dict.fromkeys(pair for run in group.counted for pair in run.versions):
            by_program.setdefault(program, {}).setdefault(version, []).append(group.name)
    unlike = [
        "; ".join(f"{program} {version} in {formats.listed(names)}" for version, names in versions.items())
        for program, versions in by_program.items()
        if len(versions) > 1
    ]
    return [*texts, *([f"of different versions ({'; '.join(unlike)})"] if unlike else [])]


def aspects(groups: Sequence[Group]) -> list[Aspect]:
    """What the recipes are compared by, the aspect that decides first."""
    same_judge = len({group.judge for group in groups}) == 1
    # How a loss was computed is known of this package's runs alone.
    same_program = len({(bool(group.log), group.config is None) for group in groups}) == 1
    same_corruptions = len(measures.corruption_sources(groups, "last")) == 1
    # An accuracy, in whole per cent, that the mean of every recipe has at the end.
    target = int(100 * min(measures.mean(group, "last") for group in groups) + 1e-9) / 100
    evaluated = [
        (
            f"{measure.name}, last epoch",
            _MEASURES[measure.name],
            measure.better,
            partial(measures.measured, which="last", path=measure.path),
        )
        for measure in measures.MEASURES
        if measure.name in _MEASURES and (same_corruptions or "corruption" not in measure.name)
    ]
    loss = ("test loss, last epoch", "nats", "lower", lambda group: measures.values(group, "last", "test_loss"))
    table: list[tuple[str, str, str, Callable[[Group], Sequence[float] | None]]] = [
        (_DECIDES, "%", "higher", lambda group: measures.values(group, "last")),
        ("test accuracy, best epoch", "%", "higher" if same_judge else "", lambda group: measures.values(group, "best")),
        *([loss] if same_program else []),
        ("gap under augmentation, last epoch", "points", "", lambda group: measures.augmented_gaps(group, "last")),
        *evaluated,
        ("largest fall from an epoch to the next", "points", "lower", _largest_falls),
        ("spread over seeds (sd), last epoch", "points", "lower", _spread),
        (f"first epoch at {100 * target:.0f} %", "epochs", "lower", lambda group: _first_epochs(group, target)),
        ("transitions of the recipe", "", "", _transitions),
    ]
    return [
        Aspect(name, unit, better, {group.name: _recorded(find(group)) for group in groups})
        for name, unit, better, find in table
    ]


def _recorded(values: Sequence[float] | None) -> Sequence[float] | None:
    """None where another program did not record the value of every run."""
    return None if values is None or any(map(math.isnan, values)) else values


def _largest_falls(group: Group) -> list[float]:
    return [measures.falls(run)[1] for run in group.counted]


def _spread(group: Group) -> list[float] | None:
    sd = statistics.summarise(measures.values(group, "last")).sd
    return None if sd is None else [sd]


def _first_epochs(group: Group, target: float) -> list[float] | None:
    epochs = [measures.first_epoch_at(run, target) for run in group.counted]
    reached = [float(epoch) for epoch in epochs if epoch is not None]
    return reached if group.finished and len(reached) == len(epochs) else None


def _transitions(group: Group) -> list[float] | None:
    return None if group.timeline is None else [float(len(measures.transitions(group.timeline)))]


def _judge(aspect: Aspect, groups: Sequence[Group]) -> Finding:
    known = {name: values for name, values in aspect.values.items() if values}
    if len(known) < max(2, len(groups)):
        return Finding(aspect)
    sign = 1 if aspect.better == "higher" else -1
    first, second, *_ = sorted(known, key=lambda name: -sign * float(np.mean(known[name])))
    margin = sign * float(np.mean(known[first]) - np.mean(known[second]))
    if not margin:
        return Finding(aspect, margin=0.0)
    p = None
    if aspect.name == _DECIDES:
        p = next(pair.adjusted for pair in measures.compare(groups, "last") if {pair.first, pair.second} == {first, second})
    elif all(group.finished and len(known[group.name]) > 1 for group in groups if group.name in (first, second)):
        p = statistics.welch(known[first], known[second]).p
    return Finding(aspect, first, margin, p, None if p is None else p < SIGNIFICANCE)


_WHERE = {
    "calibration error, last epoch": "Where probabilities are used, not the answers alone",
    "mean corruption accuracy, last epoch": "Where images are corrupted",
    "top-5 accuracy, last epoch": "Where one of five answers may be the right one",
}


def _uses(groups: Sequence[Group], pairs: Sequence[Pair], findings: Sequence[Finding]) -> list[str]:
    uses = [_for_accuracy(groups, pairs)]
    for finding in findings:
        where = _WHERE.get(finding.aspect.name)
        if where and finding.shown and finding.margin is not None:
            margin = f"{finding.aspect.factor * finding.margin:.2f} points"
            uses.append(f"{where}: {finding.ahead}, {margin} ahead of the next in {finding.aspect.name}.")
        if finding.aspect.unit == "epochs" and finding.ahead and finding.shown is not False:
            uses.append(_for_short_training(finding))
    steps = {group.name: number for group in groups if (number := measures.updates(group)) is not None}
    if len(set(steps.values())) > 1:
        fewest = min(steps, key=steps.__getitem__)
        steps_text = ", ".join(f"{name} {number:,}" for name, number in steps.items())
        uses.append(f"Where updates are dear: {fewest} takes the fewest ({steps_text}).")
    return uses + [text for group in groups for text in _for_low_rate(group)]


def _for_accuracy(groups: Sequence[Group], pairs: Sequence[Pair]) -> str:
    best, *others = sorted(groups, key=lambda group: -measures.mean(group, "last"))
    beaten = [_other(pair, best.name) for pair in pairs if best.name in (pair.first, pair.second) and significant(pair)]
    if len(beaten) == len(others):
        return f"Where accuracy decides: {best.name}."
    if beaten:
        return f"Where accuracy decides: {best.name} rather than {formats.listed(beaten)}; against the others nothing is shown."
    if any(pair.adjusted is None for pair in pairs):
        return "Where accuracy decides: these runs recommend none."
    return "Where accuracy decides: no difference is shown, so take the simpler or the cheaper one."


def _for_short_training(finding: Finding) -> str:
    epochs_text = ", ".join(f"{name} {np.mean(epochs):.4g}" for name, epochs in finding.aspect.values.items() if epochs)
    lead = "" if finding.shown else "; a lead, since it is not judged"
    return f"Where training is cut short: {finding.ahead} ({finding.aspect.name} of test images: {epochs_text}{lead})."


def _for_low_rate(group: Group) -> list[str]:
    cycle = measures.rate_cycle(group)
    if cycle is None:
        return []
    lower, upper = cycle.low_third[1], cycle.high_third[1]
    if lower is None or upper is None or lower <= upper:
        return []
    return [f"{group.name}: take weights from a low point of its rate. Test accuracy was {formats.thirds(cycle)}."]


def _of_others(groups: Sequence[Group]) -> dict[str, str]:
    return {group.name: "another program" for group in groups if group.config is None}


def confounds(groups: Sequence[Group]) -> list[tuple[str, list[str]]]:
    """What the runs differ in beside the recipe: (key, value by recipe) of network, data, precision, beginning and program."""
    known = {group.name: recipe_keys(group.config) for group in groups if group.config is not None}
    every_key = sorted(set().union(*known.values()) - {"model.num_classes"})
    outside = [key for key in every_key if key.startswith(("model.", "data.")) or key == "precision"]
    tables = [(key, {name: str(keys.get(key)) for name, keys in known.items()}) for key in outside]
    tables.append(("began with", {group.name: group.runs[0].beginning for group in groups if group.name in known}))
    programs = {group.name: "PyTorch" if group.log else "wrn_jax" for group in groups if group.name in known}
    tables.append(("program", programs if len(known) == len(groups) else programs | _of_others(groups)))
    return [
        (key, [cells.get(group.name, formats.NOT_RECORDED) for group in groups])
        for key, cells in tables
        if len(set(cells.values())) > 1
    ]
