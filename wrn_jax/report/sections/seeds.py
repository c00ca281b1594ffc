"""The statistics of a comparison as tables: over seeds, image by image, both gaps, evaluations, and the rate around them."""

import itertools
from collections.abc import Sequence

from wrn_jax.config import datasets
from wrn_jax.evaluation.metrics import wilson_interval
from wrn_jax.report import formats, measures, statistics, verdict
from wrn_jax.report.formats import NONE, NOT_EVALUATED
from wrn_jax.report.render.blocks import Block, Bullets, Table, Text
from wrn_jax.report.runs import Group


def over_seeds(groups: Sequence[Group]) -> list[Block]:
    """Mean, spread and interval over the seeds, and the differences between recipes."""
    rows = []
    for which, group in itertools.product(measures.told_apart(groups), groups):
        values = measures.values(group, which)
        summary = statistics.summarise(values)
        rows.append([
            which, group.name, str(summary.n), formats.percent(summary.mean), formats.percent(summary.sd),
            formats.interval(summary.low, summary.high), ", ".join(map(formats.percent, values)),
        ])  # fmt: skip
    heads = ("epoch", "recipe", "n", "mean (%)", "sd (points)", "95 % interval of the mean (%)", "each run (%)")
    note = f"Intervals by Student's t over the seeds; none where n = 1.{formats.best_note(groups)}"
    blocks: list[Block] = [Table("Test accuracy over the seeds", heads, rows, note=note)]
    if len(groups) > 1:
        blocks.append(_differences(groups))
    if single := [group for group in groups if len(group.counted) == 1 and group.config is not None]:
        blocks.append(_sampling(single))
    return blocks


def _differences(groups: Sequence[Group]) -> Table:
    rows, by_name = [], {group.name: group for group in groups}
    for which in measures.told_apart(groups):
        for pair in measures.compare(groups, which):
            welch, paired = pair.welch, pair.paired
            rows.append([
                which, f"{pair.first} - {pair.second}", f"{pair.counts[0]} and {pair.counts[1]}",
                formats.points(pair.difference),
                "not judged: n = 1" if welch is None else formats.interval(welch.low, welch.high, "+"),
                NONE if welch is None else formats.p_value(welch.p),
                NONE if pair.adjusted is None else formats.p_value(pair.adjusted),
                NONE if paired is None else f"{formats.interval(paired.low, paired.high, '+')}; {formats.p_value(paired.p)}",
                formats.percent(measures.detectable(by_name[pair.first], by_name[pair.second], which)),
            ])  # fmt: skip
    heads = ("epoch", "difference", "n", "of the means (points)", "95 % interval (Welch)", "Welch's t test",
             f"after {verdict.adjustment(groups)}", "paired by seed: 95 % interval; t test", "detectable (points)")  # fmt: skip
    note = (
        "Welch's test at the last epoch decides. Pairing by seed stands beside it: runs of one seed share data order and "
        "draws, and initial weights where the networks are alike, which need not make them move together. Detectable: the true "
        "difference that so many seeds of the spread measured here show in four of five studies, before that adjustment."
    )
    return Table("Differences of test accuracy between recipes", heads, rows, note=note)


def _sampling(groups: Sequence[Group]) -> Table:
    """How sure the accuracies of single networks are, as far as the test images go."""
    rows = []
    (count,) = {datasets.info(group.config.data).num_test for group in groups if group.config is not None}
    for which in measures.told_apart(groups):
        accuracies = [(group.name, measures.values(group, which)[0]) for group in groups]
        for name, accuracy in accuracies:
            interval = formats.interval(*wilson_interval(round(accuracy * count), count))
            rows.append([which, name, formats.percent(accuracy), interval])
        for (first, a), (second, b) in itertools.combinations(accuracies, 2):
            interval = formats.interval(*statistics.proportions((a, count), (b, count)), "+")
            rows.append([which, f"{first} - {second} (points)", formats.points(a - b), interval])
    note = (
        f"{count:,} test images. Wilson's interval of an accuracy, Newcombe's of a difference as if the networks had been "
        "tested on different images: what the choice of the images leaves open about these very networks, not what another "
        "seed would change. For a best epoch that was chosen on these images it is too narrow."
    )
    return Table("The single networks", ("epoch", "recipe", "test accuracy (%)", "95 % interval"), rows, note=note)


def over_images(groups: Sequence[Group]) -> list[Block]:
    """Paired tests on the same images, where there are predictions."""
    blocks: list[Block] = []
    reasons, few = [], len(groups) <= formats.MOST_COMPARED
    for which in measures.told_apart(groups):
        pairs = [measures.compare_images(first, second, which) for first, second in itertools.combinations(groups, 2)]
        whose = [f"{pair.first} and {pair.second}, {which} epoch: " if few else "" for pair in pairs]
        reasons += [f"{names}{pair.reason}" for names, pair in zip(whose, pairs, strict=True) if pair.reason]
        if few and (rows := [row for pair in pairs for row in _image_rows(pair)]):
            blocks.append(_image_table(which, rows))
        elif any(pair.together for pair in pairs):
            blocks.append(_together_table(which, pairs))
    if reasons and not blocks:
        return [Text(f"No two recipes can be compared image by image: {reasons[0]}.", "note")]
    return [*blocks, Text("Not compared image by image:"), Bullets([*dict.fromkeys(reasons)])] if reasons else blocks


def _image_table(which: str, rows: Sequence[Sequence[str]]) -> Table:
    heads = ("networks", "difference of accuracy (points)", "95 % interval", "only the first right", "only the second right",
             "McNemar, exact", "McNemar, mid-p")  # fmt: skip
    note = (
        "Both networks of a row saw the same images, so only those count that one of them alone gets right. “All together” "
        "takes for each image the share of a recipe's networks that are right, and samples the images. The p values of the "
        "rows are not combined, since they rest on the same images. All of this is about these networks on further images of "
        "the kind, not about the recipes on further seeds."
    )
    return Table(f"Image by image, {which} epoch", heads, rows, note=note)


def _together_table(which: str, pairs: Sequence[measures.Images]) -> Table:
    """Of many recipes: all networks of each together."""
    rows = [
        [f"{pair.first} - {pair.second}", formats.points(found.difference), formats.interval(found.low, found.high, "+"),
         formats.p_value(found.p)]
        for pair in pairs if (found := pair.together)
    ]  # fmt: skip
    heads = ("recipes", "difference of accuracy (points)", "95 % interval", "z test over images")
    note = (
        "For each image the share of a recipe's networks that are right; the images are sampled. All of this is about these "
        "networks on further images of the kind, not about the recipes on further seeds, and p is not adjusted."
    )
    return Table(f"Image by image, {which} epoch", heads, rows, note=note)


def _image_rows(images: measures.Images) -> list[list[str]]:
    together = images.together
    if together is None:
        return []
    rows = [
        [
            f"{pair.first} - {pair.second}", formats.points(pair.found.difference),
            formats.interval(pair.found.low, pair.found.high, "+"), f"{pair.discordance.only_first:,}",
            f"{pair.discordance.only_second:,}", formats.p_value(pair.discordance.exact), formats.p_value(pair.discordance.mid),
        ]
        for pair in images.pairs
    ]  # fmt: skip
    first, second = images.networks
    above = f"(above: pairs {'by seed' if images.by_seed else 'in the order given'})"
    what = f"{images.first} - {images.second}, all together: {first} and {second} networks, {images.count:,} images {above}"
    interval, p = formats.interval(together.low, together.high, "+"), f"z test over images: {formats.p_value(together.p)}"
    return [*rows, [what, formats.points(together.difference), interval, NONE, NONE, NONE, p]]


def gaps(groups: Sequence[Group]) -> list[Block]:
    """Both gaps, told apart."""
    rows = []
    for group, which in itertools.product(groups, measures.told_apart(groups)):
        trained = measures.measured(group, which, ("splits", "train", "accuracy"))
        rows.append([
            group.name, which, formats.values(measures.values(group, which)),
            formats.values(measures.values(group, which, "train_accuracy")),
            formats.gaps(measures.augmented_gaps(group, which)),
            formats.values(trained) if trained else NOT_EVALUATED, formats.clean_gap(group, which),
            formats.conditions(group) if which == "last" else NONE,
        ])  # fmt: skip
    heads = ("recipe", "epoch", "test accuracy (%)", "training accuracy as trained (%)", "gap under augmentation (points)",
             "clean training accuracy (%)", "clean gap (points)", "trained in that epoch on")  # fmt: skip
    note = f"{formats.spread_note(groups)}{formats.best_note(groups)}".strip()
    return [
        Text(
            "Two gaps go by one name. The **gap under augmentation** takes the training accuracy as it is counted in training, "
            "on augmented and mixed images with dropout on: it may be negative where training is made hard, and it grows when "
            "that is relaxed, whatever the network has learnt. The **clean gap** takes the training images evaluated as test "
            "images are.",
            "note",
        ),
        Table("Gaps: training minus test accuracy", heads, rows, note=note),
    ]


def evaluations(groups: Sequence[Group]) -> list[Block]:
    """What `evaluate` measured, side by side."""
    blocks: list[Block] = []
    for which in measures.told_apart(groups):
        rows = [row for measure in measures.MEASURES if (row := _measure_row(groups, which, measure))]
        if rows := [*rows, *_corruption_rows(groups, which)]:
            sources = measures.corruption_sources(groups, which)
            note = f"{formats.spread_note(groups)}Calibration error: expected calibration error in 15 bins of equal width."
            note += formats.best_note(groups)
            note += f" Corruptions, means over five severities: {sources[0]}." if len(sources) == 1 else ""
            blocks.append(
                Table(f"As evaluated, {which} epoch", ["measure", *[group.name for group in groups]], rows, note=note)
            )
            if len(sources) > 1:
                text = f"The corrupted images were not the same, so these accuracies do not compare: {'; '.join(sources)}."
                blocks.append(Text(text, "warning"))
    return blocks or [Text("No recipe has been evaluated beyond test accuracy and loss.", "note")]


def _measure_row(groups: Sequence[Group], which: str, measure: measures.Measure) -> list[str]:
    by_group = [measures.measured(group, which, measure.path) for group in groups]
    if not any(by_group):
        return []
    unit = "points" if measure.name.endswith("gap") else measure.unit
    factor, digits = (100, 2) if measure.unit == "%" else (1, 4)
    head = f"{measure.name} ({unit})" if unit else measure.name
    return [head, *[formats.values(values, factor, digits) for values in by_group]]


def _corruption_rows(groups: Sequence[Group], which: str) -> list[list[str]]:
    by_group = [measures.corruptions(group, which) for group in groups]
    return [
        [f"accuracy under {name.replace('_', ' ')} (%)", *[formats.values(values.get(name)) for values in by_group]]
        for name in dict.fromkeys(name for values in by_group for name in values)
    ]


def rate_cycles(groups: Sequence[Group]) -> list[Block]:
    """Whether the accuracies of different epochs, and of different recipes, were taken at like rates."""
    known = [(group, cycle) for group in groups if (cycle := measures.rate_cycle(group)) is not None]
    if not known:
        return []
    rows = []
    for group, cycle in known:
        best, last = cycle.evaluations[group.counted[0].best.epoch - 1], cycle.evaluations[-1]
        rows.append([
            group.name, f"{formats.rate(last.before)} ({last.epoch})", formats.rate(last.after),
            f"{formats.rate(best.before)} ({best.epoch})", formats.rate(best.after),
            f"{formats.rate(last.low)} to {formats.rate(last.high)}", "yes" if cycle.saw_tooth else "no", str(cycle.restarts),
        ])  # fmt: skip
    heads = ("recipe", "before the last evaluation (epoch)", "after it", "before the best one (epoch)", "after it",
             "lowest to highest in the last epoch", "up and down within epochs", "new cycles in all")  # fmt: skip
    note = "Rate of the last update before an evaluation and of the next one after it. The best epoch is that of the first run."
    blocks: list[Block] = [Table("The learning rate around the evaluations", heads, rows, note=note)]
    for group, cycle in known:
        if cycle.saw_tooth:
            blocks += [Text(f"**{group.name}.** {_saw_tooth(cycle)}", "warning"), _last_rates(group, cycle)]
    return blocks


def _saw_tooth(cycle: measures.RateCycle) -> str:
    text = (
        "The rate runs up and down within each epoch, and each evaluation falls wherever it stands, so the test accuracies of "
        "single epochs do not compare without it."
    )
    if not cycle.tail:
        return f"{text} The run has too few epochs to tell what that does to them."
    if thirds_text := formats.thirds(cycle):
        text += f" Test accuracy was {thirds_text}."
    if cycle.correlation is not None:
        text += (
            f" Rank correlation of rate and test accuracy over these epochs: {cycle.correlation:+.2f}, their common trend "
            "over the epochs included."
        )
    return text


def _last_rates(group: Group, cycle: measures.RateCycle) -> Table:
    rows = [
        [
            str(at.epoch),
            formats.percent(at.accuracy),
            formats.rate(at.before),
            formats.rate(at.after),
            f"{100 * at.position:.0f}",
        ]
        for at in cycle.evaluations[-10:]
    ]
    heads = ("epoch", "test accuracy (%)", "rate before", "rate after", "place in the epoch's range (%)")
    note = "0 % is the lowest rate of the epoch, 100 % the highest."
    return Table(f"Last evaluations of {group.name}", heads, rows, note=note)
