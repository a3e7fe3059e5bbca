"""`schubert_hf.prune`, `schubert prune`, `python -m schubert_hf` and examples/prune.py are one function."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from forks import run
from safetensors.torch import load_file
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForPreTraining,
    BertForSequenceClassification,
    BertModel,
)

import schubert_hf
from schubert_hf.cli import command_line
from schubert_hf.commands import main
from schubert_hf.conversion import ConversionError
from schubert_hf.data.sources import TextSourceError
from schubert_hf.errors import SchuBertError
from schubert_hf.front.arguments import SettingError
from schubert_hf.run.output import OutputFolderError

ROOT = Path(__file__).resolve().parents[2]
QUICK = {
    "recovery_steps": 2,
    "calibration_examples": 8,
    "batch_size": 4,
    "eval_examples": 8,
    "max_length": 24,
    "report_to": "none",
    "threads": 1,
}
FLAGS = [word for name, value in QUICK.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def recorded(folder: Path) -> str:
    return json.loads((folder / "pruning.json").read_text())["provenance"]["command"]


@pytest.fixture
def place(bert, text, tmp_path, monkeypatch) -> Path:
    """The working folder of a user with a BERT and a text in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bert").symlink_to(bert)
    (tmp_path / "text.txt").symlink_to(text)
    return tmp_path


@pytest.mark.slow
def test_every_entry_gives_the_same_bits_and_records_what_repeats_it(place, capsys) -> None:
    result = schubert_hf.prune("bert", "70%", text=Path("text.txt"), output_dir="python", **QUICK)
    assert result.output_dir == Path("python")
    assert result.kept <= 0.7
    assert capsys.readouterr().out == ""
    main(["prune", "bert", "--target", "70%", "--text", "text.txt", "--output-dir", "command", *FLAGS])
    told = capsys.readouterr().out
    assert "Saved in command, with a page of its own" in told
    assert re.search(r"^FLOPs: \d\d\.\d% kept\.", told, re.M)
    record = json.loads(Path("command", "pruning.json").read_text(encoding="utf-8"))
    assert record["provenance"]["base_model"]["name"] == "bert"  # a link, by the name that the user knows
    rest = ["--target", "70%", "--text", "text.txt", *FLAGS, "--output-dir"]
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "-m", "schubert_hf", "prune", "bert", *rest]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    launched = subprocess.run([*launcher, "module"], env=environment, capture_output=True, text=True, check=False)
    assert launched.returncode == 0, launched.stderr[-3000:]
    ended = run(ROOT / "examples" / "prune.py", "--model", "bert", *rest, "script")
    assert ended.returncode == 0, ended.stderr[-3000:]
    folders = [place / name for name in ("python", "command", "module", "script")]
    assert len({weights(folder) for folder in folders}) == 1

    given = "--target 70% --calibration-examples 8 --recovery-steps 2 --batch-size 4 --eval-examples 8"
    own = "--text text.txt --output-dir {} --max-length 24 --report-to none --threads 1 " + given
    assert recorded(folders[1]) == f"schubert prune bert {own.format('command')}"
    assert recorded(folders[2]) == f"accelerate launch -m schubert_hf prune bert {own.format('module')}"
    assert recorded(folders[3]) == f"accelerate launch examples/prune.py --model bert {own.format('script')}"
    python, command = recorded(folders[0]), recorded(folders[1])
    assert python.startswith('schubert_hf.prune("bert", "70%", text="text.txt", output_dir="python", ')
    assert f"```python\n{python}\n```" in (folders[0] / "README.md").read_text()
    assert "```bash\nschubert prune bert" in (folders[1] / "README.md").read_text()

    for folder in folders[:2]:
        folder.rename(place / f"first-{folder.name}")
    eval(python)
    main(shlex.split(command)[1:])
    assert weights(folders[0]) == weights(folders[1]) == weights(folders[2])


def test_a_model_and_a_text_in_memory_give_the_same_and_nothing_is_written(place) -> None:
    expected = schubert_hf.prune("bert", 0.7, text="text.txt", **QUICK).model.state_dict()
    documents = schubert_hf.load_documents("text.txt")
    bert = BertForPreTraining.from_pretrained("bert", dtype=torch.float32)
    before = {name: tensor.clone() for name, tensor in bert.state_dict().items()}
    nameless = BertForPreTraining(bert.config)
    nameless.load_state_dict(before)
    nameless.config.name_or_path = nameless.name_or_path = ""
    tokenizer = AutoTokenizer.from_pretrained("bert")
    wide = documents.add_column("number", list(range(len(documents))))
    for model, text, settings in (
        (bert, documents["text"][:], {}),
        (nameless, wide, {"tokenizer": tokenizer, "objective": "pretraining"}),
    ):
        result = schubert_hf.prune(model, 0.7, text=text, **settings, **QUICK)
        assert result.output_dir is None
        state = result.model.state_dict()
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[name], expected[name]) for name in expected)
        assert result.provenance["train_data"]["name"] == f"{len(documents):,} documents given in memory"
        assert result.provenance["command"].startswith("schubert_hf.prune(model, 0.7, text=text, ")
    assert all(torch.equal(tensor, before[name]) for name, tensor in bert.state_dict().items())
    assert result.provenance["base_model"] == {"name": "BertForPreTraining", "hub": False}
    assert {path.name for path in place.iterdir()} == {"bert", "text.txt"}


@pytest.mark.parametrize("without_gradients", [torch.no_grad, torch.inference_mode])
def test_gradients_that_are_switched_off_are_switched_on(place, without_gradients) -> None:
    expected = schubert_hf.prune("bert", 0.7, text="text.txt", **QUICK).model.state_dict()
    with without_gradients():
        found = schubert_hf.prune("bert", 0.7, text="text.txt", **QUICK).model.state_dict()
        assert not torch.is_grad_enabled()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not any(tensor.is_inference() for tensor in found.values())


def test_a_stream_of_documents_in_memory_is_that_of_their_file(place) -> None:
    texts = schubert_hf.load_documents("text.txt")["text"][:]
    settings = {"eval_text": "text.txt", "streaming": True, **QUICK}
    file, memory = (
        schubert_hf.prune("bert", 0.7, text=text, **settings).model.state_dict() for text in ("text.txt", texts)
    )
    assert all(torch.equal(file[name], memory[name]) for name in file)


@pytest.fixture
def classifier(place) -> BertForSequenceClassification:
    """A BERT whose two labels stand in the other order than those of SST-2, with the task's files beside it."""
    (place / "SST-2").mkdir()
    for name, size in {"train": 24, "dev": 8}.items():
        lines = [f"The {('fox', 'king', 'ship')[n % 3]} saw a dog.\t{n % 2}" for n in range(size)]
        (place / "SST-2" / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *lines]) + "\n")
    torch.manual_seed(0)
    config = BertConfig.from_pretrained("bert", id2label={0: "positive", 1: "negative"})
    model = BertForSequenceClassification(config)
    model.save_pretrained("classifier")
    AutoTokenizer.from_pretrained("bert").save_pretrained("classifier")
    return BertForSequenceClassification.from_pretrained("classifier")


def test_a_task_model_in_memory_is_pruned_as_its_folder(classifier) -> None:
    settings = {"task": "sst2", "data": ".", **QUICK}
    from_folder = schubert_hf.prune("classifier", "70%", **settings)
    in_memory = schubert_hf.prune(classifier, "70%", objective="task", **settings)
    expected, state = from_folder.model.state_dict(), in_memory.model.state_dict()
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    labels = {0: "negative", 1: "positive"}
    assert from_folder.model.config.id2label == in_memory.model.config.id2label == labels
    assert classifier.config.id2label[0] == "positive"


def test_a_task_model_without_its_task_matches_its_own_predictions(classifier, capsys) -> None:
    from_folder = schubert_hf.prune("classifier", "70%", text="text.txt", **QUICK)
    in_memory = schubert_hf.prune(classifier, "70%", text="text.txt", objective="outputs", **QUICK)
    expected, state = from_folder.model.state_dict(), in_memory.model.state_dict()
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert from_folder.model.config.id2label == {0: "positive", 1: "negative"}
    assert from_folder.rounds[0].before["logits"] == pytest.approx(0, abs=1e-6)
    assert from_folder.rounds[0].before["logits_accuracy"] == 1
    main(["prune", "classifier", "--target", "70%", "--text", "text.txt", "--output-dir", "small", *FLAGS])
    said = capsys.readouterr().out
    assert 'AutoModelForSequenceClassification.from_pretrained("small")' in said
    page = Path("small", "README.md").read_text()
    assert "predictions loss" in page
    assert "as the dense model" in page
    opened = AutoModelForSequenceClassification.from_pretrained("small")
    assert opened.num_parameters() <= 0.7 * classifier.num_parameters()


@pytest.mark.parametrize("pooler", [True, False])
def test_a_bare_encoder_matches_its_token_states(pooler, place, capsys) -> None:
    """Opened as its config names it; a pooler that it holds no weights of is not made up."""
    torch.manual_seed(0)
    BertModel(BertConfig.from_pretrained("bert"), add_pooling_layer=pooler).save_pretrained("bare")
    AutoTokenizer.from_pretrained("bert").save_pretrained("bare")
    text = ["--text", "text.txt", "--eval-text", "text.txt", "--streaming"]
    main(["prune", "bare", "--target", "80%", *text, "--output-dir", "small", *FLAGS])
    assert 'AutoModel.from_pretrained("small")' in capsys.readouterr().out
    record = json.loads(Path("small", "pruning.json").read_text())
    assert set(record["rounds"][0]["before"]) == {"states", "states_accuracy", "loss"}
    names = load_file("small/model.safetensors")
    assert any("pooler" in name for name in names) == pooler


def test_pairs_from_columns_and_from_passages(classifier) -> None:
    rows = {"query": [f"The fox {n}." for n in range(40)], "passage": [f"A king saw {n} ships." for n in range(40)]}
    Dataset.from_dict(rows).to_json("pairs.jsonl")
    given = schubert_hf.prune("classifier", "80%", text="pairs.jsonl", pair_columns="query,passage", **QUICK)
    assert given.provenance["train_data"]["examples"] == 36
    made = schubert_hf.prune("classifier", "80%", text="text.txt", pairs=True, **QUICK)
    assert made.rounds[0].before["logits_accuracy"] == 1


def test_a_task_model_without_its_task_is_told_the_way_out(classifier) -> None:
    with pytest.raises(ConversionError, match=r"no masked-language-model head.*`--task sst2`"):
        schubert_hf.prune("classifier", "70%", text="text.txt", objective="pretraining", **QUICK)
    with pytest.raises(ConversionError, match=r'without a masked-language-model head.*objective="outputs"'):
        schubert_hf.prune(classifier, "70%", text="text.txt", objective="pretraining", **QUICK)
    with pytest.raises(ConversionError, match="BertModel; the task needs a trained head for SequenceClass"):
        schubert_hf.prune(BertModel(classifier.config), "70%", task="sst2", data=".", **QUICK)
    classifier.config.num_labels = 3
    with pytest.raises(ConversionError, match=r"of 3 labels; the task needs .* of 2 labels"):
        schubert_hf.prune(classifier, "70%", task="sst2", data=".", **QUICK)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"recovery_step": 3}, SettingError, "no setting of `prune`. Did you mean `recovery_steps`"),
        ({"nonsense": 3}, SettingError, r"`nonsense` is no setting of `prune`. `schubert prune --help` lists all"),
        ({"objective": "output"}, SettingError, "allowed is auto, pretraining, outputs, task"),
        ({"pair_columns": "query"}, SettingError, 'give two names, as "query,passage"'),
        ({"pairs": True, "objective": "pretraining"}, SettingError, "`pairs` is for `objective` 'outputs'"),
        ({"pair_columns": "a,b", "streaming": True}, SettingError, "cannot be streamed"),
        ({"pair_columns": "a,b"}, TextSourceError, "`text.txt` has no columns"),
        ({"pair_columns": "a,b", "text": ["x"]}, TextSourceError, "The pairs are a list"),
        (
            {"pair_columns": "a,b", "text": Dataset.from_dict({"a": ["x"], "c": ["y"]})},
            TextSourceError,
            "has the columns a, c; `pair_columns` names b",
        ),
        ({"objective": "task"}, SettingError, "`task` is missing"),
        ({"max_length": 0}, SettingError, "`max_length` is 0; allowed is a whole number of at least 1"),
        ({"max_length": "32"}, SettingError, "`max_length` is '32'; allowed is a whole number"),
        ({"max_train_examples": 0}, SettingError, "`max_train_examples` is 0"),
        ({"threads": 0}, SettingError, "`threads` is 0"),
        ({"tokenizer": "bert"}, SettingError, r"`tokenizer` is a str\. Give .*from_pretrained"),
        ({"model": ""}, SettingError, "`model` is empty. Give a value, or leave it out"),
        ({"text": ""}, SettingError, "`text` is empty"),
        ({"eval_text": " "}, SettingError, "`eval_text` is empty"),
        ({"output_dir": ""}, SettingError, "`output_dir` is empty"),
        ({"objective": "pretraining", "task": "sst2", "text": None}, SettingError, "one or the other"),
        ({"task": "sst2"}, SettingError, "brings its own examples"),
        ({"text": None}, SettingError, r"`text` is missing.*--text corpus.txt"),
        ({"push_to_hub": "org/x"}, SettingError, r"needs `output_dir`"),
        ({"text": [1, 2]}, TextSourceError, "a list of strings"),
        ({"text": []}, TextSourceError, "holds no text"),
        ({"text": Dataset.from_dict({"words": ["a"]})}, TextSourceError, r"columns words; it needs a column `text`"),
        ({"model": BertForPreTraining(BertConfig(num_hidden_layers=1))}, ConversionError, "Give `tokenizer`"),
    ],
    ids=str,
)
def test_bad_input_is_one_clear_error(settings, error, words, place) -> None:
    given = {"model": "bert", "target": "70%", "text": "text.txt", "rounds": 1, **settings}
    with pytest.raises(error, match=words) as raised:
        schubert_hf.prune(**given)
    assert isinstance(raised.value, SchuBertError)
    assert {path.name for path in place.iterdir()} == {"bert", "text.txt"}


@pytest.mark.parametrize(("target", "folder"), [("70%", "."), ("80%,70%", "80pct")])
def test_a_page_that_somebody_wrote_is_not_written_over(target, folder, place) -> None:
    Path("out", folder).mkdir(parents=True)
    page = Path("out", folder, "README.md")
    page.write_text("# My notes\n")
    with pytest.raises(OutputFolderError, match=r"README.md that is no page of this package's.*another output folder"):
        schubert_hf.prune("bert", target, text="text.txt", output_dir="out", **QUICK)
    with pytest.raises(OutputFolderError, match=r"or move the file"):
        schubert_hf.trim("bert", "90%", text="text.txt", output_dir=page.parent)
    assert [path for path in Path("out").rglob("*") if path.is_file()] == [page]
    assert page.read_text() == "# My notes\n"


def test_the_script_is_the_command_with_a_default(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    import prune as example

    plain = example.Arguments()
    given = example.with_default_text(plain)
    assert command_line("script", plain, schubert_hf.PruningConfig()) == "script"
    assert [Path(path).name for path in (given.model, given.text, given.eval_text)] == [
        "model",
        "train.txt",
        "valid.txt",
    ]
    assert example.with_default_text(example.Arguments(eval_text="mine")).eval_text == "mine"
    for settings in ({"text": "mine"}, {"dataset": "wikitext"}, {"task": "sst2"}):
        assert example.with_default_text(example.Arguments(**settings)) == example.Arguments(**settings)
