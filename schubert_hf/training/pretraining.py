"""Pretraining: one run of MLM + NSP that evaluates, saves, stops on a signal and goes on where it stopped."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.stream import ExampleStream, MaskingCollator
from ..run.checkpoint import check_settings, load_optimizer, load_state, save_checkpoint, write_json
from ..run.interrupt import Interrupted, InterruptGuard
from ..run.output import halved, result_files
from ..run.processes import environment
from ..run.progress import quiet
from .loop import StepResult, TrainingLoop, evaluate
from .loop_config import LoopConfig, LoopConfigError, option
from .objective import PretrainingObjective
from .unigram import unigram_loss


@dataclass(frozen=True, kw_only=True)
class PretrainingConfig(LoopConfig):
    """Settings of `Pretraining`.

    Raises:
        LoopConfigError: a value out of its range, named with the range.
    """

    steps: int = option(1000, "Optimizer steps.")
    learning_rate: float = option(1e-3, "Peak learning rate.")
    warmup_steps: int = option(100, "Steps of linear warm-up, part of all steps.")
    adam_beta2: float = option(0.98, "AdamW's decay of the second moments.")
    mask_probability: float = option(0.15, "Share of the tokens that are predicted while training.")
    skip_examples: int = option(0, "Examples of the shuffled stream to leave out: what an earlier stage has seen.")
    eval_examples: int = option(1000, "Held-out examples per evaluation.")
    save_steps: int = option(500, "Steps between checkpoints (and evaluations).")
    seed: int = option(0, "Seed of weights, order, masks and dropout.")
    half: bool = option(True, "Store the finished weights in float16.")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in {"eval_examples": 1, "save_steps": 1, "skip_examples": 0}.items():
            if getattr(self, name) < least:
                raise LoopConfigError(f"`{name}` is {getattr(self, name)}; allowed is a number of at least {least}.")
        if not 0 < self.mask_probability < 1:
            raise LoopConfigError(
                f"`mask_probability` is {self.mask_probability}; allowed is a number between 0 and 1."
            )


class Pretraining:
    """One run.

    Args:
        accelerator: as `accelerate launch` configured it.
        model: what is trained, with an MLM and a NSP head.
        tokenizer: saved with it.
        pairs: training examples, see `make_pairs`.
        eval_pairs: held-out examples.
        config: how it is trained.
        output: folder for the result; its `checkpoints` for the checkpoints.
        settings: everything that a continuation must have in common with the run that it continues; plain JSON.
        checkpoint: what to go on from; its weights are those of `model`.

    Raises:
        CheckpointError: `checkpoint` belongs to a run with other settings.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        pairs: Dataset,
        eval_pairs: Dataset,
        config: PretrainingConfig,
        *,
        output: Path,
        settings: dict[str, Any],
        checkpoint: Path | None = None,
    ) -> None:
        self.accelerator, self.model, self.tokenizer = accelerator, model, tokenizer
        self.pairs, self.config, self.output = pairs, config, output
        eval_pairs = eval_pairs.select(range(min(config.eval_examples, len(eval_pairs))))
        self.eval_stream = ExampleStream(eval_pairs, shuffle=False)
        # Always at BERT's own rate: then losses of runs that were trained at other rates compare.
        self.eval_collator = MaskingCollator(tokenizer, seed=config.seed + 1)
        self.objective = PretrainingObjective(model)
        self.loop = TrainingLoop(accelerator, self.objective, model.named_parameters(), config)
        self.settings = {**settings, "examples": len(pairs)}
        self.history: dict[str, Any] = {"evaluations": [], "seconds": 0.0}
        self._recent: list[StepResult] = []  # since the last evaluation
        if checkpoint is not None:
            self._continue(checkpoint)
        self._began = time.monotonic() - self.history["seconds"]

    def run(self) -> None:
        """Trains to the end, evaluating and saving every `save_steps`.

        Raises:
            Interrupted: by a signal; the last step that was finished is saved.
        """
        stream = ExampleStream(self.pairs, seed=self.config.seed)
        collator = MaskingCollator(self.tokenizer, mlm_probability=self.config.mask_probability, seed=self.config.seed)
        with InterruptGuard(self.accelerator) as guard:

            def on_step(result: StepResult) -> None:
                self._recent.append(result)
                if self.loop.step == self.config.steps:
                    return
                if self.loop.step % self.config.save_steps == 0:
                    self._evaluate()
                    self._save()
                guard.check()

            try:
                offset = self.config.skip_examples
                self.loop.run(stream, collator, offset=offset, on_step=on_step, description="pretraining")
            except Interrupted:
                self._save()
                raise
            self._evaluate()
            self._save()

    def finish(self, settings: dict[str, Any], convert: Callable[[PreTrainedModel], PreTrainedModel]) -> None:
        """Writes the finished model and what is known about it, `pretraining.json`.

        Args:
            settings: goes into the JSON.
            convert: from the trained model to the one that is saved.
        """
        if self.accelerator.is_main_process:
            report = self._report(settings)
            with result_files(self.output) as folder, quiet():
                model = convert(self.model)
                model.save_pretrained(folder, state_dict=halved(model) if self.config.half else None)
                self.tokenizer.save_pretrained(folder)
                write_json(folder / "pretraining.json", report)
            final = self.history["evaluations"][-1]["held_out"]
            loss, accuracy = final["mlm"], final["mlm_accuracy"]
            self._say(
                f"Held-out masked-LM loss {loss:.3f} nats (perplexity {math.exp(loss):.1f}, accuracy {accuracy:.3f}); "
                f"unigram cross-entropy of the same tokens {report['unigram_loss']:.3f}."
            )
        self.accelerator.wait_for_everyone()

    def _report(self, settings: dict[str, Any]) -> dict[str, Any]:
        return {
            "arguments": settings,
            "parameters": self.model.num_parameters(),
            "examples": len(self.pairs),
            "epochs": self.config.steps * self.config.batch_size / len(self.pairs),
            "unigram_loss": unigram_loss(
                self.pairs,
                self.eval_stream,
                self.eval_collator,
                vocab_size=len(self.tokenizer),
                special_ids=self.tokenizer.all_special_ids,
            ),
            **environment(self.accelerator),
            **self.history,
        }

    def _continue(self, checkpoint: Path) -> None:
        state = load_state(checkpoint)
        check_settings(state.get("settings", {}), self.settings, checkpoint)
        self.history = state["history"]
        self.loop.load_state(state["step"], load_optimizer(checkpoint))
        self._say(f"Going on from step {self.loop.step} of {checkpoint}.")

    def _evaluate(self) -> None:
        held_out = evaluate(self.accelerator, self.objective, self.eval_stream, self.eval_collator, batch_size=64)
        train = {
            name: sum(result.losses[name] for result in self._recent) / max(1, len(self._recent))
            for name in self.objective.terms
        }
        self.history["evaluations"].append({"step": self.loop.step, "train": train, "held_out": held_out})
        self._recent.clear()
        self._say(f"step {self.loop.step}: " + ", ".join(f"{key} {value:.4f}" for key, value in held_out.items()))

    def _save(self) -> None:
        self.history["seconds"] = time.monotonic() - self._began
        if self.accelerator.is_main_process:
            save_checkpoint(
                self.output / "checkpoints" / f"step-{self.loop.step:08d}",
                self.model,
                state={"step": self.loop.step, "settings": self.settings, "history": self.history},
                optimizer=self.loop.state_tensors(),
                tokenizer=self.tokenizer,
                keep=2,
            )
        self.accelerator.wait_for_everyone()

    def _say(self, text: str) -> None:
        if self.accelerator.is_main_process:
            tqdm.write(text, file=sys.stdout)
