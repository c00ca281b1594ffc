"""Looks at a recipe and says what is likely wrong with it, with the epoch and the figures.

Each check reads the values of every step of the run (`Timeline.values`; of a very long run, of enough of them) or the keys of
the configuration, no data and no results. A finding is no error. Where it is meant to be so, the configuration silences it by
its name and says why:

    silence={"best-on-test": "as in the published runs, to be compared with them"}
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from wrn_jax.config import Config
from wrn_jax.config.findings import FINDINGS
from wrn_jax.config.rates import peak_after_warm_up, restarts, warm_up_end
from wrn_jax.config.schedules import extremes
from wrn_jax.config.timeline import Timeline, epoch_text
from wrn_jax.runtime import console

# Published WideResNets on CIFAR: 0.05 x 5e-4 = 2.5e-5 (Tian et al., "Contrastive Representation Distillation", 2020),
# 0.03 x 1e-3 = 3e-5 (Sohn et al., "FixMatch", 2020, CIFAR-100), 0.1 x 5e-4 = 5e-5 (the WideResNet paper; Cubuk et al.,
# "AutoAugment", 2019; Foret et al., "SAM", 2021). Momentum was 0.9 in all.
USUAL_DECAY_TIMES_RATE = (5e-5 / 4, 5e-5 * 4)

# Four times the rate of the WideResNet paper, 0.1 for a batch of 128, by the rule that both grow alike (Goyal et al., 2017).
HIGHEST_RATE_PER_IMAGE = 4 * 0.1 / 128
LOWEST_RATE_PER_IMAGE = 0.1 / 128 / 4

# Mixing that is still on in the last epoch counts from this share of the most that a run has.
MIXING_LEFT = 0.05

OPERATIONS = {
    "affine_probability": ("shift", "scale", "rotate"),
    "cutout_probability": ("cutout_size",),
    "holes_probability": ("holes_smallest", "holes_largest"),
    "brightness_contrast_probability": ("brightness", "contrast"),
    "color_probability": ("hue", "saturation", "value"),
    "randaugment_probability": ("randaugment_operations",),
    "crop_probability": ("crop_padding",),
    "mean_cutout_probability": ("mean_cutout_size",),
}
"""The strengths that each probability of a level lets act; a flip and TrivialAugment have none."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """What is likely wrong: its `name`, the `epoch` (from 1; between whole numbers within an epoch) or None, and a sentence."""

    name: str
    epoch: float | None
    text: str


def examine(config: Config, timeline: Timeline, written: Config | None = None) -> list[Finding]:
    """All findings in a recipe, silenced or not, in the order of `FINDINGS`.

    Args:
      config: the configuration.
      timeline: its recipe on the clock of the run.
      written: the configuration before it was changed on the command line, if it may have been.
    """
    findings = [finding for check in CHECKS for finding in check(config, timeline)]
    if written is not None:
        findings += batch_without_rate(config, written, "as written")
    return sorted(findings, key=lambda finding: list(FINDINGS).index(finding.name))


def loud(findings: Sequence[Finding], silence: Mapping[str, str]) -> list[Finding]:
    """The findings that `silence` does not name."""
    return [finding for finding in findings if finding.name not in silence]


def report(findings: Sequence[Finding], silence: Mapping[str, str]) -> list[str]:
    """The findings as lines of text, and in brief the silenced ones with their reasons."""
    objections = loud(findings, silence)
    lines = [f"findings: {len(objections) or 'nothing to object to'}"]
    for finding in objections:
        when = "" if finding.epoch is None else f"epoch {epoch_text(finding.epoch)}"
        lines += console.wrapped(f"  {finding.name:<21}  {when:<11}  ", finding.text)
    for name in dict.fromkeys(finding.name for finding in findings if finding.name in silence):
        lines += console.wrapped("  silenced: ", f"{name} ({silence[name]})")
    return lines


def explain() -> str:
    """What each finding means, for `--help`."""
    lines = ["findings (silence one by --config.silence.NAME=REASON, or by silence={NAME: REASON} in the file):"]
    for name, meaning in FINDINGS.items():
        lines += console.wrapped(f"  {name:<21}  ", meaning)
    return "\n".join(lines)


def _peak_not_reached(config: Config, timeline: Timeline) -> list[Finding]:
    rates = timeline.values["learning_rate"]
    end = warm_up_end(rates)
    after = rates[end + 1 :]
    if end == 0 or len(after) == 0 or after.max() >= 0.75 * rates[end]:
        return []
    text = (
        f"the warm-up rises to {_figure(rates[end])}, and afterwards the rate never exceeds {_figure(after.max())} "
        f"({_percent(after.max() / rates[end])} of it)"
    )
    return [Finding("peak-not-reached", _epoch(timeline, timeline.sampled[end]), text)]


def _restarts_within_epoch(config: Config, timeline: Timeline) -> list[Finding]:
    rates = timeline.values["learning_rate"]
    restart_steps = timeline.sampled[restarts(rates)]
    lengths = np.diff(np.concatenate([timeline.sampled[[warm_up_end(rates)]], restart_steps]))
    short = lengths < timeline.steps_per_epoch
    if not short.any():
        return []
    lowest, highest = lengths[short].min(), lengths[short].max()
    every = f"{lowest}" if lowest == highest else f"{lowest} to {highest}"
    text = (
        f"the rate restarts {_counted(int(short.sum()), 'time')} within an epoch of its last restart: after {every} steps, "
        f"where an epoch has {timeline.steps_per_epoch}"
    )
    return [Finding("restarts-within-epoch", _epoch(timeline, restart_steps[short][0]), text)]


def _uneven_evaluation(config: Config, timeline: Timeline) -> list[Finding]:
    """Compares the complete cycles: in each, the lowest rate that an epoch ends with. Cycles of whole epochs end with one."""
    rates = timeline.values["learning_rate"]
    cycles = restarts(rates)
    ends = np.flatnonzero((timeline.sampled + 1) % timeline.steps_per_epoch == 0)
    ends = ends[ends >= warm_up_end(rates)]
    cycle = np.searchsorted(cycles, ends, side="right")
    # The last cycle may be cut by the end of the run, which is for _ends_high to judge.
    groups = [ends[cycle == number] for number in np.unique(cycle[cycle < len(cycles)])]
    if not groups:
        return []
    lowest = [int(group[np.argmin(rates[group])]) for group in groups]
    least, most = min(lowest, key=lambda step: rates[step]), max(lowest, key=lambda step: rates[step])
    spread = (rates[most] - rates[least]) / peak_after_warm_up(rates)
    if spread <= 0.1:
        return []
    first, second = (timeline.epoch_of(int(timeline.sampled[place])) for place in (least, most))
    text = (
        f"epochs end at unlike points of the cycles: epoch {first} at a rate of {_figure(rates[least])}, epoch {second} at "
        f"{_figure(rates[most])}; {_percent(spread)} of the cycles' top lies between"
    )
    return [Finding("uneven-evaluation", second, text)]


def _ends_high(config: Config, timeline: Timeline) -> list[Finding]:
    rates = timeline.values["learning_rate"]
    top = rates[[0, *restarts(rates)][-1] :].max()
    if rates[-1] <= 0.05 * top:
        return []
    text = f"the last rate is {_figure(rates[-1])}, {_percent(rates[-1] / top)} of the top of its cycle, {_figure(top)}"
    return [Finding("ends-high", timeline.epochs, text)]


def _rate_jump(config: Config, timeline: Timeline) -> list[Finding]:
    rates = timeline.values["learning_rate"]
    cycles = restarts(rates)
    findings = []
    phases = timeline.beginnings("learning_rate")
    for (_, old), (step, new) in itertools.pairwise(phases):
        constant = isinstance(old, int | float) and isinstance(new, int | float)
        if constant or not 0 < step < timeline.steps:
            continue
        place = int(timeline.index(step))
        before, after = float(rates[place - 1]), float(rates[place])
        small, large = sorted((before, after))
        cycle = int(max([0, *cycles[cycles < place]]))
        beside = np.abs(np.diff(rates[max(0, place - 2) : place + 2].astype(np.float64)))
        is_slope = len(beside) == 3 and beside[1] <= 3 * max(beside[0], beside[2])  # a steep line that goes on
        is_restart = after > before and before <= 0.1 * rates[cycle:place].max()
        if is_slope or is_restart or large < 2 * small or large <= 0.01 * rates.max():
            continue
        factor = f"by a factor of {large / small:.3g}" if small else "where nothing is learned"
        verb = "falls" if after < before else "rises"
        text = f"from one update to the next the rate {verb} from {_figure(before)} to {_figure(after)}, {factor}"
        findings.append(Finding("rate-jump", _epoch(timeline, step), text))
    return findings


def _rate_near_zero(config: Config, timeline: Timeline) -> list[Finding]:
    rates = timeline.values["learning_rate"]
    peak = peak_after_warm_up(rates)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], rates < 1e-3 * peak, [0]])))
    begin, end = max(edges.reshape(-1, 2).tolist(), key=lambda stretch: stretch[1] - stretch[0], default=(0, 0))
    length = timeline.sampled[end - 1] + 1 - timeline.sampled[begin] if end else 0
    if length <= 0.1 * timeline.steps:
        return []
    text = (
        f"for {length / timeline.steps_per_epoch:.3g} of {timeline.epochs} epochs the rate is at most "
        f"{_figure(rates[begin:end].max())}, below 0.1 % of its peak, {_figure(peak)}"
    )
    return [Finding("rate-near-zero", _epoch(timeline, timeline.sampled[begin]), text)]


def _long_warm_up(config: Config, timeline: Timeline) -> list[Finding]:
    end = timeline.sampled[warm_up_end(timeline.values["learning_rate"])]
    if end <= 0.2 * timeline.steps:
        return []
    share = f"{end / timeline.steps_per_epoch:.3g} of {timeline.epochs} epochs"
    return [Finding("long-warm-up", _epoch(timeline, end), f"the warm-up takes {share}")]


def _decay_times_rate(config: Config, timeline: Timeline) -> list[Finding]:
    decay = float(timeline.values["weight_decay"].max())
    peak = peak_after_warm_up(timeline.values["learning_rate"])
    low, high = USUAL_DECAY_TIMES_RATE
    if low <= decay * peak <= high:
        return []
    text = (
        f"weight decay {decay:g} x peak rate {_figure(peak)} = {decay * peak:.2g}; WideResNets on CIFAR usually have "
        f"{low:.3g} to {high:.3g}"
    )
    return [Finding("decay-times-rate", None, text)]


def _rate_too_high(config: Config, timeline: Timeline) -> list[Finding]:
    peak, batch = peak_after_warm_up(timeline.values["learning_rate"]), config.recipe.batch_size
    highest = HIGHEST_RATE_PER_IMAGE * batch
    if peak <= highest * (1 + 1e-6):
        return []
    text = f"the peak rate is {_figure(peak)} for a batch of {batch}; above {_figure(highest)} likely nothing is learned"
    return [Finding("rate-too-high", None, text)]


def _rate_too_low(config: Config, timeline: Timeline) -> list[Finding]:
    peak, batch = peak_after_warm_up(timeline.values["learning_rate"]), config.recipe.batch_size
    lowest = LOWEST_RATE_PER_IMAGE * batch
    if peak > lowest * (1 + 1e-6):
        return []
    text = f"the peak rate is {_figure(peak)} for a batch of {batch}; {_figure(4 * lowest)} is usual"
    return [Finding("rate-too-low", None, text)]


def batch_without_rate(config: Config, other: Config, whose: str) -> list[Finding]:
    """The finding of that name in `config` as compared with another configuration, which the text calls `whose`; or none."""
    new, old = config.recipe.batch_size, other.recipe.batch_size
    factor = new / old
    if 2 / 3 < factor < 1.5 or config.recipe.learning_rate != other.recipe.learning_rate:
        return []
    text = f"batch {new}, {whose} {old}, and the same rate; by the usual rule the rate would be {factor:.3g} times that"
    return [Finding("batch-without-rate", None, text)]


def _sam_rho(config: Config, timeline: Timeline) -> list[Finding]:
    if not timeline.uses("sam_rho"):
        return []
    if not timeline.sharpness_aware_steps:
        text = f"sam_rho is not 0, but no such update is one of every {config.optimizer.sam_every} (sam_every)"
        return [Finding("sam-rho", None, text)]
    usual = 1.0 if config.optimizer.sam_adaptive else 0.1  # Kwon et al. and Foret et al. on CIFAR-100
    highest = float(timeline.values["sam_rho"].max())
    if usual / 4 <= highest * (1 + 1e-6) and highest <= usual * 4 * (1 + 1e-6):
        return []
    return [Finding("sam-rho", None, f"sam_rho rises to {_figure(highest)}; {usual:g} is usual")]


def _average_after_end(config: Config, timeline: Timeline) -> list[Finding]:
    is_meant = any(extremes(value) != (0, 0) for value in config.optimizer.average_decay.values())
    if not is_meant or timeline.uses("average_decay"):
        return []
    return [Finding("average-after-end", timeline.epochs, f"no average begins in {_counted(timeline.epochs, 'epoch')}")]


def _average_short(config: Config, timeline: Timeline) -> list[Finding]:
    highest = float(timeline.values["average_decay"].max())
    horizon = 1 / (1 - highest)
    if highest == 0 or horizon >= timeline.steps_per_epoch * (1 - 1e-3):
        return []
    text = f"average_decay {highest:.6g} looks back {horizon:.0f} updates, and an epoch has {timeline.steps_per_epoch}"
    return [Finding("average-short", None, text)]


def _mixing_at_end(config: Config, timeline: Timeline) -> list[Finding]:
    last_epoch = timeline.values_at(np.arange(timeline.steps - timeline.steps_per_epoch, timeline.steps, dtype=np.int32))
    mixing = []
    for name in ("mixup_alpha", "cutmix_probability"):
        mean = float(last_epoch[name].mean())
        if mean > MIXING_LEFT * timeline.values[name].max():
            mixing.append(f"{name} is {mean:.3g}")
    text = f"{' and '.join(mixing)} in the last epoch, which trains on mixed labels"
    return [Finding("mixing-at-end", timeline.epochs, text)] if mixing else []


def _phase_after_end(config: Config, timeline: Timeline) -> list[Finding]:
    late = timeline.idle()
    text = f"a run of {_counted(timeline.epochs, 'epoch')} never has: {'; '.join(late)}"
    return [Finding("phase-after-end", timeline.epochs, text)] if late else []


def _checkpoint_after_end(config: Config, timeline: Timeline) -> list[Finding]:
    late = [str(epoch) for epoch in config.recipe.checkpoint_epochs if epoch > config.recipe.epochs]
    length = _counted(config.recipe.epochs, "epoch")
    text = f"checkpoint_epochs has {', '.join(late)}, the recipe {length}: the last one is kept instead"
    return [Finding("checkpoint-after-end", timeline.epochs, text)] if late else []


def _early_stopping_idle(config: Config, timeline: Timeline) -> list[Finding]:
    """The first epoch can be the best one, so a patience of n ends a run after epoch n + 1 at the earliest."""
    patience = config.early_stopping_patience
    if patience is None or patience + 1 < timeline.epochs:
        return []
    text = f"with a patience of {_counted(patience, 'epoch')} a run of {timeline.epochs} cannot end early"
    return [Finding("early-stopping-idle", None, text)]


def _patience_below_cycle(config: Config, timeline: Timeline) -> list[Finding]:
    patience = config.early_stopping_patience
    cycles = timeline.sampled[restarts(timeline.values["learning_rate"])]
    if patience is None or len(cycles) == 0 or _early_stopping_idle(config, timeline):
        return []
    lengths = np.diff(np.append(cycles, timeline.steps))
    longest = int(np.argmax(lengths))
    if lengths[longest] <= patience * timeline.steps_per_epoch:
        return []
    text = (
        f"the cycle from here takes {lengths[longest] / timeline.steps_per_epoch:.3g} epochs, the patience is "
        f"{_counted(patience, 'epoch')}: what accuracy loses by the restart may end the run before the rate is low again"
    )
    return [Finding("patience-below-cycle", _epoch(timeline, cycles[longest]), text)]


def _best_on_test(config: Config, timeline: Timeline) -> list[Finding]:
    if config.data.validation_size:
        return []
    text = f"the best of {_counted(timeline.epochs, 'epoch')} is chosen on the test set; data.validation_size holds images out"
    return [Finding("best-on-test", None, text)]


def _small_hold_out(config: Config, timeline: Timeline) -> list[Finding]:
    images = config.data.validation_size
    if images == 0 or images >= 625:
        return []
    text = (
        f"{images} images tell accuracies around 50 % apart with a standard error of {50 / images**0.5:.1f} points: too few "
        "to rank epochs"
    )
    return [Finding("small-hold-out", None, text)]


def _idle_augmentation(config: Config, timeline: Timeline) -> list[Finding]:
    findings = []
    for index, name in enumerate(timeline.level_names):
        used = np.flatnonzero(np.abs(timeline.values["augmentation"] - index) < 1)
        given = {key for key, strength in dataclasses.asdict(config.augmentation_levels[name]).items() if strength > 0}
        texts = []
        if given and not any(key.endswith("probability") for key in given):
            texts.append(f"has {', '.join(sorted(given))}, but every probability is 0")
        for probability, strengths in OPERATIONS.items():
            if probability in given and not given & set(strengths):
                texts.append(f"has {probability}, but {' and '.join(strengths)} {'are' if len(strengths) > 1 else 'is'} 0")
        if len(used):
            epoch = _epoch(timeline, int(timeline.sampled[used[0]]))
            findings += [Finding("idle-augmentation", epoch, f"level {name} {text}") for text in texts]
    return findings


CHECKS = (
    _peak_not_reached,
    _restarts_within_epoch,
    _uneven_evaluation,
    _ends_high,
    _rate_jump,
    _rate_near_zero,
    _rate_too_high,
    _rate_too_low,
    _long_warm_up,
    _decay_times_rate,
    _sam_rho,
    _average_after_end,
    _average_short,
    _mixing_at_end,
    _phase_after_end,
    _checkpoint_after_end,
    _early_stopping_idle,
    _patience_below_cycle,
    _best_on_test,
    _small_hold_out,
    _idle_augmentation,
)


def _epoch(timeline: Timeline, step: int) -> float:
    """Where update `step` (from 0) stands, in epochs from 1."""
    return step / timeline.steps_per_epoch + 1


def _figure(value: float) -> str:
    """A value with three digits."""
    return f"{float(value):.3g}"


def _percent(share: float) -> str:
    """A share in per cent, with two digits below ten."""
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


def _counted(number: int, noun: str) -> str:
    """A number with its noun: 1 epoch, 2 epochs."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
