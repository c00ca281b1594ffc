"""The command: what it writes, what it says, and what it refuses."""

import json

import pytest

from tests import sample_runs, small
from wrn_jax import compare
from wrn_jax.report import writing
from wrn_jax.runtime.errors import UserError

pytestmark = pytest.mark.slow


def test_of_many_runs_the_screen_names_the_first_and_the_report_all(tmp_path, capsys):
    folders = [tmp_path / f"seed{seed}" for seed in range(9)]
    for seed, folder in enumerate(folders):
        sample_runs.write(folder, [0.1, 0.2, 0.3, 0.4, 0.5], seed)
    compare.main([*map(str, folders), "--out", str(tmp_path / "out")])

    said, report = capsys.readouterr().out, (tmp_path / "out" / "report.md").read_text()
    lines = said.splitlines()
    assert lines[0].endswith(f"{folders[6]}, and 2 more, all of them in the report)")
    assert [lines[9].strip(), lines[10][:5]] == ["and 2 more, all of them in the report", "wrote"]
    for folder in folders:
        assert f"- python -m wrn_jax.evaluate --workdir {folder} --checkpoint last\n" in report
        assert (str(folder) in said) == (folder in folders[:7])


def test_writes_report_page_figures_and_pictures(tmp_path, capsys):
    for seed in range(2):
        sample_runs.write(tmp_path / f"a-seed{seed}", [0.1, 0.2, 0.3, 0.5, 0.4 + seed / 100], seed)
        sample_runs.write(tmp_path / f"b-seed{seed}", [0.1, 0.2, 0.3, 0.4, 0.6 + seed / 100], seed, recipe__dropout=0.1)
    out = tmp_path / "new" / "out"
    sources = [str(tmp_path / name) for name in ("a-seed0", "b-seed0", "b-seed1", "a-seed1")]
    compare.main([*sources, "--out", str(out), "--names", "low", "high", "--title", "Mine"])

    said = capsys.readouterr().out
    assert f"low: n = 2 ({tmp_path / 'a-seed0'}, {tmp_path / 'a-seed1'})" in said
    assert f"  python -m wrn_jax.evaluate --workdir {tmp_path / 'a-seed0'} --checkpoint best" in said
    assert f"wrote report.md, report.html, comparison.json and {len(list((out / 'plots').iterdir()))} plots to {out}" in said
    assert "high is better than low after the last epoch, by +20.00 points" in said

    text = (out / "report.md").read_text()
    assert text.startswith("# Mine\n")
    for line in text.splitlines():
        if line.startswith("!["):
            picture = (out / line.rpartition("(")[2].rstrip(")")).read_bytes()
            assert picture.startswith((b"\x89PNG", b"<svg "))
    assert "- **costs:** 5 epochs, 20 updates, " in text
    assert "<h1>Mine</h1>" in (out / "report.html").read_text()

    written = json.loads((out / "comparison.json").read_text())
    assert written["recipes"]["low"]["test_accuracy"]["last"]["mean"] == pytest.approx(0.405)
    assert [run["seed"] for run in written["recipes"]["high"]["runs"]] == [0, 1]
    assert written["differences"]["last"][0]["difference"] == pytest.approx(-0.2)
    assert written["images"][0]["reason"] == "no predictions of low after the last epoch"
    assert written["verdict"]["refused"] is False
    assert written["verdict"]["sentence"].startswith("high is better than low")
    assert written["recipes"]["low"]["config"]["recipe"]["scale"] == 0.05
    assert len(written["recipes"]["low"]["rate"]["evaluations"]) == 5


def test_the_figures_of_evaluations_are_all_there(tmp_path):
    a = sample_runs.recipe(tmp_path, "a", [[0.1] * 5], [{5: sample_runs.right(40)}])
    a.runs[0].evaluations[0].figures["splits"]["test"]["loss"] = float("nan")
    collected = writing.collect([sample_runs.recipe(tmp_path, "b", [[0.1] * 5], recipe__dropout=0.1), a])
    a, b = (collected["recipes"][name] for name in "ab")
    assert a["measures"]["last"]["clean gap"]["mean"] == 0.1
    assert b["measures"]["last"]["clean gap"] is None
    (evaluation,) = a["runs"][0]["evaluations"]
    assert (evaluation["epoch"], evaluation["splits"]["test"]["loss"]) == (5, None)
    json.dumps(collected, allow_nan=False)


def test_the_published_logs_are_compared_by_their_names(tmp_path):
    """As a process, which shows that nothing warns."""
    code, output, errors = small.finish("compare", "session02", "session04", "--out", tmp_path)
    assert (code, errors) == (0, "")
    assert "session02: n = 1 (published log)" in output
    last = output.rstrip().splitlines()[-1]
    assert last.startswith("No verdict on session02 and session04: n = 1 for session02 and session04")
    assert "not evaluated yet" not in output


@pytest.mark.parametrize(("arguments", "message"), [
    (["--out", "{0}"], "required: RUN"),
    (["session02"], "required: --out"),
    (["session03", "--out", "{0}"], "'session03': no such run"),
    (["session02", "session02", "--out", "{0}"], "session02: is given twice"),
    (["session02", "--out", "{0}", "--names", "a", "b"], "--names: 2 given"),
    (["session02", "--out", "{0}", "--config.seed=1"], "--config.seed=1: nothing is configured here"),
    (["session02", "--out", "{0}/file"], "file: cannot be written"),
])  # fmt: skip
def test_a_mistake_is_one_line(tmp_path, arguments, message):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=message) as refused:
        compare.main([argument.format(tmp_path) for argument in arguments])
    assert "\n" not in str(refused.value)
