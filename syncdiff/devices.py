"""Devices, precision, threads and memory of this process."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

CGROUP = Path("/sys/fs/cgroup")


def half_type(device: torch.device) -> torch.dtype | None:
    """The half precision that is faster than fp32 on a device, or None.

    On CUDA bf16 where the chip has it (compute capability 8.0), else fp16. On a CPU bf16 where it has instructions for
    it: emulated, it would be slower than fp32.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(False) else torch.float16
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # an older torch has no such list: fp32
    return torch.bfloat16 if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else None


def autocast(device: torch.device) -> torch.autocast:
    """Autocast to `half_type`, off where there is none."""
    half = half_type(device)
    return torch.autocast("cuda" if device.type == "cuda" else "cpu", half or torch.bfloat16, enabled=half is not None)


def best_device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def usable_cores(cgroup: Path = CGROUP) -> int:
    """Cores that this process may use: by its affinity, and by the quota of its control group, rounded up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if (limits := _quota(cgroup)) is None:
        return cores
    quota, period = limits
    return max(1, min(cores, -(-quota // period)))


def _quota(cgroup: Path) -> tuple[int, int] | None:
    """CPU time per period, and the period, us, from cgroup v2 or v1; None where there is no limit."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota, period = (
                (cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period")
            )
        except OSError:
            return None
    return (int(quota), int(period)) if quota not in ("max", "-1") else None


def limit_threads() -> None:
    """Limit torch to as many threads as there are usable cores: more would wait for each other."""
    if torch.get_num_threads() > usable_cores():
        torch.set_num_threads(usable_cores())


def free_memory() -> None:
    """Return freed memory to the system: glibc keeps it, and that of all stages would add up."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def peak_memory_mib() -> float:
    """Peak resident memory of this process since it started, MiB."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20, 1)
