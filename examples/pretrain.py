"""Pretrains a BERT of any shape with MLM + NSP, from scratch or onwards from a checkpoint.

    accelerate launch examples/pretrain.py --text my_text.txt --output-dir my-bert --steps 200 --hidden-size 96

From scratch a WordPiece vocabulary is trained on the same text; with `--model` its tokenizer and weights are kept. The
run can be interrupted at any moment (Ctrl-C, SIGTERM) and goes on with `--resume`. What it did is left in
OUTPUT_DIR/pretraining.json.
"""

from __future__ import annotations

import json
import math
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, set_seed
from datasets import Dataset, concatenate_datasets
from tqdm.auto import tqdm
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from schubert_hf import SchuBertConfig, SchuBertForPreTraining
from schubert_hf.cli import one_line_errors, parse
from schubert_hf.conversion import ConversionError, to_bert
from schubert_hf.training.checkpoint import (
    MODEL,
    CheckpointError,
    list_checkpoints,
    load_optimizer,
    load_state,
    save_checkpoint,
    write_json,
)
from schubert_hf.training.environment import environment
from schubert_hf.training.initialization import initialize_local_attention
from schubert_hf.training.interrupt import Interrupted, InterruptGuard
from schubert_hf.training.loop import LoopConfig, LoopConfigError, StepResult, TrainingLoop, evaluate
from schubert_hf.training.loop_config import option
from schubert_hf.training.objective import PretrainingObjective
from schubert_hf.training.output import check_output_folder, halved, result_files
from schubert_hf.training.pairs import make_pairs
from schubert_hf.training.progress import quiet, show_on_main_process_only
from schubert_hf.training.stacking import stack_layers
from schubert_hf.training.stream import ExampleStream, MaskingCollator
from schubert_hf.training.text import load_documents, split_documents
from schubert_hf.training.tokenizer import train_wordpiece
from schubert_hf.training.unigram import unigram_loss

# What may differ between a run and its continuation: it changes no weight.
FREE = {"output_dir", "resume", "save_steps", "micro_batch_size", "workers", "half"}


@dataclass(frozen=True, kw_only=True)
class Arguments(LoopConfig):
    """What to train, on what, for how long."""

    text: list[str] = field(metadata={"help": "Text files, folders or dataset names to train on."})
    output_dir: str = field(metadata={"help": "Folder for the finished model; checkpoints lie in its `checkpoints/`."})
    eval_text: list[str] = field(
        default_factory=list, metadata={"help": "Held-out text. Default: a part of the documents of --text."}
    )
    model: str | None = option(None, "Checkpoint to train onwards. Default: from scratch.")
    hidden_size: int = option(192, "From scratch: width of the residual stream.")
    num_hidden_layers: int = option(8, "From scratch: layers.")
    num_attention_heads: int = option(6, "From scratch: heads per layer.")
    intermediate_size: int = option(768, "From scratch: filters per layer.")
    vocab_size: int = option(8192, "From scratch: word pieces of the vocabulary.")
    initializer_range: float = option(0.06, "From scratch: standard deviation of fresh weights.")
    local_attention: bool = option(True, "From scratch: let heads begin by looking at their neighbours.")
    stack: int = option(1, "With --model: begin with its layers repeated this often (progressive stacking).")
    max_length: int = option(128, "Word pieces per example, and positions of a new model.")
    dropout: float | None = option(None, "Dropout. Default: that of --model; none from scratch.")
    mask_probability: float = option(0.15, "Share of the tokens that are predicted while training.")
    skip_examples: int = option(0, "Examples of the shuffled stream to leave out: what an earlier stage has seen.")
    steps: int = option(1000, "Optimizer steps.")
    learning_rate: float = option(1e-3, "Peak learning rate.")
    warmup_steps: int = option(100, "Steps of linear warm-up, part of all steps.")
    adam_beta2: float = option(0.98, "AdamW's decay of the second moments.")
    eval_examples: int = option(1000, "Held-out examples per evaluation.")
    save_steps: int = option(500, "Steps between checkpoints (and evaluations).")
    seed: int = option(0, "Seed of weights, order, masks and dropout.")
    half: bool = option(True, "Store the finished weights in float16.")
    resume: bool = option(False, "Go on from the newest checkpoint in --output-dir.")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in {
            "eval_examples": 1,
            "save_steps": 1,
            "vocab_size": 1,
            "stack": 1,
            "skip_examples": 0,
        }.items():
            if getattr(self, name) < least:
                raise LoopConfigError(f"`{name}` is {getattr(self, name)}; allowed is a number of at least {least}.")
        if not 0 < self.mask_probability < 1:
            raise LoopConfigError(
                f"`mask_probability` is {self.mask_probability}; allowed is a number between 0 and 1."
            )


def main() -> None:
    (arguments,) = parse("Pretrains a BERT with MLM + NSP.", Arguments)
    accelerator = Accelerator()
    show_on_main_process_only(accelerator)
    with one_line_errors():
        try:
            checkpoint = open_output(arguments)
            Pretraining(arguments, accelerator, checkpoint).run()
        except Interrupted as stop:
            if accelerator.is_main_process:
                print(f"{stop}. Go on with --resume.", file=sys.stderr)
            raise SystemExit(stop.exit_code) from None
    accelerator.end_training()


def open_output(arguments: Arguments) -> Path | None:
    """The checkpoint to go on from, if any; refuses before anything is loaded."""
    check_output_folder(Path(arguments.output_dir))
    folder = Path(arguments.output_dir) / "checkpoints"
    whole = list_checkpoints(folder)
    if whole and not arguments.resume:
        raise CheckpointError(f"`{folder}` holds checkpoints. Go on with --resume, or give another --output-dir.")
    if arguments.resume and not whole:
        raise CheckpointError(f"`{folder}` holds no whole checkpoint to resume. Begin without --resume.")
    return whole[-1] if whole else None


class Pretraining:
    """One run: reads its text, trains, evaluates and saves every `save_steps`, and writes the finished model."""

    def __init__(self, arguments: Arguments, accelerator: Accelerator, checkpoint: Path | None) -> None:
        self.arguments, self.accelerator = arguments, accelerator
        self.output = Path(arguments.output_dir)
        set_seed(arguments.seed)
        model, tokenizer = load_checkpoint(arguments, checkpoint)
        with accelerator.main_process_first():
            documents, held_out = read_text(arguments)
        self.tokenizer = tokenizer or train_tokenizer(arguments, accelerator, documents)
        self.model = model or new_model(arguments, self.tokenizer)
        with accelerator.main_process_first():
            self.pairs, eval_pairs = (
                make_pairs(part, self.tokenizer, max_length=arguments.max_length, seed=arguments.seed)
                for part in (documents, held_out)
            )
        eval_pairs = eval_pairs.select(range(min(arguments.eval_examples, len(eval_pairs))))
        self.eval_stream = ExampleStream(eval_pairs, shuffle=False)
        self.eval_collator = MaskingCollator(self.tokenizer, seed=arguments.seed + 1)
        self.objective = PretrainingObjective(self.model)
        self.loop = TrainingLoop(accelerator, self.objective, self.model.named_parameters(), arguments)
        self.settings = {name: value for name, value in asdict(arguments).items() if name not in FREE}
        self.settings["examples"] = len(self.pairs)
        self.history: dict[str, Any] = {"evaluations": [], "seconds": 0.0}
        self._recent: list[StepResult] = []  # since the last evaluation
        if checkpoint is not None:
            self._continue(checkpoint)
        self._began = time.monotonic() - self.history["seconds"]

    def run(self) -> None:
        stream = ExampleStream(self.pairs, seed=self.arguments.seed)
        collator = MaskingCollator(
            self.tokenizer, mlm_probability=self.arguments.mask_probability, seed=self.arguments.seed
        )
        with InterruptGuard(self.accelerator) as guard:

            def on_step(result: StepResult) -> None:
                self._recent.append(result)
                if self.loop.step == self.arguments.steps:
                    return
                if self.loop.step % self.arguments.save_steps == 0:
                    self._evaluate()
                    self._save()
                guard.check()

            try:
                offset = self.arguments.skip_examples
                self.loop.run(stream, collator, offset=offset, on_step=on_step, description="pretraining")
            except Interrupted:
                self._save()
                raise
            self._evaluate()
            self._save()
        if self.accelerator.is_main_process:
            self._finish()
        self.accelerator.wait_for_everyone()

    def _continue(self, checkpoint: Path) -> None:
        state = load_state(checkpoint)
        before = state.get("settings", {})
        for name, value in json.loads(json.dumps(self.settings)).items():
            if before.get(name) != value:
                raise CheckpointError(
                    f"`{checkpoint}` belongs to a run with `{name}` = {before.get(name)!r}, now {value!r}. "
                    "Give the same settings, or another --output-dir."
                )
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

    def _finish(self) -> None:
        unigram = unigram_loss(
            self.pairs,
            self.eval_stream,
            self.eval_collator,
            vocab_size=len(self.tokenizer),
            special_ids=self.tokenizer.all_special_ids,
        )
        report = {
            "arguments": asdict(self.arguments),
            "parameters": self.model.num_parameters(),
            "examples": len(self.pairs),
            "epochs": self.arguments.steps * self.arguments.batch_size / len(self.pairs),
            "unigram_loss": unigram,
            **environment(self.accelerator),
            **self.history,
        }
        with result_files(self.output) as folder, quiet():
            finished = as_bert(self.model)
            finished.save_pretrained(folder, state_dict=halved(finished) if self.arguments.half else None)
            self.tokenizer.save_pretrained(folder)
            write_json(folder / "pretraining.json", report)
        final = self.history["evaluations"][-1]["held_out"]
        self._say(
            f"Held-out masked-token loss {final['mlm']:.3f} nats (perplexity {math.exp(final['mlm']):.1f}, accuracy "
            f"{final['mlm_accuracy']:.3f}); unigram cross-entropy of the same tokens {unigram:.3f}.\n"
            f"Saved in {self.output}. Next: accelerate launch examples/prune.py --model {self.output}"
        )

    def _say(self, text: str) -> None:
        if self.accelerator.is_main_process:
            tqdm.write(text, file=sys.stdout)


def read_text(arguments: Arguments) -> tuple[Dataset, Dataset]:
    """Documents to train on, and held-out ones."""
    documents = concatenate_datasets([load_documents(source) for source in arguments.text])
    if arguments.eval_text:
        return documents, concatenate_datasets([load_documents(source) for source in arguments.eval_text])
    return split_documents(documents, held_out=arguments.eval_examples, seed=arguments.seed)


def load_checkpoint(
    arguments: Arguments, checkpoint: Path | None
) -> tuple[SchuBertForPreTraining | None, PreTrainedTokenizerBase | None]:
    """Model and tokenizer to go on from: of this run's checkpoint, or of `--model`; none from scratch."""
    dropouts = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    dropout = {} if checkpoint or arguments.dropout is None else dict.fromkeys(dropouts, arguments.dropout)
    source = checkpoint / MODEL if checkpoint else arguments.model
    if source is None:
        return None, None
    try:
        model = SchuBertForPreTraining.from_pretrained(source, dtype=torch.float32, **dropout)
        tokenizer = AutoTokenizer.from_pretrained(source)
    except OSError as error:
        raise CheckpointError(f"`{source}` cannot be loaded: {str(error).splitlines()[0]}") from error
    for what, got, limit in (
        ("`max_length`", arguments.max_length, model.config.max_position_embeddings),
        ("The tokenizer's vocabulary", len(tokenizer), model.config.vocab_size),
    ):
        if got > limit:
            raise CheckpointError(f"{what} is {got}; the model `{source}` has room for {limit}.")
    return (model if checkpoint else stack_layers(model, arguments.stack)), tokenizer


def train_tokenizer(arguments: Arguments, accelerator: Accelerator, documents: Dataset) -> PreTrainedTokenizerBase:
    """One process trains the vocabulary, all others get it."""
    box: list[Any] = [None]
    if accelerator.is_main_process:
        box = [train_wordpiece(documents, vocab_size=arguments.vocab_size, max_length=arguments.max_length)]
    broadcast_object_list(box)
    tokenizer: PreTrainedTokenizerBase = box[0]
    return tokenizer


def new_model(arguments: Arguments, tokenizer: PreTrainedTokenizerBase) -> SchuBertForPreTraining:
    """Seeded here, so that the weights do not depend on what ran before."""
    set_seed(arguments.seed)
    model = SchuBertForPreTraining(
        SchuBertConfig(
            vocab_size=len(tokenizer),
            hidden_size=arguments.hidden_size,
            num_hidden_layers=arguments.num_hidden_layers,
            num_attention_heads=arguments.num_attention_heads,
            intermediate_size=arguments.intermediate_size,
            max_position_embeddings=arguments.max_length,
            hidden_dropout_prob=arguments.dropout or 0.0,
            attention_probs_dropout_prob=arguments.dropout or 0.0,
            pad_token_id=tokenizer.pad_token_id,
            initializer_range=arguments.initializer_range,
        )
    )
    if arguments.local_attention:
        initialize_local_attention(model)
    return model


def as_bert(model: SchuBertForPreTraining) -> PreTrainedModel:
    """A plain BERT where the layers have BERT's shape: then every library can open it."""
    try:
        return to_bert(model)
    except ConversionError:
        return model


if __name__ == "__main__":
    main()
