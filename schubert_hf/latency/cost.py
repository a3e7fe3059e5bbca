"""What a shape costs in milliseconds on this machine: a target like "12ms".

`LatencyCost` predicts from a table of timed layers, which is measured once per machine and kept in a file. Selection
asks it thousands of times; what it chose is then timed as a whole, the prediction corrected, and chosen anew, until
what was asked for is met (`meet_budget`).
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from ..configuration_schubert import SchuBertConfig
from ..run.provenance import machine, versions
from ..shape import Shape
from .table import LatencyTable, Timer, make_axes, measure_table
from .timing import LatencyError, Workload, time_shapes

TABLE_SECONDS, SHAPE_SECONDS = 40.0, 10.0  # no new round of passes begins after that
CALIBRATION_ROUNDS = 25
CALMER = 0.8  # the model now takes less than this share of the time it took with the table: that machine was busy


class LatencyCost:
    """Milliseconds of one forward pass of `SchuBertModel`: embeddings, encoder and pooler, in eval mode, no padding.

    It times on construction: the model itself, and the table unless that is in the cache and was not measured
    while the machine was busy. So in a run of several
    processes the main process alone makes one, while the others wait; it sends them `table.to_json()`, and
    `LatencyTable.from_json` of that is a cost that gives the same numbers. A table belongs to the number of threads
    that this process has (`torch.set_num_threads`).

    Args:
        config: that pruning begins with; costs are known of shapes that are in no layer wider than its widest.
        batch_size: sequences.
        seq_len: tokens per sequence.
        device: where it is timed; None is "cuda" where there is one, else "cpu".
        dtype: of the weights.
        cache_dir: where tables are kept; None is `$SCHUBERT_CACHE/latency` or ~/.cache/schubert_hf/latency.
        progress: show a bar while the table is measured.
        timer: gives the milliseconds of shapes, instead of the clock.

    Raises:
        LatencyError: `batch_size` is below 1, or `seq_len` is, or beyond the model's positions.
    """

    unit = "ms"

    def __init__(
        self,
        config: SchuBertConfig,
        *,
        batch_size: int = 1,
        seq_len: int = 128,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
        cache_dir: str | Path | None = None,
        progress: bool = False,
        timer: Timer | None = None,
    ) -> None:
        workload = Workload(batch_size, seq_len, device, dtype)
        workload.inputs(config)  # complains before any work
        self._source = Shape.of(config)

        def clock(shapes: Any, rounds: int) -> list[float]:
            seconds, bar = (SHAPE_SECONDS, False) if len(shapes) <= 2 else (TABLE_SECONDS, progress)
            return time_shapes(config, shapes, workload, rounds=rounds, seconds=seconds, progress=bar)

        self._timer = timer or clock
        self._reference = float("inf")
        conditions = _conditions(config, workload)
        path = _cache_folder(cache_dir) / f"{_digest(conditions)}.json"
        kept = _load(path, conditions)
        if kept is not None:
            self.table = kept
        if kept is None or self.calibrate(self._source) < CALMER * kept(self._source):
            self.table = measure_table(self._timer, conditions["axes"], conditions)
            self.calibrate(self._source)
            _save(path, self.table)

    def __call__(self, shape: Shape) -> float:
        """Predicted milliseconds; of the shape that was calibrated last, the timed ones.

        Raises:
            LatencyError: a layer is wider than the table.
        """
        return self.table(shape)

    def calibrate(self, shape: Shape) -> float:
        """Times a model of this shape and scales all predictions, so that this one is right.

        The shape takes turns with the one that pruning began with, and is given at the speed at which that one ran
        when the machine was least busy: neither a table nor a plan changes because something else runs now.

        Returns:
            Its milliseconds.
        """
        shapes = list(dict.fromkeys([shape, self._source]))
        times = self._timer(shapes, CALIBRATION_ROUNDS)
        self._reference = min(self._reference, times[-1])
        milliseconds = times[0] * self._reference / times[-1]
        self.correct(shape, milliseconds)
        return milliseconds

    def correct(self, shape: Shape, milliseconds: float) -> None:
        """Scales all predictions, so that this shape's is as given."""
        self.table = self.table.corrected(shape, milliseconds)


class HasShape(Protocol):
    @property
    def shape(self) -> Shape: ...


PlanT = TypeVar("PlanT", bound=HasShape)


def meet_budget(
    choose: Callable[[float], PlanT], budget: float, cost: LatencyCost, *, tolerance: float = 0.02, attempts: int = 4
) -> PlanT:
    """A plan whose timed model meets a budget: chosen, timed, and chosen anew with the corrected prediction.

    Afterwards `cost` gives the timed milliseconds for the plan's shape.

    Args:
        choose: makes a plan for a budget, asking `cost`.
        budget: in milliseconds.
        cost: is calibrated at the shapes that are tried.
        tolerance: share of the budget that a plan may be off.
        attempts: plans at most; the nearest is taken if none is within the tolerance.

    Raises:
        BudgetError: `choose` does, where the timed model shows that the budget is out of reach.
    """
    tried: dict[Shape, tuple[PlanT, float]] = {}
    for _ in range(attempts):
        plan = choose(budget)
        if plan.shape in tried:  # steps are coarse: there is nothing between this plan and the next
            break
        tried[plan.shape] = plan, cost.calibrate(plan.shape)
        if abs(tried[plan.shape][1] / budget - 1) <= tolerance:
            break
    plan, milliseconds = min(tried.values(), key=lambda pair: abs(pair[1] - budget))
    cost.correct(plan.shape, milliseconds)
    return plan


def _load(path: Path, conditions: dict[str, Any]) -> LatencyTable | None:
    """The table in a file; None if there is none, and with a warning if it is not one of these conditions."""
    try:
        table = LatencyTable.from_json(json.loads(path.read_text(encoding="utf-8")))
        if table.conditions == conditions:
            return table
        raise LatencyError("It was measured under other conditions.")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        warnings.warn(f"`{path}` cannot be used and is measured anew. {error}", stacklevel=3)
        return None


def _save(path: Path, table: LatencyTable) -> None:
    """Writes beside `path` and renames: another process reads all of it or nothing. Without a cache it works too."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as stream:
            stream.write(json.dumps(table.to_json()) + "\n")
        Path(stream.name).replace(path)
    except OSError as error:
        warnings.warn(f"The table of latencies cannot be kept as `{path}`: {error}", stacklevel=3)


def _digest(conditions: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(conditions, sort_keys=True).encode()).hexdigest()[:24]


def _conditions(config: SchuBertConfig, workload: Workload) -> dict[str, Any]:
    """All that a table depends on."""
    device = torch.device(workload.device or "cpu")
    return {
        **workload.to_json(),
        "accelerator": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "machine": machine(),
        "versions": {name: version for name, version in versions().items() if name in ("torch", "transformers")},
        "attention": config._attn_implementation,
        "hidden_act": config.hidden_act,
        "axes": make_axes(Shape.of(config)),
    }


def _cache_folder(cache_dir: str | Path | None) -> Path:
    if cache_dir is not None:
        return Path(cache_dir)
    root = os.environ.get("SCHUBERT_CACHE")
    return (Path(root) if root else Path.home() / ".cache" / "schubert_hf") / "latency"
