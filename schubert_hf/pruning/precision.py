"""Double precision where it can be had: sums and solutions on the CPU, products where the data is.

Not every device has float64: Apple's MPS has none. So no tensor of that type is made anywhere but on the CPU, and a
reduction over processes gets one only where the processes can sum it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

Batch = Mapping[str, Tensor]
Reduce = Callable[[Tensor], Tensor]  # the sum of a tensor over all processes


def exact(tensor: Tensor) -> Tensor:
    """In double precision, on the CPU."""
    return tensor.detach().cpu().double()


def widen(tensor: Tensor) -> Tensor:
    """For products of activations: in double precision on the CPU, in single precision elsewhere."""
    return tensor.double() if tensor.device.type == "cpu" else tensor.float()


def summed(tensor: Tensor, reduce: Reduce | None) -> Tensor:
    """The sum of what all processes hold, as `exact` gives it.

    Without `reduce` there is one process, whose tensor is the sum.
    """
    return exact(tensor if reduce is None else reduce(tensor))
