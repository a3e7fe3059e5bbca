"""The folder of a run: its checkpoints, and a result for every target. Written by the main process, read by all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..run.checkpoint import newest_checkpoint, write_json
from ..run.output import MARKER, PRUNING_RECORD, check_output_folder, result_files
from ..run.processes import on_main_process
from ..run.progress import quiet
from .checkpoint import Progress, Resumed, check_not_begun, load_progress, save_progress
from .result import PruningResult

CHECKPOINTS = "checkpoints"


class RunFolder:
    """Reads and writes what a run leaves on disk; without a folder nothing.

    Args:
        output: the folder; None: no folder.
        results: the folders of the results, one per target; see `result_folders`.
        accelerator: of the run; every process must call.
        settings: gives what the run depends on, as JSON by name.
        keep: how many checkpoints stay; None: all.

    Raises:
        OutputFolderError: the folder already holds a finished model, or cannot be written.
    """

    def __init__(
        self,
        output: Path | None,
        results: Sequence[Path],
        accelerator: Accelerator,
        settings: Callable[[], dict[str, Any]],
        keep: int | None,
    ) -> None:
        self.output, self.results = output, tuple(results)
        self.accelerator, self.settings, self.keep = accelerator, settings, keep
        if output is not None:
            check_output_folder(output)
            _check_no_model(self.results[-1])

    def open(self, model: PreTrainedModel, *, resume: bool) -> Resumed | None:
        """What to go on from; None for a run from the beginning.

        Args:
            model: that the run begins with.
            resume: go on with what lies there, if anything does.

        Raises:
            CheckpointError: checkpoints lie there and `resume` is off, or they belong to another run.
            OutputFolderError: one of several results lies there and `resume` is off.
        """
        if self.output is None:
            return None
        folder = self.output / CHECKPOINTS
        if not resume:
            check_not_begun(folder)
            for result in self.results:
                _check_no_model(result)
            return None

        def find() -> str | None:
            newest = newest_checkpoint(folder)
            return None if newest is None else newest.name

        name = on_main_process(self.accelerator, find)
        if name is None:
            return None
        resumed, scaler = load_progress(folder / name, model, self.settings())
        if scaler and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(scaler)
        return resumed

    def save(self, model: PreTrainedModel, progress: Progress, tensors: dict[str, Tensor] | None = None) -> None:
        """Writes a checkpoint; see `save_progress`."""
        if self.output is None:
            return
        if self.accelerator.is_main_process:
            scaler = self.accelerator.scaler
            save_progress(
                self.output / CHECKPOINTS,
                model,
                progress,
                self.settings(),
                tensors=tensors,
                scaler=None if scaler is None else scaler.state_dict(),
                keep=self.keep,
            )
        self.accelerator.wait_for_everyone()

    def save_result(self, result: PruningResult, tokenizer: PreTrainedTokenizerBase | None) -> bool:
        """Writes a result into its folder, unless it is there already; tells whether it was written now."""
        folder = result.output_dir
        if folder is None or not self.accelerator.is_main_process or (folder / MARKER).exists():
            return False
        check_output_folder(folder)
        with result_files(folder) as files, quiet():
            result.model.save_pretrained(files)
            if tokenizer is not None:
                tokenizer.save_pretrained(files)
            write_json(files / PRUNING_RECORD, result.to_json())
        return True


def _check_no_model(folder: Path) -> None:
    if folder.exists():  # it would be made
        check_output_folder(folder)


def result_folders(output: Path | None, targets: Sequence[str | float]) -> list[Path]:
    """Where each target's result goes: the folder itself for one; for several, a folder in it named by the target."""
    if output is None:
        return []
    if len(targets) == 1:
        return [output]
    return [output / str(target).replace("%", "pct") for target in targets]
