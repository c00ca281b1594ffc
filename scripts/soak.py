"""Kill runs with SIGKILL at random moments, start them again, and compare the end with a run that nobody killed.

    python scripts/soak.py --minutes 60 --seed 1
    python scripts/soak.py --kills 300 --kinds plain devices float16 rollback moving

A moment is a file-system event (a file opened to write, a folder made, something renamed or removed), the start or the end of
an evaluation, of a drawing, of a save, or of a call that compiles; or some milliseconds after one, since what C++ code writes
shows no events. All events of a whole run are counted first; then each kind of event is as likely as any other, so that rare
moments get their share. Kinds of runs:

  plain     one device
  devices   four simulated devices
  float16   with updates that loss scaling skips
  rollback  with an update that is not finite, and not after a rollback either, and a rollback behind that checkpoint
  moving    another number of devices at every start; its end is compared up to rounding

Each start is a fork of this process, which has imported everything and touched no device. After every kill no checkpoint may be
newer than its record; every start must go on; at the end records (but for clocks) and the checksum of the whole state must be
those of the undisturbed run, every figure be in TensorBoard's events once, and nothing unfinished be left.

Prints a table of kills by moment, and each failure with the folder it left. Exit code 0 without failures, else 1.
"""

import argparse
import collections
import dataclasses
import json
import os
import random
import re
import shutil
import signal
import struct
import sys
import tempfile
import threading
import time
import traceback
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=1 --xla_llvm_disable_expensive_passes=true",
)

from tensorboardX.proto.event_pb2 import Event  # noqa: E402

from wrn_jax import command, train  # noqa: E402
from wrn_jax.evaluation.evaluator import Evaluator  # noqa: E402
from wrn_jax.training import curves, loop, optimizer, workdir  # noqa: E402
from wrn_jax.training.checkpoints import Checkpoints  # noqa: E402

EPOCHS, STEPS, SPOILED_STEP = 5, 10, 23
KEYS = {
    "model.depth": 10,
    "model.widen_factor": 1,
    "data.name": "embedded",
    "data.embedded_train": 260,
    "data.embedded_test": 100,
    "data.validation_size": 100,
    "recipe.scale": 0.05,
    "recipe.batch_size": 16,
    "eval_batch_size": 40,
    "checkpoint_steps": 4,
}
KINDS = {
    "plain": {"devices": 1},
    "devices": {"devices": 4},
    "float16": {"devices": 1, "precision": "float16"},
    "rollback": {"devices": 1, "on_nonfinite": "rollback"},
    "moving": {"devices": 1},
}
CLOCKS = ("seconds", "images_per_second")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "shutil.rmtree"}
MARKED = {
    "reading data": (loop, "place_data"),
    "compiling": (loop, "compile_programs"),
    "evaluation": (Evaluator, "__call__"),
    "save": (Checkpoints, "save"),
    "drawing": (curves, "draw_curves"),
}


@dataclasses.dataclass(frozen=True)
class Moment:
    """The `number`th event called `name`, and so many seconds after it."""

    name: str
    number: int
    delay: float


class Watch:
    """Names and counts what happens in this process, and kills it at a moment."""

    def __init__(self, folder: Path, moment: Moment | None):
        self._folder, self._moment = str(folder), moment
        self.counts: collections.Counter[str] = collections.Counter()
        sys.addaudithook(self._hear)
        for what, (owner, name) in MARKED.items():
            setattr(owner, name, self._marked(getattr(owner, name), what))

    def _marked(self, function, what):
        def call(*arguments, **options):
            self._count(f"{what} begins")
            result = function(*arguments, **options)
            self._count(f"{what} ends")
            return result

        return call

    def _hear(self, event, arguments):
        if event in CHANGES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING):
            path = os.fsdecode(arguments[0]) if isinstance(arguments[0], str | bytes | os.PathLike) else ""
            if path.startswith(self._folder):
                place = re.sub(r"[0-9a-f]{32}|[0-9]+(\.[0-9]+)*", "N", path[len(self._folder) :].strip("/")) or "the folder"
                self._count(f"{event.removeprefix('os.')} {'/'.join(place.split('/')[:3])}")

    def _count(self, name):
        self.counts[name] += 1
        if self._moment is not None and (name, self.counts[name]) == (self._moment.name, self._moment.number):
            if self._moment.delay:
                threading.Timer(self._moment.delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
            else:
                os.kill(os.getpid(), signal.SIGKILL)


def start(kind: str, folder: Path, moment: Moment | None, devices: int, counts: Path | None = None) -> int:
    """Starts or continues a run of this kind in a process of its own; its exit code, -9 if it was killed."""
    child = os.fork()
    if child == 0:
        output = os.open(folder.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        keys = KEYS | KINDS[kind] | {"devices": devices}
        arguments = ["--config", str(ROOT / "configs/session04.py"), "--workdir", str(folder), "--resume=auto"]
        arguments += [f"--config.{key}={value}" for key, value in keys.items()]
        spoil(kind)
        if moment is not None and ("drawing" in moment.name or "curves" in moment.name):
            loop.CURVES_INTERVAL = 0.0  # after every epoch, not after the last alone
        watch = Watch(folder, moment)
        code = 1
        try:
            code = command.run(lambda: train.main(arguments), "train")
            if counts is not None:
                counts.write_text(json.dumps(watch.counts))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def spoil(kind: str) -> None:
    """Lets a run have updates that are not finite, always the same ones."""
    if kind == "float16":
        optimizer.SCALE_INITIAL = 2.0**32
    if kind == "rollback":
        read_step = loop.read_step

        def read(attempt, epoch, sums, progress, metrics, step):
            if step == SPOILED_STEP and attempt.rollbacks < 2:
                metrics = metrics | {"finite": False}
            read_step(attempt, epoch, sums, progress, metrics, step)

        loop.read_step = read


def rows(folder: Path) -> list[dict]:
    """The records of a run without what clocks measured."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [{key: value for key, value in json.loads(line).items() if key not in CLOCKS} for line in lines]


def description(folder: Path, step: int) -> dict:
    """What the checkpoint says of itself."""
    return json.loads((folder / "checkpoints" / str(step) / "_CHECKPOINT_METADATA").read_text())["custom_metadata"]


def shown_steps(folder: Path) -> list[int]:
    """The steps at which TensorBoard's events have a test accuracy."""
    steps = []
    for path in sorted((folder / "tensorboard").glob("events.*")):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event, data = Event.FromString(data[12 : 12 + length]), data[16 + length :]
            steps += [event.step for value in event.summary.value if value.tag == "test/accuracy"]
    return steps


def wrong_after_kill(folder: Path) -> str | None:
    """What is wrong with the folder of a killed run."""
    steps = workdir.checkpoint_steps(folder)
    if steps and description(folder, steps[-1])["epoch"] > len(rows(folder)):
        return f"checkpoint {steps[-1]} is newer than the records, which end with epoch {len(rows(folder))}"
    return None


def wrong_at_end(folder: Path, straight: Path, is_rounded: bool) -> str | None:
    """What is wrong with the folder of a run that has ended."""
    found, expected, last = rows(folder), rows(straight), EPOCHS * STEPS
    if is_rounded:
        losses = [abs(one["train_loss"] / other["train_loss"] - 1) for one, other in zip(found, expected, strict=False)]
        if len(found) != len(expected) or max(losses) > 0.02:
            return f"the records differ by more than rounding: {losses}"
    elif found != expected:
        return "the records differ"
    elif description(folder, last)["checksum"] != description(straight, last)["checksum"]:
        return "the last states differ"
    if shown_steps(folder) != [row["step"] for row in expected]:
        return f"TensorBoard's events have test accuracies at steps {shown_steps(folder)}"
    left = [str(path.relative_to(folder)) for path in folder.rglob("*") if "tmp" in path.name or path.name == "damaged"]
    return f"left behind: {', '.join(left)}" if left else None


class Soak:
    """Kills runs of one kind and keeps count.

    Attributes:
      reached: kills by the name of their moment.
      failures: a line each.
      runs: that came to their end after kills.
    """

    def __init__(self, kind: str, folder: Path, draw: random.Random):
        self._kind, self._folder, self._random = kind, folder, draw
        self.reached: collections.Counter[str] = collections.Counter()
        self.failures: list[str] = []
        self.runs, self._number = 0, 0
        self._straight = folder / f"{kind}-straight"
        if start(kind, self._straight, None, self._devices(first=True), folder / f"{kind}-events.json"):
            raise SystemExit(f"{kind}: the undisturbed run failed; see {self._straight}.log")
        self._events = json.loads((folder / f"{kind}-events.json").read_text())
        self._begin()

    def _begin(self) -> None:
        self._number += 1
        self._run, self._kills = self._folder / f"{self._kind}-{self._number}", 0

    def _devices(self, first: bool = False) -> int:
        return self._random.choice((1, 2, 4)) if self._kind == "moving" and not first else KINDS[self._kind]["devices"]

    def once(self) -> bool:
        """One start with a kill ahead; whether it was killed. A run that ends is looked at, and another begins."""
        name = self._random.choice(sorted(self._events))
        number = 1 + int(self._random.random() ** 2 * self._events[name])  # rather the early ones, which a resumed run has too
        delay = self._random.choice((0.0, 0.0, self._random.uniform(0, 0.03), self._random.uniform(0, 1.0)))
        code = start(self._kind, self._run, Moment(name, number, delay), self._devices())
        if code == -signal.SIGKILL:
            self.reached[name] += 1
            self._kills += 1
            wrong = wrong_after_kill(self._run)
        else:
            wrong = self._wrong_at_end(code)
        if wrong:
            self.failures.append(f"{self._run}: {wrong} (the last kill: {name}, number {number}, {1000 * delay:.0f} ms later)")
            self._begin()
        return code == -signal.SIGKILL

    def _wrong_at_end(self, code: int) -> str | None:
        if code:
            return f"exit code {code}: {self._run.with_suffix('.log').read_text().splitlines()[-1:]}"
        wrong = wrong_at_end(self._run, self._straight, self._kind == "moving")
        if not wrong:
            self.runs += self._kills > 0
            shutil.rmtree(self._run)
            self._begin()
        return wrong

    def finish(self) -> None:
        """Brings the last run to its end."""
        code = start(self._kind, self._run, None, self._devices())
        if wrong := self._wrong_at_end(code):
            self.failures.append(f"{self._run}: {wrong}")


def main() -> int:
    """Reads the arguments, kills, and prints the tables; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="kinds of runs (default: all)")
    parser.add_argument("--kills", type=int, default=300, help="kills in all (default: 300)")
    parser.add_argument("--minutes", type=float, help="end after so many minutes, however many kills there were")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--folder", type=Path, help="where runs go (default: a temporary folder; failed runs stay there)")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder / "programs"))
    draw, begin = random.Random(options.seed), time.monotonic()
    soaks = {kind: Soak(kind, folder, draw) for kind in options.kinds}
    kills = 0
    while kills < options.kills and (options.minutes is None or time.monotonic() - begin < 60 * options.minutes):
        kills += soaks[options.kinds[kills % len(options.kinds)]].once()
    for soak in soaks.values():
        soak.finish()

    print(f"{'killed at':60} {' '.join(f'{kind:>9}' for kind in soaks)}")
    for name in sorted({name for soak in soaks.values() for name in soak.reached}):
        print(f"{name:60} {' '.join(f'{soak.reached[name]:9d}' for soak in soaks.values())}")
    print(f"{'kills':60} {' '.join(f'{sum(soak.reached.values()):9d}' for soak in soaks.values())}")
    print(f"{'runs that ended as the undisturbed one':60} {' '.join(f'{soak.runs:9d}' for soak in soaks.values())}")
    failures = [line for soak in soaks.values() for line in soak.failures]
    print(f"{'failures':60} {' '.join(f'{len(soak.failures):9d}' for soak in soaks.values())}")
    for line in failures:
        print(line)
    if not failures and options.folder is None:
        shutil.rmtree(folder)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
