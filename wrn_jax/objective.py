"""Mixup, the smoothed and mixed cross-entropy, and counts that ignore padding."""

import jax
import jax.numpy as jnp
import optax


def mixup_weight(key: jax.Array, alpha: jax.Array) -> jax.Array:
    """Weight of the first image of each pair: one draw from Beta(alpha, alpha) for the whole batch; 1 where alpha is 0.

    Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018. `alpha`: float32 scalar >= 0, traced. Float32 scalar.
    """
    safe = jnp.maximum(alpha, 1e-3)  # Beta(0, 0) is NaN, and a NaN survives the selection in gradients
    return jnp.where(alpha > 0, jax.random.beta(key, safe, safe), 1.0).astype(jnp.float32)


def mix(images: jax.Array, partner: jax.Array, weight: jax.Array) -> jax.Array:
    """`weight * images + (1 - weight) * images[partner]` for images [B, ...] (any type) and int32 partner [B]."""
    return weight * images + (1.0 - weight) * images[partner]


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


def masked_counts(logits: jax.Array, labels: jax.Array, mask: jax.Array) -> dict[str, jax.Array]:
    """Sums over the images with `mask` 1: `loss` (plain cross-entropy), `correct`, `top5`, `count`; float32 scalars.

    A label counts as among the top five when fewer than five classes score strictly higher; where the logits are not
    finite, nothing counts as right.

    Args:
      logits: [B, classes] float32.
      labels: [B] int32.
      mask: [B] float32, 0 for padding.
    """
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    own = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    finite = jnp.isfinite(logits).all(axis=-1)
    return {
        "loss": jnp.sum(losses * mask),
        "correct": jnp.sum((logits.argmax(-1) == labels) * finite * mask),
        "top5": jnp.sum((jnp.sum(logits > own, axis=-1) < 5) * finite * mask),
        "count": jnp.sum(mask),
    }
