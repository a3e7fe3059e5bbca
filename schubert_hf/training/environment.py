"""What a number was measured with: machine, device, versions. Goes into every JSON beside the seed and the data."""

from __future__ import annotations

import os
import platform
from typing import Any

import accelerate
import torch
import transformers
from accelerate import Accelerator


def environment(accelerator: Accelerator) -> dict[str, Any]:
    """Plain JSON."""
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "device": str(accelerator.device),
        "processes": accelerator.num_processes,
        "threads": torch.get_num_threads(),
        "precision": accelerator.mixed_precision,
        "versions": {
            "python": platform.python_version(),
            **{library.__name__: library.__version__ for library in (torch, transformers, accelerate)},
        },
    }
