"""Pages on disk. A page is written as a whole: README.md comes last, so that a folder that has one has all of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from ..run.checkpoint import atomic_folder
from ..run.output import MARKER, PRUNING_RECORD, OutputFolderError
from .evaluations import eval_result_files
from .inspection import Inspection, inspect_preset
from .page import ROUNDS, WIDTHS, has_text, is_generated, render_card
from .pictures import draw_rounds, draw_widths
from .presets import render_preset
from .record import Record

README = "README.md"
PAGE_DATA = "record.json"


def write_page(folder: Path, name: str | None = None, *, license: str | None = None, latency: bool = False) -> Record:
    """Writes README.md, its pictures and `.eval_results/` into a model's folder, from the data in it.

    Args:
        name: of the model on the page; by default the folder's.
        license: see `Record.of_folder`.
        latency: measure it first, unless the folder holds a `latency.json`.

    Returns:
        What the page was made from.
    """
    name = name or folder.resolve().name  # `.` has none
    record = Record.of_folder(folder, license=license)
    if latency:
        record = record.measured(folder)
    files = {**eval_result_files(record.evaluations), README: render_card(record, name)}
    _write(folder, record.inspect(name), files, record.run)
    return record


def update_page(folder: Path) -> bool:
    """Renders a folder's page again, for what the folder has been given since; title and licence stay.

    Returns:
        Whether it did: a page that is not there, or that somebody wrote or edited, is left alone, as is one under
        another name than the folder's, which may be of the Hub.

    Raises:
        ExportError: the folder's exports are not those of its weights.
    """
    path = folder / README
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    name = folder.resolve().name
    if not is_generated(text) or f"\n# {name}\n" not in text:
        return False
    write_page(folder, license=ModelCard(text).data.license)
    return True


def write_missing_pages(output: Path) -> list[Path]:
    """Writes the pages that a killed run had not yet written for results in `output` or in folders in it; which."""
    folders = [output, *sorted(output.iterdir())] if output.is_dir() else []
    whole = [folder for folder in folders if all((folder / name).exists() for name in (MARKER, PRUNING_RECORD))]
    missing = [folder for folder in whole if not (folder / README).exists()]
    for folder in missing:
        write_page(folder)
    return missing


def write_record(record: Record, folder: Path) -> None:
    """Writes the page, pictures and data of a model whose weights are elsewhere."""
    data = json.dumps(record.to_json(), indent=1, ensure_ascii=False) + "\n"
    files = {PAGE_DATA: data, README: render_card(record, folder.name)}
    _write(folder, record.inspect(folder.name), files, record.run)


def read_record(folder: Path) -> Record:
    """What `write_record` wrote."""
    return Record.from_json(json.loads((folder / PAGE_DATA).read_text(encoding="utf-8")))


def write_preset(preset: str, folder: Path) -> None:
    """Writes the page and picture of one of the paper's shapes."""
    _write(folder, inspect_preset(preset), {README: render_preset(preset)})


def handwritten_page(folder: Path) -> str | None:
    """The README.md of a folder, if somebody wrote or edited it."""
    path = folder / README
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    return text if has_text(text) and not is_generated(text) else None


def check_page_free(folder: Path) -> None:
    """Raises `OutputFolderError` where the page of a model that is still to be written would replace another one."""
    if not (folder / MARKER).exists() and handwritten_page(folder) is not None:
        raise OutputFolderError(
            f"`{folder}` holds a {README} that is no page of this package's, and the model's page would replace it. "
            "Give another output folder, or move the file."
        )


def _write(folder: Path, inspection: Inspection, texts: dict[str, str], run: dict[str, Any] | None = None) -> None:
    """Writes the files of a page beside their places, then renames them, the last text last."""
    finished = folder / ".page"
    with atomic_folder(finished) as beside:
        draw_widths(inspection.shape, beside / WIDTHS, inspection.base)
        if run is not None:
            draw_rounds(run, beside / ROUNDS)
        for path, text in texts.items():
            (beside / path).parent.mkdir(exist_ok=True)
            (beside / path).write_text(text, encoding="utf-8")
    for path in (WIDTHS, ROUNDS, *texts):
        if (finished / path).exists():
            (folder / path).parent.mkdir(exist_ok=True)
            (finished / path).replace(folder / path)
    shutil.rmtree(finished)
