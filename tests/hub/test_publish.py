import json
import shutil

import pytest
from standin import Fault

from schubert_hf.auto import auto_map
from schubert_hf.hub.page import is_generated

SHIPPED = {"configuration_schubert.py", "modeling_schubert.py"}
HANDWRITTEN = b"---\nlicense: mit\n---\n# By hand\n"


def publish(worker, *arguments, **kwargs):
    answer = worker("publish", *arguments, **kwargs)
    assert "value" in answer, answer["error"]
    return answer["value"]


def fails(worker, *arguments, function="publish", **kwargs):
    answer = worker(function, *arguments, **kwargs)
    assert answer["error"][0] == "PublishError", answer
    return answer["error"][1]


def snapshot(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_one_commit_holds_all_that_opens_it(worker, hub, folder):
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "state.json").write_text("{}")
    (folder / "other.py").write_text("print('not ours')")
    before = snapshot(folder)
    done = publish(worker, folder, "org/small", license="apache-2.0")
    assert snapshot(folder) == before  # the source is only read
    commits = hub.repos["org/small"].commits
    assert [commit.oid for commit in commits[1:]] == [done["commit"]]
    files = commits[-1].files
    assert {name for name in files if name.endswith(".py")} == SHIPPED
    for name in (
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "README.md",
        "pruning.json",
        "pictures/widths.png",
    ):
        assert name in files
    assert not any("checkpoints" in name for name in files)
    config = json.loads(files["config.json"])
    assert config["auto_map"] == auto_map()
    assert "license: apache-2.0" in files["README.md"].decode()
    assert is_generated(files["README.md"].decode())
    assert done["url"].endswith("/org/small")
    assert not done["kept_readme"]
    assert not hub.repos["org/small"].private


def test_publishing_the_same_again_changes_nothing(worker, hub, folder):
    first = publish(worker, folder, "org/small")
    assert publish(worker, folder, "org/small")["commit"] == first["commit"]
    assert len(hub.repos["org/small"].commits) == 2


def test_from_memory_and_by_the_command(worker, hub, folder):
    assert "value" in worker("publish_model", folder, "org/memory")
    assert set(hub.repos["org/memory"].commits[-1].files) >= SHIPPED
    code, out = worker("command", "publish", folder, "org/command", "--private", "--no-latency")["value"]
    assert (code, hub.repos["org/command"].private) == (0, True)
    assert "/org/command" in out
    assert 'AutoModelForMaskedLM.from_pretrained("org/command", revision="' in out
    code, out = worker("command", "publish", folder, "a/b/c")["value"]
    assert code.startswith("error: `a/b/c` is no legal name")


def test_push_to_hub_of_a_result(worker, hub, folder):
    answer = worker("push_result", folder, "org/result")
    assert "value" in answer, answer["error"]
    files = hub.repos["org/result"].commits[-1].files
    assert SHIPPED | {"pruning.json", "tokenizer.json", "pictures/rounds.png"} <= set(files)
    assert "## Losses" in files["README.md"].decode()


def test_a_push_while_saving_takes_the_files_along(worker, hub, folder):
    answer = worker("push_while_saving", folder, "org/saved")
    assert "value" in answer, answer["error"]
    assert set(hub.repos["org/saved"].commits[-1].files) >= SHIPPED | {"config.json", "model.safetensors"}


def test_inspect_by_name(worker, hub, folder):
    publish(worker, folder, "org/small")
    found = worker("inspect", "org/small")["value"]
    assert found["shape"]["hidden_sizes"] == [13, 11]
    assert found["base"]["shape"]["hidden_sizes"] == [15, 15]
    assert worker("inspect", "org/nothing")["error"][0] == "InspectError"
    code, out = worker("command", "inspect", "org/small", "--json")["value"]
    assert code == 0
    assert json.loads(out)["parameters"] == found["parameters"]


def test_inspect_an_encoder_of_the_old_layout_by_name(worker, hub, folder):
    inside = {f"0_Transformer/{name}": (folder / name).read_bytes() for name in ("config.json", "model.safetensors")}
    modules = json.dumps([{"path": "0_Transformer", "type": "sentence_transformers.models.Transformer"}])
    hub.create("org/old", **{"config.json": b'{"__version__": "0.2.0"}', "modules.json": modules.encode(), **inside})
    assert worker("inspect", "org/old")["value"]["shape"]["hidden_sizes"] == [13, 11]


def test_a_page_written_by_hand_stays_unless_asked(worker, hub, folder):
    hub.create("org/old", **{"README.md": HANDWRITTEN})
    done = publish(worker, folder, "org/old")
    assert done["kept_readme"]
    assert hub.repos["org/old"].commits[-1].files["README.md"] == HANDWRITTEN
    done = publish(worker, folder, "org/old", overwrite_readme=True)
    assert not done["kept_readme"]
    assert b"# old" in hub.repos["org/old"].commits[-1].files["README.md"]


def test_a_page_of_ours_is_replaced_an_edited_one_stays(worker, hub, folder):
    publish(worker, folder, "org/small")
    repo = hub.repos["org/small"]
    assert not publish(worker, folder, "org/small", license="mit")["kept_readme"]
    repo.commits[-1].files["README.md"] = repo.commits[-1].files["README.md"].replace(b"dense", b"very dense")
    assert publish(worker, folder, "org/small", license="apache-2.0")["kept_readme"]


def test_the_folders_own_page_is_published(worker, hub, folder):
    (folder / "README.md").write_bytes(HANDWRITTEN)
    publish(worker, folder, "org/small")
    assert hub.repos["org/small"].commits[-1].files["README.md"] == HANDWRITTEN


def test_private(worker, hub, folder):
    publish(worker, folder, "org/secret", private=True)
    assert hub.repos["org/secret"].private
    publish(worker, folder, "org/secret", private=True)
    hub.create("org/open")
    assert "is public" in fails(worker, folder, "org/open", private=True)
    assert len(hub.repos["org/open"].commits) == 1


@pytest.mark.parametrize(
    ("fault", "requests"),
    [
        (Fault("POST", "/commit/", 500, times=2), 3),
        (Fault("POST", "/commit/", "cut"), 2),
        (Fault("POST", "/commit/", 409), 2),
        (Fault("POST", "/commit/", 412), 2),
        (Fault("POST", "/preupload/", "cut"), 1),
        (Fault("PUT", "/lfs/", "cut"), 1),
        (Fault("PUT", "/lfs/", 500), 1),
        (Fault("POST", "/lfs/objects/batch", 503), 1),
        (Fault("POST", "/repos/create", 500, times=2), 1),
        (Fault("POST", "/repos/create", "cut"), 1),
        (Fault("GET", "/api/models/", 502), 1),
    ],
    ids=lambda value: f"{value.method} {value.path} {value.status}" if isinstance(value, Fault) else "",
)
def test_what_passes_is_tried_again(worker, hub, folder, fault, requests):
    hub.faults.append(fault)
    publish(worker, folder, "org/small")
    assert len(hub.repos["org/small"].commits) == 2
    assert hub.count("POST", "/commit/") == requests


def test_a_commit_whose_answer_was_lost_is_not_made_twice(worker, hub, folder):
    hub.faults.append(Fault("POST", "/commit/", "cut after"))
    done = publish(worker, folder, "org/small")
    assert [commit.oid for commit in hub.repos["org/small"].commits[1:]] == [done["commit"]]


def test_a_page_that_does_not_come_is_not_overwritten(worker, hub, folder):
    hub.create("org/unread", **{"README.md": HANDWRITTEN})
    hub.faults.append(Fault("HEAD", "README.md", "cut", times=40))
    hub.faults.append(Fault("GET", "README.md", "cut", times=40))
    assert "no connection" in fails(worker, folder, "org/unread")
    assert len(hub.repos["org/unread"].commits) == 1


def test_uploads_are_not_sent_twice(worker, hub, folder):
    hub.faults.append(Fault("POST", "/commit/", 500, times=9))
    message = fails(worker, folder, "org/small")
    assert "HTTP 500 after 5 attempts" in message
    assert "Your local result is unchanged" in message
    sent = hub.count("PUT", "/lfs/")
    assert sent >= 1
    hub.faults.clear()
    publish(worker, folder, "org/small")
    assert hub.count("PUT", "/lfs/") == sent
    assert len(hub.repos["org/small"].commits) == 2


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "does not accept the token"),
        (403, "may not write there"),
        (409, "busy"),
        (412, "keeps changing"),
        (413, "too large"),
    ],
)
def test_each_refusal_is_one_clear_error(worker, hub, folder, status, words):
    hub.faults.append(Fault("POST", "/commit/", status, times=9, message="you sent TOKEN"))
    message = fails(worker, folder, "org/small")
    assert words in message
    assert f"HTTP {status}" in message
    assert "\n" not in message
    assert len(hub.repos["org/small"].commits) == 1


def test_rights_tokens_names_network(worker, hub, folder):
    assert "(HTTP 403" in fails(worker, folder, "others/small")
    hub.create("org/taken-away")
    assert "(HTTP 403" in fails(worker, folder, "org/taken-away")
    assert "(HTTP 401" in fails(worker, folder, "org/small", token="hf_bad")
    assert "no token" in fails(worker, folder, "org/small", function="without_token")
    for name in ("a/b/c", "org/with space", "org/two--dashes", "", "org/x.git", "x" * 97):
        assert "no legal name" in fails(worker, folder, name)
    hub.faults.append(Fault("POST", "", "cut", times=99))
    message = fails(worker, folder, "org/small")
    assert "no connection to the Hub after 5 attempts" in message
    assert hub.repos.keys() == {"org/taken-away"}


def test_nothing_is_sent_that_is_not_whole(worker, hub, folder, tmp_path):
    def broken(name, change):
        copy = tmp_path / name
        shutil.copytree(folder, copy)
        change(copy)
        return fails(worker, copy, "org/small")

    def edit_config(copy, **fields):
        path = copy / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    assert "is not the file of this version" in broken(
        "edited", lambda copy: (copy / "modeling_schubert.py").write_text("import os")
    )
    assert "does not load" in broken("no weights", lambda copy: (copy / "model.safetensors").unlink())
    assert "does not load" in broken("torn", lambda copy: (copy / "model.safetensors").write_bytes(b"torn"))
    assert "does not load" in broken("other", lambda copy: edit_config(copy, filter_sizes=[16, 0]))

    def take_a_package(copy):
        settings = {"tokenizer_class": "BertJapaneseTokenizer", "word_tokenizer_type": "mecab"}
        (copy / "tokenizer_config.json").write_text(json.dumps(settings))
        (copy / "vocab.txt").write_text("[UNK]")

    def take_the_vocabulary(copy):
        (copy / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizerLegacy"}))
        (copy / "tokenizer.json").unlink()

    def keep_the_special_words(copy):
        (copy / "tokenizer.json").unlink()

    assert "tokenizer beside its weights that opens: You need to install fugashi" in broken("package", take_a_package)
    assert "no tokenizer beside its weights that opens" in broken("vocabulary", take_the_vocabulary)
    assert "The tokenizer does not load" in broken("special", keep_the_special_words)
    assert "'gpt2' model" in broken("gpt2", lambda copy: edit_config(copy, model_type="gpt2"))
    assert "no config.json" in broken("empty", lambda copy: (copy / "config.json").unlink())
    assert "cannot be read" in broken(
        "page", lambda copy: (copy / "README.md").write_text("---\na: [\n---\n# By hand\n")
    )
    assert "is no folder" in fails(worker, tmp_path / "absent", "org/small")
    assert hub.log == []


def test_the_hub_may_refuse_the_metadata(worker, hub, folder):
    assert "does not accept README.md" in fails(worker, folder, "org/small", license="no such license")
    assert len(hub.repos["org/small"].commits) == 1
