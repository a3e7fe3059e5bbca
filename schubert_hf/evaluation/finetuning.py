"""Fine-tuning: trains on a task, evaluates as it goes, and keeps the best model."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from safetensors import SafetensorError
from transformers import PreTrainedTokenizerBase

from ..data.stream import Collator, ExampleStream
from ..run.checkpoint import (
    CheckpointError,
    atomic_folder,
    check_settings,
    list_checkpoints,
    load_state,
    save_model,
    write_json,
)
from ..run.output import FINETUNING_RECORD, MARKER, check_output_folder, result_files
from ..run.session import CHECKPOINTS
from ..training.evaluated import EvaluatedTraining, step_name
from .finetuning_config import FinetuningConfig
from .objectives import TaskObjective

BEST = "best"
Metrics = dict[str, dict[str, float]]  # by split, the main split first, its main metric first


@dataclass(frozen=True)
class FinetuningResult:
    """What a fine-tuning leaves beside the model."""

    metrics: Metrics  # of the best model
    best_step: int  # after which step that was
    steps: int  # all that were taken
    evaluations: list[dict[str, Any]] = field(default_factory=list)  # `step`, `train_loss` since the last, `metrics`
    seconds: float = 0.0  # of training and evaluation, without interruptions
    halved: bool = False  # whether it ended at half the learning rate, after a loss that was not finite


class Finetuning(EvaluatedTraining):
    """One run, from one checkpoint, with one seed.

    Args:
        accelerator: as `accelerate launch` configured it.
        objective: with the model, and its head.
        tokenizer: saved with it.
        train: encoded examples.
        collator: makes batches of them.
        config: how it is trained.
        seed: of order and dropout.
        evaluate: the metrics of the model as it is; called on every process. The first is what models are chosen by:
            the larger the better, of equal ones the earlier.
        output: folder for the best model; its `checkpoints` for the checkpoints.
        settings: those that a resumed run must share with the one that it continues; plain JSON.
        base_model: what the model's page says of the checkpoint that was fine-tuned.

    Raises:
        LoopConfigError: the settings do not fit the number of processes.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        objective: TaskObjective,
        tokenizer: PreTrainedTokenizerBase,
        train: Any,
        collator: Collator,
        config: FinetuningConfig,
        *,
        seed: int,
        evaluate: Callable[[], Metrics],
        output: Path,
        settings: dict[str, Any],
        base_model: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            accelerator,
            objective,
            ExampleStream(train, seed=seed),
            collator,
            config.loop(len(train), seed),
            output=output,
            settings={**settings, "seed": seed},
            eval_steps=config.eval_steps or config.steps_per_epoch(len(train)),
            save_steps=config.save_steps,
            keep=config.keep_checkpoints,
        )
        self.tokenizer, self.evaluate, self.base_model = tokenizer, evaluate, base_model or {}

    def run(self, *, resume: bool = False) -> FinetuningResult:
        """Trains to the end; `output` then holds the best model, and the result as `finetuning.json`.

        See `EvaluatedTraining.train`; a signal in the last step leaves the model, too.

        Raises:
            OutputFolderError: `output` already holds a model.
        """
        check_output_folder(self.output)
        guard = self.session.guard
        with self.session.running(), guard.deferred():
            self.train("fine-tuning", self.output.name, resume=resume)
            result = self._finish()
            guard.check()  # a signal in the last step ends what would come after this run
        return result

    def evaluate_now(self, means: dict[str, float]) -> dict[str, Any]:
        self._forget_weights()
        record = {"train_loss": means["loss"], "metrics": self.evaluate()}
        if all(_rank(record) > _rank(earlier) for earlier in self.evaluations):  # of equal ones the first stays
            self._keep_best()
        return record

    def _keep_best(self) -> None:
        """Before a checkpoint records it, and beside the best so far, which an earlier checkpoint may need."""
        if self.accelerator.is_main_process:
            try:
                with atomic_folder(self._weights(self.loop.step)) as folder:
                    save_model(folder, self.model, self.tokenizer)
            except (OSError, SafetensorError) as error:
                raise CheckpointError(
                    f"The best weights cannot be written below `{self.output}`: {error}. The checkpoints are whole: "
                    "make room and resume."
                ) from error
        self.accelerator.wait_for_everyone()

    def _weights(self, step: int) -> Path:
        return self.output / BEST / step_name(step)

    def _forget_weights(self) -> None:
        """Removes weights that no checkpoint's evaluations call the best."""
        if self.accelerator.is_main_process:
            states = map(load_state, list_checkpoints(self.output / CHECKPOINTS))
            histories = [state["history"]["evaluations"] for state in states]
            best = {self._weights(_best(evaluations)["step"]) for evaluations in histories if evaluations}
            for folder in set((self.output / BEST).glob("step-*")) - best:
                shutil.rmtree(folder)

    def _finish(self) -> FinetuningResult:
        best = _best(self.evaluations)
        result = FinetuningResult(
            metrics=best["metrics"],
            best_step=best["step"],
            steps=self.loop.step,
            evaluations=self.evaluations,
            seconds=round(self.seconds, 1),
            halved=bool(self.phases.halved),
        )
        if self.accelerator.is_main_process:
            with result_files(self.output) as folder:
                shutil.copytree(self._weights(best["step"]), folder, dirs_exist_ok=True)
                record = {"settings": self.session.settings, "base_model": self.base_model, **asdict(result)}
                write_json(folder / FINETUNING_RECORD, record)
            for leftover in (BEST, CHECKPOINTS):  # the optimizer's state is twice the model, and of no use any more
                shutil.rmtree(self.output / leftover, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        return result


def _best(evaluations: list[dict[str, Any]]) -> dict[str, Any]:
    return max(evaluations, key=_rank)  # of equal ones the first


def _rank(evaluation: dict[str, Any]) -> float:
    """What models are chosen by: the first metric of the first split; what is no number comes last."""
    value: float = next(iter(next(iter(evaluation["metrics"].values())).values()))
    return -math.inf if math.isnan(value) else value


def finished(output: Path, settings: dict[str, Any]) -> FinetuningResult | None:
    """The result of a finished run in `output`; None where there is none.

    Args:
        output: its folder.
        settings: those of now; of the recorded ones, what is in both must be the same.

    Raises:
        CheckpointError: it had other settings, or its record cannot be read.
    """
    if not (output / MARKER).exists():
        return None
    try:
        record = json.loads((output / FINETUNING_RECORD).read_text(encoding="utf-8"))
        before, _ = record.pop("settings"), record.pop("base_model", None)
        result = FinetuningResult(**record)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"`{output}` holds a model and no record of its fine-tuning: {error}. Give another output folder."
        ) from error
    check_settings(before, settings, output)
    return result
