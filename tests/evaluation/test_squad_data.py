"""SQuAD's official files: what is read, and what is refused."""

import json

import pytest

from schubert_hf.errors import EvaluationDataError
from schubert_hf.evaluation.squad_data import SQUADS, find_squad, load_squad

V1, V2 = SQUADS["squad"], SQUADS["squad_v2"]
CONTEXT = "Größe: the old barn stood near w3."
GOOD = [(CONTEXT, "Where?", [("old barn", 11), ("the old barn", 7)]), (CONTEXT, "Near?", [("w3", 31)])]


def test_questions_as_they_stand_in_the_file(write_squad):
    folder = write_squad("train-v1.1.json", GOOD)
    write_squad("dev-v1.1.json", GOOD[:1])
    found = load_squad(V1, folder)
    assert list(found) == ["train", "validation"]
    assert found["train"]["id"][:] == ["q0", "q1"]
    assert found["train"][0]["answers"] == {"text": ["old barn", "the old barn"], "answer_start": [11, 7]}
    assert found["validation"][0]["context"] == CONTEXT
    assert list(load_squad(V1, folder, train=False)) == ["validation"]


def test_questions_without_an_answer(write_squad):
    """v2.0 gives plausible answers to them, which count for nothing."""
    folder = write_squad(
        "dev-v2.0.json", [(CONTEXT, "Who?", [])], is_impossible=True, plausible_answers=[{"text": "w3"}]
    )
    (row,) = load_squad(V2, folder, train=False)["validation"]
    assert row["answers"] == {"text": [], "answer_start": []}
    write_squad("dev-v1.1.json", [(CONTEXT, "Who?", [])])
    with pytest.raises(EvaluationDataError, match=r"without an answer, `q0`.*Use squad_v2"):
        load_squad(V1, folder, train=False)


@pytest.mark.parametrize(
    ("questions", "words"),
    [
        ([], "holds no questions"),
        ([(CONTEXT, "Where?", [("old barn", 12)])], "'old barn' of `q0` is not at character 12"),
        ([(CONTEXT, "Where?", [("old barn", 900)])], "not at character 900"),
    ],
)
def test_bad_questions(write_squad, questions, words):
    with pytest.raises(EvaluationDataError, match=words):
        load_squad(V1, write_squad("dev-v1.1.json", questions), train=False)


def test_an_id_that_comes_twice(write_squad):
    folder = write_squad("dev-v1.1.json", GOOD)
    path = folder / "dev-v1.1.json"
    path.write_text(path.read_text().replace('"q1"', '"q0"'))
    with pytest.raises(EvaluationDataError, match="`q0` twice"):
        load_squad(V1, folder, train=False)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "no file in SQuAD's layout"),
        ("[]", "no file in SQuAD's layout"),
        (json.dumps({"data": [{"paragraphs": [{"context": "x", "qas": [{"id": 1}]}]}]}), "lacks 'answers'"),
        (
            json.dumps({"data": [{"paragraphs": [{"qas": []}, {"qas": [{"id": 1, "answers": []}]}]}]}),
            "lacks 'context'",
        ),
    ],
)
def test_bad_files(tmp_path, content, words):
    (tmp_path / "dev-v1.1.json").write_text(content)
    with pytest.raises(EvaluationDataError, match=words):
        load_squad(V1, tmp_path, train=False)


def test_which_file_is_read(write_squad, tmp_path):
    with pytest.raises(EvaluationDataError, match="is no folder"):
        load_squad(V1, tmp_path / "nowhere")
    folder = write_squad("dev-v1.1.json", GOOD)
    with pytest.raises(EvaluationDataError, match=r"no train\*-v1.*it has \['dev-v1.1.json'\].*only be evaluated"):
        load_squad(V1, folder)
    with pytest.raises(EvaluationDataError, match=r"no dev\*-v2"):
        load_squad(V2, folder, train=False)
    write_squad("dev-slice-v1.1.json", GOOD)
    with pytest.raises(EvaluationDataError, match="one is needed"):
        load_squad(V1, folder, train=False)


def test_without_a_network_the_way_out_is_named():
    with pytest.raises(EvaluationDataError, match="`--data`"):
        load_squad(V1)


def test_unknown_versions():
    assert find_squad("squad_v2") is V2
    with pytest.raises(EvaluationDataError, match="allowed are squad, squad_v2"):
        find_squad("squad3")
