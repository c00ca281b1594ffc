"""The statistics as tables: which figures stand where, and what is said where there are none."""

from tests.sample_runs import cells, published, recipe, right, tables
from wrn_jax.report.sections import seeds


def evaluated(directory, name, correct, more=None, **changes):
    """A recipe with an evaluation of the last epoch for each of `correct`."""
    curves = [[0.1, 0.2, 0.3, 0.5, 0.4 + seed / 100] for seed in range(len(correct))]
    return recipe(directory, name, curves, [{5: images} for images in correct], more, **changes)


def test_over_seeds_gives_each_run_its_interval_and_differences_tested_both_ways(tmp_path):
    a = recipe(tmp_path, "a", [[0.42] * 5, [0.43] * 5, [0.44] * 5])
    b = recipe(tmp_path, "b", [[0.40] * 5, [0.41] * 5, [0.415] * 5], recipe__dropout=0.1)
    table, differences = seeds.over_seeds([a, b])
    assert table.rows[0] == ["last", "a", "3", "43.00", "1.00", "40.52 to 45.48", "42.00, 43.00, 44.00"]
    # Welch by hand: variances 1 and 7/12 over 3, so an error of 0.726 and 3.74 degrees of freedom.
    by_welch = ["+2.17", "+0.09 to +4.24", "p = 0.044", "p = 0.044"]
    # Detectable: 3.507 spreads (of three seeds), of the root of the mean variance.
    assert differences.rows[0] == ["last", "a - b", "3 and 3", *by_welch, "+1.45 to +2.88; p = 0.006", "3.12"]


def test_a_best_epoch_that_is_the_last_one_everywhere_is_not_told_twice(tmp_path):
    rising, falling = [0.1, 0.2, 0.3, 0.4, 0.5], [0.1, 0.2, 0.3, 0.5, 0.4]
    a = recipe(tmp_path, "a", [rising, rising], [{5: right(200)}] * 2)
    b = recipe(tmp_path, "b", [rising, rising], [{5: right(190)}] * 2, recipe__dropout=0.1)
    c = recipe(tmp_path, "c", [rising, falling], [{5: right(190), 4: right(200)}] * 2, recipe__dropout=0.2)
    for groups, epochs in (([a, b], {"last"}), ([a, c], {"last", "best"})):
        blocks = [*seeds.over_seeds(groups), *seeds.over_images(groups), *seeds.evaluations(groups), *seeds.gaps(groups)]
        told = tables(blocks)
        for title, column in (
            ("Test accuracy over the seeds", 0), ("Differences of test accuracy between recipes", 0),
            ("Gaps: training minus test accuracy", 1),
        ):  # fmt: skip
            assert {row[column] for row in told[title].rows} == epochs
        for title in ("Image by image", "As evaluated"):
            assert {which for which in ("last", "best") if f"{title}, {which} epoch" in told} == epochs
        noted = "The best epoch was the last one of every run." in told["Test accuracy over the seeds"].note
        assert noted == (epochs == {"last"})


def test_single_networks_have_intervals_over_the_images():
    table = tables(seeds.over_seeds(published()))["The single networks"]
    assert ["last", "session04", "69.59", "68.68 to 70.48"] in table.rows
    assert ["last", "session02 - session04 (points)", "+1.61", "+0.34 to +2.87"] in table.rows
    assert "10,000 test images" in table.note


def test_images_are_compared_pair_by_pair(tmp_path):
    a = evaluated(tmp_path, "a", [right(200), right(204)])
    b = evaluated(tmp_path, "b", [right(190), ~right(200)], recipe__dropout=0.1)
    blocks = seeds.over_images([a, b])
    first, second, together = tables(blocks)["Image by image, last epoch"].rows
    assert first[:2] == ["a-seed0 - b-seed0", "+2.50"]
    assert first[3:] == ["10", "0", "p = 0.002", "p < 0.001"]
    assert second[3:5] == ["200", "196"]
    assert together[0].startswith("a - b, all together: 2 and 2 networks, 400 images (above: pairs by seed)")
    assert together[1] == "+1.75"
    assert [block.items for block in blocks[2:]] == [["a and b, best epoch: no predictions of a after the best epoch"]]


def test_without_evaluations_there_is_a_reason():
    (note,) = seeds.over_images(published())
    assert "no predictions of session02" in note.text
    assert seeds.over_images(published()[:1]) == []
    (note,) = seeds.evaluations(published())
    assert "No recipe has been evaluated" in note.text


def test_gaps_are_told_apart(tmp_path):
    table = tables(seeds.gaps([evaluated(tmp_path, "a", [right(200)])]))["Gaps: training minus test accuracy"]
    last, best = table.rows
    assert last[:7] == ["a", "last", "40.00", "39.00", "-1.00", "60.00", "+10.00"]
    assert best[5:7] == ["not evaluated", "not evaluated"]
    assert "dropout 0.1" in last[7]


def test_evaluations_stand_side_by_side(tmp_path):
    corrupted = {
        "corruptions": {"gaussian_noise": [0.1, 0.2, 0.3]}, "mean_corruption_accuracy": 0.2, "corruptions_from": "drawn, key 0",
        "corruption_images": 400, "corruptions_in_mean": ["gaussian_noise"],
        "temperature": {"value": 1.5, "loss": 1.9, "calibration_error": 0.01},
    }  # fmt: skip
    groups = [
        evaluated(tmp_path, "a", [right(200), right(240)], corrupted),
        evaluated(tmp_path, "b", [right(100), right(100)], recipe__dropout=0.1),
    ]
    table = tables(seeds.evaluations(groups))["As evaluated, last epoch"]
    for row in (
        ["test accuracy as evaluated (%)", "55.00 ± 7.07", "25.00 ± 0.00"],
        ["negative log-likelihood (nats)", "2.0000 ± 0.0000", "2.0000 ± 0.0000"],
        ["calibration error at that temperature (%)", "1.00 ± 0.00", "-"],
        ["clean gap (points)", "10.00 ± 0.00", "10.00 ± 0.00"],
        ["mean corruption accuracy (%)", "20.00 ± 0.00", "-"],
        ["accuracy under gaussian noise (%)", "20.00 ± 0.00", "-"],
    ):
        assert row in table.rows
    assert "drawn, key 0, 400 test images" in table.note
    assert not [row for row in table.rows if "mirror" in row[0]]  # nobody has it


def test_unlike_corruptions_are_not_compared(tmp_path):
    some = {"corruptions": {"fog": [0.2]}, "mean_corruption_accuracy": 0.2, "corruptions_from": "drawn"}
    groups = [
        evaluated(tmp_path, "a", [right(200)], some | {"corruption_images": 400}),
        evaluated(tmp_path, "b", [right(100)], some | {"corruption_images": 10}, recipe__dropout=0.1),
    ]
    table, warning = seeds.evaluations(groups)
    assert "were not the same" in warning.text
    assert "Corruptions" not in table.note


def test_a_saw_tooth_is_told_and_a_steady_rate_is_not_warned_of(tmp_path):
    table, _, _, warning, last = seeds.rate_cycles(published())
    row = cells(table, "session04")
    assert row["before the best one (epoch)"] == "0.000148 (99)"
    assert (row["up and down within epochs"], row["new cycles in all"]) == ("yes", "637")
    assert last.rows[-2:] == [["99", "72.98", "0.000148", "0.000254", "1"], ["100", "69.59", "0.009985", "0.01", "100"]]
    assert "Rank correlation of rate and test accuracy over these epochs: -0.86" in warning.text
    (table,) = seeds.rate_cycles([recipe(tmp_path, "a", [[0.1] * 5])])
    assert table.rows[0][6] == "no"
