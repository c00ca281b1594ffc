"""WideResNets on CIFAR, trained by progressive recipes in JAX/Flax.

From Python, or in a notebook:

    import wrn_jax

    config = wrn_jax.load_config("quickstart", {"seed": 1})
    summary = wrn_jax.train_model(config, "runs/first")
    figures = wrn_jax.evaluate_model("runs/first")
    logits = wrn_jax.load_model("runs/first")(images)  # [N, 32, 32, 3] uint8 to [N, classes] float32

The modules `wrn_jax.train` and `wrn_jax.evaluate` are the commands (`python -m wrn_jax.train`). Importing the package alone is
quick: JAX comes with the first use of one of these.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wrn_jax.api import TrainedModel, evaluate_model, load_config, load_model, train_model

__all__ = ["TrainedModel", "evaluate_model", "load_config", "load_model", "train_model"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from wrn_jax import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
