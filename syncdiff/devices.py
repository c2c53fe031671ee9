"""Devices and the precision that networks run in."""

from __future__ import annotations

import torch


def autocast(device: torch.device) -> torch.autocast:
    """Half precision where it is fast; the networks keep fp32 in and out.

    On CUDA bf16 where the chip has it (compute capability 8.0), else fp16; on a CPU bf16 where it has it natively.
    """
    if device.type == "cuda":
        return torch.autocast("cuda", torch.bfloat16 if torch.cuda.is_bf16_supported(False) else torch.float16)
    return torch.autocast("cpu", torch.bfloat16, enabled=torch.ops.mkldnn._is_mkldnn_bf16_supported())
