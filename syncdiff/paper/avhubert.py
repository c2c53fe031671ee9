"""The paper's speech encoder: the audio path of AV-HuBERT (Shi et al. 2022), one feature a video frame.

AV-HuBERT was pre-trained on faces and voices together. SyncDiff takes the last layer's output and trains the top three
of twelve layers on (section 3.2). The video half of the fused features is zeros, as in the released model without a
video. Modules have the names of the released files. The weights are Meta's: for non-commercial research.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional as F

from syncdiff.audio import SAMPLE_RATE
from syncdiff.audio.mfcc import BANDS, HOP, log_filterbank
from syncdiff.errors import CheckpointError
from syncdiff.weights import Offer, load_strictly, read_tensors

STACK = 4  # filterbank frames of 10 ms side by side: one per video frame of 40 ms
RATE = SAMPLE_RATE // HOP // STACK  # 25 Hz
TAPS, GROUPS = 128, 16  # of the positional convolution
HEAD = 64  # features per attention head, in Base and in Large
WINDOW, CONTEXT = 500, 100  # frames encoded at once; of those, the ones at either end that are only context

SIZES = {
    "base": {"width": 768, "layers": 12, "hidden": 3072},  # 91.0 M parameters
    "large": {"width": 1024, "layers": 24, "hidden": 4096},  # 312.9 M
}

LICENCE = """The file is under Meta's AV-HuBERT licence, which is not an open one: non-commercial research only, not to
be passed on under other terms, no commercial or production use, no surveillance, no biometric processing. Whatever is
made with it carries the same terms and this notice: "AV-HuBERT is licensed under the AV-HuBERT license, Copyright (c)
Meta Platforms, Inc." The whole text: https://github.com/facebookresearch/av_hubert/blob/main/LICENSE"""

_RELEASED = "https://dl.fbaipublicfiles.com/avhubert/model/lrs3_vox/noise-pretrain"
OFFERS = {size: Offer(f"{_RELEASED}/{size}_vox_iter5.pt", LICENCE) for size in SIZES}

# Where the audio path stands in the released kinds of file: the entry, its prefix, and what may stand beside it there.
_PLACES = (
    ("model", "encoder.w2v_model.", ("decoder.",)),  # fine-tuned to read lips
    (
        "state_dict",  # TalkLip's generator
        "audio_encoder.w2v_model.",
        ("face_encoder_blocks.", "face_decoder_blocks.", "audio_map.", "output_block.", "sync_net."),
    ),
    ("model", "", ()),  # pre-trained
)
# Parts of AV-HuBERT that the audio path does not use: the lips' network, and what only pre-training needs.
_UNUSED = ("feature_extractor_video.", "mask_emb", "label_embs_concat", "final_proj.")


def stacked(samples: np.ndarray) -> Tensor:
    """[N] at 16 kHz, -1..1 -> the encoder's input [T25, STACK * BANDS]; every row has mean 0 and variance 1."""
    bands = log_filterbank(samples)
    bands = F.pad(bands, (0, 0, 0, -len(bands) % STACK))
    return F.layer_norm(bands.reshape(-1, STACK * BANDS), (STACK * BANDS,))


class _Attention(nn.Module):
    """Self-attention over the frames; `mask` is False in the padding."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:  # [B, T, D], [B, 1, 1, T]
        q, k, v = (
            part(x).unflatten(-1, (-1, HEAD)).transpose(1, 2) for part in (self.q_proj, self.k_proj, self.v_proj)
        )
        heads = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # [B, heads, T, HEAD]
        return self.out_proj(heads.transpose(1, 2).flatten(2))


class _Layer(nn.Module):
    """Pre-LN transformer layer."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.self_attn = _Attention(width)
        self.final_layer_norm = nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.self_attn(self.self_attn_layer_norm(x), mask)
        return x + self.fc2(self.dropout(F.gelu(self.fc1(self.final_layer_norm(x)))))


class _Encoder(nn.Module):
    """Positional convolution, then the layers; in training each layer is left out with probability `layerdrop`."""

    def __init__(self, width: int, layers: int, hidden: int, dropout: float, layerdrop: float) -> None:
        super().__init__()
        self.pos_conv = nn.Sequential(nn.Conv1d(width, width, TAPS, padding=TAPS // 2, groups=GROUPS))
        self.layers = nn.ModuleList(_Layer(width, hidden, dropout) for _ in range(layers))
        self.layer_norm = nn.LayerNorm(width)
        self.layerdrop = layerdrop

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = x + F.gelu(self.pos_conv(x.transpose(1, 2))[..., :-1]).transpose(1, 2)  # an even kernel makes one too many
        for layer in self.layers:
            if not (self.training and torch.rand(()) < self.layerdrop):
                x = layer(x, mask)
        return self.layer_norm(x)


class AVHubert(ModelMixin, ConfigMixin):
    """Stacked filterbanks [B, T25, 104] -> features [B, T25, D] of the last layer, as released for audio alone.

    Args:
        width: D, the features' size; 64 of them make an attention head.
        layers: transformer layers.
        hidden: width of the feed-forward layers.
        dropout: between the two feed-forward layers, in training only. This and `layerdrop` are what TalkLip trains the
            top layers with; SyncDiff does not say.
        layerdrop: share of updates for which a layer is left out, in training only.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(
        self, width: int = 768, layers: int = 12, hidden: int = 3072, dropout: float = 0.1, layerdrop: float = 0.1
    ) -> None:
        super().__init__()
        self.feature_extractor_audio = nn.ModuleDict({"proj": nn.Linear(STACK * BANDS, width)})
        self.layer_norm = nn.LayerNorm(2 * width)
        self.post_extract_proj = nn.Linear(2 * width, width)
        self.encoder = _Encoder(width, layers, hidden, dropout, layerdrop)

    @property
    def rate(self) -> int:
        """Features per second; feature i spans the time from i / rate to (i + 1) / rate."""
        return RATE

    def forward(self, frames: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Frames [B, T25, 104] as `stacked` makes them; lengths [B] where rows are padded, at least 1 frame each.

        Features beyond a row's length have no meaning; those before it do not depend on the padding."""
        audio = self.feature_extractor_audio["proj"](frames)
        x = self.post_extract_proj(self.layer_norm(torch.cat([audio, torch.zeros_like(audio)], dim=-1)))
        if lengths is None:
            return self.encoder(x, None)
        mask = torch.arange(x.shape[1], device=x.device) < lengths.to(x.device)[:, None]
        return self.encoder(x * mask[..., None], mask[:, None, None])

    @torch.inference_mode()
    def encode(self, samples: np.ndarray) -> Tensor:
        """[N] float32 at 16 kHz, -1..1 -> features [T25, D] float32 on the CPU.

        Up to 20 s the utterance is encoded whole, as published. Longer speech goes in windows of 20 s, 12 s apart, each
        of which gives its middle (the first and the last also their end). So the network's memory does not grow with
        the clip, nor its cost with the square; and nothing it was pre-trained on was longer than 16 s."""
        frames = stacked(samples)
        parts = []
        for start, stop, first in _windows(len(frames)):
            window = frames[None, first : first + WINDOW].to(self.device, self.dtype)
            parts.append(self(window)[0, start - first : stop - first].float().cpu())
        return torch.cat(parts)

    def trainable_layers(self, count: int) -> None:
        """Only the last `count` transformer layers learn (the paper: 3 of 12, Table 6); the rest is frozen."""
        depth = len(self.encoder.layers)
        if not 0 <= count <= depth:
            raise ValueError(f"of {depth} layers, 0..{depth} can be trainable, not {count}")
        self.requires_grad_(False)
        self.encoder.layers[depth - count :].requires_grad_(True)

    @classmethod
    def read(cls, path: Path | str) -> AVHubert:
        """The audio path in a released file: pre-trained, fine-tuned to read lips, or inside TalkLip's generator.

        Every key of the audio path must be there with its shape, and no other key but those known to stand beside it
        (the lips' network, the pre-training heads, the decoder). No code in the file is run.
        Raises CheckpointError for every other file."""
        tensors = _folded(_audio_path(read_tensors(path), path), path)
        with torch.device("meta"):  # no memory for sizes that a file merely claims
            model = cls(**_size(tensors, path))
        load_strictly(model, tensors, path, assign=True)
        return model.eval()


def _windows(frames: int) -> list[tuple[int, int, int]]:
    """(start, stop, first): frames start..stop are taken from the window of WINDOW frames that begins at first."""
    if frames <= WINDOW:
        return [(0, frames, 0)]
    starts = [0, *range(WINDOW - CONTEXT, frames - CONTEXT, WINDOW - 2 * CONTEXT)]
    stops = [*starts[1:], frames]
    return [(a, b, min(max(0, a - CONTEXT), frames - WINDOW)) for a, b in zip(starts, stops, strict=True)]


def _audio_path(content: dict, path: Path | str) -> dict[str, Tensor]:
    """The tensors of the audio path under AV-HuBERT's own names, wherever in the file they are."""
    expected = f"AV-HuBERT's keys, plain or under {' or '.join(prefix for _, prefix, _ in _PLACES if prefix)}"
    for entry, prefix, beside in _PLACES:
        state = content.get(entry)
        if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
            continue
        encoder = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if "post_extract_proj.weight" not in encoder:
            continue
        if unknown := [key for key in state if not key.startswith((prefix, *beside))]:
            raise CheckpointError(path, f"beside AV-HuBERT it has {unknown[0]}", expected)
        audio = {key: value for key, value in encoder.items() if not key.startswith(_UNUSED)}
        if invalid := [key for key, value in audio.items() if not isinstance(value, Tensor)]:
            raise CheckpointError(path, f"its {invalid[0]} is no tensor", expected)
        return {key: value.float() for key, value in audio.items()}
    raise CheckpointError(path, "it has no post_extract_proj.weight", expected)


def _folded(tensors: dict[str, Tensor], path: Path | str) -> dict[str, Tensor]:
    """With the positional convolution's weight norm folded in: w = v * g / |v|, tap by tap."""
    name = "encoder.pos_conv.0.weight"
    g, v = tensors.pop(f"{name}_g", None), tensors.pop(f"{name}_v", None)
    if g is None or v is None or v.dim() != 3 or g.shape != (1, 1, v.shape[-1]):
        shapes = [None if half is None else tuple(half.shape) for half in (g, v)]
        raise CheckpointError(path, f"{name}_g and _v have the shapes {shapes}", "(1, 1, 128) and (D, D / 16, 128)")
    return tensors | {name: v * (g / v.norm(dim=(0, 1), keepdim=True))}


def _size(tensors: dict[str, Tensor], path: Path | str) -> dict[str, int]:
    """The arguments of the AVHubert that these tensors fit, if any."""
    width, hidden = (
        tensors[key].numel() if key in tensors else 0 for key in ("post_extract_proj.bias", "encoder.layers.0.fc1.bias")
    )
    layers = {match[1] for key in tensors if (match := re.match(r"encoder\.layers\.(\d+)\.", key))}
    if not width or width % HEAD or not hidden:
        expected = f"a multiple of {HEAD} (Base 768, Large 1024) and layers with an fc1"
        raise CheckpointError(path, f"its features are {width} wide in {len(layers)} layers", expected)
    return {"width": width, "layers": len(layers), "hidden": hidden}
