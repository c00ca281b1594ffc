"""The verdict: what follows from made-up figures, what is refused, and why."""

import re

import pytest

from tests import sample_runs
from wrn_jax.report import runs, verdict


def recipes(directory, accuracies, **changes):
    """A recipe for each name, its seeds with these accuracies after the last of five epochs, one less at the best-but-one."""
    found = []
    for number, (name, seeds) in enumerate(accuracies.items()):
        curves = [[0.1, 0.2, 0.3, accuracy - 0.01, accuracy] for accuracy in seeds]
        found.append(sample_runs.recipe(directory, name, curves, recipe__dropout=0.1 + number / 100, **changes))
    return found


def finding(reached, name):
    """The finding about an aspect."""
    return next(one for one in reached.findings if one.aspect.name == name)


def test_a_clear_difference_is_shown(tmp_path):
    reached = verdict.reach(recipes(tmp_path, {"a": [0.40, 0.41, 0.42], "b": [0.50, 0.51, 0.52]}))
    assert not reached.refused
    assert reached.sentence.startswith(
        "**b is better than a** after the last epoch, by +10.00 points (95 % interval +7.73 to +12.27"
    )
    assert "(a 41.00, b 51.00 %; n = 3 and 3)" in reached.sentence
    assert reached.uses[0] == "Where accuracy decides: b."
    deciding = finding(reached, "test accuracy, last epoch")
    assert reached.findings[0] is deciding
    assert (deciding.ahead, deciding.shown, deciding.margin) == ("b", True, pytest.approx(0.1))


def test_a_small_difference_is_not_shown_and_its_interval_is(tmp_path):
    reached = verdict.reach(recipes(tmp_path, {"a": [0.40, 0.42, 0.44], "b": [0.41, 0.43, 0.45]}))
    assert not reached.refused
    assert reached.sentence.startswith(
        "**No difference shown between a and b** after the last epoch: -1.00 points (95 % interval -5.53"
    )
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
    curves = [[0.4, 0.41], [0.41, 0.42]]
    groups = [sample_runs.recipe(tmp_path, "a", curves), *recipes(tmp_path, {"b": [0.50, 0.51]})]
    reached = verdict.reach(groups)
    assert reached.refused
    assert "no finished run of a." in reached.sentence
    assert all(one.shown is None for one in reached.findings)
    assert not [one for one in reached.findings if one.aspect.unit == "epochs" and one.ahead]


def test_runs_that_do_not_differ_cannot_be_judged(tmp_path):
    reached = verdict.reach(recipes(tmp_path, {"a": [0.5, 0.5], "b": [0.4, 0.4]}))
    assert reached.refused
    assert "agree to the last digit, so there is no spread to judge by" in reached.sentence


def test_the_order_at_the_best_epoch_is_told():
    sentence = verdict.reach(sample_runs.published()).sentence
    assert (
        "After the last epoch session02 is ahead by 1.61 points (session02 71.20, session04 69.59 % test accuracy)" in sentence
    )
    assert "chosen on the test set, which flatters both, the order reverses: session04 is ahead by 1.78 points" in sentence


def test_best_epochs_chosen_on_unlike_sets_are_not_compared(tmp_path):
    held_out = [
        sample_runs.write(
            tmp_path / f"h-seed{seed}", [0.1] * 4 + [0.3 + seed / 100], seed, [0.1] * 5, data__validation_size=100
        )
        for seed in range(2)
    ]
    groups = [*recipes(tmp_path, {"a": [0.40, 0.41]}), *runs.group([runs.load(str(path)) for path in held_out])]
    reached = verdict.reach(groups)
    assert "chosen on unlike sets, so that it compares nothing," in reached.sentence
    assert finding(reached, "test accuracy, best epoch").aspect.better == ""
    assert ("data.validation_size", ["0", "100"]) in verdict.confounds(groups)


def test_three_recipes_are_adjusted_for_three_pairs(tmp_path):
    groups = recipes(tmp_path, {"a": [0.40, 0.41, 0.42], "b": [0.50, 0.51, 0.52], "c": [0.425, 0.435, 0.445]})
    reached = verdict.reach(groups)
    assert "**b is better than a**" in reached.sentence
    assert "**b is better than c**" in reached.sentence
    assert "**c is better than a**" in reached.sentence  # p = 0.038, the largest of the three, so not adjusted
    deciding = finding(reached, "test accuracy, last epoch")
    assert deciding.ahead == "b"
    assert reached.uses[0] == "Where accuracy decides: b."
    assert len(reached.pairs) == 3


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


def test_a_gap_is_no_merit(tmp_path):
    reached = verdict.reach(sample_runs.published())
    gap = finding(reached, "gap under augmentation, last epoch")
    assert (gap.aspect.better, gap.ahead) == ("", "session02")  # the smaller, which is not called better
    assert not [text for text in reached.uses if "gap" in text]


def test_uses_follow_from_what_is_shown(tmp_path):
    groups = []
    for name, dropout, error in (("a", 0.1, 0.02), ("b", 0.2, 0.08)):
        paths = []
        for seed in range(3):
            path = sample_runs.write(
                tmp_path / f"{name}-seed{seed}", [0.1, 0.2, 0.3, 0.4, 0.5 + seed / 100], seed, recipe__dropout=dropout
            )
            test = {
                "count": 400,
                "accuracy": 0.5,
                "top5": 0.8 + seed / 100,
                "loss": 2.0,
                "calibration_error": error + seed / 1000,
            }
            sample_runs.evaluate(path, 5, sample_runs.right(200), splits={"test": test})
            paths.append(path)
        groups += runs.group([runs.load(str(path)) for path in paths])
    reached = verdict.reach(groups)
    (told,) = [text for text in reached.uses if text.startswith("Where probabilities are used")]
    assert "a, 6.00 points ahead" in told
    assert not [text for text in reached.uses if "five answers" in text]  # level
    assert finding(reached, "calibration error, last epoch").shown is True


def test_what_is_early_and_not_judged_is_a_lead():
    (told,) = [text for text in verdict.reach(sample_runs.published()).uses if text.startswith("Where training is cut short")]
    assert told.startswith("Where training is cut short: session04 (first epoch at 69 %")
    assert "session02 86, session04 60; a lead, since it is not judged" in told


def test_cost_is_told_where_it_differs(tmp_path):
    groups = [
        *recipes(tmp_path, {"a": [0.4, 0.41]}),
        sample_runs.recipe(tmp_path, "b", [[0.1] * 10, [0.2] * 10], recipe__scale=0.1),
    ]
    assert "Where updates are dear: a takes the fewest (a 20, b 40)." in verdict.reach(groups).uses


def test_other_networks_and_programs_are_confounds(tmp_path):
    groups = [
        sample_runs.recipe(tmp_path, "a", [[0.1] * 5]),
        sample_runs.recipe(tmp_path, "b", [[0.1] * 5], model__depth=16, precision="bfloat16", recipe__dropout=0.3),
    ]
    assert verdict.confounds(groups) == [("model.depth", ["10", "16"]), ("precision", ["float32", "bfloat16"])]
    found = dict(verdict.confounds([groups[0], sample_runs.published()[0]]))
    assert found["program"] == ["wrn_jax", "PyTorch"]
    assert verdict.confounds(sample_runs.published()) == []


def test_the_loss_of_a_log_is_not_compared_with_a_runs(tmp_path):
    groups = [sample_runs.recipe(tmp_path, "a", [[0.1] * 5]), sample_runs.published()[0]]
    assert not [one for one in verdict.aspects(groups) if "loss" in one.name]
    assert [one for one in verdict.aspects(sample_runs.published()) if "loss" in one.name]


def test_the_rules_name_the_level_and_the_least_number_of_runs():
    rules = " ".join(verdict.RULES)
    assert re.search(r"p < 0\.05", rules)
    assert "two finished runs" in rules
