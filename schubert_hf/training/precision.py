"""What training multiplies in: bfloat16 on a CPU that makes such products by itself, twice to three times as fast."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

NATIVE = ("avx512_bf16", "amx_bf16")  # instructions, as PyTorch names them


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device is a CPU that multiplies bfloat16 by itself."""
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
    return any(known.get(name) for name in NATIVE)


@contextlib.contextmanager
def bfloat16_on_cpu(enabled: bool) -> Iterator[None]:
    """Inside it a CPU's matrix products are in bfloat16, those of attention excepted; weights and sums in float32."""
    if not enabled:
        yield
        return
    with torch.autocast("cpu", torch.bfloat16), _AttentionInFloat32():
        yield


class _AttentionInFloat32(TorchFunctionMode):
    """Attention outside of autocast: PyTorch's kernel takes two to four times as long for its gradient in bfloat16."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        with torch.autocast("cpu", enabled=False):
            found = func(*map(_widen, args), **{name: _widen(value) for name, value in (kwargs or {}).items()})
        return found.to(args[0].dtype)


def _widen(value: Any) -> Any:
    return value.float() if isinstance(value, torch.Tensor) and value.dtype == torch.bfloat16 else value
