"""The report: groups of runs in, a document out; one function for each section that no other module has."""

import dataclasses
import shlex
from collections.abc import Callable, Mapping, Sequence

from wrn_jax.report import formats, measures, published_runs, verdict
from wrn_jax.report.formats import JUDGES, NONE, NOT_RECORDED
from wrn_jax.report.render.blocks import Block, Bullets, Document, Section, Table, Text
from wrn_jax.report.runs import Group, Run
from wrn_jax.report.sections import cards, configuration, curves, descent, epochs, published_comparison, seeds
from wrn_jax.report.verdict import Finding, Verdict


def build(groups: Sequence[Group], title: str | None = None, operations: Mapping[str, float] | None = None) -> Document:
    """The document that compares `groups`; differences are taken from the first.

    `operations`: those of a whole run of each recipe whose network is known, by name.
    """
    reached, operations = verdict.reach(groups), operations or {}
    sections = [
        Section("Summary", summary(groups, reached, operations)),
        Section("Recipe cards", [cards.cards(groups, operations)]),
        Section("Speed and cost", cards.costs(groups, operations)),
        Section("Figures", [figures(groups)]),
        Section("Configuration", [configuration.table(groups)]),
        Section("Accuracy by epoch", [epochs.epochs(groups)]),
        Section("Curves", curves.curves(groups)),
        Section("What moved", [epochs.transitions(groups), *curves.hyperparameters(groups)]),
        Section("Descent", descent.descent(groups)),
        Section("Milestones", [epochs.milestones(group, groups) for group in groups]),
        Section("Each recipe by itself", epochs.portraits(groups)),
        Section("Artifacts", [epochs.artifacts(group) for group in groups]),
        Section("Over seeds", seeds.over_seeds(groups)),
        Section("Image by image", seeds.over_images(groups)),
        Section("Best against last epoch", [epochs.selection(groups)]),
        Section("The gap under augmentation, and the clean one", seeds.gaps(groups)),
        Section("Calibration and corruption", seeds.evaluations(groups)),
        Section("Where in the cycle of the rate the evaluations fell", seeds.rate_cycles(groups)),
        Section("Verdict", verdict_blocks(groups, reached)),
        Section("Against the published comparison", published_comparison.differences(groups)),
        Section("How to reproduce it", reproduction(groups)),
        Section("Caveats", [Bullets(caveats(groups))]),
    ]
    names = " against ".join(group.name for group in groups)
    title = title or (names if len(groups) < 4 else f"{len(groups)} recipes compared")
    folded = [dataclasses.replace(section, folded=section.heading != "Summary") for section in sections]
    return Document(title, [section for section in folded if section.blocks])


def summary(groups: Sequence[Group], reached: Verdict, operations: Mapping[str, float]) -> list[Block]:
    """For a reader who has one minute: the verdict, a figure, a table; and what must not be missed."""
    blocks: list[Block] = [_sentence(reached), *curves.opening(groups), cards.results(groups, operations)]
    if on_test := [group.name for group in groups if group.judge == "test" and not measures.best_is_last([group])]:
        names = f"all {len(groups)} recipes" if len(on_test) == len(groups) > 3 else formats.listed(on_test)
        text = f"The best epoch of {names} was chosen on the test set, which flatters its test accuracy."
        blocks.append(Text(text, "warning"))
    blocks += [Text(text, "warning") for text in unfinished(groups)]
    blocks += [Text(text, "note") for text in how_read(groups)]
    if commands := missing_evaluations(groups):
        names = formats.count(len(commands), "evaluation")
        blocks.append(Text(f"Not there yet: {names}; the commands stand under “How to reproduce it”.", "note"))
    return blocks


def figures(groups: Sequence[Group]) -> Table:
    """The most important figures side by side."""
    figures: dict[str, Callable[[Group], str]] = {
        "runs that count (n)": lambda group: str(len(group.counted)),
        "test accuracy, last epoch (%)": lambda group: formats.values(measures.values(group, "last")),
        "test accuracy, best epoch (%)": lambda group: formats.values(measures.values(group, "best")),
        "last epoch": lambda group: formats.epochs_of(group, "last"),
        "best epoch": lambda group: formats.epochs_of(group, "best"),
        "best epoch chosen on": lambda group: JUDGES[group.judge],
        "test loss, last epoch (nats)": lambda group: formats.values(measures.values(group, "last", "test_loss"), 1, 4),
        "training accuracy, last epoch (%)": lambda group: formats.values(measures.values(group, "last", "train_accuracy")),
        "gap under augmentation, last epoch (points)": lambda group: formats.gaps(measures.augmented_gaps(group, "last")),
        "clean gap, last epoch (points)": formats.clean_gap,
    }
    if measures.logs(groups):
        figures |= {
            "final training less best test accuracy (points)": lambda group: formats.gaps(_mixed_gaps(group)),
            "notebook": lambda group: published_runs.PUBLISHED[group.log].notebook if group.log else NONE,
            "published model": lambda group: published_runs.PUBLISHED[group.log].place if group.log else NONE,
        }
    rows = [[label, *map(find, groups)] for label, find in figures.items()]
    note = (
        f"{formats.spread_note(groups)}Training accuracy is counted on augmented and mixed images with dropout on. Gaps are "
        "training minus test accuracy; for the clean one the training images are evaluated as test images are."
    )
    heads = ["figure", *[group.name for group in groups]]
    return Table("The recipes at a glance", heads, rows, note=note)


def _sentence(reached: Verdict) -> Text:
    return Text(reached.sentence, "warning" if reached.refused else "plain")


def _mixed_gaps(group: Group) -> list[float]:
    """As the published comparison has it: training accuracy of the last epoch, test accuracy of the best."""
    return [run.last.train_accuracy - run.best.test_accuracy for run in group.counted]


def unfinished(groups: Sequence[Group]) -> list[str]:
    """A line about each recipe that has runs which have not run to their end."""
    texts = []
    for group in groups:
        if runs := unfinished_runs(group):
            counted = how_counted(group, "they count in the curves and epoch tables only")
            texts.append(f"{group.name}: not finished: {', '.join(runs)}; {counted}.")
    return texts


def unfinished_runs(group: Group) -> list[str]:
    """The runs of a recipe that have not run to their end, each with how far it came."""
    return [f"{run.name} (epoch {run.last.epoch} of {run.epochs})" for run in group.runs if not run.finished]


def how_counted(group: Group, beside_finished: str) -> str:
    """How unfinished runs count: as `beside_finished` says, or all as they are where no run is finished."""
    after = f"none is, so all are taken as they were after epoch {group.counted[0].last.epoch}"
    return beside_finished if group.finished else after


def how_read(groups: Sequence[Group]) -> list[str]:
    """What is to be known of how logs were read."""
    texts = []
    for group in groups:
        sources: dict[str, list[str]] = {}
        for run in group.runs:
            for note in run.notes:
                sources.setdefault(note, []).append(run.source)
        texts += [f"{of[0] if len(of) == 1 else f'{len(of)} runs of {group.name}'}: {note}." for note, of in sources.items()]
    return texts


def missing_evaluations(groups: Sequence[Group]) -> list[str]:
    """The commands that evaluate the last and the best checkpoints that have not been."""
    runs = [run for group in groups for run in group.counted if run.config is not None and not run.log and run.finished]
    return [
        f"python -m wrn_jax.evaluate --workdir {shlex.quote(run.source)} --checkpoint {name}"
        for run in runs
        for epoch, name in {run.best.epoch: "best", run.last.epoch: "last"}.items()
        if run.evaluation(epoch) is None
    ]


def verdict_blocks(groups: Sequence[Group], reached: Verdict) -> list[Block]:
    """The rules, the figures they were applied to, and what follows."""
    blocks: list[Block] = [_sentence(reached), Text("The rules:"), Bullets(verdict.RULES)]
    if len(groups) > 1:
        blocks += _comparison(groups, reached)
    if measures.logs(groups):
        intro = Text("What the published comparison of sessions 02 and 04 could not know, or did not see:")
        blocks += [intro, Bullets(published_comparison.could_not_know(groups))]
    return blocks


def _comparison(groups: Sequence[Group], reached: Verdict) -> list[Block]:
    few = len(groups) <= formats.MOST_COMPARED
    pair_by_pair = [Text("Pair by pair:"), Bullets(reached.pairs)] if few else [Text("Pair by pair: see “Over seeds”.")]
    blocks: list[Block] = [*pair_by_pair] if len(groups) > 2 else []
    rows = [_finding_row(finding, groups) for finding in reached.findings if any(finding.aspect.values.values())]
    note = (
        f"{formats.spread_note(groups)}The first row decides. Ahead is the better mean, by its margin over the next; where "
        "neither is better, the smaller one. Not judged: a recipe with one run, or with none finished."
    )
    heads = ["aspect", *[group.name for group in groups], "ahead", "margin", "shown?"]
    blocks.append(Table("The recipes aspect by aspect", heads, rows, frozenset({0}), note))
    if confounds := verdict.confounds(groups):
        differences = "; ".join(f"{key} ({', '.join(cells)})" for key, cells in confounds)
        text = f"The runs differ in more than the recipe: {differences}. A difference may be due to that."
        blocks.append(Text(text, "warning"))
    return [*blocks, Text("When to use which, as far as the figures go:"), Bullets(reached.uses)]


def _finding_row(finding: Finding, groups: Sequence[Group]) -> list[str]:
    aspect = finding.aspect
    digits = {"%": 2, "points": 2, "nats": 4, "epochs": 1}.get(aspect.unit, 0)
    cells = [formats.values(aspect.values[group.name], aspect.factor, digits) for group in groups]
    head = aspect.name + (f" ({aspect.unit})" if aspect.unit in ("%", "points", "nats") else "")
    if finding.ahead is None or finding.margin is None:
        level = "level" if len(set(cells)) == 1 else "level in front"
        return [head, *cells, level if finding.margin == 0 else NONE, NONE, NONE]
    ahead = finding.ahead if aspect.better else f"smaller: {finding.ahead}"
    judged = "not judged" if finding.shown is None else f"{'yes' if finding.shown else 'no'} ({formats.p_value(finding.p)})"
    shown = judged if aspect.better else "no merit in itself"
    return [head, *cells, ahead, f"{aspect.factor * finding.margin:.{digits}f}", shown]


def reproduction(groups: Sequence[Group]) -> list[Block]:
    """Commands, machines and versions."""
    blocks: list[Block] = [runs_made(groups)]
    if commands := missing_evaluations(groups):
        intro = (
            "These add clean gap, calibration and predictions (with --corruptions accuracy on corrupted images too); then "
            "compare again:"
        )
        blocks += [Text(intro), Bullets(commands)]
    return blocks


def runs_made(groups: Sequence[Group]) -> Table:
    """The command, machine and versions of each run."""
    rows = [
        [run.name, group.name, command_of(run), formats.machine(run), _versions(run)] for group in groups for run in group.runs
    ]
    note = "The first command of each run; the configuration it resolved to is in the run's config.json."
    if measures.logs(groups):
        note += " For a published run: the command that trains its recipe here, in JAX and with other random numbers."
    heads = ("run", "recipe", "command", "machine", "versions")
    return Table("How the runs were made", heads, rows, note=note)


def command_of(run: Run) -> str:
    """The command that started a run, the program called as a module; for a published one, that which trains its recipe."""
    if run.log:
        return f"python -m wrn_jax.train --config configs/{run.log}_as_executed.py"
    if not run.headers:
        return NOT_RECORDED
    command = run.headers[0].command
    try:
        program, *arguments = shlex.split(command)
    except ValueError:
        return command
    return shlex.join(["python", "-m", "wrn_jax.train", *arguments]) if program.endswith("train.py") else command


def _versions(run: Run) -> str:
    if not run.headers:
        return "PyTorch" if run.log else NOT_RECORDED
    return ", ".join(f"{name} {version}" for name, version in run.versions)


def caveats(groups: Sequence[Group]) -> list[str]:
    """What limits what this report says."""
    counts = "; ".join(f"{group.name} n = {len(group.counted)}" for group in groups)
    texts = [f"{counts}. An interval over few seeds is wide, and its width itself uncertain.", *unfinished(groups)]
    scales = {group.name: group.config.recipe.scale for group in groups if group.config is not None}
    scaled = [f"{name} by {scale:g}" for name, scale in scales.items() if scale != 1]
    if scaled:
        texts.append(
            f"Scaled recipes: {', '.join(scaled)}. Phases given in epochs are scaled with the length, those given in updates "
            "are not; what holds at this length need not hold at the full one."
        )
    steps = {group.name: number for group in groups if (number := measures.updates(group)) is not None}
    if len(set(steps.values())) > 1:
        lengths = "; ".join(f"{name} {number:,}" for name, number in steps.items())
        texts.append(f"The recipes take unlike numbers of updates: {lengths}.")
    if measures.logs(groups):
        texts.append(
            "The logs' test loss is as the notebooks computed it; whether label smoothing is part of it is not recorded."
        )
    if unknown := [group.name for group in groups if group.config is None]:
        texts.append(f"Of {formats.listed(unknown)} only a log is known, not the recipe, the seed or the test images.")
    return [*texts, *[text for group in groups for text in _run_caveats(group)]]


def _run_caveats(group: Group) -> list[str]:
    texts = []
    if len({(_versions(run), formats.machine(run)) for run in group.runs}) > 1:
        texts.append(f"{group.name}: its runs were made by unlike versions or machines: see “How to reproduce it”.")
    for run in group.runs:
        if run.timeline is not None and run.finished and run.last.epoch < run.timeline.epochs:
            stopped = f"after epoch {run.last.epoch} of {run.timeline.epochs}, by what {JUDGES[run.judge]} said"
            texts.append(f"{run.name}: stopped early, {stopped}; so its last epoch was chosen.")
        rollbacks = max((header.rollbacks for header in run.headers), default=0)
        skipped = sum(row.skipped_steps for row in run.rows)
        if rollbacks or skipped:
            texts.append(f"{run.name}: rollbacks to a checkpoint: {rollbacks}; skipped updates: {skipped}.")
        for evaluation in run.evaluations:
            epoch, accuracy = evaluation.epoch, evaluation.figures["splits"]["test"]["accuracy"]
            recorded = run.rows[epoch - 1].test_accuracy if epoch <= len(run.rows) else None
            if recorded is not None and abs(recorded - accuracy) > 0.002:
                both = f"{formats.percent(accuracy)} % as evaluated, {formats.percent(recorded)} % as recorded in training"
                texts.append(f"{run.name}, epoch {epoch}: {both}; precision, versions or images may differ.")
    return texts
