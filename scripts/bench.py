"""Measure the training step: images/s, share of the matrix-product peak, time per part, compile time, peak memory.

    python scripts/bench.py --models 28-10:32 16-4:64 16-2:128 --precision float32 --json bench.json
    python scripts/bench.py --models 16-4:64 --against torch --torch-python TORCH_ENVIRONMENT/bin/python
    python scripts/bench.py --input-pipeline --torch-python TORCH_ENVIRONMENT/bin/python

A model is DEPTH-WIDEN_FACTOR:BATCH_SIZE. The step that is timed is forward and backward pass with dropout, clipping to norm 1,
L2 and momentum, on one device; augmentation is timed apart, as a part. `--against torch` steps the same network in PyTorch
(the faster of its two memory layouts), `--against plain` in JAX with XLA's own convolutions everywhere. The sides are
processes that live through all rounds and step in turn, so that each pays for its compilation once and both see the same
machine. The ratio is taken in each round, and given as median, least and greatest over the rounds.

Beside the wall clock there is the CPU time of the process. On a machine that others use, `--threads 1` and the ratio of CPU
times say more than the wall clock: threads that wait for each other suffer from company, and not all libraries alike.

The torch environment needs torch, and for --input-pipeline albumentations 2.0.8 and opencv-python-headless.
"""

import argparse
import contextlib
import json
import os
import re
import resource
import statistics
import subprocess
import sys
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


# What is counted


def step_operations(depth: int, widen_factor: int) -> int:
    """Floating point operations of a training step per image in its convolutions and its linear layer.

    A multiplication and an addition count as two; each layer has three products (output, input gradient, weight gradient)
    but for the first, whose input needs no gradient. This counts the network, not what an algorithm makes of it.
    """
    blocks, size, channels = (depth - 4) // 6, 32, 16
    operations = 2 * 2 * 9 * 3 * 16 * size**2
    for width, stride in ((16 * widen_factor, 1), (32 * widen_factor, 2), (64 * widen_factor, 2)):
        for block in range(blocks):
            step = stride if block == 0 else 1
            size //= step
            taps = 9 * channels * width + 9 * width * width + (channels * width if step > 1 or channels != width else 0)
            operations += 3 * 2 * taps * size**2
            channels = width
    return operations + 3 * 2 * channels * NUM_CLASSES


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


def jax_step(case: dict) -> dict:
    """Compiles the step of a case. Returns `step` (a call that makes one update), `parts`, `peak`, and what is known of it."""
    import functools

    import jax
    import jax.numpy as jnp
    import numpy as np

    from wrn_jax import augment, config, mesh, model, optimizer, state, step

    if case["plain"]:
        model.convolution.convolve = model.convolution.convolve_plain
    device = jax.devices()[0]
    dtype = mesh.compute_dtype(case["precision"], device)
    network = state.Network(config.Model(depth=case["depth"], widen_factor=case["widen_factor"]), NUM_CLASSES, dtype)
    chain = optimizer.make_optimizer(config.Optimizer(MOMENTUM, WEIGHT_DECAY, MAX_NORM))
    random = np.random.default_rng(0)
    batch_size = case["batch_size"]
    octets = jnp.asarray(random.integers(0, 256, (batch_size, 32, 32, 3), np.uint8))
    labels = jnp.asarray(random.integers(0, NUM_CLASSES, batch_size), jnp.int32)
    images = jnp.asarray(random.standard_normal((batch_size, 32, 32, 3)), jnp.float32)
    batch = step.Batch(images, labels, labels, jnp.float32(1))
    key = jax.random.key(0)
    dropout, smoothing, rate = jnp.float32(DROPOUT), jnp.float32(LABEL_SMOOTHING), jnp.float32(LEARNING_RATE)

    def run(now, batch, key):
        return step.update(network.graphdef, chain, dtype, now, batch, jax.random.fold_in(key, now.step), dropout, smoothing, rate)

    now = jax.jit(functools.partial(network.create_state, chain))(key)
    lowered = jax.jit(run, donate_argnums=0).lower(now, batch, key)
    started = time.perf_counter()
    compiled = lowered.compile()
    compile_seconds = time.perf_counter() - started
    kept = [now]

    def one():
        kept[0], metrics = compiled(kept[0], batch, key)
        jax.block_until_ready((kept[0], metrics))

    def parts():
        now = kept[0]
        strengths = augment.LEVELS["full"] if hasattr(augment, "LEVELS") else full_strengths()

        def loss_of(params, stats):
            return step.loss_and_stats(network.graphdef, params, stats, batch, key, dropout, smoothing)

        def call(function, *arrays):
            ready = jax.jit(function).lower(*arrays).compile()
            return fastest(lambda: jax.block_until_ready(ready(*arrays)))

        def forward(params, stats):
            return loss_of(params, stats)

        def backward(params, stats):
            return jax.value_and_grad(lambda params: loss_of(params, stats), has_aux=True)(params)

        def apply(params, opt_state):
            # The parameters stand in for their gradients: the same sizes.
            return chain.update(params, opt_state, params, learning_rate=rate)

        seconds = {
            "augment": call(lambda octets: augment.augment(octets, key, strengths), octets),
            "forward": call(forward, now.params, now.batch_stats),
            "update": call(apply, now.params, now.opt_state),
        }
        seconds["backward"] = max(call(backward, now.params, now.batch_stats) - seconds["forward"], 0.0)
        return seconds

    def peak():
        square = jax.random.normal(key, (PEAK_SIZE, PEAK_SIZE), dtype)
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
    }
    return {"step": one, "parts": parts, "peak": peak, "memory": memory, "about": about}


def peak_memory() -> int:
    """Greatest resident size of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
