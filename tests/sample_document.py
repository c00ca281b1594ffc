"""A document with all that a page must cope with: many plots, long tables, gaps, bands, names like markup."""

import math

from wrn_jax.report.render.blocks import Bullets, Card, Cards, Document, Plot, Section, Series, Strip, Table, Text

NASTY = '<b>cut</b> & "paste" %{y} </script>'
"""The name of one group of runs."""

GROUPS = ("session 02", "session 04", "session 04 as executed weight_decay=0.0005 scale=0.3", NASTY)
EPOCHS = 100
MARKS = (
    (5, "session 04: warm-up ends"),
    (41, "session 04: augmentation full → reduced"),
    (41, "session 04: mixup alpha 0.2 → 0.15"),
    (51, "session 04: dropout 0.3 → 0.2"),
    (51, "session 04: label smoothing 0.1 → 0.05"),
    (61, "session 04: cosine to the end"),
    (71, "session 04: augmentation reduced → minimal"),
    (72, f"{NASTY}: mixup off"),
    (73, "session 02: restart"),
    (81, "session 04: dropout 0.2 → 0.1"),
)


def curve(group, epoch, top, speed=0.04):
    """A learning curve that differs between groups and wobbles a little."""
    return top * (1 - math.exp(-speed * (epoch + 2 * group))) + 0.6 * math.sin(epoch * (1 + group / 3))


def banded(group, name, values, spread):
    """A line with a band round it."""
    epochs = range(1, len(values) + 1)
    return Series(name, epochs, values, [v - spread for v in values], [v + spread * (1 + group / 4) for v in values])


def per_epoch(name, title, y_label, value, spread, description):
    """A plot with a line for each group; the last group ends early, the second has a gap."""
    series = []
    for group, label in enumerate(GROUPS):
        values = [value(group, epoch) for epoch in range(1, (80 if label == NASTY else EPOCHS) + 1)]
        if group == 1:
            values[29:33] = [math.nan] * 4
        series.append(banded(group, label, values, spread) if spread else Series(label, range(1, len(values) + 1), values))
    return Plot(name, title, "epoch", y_label, series, MARKS, description)


ABOVE = "Session 04 stays **above** session 02 until the last epoch, where it drops."
PER_EPOCH = [
    ("test_accuracy", "Test accuracy", "accuracy (%)", lambda group, epoch: curve(group, epoch, 70 + group), 1.2, ABOVE),
    ("train_accuracy", "Training accuracy under augmentation", "accuracy (%)",
     lambda group, epoch: curve(group, epoch, 80, 0.03), 0.8, "Rises."),
    ("test_loss", "Test loss", "nats", lambda group, epoch: 4.6 - curve(group, epoch, 70) / 22, 0.1, "Falls."),
    ("train_loss", "Training loss", "nats", lambda group, epoch: 4.6 - curve(group, epoch, 80) / 25, 0.05, ""),
    ("learning_rate", "Learning rate", "learning rate",
     lambda group, epoch: 0.05 * (1 + math.cos(math.pi * (epoch % 25) / 25)), 0, "Four cycles."),
    ("dropout", "Dropout", "rate", lambda group, epoch: 0.3 - 0.1 * (epoch > 50) - 0.1 * (epoch > 80), 0, ""),
    ("mixup_alpha", "Mixup", "alpha", lambda group, epoch: 0.2 - 0.05 * (epoch > 40), 0, "Steps down."),
    ("label_smoothing", "Label smoothing", "share", lambda group, epoch: 0.1 - 0.05 * (epoch > 50), 0, ""),
    ("gap", "Gap under augmentation: training minus test", "points", lambda group, epoch: epoch / 4 - 3 * group - 2, 0.5,
     "Crosses zero."),
]  # fmt: skip


def plots():
    """Eleven plots, by name; the last one is folded away."""
    steps = [1 + step / 20 for step in range(20 * EPOCHS)]
    saw = [Series(label, steps, [0.005 + 0.005 * math.cos(7 * x + group) for x in steps]) for group, label in enumerate(GROUPS)]
    by_step = Plot("rate_by_step", "Learning rate at every step", "epoch", "learning rate", saw, (), "A saw-tooth.")
    folded = Plot("rate_at_evaluation", "Rate at evaluations", "epoch", "learning rate", saw[:1], (), "A saw-tooth.")
    return {plot.name: plot for plot in [*(per_epoch(*row) for row in PER_EPOCH), by_step, folded]}


def cards():
    """A card for each group."""
    strip = Strip("learning rate", "0 to 0.1", [0, 10, 50, 100], [0, 0.1, 0.05], [0.1, 0.1, 0.1])
    return [
        Card(f"card-{place}", name, place, f"Rate of {name}", [strip], [("reaches", name)]) for place, name in enumerate(GROUPS)
    ]


def sample_document():
    """The document."""
    rows = []
    for epoch in range(1, EPOCHS + 1):
        figures = [f"{curve(group, epoch, 70 + group):.2f} ± 0.31 %" for group in range(4)]
        rows.append([str(epoch), *figures, "checkpoint, **best so far**" if epoch % 25 == 0 else "–"])
    by_epoch = Table(
        "Test accuracy, mean and standard deviation over three seeds, after each epoch",
        ["epoch", *GROUPS, "events"], rows, frozenset({40, 50, 99}), "Marked: epochs at which something **changes**.",
    )  # fmt: skip
    configuration = Table(
        "Configuration, with the rows marked in which the groups differ", ["key", *GROUPS],
        [
            ["model", *["WideResNet-28-10"] * 4],
            ["recipe.learning_rate", "warm-up, then 4 cycles", "warm-up, then 3 cycles and a cosine", "0.01, saw-tooth", "0.1"],
            ["parameters", *["36,536,884"] * 4],
            ["optimizer.a_key_with_a_very_long_name_indeed", "1e-3", "1e-3", "5e-4", "1e-3"],
            [f"augmentation.{NASTY}", "full", "full → reduced → minimal", "full", NASTY],
        ],
        frozenset({1, 3, 4}),
    )  # fmt: skip
    variants = [f"session04 weight_decay={decay} dropout={dropout}" for decay in (0.0005, 0.001, 0.002) for dropout in range(4)]
    texts = ["learning rate", *["linear 0.01 to 0.15 over 5 epochs -> warm restarts every 20 epochs, from epoch 6 on"] * 12]
    wide = Table(
        "Twelve variants side by side", ["figure", *variants],
        [["test accuracy (%)", *["71.20 ± 0.31"] * 12], ["kept", *["10, 20, 30"] * 12], texts],
    )  # fmt: skip
    results = [[GROUPS[0], "3", "71.20 ± 0.30 %", "100"], [GROUPS[1], "3", "72.98 ± 0.41 %", "99"], [NASTY, "1", "–", "80"]]
    summary = [
        Text("**session 04** is ahead of **session 02** by +1.3 points (95 % interval 0.4 to 2.2), three seeds each."),
        Text("n = 1 for session 04 as executed: nothing about its spread can be said.", "warning"),
        Text("The best epoch was chosen on a hold-out; the test set was looked at once.", "note"),
        Bullets(["**session 02** for a short run", "session 04 where every point counts", f"{NASTY} never"]),
        Table("Results", ["group", "n", "last epoch", "best epoch"], results, frozenset({1}), "Marked: the highest mean."),
    ]
    drawn = plots()
    moving = [drawn[name] for name in ("learning_rate", "rate_by_step", "dropout", "mixup_alpha", "label_smoothing")]
    sections = [
        Section("Summary", summary),
        Section("Configuration", [configuration]),
        Section("Variants", [wide]),
        Section("Accuracy", [drawn["test_accuracy"], drawn["train_accuracy"], by_epoch]),
        Section("Loss", [drawn["test_loss"], drawn["train_loss"]]),
        Section("Moving hyperparameters", moving),
        Section("Gaps & what they mean", [Text("Two gaps, told apart."), drawn["gap"]]),
        Section("Verdict", [Text("Nothing more can be said:\nsee **above**.")]),
        Section("Folded away", [Cards(cards()), drawn["rate_at_evaluation"]], folded=True),
    ]
    return Document(f"Comparison of four recipes, of which one is called {NASTY}", sections)
