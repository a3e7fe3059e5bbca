"""How well a masked language model knows text: held-out loss, masked accuracy, pseudo-perplexity."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from datasets import Dataset
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.spans import pretraining_makers
from ..data.stream import ExampleStream, MaskingCollator, StreamError
from ..data.text import load_documents
from ..errors import EvaluationDataError
from ..heads import masked_lm
from ..run.processes import make_accelerator
from ..run.progress import progress_bar
from ..training.evaluate import evaluate
from ..training.objective import PretrainingObjective
from .results import Evaluation

TASK = "mlm"


@dataclass(frozen=True)
class LanguageModelResult:
    """What was measured; the pseudo-perplexity is that of Salazar et al. 2020 (arXiv 1910.14659)."""

    loss: float  # mean cross-entropy of a masked token, in nats
    accuracy: float  # the share of masked tokens that are predicted correctly
    masked_examples: int  # that both are the mean of
    # exp of the mean negative log-probability of a token, each masked on its own; None if it was not asked for
    pseudo_perplexity: float | None
    scored_examples: int  # that it is the mean of
    scored_tokens: int
    next_sentence_loss: float | None  # None without that head
    next_sentence_accuracy: float | None
    seed: int  # of the masks

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}

    def to_evaluation(self, dataset: str, run: dict[str, Any]) -> Evaluation:
        """The same in the form of all results; see there."""
        names = ("loss", "accuracy", "pseudo_perplexity", "next_sentence_loss", "next_sentence_accuracy")
        measured = self.to_json()
        return Evaluation(
            task=TASK,
            dataset=dataset,
            task_type="fill-mask",
            split="held out",
            metrics={name: [measured[name]] for name in names if name in measured},
            examples=self.masked_examples,
            run=run,
            notes=f"pseudo-perplexity on {self.scored_examples} examples" if self.scored_examples else None,
        )


def evaluate_model(
    model: PreTrainedModel,
    task: str = TASK,
    *,
    dataset: str | Path | Dataset,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int = 128,
    batch_size: int = 32,
    examples: int | None = None,
    scored_examples: int = 100,
    seed: int = 0,
    accelerator: Accelerator | None = None,
) -> LanguageModelResult:
    """Measures a SchuBERT or BERT with a masked-LM head on held-out text; the model is left unchanged.

    Args:
        task: "mlm". Task heads are evaluated by examples/run_glue.py and run_squad.py.
        dataset: text as `load_documents` takes it, documents (column `text`), or examples as `make_pairs` or
            `make_spans` gives them.
        max_length: word pieces per example.
        batch_size: examples per process and forward pass.
        examples: at most so many; None: all.
        scored_examples: how many of them, from the first on, the pseudo-perplexity is measured on, which takes one
            forward pass for each token; 0 omits it.
        seed: of the masks, which are 15 % of the tokens.
        accelerator: decides devices, processes and precision; every process must call. By default one is made.

    Raises:
        EvaluationDataError: another task, or a data set that is neither text nor examples.
        ObjectiveError: the model has no masked-LM head.
        NonFiniteLossError: the loss is NaN or infinite.
        TextSourceError, TokenizerError: as `load_documents` and `make_pairs`.
    """
    if task != TASK:
        raise EvaluationDataError(
            f"`task` is {task!r}; allowed is '{TASK}'. GLUE and SQuAD: examples/run_glue.py and examples/run_squad.py."
        )
    accelerator = accelerator or make_accelerator()
    flags, was_training = {parameter: parameter.requires_grad for parameter in model.parameters()}, model.training
    try:
        objective = PretrainingObjective(model)
        with accelerator.main_process_first():
            prepared = _examples(model, dataset, tokenizer, max_length, seed)
        total = min(examples or len(prepared), len(prepared))
        held_out = evaluate(
            accelerator,
            objective,
            ExampleStream(prepared, shuffle=False),
            MaskingCollator(tokenizer, seed=seed),
            batch_size=batch_size,
            examples=total,
            description="masked words",
        )
        scored = min(scored_examples, total)
        surprise, tokens = _pseudo_surprise(
            accelerator, objective, prepared.select(range(scored)), tokenizer, batch_size
        )
    except StreamError as error:
        raise EvaluationDataError(f"`dataset` holds no examples: {error}") from error
    finally:
        model.train(was_training)
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)
    return LanguageModelResult(
        loss=held_out["mlm"],
        accuracy=held_out["mlm_accuracy"],
        masked_examples=total,
        pseudo_perplexity=math.exp(surprise / tokens) if tokens else None,
        scored_examples=scored,
        scored_tokens=tokens,
        next_sentence_loss=held_out.get("nsp"),
        next_sentence_accuracy=held_out.get("nsp_accuracy"),
        seed=seed,
    )


def _examples(
    model: PreTrainedModel,
    dataset: str | Path | Dataset,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    seed: int,
) -> Dataset:
    documents = dataset if isinstance(dataset, Dataset) else load_documents(dataset)
    if "input_ids" in documents.column_names:
        return documents
    if "text" not in documents.column_names:
        raise EvaluationDataError(
            f"`dataset` has the columns {documents.column_names}; expected is `text`, or what `make_pairs` gives."
        )
    make, _ = pretraining_makers(model)
    return make(documents, tokenizer, max_length=max_length, seed=seed)


def _pseudo_surprise(
    accelerator: Accelerator,
    objective: PretrainingObjective,
    pairs: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    batch_size: int,
) -> tuple[float, int]:
    """The negative log-probabilities of all tokens that are not special, each masked on its own, summed; how many."""
    model, head = objective.model, masked_lm(objective.model)
    assert head is not None
    model.to(accelerator.device).eval()
    own = range(len(pairs))[accelerator.process_index :: accelerator.num_processes]
    sums = torch.zeros(2, dtype=torch.float64)
    bar = progress_bar(accelerator, own, "pseudo-perplexity")
    with torch.no_grad(), accelerator.autocast():
        for number in bar:
            for batch in _masked_copies(pairs[number], tokenizer, batch_size):
                copies, places, wanted = send_to_device(batch, accelerator.device)
                encoded = model.base_model(**copies).last_hidden_state
                logits = head.module(encoded[range(len(places)), places])  # (copies, vocab)
                sums[0] += float(cross_entropy(logits.float(), wanted, reduction="sum"))
                sums[1] += len(places)
    # In float32 where the device has no double; the sums of few processes lose nothing that counts.
    total = accelerator.reduce(sums.float().to(accelerator.device), reduction="sum").tolist()
    return total[0], round(total[1])


def _masked_copies(
    example: dict[str, Any], tokenizer: PreTrainedTokenizerBase, batch_size: int
) -> Iterator[tuple[dict[str, Tensor], Tensor, Tensor]]:
    """Batches of one example over and over, in each copy another token masked; which, and what stood there."""
    ids = torch.tensor(example["input_ids"])
    special = torch.tensor(tokenizer.all_special_ids)
    for places in (~torch.isin(ids, special)).nonzero().flatten().split(batch_size):  # type: ignore[no-untyped-call]
        names = {"input_ids", "token_type_ids"} & example.keys()
        batch = {name: torch.tensor(example[name]).repeat(len(places), 1) for name in names}
        batch["input_ids"][range(len(places)), places] = tokenizer.mask_token_id
        yield batch, places, ids[places]
