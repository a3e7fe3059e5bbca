"""One cell of the study: a row, a seed and a size. Made once, written to disk, found again by the next run."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device, set_seed
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from schubert_hf import PruningConfig, SchuBertPruner
from schubert_hf.conversion import load_for_pretraining
from schubert_hf.cost import BudgetError, ParameterCost
from schubert_hf.data.stream import MaskingCollator, for_stream
from schubert_hf.hub.errors import RecordError
from schubert_hf.hub.inspection import read_json
from schubert_hf.pruning.budget import find_smallest, resolve_dimensions
from schubert_hf.pruning.data import PruningData, open_data
from schubert_hf.run.checkpoint import CheckpointError, atomic_folder, write_json
from schubert_hf.run.processes import on_main_process
from schubert_hf.run.progress import quiet
from schubert_hf.run.provenance import environment, source
from schubert_hf.shape import Shape
from schubert_hf.training.evaluate import evaluate
from schubert_hf.training.objective import PretrainingObjective

from .peers import PeerError, prune_with_torch_pruning
from .plan import Plan
from .recovered import recover
from .rows import ROWS, Row


class Study:
    """Runs cells, each from what the one before it left.

    Args:
        plan: steps and sizes.
        model: the dense model, a folder or a name on the Hub.
        tokenizer: its tokenizer.
        data: training and held-out examples.
        output: where cells and models are written.
        accelerator: decides devices and processes.
        keep_models: keeps every pruned model, not only those that a later cell needs.
        command: that makes the study; a cell records it with its own row and seed.
    """

    def __init__(
        self,
        plan: Plan,
        model: str,
        tokenizer: PreTrainedTokenizerBase,
        data: tuple[Any, Any],
        output: Path,
        accelerator: Accelerator,
        *,
        keep_models: bool = False,
        command: str = "",
    ) -> None:
        self.command = command
        self.plan, self.model, self.tokenizer, self.data = plan, model, tokenizer, data
        self.output, self.accelerator, self.keep_models = output, accelerator, keep_models
        # One collator for all: held-out masks are the same in every cell.
        self.collator = MaskingCollator(tokenizer, seed=0)
        dense = self._load(model)
        self.config, self.architecture = dense.config, type(dense).__name__
        self.cost = ParameterCost(dense)
        self.parameters = int(self.cost(Shape.of(dense.config)))

    def cell_path(self, row: str, seed: int, size: int) -> Path:
        return self.output / "cells" / f"{row}-seed{seed}-{size}.json"

    def cell(self, row: str, seed: int, size: int) -> dict[str, Any] | None:
        """A finished cell. The main process looks: all must agree on what is still to be made."""
        found: dict[str, Any] | None = on_main_process(
            self.accelerator, lambda: read_cell(self.cell_path(row, seed, size))
        )
        return found

    def missing(self, rows: Sequence[str], seeds: Sequence[int]) -> list[tuple[Row, int, int]]:
        """(row, seed, stage) of the cells that are to be made, in order; what others build on comes first."""
        needed = [name for row in rows for name in (ROWS[row].shapes_of, row) if name is not None]
        order = sorted(dict.fromkeys(needed), key=lambda name: ROWS[name].kind == "scratch")
        return [
            (ROWS[name], seed, stage)
            for seed in seeds
            for name in order
            for stage, size in enumerate(self.plan.sizes)
            if self.cell(name, seed, size) is None
        ]

    def dense(self) -> dict[str, float]:
        """Held-out losses of the dense model as it is."""
        path = self.output / "dense.json"
        if (found := on_main_process(self.accelerator, lambda: read_cell(path))) is None:
            plain = self.plan.config(ROWS["dense-trained"], 0, 0, self.parameters // 2)
            found = {"losses": self._evaluate(self._load(self.model), plain), "parameters": self.parameters}
            if self.accelerator.is_main_process:
                write_json(path, found)
        losses: dict[str, float] = found["losses"]
        return losses

    def run(self, row: Row, seed: int, stage: int) -> dict[str, Any]:
        """Makes a cell, and those before it where their models are gone; returns what was written."""
        size = self.plan.sizes[stage]
        target = self.parameters * size // 100
        config = self.plan.config(row, seed, stage, target)
        began = time.monotonic()
        found: dict[str, Any] = {"row": row.name, "seed": seed, "size": size, "target": target}
        make = {"pruned": self._prune, "scratch": self._scratch, "dense": self._train_on, "peer": self._peer}[row.kind]
        model, result = make(row, seed, stage, config)
        found |= {**result, "seconds": round(time.monotonic() - began, 1), "config": asdict(config)}
        found |= {"command": f"{self.command} --methods {row.name} --seeds {seed}".strip()}
        found |= environment(self.accelerator)
        if self.accelerator.is_main_process:
            self._write(row, seed, stage, model, found)
        self.accelerator.wait_for_everyone()
        return found

    def _write(self, row: Row, seed: int, stage: int, model: PreTrainedModel | None, found: dict[str, Any]) -> None:
        """The model first: a cell that is there has what the next one begins with."""
        if model is not None:
            with atomic_folder(self._model_path(row, seed, stage)) as folder, quiet():
                model.save_pretrained(folder)
        path = self.cell_path(row.name, seed, self.plan.sizes[stage])
        write_json(path, found)
        if not self.keep_models:
            last = stage == len(self.plan.sizes) - 1
            for done in range(stage + 1 if last else stage):
                shutil.rmtree(self._model_path(row, seed, done), ignore_errors=True)

    def _prune(
        self, row: Row, seed: int, stage: int, config: PruningConfig
    ) -> tuple[PreTrainedModel | None, dict[str, Any]]:
        before = self._previous(row, seed, stage)
        if before is None:
            return None, self._unreachable_before(row, seed, stage)
        if self.cost(Shape.of(before.config)) <= int(config.target):  # whole layers overshoot
            return self._only_train(before, config)
        train, held_out = self.data
        try:
            pruner = SchuBertPruner(
                before,
                config,
                train_dataset=train,
                eval_dataset=held_out,
                data_collator=self.collator,
                accelerator=self.accelerator,
            )
            result = pruner.prune()
        except BudgetError as error:
            return None, {"unreachable": str(error), "smallest": self._smallest(before, config)}
        record = result.rounds[0]
        losses = {"before": record.before, "after_cut": record.after_cut, "after_recovery": record.after_recovery}
        return result.model, {**self._size(result.model), **losses, "phases": record.seconds}

    def _peer(
        self, row: Row, seed: int, stage: int, config: PruningConfig
    ) -> tuple[PreTrainedModel | None, dict[str, Any]]:
        before = self._previous(row, seed, stage)
        if before is None:
            return None, self._unreachable_before(row, seed, stage)
        data = self._open(before, config)
        config = data.resolve(config, before)
        collate, device = for_stream(data.collator), self.accelerator.device
        batches = [
            send_to_device(collate([data.stream[n] for n in range(start, start + config.batch_size)]), device)
            for start in range(0, config.calibration_size, config.batch_size)
        ]
        limit = int(config.target)
        try:
            model = prune_with_torch_pruning(
                before.to(device), batches, row.settings["importance"], lambda shape: self.cost(shape) <= limit
            )
        except PeerError as error:
            return None, {"unreachable": str(error)}
        return self._only_train(model, config)

    def _scratch(
        self, row: Row, seed: int, stage: int, config: PruningConfig
    ) -> tuple[PreTrainedModel | None, dict[str, Any]]:
        shapes = self.cell(str(row.shapes_of), seed, self.plan.sizes[stage])
        if shapes is None or "shape" not in shapes:
            return None, {"unreachable": f"{row.shapes_of} has no shape of this size"}
        set_seed(config.seed)
        fresh = type(self.config).from_dict(
            self.config.to_dict() | _scalars_unset() | Shape.from_json(shapes["shape"]).fields()
        )
        model = type(self._load(self.model))(fresh)
        before = self._evaluate(model, config)
        for earlier in range(stage + 1):  # as many steps, on the same examples, as the pruned model has seen
            self._train(model, self.plan.config(row, seed, earlier, int(config.target)))
        return None, {**self._size(model), "after_cut": before, "after_recovery": self._evaluate(model, config)}

    def _train_on(
        self, row: Row, seed: int, stage: int, config: PruningConfig
    ) -> tuple[PreTrainedModel | None, dict[str, Any]]:
        model = self._previous(row, seed, stage)
        if model is None:
            raise RuntimeError("the dense model cannot be missing")
        return self._only_train(model, config)

    def _only_train(
        self, model: PreTrainedModel, config: PruningConfig
    ) -> tuple[PreTrainedModel | None, dict[str, Any]]:
        before = self._evaluate(model, config)
        self._train(model, config)
        return model, {**self._size(model), "after_cut": before, "after_recovery": self._evaluate(model, config)}

    def _previous(self, row: Row, seed: int, stage: int) -> PreTrainedModel | None:
        """The model of the size before; made again where its folder is gone. None where that size was unreachable."""
        if stage == 0:
            return self._load(self.model)
        path = self._model_path(row, seed, stage - 1)
        cell = self.cell(row.name, seed, self.plan.sizes[stage - 1])
        if cell is None or ("unreachable" not in cell and not path.exists()):
            cell = self.run(row, seed, stage - 1)
        return None if "unreachable" in cell else self._load(str(path))

    def _train(self, model: PreTrainedModel, config: PruningConfig) -> PreTrainedModel:
        objective = PretrainingObjective(model.to(self.accelerator.device))
        data = self._open(model, config)
        recover(self.accelerator, objective, data, config)
        return model

    def _evaluate(self, model: PreTrainedModel, config: PruningConfig) -> dict[str, float]:
        data = self._open(model, config)
        return evaluate(
            self.accelerator,
            PretrainingObjective(model),
            data.eval_stream,
            data.eval_collator,
            batch_size=config.batch_size,
            examples=config.eval_examples,
        )

    def _open(self, model: PreTrainedModel, config: PruningConfig) -> PruningData:
        train, held_out = self.data
        objective = PretrainingObjective(model)
        return open_data(
            train, held_out, self.collator, tokenizer=self.tokenizer, objective=objective, seed=config.seed
        )

    def _unreachable_before(self, row: Row, seed: int, stage: int) -> dict[str, Any]:
        earlier = self.cell(row.name, seed, self.plan.sizes[stage - 1]) or {}
        smallest = {"smallest": earlier["smallest"]} if "smallest" in earlier else {}
        return {"unreachable": "a larger size was not reachable", **smallest}

    def _smallest(self, model: PreTrainedModel, config: PruningConfig) -> int:
        """Parameters when all goes that may; of layers that may go, the one that costs most stays."""
        _, smallest = find_smallest(resolve_dimensions(config.resolve(), model), model, self.cost)
        return int(self.cost(smallest))

    def _size(self, model: PreTrainedModel) -> dict[str, Any]:
        shape = Shape.of(model.config)
        return {"parameters": int(self.cost(shape)), "shape": asdict(shape)}

    def _model_path(self, row: Row, seed: int, stage: int) -> Path:
        return self.output / "models" / f"{row.name}-seed{seed}-{self.plan.sizes[stage]}"

    def _load(self, name: str) -> PreTrainedModel:
        with quiet():
            return load_for_pretraining(name, dtype=torch.float32)


def read_cell(path: Path) -> dict[str, Any] | None:
    """What a file of the study holds; None where there is none, or a damaged one: it is made again."""
    try:
        return read_json(path)
    except (RecordError, UnicodeDecodeError):
        return None


def settings_of(arguments: Any, names: Sequence[str], files: Sequence[str]) -> dict[str, Any]:
    """What decides a cell beside its name: arguments, and files by name and hash where they are given."""
    known = {name: getattr(arguments, name) for name in names}
    return known | {name: source(value) for name in files if (value := getattr(arguments, name))}


def finished(path: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """A cell that is there.

    Raises:
        CheckpointError: it was made with other settings.
    """
    cell = read_cell(path)
    if cell is not None and cell["settings"] != settings:
        other = [name for name in settings if cell["settings"].get(name) != settings[name]]
        raise CheckpointError(f"`{path}` was made with another `{'`, `'.join(other)}`. Give another `--output-dir`.")
    return cell


def _scalars_unset() -> dict[str, None]:
    return dict.fromkeys(("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"))
