"""From a folder to exports in it: traced, saved beside their place, compared with PyTorch, then moved there."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..run.checkpoint import write_json
from .batches import other_batches, text_batches
from .checking import Check, check
from .copying import copy_settings
from .errors import ExportError
from .formats import Format, find_format
from .quality import quality
from .record import RECORD, read_exports, weights_of
from .subject import Subject


@dataclass(frozen=True)
class Exported:
    """One file of an export.

    Attributes:
        files: in the folder, such as "onnx/model.onnx"; the one to open first, then what it needs beside it.
        megabytes: of all of them, in 10^6 bytes.
        inputs, outputs: names, of int64 and float32 tensors.
        pooling: "mean" or "cls" for a sentence encoder whose embedding is just that, perhaps normalised.
        check: of float32, against PyTorch.
        method: of int8, how it was made.
        quality: of int8, beside the float32 model, see `quality`.
        texts: that `quality` was measured on.
    """

    files: tuple[str, ...]
    megabytes: float
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    pooling: str | None = None
    check: Check | None = None
    method: str | None = None
    quality: dict[str, float] | None = None
    texts: int | None = None

    @property
    def file(self) -> str:
        """The one to open."""
        return self.files[0]


def export(
    folder: str | Path,
    format: str = "onnx",
    *,
    int8: bool = False,
    text: Any = None,
    pooled: bool = False,
    output: str | Path | None = None,
) -> list[Exported]:
    """Exports the model of a folder, and records that in the folder's `exports.json`.

    Args:
        folder: of a SchuBERT, a BERT or a relative, with any head or none, or of a sentence encoder.
        format: one of `FORMATS`.
        int8: make a quantized export, too.
        text: what int8 is calibrated and judged on, as `load_documents` takes it.
        pooled: put the pooling of a sentence encoder, and what stands behind it, into the graph.
        output: the folder to write to; it also gets config and tokenizer. By default the model's own.

    Raises:
        ExportError: it cannot be exported, or computes something else than PyTorch. Nothing is written then.
        SchuBertError: the folder holds no model of ours, or the text cannot be used.
    """
    folder = Path(folder)
    target = (folder if output is None else Path(output)).resolve()
    _check_output(folder, target)
    kind = find_format(format, int8=int8)
    if int8 and text is None:
        raise ExportError("int8 is calibrated and judged on text. Give `--text`, from Python `text`.")
    read_exports(target)  # one that cannot be read is an error before any work
    subject = Subject.open(folder, pooled=pooled)
    texts = text_batches(subject, text) if int8 else None
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
        staged = Path(scratch)
        made = _export(kind, subject, staged, texts)
        if target != folder.resolve():
            copy_settings(folder, staged)
        _move(staged, target, made, weights_of(folder))
    return made


def _check_output(folder: Path, target: Path) -> None:
    """Raises `ExportError` where config and tokenizer would be written over those of another model's weights."""
    if target != folder.resolve() and (target / "model.safetensors").exists():
        raise ExportError(
            f"`{target.name}` already holds a model. Give another `--output`, or leave it out: the export is then "
            f"written into `{folder}`."
        )


def _export(kind: Format, subject: Subject, staged: Path, texts: Any) -> list[Exported]:
    path = staged / kind.file
    path.parent.mkdir()
    program = kind.trace(subject)
    kind.save(program, path)
    batches, run = other_batches(subject), kind.open(path, subject)
    checked = check(kind.file, subject, run, batches)
    outputs = tuple(run(batches[0]))
    made = [_describe(kind.file, staged, subject, outputs, check=checked)]
    if texts is not None and kind.quantized is not None:
        calibration, judging = texts
        path = staged / kind.quantized
        kind.save(kind.quantize(program, subject, calibration), path)
        figures = quality(kind.quantized, subject, kind.open(path, subject), judging)
        number = sum(len(batch["input_ids"]) for batch in judging)
        about = {"method": kind.method, "quality": figures, "texts": number}
        made.append(_describe(kind.quantized, staged, subject, outputs, **about))
    return made


def _describe(file: str, staged: Path, subject: Subject, outputs: tuple[str, ...], **about: Any) -> Exported:
    path = staged / file
    beside = sorted(one for one in path.parent.iterdir() if one.stem == path.stem and one != path)
    paths = [path, *beside]  # such as model.onnx_data
    return Exported(
        files=tuple(one.relative_to(staged).as_posix() for one in paths),
        megabytes=sum(one.stat().st_size for one in paths) / 1e6,
        inputs=subject.inputs,
        outputs=outputs,
        pooling=subject.pooling,
        **about,
    )


def _move(staged: Path, target: Path, made: list[Exported], weights: str) -> None:
    """Into place, the record last."""
    entries = {one.file: {**asdict(one), "weights": weights} for one in made}
    known = read_exports(target)
    for path in sorted(staged.rglob("*")):
        if path.is_file():
            place = target / path.relative_to(staged)
            place.parent.mkdir(parents=True, exist_ok=True)
            path.replace(place)
    write_json(target / RECORD, {**known, **entries})
