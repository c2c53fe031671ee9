"""Parts of every training loop: processes, a moving average, and a run with its log and resumable state."""

from __future__ import annotations

import copy
import csv
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from torch import nn

from syncdiff.devices import best_device, half_type
from syncdiff.weights import load_strictly, read_tensors

Net = TypeVar("Net", bound=nn.Module)


def accelerator_for(*handlers: Any, **options: Any) -> Accelerator:
    """An Accelerator in half precision where that is fast; processes wait up to three hours for the main one.

    Args:
        handlers: accelerate's own, beside that of the timeout.
        options: further arguments of Accelerator.
    """
    half = {torch.bfloat16: "bf16", torch.float16: "fp16", None: "no"}[half_type(best_device())]
    timeout = InitProcessGroupKwargs(timeout=timedelta(hours=3))
    return Accelerator(mixed_precision=half, kwargs_handlers=[*handlers, timeout], **options)


class Average(Generic[Net]):
    """Exponential moving average of a network's weights: after update n the decay is min(decay, n / (n + 10)).

    `module` is a copy in eval mode; frozen parameters are shared with the network that is trained.
    """

    def __init__(self, network: Net, decay: float) -> None:
        frozen = {id(p): p for p in network.parameters() if not p.requires_grad}
        self._frozen = {name for name, p in network.named_parameters(remove_duplicate=False) if not p.requires_grad}
        self.decay, self.module = decay, copy.deepcopy(network, dict(frozen)).eval()
        self.learned = [p.requires_grad_(False) for p in self.module.parameters() if id(p) not in frozen]

    @torch.no_grad()
    def step(self, network: nn.Module, update: int) -> None:
        """Average in the network's weights and running statistics after update `update` (1, 2, ...)."""
        share = 1 - min(self.decay, update / (update + 10))
        torch._foreach_lerp_(self.learned, [p for p in network.parameters() if p.requires_grad], share)
        for average, new in zip(self.module.buffers(), network.buffers(), strict=True):
            average.lerp_(new, share) if average.is_floating_point() else average.copy_(new)

    def state_dict(self) -> dict[str, Any]:
        """Without what is frozen."""
        return {name: value for name, value in self.module.state_dict().items() if name not in self._frozen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what `state_dict` returned; what is frozen stays."""
        rest = {name: value for name, value in self.module.state_dict().items() if name in self._frozen}
        self.module.load_state_dict(rest | state)


class Run:
    """A training run in a folder: it counts updates and samples, keeps the time, logs, and saves its state.

    FOLDER/state.pt has the state of every part, `update`, `samples` and `elapsed` (seconds, earlier parts of the run
    included). FOLDER/log.csv has a line every `every` updates: the means of the terms since the line before.

    Args:
        parts: objects with state_dict and load_state_dict, by their keys in the state.
    """

    def __init__(self, folder: Path, parts: dict[str, Any], every: int = 50) -> None:
        self.folder, self.parts, self.every = folder, parts, every
        self.update, self.samples, self.began = 0, 0, time.time()
        self._sums: dict[str, float] = {}
        self._counted = 0
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def seconds(self) -> float:
        """Training time so far, resumed parts included."""
        return time.time() - self.began

    def resume(self) -> dict[str, Any]:
        """Restore every part from FOLDER/state.pt; returns the whole state, empty where there is none.

        Raises CheckpointError for a damaged state and for one of other networks.
        """
        path = self.folder / "state.pt"
        if not path.exists():
            return {}
        state = read_tensors(path)
        for name, part in self.parts.items():
            if isinstance(part, nn.Module):
                load_strictly(part, state[name], path)
            else:
                part.load_state_dict(state[name])
        self.update, self.samples, self.began = state["update"], state["samples"], time.time() - state["elapsed"]
        return state

    def save(self, **more: Any) -> None:
        """Write FOLDER/state.pt, whole or not at all."""
        counted = {"update": self.update, "samples": self.samples, "elapsed": self.seconds}
        state = {name: part.state_dict() for name, part in self.parts.items()} | counted | more
        torch.save(state, self.folder / "state.partial.pt")
        (self.folder / "state.partial.pt").replace(self.folder / "state.pt")

    def step(self, samples: int, terms: dict[str, float], *, log: bool = True) -> dict[str, float] | None:
        """Count one update; returns the line that was logged after it, if one was.

        Args:
            log: False in all but one of several processes.
        """
        self.update, self.samples, self._counted = self.update + 1, self.samples + samples, self._counted + 1
        self._sums = {name: self._sums.get(name, 0.0) + value for name, value in terms.items()}
        if self.update % self.every:
            return None
        means = {name: round(value / self._counted, 5) for name, value in self._sums.items()}
        line = {"update": self.update, "samples": self.samples, **means, "seconds": round(self.seconds)}
        self._sums, self._counted = {}, 0
        if log:
            print(line, flush=True)
            write_line(self.folder / "log.csv", line)
        return line


def write_line(path: Path, line: dict[str, Any]) -> None:
    """Append a line to a CSV file, after the header in a new one."""
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, line)
        if file.tell() == 0:
            writer.writeheader()
        writer.writerow(line)
