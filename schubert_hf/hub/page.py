"""A model's page: a record in, Markdown with metadata out. Sections without data are left out.

The text is in `templates/modelcard.md.jinja`, its tables are made in `tables`.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from importlib.resources import files
from typing import Any

import jinja2
import yaml
from huggingface_hub import ModelCard, ModelCardData

from ..auto import MODELS
from ..cost import format_size
from ..pruning.methods import describe_method
from ..run.provenance import describe_machine
from . import encoders, exports, tables
from .errors import RecordError
from .evaluations import model_index
from .inspection import SEQUENCE, Inspection
from .record import Record

WIDTHS, ROUNDS = "pictures/widths.png", "pictures/rounds.png"
OLDEST_TRANSFORMERS = "5.4"  # the first whose configurations are dataclasses, as ours is
TAGS = ["schubert", "bert", "pruning", "structured-pruning", "pruned", "arxiv:2005.06628"]
PIPELINES = {
    "SchuBertModel": "feature-extraction",
    "SchuBertForMaskedLM": "fill-mask",
    "SchuBertForSequenceClassification": "text-classification",
    "SchuBertForTokenClassification": "token-classification",
    "SchuBertForQuestionAnswering": "question-answering",
    "SchuBertForMultipleChoice": "multiple-choice",
}
_MARK = re.compile(r"\n<!-- schubert_hf made this page from data \(([0-9a-f]{16})\).* -->\n\Z")


def render_card(record: Record, name: str) -> str:
    """The README.md of a model; `name` is what `from_pretrained` takes: its name on the Hub, or its folder."""
    inspection = record.inspect(name)
    architecture = _shown(inspection)
    encoder = record.package
    pipeline_tag = PIPELINES.get(architecture) if encoder is None else encoders.pipeline_tag(encoder)
    return fill_template(
        inspection,
        card_metadata(record, name, pipeline_tag),
        name=name,
        auto_class=_auto_class(architecture),
        pipeline_tag=pipeline_tag,
        encoder=encoder,
        encoder_table=encoder and encoders.figure_table(encoder),
        oldest_transformers=OLDEST_TRANSFORMERS,
        provenance=record.provenance,
        base_model=record.base_model,
        license=record.license,
        tokenizer=record.tokenizer,
        tuned=record.tuned,
        exports=record.exports and exports.usage(record.exports, pipeline_tag),
        export_table=record.exports and exports.export_table(record.exports),
        latency=record.latency,
        latency_table=record.latency and tables.latency_table(record.latency),
        evaluation_table=record.evaluations and tables.evaluation_table(record.evaluations),
        trimmed=record.trimmed,
        vocabulary=record.provenance.get("vocabulary"),
        vocabulary_table=tables.vocabulary_table(record.provenance.get("vocabulary")),
        command=wrap_command(record.provenance.get("command", "")),
        **({} if record.run is None else _pruning(record, record.run)),
    )


def opener(record: Record) -> str:
    """The class that opens a model as what it is, with its head: of sentence-transformers, or an Auto class."""
    return str(record.package["kind"]) if record.package else _auto_class(_shown(record.inspect("model")))


def _shown(inspection: Inspection) -> str:
    """The class that a page shows: of the two pretraining heads, the masked LM's."""
    return inspection.architecture.replace("ForPreTraining", "ForMaskedLM")


def _auto_class(architecture: str) -> str:
    return {model.__name__: auto.__name__ for auto, model in MODELS.items()}[architecture]


def card_metadata(record: Record, name: str, pipeline_tag: str | None) -> ModelCardData:
    """What the Hub reads: base model and relation, licence, tags, data sets, results."""
    base, text = record.base_model, record.provenance.get("train_data", {})
    has_base = bool(base.get("hub"))
    published = model_index(record.evaluations)
    encoder = record.package
    return ModelCardData(
        model_name=name.rpartition("/")[2] if published else None,
        library_name="transformers" if encoder is None else "sentence-transformers",
        pipeline_tag=pipeline_tag,
        license=record.license,
        language=base.get("language"),
        base_model=base["name"] if has_base else None,
        base_model_relation="finetune" if has_base else None,  # the Hub knows no relation "pruned"
        datasets=[text["name"]] if text.get("hub") else None,
        tags=TAGS if encoder is None else [*encoders.tags(encoder), *TAGS],
        eval_results=published or None,
    )


def fill_template(inspection: Inspection, metadata: ModelCardData, *, now: str = "this model", **data: Any) -> str:
    """A page with a checksum at its end, by which a page that was edited by hand is recognised.

    What the template names and `data` lacks counts as false there.
    """
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=_Absent, autoescape=False)
    environment.globals |= {"machine": describe_machine, "size": format_size, "link": tables.link}
    environment.globals["percent"] = "{:.1%}".format
    template = files("schubert_hf.hub").joinpath("templates/modelcard.md.jinja").read_text(encoding="utf-8")
    text = environment.from_string(template).render(
        card_data=metadata.to_yaml(),
        title=inspection.name.rpartition("/")[2],
        inspection=inspection,
        sequence=SEQUENCE,
        widths_picture=WIDTHS,
        size_table=tables.size_table(inspection, now),
        width_table=tables.width_table(inspection.shape, inspection.base),
        **data,
    )
    text = re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)
    text = re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
    return (
        f"{text}\n<!-- schubert_hf made this page from data ({_checksum(text)}). Edit it as you like: an edited "
        "page is kept when you publish again. -->\n"
    )


class _Absent(jinja2.ChainableUndefined):
    """An absent value is false in conditions; printing it is an error."""

    def __str__(self) -> str:
        raise jinja2.UndefinedError(f"`{self._undefined_name}` is not known.")


def is_generated(text: str) -> bool:
    """Whether `render_card` wrote this page and nobody has edited it since."""
    mark = _MARK.search(text)
    return mark is not None and mark[1] == _checksum(text[: mark.start()])


def has_text(text: str) -> bool:
    """Whether a page has any text besides its metadata."""
    return bool(re.sub(r"\A\s*---\n.*?\n---", "", text, flags=re.DOTALL).strip())


def check_card(text: str) -> None:
    """Raises `RecordError` for a page whose metadata the Hub would refuse."""
    try:
        data = ModelCard(text).data.to_dict()
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise RecordError(
            f"README.md has metadata that cannot be read: {error}. Correct it, or render it again."
        ) from error
    if len(str(data.get("base_model", "x")).split("/")) > 2:
        raise RecordError(f"README.md has the `base_model` {data['base_model']!r}; allowed is a name on the Hub.")


def wrap_command(command: str) -> str:
    """A long command, its options spread over lines of at most 100 characters."""
    first, *options = command.split(" --")
    lines = [first]
    for option in options:
        if len(lines[-1]) + len(option) > 90:
            lines.append("   ")
        lines[-1] += f" --{option}"
    return " \\\n".join(lines)


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _pruning(record: Record, run: dict[str, Any]) -> dict[str, Any]:
    """What the page says of the run."""
    seconds: Counter[str] = Counter()
    for round_ in run["rounds"]:
        seconds.update(round_["seconds"])
    return {
        "run": run,
        "method": describe_method(run["config"]),
        "rounds_picture": ROUNDS,
        "loss_unit": tables.loss_unit(run["rounds"][0]["before"]),
        "round_table": tables.round_table(run),
        "setting_table": tables.setting_table(run["config"]),
        "seconds": seconds,
        "data_table": tables.data_table(record.provenance),
    }
