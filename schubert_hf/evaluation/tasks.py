"""The nine tasks of GLUE (Wang et al. 2019, arXiv 1804.07461): names, columns, labels, metrics, sizes.

Everything that data, model and page must agree on stands in this table. The labels are in the order of the Hub's
data set, "nyu-mll/glue", whose numbers published checkpoints use.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..errors import EvaluationDataError

DATASET = "nyu-mll/glue"


@dataclass(frozen=True)
class Split:
    """One part of a task's data.

    Attributes:
        name: on the Hub.
        examples: how many the whole split has.
        stem: what the name of the official file begins with.
    """

    name: str
    examples: int
    stem: str


@dataclass(frozen=True)
class TsvLayout:
    """The official files: tab-separated, quotes are text.

    Attributes:
        columns: the text columns of the file, in the order of `Task.columns`.
        label: the column with the label.
        labels: what stands there, in the order of `Task.labels`; None for numbers.
        header: the names of the columns where the file has no line with them.
        torn_rows: rows with too few cells are known to be there and are left out.
    """

    columns: tuple[str, ...]
    label: str = "label"
    labels: tuple[str, ...] | None = ("0", "1")
    header: tuple[str, ...] | None = None
    torn_rows: bool = False


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        name: ours, which is the configuration's on the Hub as well.
        folder: the official name, which is the folder's in the official layout as well.
        columns: the text of an example, one column or two.
        labels: names of the classes; None for a number to predict.
        metrics: names for `load_metric`; the best checkpoint is chosen by the first.
        train: the split to train on.
        validation: the splits to evaluate on. The first must be there, and is the one that the paper averages.
        tsv: the official layout.
        dataset, task_type: the Hub's names of the data set and of the kind of task.
    """

    name: str
    folder: str
    columns: tuple[str, ...]
    labels: tuple[str, ...] | None
    metrics: tuple[str, ...]
    train: Split
    validation: tuple[Split, ...]
    tsv: TsvLayout
    dataset: str = DATASET
    task_type: str = "text-classification"

    @property
    def splits(self) -> tuple[Split, ...]:
        return (self.train, *self.validation)


PAIR = ("sentence1", "sentence2")
ENTAILMENT = ("entailment", "not_entailment")


def _task(
    name: str,
    folder: str,
    sizes: tuple[int, int],
    columns: tuple[str, ...],
    labels: tuple[str, ...] | None,
    tsv: TsvLayout,
    metrics: tuple[str, ...] = ("accuracy",),
    **others: Any,
) -> Task:
    train, validation = Split("train", sizes[0], "train"), Split("validation", sizes[1], "dev")
    return Task(name, folder, columns, labels, metrics, train, **{"validation": (validation,), "tsv": tsv, **others})


_ALL = (
    _task(
        "cola",
        "CoLA",
        (8551, 1043),
        ("sentence",),
        ("unacceptable", "acceptable"),
        TsvLayout(("sentence",), header=("source", "label", "mark", "sentence")),
        ("matthews_correlation",),
    ),
    _task("sst2", "SST-2", (67349, 872), ("sentence",), ("negative", "positive"), TsvLayout(("sentence",))),
    # The paper gives one number for MRPC and does not say of which metric. Its 87.8 for BERT-base is what accuracy
    # on the validation set comes to; F1 comes to about 90. So ours is accuracy, and F1 stands beside it.
    _task(
        "mrpc",
        "MRPC",
        (3668, 408),
        PAIR,
        ("not_equivalent", "equivalent"),
        TsvLayout(("#1 String", "#2 String"), label="Quality"),
        ("accuracy", "f1"),
    ),
    _task(
        "stsb",
        "STS-B",
        (5749, 1500),
        PAIR,
        None,
        TsvLayout(PAIR, label="score", labels=None),
        ("pearsonr", "spearmanr"),
    ),
    _task(
        "qqp",
        "QQP",
        (363846, 40430),
        ("question1", "question2"),
        ("not_duplicate", "duplicate"),
        TsvLayout(("question1", "question2"), label="is_duplicate", torn_rows=True),
        ("accuracy", "f1"),
    ),
    _task(
        "mnli",
        "MNLI",
        (392702, 9815),
        ("premise", "hypothesis"),
        ("entailment", "neutral", "contradiction"),
        TsvLayout(PAIR, label="gold_label", labels=("entailment", "neutral", "contradiction")),
        validation=(
            Split("validation_matched", 9815, "dev_matched"),
            Split("validation_mismatched", 9832, "dev_mismatched"),
        ),
    ),
    _task(
        "qnli",
        "QNLI",
        (104743, 5463),
        ("question", "sentence"),
        ENTAILMENT,
        TsvLayout(("question", "sentence"), labels=ENTAILMENT),
    ),
    _task("rte", "RTE", (2490, 277), PAIR, ENTAILMENT, TsvLayout(PAIR, labels=ENTAILMENT)),
    _task("wnli", "WNLI", (635, 71), PAIR, ("not_entailment", "entailment"), TsvLayout(PAIR)),
)
TASKS: dict[str, Task] = {task.name: task for task in _ALL}
# Those of GLUE that the paper is judged on (Khetan & Karnin 2020, section 4).
PAPER_TASKS = ("mnli", "mrpc", "sst2", "rte")


def find_tasks(names: str | Iterable[str]) -> tuple[Task, ...]:
    """Tasks by name, in the order asked for, each once.

    Args:
        names: "sst2", "SST-2,rte", "paper" (the paper's four), "all", or several of these.

    Raises:
        EvaluationDataError: a name that is none of them, or no name at all.
    """
    texts = [names] if isinstance(names, str) else list(names)
    wanted = [name.strip() for text in texts for name in text.split(",") if name.strip()]
    groups = {"all": tuple(TASKS), "paper": PAPER_TASKS, **{name: (name,) for name in TASKS}}
    found: dict[str, Task] = {}
    for name in wanted:
        key = re.sub(r"[^a-z0-9]", "", name.lower())  # "SST-2" is "sst2"
        if key not in groups:
            raise _unknown(repr(name))
        found |= {member: TASKS[member] for member in groups[key]}
    if not found:
        raise _unknown("empty")
    return tuple(found.values())


def _unknown(what: str) -> EvaluationDataError:
    return EvaluationDataError(
        f"`task` is {what}; allowed are {', '.join(TASKS)}, several with commas between, "
        f"`paper` ({', '.join(PAPER_TASKS)}) and `all`."
    )
