"""GLUE's tasks and official files: what is read, and what is refused."""

import pytest
from datasets import ClassLabel, Dataset

from schubert_hf.errors import EvaluationDataError
from schubert_hf.evaluation import task_data
from schubert_hf.evaluation.glue import load_task
from schubert_hf.evaluation.metrics import load_metric
from schubert_hf.evaluation.tasks import PAPER_TASKS, TASKS, find_tasks

# Genuine headers and the forms of genuine rows; the text is ours.
FILES = {
    "cola": ('gj04\t1\t\tw1 w2.\nbc01\t0\t*\tw3 "w4\n', [("w1 w2.", 1), ('w3 "w4', 0)]),
    "sst2": ("sentence\tlabel\nw1 w2 \t0\nw3 \t1\n", [("w1 w2 ", 0), ("w3 ", 1)]),
    "mrpc": (
        '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t7\t8\tw1 "w2\tw3\r\n0\t9\t1\tw4\tw5\r\n',
        [('w1 "w2', "w3", 1), ("w4", "w5", 0)],
    ),
    "stsb": (
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
        "0\tx\tx\t2012\t1\tnone\tnone\tw1\tw2\t2.500\n",
        [("w1", "w2", 2.5)],
    ),
    "qqp": (
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t2\t3\tw1\tw2\t0\ntorn\trow\n4\t5\t6\tw3\tw4\t1\n",
        [("w1", "w2", 0), ("w3", "w4", 1)],
    ),
    "mnli": (
        "index\tsentence1\tsentence2\tlabel1\tgold_label\n1\tw1\tw2\tneutral\tneutral\n2\tw3\tw4\tx\t-\n"
        "3\tw5\tw6\tx\tcontradiction\n",
        [("w1", "w2", 1), ("w5", "w6", 2)],
    ),
    "qnli": (
        "index\tquestion\tsentence\tlabel\n0\tw1?\tw2\tentailment\n1\tw3?\tw4\tnot_entailment\n",
        [("w1?", "w2", 0), ("w3?", "w4", 1)],
    ),
    "rte": ("index\tsentence1\tsentence2\tlabel\n0\tw1\tw2\tnot_entailment\n", [("w1", "w2", 1)]),
    "wnli": ("index\tsentence1\tsentence2\tlabel\n0\tw1\tw2\t1\n", [("w1", "w2", 1)]),
}


@pytest.fixture
def write(tmp_path):
    def write_file(task, content, name="dev.tsv"):
        folder = tmp_path / TASKS[task].folder
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(content.encode())
        return tmp_path

    return write_file


@pytest.mark.parametrize("task", TASKS)
def test_the_official_layout(task, write):
    content, expected = FILES[task]
    stem = TASKS[task].validation[0].replace("validation", "dev")
    root = write(task, content, f"{stem}.tsv")
    for data in (root, root / TASKS[task].folder):
        found = load_task(TASKS[task], data, train=False)
        (split,) = found  # mismatched is not there, which is said
        rows = [tuple(row[name] for name in (*TASKS[task].columns, "label")) for row in found[split]]
        assert rows == expected


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("sentence\tlabel\nw1\t2\n", r"dev.tsv`, line 2: the label is '2'; allowed are 0, 1"),
        ("sentence\tgrade\nw1\t1\n", r"lacks the columns \['label'\]; it has \['sentence', 'grade'\]"),
        ("sentence\tlabel\nw1\t1\nw2\n", r"line 3, has 1 cells"),
        ("sentence\tlabel\n", "holds no examples"),
        ("", "lacks the columns"),
    ],
)
def test_bad_files(content, words, write):
    with pytest.raises(EvaluationDataError, match=words):
        load_task(TASKS["sst2"], write("sst2", content), train=False)


def test_scores_outside_the_scale(write):
    content = FILES["stsb"][0].replace("2.500", "7")
    with pytest.raises(EvaluationDataError, match="line 2: the score is '7'; allowed is a number from 0 to 5"):
        load_task(TASKS["stsb"], write("stsb", content), train=False)


def test_which_files_are_read(write, tmp_path):
    with pytest.raises(EvaluationDataError, match="is no folder"):
        load_task(TASKS["sst2"], tmp_path / "nowhere")
    with pytest.raises(EvaluationDataError, match="neither a folder SST-2 nor"):
        load_task(TASKS["sst2"], tmp_path)
    root = write("sst2", FILES["sst2"][0])
    with pytest.raises(EvaluationDataError, match=r"no train\*.tsv.*only be evaluated"):
        load_task(TASKS["sst2"], root)
    write("sst2", FILES["sst2"][0], "train-slice.tsv")
    assert list(load_task(TASKS["sst2"], root)) == ["train", "validation"]
    write("sst2", FILES["sst2"][0], "train.tsv")
    with pytest.raises(EvaluationDataError, match="one is needed"):
        load_task(TASKS["sst2"], root)


def test_the_hub(monkeypatch):
    rows = {"sentence": ["w1", "w2"], "label": [0, 1], "idx": [0, 1]}
    asked = []

    def load(name, config, split):
        asked.append((name, config, split))
        found = Dataset.from_dict(rows)
        return found if -1 in rows["label"] else found.cast_column("label", ClassLabel(names=["negative", "positive"]))

    monkeypatch.setattr(task_data.datasets, "load_dataset", load)
    found = load_task(TASKS["sst2"])
    assert asked == [("nyu-mll/glue", "sst2", "train"), ("nyu-mll/glue", "sst2", "validation")]
    assert found["train"].column_names == ["sentence", "label"]
    rows["label"] = [0, -1]
    with pytest.raises(EvaluationDataError, match=r"has the labels \[-1\]; allowed are 0 to 1, negative, positive"):
        load_task(TASKS["sst2"])
    rows["grade"] = rows.pop("sentence")
    with pytest.raises(EvaluationDataError, match=r"lacks \['sentence'\]"):
        load_task(TASKS["sst2"])


def test_without_a_network_the_way_out_is_named():
    with pytest.raises(EvaluationDataError, match="`--data`"):
        load_task(TASKS["rte"])


def test_names_of_tasks():
    assert [task.name for task in find_tasks("SST-2,rte, sst2")] == ["sst2", "rte"]
    assert [task.name for task in find_tasks("paper")] == list(PAPER_TASKS)
    assert len(find_tasks("all")) == 9
    for name in ("sst3", "", ","):
        with pytest.raises(EvaluationDataError, match="allowed are cola, sst2"):
            find_tasks(name)


@pytest.mark.parametrize("task", TASKS)
def test_the_table_agrees_with_itself(task):
    found = TASKS[task]
    assert find_tasks(found.folder) == (found,)
    assert next(iter(found.splits)) == "train"
    assert len(found.columns) == len(found.file_columns)
    assert (found.labels is None) == (found.file_labels is None)
    assert found.labels is None or len(found.labels) == len(found.file_labels or ())
    for metric in found.metrics:
        assert metric in load_metric(metric).compute(predictions=[0, 1], references=[0, 1])
