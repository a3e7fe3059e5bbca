"""SQuAD's metrics on cases computed by hand."""

import pytest

from schubert_hf.errors import MetricError
from schubert_hf.evaluation.metrics import load_metric
from schubert_hf.evaluation.squad_metric import exact_match, f1_score, normalize_answer


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  Cat,", "cat"),
        ("a an the", ""),
        ("an-the", "anthe"),  # punctuation goes first, so no article is left to go
        ("Theatre and a thesis", "theatre and thesis"),
        ("U.S. $5.00", "us 500"),
        ("«Élan» – été", "«élan» – été"),  # ASCII punctuation alone
        (" \t\n", ""),
    ],
)
def test_normalisation(text, normal):
    assert normalize_answer(text) == normal


@pytest.mark.parametrize(
    ("said", "true", "exact", "f1"),
    [
        ("the Cat", "cat.", 1, 1),
        ("black cat", "cat", 0, 2 / 3),  # precision 1/2, recall 1
        ("cat cat dog", "cat dog dog", 0, 2 / 3),  # words count as often as they are there
        ("dog", "cat", 0, 0),
        ("", "cat", 0, 0),
        ("", "", 1, 1),
        ("the", "", 1, 1),
    ],
)
def test_one_answer(said, true, exact, f1):
    assert exact_match(said, true) == exact
    assert f1_score(said, true) == pytest.approx(f1)


def reference(name, *texts):
    return {"id": name, "answers": {"text": list(texts), "answer_start": [0] * len(texts)}}


def prediction(name, text, **more):
    return {"id": name, "prediction_text": text, **more}


def test_the_best_of_several_references_counts():
    found = load_metric("squad").compute(
        # In another order than the references: ids match them.
        predictions=[prediction("b", "in the old barn"), prediction("a", "Denver Broncos"), prediction("c", "no")],
        references=[
            reference("a", "Broncos", "The Denver Broncos"),
            reference("b", "barn", "an old house"),  # best: 2 * 1 / (3 + 1); old: 2 * 1 / (3 + 2)
            reference("c", "yes"),
        ],
    )
    assert found == pytest.approx({"exact_match": 100 / 3, "f1": (100 + 50 + 0) / 3})
    assert next(iter(found)) == "f1"


V2 = [
    reference("has-right", "cat"),
    reference("has-wrong", "old dog"),
    reference("none-right"),
    reference("none-wrong"),
]


def test_questions_without_answers():
    found = load_metric("squad_v2").compute(
        predictions=[
            prediction("has-right", "the cat", no_answer_probability=0.2),
            prediction("has-wrong", "dog", no_answer_probability=0.6),
            prediction("none-right", "", no_answer_probability=0.9),
            prediction("none-wrong", "bird", no_answer_probability=0.4),
        ],
        references=V2,
    )
    assert found["exact"] == 50
    assert found["f1"] == pytest.approx((100 + 200 / 3 + 100 + 0) / 4)
    assert (found["HasAns_exact"], found["HasAns_total"]) == (50, 2)
    assert found["HasAns_f1"] == pytest.approx((100 + 200 / 3) / 2)
    assert (found["NoAns_exact"], found["NoAns_f1"], found["NoAns_total"]) == (50, 50, 2)
    # By rising probability: nothing answered 2 of 4; up to 0.2: 3; up to 0.4: 2; up to 0.6: 2 or 2 2/3.
    assert (found["best_exact"], found["best_exact_thresh"]) == (75, pytest.approx(0.2))
    assert (found["best_f1"], found["best_f1_thresh"]) == (75, pytest.approx(0.2))


def test_a_threshold_turns_answers_into_none():
    predictions = [
        prediction("has-right", "cat", no_answer_probability=0.9),
        prediction("has-wrong", "dog", no_answer_probability=0.1),
        prediction("none-right", "", no_answer_probability=0.1),
        prediction("none-wrong", "bird", no_answer_probability=0.9),
    ]
    found = load_metric("squad_v2").compute(predictions=predictions, references=V2, no_answer_threshold=0.5)
    assert (found["HasAns_exact"], found["NoAns_exact"], found["exact"]) == (0, 100, 50)
    without = [{key: row[key] for key in ("id", "prediction_text")} for row in predictions]
    assert load_metric("squad_v2").compute(predictions=without, references=V2)["exact"] == 50


def test_only_answerable_questions():
    found = load_metric("squad_v2").compute(predictions=[prediction("a", "cat")], references=[reference("a", "cat")])
    assert found["exact"] == found["HasAns_f1"] == found["best_f1"] == 100
    assert not [name for name in found if name.startswith("NoAns")]


@pytest.mark.parametrize("name", ["squad", "squad_v2"])
@pytest.mark.parametrize(
    ("predictions", "references", "words"),
    [
        ([], [], "no references"),
        ([prediction("a", "x")], [reference("b", "x")], "2 questions have either no prediction or no reference"),
        ([prediction("a", "x")] * 2, [reference("a", "x")], "`a` twice"),
        ([{"id": "a"}], [reference("a", "x")], "`prediction_text`"),
        (["x"], [reference("a", "x")], "need `id`"),
    ],
)
def test_bad_input(name, predictions, references, words):
    with pytest.raises(MetricError, match=words):
        load_metric(name).compute(predictions=predictions, references=references)
