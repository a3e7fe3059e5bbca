"""Pretrains a BERT of any shape with MLM + NSP, from scratch or onwards from a checkpoint.

    accelerate launch examples/pretrain.py --text my_text.txt --output-dir my-bert --steps 200 --hidden-size 96

From scratch a WordPiece vocabulary is trained on the same text; with `--model` its tokenizer and weights are kept. The
run can be interrupted at any moment (Ctrl-C, SIGTERM); `--resume` continues it. Its record is
OUTPUT_DIR/pretraining.json.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, set_seed
from datasets import Dataset, concatenate_datasets
from starts import initialize_local_attention, stack_layers, train_wordpiece
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from schubert_hf import SchuBertConfig, SchuBertForPreTraining
from schubert_hf.cli import parse
from schubert_hf.conversion import ConversionError, to_bert
from schubert_hf.data.pairs import make_pairs
from schubert_hf.data.text import load_documents, split_documents
from schubert_hf.run.checkpoint import MODEL, CheckpointError
from schubert_hf.run.output import check_output_folder
from schubert_hf.run.processes import script
from schubert_hf.run.session import CHECKPOINTS, find_checkpoint
from schubert_hf.training.loop_config import LoopConfigError, option
from schubert_hf.training.pretraining import Pretraining, PretrainingConfig

# What may differ between a run and its continuation: it changes no weight.
FREE = {"threads", "output_dir", "resume", "save_steps", "micro_batch_size", "workers", "half"}


@dataclass(frozen=True, kw_only=True)
class Arguments(PretrainingConfig):
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
    threads: int | None = option(None, "Threads of a single process on the CPU. Default: one per core.")
    resume: bool = option(False, "Resume from the newest checkpoint in --output-dir.")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("vocab_size", "stack"):
            if getattr(self, name) < 1:
                raise LoopConfigError(f"`{name}` is {getattr(self, name)}; allowed is a number of at least 1.")


def main() -> None:
    (arguments,) = parse("Pretrains a BERT with MLM + NSP.", Arguments)
    with script(arguments.threads) as accelerator:
        pretrain(arguments, accelerator)
        if accelerator.is_main_process:
            print(f"Saved. Next: accelerate launch examples/prune.py --model {arguments.output_dir}")


def pretrain(arguments: Arguments, accelerator: Accelerator) -> None:
    """Reads, trains, saves."""
    checkpoint = open_output(arguments, accelerator)
    set_seed(arguments.seed)
    model, tokenizer = load_checkpoint(arguments, checkpoint)
    with accelerator.main_process_first():
        documents, held_out = read_text(arguments)
    tokenizer = tokenizer or train_tokenizer(arguments, accelerator, documents)
    with accelerator.main_process_first():
        pairs, eval_pairs = (
            make_pairs(part, tokenizer, max_length=arguments.max_length, seed=arguments.seed)
            for part in (documents, held_out)
        )
    run = Pretraining(
        accelerator,
        model or new_model(arguments, tokenizer),
        tokenizer,
        pairs,
        eval_pairs,
        arguments,
        output=Path(arguments.output_dir),
        settings={name: value for name, value in asdict(arguments).items() if name not in FREE},
    )
    run.run(resume=arguments.resume)
    run.finish(asdict(arguments), as_bert)


def open_output(arguments: Arguments, accelerator: Accelerator) -> Path | None:
    """The checkpoint to resume from, if any; refuses before anything is loaded."""
    check_output_folder(Path(arguments.output_dir))
    folder = Path(arguments.output_dir) / CHECKPOINTS
    checkpoint = find_checkpoint(accelerator, folder, resume=arguments.resume)
    if arguments.resume and checkpoint is None:
        raise CheckpointError(f"`{folder}` holds no whole checkpoint to resume. Start without --resume.")
    return checkpoint


def read_text(arguments: Arguments) -> tuple[Dataset, Dataset]:
    """Documents to train on, and held-out ones."""
    documents = concatenate_datasets([load_documents(source) for source in arguments.text])
    if arguments.eval_text:
        return documents, concatenate_datasets([load_documents(source) for source in arguments.eval_text])
    return split_documents(documents, held_out=arguments.eval_examples, seed=arguments.seed)


def load_checkpoint(
    arguments: Arguments, checkpoint: Path | None
) -> tuple[SchuBertForPreTraining | None, PreTrainedTokenizerBase | None]:
    """Model and tokenizer to train: of this run's checkpoint, or of `--model`; none from scratch."""
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
