"""The verdict: what follows from made-up figures, what is refused, and why."""

import dataclasses

import pytest

from tests import sample_runs
from tests.sample_runs import published, recipe, right
from wrn_jax.report import runs, verdict


def recipes(directory, accuracies, **changes):
    """A recipe for each name, its seeds with these accuracies after the last of five epochs, one less at the best-but-one."""
    return [
        recipe(
            directory, name, [[0.1, 0.2, 0.3, accuracy - 0.01, accuracy] for accuracy in seeds],
            recipe__dropout=0.1 + number / 100, **changes,
        )
        for number, (name, seeds) in enumerate(accuracies.items())
    ]  # fmt: skip


def finding(reached, name):
    """The finding about an aspect."""
    return next(finding for finding in reached.findings if finding.aspect.name == name)


def test_a_clear_difference_is_shown(tmp_path):
    reached = verdict.reach(recipes(tmp_path, {"a": [0.40, 0.41, 0.42], "b": [0.50, 0.51, 0.52]}))
    assert not reached.refused
    better = "**b is better than a** after the last epoch, by +10.00 points (95 % interval +7.73 to +12.27"
    assert reached.sentence.startswith(better)
    assert "(a 41.00, b 51.00 %; n = 3 and 3)" in reached.sentence
    assert reached.sentence.endswith("That was the best epoch of every run.")
    assert reached.uses[0] == "Where accuracy decides: b."
    deciding = finding(reached, "test accuracy, last epoch")
    assert reached.findings[0] is deciding
    assert (deciding.ahead, deciding.shown, deciding.margin) == ("b", True, pytest.approx(0.1))


def test_the_best_epoch_is_told_where_it_is_not_the_last_one_of_every_run(tmp_path):
    a = recipe(tmp_path, "a", [[0.1, 0.2, 0.3, 0.6, 0.4], [0.1, 0.2, 0.3, 0.4, 0.41]])
    b = recipe(tmp_path, "b", [[0.1, 0.2, 0.3, 0.4, 0.5]] * 2, recipe__dropout=0.2)
    told = "At the best epoch, chosen on the test set, which flatters both, the order reverses: a is ahead by 0.50 points"
    assert told in verdict.reach([a, b]).sentence


def test_a_small_difference_is_not_shown_and_its_interval_is(tmp_path):
    reached = verdict.reach(recipes(tmp_path, {"a": [0.40, 0.42, 0.44], "b": [0.41, 0.43, 0.45]}))
    assert not reached.refused
    shown = "**No difference shown between a and b** after the last epoch: -1.00 points (95 % interval -5.53"
    assert reached.sentence.startswith(shown)
    assert "What lies within the interval is not excluded." in reached.sentence
    assert "no difference is shown" in reached.uses[0]
    assert finding(reached, "test accuracy, last epoch").shown is False


@pytest.mark.parametrize("seeds", [{"a": [0.40], "b": [0.50]}, {"a": [0.40, 0.41, 0.42], "b": [0.50]}])
def test_with_one_run_the_verdict_is_refused_with_its_reason(tmp_path, seeds):
    reached = verdict.reach(recipes(tmp_path, seeds))
    assert reached.refused
    single = "a and b" if len(seeds["a"]) == 1 else "b"
    assert f"n = 1 for {single}, and one run does not tell the recipe from its seed" in reached.sentence
    assert "b is ahead by" in reached.sentence
    assert finding(reached, "test accuracy, last epoch").shown is None
    assert reached.uses[0] == "Where accuracy decides: these runs recommend none."


def test_without_a_finished_run_the_verdict_is_refused(tmp_path):
    unfinished = recipe(tmp_path, "a", [[0.4, 0.41], [0.41, 0.42]])
    reached = verdict.reach([unfinished, *recipes(tmp_path, {"b": [0.50, 0.51]})])
    assert reached.refused
    assert "no finished run of a." in reached.sentence
    assert all(finding.shown is None for finding in reached.findings)
    assert not [one for one in reached.findings if one.aspect.unit == "epochs" and one.ahead]


def test_runs_that_do_not_differ_cannot_be_judged(tmp_path):
    reached = verdict.reach(recipes(tmp_path, {"a": [0.5, 0.5], "b": [0.4, 0.4]}))
    assert reached.refused
    assert "agree to the last digit, so there is no spread to judge by" in reached.sentence


def test_best_epochs_chosen_on_unlike_sets_are_not_compared(tmp_path):
    curves = [[0.1] * 4 + [0.3 + seed / 100] for seed in range(2)]
    held_out = recipe(tmp_path, "h", curves, valid=[0.1] * 5, data__validation_size=100)
    groups = [*recipes(tmp_path, {"a": [0.40, 0.41]}), held_out]
    reached = verdict.reach(groups)
    assert "chosen on unlike sets, so that it compares nothing," in reached.sentence
    assert finding(reached, "test accuracy, best epoch").aspect.better == ""
    assert ("data.validation_size", ["0", "100"]) in verdict.confounds(groups)


def test_three_recipes_are_adjusted_for_three_pairs(tmp_path):
    groups = recipes(tmp_path, {"a": [0.40, 0.41, 0.42], "b": [0.50, 0.51, 0.52], "c": [0.425, 0.435, 0.445]})
    reached = verdict.reach(groups)
    assert "**b is better than a and c** after the last epoch, by 7.50 to 10.00 points (51.00 ± 1.00 %" in reached.sentence
    assert "**c is better than a**" in reached.sentence  # p = 0.038, the largest of the three, so not adjusted
    assert finding(reached, "test accuracy, last epoch").ahead == "b"
    assert (reached.uses[0], len(reached.pairs)) == ("Where accuracy decides: b.", 3)


def test_holm_can_take_back_what_a_pair_alone_would_show(tmp_path):
    """p of a against b alone is 0.047; among three pairs it is not enough."""
    seeds = {"a": [0.40, 0.41, 0.42], "b": [0.423, 0.433, 0.443]}
    alone = verdict.reach(recipes(tmp_path / "two", seeds))
    assert alone.sentence.startswith("**b is better than a**")
    among = verdict.reach(recipes(tmp_path / "three", seeds | {"c": [0.411, 0.421, 0.431]}))
    assert "is better than" not in among.sentence
    assert "after Holm's adjustment" in among.pairs[0]
    assert not among.refused


def test_some_of_several_may_be_judged(tmp_path):
    reached = verdict.reach(recipes(tmp_path, {"a": [0.40, 0.41], "b": [0.60, 0.61], "c": [0.5]}))
    assert not reached.refused
    assert reached.sentence.startswith("**No verdict on some of them**: n = 1 for c")
    assert "**b is better than a**" in reached.sentence
    assert "rather than a; against the others nothing is shown" in reached.uses[0]


def test_one_recipe_is_compared_with_nothing(tmp_path):
    reached = verdict.reach(recipes(tmp_path, {"a": [0.4, 0.5]}))
    assert reached.refused
    assert "a: 45.00 ± 7.07 % test accuracy after the last epoch (n = 2)" in reached.sentence


def test_the_published_logs():
    reached = verdict.reach(published())
    last = "After the last epoch session02 is ahead by 1.61 points (session02 71.20, session04 69.59 % test accuracy)"
    assert last in reached.sentence
    best = "chosen on the test set, which flatters both, the order reverses: session04 is ahead by 1.78 points"
    assert best in reached.sentence
    # A gap is no merit: the smaller one is not called better.
    gap = finding(reached, "gap under augmentation, last epoch")
    assert (gap.aspect.better, gap.ahead) == ("", "session02")
    assert not [text for text in reached.uses if "gap" in text]
    # What is early and not judged is a lead.
    (early,) = [text for text in reached.uses if text.startswith("Where training is cut short")]
    assert early.startswith("Where training is cut short: session04 (first epoch at 69 %")
    assert "session02 86, session04 60; a lead, since it is not judged" in early


def test_runs_of_unlike_length_or_version_are_told_in_the_sentence(tmp_path):
    a, b = recipes(tmp_path, {"a": [0.40, 0.41], "b": [0.60, 0.61]})
    assert "not alike" not in verdict.reach([a, b]).sentence
    header = a.runs[1].headers[0]
    newer = dataclasses.replace(header, versions=header.versions | {"jax": "0.12.1"})
    mixed = runs.Group("a", (a.runs[0], dataclasses.replace(a.runs[1], headers=(header, newer))))
    longer = recipe(tmp_path, "c", [[0.1] * 10, [0.2] * 10], recipe__scale=0.1)
    ending = (
        " **The runs are not alike**: of different length (last epochs: a 5, c 10); of different versions (jax 0.12.0 in a and "
        "c; jax 0.12.1 in a)."
    )
    assert verdict.reach([mixed, longer]).sentence.endswith(ending)


def test_how_runs_began_is_told_where_it_differs(tmp_path):
    scratch = sample_runs.write(tmp_path / "scratch-seed0", [0.1, 0.2, 0.3, 0.4, 0.5])
    more = [sample_runs.write(tmp_path / name / "more-seed0", [0.1, 0.2, 0.3, 0.4, 0.6]) for name in "xy"]
    sample_runs.begin(more[0], kind="weights", source="/runs/big-seed0", checkpoint="best", step=20, epoch=5)
    sample_runs.begin(more[1], kind="branch", source="/runs/base-seed0", checkpoint="2", step=8, epoch=2, agreed=3)
    groups = sample_runs.load(scratch, *more)
    assert [group.name for group in groups] == ["scratch", "x/more", "y/more"]
    beginnings = ["random weights", "the weights of /runs/big (checkpoint best)", "the state after update 8 of /runs/base"]
    assert verdict.confounds(groups) == [("began with", beginnings)]
    told = "; ".join(f"{group.name} began with {beginning}" for group, beginning in zip(groups, beginnings, strict=True))
    assert verdict.reach(groups).sentence.endswith(f"**The runs are not alike**: of different beginnings ({told}).")


def test_uses_follow_from_what_is_shown(tmp_path):
    groups = []
    for name, dropout, error in (("a", 0.1, 0.02), ("b", 0.2, 0.08)):
        curves = [[0.1, 0.2, 0.3, 0.4, 0.5 + seed / 100] for seed in range(3)]
        group = recipe(tmp_path, name, curves, [{5: right(200)}] * 3, recipe__dropout=dropout)
        for seed, run in enumerate(group.runs):
            run.evaluations[0].figures["splits"]["test"] |= {"top5": 0.8, "calibration_error": error + seed / 1000}
        groups.append(group)
    reached = verdict.reach(groups)
    (use,) = [text for text in reached.uses if text.startswith("Where probabilities are used")]
    assert "a, 6.00 points ahead" in use
    assert not [text for text in reached.uses if "five answers" in text]  # level
    assert finding(reached, "calibration error, last epoch").shown is True


def test_cost_is_told_where_it_differs(tmp_path):
    longer = recipe(tmp_path, "b", [[0.1] * 10, [0.2] * 10], recipe__scale=0.1)
    reached = verdict.reach([*recipes(tmp_path, {"a": [0.4, 0.41]}), longer])
    assert "Where updates are dear: a takes the fewest (a 20, b 40)." in reached.uses


def test_other_networks_and_programs_are_confounds(tmp_path):
    first = recipe(tmp_path, "a", [[0.1] * 5])
    second = recipe(tmp_path, "b", [[0.1] * 5], model__depth=16, precision="bfloat16", recipe__dropout=0.3)
    expected = [("model.depth", ["10", "16"]), ("precision", ["float32", "bfloat16"])]
    assert verdict.confounds([first, second]) == expected
    assert ("program", ["wrn_jax", "PyTorch"]) in verdict.confounds([first, published()[0]])
    assert verdict.confounds(published()) == []
    # The loss of a log is not compared with a run's.
    assert not [aspect for aspect in verdict.aspects([first, published()[0]]) if "loss" in aspect.name]
    assert [aspect for aspect in verdict.aspects(published()) if "loss" in aspect.name]
