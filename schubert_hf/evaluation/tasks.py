"""The nine tasks of GLUE (Wang et al. 2019, arXiv 1804.07461): names, columns, labels, metrics, sizes, files.

Labels are in the order of the Hub's data set, "nyu-mll/glue", whose numbers published checkpoints use.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import EvaluationDataError

DATASET = "nyu-mll/glue"


def plain_name(name: str) -> str:
    """Our name, and the Hub's, of a task in any spelling: "SST-2" is "sst2"."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        folder: the official name, which is also that of the folder with the official files.
        splits: the number of examples of each split on the Hub: first `train`, then those to evaluate on. The first
            of these is required, and is the one that the paper averages.
        columns: the text of an example, one column or two.
        labels: names of the classes; None for a number to predict.
        metrics: names for `load_metric`; the best checkpoint is chosen by the first.
        file_columns: what the official files call `columns`.
        file_label: what they call the column with the label.
        named_labels: whether that column holds names of labels instead of their numbers.
        header: names of the columns, if the files have no line with them.
        torn_rows: whether rows with too few cells are expected, and skipped.
    """

    folder: str
    splits: dict[str, int]
    columns: tuple[str, ...]
    labels: tuple[str, ...] | None
    metrics: tuple[str, ...] = ("accuracy",)
    file_columns: tuple[str, ...] = ()
    file_label: str = "label"
    named_labels: bool = False
    header: tuple[str, ...] = ()
    torn_rows: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "file_columns", self.file_columns or self.columns)

    @property
    def name(self) -> str:
        return plain_name(self.folder)

    @property
    def validation(self) -> tuple[str, ...]:
        """The splits to evaluate on, the main one first."""
        return tuple(self.splits)[1:]

    @property
    def file_labels(self) -> tuple[str, ...] | None:
        """The labels as the official files spell them; None for numbers."""
        return self.labels if self.named_labels or self.labels is None else tuple(map(str, range(len(self.labels))))


def _sizes(train: int, validation: int) -> dict[str, int]:
    return {"train": train, "validation": validation}


PAIR = ("sentence1", "sentence2")
QUESTIONS = ("question1", "question2")
ENTAILMENT = ("entailment", "not_entailment")
_ALL = (
    Task(
        "CoLA",
        _sizes(8551, 1043),
        ("sentence",),
        ("unacceptable", "acceptable"),
        ("matthews_correlation",),
        header=("source", "label", "mark", "sentence"),
    ),
    Task("SST-2", _sizes(67349, 872), ("sentence",), ("negative", "positive")),
    # The paper gives one number for MRPC without naming the metric. Its 87.8 for BERT-base is BERT-base's accuracy on
    # the validation set; F1 would be about 90. So accuracy comes first, and F1 is reported beside it.
    Task(
        "MRPC",
        _sizes(3668, 408),
        PAIR,
        ("not_equivalent", "equivalent"),
        ("accuracy", "f1"),
        file_columns=("#1 String", "#2 String"),
        file_label="Quality",
    ),
    Task("STS-B", _sizes(5749, 1500), PAIR, None, ("pearsonr", "spearmanr"), file_label="score"),
    Task(
        "QQP",
        _sizes(363846, 40430),
        QUESTIONS,
        ("not_duplicate", "duplicate"),
        ("accuracy", "f1"),
        file_label="is_duplicate",
        torn_rows=True,
    ),
    Task(
        "MNLI",
        {"train": 392702, "validation_matched": 9815, "validation_mismatched": 9832},
        ("premise", "hypothesis"),
        ("entailment", "neutral", "contradiction"),
        file_columns=PAIR,
        file_label="gold_label",
        named_labels=True,
    ),
    Task("QNLI", _sizes(104743, 5463), ("question", "sentence"), ENTAILMENT, named_labels=True),
    Task("RTE", _sizes(2490, 277), PAIR, ENTAILMENT, named_labels=True),
    Task("WNLI", _sizes(635, 71), PAIR, ("not_entailment", "entailment")),
)
TASKS: dict[str, Task] = {task.name: task for task in _ALL}
# Those of GLUE that the paper is judged on (Khetan & Karnin 2020, section 4).
PAPER_TASKS = ("mnli", "mrpc", "sst2", "rte")


def find_tasks(names: str | Iterable[str]) -> tuple[Task, ...]:
    """Tasks by name, in the given order, each once.

    Args:
        names: "sst2", "SST-2,rte", "paper" (the paper's four), "all", or several of these.

    Raises:
        EvaluationDataError: a name that is none of them, or no name at all.
    """
    texts = [names] if isinstance(names, str) else names
    wanted = [name.strip() for text in texts for name in text.split(",") if name.strip()]
    groups = {"all": tuple(TASKS), "paper": PAPER_TASKS, **{name: (name,) for name in TASKS}}
    unknown = [repr(name) for name in wanted if plain_name(name) not in groups]
    if unknown or not wanted:
        raise EvaluationDataError(
            f"`task` is {', '.join(unknown) or 'empty'}; allowed are {', '.join(TASKS)}, several separated by commas, "
            f"`paper` ({', '.join(PAPER_TASKS)}) and `all`."
        )
    return tuple(TASKS[name] for name in dict.fromkeys(name for key in wanted for name in groups[plain_name(key)]))
