"""What the checks of a recipe may find, by name; `silence` names them too."""

FINDINGS = {
    "peak-not-reached": "after the warm-up the rate stays below three quarters of what the warm-up rises to",
    "restarts-within-epoch": "the rate restarts less than an epoch after its last restart",
    "uneven-evaluation": "the lowest rate that an epoch ends with differs from cycle to cycle by more than 10 % of the cycles' "
    "top, so that accuracies cannot be compared; cycles of whole epochs avoid it",
    "ends-high": "the last update's rate is above 5 % of the top of its cycle",
    "rate-jump": "the rate at least doubles or halves from one update to the next where one phase gives way to another, and it "
    "is neither a restart from the bottom of a cycle nor a step from one constant to another",
    "rate-near-zero": "the rate is below 0.1 % of its peak for more than a tenth of the run at a stretch",
    "rate-too-high": "the peak rate after the warm-up is above 0.4 for each 128 images of the batch, four times the WRN "
    "paper's (Zagoruyko & Komodakis, 2016), and the run may never do better than guessing",
    "rate-too-low": "the peak rate after the warm-up is 0.025 or less for each 128 images of the batch, a quarter of the WRN "
    "paper's",
    "long-warm-up": "the rate rises for more than a fifth of the run from its start (one-cycle recipes do so on purpose)",
    "decay-times-rate": "weight decay times the peak rate after the warm-up is not within a factor of 4 of 5e-4 x 0.1, that of "
    "the WideResNet paper (Zagoruyko & Komodakis, 2016)",
    "batch-without-rate": "the batch size was changed by half or more and the rate was not; the usual rule changes both by the "
    "same factor (Goyal et al., 2017)",
    "sam-rho": "the radius of sharpness-aware minimisation is not within a factor of 4 of 0.1, or of 1 where it is adaptive, "
    "or sam_every leaves no update that it acts on",
    "average-after-end": "the weight average would begin after the last epoch",
    "average-short": "the weight average forgets what is older than less than an epoch (1 / (1 - decay) updates)",
    "mixing-at-end": "mixup or CutMix still mixes labels in the last epoch; what corrupts labels usually ends before",
    "phase-after-end": "a phase starts after the last epoch, or not before the one that replaces it",
    "checkpoint-after-end": "a checkpoint is to be kept after an epoch beyond the last one",
    "early-stopping-idle": "the patience of early stopping is too long to end the run before its last epoch",
    "patience-below-cycle": "early stopping has less patience than a cycle takes, and accuracy falls when the rate restarts",
    "best-on-test": "without a hold-out the best epoch is chosen on the test set, which flatters it",
    "small-hold-out": "the standard error of an accuracy on the hold-out is above 2 points (fewer than 625 images)",
    "idle-augmentation": "an augmentation level has strengths but only probabilities of 0, or a probability without strengths",
}
