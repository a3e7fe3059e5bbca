"""What a shape costs in milliseconds on this machine: a target like "12ms".

`LatencyCost` predicts from a table of timed layers, which is measured once per machine and kept in a file. Selection
asks it thousands of times. The selected model is then timed as a whole, the prediction is corrected, and selection
runs again until the target is met (`meet_budget`).
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from ..configuration_schubert import SchuBertConfig
from ..run.checkpoint import write_json
from ..shape import Shape, with_shape
from .table import LatencyTable, Timer, make_axes, measure_table
from .timing import LatencyError, Workload, quartiles, time_models

TABLE_SECONDS, SHAPE_SECONDS = 40.0, 10.0  # no new round of passes begins after that
CALIBRATION_ROUNDS = 25
CALMER = 0.8  # the model now takes less than this share of the time it took with the table: that machine was busy


class LatencyCost:
    """Milliseconds of one forward pass of `SchuBertModel`: embeddings, encoder and pooler, in eval mode, no padding.

    It times on construction: the model itself, and the table unless the cache holds one that was not measured while
    the machine was busy. In a run of several processes only the main process makes one; the others get the same
    numbers from `LatencyTable.from_json(cost.table.to_json())`. A table belongs to a number of threads
    (`torch.set_num_threads`).

    Args:
        config: of the model before pruning; the cost of a shape with a wider layer is not known.
        batch_size, seq_len, device, dtype: see `Workload`.
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

        def clock(shapes: Sequence[Shape], rounds: int) -> list[float]:
            seconds, bar = (SHAPE_SECONDS, False) if len(shapes) <= 2 else (TABLE_SECONDS, progress)
            configs = [with_shape(config, shape) for shape in shapes]
            samples = time_models(configs, workload, rounds=rounds, seconds=seconds, progress=bar)
            return [quartiles(times)[0] for times in samples]

        self._timer = timer or clock
        self._reference = float("inf")
        conditions = _conditions(config, workload)
        root = os.environ.get("SCHUBERT_CACHE") or Path.home() / ".cache" / "schubert_hf"
        digest = hashlib.sha256(json.dumps(conditions, sort_keys=True).encode()).hexdigest()[:24]
        path = Path(cache_dir if cache_dir is not None else Path(root) / "latency") / f"{digest}.json"
        kept = _load(path, conditions)
        if kept is not None:
            self.table = kept
        if kept is None or self.calibrate(self._source) < CALMER * kept(self._source):
            self.table = measure_table(self._timer, conditions["axes"], conditions)
            self.calibrate(self._source)
            try:
                write_json(path, self.table.to_json())
            except OSError as error:
                warnings.warn(f"The table of latencies cannot be kept as `{path}`: {error}", stacklevel=2)

    def __call__(self, shape: Shape) -> float:
        """Predicted milliseconds, see `LatencyTable`; of the shape that was calibrated last, the timed ones."""
        return self.table(shape)

    def calibrate(self, shape: Shape) -> float:
        """Times a model of this shape, scales all predictions to match, and returns its milliseconds.

        The shape takes turns with the one that pruning began with, and is given at the speed at which that one ran
        when the machine was least busy: neither a table nor a plan changes because something else runs now.
        """
        shapes = list(dict.fromkeys([shape, self._source]))
        times = self._timer(shapes, CALIBRATION_ROUNDS)
        self._reference = min(self._reference, times[-1])
        milliseconds = times[0] * self._reference / times[-1]
        self.table = self.table.corrected(shape, milliseconds)
        return milliseconds


class HasShape(Protocol):
    @property
    def shape(self) -> Shape: ...


PlanT = TypeVar("PlanT", bound=HasShape)


def meet_budget(
    choose: Callable[[float], PlanT], budget: float, cost: LatencyCost, *, tolerance: float = 0.02, attempts: int = 4
) -> tuple[PlanT, float]:
    """A plan whose timed model meets a budget, and its milliseconds: chosen, timed, chosen again with the correction.

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
    return min(tried.values(), key=lambda pair: abs(pair[1] - budget))


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


def _conditions(config: SchuBertConfig, workload: Workload) -> dict[str, Any]:
    """All that a table depends on."""
    device = torch.device(workload.device or "cpu")
    return {
        **workload.to_json(),
        "accelerator": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "attention": config._attn_implementation,
        "hidden_act": config.hidden_act,
        "axes": make_axes(Shape.of(config)),
    }
