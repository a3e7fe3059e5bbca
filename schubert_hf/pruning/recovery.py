"""Step 7 of Algorithm 1: the smaller model is trained, and keeps the best weights that it had on the way.

Which are the best is decided on a fold: training examples that are read before the recovery and not trained on in it.
The weights right after the cut compete, so a recovery may be wasted, but harms nothing. Those of its end are kept if
they gain a good part of what the best do: the rate has come down then, and which of the others a fold of few examples
prefers is chance. The learning rate is found on the same fold, where the user gives none; and should it turn out far
too high, the recovery goes back to its best weights and continues at a lower one.
"""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from accelerate.utils import set_seed
from torch import Tensor, nn

from ..data.stream import Batch, for_stream
from ..run.session import Part
from ..training.distillation import DistillationObjective
from ..training.evaluate import mean_loss
from ..training.loop import TrainingLoop
from ..training.loop_config import LoopConfig
from ..training.objective import Objective
from ..training.phase import Phases
from ..training.step import NonFiniteLossError, StepResult
from .config import PruningConfig
from .learning_rate import MEASURED, START, TYPICAL, Measurement, find_learning_rate

logger = logging.getLogger(__name__)
MOMENTS = (0.25, 0.5, 0.75, 1.0)  # of the recovery, at which its weights are compared
WORSE = 0.2  # of the loss after the cut: where one on the way is higher by more, the rate that was found is too high
ENOUGH = 1 / 3  # of the best gain on the fold is what the weights of the end need
LOWER = 0.25  # of such a rate is what the recovery continues at, from its best weights


class Recovery(Part):
    """Trains the smaller model after each cut; the part "recovery" of the session, whose checkpoints it resumes from.

    Args:
        phases: of the run.
        config: resolved; see `PruningConfig`.
    """

    def __init__(self, phases: Phases, config: PruningConfig) -> None:
        self.phases, self.config, self.accelerator = phases, config, phases.accelerator
        self.measurement = Measurement.of(config.recovery_steps, config.batch_size, phases.stream.length)
        self._begun: dict[str, Any] | None = None  # the recovery that is under way, as plain JSON
        self._best: dict[str, Tensor] = {}  # its best weights, on the CPU
        phases.session.parts["recovery"] = self

    def state(self) -> dict[str, Any]:
        return {"begun": self._begun}

    def tensors(self) -> dict[str, Tensor]:
        return dict(self._best)

    def load_state(self, state: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self._begun, self._best = state["begun"], tensors

    def run(self, objective: Objective, description: str) -> dict[str, Any]:
        """Trains every weight of an objective's model, and leaves the best weights in it.

        Args:
            objective: what is minimised, with or without a teacher; the fold is judged by the student's own loss.
            description: of progress bars and messages.

        Returns:
            `learning_rate`, the peak, that of its end where it was lowered; `best_step`, after which the weights are
            kept, 0 for those after the cut.

        Raises:
            Interrupted, NonFiniteLossError: see `Phases.run`.
        """
        own = objective.inner if isinstance(objective, DistillationObjective) else objective
        phases, measurement, rate = self.phases, self.measurement, self.config.recovery_learning_rate
        if self._begun is None and rate is None and measurement.gradient:
            phases.save("learning-rate")  # what was learned about the cut may have cost more than a checkpoint does
        position, places = phases.position, phases.places
        if self._begun is not None:
            position, places = self._begun["position"], self._begun["places"]
            phases.stream.load_state(places)
        fold = self._read_fold(position)
        with phases.stream.without(range(position, position + measurement.fold)):
            if self._begun is None:
                loss, self._best, place = mean_loss(self.accelerator, own, fold), _weights_of(own.model), None
                read = measurement.fold
                if rate is None:
                    rate, place = self._find_rate(objective, own, fold, loss, position + read, description)
                    read += measurement.gradient
                phases.skip(read, place)
                self._begun = {"position": position, "places": places, "learning_rate": rate}
                self._begun |= {"cut_loss": loss, "best_step": 0, "best_loss": loss}
            self._train(objective, own, fold, description)
        begun, self._begun = self._begun, None
        _load_weights(own.model, self._best)
        self._best = {}
        return {name: begun[name] for name in ("learning_rate", "best_step")}

    def _train(self, objective: Objective, own: Objective, fold: list[Batch], description: str) -> None:
        assert self._begun is not None
        config = self.config.recovery_loop(self._begun["learning_rate"])
        loop = TrainingLoop(self.accelerator, objective, own.model.named_parameters(), config)
        moments = {max(1, round(moment * config.steps)) for moment in MOMENTS}
        finds_rate = self.config.recovery_learning_rate is None

        def compare(result: StepResult) -> bool:
            step, begun = result.step + 1, self._begun
            if begun is None or step not in moments:
                return False
            loss, cut = mean_loss(self.accelerator, own, fold), begun["cut_loss"]
            enough = ENOUGH * (cut - begun["best_loss"]) if step == config.steps else math.inf
            if loss < begun["best_loss"] or cut - loss > enough:
                self._begun = {**begun, "best_loss": loss, "best_step": step}
                self._best = _weights_of(own.model)
            elif finds_rate and loss - cut > WORSE * abs(cut) and step < config.steps:
                loop.learning_rate *= LOWER
                self._begun = {**begun, "learning_rate": LOWER * begun["learning_rate"]}  # which may run halved
                _load_weights(own.model, self._best)
                if self.accelerator.is_main_process:
                    message = "%s recovery: step %d is worse than the cut; it continues from step %d at %.2g."
                    logger.warning(message, description, step, begun["best_step"], loop.learning_rate)
                return True  # so that nothing goes back to before the change
            return False

        setting = "recovery_learning_rate"
        self.phases.run("recovery", loop, f"{description} recovery", setting=setting, on_step=compare, save_first=True)
        self.accelerator.free_memory()

    def _read_fold(self, position: int) -> list[Batch]:
        """The process's share of the fold, from a position of the stream, in batches."""
        accelerator, config, stream = self.accelerator, self.config, self.phases.stream
        set_seed(config.seed)  # a collator of the user's may draw its masks from the global generators
        collate, processes = for_stream(self.phases.collator), accelerator.num_processes
        end = position + self.measurement.fold
        examples = [stream[one] for one in range(position + accelerator.process_index, end, processes)]
        size = config.micro_batch_size or config.batch_size // processes
        return [collate(examples[begin : begin + size]) for begin in range(0, len(examples), size)]

    def _find_rate(
        self, objective: Objective, own: Objective, fold: list[Batch], loss: float, offset: int, description: str
    ) -> tuple[float, dict[str, Any] | None]:
        """The peak rate, and the process's place in the stream after the examples that were read for it.

        `loss`: of the fold, after the cut.
        """
        if not self.measurement.gradient:
            return TYPICAL, None
        accelerator, before, reference = self.accelerator, self._best, MEASURED[START]
        share = self.config.batch_size // accelerator.num_processes
        micro = self.config.micro_batch_size or -(-share // accelerator.gradient_accumulation_steps)
        changes = {"steps": 1, "batch_size": self.measurement.gradient, "micro_batch_size": micro}
        config = LoopConfig.of(self.config, **changes, learning_rate=reference)
        scaler = accelerator.scaler.state_dict() if accelerator.scaler is not None else None
        loop = TrainingLoop(accelerator, objective, own.model.named_parameters(), config)
        title = f"{description} learning rate"
        found = TYPICAL
        try:
            loop.run(self.phases.stream, self.phases.collator, offset=offset, description=title)
        except NonFiniteLossError:
            pass  # as it would in the recovery, which says what to do
        else:
            direction = {name: (value - before[name]) / reference for name, value in _weights_of(own.model).items()}

            def loss_at(rate: float) -> float:
                _load_weights(own.model, {name: value + rate * direction[name] for name, value in before.items()})
                return mean_loss(accelerator, own, fold)

            evaluations, steps = self.measurement.evaluations, self.config.recovery_steps
            found = find_learning_rate(
                loss_at, evaluations, loss, steps, power=own.rate_power, follows_dense=own.follows_dense
            )
        accelerator.free_memory()
        if scaler is not None:
            accelerator.scaler.load_state_dict(scaler)
        _load_weights(own.model, before)
        if accelerator.is_main_process:
            logger.warning("%s: %.2g, found on %d training examples.", title, found, self.measurement.fold)
        return found, loop.data_state


def _weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().to("cpu", copy=True) for name, value in model.named_parameters()}


def _load_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])
