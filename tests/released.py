"""Files in the formats that others release, full of random numbers."""

from __future__ import annotations

import math
import sys
import types
import typing
from argparse import Namespace
from pathlib import Path

import numpy as np
import torch
from diffusers import VQModel

# --- AV-HuBERT


def shapes(D: int, F: int, layers: int) -> dict[str, tuple[int, ...]]:
    """The released keys of the audio path, for features D and feed-forward layers F wide."""
    linear = {
        "feature_extractor_audio.proj": (D, 104),
        "post_extract_proj": (D, 2 * D),
        **{f"encoder.layers.{i}.self_attn.{n}_proj": (D, D) for i in range(layers) for n in ("k", "v", "q", "out")},
        **{f"encoder.layers.{i}.fc1": (F, D) for i in range(layers)},
        **{f"encoder.layers.{i}.fc2": (D, F) for i in range(layers)},
    }
    norms = {
        "layer_norm": 2 * D,
        "encoder.layer_norm": D,
        **{f"encoder.layers.{i}.self_attn_layer_norm": D for i in range(layers)},
        **{f"encoder.layers.{i}.final_layer_norm": D for i in range(layers)},
    }
    found = {
        "encoder.pos_conv.0.bias": (D,),
        "encoder.pos_conv.0.weight_g": (1, 1, 128),
        "encoder.pos_conv.0.weight_v": (D, D // 16, 128),
    }
    for name, shape in linear.items():
        found |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    for name, size in norms.items():
        found |= {f"{name}.weight": (size,), f"{name}.bias": (size,)}
    return found


def audio_path(D: int, F: int, layers: int) -> dict[str, torch.Tensor]:
    """Random weights under those keys, of sizes that let the sound through every layer."""
    random = torch.Generator().manual_seed(1)
    made = {}
    for key, shape in shapes(D, F, layers).items():
        noise = torch.randn(shape, generator=random)
        made[key] = (
            noise * 0.1 if key.endswith("bias") else noise / math.sqrt(shape[-1]) if len(shape) > 1 else 1 + noise / 5
        )
    return made


def beside_audio(D: int) -> dict[str, torch.Tensor]:
    """What a pre-trained file holds besides the audio path."""
    return {
        "mask_emb": torch.zeros(104),
        "label_embs_concat": torch.zeros(20, 256),
        "final_proj.weight": torch.zeros(256, D),
        "final_proj.bias": torch.zeros(256),
        "feature_extractor_video.resnet.frontend3D.0.weight": torch.zeros(64, 1, 5, 7, 7),
        "feature_extractor_video.resnet.frontend3D.1.num_batches_tracked": torch.tensor(7),
        "feature_extractor_video.resnet.trunk.layer1.0.relu1.weight": torch.zeros(64),
        "feature_extractor_video.proj.weight": torch.zeros(D, 512),
        "feature_extractor_video.proj.bias": torch.zeros(D),
    }


def foreign(module: str, name: str, **attributes: object) -> object:
    """An object of a class in a module that exists only until `write` has pickled it."""
    *parents, _ = module.split(".")
    for depth in range(len(parents) + 1):
        full = ".".join(module.split(".")[: depth + 1])
        sys.modules.setdefault(full, types.ModuleType(full))
    kind = getattr(sys.modules[module], name, None) or type(name, (), {"__module__": module})
    setattr(sys.modules[module], name, kind)
    made = kind()
    made.__dict__.update(attributes)
    return made


def write(path: Path, content: dict, *, legacy: bool = False) -> Path:
    """torch.save after adding what fairseq saves around a model: configuration, dictionaries, tokeniser, optimiser."""
    task = foreign("fairseq.data.dictionary", "Dictionary", symbols=["<s>", "a"], indices={"<s>": 0}, count=[1, 2])
    sentencepiece = foreign("sentencepiece", "SentencePieceProcessor", model=bytes(range(256)))
    kind = foreign("omegaconf.base", "ContainerMetadata", ref_type=typing.Any, object_type=dict, flags=None)
    width = foreign("omegaconf.nodes", "AnyNode", _val=768, _metadata=kind)
    config = foreign("omegaconf.dictconfig", "DictConfig", _metadata=kind, _content={"encoder_embed_dim": width})
    width.__dict__["_parent"] = config  # as in omegaconf, the nodes know their parents
    around = {
        "args": Namespace(arch="av_hubert"),
        "cfg": {"model": config, "task": {"normalize": True, "element": typing.List[int]}},  # noqa: UP006 -- as pickled
        "task_state": {"dictionaries": [task], "s2s_tokenizer": sentencepiece},
        "extra_state": {"best": np.float64(1.5), "epoch": 3},
        "last_optimizer_state": {"state": {0: {"exp_avg": torch.zeros(50)}}},
    }
    torch.save(around | content, path, _use_new_zipfile_serialization=not legacy)
    for name in [name for name in sys.modules if name.split(".")[0] in {"fairseq", "omegaconf", "sentencepiece"}]:
        del sys.modules[name]
    return path


# --- networks


def stirred(net: torch.nn.Module) -> torch.nn.Module:
    """With small random numbers in the parameters that are zero: a new U-Net outputs nothing but zeros."""
    for value in net.parameters():
        if not value.any():
            torch.nn.init.normal_(value, std=0.05)
    return net


VQ_F4 = {  # of latent diffusion
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "block_out_channels": (128, 256, 512),
    "layers_per_block": 2,
    "latent_channels": 3,
    "num_vq_embeddings": 8192,
    "sample_size": 256,
}


def small_vq(*, attention: bool = False) -> VQModel:
    """VQ-f4 with few channels and codes; its latents have the size of the real one's. Attention is half of its time."""
    small = {"block_out_channels": (8, 8, 16), "layers_per_block": 1, "num_vq_embeddings": 64, "norm_num_groups": 8}
    return VQModel(**VQ_F4 | small, mid_block_add_attention=attention).eval()
