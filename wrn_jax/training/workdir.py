"""The work directory of a run: what it is called, what it holds, and whether a run may start or go on there."""

import json
import time
from pathlib import Path

from wrn_jax.config import FREE_ON_RESUME, Config, flatten, from_dict
from wrn_jax.runtime.errors import UserError


def default_workdir(recipe: str) -> Path:
    """Where a run of the recipe of this name goes that is started now, when nobody says."""
    return Path("runs") / f"{recipe}-{time.strftime('%Y%m%d-%H%M%S')}"


def holds_run(workdir: Path) -> bool:
    """Whether a run was started in `workdir`."""
    return (workdir / "config.json").exists() or (workdir / "checkpoints").exists()


def saved_config(workdir: Path) -> Config:
    """The configuration of the run in `workdir`. Raises UserError if there is none."""
    path = workdir / "config.json"
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise UserError(f"{workdir}: holds no run (no readable config.json)") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path}: is not JSON") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: should be an object")
    return from_dict(tree, str(path))


def check_workdir(config: Config, workdir: Path, resume: bool) -> None:
    """Refuses to start anew over a run, or to continue a run of another configuration. Raises UserError."""
    if not holds_run(workdir):
        if resume:
            raise UserError(f"{workdir}: holds no run to resume")
        return
    if not resume:
        raise UserError(f"{workdir}: holds a run already; continue it with --resume, or choose another --workdir")
    old, new = flatten(saved_config(workdir).to_dict()), flatten(config.to_dict())
    different = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key) and key not in FREE_ON_RESUME)
    if different:
        shown = "; ".join(f"{key} was {old.get(key)}, is {new.get(key)}" for key in different[:3])
        more = f"; and {len(different) - 3} more" if len(different) > 3 else ""
        raise UserError(f"{workdir}: holds a run of another configuration: {shown}{more}")
