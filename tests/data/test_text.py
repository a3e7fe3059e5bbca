"""Every kind of source gives documents; every bad one gives one error that names it and the way out."""

import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest
from datasets import Dataset
from huggingface_hub import HfApi

from schubert_hf.cli import python_call
from schubert_hf.data.text import TextSourceError, load_documents, split_documents, stream_documents

TEXT = "First one. It has two sentences.\n\nSecond one. It has two, too.\n"
WANTED = ["First one. It has two sentences.", "Second one. It has two, too."]
JSONL = '{"text": "First one. It has two sentences."}\n{"text": "Second one. It has two, too."}\n'
CSV = 'id,text\n1,"First one. It has two sentences."\n2,"Second one. It has two, too."\n'

GOOD: dict[str, bytes] = {
    "plain.txt": TEXT.encode(),
    "noextension": TEXT.encode(),
    "notes.md": TEXT.encode(),
    "SHOUTED.TXT": TEXT.encode(),
    "windows.txt": TEXT.replace("\n", "\r\n").encode(),
    "mark.txt": b"\xef\xbb\xbf" + TEXT.encode(),
    "spaces_in_blank_line.txt": TEXT.replace("\n\n", "\n \t\n").encode(),
    "many_blank_lines.txt": ("\n\n" + TEXT.replace("\n\n", "\n\n\n\n")).encode(),
    "packed.txt.gz": gzip.compress(TEXT.encode()),
    "packed.txt.xz": lzma.compress(TEXT.encode()),
    "rows.jsonl": JSONL.encode(),
    "rows.jsonl.gz": gzip.compress(JSONL.encode()),
    "rows.csv": CSV.encode(),
}
BAD: dict[str, tuple[bytes, str]] = {
    "empty.txt": (b"", "empty.txt` is empty"),
    "blank.txt": (b"\n \n\t\n\n", "blank.txt` holds no text"),
    "binary.txt": (bytes(range(256)) * 64, "binary.txt` is not UTF-8 text"),
    "zeros.txt": (b"Some text.\0\0\0 More of it.\n", "zeros.txt` is not text"),
    "picture.png": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "picture.png` is not UTF-8 text"),
    "archive.zip": (b"PK\3\4" + bytes(60), "archive.zip` cannot be read"),
    "latin1.txt": ("Un caf\xe9 noir. Tr\xe8s bon.\n".encode("latin-1"), "latin1.txt` is not UTF-8 text"),
    "late.txt": (b"All is well. " * 9000 + b"caf\xe9.\n", "late.txt` is not UTF-8 text"),
    "utf16.txt": (TEXT.encode("utf-16"), "utf16.txt` is not UTF-8 text"),
    "false.txt.gz": (TEXT.encode(), "false.txt.gz` cannot be read"),
    "torn.txt.xz": (lzma.compress(TEXT.encode() * 99)[:-9], "torn.txt.xz` cannot be read"),
    "nothing.txt.xz": (lzma.compress(b""), "nothing.txt.xz` is empty"),
    "body.jsonl": (b'{"body": "One. Two."}\n', r"body.jsonl` has the columns \['body'\]"),
    "numbers.jsonl": (b'{"text": 1}\n{"text": 2}\n', "numbers.jsonl` has a column `text` that holds"),
    "nulls.jsonl": (b'{"text": null}\n', "nulls.jsonl` holds no text"),
    "torn.jsonl": (b'{"text": "One', "torn.jsonl` cannot be read as json"),
    "body.csv": (b"body,label\nOne.,1\n", "body.csv` has the columns"),
    "numbers.csv": (b"text\n1\n2\n", "numbers.csv` has a column `text` that holds"),
    "false.parquet": (b"PAR0", "false.parquet` cannot be read as parquet"),
}


def stripped(documents: Dataset) -> list[str]:
    return [text.strip() for text in documents["text"] if text.strip()]


@pytest.mark.parametrize("name", GOOD)
def test_good_sources_give_documents(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(GOOD[name])
    documents = load_documents(tmp_path / name)
    assert documents.column_names == ["text"]
    assert stripped(documents) == WANTED


@pytest.mark.parametrize("name", ["lines.txt", "windows.txt", "lines", "lines.txt.gz"])
def test_a_file_without_blank_lines_has_a_document_per_line(tmp_path: Path, name: str) -> None:
    lines = ["a first query", "Two sentences. In one line.", "MKVLA", "the end"]
    data = ("\r\n" if name == "windows.txt" else "\n").join(lines).encode() + b"\n"
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert load_documents(tmp_path / name)["text"] == lines
    assert [row["text"] for row in stream_documents(tmp_path / name)] == lines


def test_in_a_folder_such_a_file_is_a_document(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"{number}.txt").write_text("A first line.\nAnd a second one.\n")
    assert len(load_documents(tmp_path)) == 2


def test_parquet_and_path_as_string(tmp_path: Path) -> None:
    Dataset.from_dict({"text": WANTED, "id": [1, 2]}).to_parquet(tmp_path / "rows.parquet")
    assert stripped(load_documents(str(tmp_path / "rows.parquet"))) == WANTED


@pytest.mark.parametrize("name", BAD)
def test_bad_files_give_one_clear_error(tmp_path: Path, name: str) -> None:
    content, message = BAD[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TextSourceError, match=message) as caught:
        load_documents(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["notes[1]", "[x]", "a]", "a[", "star*", "q?", "[!a]", "{a,b}"])
@pytest.mark.parametrize("place", ["file", "folder", "working folder"])
def test_a_name_is_no_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, place: str) -> None:
    """Beside what it would match as a pattern, and in a folder of such a name."""
    folder = tmp_path / name
    folder.mkdir()
    (folder / f"{name}.txt").write_text(TEXT)
    for other in ("notes1", "x", "star2", "q1", "b"):
        (folder / f"{other}.txt").write_text("Of another file.\n\nNot to be read.\n")
        (tmp_path / other).mkdir()
        (tmp_path / other / f"{name}.txt").write_text("Of another folder.\n\nNot to be read.\n")
    source = folder / f"{name}.txt"
    if place == "folder":
        for file in set(folder.iterdir()) - {source}:
            file.unlink()
        source = folder
    if place == "working folder":
        monkeypatch.chdir(folder)
        source = Path("..", name, source.name)
    assert stripped(load_documents(source)) == WANTED
    assert [row["text"].strip() for row in stream_documents(source)] == WANTED


def test_two_colons_in_a_path_are_named(tmp_path: Path) -> None:
    (tmp_path / "a::b").mkdir()
    for source in (tmp_path / "a::b" / "text.txt", tmp_path / "c::d.txt"):
        source.write_text(TEXT)
        for load in (load_documents, stream_documents):
            with pytest.raises(TextSourceError, match=r"cannot be read as text: its path has a `::`.*Rename"):
                load(source)


def test_a_text_is_told_from_a_name() -> None:
    text = "No name is as long as this text. " * 9
    with pytest.raises(TextSourceError, match=r"no file `No name is as .*\.\.\.`.*text itself is a list of documents"):
        load_documents(text)
    assert python_call("prune", text=text) == f'prune(text="{text}")'


def test_an_empty_name_is_not_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "notes.txt").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TextSourceError, match="`` is not a local file"):
        load_documents("")
    assert stripped(load_documents(Path())) == WANTED


def test_names_of_files_are_no_documents(tmp_path: Path) -> None:
    names = [str(tmp_path / name) for name in ("one.txt", "two.txt")]
    Path(names[0]).write_text(TEXT)
    assert load_documents(names)["text"][:] == names  # one is no file
    Path(names[1]).write_text(TEXT)
    with pytest.raises(TextSourceError, match=r"holds 2 names of files, such as `.*one.txt`.*Give the folder"):
        load_documents(names)


def test_a_document_that_utf_8_cannot_hold() -> None:
    with pytest.raises(TextSourceError, match=r"cannot be written as UTF-8.*errors='replace'"):
        load_documents(["A \ud800 king."])


def test_nothing_there(tmp_path: Path) -> None:
    for source in (tmp_path / "nowhere", str(tmp_path / "nowhere"), "nowhere.txt", "./nowhere", "~/nowhere.xz"):
        with pytest.raises(TextSourceError, match="does not exist"):
            load_documents(source)


def test_folder_reads_all_kinds_and_leaves_hidden_files_out(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.txt").write_text("First one. It has two sentences.\n")
    (tmp_path / "deep" / "b.jsonl").write_text('{"text": "Second one. It has two, too.", "id": 7}\n')
    (tmp_path / ".hidden.txt").write_text("Hidden. Not read.\n")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    assert stripped(load_documents(tmp_path)) == WANTED


def test_folder_of_files_with_other_columns(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "First one. It has two sentences.", "id": 7}\n')
    (tmp_path / "b.jsonl").write_text('{"text": "Second one. It has two, too.", "title": "b"}\n')
    assert stripped(load_documents(tmp_path)) == WANTED


def test_folder_names_the_file_at_fault(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    (tmp_path / "b.txt").write_bytes(b"caf\xe9. Bon.\n")
    with pytest.raises(TextSourceError, match=r"b\.txt` is not UTF-8"):
        load_documents(tmp_path)


@pytest.mark.parametrize("files", [[], ["picture.png"], [".hidden.txt"]])
def test_folder_without_text(tmp_path: Path, files: list[str]) -> None:
    for name in files:
        (tmp_path / name).write_bytes(b"\x89PNG")
    with pytest.raises(TextSourceError, match="holds no file that can be read"):
        load_documents(tmp_path)


def test_without_cache_nothing_stays_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "plain.txt").write_text(TEXT)
    documents = load_documents(tmp_path / "plain.txt", cache=False)
    assert stripped(documents) == WANTED
    assert not list((tmp_path / "cache").rglob("*.arrow"))


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "plain.txt"
    path.write_text("Old. Text.\n")
    load_documents(path)
    path.write_text(TEXT)
    assert stripped(load_documents(path)) == WANTED


@pytest.mark.parametrize("name", ["no-such-dataset", "nobody/no-such-dataset", "wikitext", "a/b/c", "two words"])
def test_unknown_dataset_offline(name: str) -> None:
    with pytest.raises(TextSourceError, match=r"[Gg]ive") as caught:
        load_documents(name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unreachable_hub_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def unreachable(self: HfApi, *arguments: object, **options: object) -> None:
        calls.append(arguments)
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(HfApi, "dataset_info", unreachable)
    with pytest.raises(TextSourceError, match="the Hub cannot be reached"):
        load_documents("nobody/no-such-dataset")
    assert len(calls) == 1


def test_wikitext_lines_become_articles(tmp_path: Path) -> None:
    lines = [
        "",
        " = First = \n",
        "",
        " One line . \n",
        " = = Section = = \n",
        " More . \n",
        " = Second = \n",
        " End . \n",
    ]
    folder = tmp_path / "wikitext"
    folder.mkdir()
    Dataset.from_dict({"text": lines}).to_parquet(folder / "train.parquet")
    assert list(load_documents(folder)["text"]) == [
        "= First =\nOne line .\n= = Section = =\nMore .",
        "= Second =\nEnd .",
    ]


def test_split_keeps_documents_apart(documents: Dataset) -> None:
    train, held_out = split_documents(documents, held_out=5, seed=0)
    assert (len(train), len(held_out)) == (75, 5)
    assert {*train["text"], *held_out["text"]} == set(documents["text"])
    assert split_documents(documents, held_out=5, seed=0)[1]["text"][:] == held_out["text"][:]
    assert split_documents(documents, held_out=5, seed=1)[1]["text"][:] != held_out["text"][:]


def test_split_holds_out_at_most_a_tenth(documents: Dataset) -> None:
    assert len(split_documents(documents, held_out=1000, seed=0)[1]) == 8


@pytest.mark.parametrize(
    "cut", [lambda text: text, lambda text: text.replace(". ", ".\n")], ids=["one line", "a line per sentence"]
)
def test_one_document_is_cut_into_pieces(corpus: list[str], cut: Callable[[str], str]) -> None:
    whole = cut(" ".join(corpus[:6]))
    train, held_out = split_documents(Dataset.from_dict({"text": [whole]}), held_out=5, seed=0)
    assert sorted(" ".join([*train["text"], *held_out["text"]]).split()) == sorted(whole.split())
    assert len(train) > 10
    assert len(held_out) >= 1


def test_one_sentence_cannot_be_split() -> None:
    with pytest.raises(TextSourceError, match="single sentence"):
        split_documents(Dataset.from_dict({"text": ["Only one sentence here"]}), held_out=5, seed=0)
