"""Pretraining: one run of MLM + NSP that evaluates and saves as it goes."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.stream import ExampleStream, MaskingCollator
from ..run.checkpoint import save_model, write_json
from ..run.output import halved, result_files
from ..run.provenance import environment
from .evaluate import evaluate, unigram_loss
from .evaluated import EvaluatedTraining
from .loop_config import LoopConfig, LoopConfigError, option
from .objective import PretrainingObjective


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
    skip_examples: int = option(
        0, "Examples of the shuffled stream to leave out: what an earlier stage has seen.", least=0
    )
    eval_examples: int = option(1000, "Held-out examples per evaluation.", least=1)
    save_steps: int = option(500, "Steps between checkpoints (and evaluations).", least=1)
    seed: int = option(0, "Seed of weights, order, masks and dropout.")
    half: bool = option(True, "Store the finished weights in float16.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.mask_probability < 1:
            raise LoopConfigError(
                f"`mask_probability` is {self.mask_probability}; allowed is a number between 0 and 1."
            )


class Pretraining(EvaluatedTraining):
    """One run.

    Args:
        accelerator: as `accelerate launch` configured it.
        model: with an MLM and a NSP head.
        tokenizer: saved with it.
        pairs: training examples, see `make_pairs`.
        eval_pairs: held-out examples.
        config: how it is trained.
        output: folder for the result; its `checkpoints` for the checkpoints.
        settings: those that a resumed run must share with the one that it continues; plain JSON.
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
    ) -> None:
        self.tokenizer, self.pairs, self.config = tokenizer, pairs, config
        self.objective = PretrainingObjective(model)
        eval_pairs = eval_pairs.select(range(min(config.eval_examples, len(eval_pairs))))
        self.eval_stream = ExampleStream(eval_pairs, shuffle=False)
        # Always at BERT's own rate: then losses of runs that were trained at other rates compare.
        self.eval_collator = MaskingCollator(tokenizer, seed=config.seed + 1)
        super().__init__(
            accelerator,
            self.objective,
            ExampleStream(pairs, seed=config.seed),
            MaskingCollator(tokenizer, mlm_probability=config.mask_probability, seed=config.seed),
            config,
            output=output,
            settings=settings,
            eval_steps=config.save_steps,
            save_steps=config.save_steps,
            keep=2,
            tokenizer=tokenizer,
            position=config.skip_examples,
        )

    def run(self, *, resume: bool = False) -> None:
        """Trains to the end, evaluating and saving every `save_steps`; see `EvaluatedTraining.train`."""
        with self.session.running():
            self.train("pretraining", "pretraining", resume=resume)
            if not self.evaluations:  # no steps were wanted
                self.record()

    def finish(self, settings: dict[str, Any], convert: Callable[[PreTrainedModel], PreTrainedModel]) -> None:
        """Writes the finished model, and the record of its training as `pretraining.json`.

        Args:
            settings: for the record.
            convert: from the trained model to the one that is saved.
        """
        if self.accelerator.is_main_process:
            report = self._report(settings)
            with result_files(self.output) as folder:
                model = convert(self.model)
                save_model(folder, model, self.tokenizer, state_dict=halved(model) if self.config.half else None)
                write_json(folder / "pretraining.json", report)
            final = self.evaluations[-1]["held_out"]
            loss, accuracy = final["mlm"], final["mlm_accuracy"]
            self._say(
                f"Held-out masked-LM loss {loss:.3f} nats (perplexity {math.exp(loss):.1f}, accuracy {accuracy:.3f}); "
                f"unigram cross-entropy of the same tokens {report['unigram_loss']:.3f}."
            )
        self.accelerator.wait_for_everyone()

    def evaluate_now(self, means: dict[str, float]) -> dict[str, Any]:
        held_out = evaluate(self.accelerator, self.objective, self.eval_stream, self.eval_collator, batch_size=64)
        self._say(f"step {self.loop.step}: " + ", ".join(f"{key} {value:.4f}" for key, value in held_out.items()))
        return {"train": means, "held_out": held_out}

    def _report(self, settings: dict[str, Any]) -> dict[str, Any]:
        special, vocabulary = self.tokenizer.all_special_ids, len(self.tokenizer)
        return {
            "arguments": settings,
            "parameters": self.model.num_parameters(),
            "examples": len(self.pairs),
            "epochs": self.config.steps * self.config.batch_size / len(self.pairs),
            "unigram_loss": unigram_loss(
                self.pairs, self.eval_stream, self.eval_collator, vocab_size=vocabulary, special_ids=special
            ),
            "device": str(self.accelerator.device),
            **environment(self.accelerator),
            "halved": self.phases.halved,
            "evaluations": self.evaluations,
            "seconds": self.seconds,
        }

    def _say(self, text: str) -> None:
        if self.accelerator.is_main_process:
            tqdm.write(text, file=sys.stdout)
