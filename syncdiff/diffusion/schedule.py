"""The noise schedule of the compact profile."""

from __future__ import annotations

from diffusers import DDIMScheduler


def compact_schedule() -> DDIMScheduler:
    """Cosine schedule down to pure noise, steps counted from the end (Lin et al. 2024): one step is enough.

    The network predicts the clean frame. A position holds 48 pixel values, about as many as the network is wide: to
    predict noise (or v) it would have to carry all noise through, which it cannot (docs/training-log.md).
    """
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="sample",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )
