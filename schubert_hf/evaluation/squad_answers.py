"""Logits of windows to answers: the best spans of all windows of a question, and how likely it has none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor


@dataclass(frozen=True)
class Span:
    """A candidate: `text` of the context from character `start` to before `end`, and the sum of its two logits."""

    text: str
    start: int
    end: int
    score: float


@dataclass(frozen=True)
class Answer:
    """What a model says to a question.

    Attributes:
        id: of the question.
        spans: the best, the likeliest first; none where no window has a token of the context.
        null_score: the sum of the two logits of [CLS], the least of all windows.
    """

    id: str
    spans: tuple[Span, ...]
    null_score: float

    @property
    def text(self) -> str:
        """The best span, whether or not the question seems to have an answer."""
        return self.spans[0].text if self.spans else ""

    @property
    def null_difference(self) -> float:
        """How much better no answer is than the best span."""
        return self.null_score - self.spans[0].score if self.spans else math.inf

    @property
    def no_answer_probability(self) -> float:
        """The logistic function of `null_difference`: above 0.5 where no answer is better."""
        return 0.5 * (1 + math.tanh(self.null_difference / 2))

    def final(self, threshold: float | None) -> str:
        """The answer: empty where `no_answer_probability` is above the threshold; None always answers."""
        return "" if threshold is not None and self.no_answer_probability > threshold else self.text

    def to_json(self) -> list[dict[str, Any]]:
        """The spans with their probabilities among each other, as in the official `nbest_predictions.json`."""
        shares = torch.tensor([span.score for span in self.spans], dtype=torch.float64).softmax(-1).tolist()
        return [
            {"text": span.text, "probability": share, "score": span.score}
            for span, share in zip(self.spans, shares, strict=True)
        ]


def find_answers(
    questions: Dataset,
    windows: Dataset,
    start_logits: Sequence[Tensor],
    end_logits: Sequence[Tensor],
    *,
    n_best: int = 20,
    max_answer_length: int = 30,
) -> list[Answer]:
    """The answers to all questions, in their order.

    Every span of at most `max_answer_length` tokens of the context is scored, in every window; of a span that several
    windows have, the best score counts.

    Args:
        questions: see `squad_data.load_squad`.
        windows: of these questions, see `squad_features.make_windows`.
        start_logits, end_logits: one tensor of shape (seq,) per window; beyond the window's length it is padding.
        n_best: spans to keep of each question.
        max_answer_length: tokens.
    """
    found: list[dict[tuple[int, int], float]] = [{} for _ in range(len(questions))]
    null = [math.inf] * len(questions)
    for window, start, end in zip(windows, start_logits, end_logits, strict=True):
        number, offsets = window["question"], window["offsets"]
        size = len(offsets)
        null[number] = min(null[number], float(start[0] + end[0]))
        for span, score in _best_spans(start[:size], end[:size], offsets, n_best, max_answer_length).items():
            found[number][span] = max(score, found[number].get(span, -math.inf))
    answers = []
    for number, question in enumerate(questions):
        best = sorted(found[number].items(), key=lambda item: (-item[1], item[0]))[:n_best]
        context = question["context"]
        spans = tuple(Span(context[start:end], start, end, score) for (start, end), score in best)
        answers.append(Answer(question["id"], spans, null[number]))
    return answers


def _best_spans(
    start: Tensor, end: Tensor, offsets: list[list[int]], n_best: int, most: int
) -> dict[tuple[int, int], float]:
    """The best spans of a window, by characters (start, end)."""
    inside = torch.tensor([span[1] > span[0] >= 0 for span in offsets])  # (seq,)
    start, end = (logits.masked_fill(~inside, -math.inf) for logits in (start, end))
    # Row by first token, column by how many tokens follow it: (seq, most), instead of all (seq, seq).
    following = torch.nn.functional.pad(end, (0, most - 1), value=-math.inf).unfold(0, most, 1)
    scores = start[:, None] + following
    values, places = scores.flatten().topk(min(n_best, scores.numel()))
    scored = ((value, *divmod(place, most)) for value, place in zip(values.tolist(), places.tolist(), strict=True))
    return {(offsets[i][0], offsets[i + more][1]): value for value, i, more in scored if value > -math.inf}
