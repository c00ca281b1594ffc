"""The session 04 recipe in miniature: a small WideResNet, an embedded data set, 100 epochs in 10.

    scripts/train.sh

About two minutes on two CPU cores; no download. Every phase of the recipe is passed through. At the end about a third of the
test images are right, 15 to 45 % by the seed: session 04's rate is high for batches of 64. It shows that all works, and how a
run looks; its accuracy says nothing about CIFAR-100.
"""

from wrn_jax.config import load_file

config = load_file("session04.py", relative_to=__file__).override(
    {
        "model.depth": 10,
        "model.widen_factor": 1,
        "data.name": "embedded",
        "data.embedded_train": 8000,
        "data.validation_size": 1000,
        "recipe.scale": 0.1,
        "recipe.batch_size": 64,
        "silence": {},  # unlike session 04, this has a hold-out to choose the best epoch on
    }
)
