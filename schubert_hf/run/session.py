"""A session: what a long run needs so that it can be stopped at any instant and resumed as if it had never stopped.

Random numbers and learning rates are functions of seed and step, so no generator has to be saved.
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .checkpoint import CheckpointError, check_settings, load_optimizer, load_state, newest_checkpoint, save_checkpoint
from .interrupt import InterruptGuard
from .output import only_writer
from .processes import on_main_process
from .provenance import versions

logger = logging.getLogger(__name__)
CHECKPOINTS = "checkpoints"


class Part:
    """State of a run that its checkpoints hold; called on every process, written by the main one."""

    def state(self) -> dict[str, Any]:
        """Plain JSON."""
        raise NotImplementedError

    def tensors(self) -> dict[str, Tensor]:
        """What JSON cannot hold, by name."""
        return {}

    def load_state(self, state: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Continues from what `state` and `tensors` gave."""
        raise NotImplementedError


class Session:
    """Saves and resumes one run: a model and some parts.

    Args:
        accelerator: of the run. Every process must call every method.
        folder: of the checkpoints; None: the run cannot be resumed.
        parts: the state of the run by name; more may be added.
        settings: those that a resumed run must share with the one that it continues; plain JSON.
        name: gives a checkpoint's name; later ones must sort after earlier ones.
        keep: how many checkpoints stay; None: all.
        tokenizer: saved beside the weights.

    Attributes:
        model: as it is now; its owner sets it.
    """

    model: PreTrainedModel

    def __init__(
        self,
        accelerator: Accelerator,
        folder: Path | None,
        parts: dict[str, Part],
        *,
        settings: Mapping[str, Any],
        name: Callable[[], str],
        keep: int | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> None:
        self.accelerator, self.folder, self.parts = accelerator, folder, parts
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))
        self.name, self.keep, self.tokenizer = name, keep, tokenizer
        self.guard = InterruptGuard(accelerator, at_once=True)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Within the block signals stop the run cleanly, and it alone writes to the folder that its own is in.

        Raises:
            OutputFolderError: another run writes to it.
        """
        with contextlib.ExitStack() as stack:
            if self.folder is not None:
                own = only_writer(self.folder.parent)
                on_main_process(self.accelerator, lambda: stack.enter_context(own))
            stack.enter_context(self.guard)
            yield

    def open(self, *, resume: bool) -> Path | None:
        """Loads the parts from the newest whole checkpoint.

        Args:
            resume: continue from it, or begin where there is none.

        Returns:
            The checkpoint, whose weights are for the caller to load; None for a new run.

        Raises:
            CheckpointError: there are checkpoints and `resume` is off, or they belong to another run.
        """
        checkpoint = find_checkpoint(self.accelerator, self.folder, resume=resume) if self.folder else None
        if checkpoint is None:
            return None
        state, tensors = load_state(checkpoint), load_optimizer(checkpoint)
        try:
            check_settings(state["settings"], self.settings, checkpoint)
            for name, part in self.parts.items():
                own = {key.partition("/")[2]: value for key, value in tensors.items() if key.startswith(f"{name}/")}
                part.load_state(state[name], own)
            then, now, scaler = state["versions"], versions(), state["scaler"]
            names = sorted(name for name in {*then, *now} if then.get(name) != now.get(name))
        except (AttributeError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"`{checkpoint}` is no checkpoint of such a run: {error!r}. Give another output folder."
            ) from error
        if names:
            changes = ", ".join(f"{name} {then.get(name)} -> {now.get(name)}" for name in names)
            logger.warning("%s has other versions (%s): results may differ by rounding.", checkpoint.name, changes)
        if scaler and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(scaler)
        if self.accelerator.is_main_process:
            logger.warning("Resuming from %s.", checkpoint.name)
        return checkpoint

    def save(self) -> None:
        """Writes a checkpoint of the model and all parts.

        Raises:
            CheckpointError: the disk refuses; earlier checkpoints are whole.
        """
        if self.folder is None:
            return
        with self.guard.deferred():
            scaler = self.accelerator.scaler
            state = {
                "settings": self.settings,
                "versions": versions(),
                "scaler": scaler.state_dict() if scaler is not None else None,
                **self.snapshot(),
            }
            if self.accelerator.is_main_process:
                tensors = {
                    f"{name}/{key}": value
                    for name, part in self.parts.items()
                    for key, value in part.tensors().items()
                }
                path, tokenizer, keep = self.folder / self.name(), self.tokenizer, self.keep
                save_checkpoint(path, self.model, state=state, optimizer=tensors, tokenizer=tokenizer, keep=keep)
            self.accelerator.wait_for_everyone()

    def snapshot(self) -> dict[str, Any]:
        """The JSON of all parts, by name."""
        return {name: copy.deepcopy(part.state()) for name, part in self.parts.items()}


def find_checkpoint(accelerator: Accelerator, folder: Path, *, resume: bool) -> Path | None:
    """The checkpoint to resume from, as the main process finds it; None for a run from the beginning.

    Raises:
        CheckpointError: there is one and `resume` is off: the checkpoints of two runs would mix.
    """

    def find() -> str | None:
        newest = newest_checkpoint(folder)
        if newest is not None and not resume:
            raise CheckpointError(
                f"`{folder}` holds checkpoints of an earlier run. Resume it (`--resume`, `resume=True`), or give "
                "another output folder."
            )
        return None if newest is None else newest.name

    name = on_main_process(accelerator, find)
    return None if name is None else folder / name
