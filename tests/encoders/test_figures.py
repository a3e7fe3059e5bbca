"""The figures of `schubert evaluate`, against cases that are computed by hand."""

import json

import pytest
import torch

from schubert_hf.errors import EvaluationDataError
from schubert_hf.evaluation.agreement import agree
from schubert_hf.evaluation.embeddings import compare_embeddings
from schubert_hf.evaluation.paraphrases import average_precision, read_paraphrases
from schubert_hf.evaluation.retrieval import rank_paragraphs, read_questions


def at(*degrees):
    """Points on the unit circle."""
    angles = torch.tensor(degrees) * torch.pi / 180
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_equal_embeddings_agree_wholly_and_turned_ones_but_for_their_place():
    dense = at(0.0, 10.0, 35.0, 90.0)
    assert compare_embeddings(dense, dense) == pytest.approx({"cosine": 1, "rank_correlation": 1, "neighbours": 1})
    turned = compare_embeddings(at(60.0, 70.0, 95.0, 150.0), dense)
    assert turned == pytest.approx({"cosine": 0.5, "rank_correlation": 1, "neighbours": 1})
    narrow = compare_embeddings(dense[:, :1], dense)
    assert "cosine" not in narrow


def test_predictions_of_one_label_and_of_several():
    """Of several labels, two models agree where all of them lie on the same side of 0, whichever is the largest."""
    own = torch.tensor([[2.0, 1.0, -1.0], [2.0, -1.0, -1.0], [-1.0, -2.0, -3.0]])
    dense = torch.tensor([[1.0, 2.0, -1.0], [2.0, 1.0, -1.0], [-3.0, -2.0, -1.0]])
    assert agree(own, dense) == pytest.approx(1 / 3)
    assert agree(own, dense, several=True) == pytest.approx(2 / 3)


def test_neighbours_are_counted_without_the_text_itself():
    torch.manual_seed(0)
    dense, swapped = torch.randn(30, 8), torch.randn(30, 8)
    own = torch.where(torch.arange(30)[:, None] < 15, dense, swapped)

    def nearest(x):
        x = torch.nn.functional.normalize(x, dim=1)
        return [set(sorted(set(range(30)) - {n}, key=lambda m: -float(x[n] @ x[m]))[:10]) for n in range(30)]

    shared = [len(a & b) / 10 for a, b in zip(nearest(own), nearest(dense), strict=True)]
    assert compare_embeddings(own, dense)["neighbours"] == pytest.approx(sum(shared) / 30)


def test_rank_correlation_of_the_pairs():
    # Similarities of the pairs (0, 1), (0, 2), (1, 2) fall with 10, 30, 20 degrees; with 10, 30, 40 the last two swap.
    found = compare_embeddings(at(0.0, 10.0, -30.0), at(0.0, 10.0, 30.0))
    assert found["rank_correlation"] == pytest.approx(0.5)


def test_too_few_texts_are_an_error():
    with pytest.raises(EvaluationDataError, match="2 and 2 texts"):
        compare_embeddings(at(0.0, 1.0), at(0.0, 1.0))


def test_a_paragraph_that_is_second_counts_a_half(tmp_path):
    paragraphs = at(*(8.0 * n for n in range(12)))
    found = rank_paragraphs(at(1.0, 9.0, 88.0), paragraphs, [0, 2, 0])  # first, second, twelfth
    assert found == pytest.approx({"mrr@10": 0.5, "recall@10": 2 / 3})
    questions = [
        {"id": str(n), "question": f"Who {n}?", "answers": [{"text": "A", "answer_start": 0}]} for n in range(3)
    ]
    paragraphs = [{"context": "A b.", "qas": questions[:2]}, {"context": "A c.", "qas": questions[2:]}]
    (tmp_path / "dev.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    assert read_questions(tmp_path / "dev.json") == (["Who 0?", "Who 1?", "Who 2?"], ["A b.", "A c."], [0, 0, 1])
    assert read_questions(tmp_path / "dev.json", 2) == (["Who 0?", "Who 1?"], ["A b.", "A c."], [0, 0])


def test_average_precision_of_paraphrases(tmp_path):
    first, second = at(0.0, 0.0, 0.0, 0.0), at(10.0, 20.0, 30.0, 40.0)
    # Ordered by similarity the labels are 1, 0, 1, 0: (1 / 1 + 2 / 3) / 2.
    assert average_precision(first, second, [1, 0, 1, 0]) == pytest.approx(5 / 6)
    with pytest.raises(EvaluationDataError, match="same label"):
        average_precision(first, second, [1, 1, 1, 1])
    head = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
    (tmp_path / "dev.tsv").write_text(f'{head}1\t1\t2\tA "b\tC\n0\t3\t4\tD\tE\n', encoding="utf-8")
    assert read_paraphrases(tmp_path) == (['A "b', "D"], ["C", "E"], [1, 0])
