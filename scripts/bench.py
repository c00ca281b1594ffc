"""Measure the training step: images/s, share of the matrix-product peak, time per part, compile time, peak memory.

    python scripts/bench.py --models 28-10:32 16-4:64 16-2:128 --precision float32 --json bench.json
    python scripts/bench.py --models 16-4:64 --against torch --torch-python TORCH_ENVIRONMENT/bin/python
    python scripts/bench.py --models 28-10:500 16-1:500 --evaluation --against torch --torch-python FILE
    python scripts/bench.py --input-pipeline --torch-python TORCH_ENVIRONMENT/bin/python
    python scripts/bench.py --augmentation trivial --input-pipeline --models 16-2:128 --torch-python FILE

A model is DEPTH-WIDEN_FACTOR:BATCH_SIZE. The step that is timed is forward and backward pass with dropout, clipping to norm 1,
L2 and momentum, on a CPU divided into devices as a run divides it, or on one other device; augmentation is timed apart, as a
part. `--against torch` steps the same network in PyTorch on the CPU (the faster of its two memory layouts), `--against plain`
in JAX with XLA's own convolutions everywhere. Both run as they come, without `wrn_jax.runtime.allocator`, unless
--same-allocator gives them its settings. The sides are processes that live through all rounds and step in turn, so that each
pays for its compilation once and both see the same machine. The ratio is taken in each round, and given as median, least and
greatest.

Beside the wall clock there is the CPU time of the process. On a machine that others use, `--threads 1` and the ratio of CPU
times say more than the wall clock: threads that wait for each other suffer from company, and not all libraries alike.

`--evaluation` times the evaluation of batches instead of the step, on both sides of images that wait in memory as bytes.

`--augmentation` says which augmentation is timed, as a part of a step and as an input pipeline: "full" is the level of that
name, against Albumentations; "trivial" is TrivialAugment in its wide ranges, crop with padding 4 and flip, against torchvision.

The torch environment needs torch, and for --input-pipeline albumentations 2.0.8 and opencv-python-headless, or torchvision.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = Path(__file__).resolve()
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, MAX_NORM, DROPOUT, LABEL_SMOOTHING = 0.1, 0.9, 1e-3, 1.0, 0.3, 0.1
NUM_CLASSES = 100
PIPELINE_BATCH = 256
PEAK_SIZE = 2048


class BenchError(Exception):
    """What the user can mend, in one line."""


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and greatest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def timed(function, count: int) -> list[tuple[float, float]]:
    """(wall seconds, CPU seconds of this process) of each of `count` calls; `function` returns when its work is done."""
    found = []
    for _ in range(count):
        wall, cpu = time.perf_counter(), time.process_time()
        function()
        found.append((time.perf_counter() - wall, time.process_time() - cpu))
    return found


def fastest(function, count: int = 4) -> float:
    """Least wall seconds of a call, the first one not counted."""
    function()
    return min(wall for wall, _ in timed(function, count))


# The JAX side


def augmentation(case: dict):
    """The augmentation of a case, with all but images and key bound, and its strengths."""
    import functools

    import jax
    import jax.numpy as jnp

    from wrn_jax import config
    from wrn_jax.data.augment import augment

    trivial = config.Strengths(
        trivial_probability=1.0, wide_ranges=1.0, crop_probability=1.0, crop_padding=4.0, flip_probability=0.5
    )
    strengths = {"full": config.LEVELS["full"], "trivial": trivial}[case["augmentation"]]
    used = {name for name, value in vars(strengths).items() if value}
    return functools.partial(augment, mean=(0.5, 0.5, 0.5), used=used), jax.tree.map(jnp.float32, strengths)


def jax_setup(case: dict):
    """The setup of a case, on a CPU divided as a run divides it; with XLA's own convolutions for the side "plain"."""
    import jax

    from wrn_jax import config
    from wrn_jax.models import wide_resnet
    from wrn_jax.runtime import devices
    from wrn_jax.training.setup import divide_cpu, make_setup

    if case["side"] == "plain":
        plain = wide_resnet.convolution.convolve_plain
        wide_resnet.convolution.convolve = lambda inputs, kernel, stride, mesh: plain(inputs, kernel, stride)
    settings = config.Config(
        model=config.Model(depth=case["depth"], widen_factor=case["widen_factor"], num_classes=NUM_CLASSES),
        recipe=config.Recipe(batch_size=case["batch_size"]),
        optimizer=config.Optimizer(momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, clip_norm=MAX_NORM),
        precision=case["precision"],
        eval_batch_size=case["batch_size"],
    )
    if case["side"] == "jax":
        divide_cpu(settings, for_training=case["what"] == "step")
    return make_setup(settings, devices.make_mesh(None if jax.devices()[0].platform == "cpu" else 1))


def jax_step(case: dict) -> dict:
    """Compiles the step of a case. Returns `step` (a call that makes one update), `parts`, `peak`, and what is known of it."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from flax import nnx

    from wrn_jax.planning import cost
    from wrn_jax.runtime import devices
    from wrn_jax.training import step
    from wrn_jax.training.loss import mixed_cross_entropy

    setup, batch_size = jax_setup(case), case["batch_size"]
    mesh, network, dtype = setup.mesh, setup.network, setup.config.precision
    device = mesh.devices.flat[0]
    replicated, sharded = devices.replicated(mesh), devices.batch_sharded(mesh)
    compiler_options = {} if case["side"] == "plain" else devices.compiler_options(mesh)
    random = np.random.default_rng(0)
    octets = jax.device_put(random.integers(0, 256, (batch_size, 32, 32, 3), np.uint8), sharded)
    labels = jnp.asarray(random.integers(0, NUM_CLASSES, batch_size), jnp.int32)
    images = jnp.asarray(random.standard_normal((batch_size, 32, 32, 3)), jnp.float32)
    images, labels = jax.device_put((images, labels), sharded)
    batch = step.Batch(images, labels, labels, jax.device_put(jnp.float32(1), replicated))
    key = jax.device_put(jax.random.key(0), replicated)
    rates = {"dropout": DROPOUT, "label_smoothing": LABEL_SMOOTHING, "learning_rate": LEARNING_RATE}
    moving = setup.timeline.at(0)
    moving = dataclasses.replace(moving, values=moving.values | {name: jnp.float32(rate) for name, rate in rates.items()})

    def run(state, batch, key):
        return step.update(setup, state, batch, moving, jax.random.fold_in(key, state.step))

    state = jax.jit(setup.create_state, out_shardings=setup.shardings)(key)
    lowered = jax.jit(run, donate_argnums=0, out_shardings=(setup.shardings, replicated)).lower(state, batch, key)
    started = time.perf_counter()
    compiled = lowered.compile(compiler_options)
    compile_seconds = time.perf_counter() - started
    kept = [state]

    def one():
        kept[0], metrics = compiled(kept[0], batch, key)
        jax.block_until_ready((kept[0], metrics))

    def parts():
        state = kept[0]
        augment, strengths = augmentation(case)

        def forward(params, stats, batch):
            net = nnx.merge(network.graphdef, params, stats)
            logits = net(batch.images, moving["dropout"], key, train=True)
            loss = mixed_cross_entropy(logits, batch.labels, batch.labels, batch.weight, moving["label_smoothing"])
            return loss, nnx.to_pure_dict(nnx.state(net, nnx.BatchStat))

        def backward(params, stats, batch):
            return jax.value_and_grad(forward, has_aux=True)(params, stats, batch)

        def call(function, *arrays):
            ready = jax.jit(function).lower(*arrays).compile(compiler_options)
            return fastest(lambda: jax.block_until_ready(ready(*arrays)))

        def apply(params, opt_state):
            # The parameters stand in for their gradients: the same sizes.
            return setup.optimizer.update(params, opt_state, params, **moving.values)

        seconds = {
            "augment": call(augment, octets, key, strengths),
            "forward": call(forward, state.params, state.batch_stats, batch),
        }
        seconds["backward"] = max(call(backward, state.params, state.batch_stats, batch) - seconds["forward"], 0.0)
        return seconds | {"update": call(apply, state.params, state.opt_state)}

    def peak():
        square = jax.random.normal(jax.random.key(0), (PEAK_SIZE, PEAK_SIZE), dtype)
        product = jax.jit(jnp.matmul).lower(square, square).compile()
        return 2 * PEAK_SIZE**3 / fastest(lambda: jax.block_until_ready(product(square, square)), 8)

    def memory():
        stats = device.memory_stats()
        return stats["peak_bytes_in_use"] if stats else peak_memory()

    about = {
        "version": f"JAX {jax.__version__}",
        "device": f"{device.platform} {device.device_kind}",
        "dtype": dtype,
        "compile_seconds": compile_seconds,
        # The backward pass counts as twice the forward pass; what an algorithm makes of it does not count.
        "operations_per_image": 3 * cost.forward_operations(network, setup.dataset.image_shape),
    }
    return {"step": one, "parts": parts, "peak": peak, "memory": memory, "about": about}


def peak_memory() -> int:
    """Greatest resident size of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def jax_evaluation(case: dict) -> dict:
    """As `jax_step`, with `step` the evaluation of one batch."""
    import jax
    import numpy as np

    from wrn_jax.data.cifar import Split

    setup = jax_setup(case)
    evaluator = setup.make_evaluator()
    state = jax.jit(setup.create_state, out_shardings=setup.shardings)(jax.random.key(0))
    batches = evaluator.put(Split(*evaluation_images(np, case)))
    return {
        "step": lambda: evaluator(state.params, state.batch_stats, batches),
        "about": {"version": f"JAX {jax.__version__}"},
    }


def evaluation_images(np, case: dict):
    """One batch of images [B, H, W, C] uint8 and labels [B]."""
    random = np.random.default_rng(0)
    size = case["batch_size"]
    return random.integers(0, 256, (size, 32, 32, 3), np.uint8), random.integers(0, NUM_CLASSES, size, np.int32)


def jax_pipeline(case: dict) -> dict:
    """As `jax_step`, with `step` the augmentation of one batch."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    octets = jnp.asarray(np.random.default_rng(0).integers(0, 256, (case["batch_size"], 32, 32, 3), np.uint8))
    key, (augment, strengths) = jax.random.key(0), augmentation(case)
    compiled = jax.jit(augment).lower(octets, key, strengths).compile()
    return {
        "step": lambda: jax.block_until_ready(compiled(octets, key, strengths)),
        "about": {"version": f"JAX {jax.__version__}"},
    }


# The PyTorch side; runs in an environment without this package


def torch_step(case: dict) -> dict:
    """The same network and step in PyTorch, in the faster of its two memory layouts."""
    sys.path.insert(0, str(ROOT / "tests" / "vectors"))
    import torch
    from pytorch_reference import WideResNet, initialise

    torch.set_num_threads(case["threads"])
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}.get(case["precision"], torch.float32)

    def build(layout):
        model = WideResNet(case["depth"], case["widen_factor"], NUM_CLASSES)
        initialise(model)
        model = model.to(memory_format=layout).train()
        model.set_dropout_rate(DROPOUT)
        optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
        images = torch.randn(case["batch_size"], 3, 32, 32).to(memory_format=layout)
        labels = torch.randint(0, NUM_CLASSES, (case["batch_size"],))

        def one():
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                loss = torch.nn.functional.cross_entropy(model(images).float(), labels, label_smoothing=LABEL_SMOOTHING)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
            optimizer.step()
            loss.item()

        return one

    choices = {"channels last": build(torch.channels_last), "contiguous": build(torch.contiguous_format)}
    cost = {}
    for name, one in choices.items():
        one()
        cost[name] = min(cpu for _, cpu in timed(one, 2))
    layout = min(cost, key=cost.get)
    return {"step": choices[layout], "about": {"version": f"PyTorch {torch.__version__}", "layout": layout}}


def torch_evaluation(case: dict) -> dict:
    """The evaluation of one batch in PyTorch: normalising, loss, top-1 and top-5."""
    sys.path.insert(0, str(ROOT / "tests" / "vectors"))
    import numpy as np
    import torch
    from pytorch_reference import WideResNet, initialise

    torch.set_num_threads(case["threads"])
    model = WideResNet(case["depth"], case["widen_factor"], NUM_CLASSES)
    initialise(model)
    model = model.to(memory_format=torch.channels_last).eval()
    pixels, labels = map(torch.from_numpy, evaluation_images(np, case))
    labels = labels.long()

    def one():
        with torch.inference_mode():
            images = (pixels.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25
            logits = model(images)
            loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
            found = (logits.topk(5).indices == labels[:, None]).sum(dim=0)
            return loss.item(), found.tolist()

    return {"step": one, "about": {"version": f"PyTorch {torch.__version__}", "layout": "channels last"}}


def torch_pipeline(case: dict) -> dict:
    """One batch of the same augmentation by Albumentations or torchvision out of a DataLoader with two workers."""
    import itertools

    import numpy as np
    import torch

    torch.set_num_threads(1)
    images = np.random.default_rng(0).integers(0, 256, (50_000, 32, 32, 3), np.uint8)
    if case["augmentation"] == "full":
        sys.path.insert(0, str(ROOT / "scripts"))
        import pytorch_baseline as baseline

        pipeline = baseline.make_pipeline("full", iter(range(100)))
        about = f"Albumentations {baseline.A.__version__}"

        def changed(image):
            return baseline.normalised(pipeline(image=image)["image"][None])[0]
    else:
        import torchvision
        from PIL import Image
        from torchvision import transforms

        steps = (
            transforms.TrivialAugmentWide(), transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(),
            transforms.PILToTensor(),
        )  # fmt: skip
        pipeline = transforms.Compose(steps)
        about = f"torchvision {torchvision.__version__}"

        def changed(image):
            return pipeline(Image.fromarray(image))

    class Images(torch.utils.data.Dataset):
        def __len__(self):
            return len(images)

        def __getitem__(self, index):
            return changed(images[index])

    loader = torch.utils.data.DataLoader(Images(), case["batch_size"], shuffle=True, num_workers=2, persistent_workers=True)
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    for _ in range(8):  # what the workers prepared ahead while nobody waited
        next(batches)
    return {"step": lambda: next(batches), "about": {"version": about}}


BUILDERS = {
    ("step", "jax"): jax_step,
    ("step", "plain"): jax_step,
    ("step", "torch"): torch_step,
    ("evaluation", "jax"): jax_evaluation,
    ("evaluation", "plain"): jax_evaluation,
    ("evaluation", "torch"): torch_evaluation,
    ("input pipeline", "jax"): jax_pipeline,
    ("input pipeline", "torch"): torch_pipeline,
}


def serve(case: dict) -> None:
    """A side's process: builds what `case` says, then answers a line of JSON for each line, until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    side = BUILDERS[case["what"], case["side"]](case)
    side["step"]()

    def answer(value):
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    answer(side["about"])
    for line in sys.stdin:
        request = json.loads(line)
        answer(timed(side["step"], request["count"]) if "count" in request else side[request["get"]]())


# The process that asks


class Side:
    """A process that measures; a context manager."""

    def __init__(self, python: str, case: dict):
        sys.path.insert(0, str(ROOT))
        from wrn_jax.runtime import allocator

        self.name = case["side"]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_ALBUMENTATIONS_UPDATE": "1"}
        command = [python, str(SCRIPT), "--serve", json.dumps(case)]
        self.said = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with it)  # a pipe that nobody reads would stop it
        allowed = os.sched_getaffinity(0)
        try:
            os.sched_setaffinity(0, sorted(allowed)[: case["threads"]])  # which the process inherits
            if case["side"] == "jax" or case["same_allocator"]:  # as a training run sets it for itself
                environment |= allocator.environment()
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.said, text=True, env=environment
            )
        except OSError as error:
            raise BenchError(f"{python}: {error.strerror}") from None
        finally:
            os.sched_setaffinity(0, allowed)
        try:
            self.about = self._answer()
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()
        self.said.close()

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.said.seek(0)
            said = self.said.read().strip().splitlines() or ["no output"]
            raise BenchError(f"the {self.name} process ended: {said[-1][:300]}")
        return json.loads(line)

    def ask(self, **request):
        """The answer to one request."""
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._answer()


def in_turn(sides: list[Side], batch_size: int, rounds: int, seconds: float, ready: int = 0) -> dict:
    """Images/s of each side, wall clock and CPU time, round by round, and the ratios of the first side to the second.

    Of each turn some steps do not count: the first, since the machine may have taken back what memory was free while the side
    waited, and the `ready` ones after it, which may have been prepared in the pause.
    """
    idle = 1 + ready
    counts = [max(1, round(seconds / side.ask(count=idle + 1)[-1][0])) for side in sides]
    rates = {side.name: {"wall": [], "cpu": []} for side in sides}
    for number in range(rounds):
        order = list(zip(sides, counts, strict=True))
        for side, count in order if number % 2 == 0 else order[::-1]:
            walls, cpus = zip(*side.ask(count=idle + count)[idle:], strict=True)
            for clock, found in (("wall", walls), ("cpu", cpus)):
                rates[side.name][clock].append(batch_size / statistics.median(found))
        said = ", ".join(f"{name} {rate['wall'][-1]:.1f}" for name, rate in rates.items())
        print(f"  round {number + 1}/{rounds}: {said} images/s", file=sys.stderr, flush=True)
    result = {name: {clock: spread(values) for clock, values in rate.items()} for name, rate in rates.items()}
    if len(sides) == 2:
        first, second = (rates[side.name] for side in sides)
        result["ratio"] = {
            clock: spread([a / b for a, b in zip(first[clock], second[clock], strict=True)]) for clock in ("wall", "cpu")
        }
    return result


def text_of(value: dict[str, float], digits: int) -> str:
    return f"{value['median']:.{digits}f} ({value['min']:.{digits}f}..{value['max']:.{digits}f})"


def measure_step(options: argparse.Namespace, model: tuple[int, int, int], precision: str) -> dict:
    """Everything about one model in one precision; prints it and returns it."""
    depth, widen_factor, batch_size = model
    title = f"WRN-{depth}-{widen_factor}, batch {batch_size}, {precision}, {options.threads} thread(s)"
    print(f"{title}: compiling", file=sys.stderr, flush=True)
    case = {
        "what": "evaluation" if options.evaluation else "step",
        "depth": depth,
        "widen_factor": widen_factor,
        "batch_size": batch_size,
    }
    case |= {"precision": precision, "threads": options.threads, "same_allocator": options.same_allocator}
    case["augmentation"] = options.augmentation
    with contextlib.ExitStack() as stack:
        sides = [stack.enter_context(Side(sys.executable, case | {"side": "jax"}))]
        if options.against:
            python = options.torch_python if options.against == "torch" else sys.executable
            sides.append(stack.enter_context(Side(python, case | {"side": options.against})))
        ours = sides[0]
        result = {"model": f"{depth}-{widen_factor}", "batch_size": batch_size, "precision": precision}
        result |= {"threads": options.threads, "about": {side.name: side.about for side in sides}}
        result["images_per_second"] = in_turn(sides, batch_size, options.rounds, options.seconds)
        if options.evaluation:
            say_rates(f"{title}, evaluation, {ours.about['version']}", options, result, sides)
            return result
        result["compile_seconds"] = ours.about["compile_seconds"]
        result["peak_memory_bytes"] = ours.ask(get="memory")
        result["peak_operations_per_second"] = ours.ask(get="peak")
        result["seconds_per_part"] = ours.ask(get="parts")
    rate = result["images_per_second"]["jax"]
    result["operations_per_image"] = ours.about["operations_per_image"]
    result["share_of_peak"] = rate["wall"]["median"] * result["operations_per_image"] / result["peak_operations_per_second"]
    say_rates(f"{title}, {ours.about['version']} on {ours.about['device']}", options, result, sides)
    peak = result["peak_operations_per_second"] / 1e9
    print(f"  share of peak     {result['share_of_peak']:.0%} of {peak:.0f} GFLOP/s (operations of the plain algorithm)")
    total = sum(result["seconds_per_part"].values())
    parts = [f"{name} {1e3 * part:.1f} ms ({part / total:.0%})" for name, part in result["seconds_per_part"].items()]
    print(f"  parts             {', '.join(parts)}")
    print(f"  compile time      {result['compile_seconds']:.1f} s")
    print(f"  peak memory       {result['peak_memory_bytes'] / 2**20:.0f} MiB", flush=True)
    return result


def say_rates(title: str, options: argparse.Namespace, result: dict, sides: list[Side]) -> None:
    """Prints images per second, and the ratio to the other side."""
    rate = result["images_per_second"]["jax"]
    print(title)
    print(f"  images/s          {text_of(rate['wall'], 1)}; by CPU time {text_of(rate['cpu'], 1)}")
    if options.against:
        ratio = result["images_per_second"]["ratio"]
        print(f"  ratio to {options.against:<9}{text_of(ratio['wall'], 2)}; by CPU time {text_of(ratio['cpu'], 2)}", end="")
        print(f" [{', '.join(str(value) for value in sides[1].about.values() if isinstance(value, str))}]", flush=True)


def measure_pipeline(options: argparse.Namespace) -> dict:
    """An augmentation on the device against a DataLoader; prints it and returns it."""
    print(f"{options.augmentation} augmentation, batch {PIPELINE_BATCH}: starting", file=sys.stderr, flush=True)
    case = {"what": "input pipeline", "batch_size": PIPELINE_BATCH, "threads": options.threads, "same_allocator": False}
    case["augmentation"] = options.augmentation
    with (
        Side(sys.executable, case | {"side": "jax"}) as ours,
        Side(options.torch_python, case | {"side": "torch"}) as theirs,
    ):
        about = {side.name: side.about for side in (ours, theirs)}
        result = in_turn([ours, theirs], PIPELINE_BATCH, options.rounds, options.seconds, ready=8)
    print(
        f"{options.augmentation} augmentation, batch {PIPELINE_BATCH}, {options.threads} thread(s), {about['jax']['version']}"
    )
    print(f"  images/s          {text_of(result['jax']['wall'], 0)}")
    print(f"  DataLoader        {text_of(result['torch']['wall'], 0)}, two workers, {about['torch']['version']}")
    print(f"  ratio             {text_of(result['ratio']['wall'], 1)}", flush=True)
    return {"about": about} | result


def model_of(text: str) -> tuple[int, int, int]:
    found = re.fullmatch(r"(\d+)-(\d+):(\d+)", text)
    if not found or int(found[1]) < 10 or (int(found[1]) - 4) % 6 or not int(found[2]) or not int(found[3]):
        raise argparse.ArgumentTypeError(f"{text!r} is not DEPTH-WIDEN_FACTOR:BATCH_SIZE with depth 6n + 4, such as 28-10:32")
    return int(found[1]), int(found[2]), int(found[3])


def positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message):
        self.exit(2, f"bench.py: {message}\n")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--models", nargs="+", type=model_of, default=[], metavar="D-K:B", help="networks and batch sizes")
    parser.add_argument(
        "--precision", nargs="+", default=["float32"], choices=("auto", "float32", "bfloat16", "float16"), help="one or more"
    )
    parser.add_argument("--against", choices=("torch", "plain"), help="what to step in turn with")
    parser.add_argument("--torch-python", metavar="FILE", help="Python of an environment with PyTorch")
    parser.add_argument(
        "--same-allocator", action="store_true", help="let the other side keep its freed memory too, as this package does"
    )
    parser.add_argument("--evaluation", action="store_true", help="time the evaluation of batches instead of the step")
    parser.add_argument("--input-pipeline", action="store_true", help="augmentation against a DataLoader with two workers")
    parser.add_argument("--augmentation", choices=("full", "trivial"), default="full", help="which one (default: full)")
    parser.add_argument("--threads", type=positive, default=cores, help="CPU cores that each side may use (default: all)")
    parser.add_argument("--rounds", type=positive, default=5, help="turns of each side")
    parser.add_argument("--seconds", type=float, default=2.0, help="about so long a turn; at least one step")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--serve", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve is None:
        if not options.models and not options.input_pipeline:
            parser.error("nothing to measure: give --models or --input-pipeline")
        if options.torch_python is None and (options.against == "torch" or options.input_pipeline):
            parser.error("--against torch and --input-pipeline need --torch-python FILE")
        if options.torch_python is not None and shutil.which(options.torch_python) is None:
            parser.error(f"--torch-python {options.torch_python}: No such file, or not one that runs")
        if options.against == "torch" and "float16" in options.precision:
            parser.error("--against torch: float16 is not compared; float32 or bfloat16 are")
        if options.against == "torch" and options.evaluation and set(options.precision) - {"auto", "float32"}:
            parser.error("--evaluation --against torch: is compared in float32")
        if options.same_allocator and options.against is None:
            parser.error("--same-allocator goes with --against")
        if options.threads > cores:
            parser.error(f"--threads {options.threads}: there are {cores}")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    if options.serve is not None:
        serve(options.serve)
        return 0
    results = {"steps": []}
    try:
        for model in options.models:
            for precision in options.precision:
                results["steps"].append(measure_step(options, model, precision))
        if options.input_pipeline:
            results["input_pipeline"] = measure_pipeline(options)
        if options.json:
            options.json.write_text(json.dumps(results, indent=2) + "\n")
    except (BenchError, OSError) as error:
        print(f"bench.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
