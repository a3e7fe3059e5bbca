"""SQuAD, ready to be trained on and evaluated."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

from accelerate import Accelerator
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from ..errors import EvaluationDataError
from ..training.evaluate import predict
from ..training.loop_config import check_ranges, option
from ..training.objective import Objective
from .encoding import TaskCollator, make_windows
from .metrics import load_metric
from .objectives import QuestionAnsweringObjective
from .squad_answers import Answer, find_answers
from .squad_data import SquadTask, load_squad
from .task_examples import TaskExamples, first_examples


@dataclass(frozen=True)
class SquadConfig:
    """How questions become windows, and logits answers. The defaults are those of BERT's published code.

    Raises:
        EvaluationDataError: a value out of its range.
    """

    max_length: int = option(384, "Word pieces per window.", least=1)
    stride: int = option(128, "Word pieces by which neighbouring windows overlap.", least=1)
    max_question_length: int = option(64, "Word pieces of a question; longer ones are cut.", least=1)
    max_answer_length: int = option(30, "Word pieces of an answer, at most.", least=1)
    n_best: int = option(20, "Candidates that are kept of each question.", least=1)
    no_answer_threshold: float = option(
        0.5,
        "squad_v2: probability above which a question has no answer. See best_f1_thresh in the results.",
        least=0,
        most=1,
    )

    def __post_init__(self) -> None:
        check_ranges(self, EvaluationDataError)


@dataclass
class SquadEvaluation:
    """Answers every question of a split and compares the answers with the references: an `Evaluate`.

    Attributes:
        inputs: the windows as the model reads them.
        answers: of the last call.
    """

    task: SquadTask
    questions: Dataset
    windows: Dataset
    inputs: Dataset
    collator: TaskCollator
    config: SquadConfig
    answers: list[Answer] = field(default_factory=list)

    def __call__(self, accelerator: Accelerator, objective: Objective, batch_size: int) -> dict[str, dict[str, float]]:
        name = f"{self.task.name} validation"
        logits = predict(accelerator, objective, self.inputs, self.collator, batch_size=batch_size, description=name)
        self.answers = find_answers(
            self.questions,
            self.windows,
            logits["start"],
            logits["end"],
            n_best=self.config.n_best,
            max_answer_length=self.config.max_answer_length,
        )
        predictions = [{"id": answer.id, "prediction_text": answer.text} for answer in self.answers]
        options = {}
        if self.task.unanswerable:
            for prediction, answer in zip(predictions, self.answers, strict=True):
                prediction["no_answer_probability"] = answer.no_answer_probability  # type: ignore[assignment]
            options = {"no_answer_threshold": self.config.no_answer_threshold}
        references = self.questions.select_columns(["id", "answers"]).to_list()
        metric = load_metric(self.task.name)
        return {"validation": metric.compute(predictions=predictions, references=references, **options)}

    def predictions(self) -> dict[str, str]:
        """Answers by id, as the official scripts read them."""
        threshold = self.config.no_answer_threshold if self.task.unanswerable else None
        return {answer.id: answer.final(threshold) for answer in self.answers}


def open_squad(
    task: SquadTask,
    tokenizer: PreTrainedTokenizerBase,
    config: SquadConfig | None = None,
    *,
    data: Path | None = None,
    max_train_examples: int | None = None,
    max_eval_examples: int | None = None,
    train: bool = True,
) -> TaskExamples:
    """Reads a version of SQuAD and cuts it into windows.

    Args:
        task: see `squad_data.SQUADS`.
        tokenizer: of the model.
        config: see there.
        data: folder with the official files; None: the Hub.
        max_train_examples, max_eval_examples: limits of the questions of a split; the first are taken.
        train: whether to read the training split.

    Raises:
        EvaluationDataError: the data cannot be loaded, is not that of the version, or does not fit into windows.
    """
    config = config or SquadConfig()
    most = {"train": max_train_examples, "validation": max_eval_examples}
    questions = {
        split: first_examples(found, most[split], f"{task.name} {split}")
        for split, found in load_squad(task, data, train=train).items()
    }
    shape = {name: getattr(config, name) for name in ("max_length", "stride", "max_question_length")}
    windows = {split: make_windows(part, tokenizer, **shape) for split, part in questions.items()}
    inputs = {split: part.remove_columns(["question", "offsets"]) for split, part in windows.items()}
    collator = TaskCollator(tokenizer)
    held_out = questions["validation"]
    return TaskExamples(
        name=task.name,
        dataset=task.dataset,
        config=None,
        data=data,
        labels=None,
        objective=QuestionAnsweringObjective,
        collator=collator,
        train=inputs.get("train"),
        held_out=inputs["validation"],
        evaluate=SquadEvaluation(task, held_out, windows["validation"], inputs["validation"], collator, config),
        sizes={split: (len(part), task.sizes[split]) for split, part in questions.items()},
        max_length=config.max_length,
        details={name: value for name, value in asdict(config).items() if name != "max_length"},
    )
