"""What `prune` takes beside a `PruningConfig`, with the help text that the command line shows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel

from ..errors import SchuBertError
from ..pruning.config import PruningConfig
from ..training.loop_config import check_ranges, option
from ..vocabulary.selection import Selection

VOCABULARY = (
    'How many words stay at most, such as 8000; what share of the text\'s tokens they cover, such as "99.9%"; or a '
    "file with one word on each line, written as the tokenizer does."
)
OBJECTIVES = ("auto", "pretraining", "outputs", "task")
# The headings of the help; the settings of a PruningConfig that stand nowhere else say how.
GROUPS: dict[str, tuple[str, ...] | None] = {
    "what": (
        "model",
        "text",
        "dataset",
        "dataset_config",
        "eval_text",
        "pair_columns",
        "pairs",
        "objective",
        "own_space",
        "task",
        "data",
        "max_train_examples",
        "max_length",
        "output_dir",
    ),
    "how much": ("target", "vocabulary", "cost", "cost_batch_size", "cost_seq_len", "dimensions", "multiple_of"),
    "how": None,
    "long runs": ("resume", "streaming", "save_steps", "keep_checkpoints", "micro_batch_size", "threads", "report_to"),
    "publishing": ("push_to_hub", "private"),
}


class SettingError(SchuBertError):
    """A setting of `prune` that does not exist, is missing, or contradicts another one."""


@dataclass
class PruneArguments:
    """What to prune, on which text, and where to put it.

    Raises:
        SettingError: a value out of its range, an objective that does not exist, or settings that contradict each
            other.
    """

    model: str | PreTrainedModel | None = option(
        None, "A BERT, a relative of it, or a SchuBERT, with any head or none: a folder or a name on the Hub."
    )
    text: str | Sequence[str] | Dataset | None = option(
        None,
        "Text to train on: a file or folder (documents between blank lines, else one per line), or a dataset on "
        "the Hub.",
    )
    dataset: str | None = option(None, "Text to train on: a dataset on the Hub, even where a folder has its name.")
    dataset_config: str | None = option(None, "The dataset's configuration.")
    eval_text: str | Sequence[str] | Dataset | None = option(
        None, "Held-out text. Default: documents of the training text that are kept apart."
    )
    pair_columns: str | None = option(
        None,
        "With --objective outputs, for models that read two texts, such as rerankers: two columns of --text (jsonl, "
        'csv, parquet or a dataset), as "query,passage".',
    )
    pairs: bool = option(
        False,
        "With --objective outputs: make pairs of passages from the text. Without --pair-columns this is always "
        "done for models that answer questions or give one score.",
    )
    objective: str = option(
        "auto",
        "What is minimised: pretraining (MLM + NSP, on text); outputs (match what the dense model gives on text "
        "without labels, whatever its head); task; or auto: task with --task, pretraining for a model with that head, "
        "else outputs.",
    )
    vocabulary: str | int | float | Sequence[str] | None = option(
        None,
        f"Trim the vocabulary to the words that the text uses, then prune. {VOCABULARY} A --target in percent of the "
        "parameters still refers to the model before trimming.",
    )
    own_space: bool = option(
        False,
        "For sentence encoders: leave embeddings as narrow as the pruned model makes them. By default a Dense module "
        "leads back to the dense width, so that stored vectors stay valid.",
    )
    task: str | None = option(
        None, "Prune a fine-tuned model on its task, with the loss of its head: a task of GLUE, squad or squad_v2."
    )
    data: str | None = option(None, "With --task: a folder with the official files. Default: the Hub.")
    max_train_examples: int | None = option(None, "With --task: train on at most this many examples.", least=1)
    streaming: bool = option(False, "Read the text while training, for corpora too large to be prepared first.")
    output_dir: str | None = option("pruned", "Folder for the result and its checkpoints.")
    max_length: int | None = option(None, "Word pieces per example. Default: 128; 384 for the SQuADs.", least=1)
    report_to: str = option(
        "tensorboard", 'Trackers, e.g. "tensorboard,wandb", or "none". TensorBoard logs are in logs/.'
    )
    resume: bool = option(False, "Resume the run whose checkpoints are in --output-dir.")
    threads: int | None = option(None, "Threads of a single process on the CPU. Default: one per core.", least=1)
    push_to_hub: str | None = option(
        None, "Publish the result under this name on the Hub; with several targets each name ends in its size."
    )
    private: bool = option(False, "With --push-to-hub: only you and your organisation see it.")

    def __post_init__(self) -> None:
        self._check_values()
        if self.objective not in OBJECTIVES:
            raise SettingError(f"`objective` is {self.objective!r}; allowed is {', '.join(OBJECTIVES)}.")
        if self.task is None and self.objective == "task":
            raise SettingError(
                "`objective` is 'task' and `task` is missing. Name the task that the model was fine-tuned on: one of "
                "GLUE, such as sst2, or squad or squad_v2."
            )
        if self.task is not None and self.objective in ("pretraining", "outputs"):
            raise SettingError(
                f"`objective` is {self.objective!r} and `task` is {self.task!r}. Give one or the other."
            )
        texts = (self.text, self.dataset, self.eval_text)
        if self.task is not None and (self.streaming or any(text is not None for text in texts)):
            raise SettingError(
                "`--task` brings its own examples; `--text`, `--dataset`, `--eval-text` and `--streaming` are for "
                "runs without it. Give one or the other."
            )
        if self.vocabulary is not None:
            Selection.parse(self.vocabulary)
        self._check_pairs()
        if self.push_to_hub is not None and self.output_dir is None:
            raise SettingError("`push_to_hub` needs `output_dir`. Give a folder, or call `result.push_to_hub(...)`.")

    def _check_values(self) -> None:
        check_ranges(self, SettingError)
        for name, value in vars(self).items():
            if isinstance(value, str) and not value.strip():  # as a path, "" is the working folder: nobody means that
                raise SettingError(f"`{name}` is empty. Give a value, or leave it out.")

    def _check_pairs(self) -> None:
        wanted = [name for name in ("pairs", "pair_columns") if getattr(self, name)]
        if wanted and (self.objective in ("pretraining", "task") or self.task is not None):
            raise SettingError(f"`{wanted[0]}` is for `objective` 'outputs'. Leave it out, or leave out the other.")
        if self.pair_columns is not None:
            if len(self.columns) != 2 or len(set(self.columns)) != 2:
                raise SettingError(f'`pair_columns` is {self.pair_columns!r}; give two names, as "query,passage".')
            if self.streaming:
                raise SettingError("`pair_columns` cannot be streamed. Leave out one of the two.")

    @property
    def columns(self) -> list[str]:
        """The names in `pair_columns`."""
        return [name.strip() for name in (self.pair_columns or "").split(",") if name.strip()]

    def check_complete(self) -> None:
        """Raises `SettingError` where there is no model, or no text and no task."""
        if self.model is None:
            raise SettingError(
                "`model` is missing. Give a BERT or a relative of it, a folder or a name on the Hub, and the text to "
                "prune it on: `schubert prune google-bert/bert-base-uncased --target 60% --text corpus.txt`."
            )
        if self.source is None and self.task is None:
            raise SettingError(
                "`text` is missing: what the model is pruned on. Give a file, a folder or a dataset's name "
                "(`--text corpus.txt`, from Python `text=`); a fine-tuned model can be pruned on its task instead "
                "(`--task sst2`)."
            )

    @property
    def source(self) -> Any:
        """The text to train on; None where there is none."""
        return self.text if self.dataset is None else self.dataset


def read_settings(settings: dict[str, Any]) -> tuple[PruneArguments, PruningConfig]:
    """Settings by name, as the two dataclasses that they belong to; a path may be a `Path`.

    Raises:
        SettingError: no setting has that name.
        PruningConfigError: a value out of its range.
    """
    known = [option.name for kind in (PruneArguments, PruningConfig) for option in fields(kind)]
    for name in settings:
        if name not in known:
            matches = " or ".join(f"`{match}`" for match in get_close_matches(name, known))
            hint = f"Did you mean {matches}? " if matches else ""
            raise SettingError(f"`{name}` is no setting of `prune`. {hint}`schubert prune --help` lists all.")

    def fill(kind: type[Any]) -> Any:
        names = [option.name for option in fields(kind) if option.name in settings]
        return kind(**{name: _plain(settings[name]) for name in names})

    return fill(PruneArguments), fill(PruningConfig)


def _plain(value: Any) -> Any:
    return str(Path(value)) if isinstance(value, os.PathLike) else value
