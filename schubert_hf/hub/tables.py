"""The tables of a model's page and of the terminal: rows of text, with `**bold**` as in Markdown. Others draw them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ..cost import format_size
from ..evaluation.results import Evaluation
from ..shape import Shape
from .inspection import Inspection

TITLES = {
    "hidden_sizes": "hidden h",
    "filter_sizes": "filters f",
    "head_counts": "heads a",
    "key_query_sizes": "key/query k",
    "value_sizes": "value v",
}
TERMS = {
    "mlm": "masked words",
    "nsp": "next sentence",
    "teacher": "teacher",
    "classification": "label",
    "regression": "score",
    "start": "answer's start",
    "end": "answer's end",
    "states": "token states",
    "embedding": "embedding",
    "similarity": "similarity",
    "logits": "predictions",
    "score": "score",
    "start_logits": "answer's start",
    "end_logits": "answer's end",
    "mlm_logits": "words",
    "nsp_logits": "next sentence",
}
RIGHT = {
    "mlm": "masked words right",
    "classification": "labels right",
    "start": "starts right",
    "end": "ends right",
    "logits": "as the dense model",
    "start_logits": "starts as the dense model",
    "end_logits": "ends as the dense model",
    "mlm_logits": "words as the dense model",
}
SQUARED = {"states", "embedding", "similarity", "score"}  # relative to the dense model's own outputs
# In this order; a part that costs nothing on both sides is left out.
_PARTS = {
    "embeddings": "embeddings",
    "encoder": "encoder",
    "attention": "&emsp;attention",
    "filters": "&emsp;filters",
    "pooler": "pooler",
    "head": "head",
    "total": "**total**",
}


class Table(NamedTuple):
    """A header and rows of as many cells."""

    header: list[str]
    rows: list[list[str]]


def loss_unit(terms: Iterable[str]) -> str:
    """The unit of losses with these terms."""
    if SQUARED & set(terms):
        return "squared distance, relative to the dense model's outputs"
    return "squared points" if "regression" in terms else "nats"


def size_table(inspection: Inspection, now: str = "this model") -> Table:
    """Parameters and FLOPs by part: of the base (where it is known), of this model, and the share that is kept."""
    header, dense = ["part", "parameters", "FLOPs"], inspection.dense
    if dense:
        header = ["part", "parameters: base", now, "kept", "FLOPs: base", now, "kept"]
    rows = []
    for part, label in _PARTS.items():
        cells: list[str] = []
        for kind in ("parameters", "flops"):
            size, base = (getattr(getattr(one, kind), part) for one in (inspection, dense or inspection))
            texts = [format_size(base), format_size(size), f"{size / base:.1%}"] if base else [""] * 3
            cells += texts if dense else texts[:1]
        if any(cells):
            rows.append([label, *(f"**{cell}**" if part == "total" else cell for cell in cells)])
    return Table(header, rows)


def width_table(shape: Shape, base: Shape | None, kept: Sequence[int] | None = None) -> Table:
    """The widths of every layer, in bold where they differ from the base's; if the base is ragged, next to its width.

    Before them, in the column of h, is that of embeddings which are projected to the first layer's.

    `kept` is the layer of the base that each layer was; None if there are as many, or if it is unknown.
    """
    rows = []
    ragged = base is not None and any(len(set(getattr(base, name))) > 1 for name in TITLES)
    if base is not None and not ragged:
        rows.append(["base", *(str(getattr(base, name)[0]) for name in TITLES)])
    if shape.embedding_size is not None:
        same = base is not None and base.embedding_size == shape.embedding_size
        size = f"{shape.embedding_size}" if same or base is None else f"**{shape.embedding_size}**"
        rows.append(["embeddings", size, *[""] * (len(TITLES) - 1)])
    depth = len(shape.hidden_sizes)
    if kept is None and base is not None and len(base.hidden_sizes) == depth:
        kept = range(depth)
    for layer in range(depth):
        source = None if kept is None else kept[layer]
        cells = [str(layer) if source in (layer, None) else f"{source} → **{layer}**"]
        for name in TITLES:
            now = getattr(shape, name)[layer]
            was = now if base is None or source is None else getattr(base, name)[source]
            cells.append(str(now) if now == was else f"{was} → **{now}**" if ragged else f"**{now}**")
        rows.append(cells)
    return Table(["layer", *TITLES.values()], rows)


def round_table(run: dict[str, Any]) -> Table:
    """Sizes, and every term of the held-out loss: before, and in each round after the cut and after recovery.

    Then the recovery's peak learning rate and the step whose weights were kept, where the record has them.
    """
    known, begin, whole = run["rounds"][0]["before"], run["rounds"][0]["size_before"], run["source_size"]
    terms = [term for term in known if not term.endswith("_accuracy") and term != "loss"]
    right = [term for term in RIGHT if f"{term}_accuracy" in known]
    columns = dict.fromkeys(terms, ".3f") | {f"{term}_accuracy": ".1%" for term in right}
    header = ["round", run["unit"], "kept", *(f"{TERMS.get(term, term)} loss" for term in terms)]
    rows = [
        [
            "before",
            format_size(begin),
            f"{begin / whole:.1%}",
            *(format(known[name], form) for name, form in columns.items()),
        ]
    ]
    recovery = {"learning_rate": ("learning rate", ".2g"), "best_step": ("best step", "d")}
    recovery = {name: one for name, one in recovery.items() if run["rounds"][-1].get(name) is not None}
    rows[0] += [""] * len(recovery)
    for record in run["rounds"]:
        cut, after = record["after_cut"], record["after_recovery"]
        sizes = [format_size(record["size"]), f"{record['size'] / whole:.1%}"]
        losses = (f"{cut[name]:{form}} → **{after[name]:{form}}**" for name, form in columns.items())
        settings = [format(record[name], form) for name, (_, form) in recovery.items()]
        rows.append([str(record["number"]), *sizes, *losses, *settings])
    return Table(header + [RIGHT[term] for term in right] + [title for title, _ in recovery.values()], rows)


def latency_table(latency: dict[str, Any]) -> Table:
    """Median and interquartile range of the times, and the speed-up over the base."""
    names = {"base": "base", "model": "this model"}
    times = latency["milliseconds"]
    header = ["", "median", "interquartile range", "speed-up"][: 4 if "base" in times else 3]
    rows = []
    for name, (low, median, high) in times.items():
        speed_up = "1" if name == "base" else f"**{times.get('base', times[name])[1] / median:.2f}**"
        row = [names[name], f"{median:.2f} ms", f"{low:.2f} to {high:.2f} ms", speed_up]
        rows.append(row[: len(header)])
    return Table(header, rows)


def evaluation_table(evaluations: Sequence[Evaluation]) -> Table:
    """A row per metric: the dense model's value and this one's, means over the seeds."""
    rows = []
    for result in evaluations:
        name = link(result.dataset, "datasets/") if result.hub else result.dataset
        for metric in result.shown:
            base = f"{result.base[metric]:.4g}" if metric in result.base else ""
            std = result.std(metric)
            value = f"**{result.mean(metric):.4g}**" + ("" if std is None else f" ± {std:.2g}")
            task = f"{name} {result.config or result.task}"
            rows.append([task, result.split or "", metric, base, value, result.remarks])
    return Table(["data set", "split", "metric", "base", "this model", "notes"], rows)


def setting_table(config: dict[str, Any]) -> Table:
    """Every setting of a run, in the order of `PruningConfig`."""
    rows = []
    for name, value in config.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key}={part}" for key, part in value.items())
        rows.append([f"`{name}`", "none" if value is None else str(value)])
    return Table(["setting", "value"], rows)


def data_table(provenance: dict[str, Any]) -> Table:
    """The texts of a run; without rows where nothing is recorded."""
    rows = []
    for key, title in (("train_data", "training"), ("eval_data", "held out")):
        if data := provenance.get(key):
            name = link(data["name"], "datasets/") if data.get("hub") else data["name"]
            name += f" ({data['config']})" if data.get("config") else ""
            digest = f"`{data['sha256'][:16]}…`" if "sha256" in data else ""
            rows.append([title, name, f"{data['examples']:,}" if "examples" in data else "", digest])
    return Table(["", "text", "examples", "SHA-256"], rows)


def link(name: str, kind: str = "") -> str:
    """A name on the Hub, as a link."""
    return f"[{name}](https://huggingface.co/{kind}{name})"


def vocabulary_table(vocabulary: dict[str, Any] | None) -> Table | None:
    """What a trimmed vocabulary changes in held-out text; None where that was not measured."""
    held_out = (vocabulary or {}).get("held_out")
    if not held_out or not held_out["tokens"][0] or not held_out["words"]:
        return None
    rows = []
    for name in ("tokens", "unknown"):
        before, after = held_out[name]
        rows.append([name, f"{before:,}", f"{after:,}", f"{after / before - 1:+.1%}" if before else ""])
    changed = held_out["changed"]
    rows.append(["words cut otherwise", "", f"{changed:,}", f"{changed / held_out['words']:.2%} of all"])
    return Table(["on held-out text", "base", "trimmed", ""], rows)
