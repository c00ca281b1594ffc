"""The smoothed and mixed cross-entropy, and what counts as right under mixup."""

import jax
import jax.numpy as jnp
import optax


def mixed_cross_entropy(
    logits: jax.Array, labels: jax.Array, partner_labels: jax.Array, weight: jax.Array, smoothing: jax.Array
) -> jax.Array:
    """Mean of `weight * CE(labels) + (1 - weight) * CE(partner_labels)`, each smoothed.

    Smoothing spreads the mass `smoothing` evenly over all classes, the right one included (Szegedy et al., "Rethinking the
    Inception Architecture", 2016; PyTorch: CrossEntropyLoss(label_smoothing)). Cross-entropy is linear in its target, so one
    mixed target serves both terms.

    Args:
      logits: [B, classes] float32.
      labels, partner_labels: [B] int32.
      weight, smoothing: float32 scalars, traced.

    Returns:
      float32 scalar.
    """
    classes = logits.shape[-1]
    target = weight * jax.nn.one_hot(labels, classes) + (1.0 - weight) * jax.nn.one_hot(partner_labels, classes)
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(target, smoothing)).mean()


def mixed_correct(logits: jax.Array, labels: jax.Array, partner_labels: jax.Array, weight: jax.Array) -> jax.Array:
    """Sum over the batch of `weight * [pred = label] + (1 - weight) * [pred = partner_label]`, a float32 scalar."""
    predicted = logits.argmax(-1)
    return jnp.sum(weight * (predicted == labels) + (1.0 - weight) * (predicted == partner_labels))
