"""What the published comparison of sessions 02 and 04 got wrong, and what it could not know, from the logs of its runs."""

from collections.abc import Sequence
from typing import Any

from wrn_jax.config.schedules import Linear, WarmRestarts
from wrn_jax.report import formats, measures, published_runs
from wrn_jax.report.render.blocks import Table
from wrn_jax.report.runs import Group, Run


def differences(groups: Sequence[Group]) -> list[Table]:
    """The figures of the published comparison that its runs' logs do not bear out; nothing without these runs."""
    runs = {log: group.runs[0] for log, group in measures.logs(groups).items()}
    rows: list[tuple[str, int, str, str]] = []
    for log, run in runs.items():
        for epoch, stated in published_runs.DOCUMENTED[log].items():
            rows.append((f"test accuracy (%), {log}", epoch, f"{stated:.2f}", f"{_test(run, epoch):.2f}"))
        train, epoch = 100 * run.last.train_accuracy, run.last.epoch
        stated_train, stated_gap = published_runs.DOCUMENTED_TRAIN[log], published_runs.DOCUMENTED_GAP[log]
        rows.append((f"final training accuracy (%), {log}", epoch, f"{stated_train:.2f}", f"{train:.2f}"))
        what = f"final training less best test accuracy (points), {log}"
        rows.append((what, epoch, f"{stated_gap:+.2f}", f"{train - 100 * run.best.test_accuracy:+.2f}"))
    if len(runs) == 2:
        rows += _between(*(runs[log] for log in published_runs.LOGS))
    caption, heads = "Where the published comparison differs from the logs of its runs", ("figure", "epoch", "published", "log")
    cells = [(what, str(epoch), stated, logged) for what, epoch, stated, logged in rows if stated != logged]
    return [Table(caption, heads, cells, note="This report carries the logs' figures throughout.")] if runs else []


def _test(run: Run, epoch: int) -> float:
    return 100 * run.rows[epoch - 1].test_accuracy


def _between(first: Run, second: Run) -> list[tuple[str, int, str, str]]:
    """What follows for differences between the two runs."""
    stated = [published_runs.DOCUMENTED[log] for log in published_runs.LOGS]
    rows = []
    for epoch in sorted(stated[0].keys() | stated[1].keys()):
        logged = [_test(run, epoch) for run in (first, second)]
        a, b = (by_epoch.get(epoch, accuracy) for by_epoch, accuracy in zip(stated, logged, strict=True))
        what = "test accuracy, session02 - session04 (points)"
        rows.append((what, epoch, f"{a - b:+.2f}", f"{logged[0] - logged[1]:+.2f}"))
    best, last = (100 * row.test_accuracy for row in (second.best, second.last))
    what = "fall after the best epoch (points), session04"
    rows.append((what, 100, f"{best - stated[1][100]:.2f}", f"{best - last:.2f}"))
    a, b = (100 * (run.last.train_accuracy - run.best.test_accuracy) for run in (first, second))
    gaps = published_runs.DOCUMENTED_GAP
    what = "these gaps, session04 - session02 (points)"
    rows.append((what, 100, f"{gaps['session04'] - gaps['session02']:+.2f}", f"{b - a:+.2f}"))
    return rows


def could_not_know(groups: Sequence[Group]) -> list[str]:
    """What the published comparison could not know or did not see, with the figures."""
    logs = measures.logs(groups)
    texts = [f"**n = 1.** One run of one seed stands for each recipe: {formats.listed(list(logs))}."]
    both = [logs[log] for log in published_runs.LOGS] if len(logs) == 2 else []
    if both:
        best, last = (measures.mean(both[1], which) - measures.mean(both[0], which) for which in ("best", "last"))
        texts.append(
            f"**The order reverses at the last epoch.** Session04 minus session02 is {formats.points(best)} points at the best "
            f"epochs and {formats.points(last)} at the last."
        )
    for log, group in logs.items():
        texts += [_chosen(group), _executed(log, group), _evaluated(group)]
    if both:
        texts.append(_like_places(*both))
    if "session04" in logs:
        texts.append(_gap(logs["session04"]))
    peers = "; ".join(f"{name} {accuracy:g} %" for name, accuracy in published_runs.PEERS)
    texts.append(
        f"**Far from what the network can do.** The aim was {published_runs.TARGET:g} %, which neither run reached. Published "
        f"test accuracies of the same network: {peers}."
    )
    return texts


def _chosen(group: Group) -> str:
    choice = measures.selection(group.runs[0])
    against = f"{formats.points(choice.best - choice.last)} points against the last"
    return (
        f"**{group.log}: the best epoch was picked on the test set** out of {choice.last_epoch}: epoch {choice.best_epoch} "
        f"with {formats.percent(choice.best)} %, {'which is the last' if choice.best_epoch == choice.last_epoch else against}."
    )


def _cycle(group: Group) -> measures.RateCycle:
    cycle = measures.rate_cycle(group)
    assert cycle is not None  # the schedules of published logs are known
    return cycle


def _executed(log: str, group: Group) -> str:
    described = ", then ".join(_describe(phase) for phase in published_runs.described(log).recipe.learning_rate.values())
    cycle = _cycle(group)
    return (
        f"**{group.log}: the schedule was not executed as described.** Described is {described}. After the warm-up the rate "
        f"never exceeded {formats.rate(cycle.peak_after)}, and its cycles took updates, not epochs: it began a new one "
        f"{cycle.restarts} times. Cutout cut one or two rectangles with sides of 10 to 20 % of the image instead of one square."
    )


def _describe(phase: Any) -> str:
    match phase:
        case Linear(start=start, end=end, over=over):
            return f"a warm-up from {start:g} to {end:g} over {over}"
        case WarmRestarts(peak=peak, floor=floor, period=period):
            return f"warm restarts from {peak:g} to {floor:g} every {period}"
        case _:
            return f"a cosine from {phase.start:g} to {phase.end:g} over {phase.over}"


def _evaluated(group: Group) -> str:
    cycle = _cycle(group)
    ends = ", ".join(
        f"after epoch {evaluation.epoch} it was {formats.rate(evaluation.after)} ({formats.percent(evaluation.accuracy)} %)"
        for evaluation in cycle.evaluations[-2:]
    )
    return (
        f"**{group.log}: the evaluations fell in a saw-tooth of the rate:** {ends}. Test accuracy was {formats.thirds(cycle)}."
    )


def _like_places(first: Group, second: Group) -> str:
    cycles = _cycle(first), _cycle(second)
    low, high = ([getattr(cycle, third)[1] for cycle in cycles] for third in ("low_third", "high_third"))
    return (
        f"**At like places of the saw-tooth** session04 minus session02 is {formats.points(low[1] - low[0])} points where the "
        f"rate is in the lowest third of its range and {formats.points(high[1] - high[0])} where it is in the highest (means "
        f"over the last {cycles[0].tail} epochs). With one run each this is no verdict either."
    )


def _gap(group: Group) -> str:
    """The jump of the training accuracy where mixup ends, which shows what the gap measures."""
    assert group.timeline is not None
    event = next(event for event in group.timeline.events() if event.name == "mixup_alpha" and event.after == "0")
    before, after = group.runs[0].rows[event.epoch - 2], group.runs[0].rows[event.epoch - 1]
    train, test = ([formats.percent(row.accuracy(split)) for row in (before, after)] for split in ("train", "test"))
    return (
        "**The gap is not clean.** Training accuracy was counted on augmented and mixed images with dropout on. When mixup "
        f"ends and augmentation becomes minimal, at epoch {event.epoch}, session04's rises from {train[0]} to {train[1]} % in "
        f"one epoch while its test accuracy goes from {test[0]} to {test[1]} %. The gaps of two recipes with unlike "
        "augmentation and mixup are measured on unlike images, so they do not say which network generalises better."
    )
