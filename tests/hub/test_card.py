import contextlib
import copy
import json
import re
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from schubert_hf.hub import Evaluation, Facts, RecordError, render_card, write_page
from schubert_hf.hub.evaluations import eval_result_files, read_evaluations, write_evaluations
from schubert_hf.hub.inspection import flop_parts, parameter_parts
from schubert_hf.hub.page import check_card, has_text, is_generated, opener
from schubert_hf.hub.pictures import draw_widths
from schubert_hf.hub.writing import handwritten_page, write_missing_pages
from schubert_hf.shape import Shape

SST2 = Evaluation(
    task="sst2",
    dataset="nyu-mll/glue",
    config="sst2",
    task_type="text-classification",
    split="validation",
    metrics={"accuracy": [0.91]},
    base={"accuracy": 0.92},
    notes="3 seeds",
)


@pytest.fixture
def facts(record):
    return Facts.from_json(copy.deepcopy(record))


def sections(page):
    return re.findall(r"^## (.*)$", page, flags=re.MULTILINE)


def test_the_page_tells_all_that_is_known(facts):
    page = render_card(facts, "org/small")
    check_card(page)
    assert is_generated(page)
    assert is_generated(render_card(Facts.from_json(json.loads(json.dumps(facts.to_json()))), "org/small"))
    for text in (
        "**3.14M parameters**, pruned from `base` with 5.24M: 60.0% remain",
        "| **total** | **5.24M** | **3.14M** | **60.0%** | **1.01B** | **588.74M** | **58.5%** |",
        "| base | 192 | 768 | 6 | 32 | 32 |",
        "| 0 | **128** | **736** | 6 | **29** | **31** |",
        "| 2 | 3.14M | 60.0% | 6.194 → **6.226** |",
        "| `seed` | 0 |",
        "| `multiple_of` | h=8, f=8 |",
        'pipeline("fill-mask", model="org/small", trust_remote_code=True)',
        "arXiv:2005.06628",
    ):
        assert text in page
    for setting in facts.run["config"]:
        assert f"| `{setting}` |" in page


def test_the_page_tells_the_rate_and_the_best_step_of_each_recovery(facts):
    assert "best step" not in render_card(facts, "org/small")
    rounds = [{**round_, "learning_rate": 2.345e-4, "best_step": 0} for round_ in facts.run["rounds"]]
    settings = {**facts.run["config"], "recovery_learning_rate": None}
    page = render_card(replace(facts, run={**facts.run, "rounds": rounds, "config": settings}), "org/small")
    (header,) = [line for line in page.splitlines() if "best step" in line and line.startswith("|")]
    assert header.endswith("| learning rate | best step |")
    assert page.count(" | 0.00023 | 0 |") == len(rounds)
    assert "found by measuring on training examples" in page
    given = render_card(replace(facts, run={**facts.run, "rounds": rounds}), "org/small")
    assert "peak learning rate was given" in given


def test_the_page_tells_that_nothing_was_trained(facts):
    said = "Here nothing was trained"
    assert said not in render_card(facts, "org/small")
    settings = {**facts.run["config"], "recovery_steps": 0}
    assert said in render_card(replace(facts, run={**facts.run, "config": settings}), "org/small")


def test_the_page_of_a_classifier_opens_it_with_its_head(facts):
    classifier = replace(facts, config={**facts.config, "architectures": ["SchuBertForSequenceClassification"]})
    page = render_card(classifier, "org/small")
    assert opener(classifier) == "AutoModelForSequenceClassification"
    assert "class of any other task loads it, too, with a new, untrained head" in page
    assert "class of any task" not in page


def test_a_record_without_the_shape_of_the_base_is_named(facts):
    with pytest.raises(RecordError, match=r"pruning.json.*does not say what shape the base had. Copy it"):
        render_card(replace(facts, run={"rounds": []}), "org/small")


def test_sections_without_data_are_absent(facts):
    full = Facts.from_json({**facts.to_json(), "evaluations": [SST2.to_json()], "license": "mit"})
    assert {"Speed", "Losses", "How it was pruned", "Evaluation", "Licence"} <= set(sections(render_card(full, "a")))
    bare = Facts(config=facts.config)
    page = render_card(bare, "org/bare")
    assert sections(page) == ["Size", "Use it", "Exports", "Widths of every layer", "Limits", "Citation"]
    assert "base" not in page.partition("## Use it")[0].replace("base_model", "")
    assert "| part | parameters | FLOPs |" in page
    data = ModelCard(page).data
    assert (data.base_model, data.license, data.datasets) == (None, None, None)


def test_metadata_of_a_base_model_on_the_hub(facts):
    facts.run["provenance"] = {
        "base_model": {
            "name": "google-bert/bert-base-uncased",
            "hub": True,
            "license": "apache-2.0",
            "language": "en",
        },
        "train_data": {"name": "wikimedia/wikipedia", "hub": True, "config": "20231101.en", "examples": 12345},
        "command": "accelerate launch examples/prune.py --target 66M",
    }
    page = render_card(Facts.from_json(facts.to_json() | {"license": "apache-2.0"}), "org/small")
    data = ModelCard(page).data
    assert (data.base_model, data.base_model_relation) == ("google-bert/bert-base-uncased", "finetune")
    assert (data.license, data.language, data.datasets) == ("apache-2.0", "en", ["wikimedia/wikipedia"])
    assert (data.library_name, data.pipeline_tag) == ("transformers", "fill-mask")
    assert "apache-2.0, like the base model" in page
    assert "(https://huggingface.co/datasets/wikimedia/wikipedia) (20231101.en) | 12,345 |" in page
    assert "accelerate launch examples/prune.py --target 66M" in page


def test_results_stand_in_both_forms(facts, tmp_path):
    write_evaluations(tmp_path, (SST2,))
    assert read_evaluations(tmp_path) == (SST2,)
    page = render_card(Facts.from_json({**facts.to_json(), "evaluations": [SST2.to_json()]}), "org/small")
    (result,) = ModelCard(page).data.eval_results
    assert (result.dataset_config, result.metric_type, result.metric_value) == ("sst2", "accuracy", 0.91)
    assert "sst2 | validation | accuracy | 0.92 | **0.91** | 3 seeds |" in page
    ((path, text),) = eval_result_files((SST2,)).items()
    assert path == ".eval_results/nyu-mll-glue.yaml"
    (entry,) = yaml.safe_load(text)
    assert entry == {
        "dataset": {"id": "nyu-mll/glue", "task_id": "sst2"},
        "value": 0.91,
        "notes": "accuracy, validation, 3 seeds",
    }


def test_an_edited_page_is_known(facts):
    page = render_card(facts, "org/small")
    assert not is_generated(page.replace("dense", "thin"))
    assert not is_generated("# By hand\n")
    assert has_text(page)
    assert not has_text("---\nlicense: mit\n---\n")
    with pytest.raises(RecordError, match="metadata"):
        check_card("---\na: [\n---\n")


def test_write_page_into_a_folder(folder):
    before = {path.name for path in folder.iterdir()}
    write_page(folder, "org/small", latency=True)
    assert {path.name for path in folder.iterdir()} - before == {"README.md", "pictures", "latency.json"}
    latency = json.loads((folder / "latency.json").read_text())
    assert latency["milliseconds"].keys() == {"base", "model"}
    assert "## Speed" in (folder / "README.md").read_text()
    pictures = sorted(path.name for path in (folder / "pictures").iterdir())
    assert pictures == ["rounds.png", "widths.png"]
    (folder / "pruning.json").write_text("[1]")
    with pytest.raises(RecordError, match=r"pruning\.json"):
        write_page(folder, "org/small")


@pytest.mark.parametrize("killed_at", range(7))
def test_a_kill_while_the_page_is_written_loses_nothing(folder, monkeypatch, killed_at):
    """Whatever write or rename is the last one, the folder has no page or a whole one, and a resumed run makes it."""
    write_evaluations(folder, (SST2,))
    writes = iter(range(99))

    class Killed(BaseException):
        pass

    def kill(original, half):
        def write(path, *arguments, **kwargs):
            if next(writes) == killed_at:
                half(path)
                raise Killed
            return original(path, *arguments, **kwargs)

        return write

    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        patch.setattr(Path, "write_text", kill(Path.write_text, lambda path: path.write_bytes(b"# ha")))
        patch.setattr(Path, "replace", kill(Path.replace, lambda path: None))
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)  # a killed process tidies nothing up
        write_page(folder, "small")
    page = folder / "README.md"
    assert not page.exists() or is_generated(page.read_text())
    assert handwritten_page(folder) is None
    missing = not page.exists()
    assert write_missing_pages(folder.parent) == ([folder] if missing else [])
    assert is_generated(page.read_text())
    write_page(folder, "small")
    assert {path.name for path in folder.iterdir()} >= {"README.md", "pictures", ".eval_results"}
    assert not [path for path in folder.iterdir() if "page" in path.name]


@pytest.mark.parametrize("write", [write_page, write_missing_pages])
def test_a_page_has_the_folders_name(folder, monkeypatch, write):
    monkeypatch.chdir(folder)
    write(Path())
    assert f"\n# {folder.name}\n" in (folder / "README.md").read_text()


def test_nothing_tells_whose_machine_it_was(folder):
    write_page(folder, "org/small", latency=True)
    for path in [*folder.glob("*.json"), folder / "README.md"]:
        words = set(re.split(r"[^\w.-]+", path.read_text()))
        assert socket.gethostname() not in words
        assert not {str(Path.home()), str(folder)} & set(re.split(r"[\s\"]+", path.read_text()))


def test_parts_add_up(ragged):
    config = ragged(filter_sizes=[41, 0, 53])
    for architecture in ("SchuBertModel", "SchuBertForPreTraining"):
        assert parameter_parts(config, architecture).total == config.num_parameters(architecture)
    parts = flop_parts(config, 11)
    assert parts.total == config.flops(11)
    assert parts.pooler == 2 * 43 * 43
    assert parts.filters == sum(
        2 * 11 * 2 * h * f for h, f in zip(config.hidden_sizes, config.filter_sizes, strict=True)
    )


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_pictures_are_the_same_each_time_and_have_no_background(ragged, tmp_path, suffix):
    shape = Shape.of(ragged())
    for name in ("a", "b"):
        draw_widths(shape, tmp_path / f"{name}.{suffix}")
    if suffix == "png":
        from matplotlib.image import imread

        assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
        assert imread(tmp_path / "a.png")[0, 0, 3] == 0
