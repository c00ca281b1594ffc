"""Which recipes of a study go on from which, and where."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import pytest

from tests import sample_runs
from tests.small import metrics
from wrn_jax import study, train
from wrn_jax.config.timeline import Timeline
from wrn_jax.studies import engine, progress, sharing, summary
from wrn_jax.studies.runs import is_trained
from wrn_jax.studies.sharing import Fork
from wrn_jax.training import loop, step
from wrn_jax.training.checkpoints import Checkpoints
from wrn_jax.training.records import read_headers


def find(monkeypatch, agreed, **changes):
    """The forks among session 04, in five epochs of four updates, and recipes with these changes.

    `agreed` says how many updates two of them have in common, by their names; those that it does not have, 20.
    """
    configs = {name: sample_runs.config(**change) for name, change in ({"base": {}} | changes).items()}
    names = {id(config): name for name, config in configs.items()}
    monkeypatch.setattr(sharing, "agreed_steps", lambda one, other, _: agreed.get((names[id(one)], names[id(other)]), 20))
    return sharing.find([(name, config, Timeline.of(config)) for name, config in configs.items()])


def test_each_leaves_the_one_it_has_most_in_common_with_at_the_end_of_an_epoch(monkeypatch):
    agreed = {("base", "late"): 14, ("base", "later"): 14, ("late", "later"): 18, ("base", "else"): 3, ("late", "else"): 3,
              ("later", "else"): 0, ("base", "like"): 14, ("late", "like"): 13, ("later", "like"): 13, ("else", "like"): 3,
              }  # fmt: skip
    forks = find(monkeypatch, agreed, late={}, later={}, **{"else": {}}, like={})
    assert forks == {"late": Fork("base", 3, 12), "later": Fork("late", 4, 16), "like": Fork("base", 3, 12)}
    assert sharing.branching_epochs(forks, "base") == [3]
    assert sharing.branching_epochs(forks, "late") == [4]
    assert sharing.branching_epochs(forks, "like") == []


def test_a_recipe_that_is_the_beginning_of_another_trains_its_last_epoch(monkeypatch):
    assert find(monkeypatch, {}, short={"recipe__epochs": 80}) == {"short": Fork("base", 3, 12)}


def test_what_ends_early_goes_back_or_rounds_otherwise_or_has_an_average_begins_by_itself(monkeypatch):
    late = {"epoch 1": 0.0, "epoch 81": 0.9}
    apart = [{"early_stopping_patience": 3}, {"on_nonfinite": "rollback"}, {"steps_per_call": 2}, {"eval_batch_size": 100},
             {"optimizer__average_decay": late}]  # fmt: skip
    for change in apart:
        assert find(monkeypatch, {}, other=change) == {}
    assert find(monkeypatch, {}, other={"silence": {"best-on-test": "a test"}})


# Four epochs of five updates, and no augmentation, so that it compiles soon.
RECIPE = """
from wrn_jax.config import Config
config = Config().override({{
    "devices": 1, "model.depth": 10, "model.widen_factor": 1, "data.name": "embedded", "data.embedded_train": 100,
    "data.embedded_test": 20, "data.validation_size": 0, "recipe.batch_size": 20, "eval_batch_size": 20,
    "recipe.epochs": 4, "recipe.augmentation": "off", "recipe.dropout": {{"epoch 1": 0.2, "epoch 4": {dropout}}},
}})
"""


@dataclasses.dataclass
class Ended:
    """A process that ended well."""

    returncode = 0

    def poll(self):
        return self.returncode


def update(setup, state, batch, now, dropout_key, axis_name=None, sharpness_aware=False):
    """In place of the network's, which takes long to compile: it depends on all that an update may depend on."""
    pull = now["learning_rate"] * (jnp.mean(batch.images) + now["dropout"] * jax.random.normal(dropout_key))
    params = jax.tree.map(lambda leaf: leaf - 0.1 * pull * leaf, state.params)
    metrics = {"loss": jnp.abs(pull), "correct": batch.weight, "gradient_norm": pull, "finite": jnp.isfinite(pull)}
    return dataclasses.replace(state, step=state.step + 1, params=params), metrics | {"loss_scale": state.loss_scale.scale}


def checksums(workdir):
    """Those of every array of each checkpoint, by number of updates."""
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        return {saved.step: saved.metadata["checksum"] for saved in checkpoints.all()}


@pytest.mark.slow
def test_runs_that_share_end_in_the_bits_of_those_trained_apart(tmp_path, monkeypatch):
    """The commands are called here, not as processes, and do updates without a network; with one, see `test_origins`."""

    def start(arguments, log, place):
        monkeypatch.setattr(train, "closing_lines", lambda summary: [])
        train.main(arguments[1:])
        return Ended()

    monkeypatch.setattr(engine, "start", start)
    monkeypatch.setattr(engine, "POLL", 0.0)
    monkeypatch.setattr(progress, "missing", lambda member, run, _: None if is_trained(run) else member.train())
    monkeypatch.setattr(step, "update", update)
    monkeypatch.setattr(loop, "draw", lambda attempt: None)
    monkeypatch.setattr(summary, "write", lambda *_: ())
    for name, dropout in (("one", 0.1), ("two", 0.0)):
        (tmp_path / f"{name}.py").write_text(RECIPE.format(dropout=dropout))
    begin = [str(tmp_path / "one.py"), str(tmp_path / "two.py"), "--seeds", "1"]
    study.main([*begin, "--out", str(tmp_path / "shared")])
    runs = ("shared/runs/one-seed0", "shared/runs/two-seed0", "apart/runs/two-seed0")
    trunk, shared, apart = (tmp_path / run for run in runs)
    shutil.copytree(trunk, tmp_path / "apart/runs/one-seed0")
    study.main([*begin, "--out", str(tmp_path / "apart"), "--no-share"])
    (header,) = read_headers(shared / "header.jsonl")
    assert (header.origin.source, header.origin.step, header.origin.agreed) == (str(trunk), 15, 15)
    assert read_headers(apart / "header.jsonl")[0].origin is None
    assert metrics(shared) == metrics(apart) != metrics(trunk)
    assert checksums(shared)[20] == checksums(apart)[20] != checksums(trunk)[20]
    assert checksums(shared)[15] == checksums(apart)[15] == checksums(trunk)[15]
