"""Pretrains a BERT of any shape with MLM + NSP, from scratch or onwards from a checkpoint.

    accelerate launch examples/pretrain.py --text my_text.txt --output-dir my-bert --steps 200 --hidden-size 96

From scratch a WordPiece vocabulary is trained on the same text; with `--model` its tokenizer and weights are kept. The
run can be interrupted at any moment and goes on with `--resume`. What it did is left in OUTPUT_DIR/pretraining.json.
"""

from __future__ import annotations

import math
import platform
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate import Accelerator
from accelerate.utils import set_seed
from datasets import Dataset, concatenate_datasets
from transformers import AutoTokenizer, HfArgumentParser, PreTrainedTokenizerBase

from schubert_hf import SchuBertConfig, SchuBertForPreTraining
from schubert_hf.training.checkpoint import (
    MODEL,
    atomic_folder,
    load_optimizer,
    load_state,
    newest_checkpoint,
    save_checkpoint,
    write_json,
)
from schubert_hf.training.loop import LoopConfig, StepResult, TrainingLoop, evaluate
from schubert_hf.training.objective import PretrainingObjective
from schubert_hf.training.pairs import make_pairs
from schubert_hf.training.stream import ExampleStream, MaskingCollator
from schubert_hf.training.text import load_documents, split_documents
from schubert_hf.training.tokenizer import train_wordpiece
from schubert_hf.training.unigram import unigram_loss


@dataclass
class Arguments:
    """What to train, on what, for how long."""

    text: list[str] = field(metadata={"help": "Text files, folders or dataset names to train on."})
    output_dir: str = field(metadata={"help": "Folder for the finished model; checkpoints lie in its `checkpoints/`."})
    eval_text: list[str] = field(
        default_factory=list, metadata={"help": "Held-out text. Default: a part of the documents of --text."}
    )
    model: str | None = field(default=None, metadata={"help": "Checkpoint to train onwards. Default: from scratch."})
    hidden_size: int = field(default=192, metadata={"help": "From scratch: width of the residual stream."})
    num_hidden_layers: int = field(default=8, metadata={"help": "From scratch: layers."})
    num_attention_heads: int = field(default=6, metadata={"help": "From scratch: heads per layer."})
    intermediate_size: int = field(default=768, metadata={"help": "From scratch: filters per layer."})
    vocab_size: int = field(default=8192, metadata={"help": "From scratch: word pieces of the vocabulary."})
    max_length: int = field(default=128, metadata={"help": "Word pieces per example, and positions of a new model."})
    dropout: float = field(default=0.0, metadata={"help": "Dropout while training; 0 suits runs of about one epoch."})
    steps: int = field(default=1000, metadata={"help": "Optimizer steps."})
    batch_size: int = field(default=32, metadata={"help": "Examples per step, over all processes."})
    micro_batch_size: int | None = field(default=None, metadata={"help": "Examples per process and forward pass."})
    learning_rate: float = field(default=1e-3, metadata={"help": "Peak learning rate."})
    schedule: str = field(default="linear", metadata={"help": "Schedule: a name from transformers' get_scheduler."})
    warmup_steps: int = field(default=100, metadata={"help": "Steps of linear warm-up."})
    weight_decay: float = field(default=0.01, metadata={"help": "Weight decay of matrices."})
    eval_examples: int = field(default=1000, metadata={"help": "Held-out examples per evaluation."})
    save_steps: int = field(default=500, metadata={"help": "Steps between checkpoints (and evaluations)."})
    seed: int = field(default=0, metadata={"help": "Seed of weights, order, masks and dropout."})
    half: bool = field(default=True, metadata={"help": "Save the finished weights in float16."})
    resume: bool = field(default=False, metadata={"help": "Go on from the newest checkpoint in --output-dir."})


def main() -> None:
    parser = HfArgumentParser(Arguments)
    (arguments,) = parser.parse_args_into_dataclasses()
    pretrain(arguments)


def pretrain(arguments: Arguments) -> None:
    """Trains, evaluates, saves."""
    accelerator = Accelerator()
    output = Path(arguments.output_dir)
    checkpoints = output / "checkpoints"
    if (output / "config.json").exists():
        raise SystemExit(f"`{output}` already holds a model. Give another --output-dir, or remove it.")
    checkpoint = newest_checkpoint(checkpoints) if arguments.resume else None
    if checkpoint is None and checkpoints.exists() and any(checkpoints.iterdir()):
        raise SystemExit(f"`{checkpoints}` holds checkpoints. Go on with --resume, or give another --output-dir.")

    with accelerator.main_process_first():
        documents, held_out = read_text(arguments)
        tokenizer = load_tokenizer(arguments, documents, checkpoint)
        pairs = make_pairs(documents, tokenizer, max_length=arguments.max_length, seed=arguments.seed)
        eval_pairs = make_pairs(held_out, tokenizer, max_length=arguments.max_length, seed=arguments.seed)

    model = load_model(arguments, tokenizer, checkpoint)
    objective = PretrainingObjective(model)
    config = LoopConfig(
        steps=arguments.steps,
        batch_size=arguments.batch_size,
        micro_batch_size=arguments.micro_batch_size,
        learning_rate=arguments.learning_rate,
        schedule=arguments.schedule,
        warmup_steps=arguments.warmup_steps,
        weight_decay=arguments.weight_decay,
        adam_beta2=0.98,
        seed=arguments.seed,
    )
    loop = TrainingLoop(accelerator, objective, model.named_parameters(), config)
    history: dict[str, Any] = {"evaluations": [], "seconds": 0.0}
    if checkpoint is not None:
        state = load_state(checkpoint)
        history = state["history"]
        loop.load_state(state["step"], load_optimizer(checkpoint))
        accelerator.print(f"Going on from step {loop.step} of {checkpoint}.")

    collator = MaskingCollator(tokenizer, seed=arguments.seed)
    eval_collator = MaskingCollator(tokenizer, seed=arguments.seed + 1)
    eval_stream = ExampleStream(eval_pairs.select(range(min(arguments.eval_examples, len(eval_pairs)))), shuffle=False)
    began = time.monotonic() - history["seconds"]

    def save_and_evaluate(train_loss: dict[str, float]) -> None:
        held_out_loss = evaluate(accelerator, objective, eval_stream, eval_collator, batch_size=64)
        history["seconds"] = time.monotonic() - began
        history["evaluations"].append({"step": loop.step, "train": train_loss, "held_out": held_out_loss})
        accelerator.print(f"step {loop.step}: " + ", ".join(f"{key} {value:.4f}" for key, value in held_out_loss.items()))
        if accelerator.is_main_process:
            save_checkpoint(
                checkpoints / f"step-{loop.step:08d}",
                accelerator.unwrap_model(loop.objective).model,
                state={"step": loop.step, "history": history},
                optimizer=loop.state_tensors(),
                tokenizer=tokenizer,
                keep=2,
            )

    def on_step(result: StepResult) -> None:
        if loop.step % arguments.save_steps == 0 and loop.step < arguments.steps:
            save_and_evaluate(result.losses)

    stream = ExampleStream(pairs, seed=arguments.seed)
    try:
        results = loop.run(stream, collator, on_step=on_step, description="pretraining")
    except KeyboardInterrupt:
        save_and_evaluate({})
        raise SystemExit(f"Interrupted at step {loop.step}. Go on with --resume.") from None
    save_and_evaluate(results[-1].losses if results else {})

    if accelerator.is_main_process:
        unigram = unigram_loss(pairs, eval_stream, eval_collator, vocab_size=len(tokenizer))
        save_model(arguments, accelerator.unwrap_model(loop.objective).model, tokenizer)
        report(arguments, history, len(pairs), unigram, accelerator, model.num_parameters())


def read_text(arguments: Arguments) -> tuple[Dataset, Dataset]:
    documents = concatenate_datasets([load_documents(source) for source in arguments.text])
    if arguments.eval_text:
        return documents, concatenate_datasets([load_documents(source) for source in arguments.eval_text])
    return split_documents(documents, held_out=arguments.eval_examples, seed=arguments.seed)


def load_tokenizer(
    arguments: Arguments, documents: Dataset, checkpoint: Path | None
) -> PreTrainedTokenizerBase:
    if checkpoint is not None:
        return AutoTokenizer.from_pretrained(checkpoint / MODEL)
    if arguments.model is not None:
        return AutoTokenizer.from_pretrained(arguments.model)
    return train_wordpiece(documents, vocab_size=arguments.vocab_size, max_length=arguments.max_length)


def load_model(
    arguments: Arguments, tokenizer: PreTrainedTokenizerBase, checkpoint: Path | None
) -> SchuBertForPreTraining:
    source = checkpoint / MODEL if checkpoint is not None else arguments.model
    if source is not None:
        return SchuBertForPreTraining.from_pretrained(source, dtype=torch.float32)
    set_seed(arguments.seed)
    return SchuBertForPreTraining(
        SchuBertConfig(
            vocab_size=len(tokenizer),
            hidden_size=arguments.hidden_size,
            num_hidden_layers=arguments.num_hidden_layers,
            num_attention_heads=arguments.num_attention_heads,
            intermediate_size=arguments.intermediate_size,
            max_position_embeddings=arguments.max_length,
            hidden_dropout_prob=arguments.dropout,
            attention_probs_dropout_prob=arguments.dropout,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def save_model(arguments: Arguments, model: SchuBertForPreTraining, tokenizer: PreTrainedTokenizerBase) -> None:
    """Writes the files beside `checkpoints/`; config.json last, since it is what marks a whole model."""
    output = Path(arguments.output_dir)
    with atomic_folder(output / "finished") as folder:
        (model.half() if arguments.half else model).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    for path in sorted((output / "finished").iterdir(), key=lambda path: path.name == "config.json"):
        path.replace(output / path.name)
    (output / "finished").rmdir()


def report(
    arguments: Arguments,
    history: dict[str, Any],
    examples: int,
    unigram: float,
    accelerator: Accelerator,
    parameters: int,
) -> None:
    final = history["evaluations"][-1]["held_out"]
    write_json(
        Path(arguments.output_dir) / "pretraining.json",
        {
            "arguments": asdict(arguments),
            "examples": examples,
            "epochs": arguments.steps * arguments.batch_size / examples,
            "parameters": parameters,
            "unigram_loss": unigram,
            "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, {accelerator.num_processes} process(es)",
            "device": str(accelerator.device),
            "versions": {"python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__},
            **history,
        },
    )
    print(
        f"Held-out masked-token loss {final['mlm']:.3f} nats (perplexity {math.exp(final['mlm']):.1f}, "
        f"accuracy {final['mlm_accuracy']:.3f}); unigram cross-entropy of the same tokens {unigram:.3f}.\n"
        f"Saved in {arguments.output_dir}. Next: accelerate launch examples/prune.py --model {arguments.output_dir}",
        file=sys.stdout,
    )


if __name__ == "__main__":
    main()
