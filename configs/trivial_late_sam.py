"""`trivial` with CutMix for three quarters of the run and sharpness-aware steps in the last eighth (200 epochs).

    python -m wrn_jax.train --config trivial_late_sam
    python -m wrn_jax.train --config trivial_late_sam --config.recipe.scale=0.5    # 100 epochs, the same shape

CutMix, which mixes labels, stops at three quarters (Yun et al., 2019, for half of the batches), and flat minima are looked for
only then: Zhou et al., "Sharpness-Aware Minimization Efficiently Selects Flatter Minima Late in Training", 2025, got close to
the whole effect so. A weight average over the last quarter is what is evaluated (decay 0.999: Sohn et al., "FixMatch", 2020).
Not run here.

Cost: 3.19e+17 operations, 1.13 times those of `trivial`, where SAM throughout takes twice.
"""

from wrn_jax.config import at, epoch, load_file

config = load_file("trivial.py", relative_to=__file__).override(
    {
        "recipe.cutmix_probability": {epoch(1): 0.5, at("75 %"): 0.0},
        "optimizer.sam_rho": {epoch(1): 0.0, at("87.5 %"): 0.1},
        "optimizer.average_decay": {epoch(1): 0.0, at("75 %"): 0.999},
    }
)
