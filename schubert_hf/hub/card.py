"""A model's page: facts in, Markdown with metadata out. Sections without data are absent.

The text is in `templates/modelcard.md.jinja`; what the page says in numbers is in `tables`.
"""

from __future__ import annotations

import hashlib
import re
from importlib.resources import files
from typing import Any

import jinja2
import yaml
from huggingface_hub import ModelCard, ModelCardData

from ..auto import MODELS
from ..cost import format_size
from ..run.provenance import describe_machine
from . import tables
from .errors import RecordError
from .facts import Facts
from .inspection import SEQUENCE, Inspection
from .methods import describe_method
from .plots import ROUNDS, TITLES, WIDTHS, loss_unit

OLDEST_TRANSFORMERS = "5.4"  # the first whose configurations are dataclasses, as ours is

PIPELINES = {
    "SchuBertModel": "feature-extraction",
    "SchuBertForPreTraining": "fill-mask",
    "SchuBertForMaskedLM": "fill-mask",
    "SchuBertForSequenceClassification": "text-classification",
    "SchuBertForTokenClassification": "token-classification",
    "SchuBertForQuestionAnswering": "question-answering",
    "SchuBertForMultipleChoice": "multiple-choice",
}
TAGS = ["schubert", "bert", "pruning", "structured-pruning", "pruned"]

_MARK = re.compile(r"\n<!-- schubert_hf made this page from data \(([0-9a-f]{16})\).* -->\n\Z")


def render_card(facts: Facts, name: str) -> str:
    """The README.md of a model.

    Args:
        facts: all that is known of it.
        name: what `from_pretrained` takes: its name on the Hub, or its folder.
    """
    inspection = facts.inspect(name)
    text = template_text(
        card_data=card_metadata(facts, name).to_yaml(),
        **common(inspection),
        **_how_to(inspection),
        **_history(facts),
        summary=_summary(facts, inspection),
        limits=_limits(facts, inspection),
        license=facts.license,
        base_license=facts.license is not None
        and facts.license == facts.provenance.get("base_model", {}).get("license"),
    )
    return finish(text)


def card_metadata(facts: Facts, name: str) -> ModelCardData:
    """What the Hub reads: base model and relation, licence, tags, data sets, results."""
    provenance = facts.provenance
    base, text = provenance.get("base_model", {}), provenance.get("train_data", {})
    has_base = bool(base.get("hub"))
    published = [result for result in facts.evaluations if result.hub]
    return ModelCardData(
        model_name=name.rpartition("/")[2] if published else None,
        library_name="transformers",
        pipeline_tag=PIPELINES.get(facts.inspect(name).architecture),
        license=facts.license,
        language=base.get("language"),
        base_model=base["name"] if has_base else None,
        base_model_relation="finetune" if has_base else None,  # the Hub knows no relation "pruned"
        datasets=[text["name"]] if text.get("hub") else None,
        tags=[*TAGS, "arxiv:2005.06628"],
        eval_results=[result.to_model_index() for result in published] or None,
    )


def finish(text: str) -> str:
    """Tidies blank lines and ends the page with a checksum, by which one that was edited by hand is known."""
    text = re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)
    text = re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
    return (
        f"{text}\n<!-- schubert_hf made this page from data ({_checksum(text)}). Edit it as you like: an edited "
        "page is kept when you publish again. -->\n"
    )


def is_generated(text: str) -> bool:
    """Did `render_card` write this page, and nobody edit it since?"""
    mark = _MARK.search(text)
    return mark is not None and mark[1] == _checksum(text[: mark.start()])


def has_text(text: str) -> bool:
    """Does a page say anything beside its metadata?"""
    return bool(re.sub(r"\A\s*---\n.*?\n---", "", text, flags=re.DOTALL).strip())


def check_card(text: str) -> None:
    """Raises `RecordError` for a page whose metadata the Hub would not take."""
    try:
        data = ModelCard(text).data.to_dict()
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise RecordError(
            f"README.md has metadata that cannot be read: {error}. Correct it, or render it again."
        ) from error
    if len(str(data.get("base_model", "x")).split("/")) > 2:
        raise RecordError(f"README.md has the `base_model` {data['base_model']!r}; allowed is a name on the Hub.")


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def template_text(**data: Any) -> str:
    """Fills the template."""
    return _template().render(**data)


def _template() -> jinja2.Template:
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=_Absent, autoescape=False)
    environment.globals["machine"] = describe_machine
    text = files("schubert_hf.hub").joinpath("templates/modelcard.md.jinja").read_text(encoding="utf-8")
    return environment.from_string(text)


class _Absent(jinja2.ChainableUndefined):
    """What was not given may be asked for (then it is false), and must not be printed."""

    def __str__(self) -> str:
        raise jinja2.UndefinedError(f"`{self._undefined_name}` is not known.")


def common(inspection: Inspection, now: str = "this model") -> dict[str, Any]:
    """What every page needs: title, sizes, widths."""
    header, rows = tables.size_table(inspection, now)
    return {
        "title": inspection.name.rpartition("/")[2],
        "inspection": inspection,
        "sequence": SEQUENCE,
        "widths_picture": WIDTHS,
        "size_header": header,
        "size_rows": rows,
        "width_header": list(TITLES.values()),
        "width_rows": tables.width_rows(inspection.shape, inspection.base),
    }


def _how_to(inspection: Inspection) -> dict[str, Any]:
    architecture = inspection.architecture
    by_class = {model.__name__: auto.__name__ for auto, model in MODELS.items()}
    shown = "SchuBertForMaskedLM" if architecture == "SchuBertForPreTraining" else architecture
    return {
        "name": inspection.name,
        "auto_class": by_class[shown],
        "pipeline_tag": PIPELINES.get(architecture),
        "oldest_transformers": OLDEST_TRANSFORMERS,
    }


def _history(facts: Facts) -> dict[str, Any]:
    """What is known of the run and of measurements; nothing for what is not."""
    found: dict[str, Any] = {"provenance": facts.provenance}
    if facts.latency is not None:
        found |= {"latency": facts.latency, "latency_rows": tables.latency_rows(facts.latency)}
    if facts.evaluations:
        found |= {"evaluations": facts.evaluations, "evaluation_rows": tables.evaluation_rows(facts.evaluations)}
    if facts.run is not None:
        header, rows = tables.round_rows(facts.run)
        found |= {
            "run": facts.run,
            "method": describe_method(facts.run["config"]),
            "command": wrap_command(facts.provenance.get("command", "")),
            "rounds_picture": ROUNDS,
            "loss_unit": loss_unit(facts.run["rounds"][0]["before"]),
            "round_header": header,
            "round_rows": rows,
            "setting_rows": tables.setting_rows(facts.run["config"]),
            "run_summary": _run_summary(facts),
            "data_rows": _data_rows(facts),
        }
    return found


def wrap_command(command: str) -> str:
    """A long command, its options spread over lines of at most 100 characters."""
    first, *options = command.split(" --")
    lines = [first]
    for option in options:
        if len(lines[-1]) + len(option) > 90:
            lines.append("   ")
        lines[-1] += f" --{option}"
    return " \\\n".join(lines)


def _summary(facts: Facts, inspection: Inspection) -> str:
    size = format_size(inspection.parameters.total)
    if inspection.base_parameters is None and facts.tuned is not None and "name" in facts.provenance["base_model"]:
        task = facts.tuned["settings"].get("task", "a task")
        return f"{_base_link(facts)}, fine-tuned on {task}: {size} parameters, dense, without special kernels."
    if inspection.base_parameters is None:
        return f"A BERT with a width of its own in every layer: {size} parameters, dense, without special kernels."
    before = inspection.base_parameters.total
    return (
        f"**{size} parameters**, pruned from {_base_link(facts)} with {format_size(before)}, of which "
        f"{inspection.parameters.total / before:.1%} are left. The result is a dense BERT whose layers have widths of "
        "their own: it needs no masks and no special kernels. Made with schubert_hf."
    )


def _base_link(facts: Facts) -> str:
    base = facts.provenance.get("base_model", {})
    if base.get("hub"):
        return f"[{base['name']}](https://huggingface.co/{base['name']})"
    return f"`{base['name']}`" if "name" in base else "a BERT"


def _run_summary(facts: Facts) -> str:
    phases = tables.seconds_by_phase(facts.run or {"rounds": []})
    parts = [f"{sum(phases.values()):.0f} seconds ({', '.join(f'{name} {s:.0f}' for name, s in phases.items())})"]
    provenance = facts.provenance
    if "machine" in provenance:
        parts.append(f"on {describe_machine(provenance['machine'])}")
    if "processes" in provenance:
        number = provenance["processes"]
        precision = {"no": "float32"}.get(provenance["precision"], provenance["precision"])
        parts.append(f"in {number} process{'' if number == 1 else 'es'}, {precision}")
    used = ", ".join(f"{name} {version}" for name, version in provenance.get("versions", {}).items())
    return f"It took {', '.join(parts)}." + (f" Versions: {used}." if used else "")


def _data_rows(facts: Facts) -> list[tables.Row]:
    rows = []
    for key, title in (("train_data", "training"), ("eval_data", "held out")):
        if data := facts.provenance.get(key):
            name = (
                f"[{data['name']}](https://huggingface.co/datasets/{data['name']})"
                if data.get("hub")
                else data["name"]
            )
            name += f" ({data['config']})" if data.get("config") else ""
            digest = f"`{data['sha256'][:16]}…`" if "sha256" in data else ""
            rows.append([title, name, f"{data['examples']:,}" if "examples" in data else "", digest])
    return rows


def _limits(facts: Facts, inspection: Inspection) -> list[str]:
    limits = [f"It reads at most {inspection.config.max_position_embeddings} word pieces."]
    if not facts.evaluations:
        known = "the losses above are all that is known" if facts.run else "nothing is recorded"
        limits.append(f"It was not evaluated on any task: {known} of its quality.")
    if PIPELINES.get(inspection.architecture) == "fill-mask":
        limits.append("It is made to be fine-tuned. The words it fills in are likely ones, not facts.")
    limits.append(
        "What its base model learnt, prejudice included, is likely still in it, and pruning may cost rare words and "
        "small groups more than averages show."
    )
    return limits
