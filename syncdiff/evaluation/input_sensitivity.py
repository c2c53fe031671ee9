"""The paper's Table 4: variance of the U-Net's latents when only the identity frame, or only the pose, changes.

    python -m syncdiff.evaluation.evaluate PREPARED --protocol paper --table 4 --out RUN --weights WEIGHTS

The latents of a network that copies the identity frame's mouth change with that frame; the paper shows that the
bottlenecked previous frame prevents this. It does not say how its variances were measured, so the rest is ours: the
latents are the output of the U-Net's middle block, in one evaluation at timestep 500 of 1000. The frames are spread
evenly over each film. The pose is the masked frame with the frames before it. Noise, speech, and the clean frame under
the noise stay the same. Compare our rows with each other, and with the paper's only in which column is larger.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from syncdiff.devices import autocast
from syncdiff.errors import InputError
from syncdiff.evaluation.paper_results import PUBLISHED_4, published
from syncdiff.evaluation.protocol import other_run, table, write_table
from syncdiff.models.speech_encoder import token_window
from syncdiff.paper.denoiser import Priors, to_latents
from syncdiff.paper.frames import masked
from syncdiff.pipeline import SyncDiffPipeline
from syncdiff.training.lrs import Film, prepared
from syncdiff.training.prepare import FPS

NAME, COLUMNS = "table-4", ("films", *PUBLISHED_4)
SPREAD = 6  # frames of a film: each is the target once, and each the other identity or pose
TIMESTEP = 500  # of 1000


@torch.inference_mode()
def variances(pipe: SyncDiffPipeline, film: Film) -> tuple[float, float]:
    """Variance of the middle block's output over SPREAD identity frames, and over SPREAD poses; the mean of all
    elements and targets. Raises InputError for a film that shows its face in fewer frames."""
    usable = np.flatnonzero(np.isfinite(film.boxes).all(1))[1:]  # the first has no frame before it
    if len(usable) < SPREAD:
        raise InputError(f"its face is seen in {len(usable)} frames after the first, and {SPREAD} are needed.")
    frames = usable[np.linspace(0, len(usable) - 1, SPREAD).astype(int)]
    net, speech = pipe.denoiser, cast(Tensor, pipe.generator().encode(film.sound))

    def encoded(pictures: Iterable[np.ndarray]) -> Tensor:
        with autocast(pipe.vae.device):
            return torch.cat([to_latents(pipe.vae, picture[None]) for picture in pictures])

    clean = encoded(film.frames[i] for i in frames)
    hidden = encoded(masked(film.frames[i], film.boxes[i]) for i in frames)
    previous = [encoded(film.frames[max(0, i - k)] for i in frames) for k in range(1, net.config["previous"] + 1)]
    pose = torch.cat(previous, dim=1)
    noise = torch.randn(clean[:1].shape, generator=torch.Generator().manual_seed(0)).to(clean.device)
    step = torch.tensor([TIMESTEP])
    variance: list[float] = []  # over identity frames and over poses in turn
    hook = net.unet.mid_block.register_forward_hook(
        lambda _block, _input, output: variance.append(float(output.float().var(0).mean()))
    )
    try:
        for i, frame in enumerate(frames):
            middle = torch.tensor([(frame + 0.5) / FPS])
            tokens = token_window(speech, middle, tokens=net.config["tokens"], rate=pipe.speech.rate)
            noisy = pipe.scheduler.add_noise(clean[i : i + 1], noise, step.to(clean.device))
            target = [i] * SPREAD
            for priors in (
                Priors(hidden[target], clean, pose[target], tokens.expand(SPREAD, -1, -1)),
                Priors(hidden, clean[target], pose, tokens.expand(SPREAD, -1, -1)),
            ):
                with autocast(net.device):
                    net(noisy.expand(SPREAD, -1, -1, -1), step.expand(SPREAD).to(net.device), priors.to(net.device))
    finally:
        hook.remove()
    return float(np.mean(variance[::2])), float(np.mean(variance[1::2]))


def evaluate_input_sensitivity(
    pipe: SyncDiffPipeline,
    data: Path,
    out: Path,
    *,
    listed: Path | None = None,
    others: Sequence[Path] = (),
    limit: int | None = None,
) -> str:
    """The whole run; returns the Markdown table, which also lies in `out` beside its CSV. Raises InputError.

    Args:
        data: a folder of `prepare_lrs`.
        others: folders of earlier runs, with other weights, whose rows stand beside.
    """
    if pipe.profile != "paper":
        raise InputError("Table 4 is about the paper's U-Net: give weights of that profile, OUT/pipeline.")
    beside = {name: row for folder in others for name, row in other_run(folder, NAME, COLUMNS).items()}
    beside |= {f"{row} (published)": figures for row, figures in published("4").items()}
    out.mkdir(parents=True, exist_ok=True)
    corpus, rows = prepared(data, listed), []
    missing = [f"{name} is left out: {why}" for name, why in corpus.refused.items()]
    for film in corpus.films[:limit]:
        try:
            rows.append(variances(pipe, film.read().film()))
        except InputError as sentence:
            missing.append(f"{film.name} is left out: {sentence}")
    if not rows:
        raise InputError(f"No film of {data} could be evaluated. {' '.join(missing)}")
    ours: dict[str, float | None] = {"films": len(rows)}
    ours.update(zip(PUBLISHED_4, np.mean(rows, axis=0).tolist(), strict=True))
    return write_table(out, NAME, table({"ours": ours}, beside, COLUMNS), missing)
