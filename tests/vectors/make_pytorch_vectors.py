"""Write the vectors that the tests compare the JAX code with: schedules, forward and backward passes, ten steps.

    python tests/vectors/make_pytorch_vectors.py

in an environment with PyTorch (the files here came from torch 2.13.0+cpu, NumPy 2.4.6, Python 3.11; a minute on
two cores). It rewrites the eight .npz files beside this script and prints what they hold.

Initial weights, images, labels and permutations come from `formula_weights.py` and are mostly not stored; `*_crc32`
tells whether the formula still gives the same bits. Everything is in PyTorch's layout except images, which are
[B, 32, 32, 3] uint8 before normalisation.

Every pass runs in float64 and in float32. Stored are the float64 results (arrays rounded to float32): they are the
truth that any float32 implementation scatters about. `float32/...` repeats some as the float32 run has them, and
`difference/...` says how far PyTorch's own float32 run is from them, which is the scale for a test's tolerance:
- `difference/<key>` for one array or number: largest absolute difference;
- `difference/grad`, `difference/final`, `difference/running`, `difference/average`, `difference/average_running`: largest
  over the tensors of norm(float32 - float64) / norm(float64).
They are that small because batches are chosen so that every input to a ReLU is at least MARGIN from zero (`margin`,
`margins` hold the smallest): where rounding decides a sign, gradients jump and no tolerance would be both safe and
sharp. `tags` names the batches chosen: step k uses formula_batch(f"step{k}/{tags[k]}", 16). The second passes of
sharpness-aware steps have no choice; each `rho` below is one with which they stay 5e-7 off.

`average_...`: an exponential moving average of parameters and statistics, `average_decays` its decay at each step.
"""

import copy
import itertools
import pathlib

import numpy as np
import torch
from formula_weights import crc32, formula_batch, formula_permutation, formula_weights, sample_stride
from pytorch_reference import PARAMETERS_28_10, WideResNet, count_parameters, mix, mixed_correct, mixed_cross_entropy

FOLDER = pathlib.Path(__file__).parent
MEAN = np.array([0.5071, 0.4865, 0.4409])
STD = np.array([0.2673, 0.2564, 0.2761])
LABEL_SMOOTHING = 0.1
MARGIN = 1e-5
SIZE_LIMIT = 1_000_000

# Sixty-fourths: exact in float32, so both precisions mix with the same numbers. The first step has mixup off.
LAMBDAS = np.array([64, 60, 33, 47, 2, 63, 21, 52, 40, 58]) / 64
LEARNING_RATES = 0.01 + (0.1 - 0.01) * np.arange(10) / 9
MOMENTUM, WEIGHT_DECAY, MAX_NORM = 0.9, 1e-3, 1.0
# The average begins at the third step; its warm-up, (1 + n) / (10 + n), holds until the last step, where the decay itself does.
AVERAGE_DECAYS = np.array([0.0] * 2 + [0.9] * 7 + [0.2])
# Options of `ten_steps`; momentum is Nesterov's in one of those with a sharpness-aware step, so that it is compared too.
TEN_STEPS = {
    "ten_steps": {},
    "ten_steps_sam": {"rho": 0.1, "nesterov": True},
    "ten_steps_asam": {"rho": 0.5, "adaptive": True},
    "ten_steps_groups": {"rho": 0.2, "group": 8, "average_decays": AVERAGE_DECAYS},
    "ten_steps_kernels": {"kernels_only": True},
}

STEPS_PER_EPOCH = 7
RESTARTS = {
    "restarts_25": dict(peak=0.1, floor=1e-4, period_epochs=25, multiplier=1, epochs=100),
    "restarts_20": dict(peak=0.15, floor=5e-4, period_epochs=20, multiplier=1, epochs=60),
    "restarts_5_doubling": dict(peak=0.1, floor=1e-4, period_epochs=5, multiplier=2, epochs=75),
}
COSINE = dict(peak=0.15, floor=1e-5, period_epochs=40, epochs=40)


def make_schedules():
    """Rates at steps 0 .. epochs * steps_per_epoch, both ends included."""
    arrays = {}
    for name, case in RESTARTS.items():
        arrays |= schedule_entry(name, case, restart_rates(case))
    return arrays | schedule_entry("cosine_40", COSINE, cosine_rates(COSINE))


def schedule_entry(name, case, rates):
    settings = {f"{name}/{key}": np.array(value) for key, value in case.items()}
    return settings | {f"{name}/steps_per_epoch": np.array(STEPS_PER_EPOCH), f"{name}/rates": rates}


def optimizer_at(rate):
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate)


def restart_rates(case):
    """CosineAnnealingWarmRestarts stepped with the fractional epoch, as its documentation shows."""
    optimizer = optimizer_at(case["peak"])
    scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(
        optimizer, T_0=case["period_epochs"], T_mult=case["multiplier"], eta_min=case["floor"]
    )
    rates = []
    for step in range(case["epochs"] * STEPS_PER_EPOCH + 1):
        scheduler.step(step / STEPS_PER_EPOCH)
        rates.append(optimizer.param_groups[0]["lr"])
    return np.array(rates)


def cosine_rates(case):
    """CosineAnnealingLR stepped once per step with a period in steps: its recursive form, which drifts by rounding."""
    optimizer = optimizer_at(case["peak"])
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, T_max=case["period_epochs"] * STEPS_PER_EPOCH, eta_min=case["floor"]
    )
    rates = [optimizer.param_groups[0]["lr"]]
    for _ in range(case["epochs"] * STEPS_PER_EPOCH):
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    return np.array(rates)


def formula_model(depth, widen_factor, dtype):
    """The network with formula weights, and the CRC-32 of those (in sorted order of name, step counters left out)."""
    model = WideResNet(depth, widen_factor)
    state = model.state_dict()
    names = sorted(name for name in state if not name.endswith("num_batches_tracked"))
    weights = {name: formula_weights(name, tuple(state[name].shape)) for name in names}
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()}, strict=False)
    return model.to(dtype), crc32(weights.values())


def normalise(images, dtype):
    """[B, 32, 32, 3] uint8 -> [B, 3, 32, 32], normalised in `dtype`."""
    scaled = torch.from_numpy(images).to(dtype) / 255
    centred = (scaled - torch.tensor(MEAN, dtype=dtype)) / torch.tensor(STD, dtype=dtype)
    return centred.permute(0, 3, 1, 2).contiguous()


def relu_margin(model, x):
    """Smallest distance from zero of any BatchNorm output (each goes into a ReLU) in a train-mode forward pass."""
    model, distances = copy.deepcopy(model).train(), []
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.register_forward_hook(lambda _module, _inputs, y: distances.append(y.abs().min().item()))
    with torch.no_grad():
        model(x)
    return min(distances)


def clear_tag(model, name, size, prepare, group=None):
    """First n whose formula_batch(f"{name}/{n}", size), once prepared, stays MARGIN off the kink; and its margin.

    With `group`, so many images are normalised together at a time.
    """
    for tag in itertools.count():
        images, _ = formula_batch(f"{name}/{tag}", size)
        margin = min(relu_margin(model, part) for part in prepare(images).split(group or size))
        if margin >= MARGIN:
            return tag, margin


def tensors(model, kind):
    """Named float64 NumPy copies: 'final' parameters, 'grad' of the parameters, or 'running' statistics."""
    if kind == "running":
        return {name: to_numpy(buffer) for name, buffer in model.named_buffers() if "running" in name}
    pairs = model.named_parameters()
    return {name: to_numpy(parameter.grad if kind == "grad" else parameter) for name, parameter in pairs}


def to_numpy(tensor):
    return tensor.detach().double().numpy().copy()


def one_pass(depth, widen_factor, images, labels, dtype):
    """Train-mode forward and backward pass, then an eval-mode forward pass with the updated running statistics."""
    model, _ = formula_model(depth, widen_factor, dtype)
    x, y = normalise(images, dtype), torch.from_numpy(labels).long()
    model.train()
    train_logits = model(x)
    loss = mixed_cross_entropy(train_logits, y, y, 1.0, LABEL_SMOOTHING)
    loss.backward()
    model.eval()
    with torch.no_grad():
        eval_logits = model(x)
    numbers = {"train_logits": to_numpy(train_logits), "loss": to_numpy(loss), "eval_logits": to_numpy(eval_logits)}
    return numbers, {"grad": tensors(model, "grad"), "running": tensors(model, "running")}


def ten_steps(dtype, tags=None, average_decays=None, kernels_only=False, nesterov=False, **options):
    """Ten updates of WRN-10-1 with mixup, clipping of the raw gradients, L2, momentum and a moving learning rate.

    Without `tags` it chooses the batches as it goes. With `kernels_only`, L2 spares vectors: biases, and BatchNorm's scales.
    """
    model, _ = formula_model(10, 1, dtype)
    vectors, kernels = ([p for p in model.parameters() if (p.ndim > 1) == is_kernel] for is_kernel in (False, True))
    groups = [{"params": kernels}, {"params": vectors, "weight_decay": 0.0}] if kernels_only else model.parameters()
    optimizer = torch.optim.SGD(groups, lr=0.0, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=nesterov)
    average, rows = Average(model), []
    for step in range(len(LAMBDAS)):
        rows.append(train_step(model, optimizer, step, tags and tags[step], dtype, **options))
        if average_decays is not None:
            average.follow(model, average_decays[step])
    numbers = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    named = {"final": tensors(model, "final"), "running": tensors(model, "running")}
    if average_decays is not None:
        named |= {"average": tensors(average.model, "final"), "average_running": tensors(average.model, "running")}
    return numbers, named


class Average:
    """An exponential moving average of parameters and statistics, which follows the network where its decay is 0.

    It is warmed up as TensorFlow's ExponentialMovingAverage with `num_updates`, counted from the last such step on.
    """

    def __init__(self, model):
        self.model, self.updates = copy.deepcopy(model), 0

    def follow(self, model, decay):
        kept = min(decay, (1 + self.updates) / (10 + self.updates))
        self.updates = self.updates + 1 if decay else 0
        for old, new in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            old.copy_(kept * old + (1 - kept) * new)


def perturbation(model, rho, adaptive):
    """What is added to each parameter before the second pass, from the gradients of the first.

    Foret et al. 2021; adaptive: Kwon et al. 2021 with eta 0, where only tensors called weight are scaled.
    """
    scales = [p.abs() if adaptive and name.endswith("weight") else torch.ones_like(p) for name, p in model.named_parameters()]
    scaled = [scale * p.grad for scale, p in zip(scales, model.parameters(), strict=True)]
    norm = torch.sqrt(sum(part.square().sum() for part in scaled))
    return [rho * scale * part / norm for scale, part in zip(scales, scaled, strict=True)]


def move(model, changes, sign):
    with torch.no_grad():
        for p, change in zip(model.parameters(), changes, strict=True):
            p.add_(sign * change)


def buffers(model):
    return copy.deepcopy(dict(model.named_buffers()))


def backward(model, x, labels_a, labels_b, lam, rho=0.0, adaptive=False):
    """Leaves the gradients of a forward pass in the model; returns loss, logits and the smallest distance from a kink.

    With `rho` they are taken uphill; all else is that of the first pass, BatchNorm's statistics as well. L2 is the optimiser's.
    """
    margin = relu_margin(model, x)
    model.zero_grad()
    logits = model(x)
    loss = mixed_cross_entropy(logits, labels_a, labels_b, lam, LABEL_SMOOTHING)
    loss.backward()
    if rho:
        running = buffers(model)
        changes = perturbation(model, rho, adaptive)
        move(model, changes, 1)
        margin = min(margin, backward(model, x, labels_a, labels_b, lam)[2])
        move(model, changes, -1)
        model.load_state_dict(running, strict=False)
    return loss.item(), logits.detach(), margin


def train_step(model, optimizer, step, tag, dtype, group=16, **sharpness):
    """One update. Each `group` of images is normalised and goes uphill by itself; all that it gives is averaged."""
    lam = float(LAMBDAS[step])
    permutation = torch.from_numpy(formula_permutation(f"step{step}/mixup", 16)).long()

    def prepare(images):
        return mix(normalise(images, dtype), lam, permutation)

    if tag is None:
        tag, _ = clear_tag(model, f"step{step}", 16, prepare, group)
    images, labels = formula_batch(f"step{step}/{tag}", 16)
    x, labels_a = prepare(images), torch.from_numpy(labels).long()
    labels_b = labels_a[permutation]
    for options in optimizer.param_groups:
        options["lr"] = float(LEARNING_RATES[step])

    model.train()
    before, results, gradients, running = buffers(model), [], [], []
    for part in zip(*(tensor.split(group) for tensor in (x, labels_a, labels_b)), strict=True):
        model.load_state_dict(before, strict=False)
        results.append(backward(model, *part, lam, **sharpness))
        gradients.append([p.grad for p in model.parameters()])
        running.append(buffers(model))
    for p, *parts in zip(model.parameters(), *gradients, strict=True):
        p.grad = sum(parts) / len(parts)
    model.load_state_dict({name: sum(part[name] for part in running) / len(running) for name in before}, strict=False)
    losses, logits, margins = zip(*results, strict=True)
    logits = torch.cat(logits)
    # PyTorch divides by (norm + 1e-6): one part in a million below an exact clip.
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
    optimizer.step()

    top_two = logits.topk(2, dim=1).values
    squares = sum(parameter.detach().double().square().sum() for parameter in model.parameters())
    return {
        "losses": np.mean(losses),
        "gradient_norms": norm.item(),
        "correct": mixed_correct(logits, labels_a, labels_b, lam),
        "parameter_norms": squares.sqrt().item(),
        # How far any prediction is from flipping: the counts can only be compared while this dwarfs rounding.
        "smallest_leads": (top_two[:, 0] - top_two[:, 1]).min().item(),
        "margins": min(margins),
        "tags": tag,
    }


def differences(exact, single):
    """Distances of the float32 run from the float64 run; see the module's docstring."""
    numbers, groups = exact
    numbers_single, groups_single = single
    found = {key: np.abs(numbers_single[key] - numbers[key]).max() for key in numbers if key != "tags"}
    for kind, named in groups.items():
        found[kind] = max(relative_distance(groups_single[kind][name], named[name]) for name in named)
    return {f"difference/{key}": np.array(value) for key, value in found.items()}


def relative_distance(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def network_entry(depth, widen_factor):
    return {
        "depth": np.array(depth),
        "widen_factor": np.array(widen_factor),
        "num_classes": np.array(100),
        "mean": MEAN,
        "std": STD,
        "label_smoothing": np.array(LABEL_SMOOTHING),
        "weights_crc32": formula_model(depth, widen_factor, torch.float32)[1],
    }


def single_precision(prefix, named):
    return {f"{prefix}/{name}": array.astype(np.float32) for name, array in named.items()}


def norms_and_samples(prefix, named):
    """The norm of each tensor and every `sample_stride(size)`-th of its entries, which takes a tenth of the space."""
    arrays = {f"{prefix}_norm/{name}": np.array(np.linalg.norm(array)) for name, array in named.items()}
    sampled = {name: array.ravel()[:: sample_stride(array.size)] for name, array in named.items()}
    return arrays | single_precision(f"{prefix}_sample", sampled)


def make_pass(depth, widen_factor, batch_size, whole_gradients):
    name = f"wrn-{depth}-{widen_factor}"
    model, _ = formula_model(depth, widen_factor, torch.float64)
    tag, margin = clear_tag(model, name, batch_size, lambda images: normalise(images, torch.float64))
    images, labels = formula_batch(f"{name}/{tag}", batch_size)
    exact = one_pass(depth, widen_factor, images, labels, torch.float64)
    single = one_pass(depth, widen_factor, images, labels, torch.float32)
    numbers, groups = exact
    arrays = network_entry(depth, widen_factor) | {"images": images, "labels": labels, "loss": numbers["loss"]}
    arrays["margin"] = np.array(margin)
    arrays |= {key: numbers[key].astype(np.float32) for key in ("train_logits", "eval_logits")}
    arrays |= single_precision("running", groups["running"]) | differences(exact, single)
    if whole_gradients:
        return arrays | single_precision("grad", groups["grad"])
    return arrays | norms_and_samples("grad", groups["grad"])


def make_ten_steps(options):
    exact = ten_steps(torch.float64, **options)
    numbers, groups = exact
    tags = numbers["tags"].tolist()
    single = ten_steps(torch.float32, tags, **options)
    batches = [formula_batch(f"step{step}/{tag}", 16) for step, tag in enumerate(tags)]
    arrays = network_entry(10, 1) | {
        "images_crc32": np.array([crc32([images]) for images, _ in batches]),
        "labels": np.stack([labels for _, labels in batches]),
        "permutations": np.stack([formula_permutation(f"step{step}/mixup", 16) for step in range(len(LAMBDAS))]),
        "lambdas": LAMBDAS,
        "learning_rates": LEARNING_RATES,
        "momentum": np.array(MOMENTUM),
        "weight_decay": np.array(WEIGHT_DECAY),
        "max_norm": np.array(MAX_NORM),
        **{key: np.array(value) for key, value in options.items()},
    }
    arrays |= numbers | {f"float32/{key}": single[0][key] for key in ("losses", "gradient_norms", "parameter_norms")}
    for kind, named in groups.items():
        arrays |= single_precision(kind, named) if kind.endswith("running") else norms_and_samples(kind, named)
    return arrays | differences(exact, single)


def write(name, arrays):
    path = FOLDER / f"{name}.npz"
    np.savez_compressed(path, **arrays)
    print(f"{path.name}: {path.stat().st_size:,} bytes")
    for key, array in arrays.items():
        array = np.asarray(array)
        shown = array.tolist() if array.size <= 10 and "/bn" not in key else ""
        print(f"  {key} {array.dtype} {list(array.shape)} {shown}")
    return path.stat().st_size


def main():
    if count_parameters(28, 10) != PARAMETERS_28_10:
        raise SystemExit(f"WRN-28-10 has {count_parameters(28, 10)} parameters, not {PARAMETERS_28_10}")
    size = write("schedules", make_schedules())
    size += write("wrn", make_pass(10, 1, batch_size=16, whole_gradients=True))
    size += write("wrn_wide", make_pass(10, 2, batch_size=8, whole_gradients=False))
    size += sum(write(name, make_ten_steps(options)) for name, options in TEN_STEPS.items())
    if size >= SIZE_LIMIT:
        raise SystemExit(f"the vectors take {size:,} bytes; the limit is {SIZE_LIMIT:,}")


if __name__ == "__main__":
    main()
