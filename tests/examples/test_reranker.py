"""A reranker's training data and figures, on a paragraph whose sentences are known; and the script as it is run."""

import json
import random
import sys
from pathlib import Path

import pytest
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer

from schubert_hf.pruning.config import PruningConfigError

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "benchmarks" / "reranker.py"
sys.path.insert(0, str(SCRIPT.parent))

import reranker as example  # noqa: E402

PARAGRAPHS = {
    "Swifts sleep on the wing. Owls sleep by day. Bats sleep upside down.": {
        "By day?": "Owls",
        "Who flies?": "Swifts",
    },
    "The king lost a ship. Owls sleep by day.": {"What was lost?": "ship"},
}


@pytest.fixture
def squad(tmp_path):
    """Two paragraphs in SQuAD's layout, with a sentence in common, and a question that has no answer."""
    paragraphs = []
    for context, answers in PARAGRAPHS.items():
        asked = [
            {"id": question, "question": f" {question}", "answers": [{"text": x, "answer_start": context.index(x)}]}
            for question, x in answers.items()
        ]
        asked.append({"id": context, "question": "Why?", "answers": [], "is_impossible": True})
        paragraphs.append({"context": context, "qas": asked})
    path = tmp_path / "squad.json"
    path.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    return path


def test_the_right_sentence_holds_the_answer(squad):
    found = example.Questions.read([squad])
    assert found.asked == ["By day?", "Who flies?", "What was lost?"]
    assert found.sentences == [
        "Swifts sleep on the wing.",
        "Owls sleep by day.",
        "Bats sleep upside down.",
        "The king lost a ship.",
    ]
    assert found.right == [1, 0, 3]
    assert found.near == [[0, 2], [1, 2], [1]]
    some = example.Questions.read([squad], 1)
    assert (len(some.asked), some.sentences) == (1, found.sentences)


def test_fewer_sentences_than_a_list_has_are_refused(squad, tmp_path):
    paragraphs = json.loads(squad.read_text())["data"][0]["paragraphs"]
    squad.write_text(json.dumps({"data": [{"paragraphs": paragraphs[:1]}]}))
    arguments = example.Arguments(dev=str(squad), train=str(squad))
    with pytest.raises(PruningConfigError, match="has 3 different sentences; a list to rank takes 4 of them"):
        example.make(arguments, None, tmp_path / "reranker")
    assert not (tmp_path / "reranker").exists()


def test_lists_hold_the_right_sentence_and_different_wrong_ones(squad):
    """The wanted scores differ by the encoder's cosines, and by the bonus of the right one."""
    questions = example.Questions.read([squad])
    angles = torch.tensor([0.0, 0.1, 0.2, 0.3])
    sentences = torch.stack([angles.cos(), angles.sin()], -1)
    asked = sentences[[1, 0, 3]]
    made = example.lists(questions, (asked, sentences), [[0, 1, 2, 3]] * 3, 7, random.Random(0))
    assert len(made) == 7
    assert {*made["question"]} == {*questions.asked}
    for row in made:
        place = questions.asked.index(row["question"])
        numbers = [questions.sentences.index(one) for one in row["sentences"]]
        assert numbers[0] == questions.right[place]
        assert len(set(numbers)) == 1 + example.WRONG
        cosines = torch.cos(angles[numbers] - angles[questions.right[place]])
        bonus = torch.tensor([example.BONUS, 0, 0, 0])
        assert row["labels"] == pytest.approx((example.SHARPNESS * cosines + bonus).tolist(), abs=1e-4)


def test_mean_reciprocal_rank_ends_at_the_tenth():
    ranked = [[4, 3], [*range(10, 20), 5], [7], [1, 2, 6]]
    assert example.mean_reciprocal_rank([4, 5, 8, 6], ranked) == pytest.approx((1 + 0 + 0 + 1 / 3) / 4)


def test_candidates_are_ordered_by_their_scores(squad):
    class Longest:
        def predict(self, pairs):
            assert {question for question, _ in pairs} == {"By day?", "Who flies?", "What was lost?"}
            return torch.tensor([len(sentence) for _, sentence in pairs])

    questions = example.Questions.read([squad])
    assert example.rerank(Longest(), questions, [[1, 0], [3, 2, 0], [1]]) == [[0, 1], [0, 2, 3], [1]]


def test_a_reranker_is_made_once_and_compared(monkeypatch, capsys, bert, squad, tmp_path):
    encoder = str(tmp_path / "encoder")
    SentenceTransformer(str(bert), device="cpu").save(encoder)
    output = tmp_path / "reranker"
    given = ["--encoder", encoder, "--train", squad, "--dev", squad, "--output-dir", output, "--threads", "1"]

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, [*given, "--batch-size", 2, *arguments])])
        example.main()
        return [line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("|")]

    assert run("--steps", 2) == ["ranked by", ":---", "the encoder", str(output / "model")]
    made = (output / "model" / "model.safetensors").stat().st_mtime_ns
    assert run("--rerankers", output / "model") == ["ranked by", ":---", "the encoder", str(output / "model")]
    assert (output / "model" / "model.safetensors").stat().st_mtime_ns == made
    pairs = [json.loads(line) for line in (output / "pairs.jsonl").read_text().splitlines()]
    assert {tuple(pair) for pair in pairs} == {("question", "sentence")}
    assert len(pairs) == 12  # all four sentences for each question
    assert CrossEncoder(str(output / "model"), device="cpu").predict([("By day?", "Owls.")]).shape == (1,)
