"""README.md and the guide: every relative link and anchor leads somewhere, and README stays a landing page."""

import re
from pathlib import Path

import pytest
from transformers import AutoTokenizer, BertConfig, BertForPreTraining

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "examples" / "README.md"]
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```.*?^```", re.M | re.S)


# Of the guide; `.ci/readme.py` runs README's. What opens the main job's result is left to it.
SNIPPETS = [
    snippet
    for snippet in re.findall(r"^```python\n(.*?)^```", PAGES[1].read_text(encoding="utf-8"), re.M | re.S)
    if '"pruned"' not in snippet
]


def anchors(page: Path) -> set[str]:
    """What GitHub makes of a page's headings."""
    prose = FENCED.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ +(.+)$", prose, re.M)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> list[str]:
    broken = []
    for link in LINK.findall(FENCED.sub("", page.read_text(encoding="utf-8"))):
        if link.startswith(("https://", "http://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_and_anchor_exists(page: Path) -> None:
    assert len(LINK.findall(page.read_text(encoding="utf-8"))) > 20
    assert broken_links(page) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One, two\n[a](#one-two) [b](#three) [c](none.md) [d](page.md#one-two) [e](page.md#four)\n")
    assert broken_links(page) == ["#three", "none.md", "page.md#four"]


def test_the_landing_page_is_short_and_keeps_both_commands() -> None:
    text = PAGES[0].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert "```bash\npip install -c constraints.txt -e . && accelerate launch examples/prune.py\n```" in text
    assert '```bash\npip install -c constraints.txt -e ".[test]" && pytest -q\n```' in text


def test_the_guide_names_every_script_and_every_room() -> None:
    text = PAGES[1].read_text(encoding="utf-8")
    scripts = [f"({path.name})" for path in (ROOT / "examples").glob("*.py") if "def main" in path.read_text()]
    rooms = [f" {path.name}/" for path in (ROOT / "schubert_hf").iterdir() if (path / "__init__.py").exists()]
    commands = [f"`{path.stem}`" for path in (ROOT / "schubert_hf" / "commands").glob("[a-z]*.py")]
    text = text.replace("`schubert prune`", "`prune`")
    assert [name for name in (*scripts, *rooms, "presets.py", *commands) if name not in text] == []


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: re.search(r"\w+\(", snippet)[0][:-1])
def test_the_python_of_the_guide_runs(snippet: str, bert, text, tmp_path, monkeypatch, capsys) -> None:
    """On a model and a text of seconds, in the places of the included ones."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples" / "default" / "text").mkdir(parents=True)
    longer = BertConfig.from_pretrained(bert, max_position_embeddings=128)
    BertForPreTraining(longer).save_pretrained("examples/default/model")
    AutoTokenizer.from_pretrained(bert).save_pretrained("examples/default/model")
    (tmp_path / "examples" / "default" / "text" / "valid.txt").symlink_to(text)
    exec(compile(snippet, "examples/README.md", "exec"), {})
    assert "Shape(" in capsys.readouterr().out
