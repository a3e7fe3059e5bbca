"""Is an export the model that it was made from? Its outputs next to PyTorch's, on batches of other shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .batches import Batch
from .errors import ExportError
from .formats import Run
from .subject import Subject

# Of the largest output. Kernels that add in another order differ by up to 1e-4 after a dozen layers.
BOUND = 5e-4


@dataclass(frozen=True)
class Check:
    """How far an export is from PyTorch.

    Attributes:
        difference: the largest between any two outputs, absolute.
        largest: PyTorch's largest output, absolute.
        batches: how many were compared.
    """

    difference: float
    largest: float
    batches: int

    @property
    def bound(self) -> float:
        """What `difference` may be."""
        return BOUND * max(1.0, self.largest)


@torch.no_grad()
def check(name: str, subject: Subject, run: Run, batches: Sequence[Batch]) -> Check:
    """Compares an export with the model.

    Raises:
        ExportError: outputs are missing, of another shape, or further from PyTorch's than the bound.
    """
    difference = largest = 0.0
    for batch in batches:
        wanted, found = subject.function(**batch), run(batch)
        shapes = [{output: tuple(x.shape) for output, x in one.items()} for one in (wanted, found)]
        if shapes[0] != shapes[1]:
            raise ExportError(
                f"The export `{name}` gives {shapes[1]} where PyTorch gives {shapes[0]}. Nothing is kept."
            )
        distances = [float((found[output] - x).abs().max()) for output, x in wanted.items()]
        difference = max([difference, *(x if x == x else float("inf") for x in distances)])  # NaN is no small number
        largest = max(largest, *(float(x.abs().max()) for x in wanted.values()))
    made = Check(difference, largest, len(batches))
    if not made.difference <= made.bound:
        raise ExportError(
            f"The export `{name}` differs from PyTorch by {made.difference:.2g}, allowed is {made.bound:.2g}. Nothing "
            "is kept. Try other versions of the packages: constraints.txt of schubert_hf has those that it is tested "
            "with."
        )
    return made
