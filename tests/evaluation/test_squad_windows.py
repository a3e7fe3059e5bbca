"""Windows and answers: what goes in comes out, wherever it lies; every span against brute force."""

import itertools
import lzma
import random
import tarfile
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import BertTokenizerFast

from schubert_hf.errors import EvaluationDataError
from schubert_hf.evaluation.encoding import make_windows
from schubert_hf.evaluation.metrics import load_metric
from schubert_hf.evaluation.squad_answers import find_answers
from schubert_hf.evaluation.squad_data import FEATURES, read_squad

LABELLED = Path(__file__).resolve().parents[3] / "shared" / "data" / "labelled.tar.xz"
SHAPE = {"max_length": 24, "stride": 6, "max_question_length": 5}


def make_questions(number: int, seed: int = 0) -> Dataset:
    """Contexts of 3 to 70 words, longer than a window; answers of 1 to 4 words; some questions have none."""
    rng = random.Random(seed)
    rows = []
    for index in range(number):
        words = [f"w{rng.randrange(60)}" for _ in range(rng.randint(3, 70))]
        context = "  ".join(words)
        first = rng.randrange(len(words))
        text = "  ".join(words[first : first + rng.randint(1, 4)])
        start = len("  ".join(words[:first])) + (2 if first else 0)
        answers = {"text": [text], "answer_start": [start]} if index % 5 else {"text": [], "answer_start": []}
        question = " ".join(f"w{rng.randrange(60)}" for _ in range(rng.randint(1, 9)))
        rows.append({"id": f"q{index}", "context": context, "question": f"  {question}", "answers": answers})
    return Dataset.from_list(rows, features=FEATURES)


@pytest.fixture(scope="module")
def questions() -> Dataset:
    return make_questions(40)


@pytest.fixture(scope="module")
def windows(questions, tokenizer) -> Dataset:
    return make_windows(questions, tokenizer, **SHAPE)


def test_windows_cover_the_context_and_overlap(questions, windows, tokenizer):
    assert max(len(row["input_ids"]) for row in windows) == 24
    for number, question in enumerate(questions):
        own = [row for row in windows if row["question"] == number]
        seen = [[tuple(span) for span in row["offsets"] if span != [-1, -1]] for row in own]
        words = set(itertools.chain(*seen))
        assert "  ".join(question["context"][a:b] for a, b in sorted(words)) == question["context"]
        for before, after in itertools.pairwise(seen):
            assert before[-6:] == after[:6]


def test_marked_tokens_are_the_answer(questions, windows):
    held = set()
    for row in windows:
        question = questions[row["question"]]
        start, end = row["start_positions"], row["end_positions"]
        if (start, end) == (0, 0):
            continue
        span = question["context"][row["offsets"][start][0] : row["offsets"][end][1]]
        assert span == question["answers"]["text"][0]
        held.add(row["question"])
    answerable = {number for number, question in enumerate(questions) if question["answers"]["text"]}
    assert held == answerable  # every answer is shorter than the overlap, so it is whole in some window


def test_right_logits_give_the_right_answers(questions, windows):
    """Logits are padded as a batch would pad them; the padding is as good as the answer."""
    starts, ends = [], []
    for row in windows:
        start, end = torch.zeros(30), torch.zeros(30)
        start[row["start_positions"]], end[row["end_positions"]] = 5, 5
        start[len(row["input_ids"]) :] = end[len(row["input_ids"]) :] = 9
        starts.append(start)
        ends.append(end)
    answers = find_answers(questions, windows, starts, ends)
    metric = load_metric("squad_v2").compute(
        predictions=[{"id": answer.id, "prediction_text": answer.final(0.5)} for answer in answers],
        references=questions.select_columns(["id", "answers"]).to_list(),
    )
    # Windows without the answer point at [CLS]; the least of their scores counts, so one window with it is enough.
    assert metric["exact"] == metric["HasAns_f1"] == metric["NoAns_exact"] == 100


def test_every_span_is_looked_at(questions, windows):
    generator = torch.Generator().manual_seed(0)
    starts = [torch.randn(len(row["input_ids"]), generator=generator) for row in windows]
    ends = [torch.randn(len(row["input_ids"]), generator=generator) for row in windows]
    answers = find_answers(questions, windows, starts, ends, n_best=7, max_answer_length=4)
    for number, answer in enumerate(answers):
        best: dict[tuple[int, int], float] = {}
        null = []
        for row, start, end in zip(windows, starts, ends, strict=True):
            if row["question"] != number:
                continue
            null.append(float(start[0] + end[0]))
            spans = row["offsets"]
            for first, last in itertools.product(range(len(spans)), repeat=2):
                if first <= last < first + 4 and [-1, -1] not in (spans[first], spans[last]):
                    place = spans[first][0], spans[last][1]
                    best[place] = max(best.get(place, -99), float(start[first] + end[last]))
        expected = sorted(best, key=best.__getitem__, reverse=True)[:7]
        assert [(span.start, span.end) for span in answer.spans] == expected
        assert answer.spans[0].score == pytest.approx(best[expected[0]])
        assert answer.null_score == pytest.approx(min(null))
        assert answer.null_difference == pytest.approx(min(null) - best[expected[0]])
        assert (answer.no_answer_probability > 0.5) == (answer.null_difference > 0)
        assert answer.final(None) == answer.text
        assert answer.final(answer.no_answer_probability - 1e-9) == ""
        assert sum(row["probability"] for row in answer.to_json()) == pytest.approx(1)


def test_a_tokenizer_with_settings_of_its_own(questions, windows, tokenizer):
    other = BertTokenizerFast(vocab=tokenizer.get_vocab())
    other.backend_tokenizer.enable_padding(length=50)
    other.backend_tokenizer.enable_truncation(9)
    again = make_windows(questions, other, **SHAPE)
    assert again["input_ids"][:] == windows["input_ids"][:]


@pytest.mark.parametrize("shape", [{"max_length": 14}, {"stride": 16}, {"stride": 0}, {"max_question_length": 0}])
def test_windows_that_cannot_move_on(questions, tokenizer, shape):
    with pytest.raises(EvaluationDataError, match="`max_length` is"):
        make_windows(questions, tokenizer, **{**SHAPE, **shape})


@pytest.mark.skipif(not LABELLED.exists(), reason="needs SQuAD's files")
def test_genuine_questions(tmp_path):
    """With a vocabulary of characters: whatever BERT's word pieces are, the offsets are the same."""
    with lzma.open(LABELLED) as packed, tarfile.open(fileobj=packed) as archive:
        for member in archive:
            if member.name.endswith("dev-v1.1.json"):
                archive.extract(member, tmp_path, filter="data")
                break
    (path,) = tmp_path.rglob("dev-v1.1.json")
    questions = read_squad(path).shuffle(seed=0).select(range(60))
    letters = sorted({letter for text in questions["context"] for letter in text.lower() if not letter.isspace()})
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    tokenizer = BertTokenizerFast(vocab={piece: number for number, piece in enumerate(pieces)})
    windows = make_windows(questions, tokenizer, max_length=384, stride=128)
    found = {}
    for row in windows:
        if row["end_positions"]:
            context = questions[row["question"]]["context"]
            span = context[row["offsets"][row["start_positions"]][0] : row["offsets"][row["end_positions"]][1]]
            found[row["question"]] = span
    wanted = {number: row["answers"]["text"][0] for number, row in enumerate(questions)}
    whole = {number: text for number, text in wanted.items() if number in found}
    assert len(whole) >= 0.95 * len(wanted)
    assert found == whole
