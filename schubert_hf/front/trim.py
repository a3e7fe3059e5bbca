"""`trim`: a model in, the same with a smaller vocabulary out; nothing is trained."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..cli import python_call
from ..configuration_schubert import SchuBertConfig
from ..conversion import convert_bert
from ..data.columns import load_pairs
from ..data.sources import texts_of
from ..data.text import load_documents, stream_documents
from ..encoders.cross_encoder import CrossEncoder as OpenedCrossEncoder
from ..encoders.kinds import CROSS, SENTENCE
from ..encoders.packages import Package
from ..encoders.sentence_encoder import SentenceEncoder
from ..evaluation.loading import load_as_saved, tokenizer_of
from ..hub.writing import check_page_free, write_page
from ..pruning.result import save_shipped
from ..run.checkpoint import write_json
from ..run.network import hub_asked_once
from ..run.output import TRIMMING_RECORD, check_output_folder, result_files
from ..run.progress import without_loading_bars
from ..run.provenance import machine, versions
from ..shape import Shape
from ..shipping import opened_anywhere
from ..vocabulary.selection import Selection
from ..vocabulary.trimming import trim_model
from .arguments import PruneArguments, SettingError
from .job import describe_base, describe_text
from .jobs import with_pretraining_heads
from .unlabelled import open_encoder

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder, SentenceTransformer

Vocabulary = int | float | str | os.PathLike[str] | Sequence[str]


@dataclass(frozen=True)
class TrimResult:
    """A model with a smaller vocabulary.

    Attributes:
        model: a SchuBERT in evaluation mode.
        tokenizer: its own.
        facts: see `vocabulary.trimming.Trimmed`; they are in the record and on the page.
        package: for a sentence encoder or cross-encoder, `package.model` is the `SentenceTransformer` or
            `CrossEncoder` with the smaller vocabulary. None for a plain model.
        output_dir: the model's folder; None if nothing was written.
    """

    model: PreTrainedModel = field(repr=False)
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    facts: dict[str, Any]
    package: Package | None = field(default=None, repr=False)
    output_dir: Path | None = None


@without_loading_bars()
def trim(
    model: str | os.PathLike[str] | PreTrainedModel | SentenceTransformer | CrossEncoder,
    vocabulary: Vocabulary,
    *,
    text: str | os.PathLike[str] | Sequence[str] | Dataset | None = None,
    eval_text: str | os.PathLike[str] | Sequence[str] | Dataset | None = None,
    output_dir: str | os.PathLike[str] | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    command: str | None = None,
) -> TrimResult:
    """Keeps the words of a vocabulary that a text uses; nothing is trained.

    A text of words that stay is tokenized and encoded exactly as before. Words that go fall back to smaller pieces;
    special and added words, single characters and bytes always stay, so nothing becomes unknown that was not.

    Args:
        model: a name on the Hub, a folder, or a model in memory, which is left unchanged: of any family in
            `schubert_hf.families`, with any head or none; or of sentence-transformers. A checkpoint is opened in
            single precision.
        vocabulary: how many words stay at most, 8000; or how much of the text's tokens they cover, "99.9%" or 0.999;
            or which words: a file with one on each line, written as the tokenizer does, or a list.
        text: what words are counted in: a file or folder (documents separated by blank lines), the name of a dataset,
            a list of documents, or a `datasets.Dataset` with the column `text`. Not needed where words are named.
        eval_text: held-out text that both vocabularies are compared on. Default: every tenth document of `text`, as
            the words of the others tokenize it.
        output_dir: folder for the result and its page; None writes nothing.
        tokenizer: of the model; by default the one beside the checkpoint that it was loaded from.
        command: what repeats this, for the page.

    Raises:
        TrimError: the tokenizer cannot be rewritten, or what is asked for cannot be had.
        SettingError: `text` is missing.
        SchuBertError: model or text cannot be opened, or `output_dir` holds a model.

    Example:
        ```python
        result = schubert_hf.trim("intfloat/multilingual-e5-base", "99.9%", text="english.txt", output_dir="small")
        ```
    """
    output = None if output_dir is None else Path(output_dir)
    if output is not None:
        check_output_folder(output)
        check_page_free(output)
    selection = Selection.parse(vocabulary)
    if selection.words is None and text is None:
        raise SettingError(
            "`text` is missing: what words are counted in. Give a file, a folder or a dataset's name "
            "(`--text corpus.txt`), or name the words that stay (`--vocabulary keep.txt`)."
        )
    texts, held_out = (None if one is None else texts_of(load_documents(_plain(one))) for one in (text, eval_text))
    with hub_asked_once(_plain(model)):
        result = trim_words(_plain(model), selection, tokenizer, texts=texts, held_out=held_out)
    described = describe_vocabulary(result.facts, vocabulary, text, eval_text)
    result = replace(result, facts=described, output_dir=output)
    if output is not None:
        named = {"text": text, "eval_text": eval_text, "output_dir": output_dir, "tokenizer": tokenizer}
        given = {name: value for name, value in named.items() if value is not None}
        base = describe_base(_plain(model))
        call = command or python_call("schubert_hf.trim", ("model", model), ("vocabulary", vocabulary), **given)
        _write(result, output, base, call)
    return result


def trim_words(
    model: Any,
    selection: Selection,
    tokenizer: PreTrainedTokenizerBase | None,
    *,
    texts: Iterable[str] | None,
    held_out: Iterable[str] | None,
    heads: bool = True,
) -> TrimResult:
    """`trim`, of texts that are open, without a folder.

    Args:
        heads: open a checkpoint with all pretraining heads that it holds, whatever class it names.
    """
    encoder = open_encoder(model)
    loaded = _open(model, heads) if encoder is None else encoder.model
    if tokenizer is None:
        tokenizer = tokenizer_of(model) if encoder is None else encoder.tokenizer
    if loaded.config.model_type != SchuBertConfig.model_type:
        loaded = convert_bert(loaded)
    always = [] if encoder is None else list(encoder.prompts.values())
    trimmed = trim_model(loaded, tokenizer, selection, texts=texts, held_out=held_out, always=always)
    small = opened_anywhere(trimmed.model.eval())
    package = None if encoder is None else _package(encoder, small, trimmed.tokenizer)
    return TrimResult(small, trimmed.tokenizer, trimmed.facts, package)


def describe_vocabulary(
    facts: dict[str, Any], vocabulary: Vocabulary, text: Any, eval_text: Any, root: Path | None = None
) -> dict[str, Any]:
    """The facts of a trimmed vocabulary, with what was asked for and the texts."""
    asked = str(vocabulary)
    if isinstance(vocabulary, str | os.PathLike):
        asked = Path(vocabulary).name
    elif isinstance(vocabulary, Sequence):
        asked = f"{len(vocabulary):,} words"
    texts = {"text": text, "held_out_text": eval_text}
    known = {name: describe_text(_plain(one), root) for name, one in texts.items() if one is not None}
    return {"asked": asked, **facts, **known}


def trim_first(arguments: PruneArguments, tokenizer: PreTrainedTokenizerBase | None, root: Path | None) -> TrimResult:
    """The model of a pruning run with the vocabulary that its arguments ask for.

    Raises:
        SchuBertError: as `trim`.
    """
    assert arguments.vocabulary is not None
    selection = Selection.parse(arguments.vocabulary)
    if selection.words is None and arguments.source is None:
        raise SettingError(
            f"`vocabulary` is {arguments.vocabulary!r} and `task` is {arguments.task!r}: there is no text to count "
            "words in. Name the words that stay (`--vocabulary keep.txt`), or trim first: `schubert trim`."
        )
    texts, held_out = (_documents(arguments, text) for text in (arguments.source, arguments.eval_text))
    heads = arguments.objective != "outputs" and not (arguments.columns or arguments.pairs)
    made = trim_words(arguments.model, selection, tokenizer, texts=texts, held_out=held_out, heads=heads)
    gc.collect()  # the dense encoder refers to itself, and its weights are large
    facts = describe_vocabulary(made.facts, arguments.vocabulary, arguments.source, arguments.eval_text, root)
    return replace(made, facts=facts)


def _documents(arguments: PruneArguments, text: Any) -> Iterable[str] | None:
    config = arguments.dataset_config if text is arguments.source else None
    if text is None:
        return None
    if arguments.columns:
        first, second = arguments.columns
        rows = load_pairs(text, (first, second), config=config)
        return (f"{row[first]} {row[second]}" for row in rows)
    if arguments.streaming and text is arguments.source:
        return (row["text"] or "" for row in stream_documents(text, config=config))
    return texts_of(load_documents(text, config=config))


def _open(model: Any, heads: bool) -> PreTrainedModel:
    loaded = with_pretraining_heads(model, must=False) if heads else None
    if loaded is None:
        loaded = load_as_saved(model) if isinstance(model, str) else model
    return loaded


def _package(
    encoder: SentenceEncoder | OpenedCrossEncoder, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> Package:
    made = encoder.with_model(model, tokenizer=tokenizer)
    if isinstance(encoder, OpenedCrossEncoder):
        return Package(made, {"kind": CROSS, "labels": model.config.num_labels, "max_length": encoder.max_length})
    width = made.get_embedding_dimension()
    facts = {"kind": SENTENCE, "width": width, "dense_width": width, "map_parameters": 0}
    return Package(made, {**facts, "max_length": encoder.max_length})


def _write(result: TrimResult, output: Path, base: dict[str, Any], command: str) -> None:
    provenance = {"base_model": base, "vocabulary": result.facts, "command": command}
    record = {
        "source": asdict(Shape.of(result.model.config)),
        "provenance": {**provenance, "versions": versions(), "machine": machine()},
        **({} if result.package is None else {"encoder": result.package.facts}),
    }
    with result_files(output) as files:
        save_shipped(files, result.model, result.tokenizer, result.package)
        write_json(files / TRIMMING_RECORD, record)
    write_page(output)


def _plain(value: Any) -> Any:
    return str(Path(value)) if isinstance(value, os.PathLike) else value
