"""Phases of training in a pruning run: each can be stopped at any step, goes on from there, and looks after itself."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from accelerate import Accelerator
from torch import Tensor

from ..run.interrupt import Interrupted, InterruptGuard
from ..training.loop import TrainingLoop
from ..training.step import NonFiniteLossError, StepResult
from .checkpoint import OpenRound, Progress
from .config import PruningConfig
from .data import PruningData

logger = logging.getLogger(__name__)
ALPHAS, RECOVERY = "alphas", "recovery"
LEARNING_RATES = {ALPHAS: "alpha_learning_rate", RECOVERY: "recovery_learning_rate"}
HALF = 0.5
Watch = Callable[[], dict[str, float]]


class PhaseRunner:
    """Runs the phases of a run, one after another.

    Should a loss or a gradient not be finite, the phase goes back to its last good state (the last checkpoint's, or
    its beginning) and goes on at half the learning rate, which holds for all such phases to come. If that does not
    help, it is an error.

    Args:
        accelerator: decides devices, processes and precision; its trackers are told of every step.
        config: of the run.
        data: what is trained on.
        progress: of the run, with a round under way; kept up to date here.
        guard: tells of signals.
        save: writes a checkpoint of the run, with the tensors of the phase under way.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        config: PruningConfig,
        data: PruningData,
        progress: Progress,
        guard: InterruptGuard,
        save: Callable[[dict[str, Tensor]], None],
    ) -> None:
        self.accelerator, self.config, self.data = accelerator, config, data
        self.progress, self.guard, self.save = progress, guard, save
        self.resumed: dict[str, Tensor] | None = None  # tensors of the phase that a resumed run goes on with
        self._good: dict[str, Any] = {}

    def run(self, name: str, loop: TrainingLoop, description: str, watch: Watch | None = None) -> None:
        """Trains to the end.

        Args:
            name: `ALPHAS` or `RECOVERY`.
            loop: not yet begun.
            description: of the progress bar.
            watch: more to tell the trackers after every step.

        Raises:
            Interrupted: by a signal, on every process; the last step is in a checkpoint.
            NonFiniteLossError: half the learning rate did not help.
        """
        with self.guard.deferred():
            self._run(name, loop, description, watch)

    def _run(self, name: str, loop: TrainingLoop, description: str, watch: Watch | None) -> None:
        self._begin(name, loop)
        while True:
            try:
                self._train(name, loop, description, watch)
                break
            except Interrupted:
                self._save(loop)
                raise
            except NonFiniteLossError as error:
                if name in self.progress.halved:
                    raise NonFiniteLossError(
                        f"{description}: {error} Half the learning rate did not help. The last checkpoint is whole; "
                        f"begin anew with a lower `{LEARNING_RATES[name]}`, or look at the data."
                    ) from error
                self._go_back(name, loop, f"{description}: {error}")
        self.progress.position += loop.config.steps * loop.config.batch_size
        self.progress.steps += loop.config.steps
        self.progress.data_state = self.data.state_everywhere(loop.data_state)

    @property
    def _open(self) -> OpenRound:
        assert self.progress.open is not None
        return self.progress.open

    def _begin(self, name: str, loop: TrainingLoop) -> None:
        if name in self.progress.halved:
            loop.learning_rate_scale = HALF
        if self.resumed is not None and self._open.phase == name:
            loop.load_state(self._open.step, self.resumed)
        else:
            self._open.phase, self._open.step = name, 0
            if name == RECOVERY:  # what was found out about the cut may have cost more than a checkpoint does
                self.save({})
        self.resumed = None
        self.data.go_on(self.progress.data_state)
        self._remember(loop)

    def _train(self, name: str, loop: TrainingLoop, description: str, watch: Watch | None) -> None:
        def on_step(result: StepResult) -> None:
            self._open.step = loop.step
            self._log(name, result, watch)
            if loop.step < loop.config.steps:
                if loop.step % self.config.save_steps == 0:
                    self._save(loop)
                    self._remember(loop)
                self.guard.check()

        position = self.progress.position
        loop.run(self.data.stream, self.data.collator, offset=position, on_step=on_step, description=description)

    def _save(self, loop: TrainingLoop) -> None:
        if loop.data_state is not None:
            self.progress.data_state = self.data.state_everywhere(loop.data_state)
        # Alphas are in no model; weights are in the checkpoint's own.
        self.save(loop.state_tensors(parameters=self._open.phase == ALPHAS))

    def _remember(self, loop: TrainingLoop) -> None:
        tensors = loop.state_tensors(parameters=True)
        self._good = {
            "step": loop.step,
            "tensors": {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()},
            "data_state": self.progress.data_state,
        }

    def _go_back(self, name: str, loop: TrainingLoop, what: str) -> None:
        loop.load_state(self._good["step"], self._good["tensors"])
        self.data.go_on(self._good["data_state"])
        loop.learning_rate_scale = HALF
        self.progress.halved.append(name)
        self._open.step = loop.step
        if self.accelerator.is_main_process:
            logger.warning("%s Going on from step %d with half the learning rate.", what, loop.step)

    def _log(self, name: str, result: StepResult, watch: Watch | None) -> None:
        if self.accelerator.trackers:
            values = {**result.to_log(), **(watch() if watch is not None else {})}
            step = self.progress.steps + result.step
            self.accelerator.log({f"{name}/{key}": value for key, value in values.items()}, step=step)
