"""Torch-Pruning (Fang et al. 2023, *DepGraph*, arXiv 2301.12900) under the same conditions.

It cuts a model in memory and cannot save one whose layers differ; here its result becomes a SchuBERT. Global pruning,
heads and head sizes included, in small steps until the budget is met. Needs the extra `benchmark`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from schubert_hf.shape import Shape, with_shape
from schubert_hf.training.objective import PretrainingObjective

STEPS = 200  # from everything to nearly nothing; it ends where the budget is met
NEARLY_ALL = 0.97


class PeerError(ValueError):
    """The library is not installed, or cannot reach the budget."""


def prune_with_torch_pruning(
    model: PreTrainedModel,
    batches: Iterable[Mapping[str, Tensor]],
    importance: str,
    fits: Callable[[Shape], bool],
    *,
    multiple: int = 8,
) -> PreTrainedModel:
    """A smaller SchuBERT with the units that Torch-Pruning keeps.

    Args:
        model: a SchuBERT with MLM head and, optionally, NSP head; not touched.
        batches: for the gradients of "taylor".
        importance: "taylor" or "magnitude".
        fits: whether a shape meets the budget.
        multiple: what widths are rounded to.

    Raises:
        PeerError: see there.
    """
    try:
        import torch_pruning as peer
    except ImportError:
        raise PeerError('Torch-Pruning is not installed: pip install "schubert-hf[benchmark]".') from None
    work = copy.deepcopy(model).eval()
    work.set_attn_implementation("eager")
    encoder: Any = work.base_model
    names = encoder.embeddings.word_embeddings.weight.detach().clone()
    if importance == "taylor":
        objective = PretrainingObjective(work)
        for batch in batches:
            sums = objective(dict(batch))
            torch.stack([sums[term] for term in objective.terms]).sum().backward()  # type: ignore[no-untyped-call]
    attentions = [layer.attention.self for layer in encoder.encoder.layer if layer.attention.self.query is not None]
    heads = {linear: a.num_attention_heads for a in attentions for linear in (a.query, a.key, a.value)}
    ids = torch.zeros(1, 16, dtype=torch.long, device=work.device)
    kinds = {"taylor": peer.importance.GroupTaylorImportance, "magnitude": peer.importance.GroupMagnitudeImportance}
    pruner = peer.pruner.BasePruner(
        encoder,
        {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": ids},
        importance=kinds[importance](),
        global_pruning=True,
        pruning_ratio=NEARLY_ALL,
        max_pruning_ratio=NEARLY_ALL,
        iterative_steps=STEPS,
        round_to=multiple,
        num_heads=heads,
        prune_num_heads=True,
        prune_head_dims=True,
        ignored_layers=[encoder.pooler.dense],
        output_transform=lambda output: output.pooler_output,
    )
    for _ in range(STEPS):
        shape = _shape_of(encoder, pruner.num_heads)
        if fits(shape):
            return _to_schubert(model, work, shape, _kept_columns(names, encoder))
        pruner.step()
    raise PeerError("Torch-Pruning did not reach the budget.")


def _shape_of(encoder: Any, heads: Mapping[nn.Module, int]) -> Shape:
    rows = []
    for layer in encoder.encoder.layer:
        attention, width = layer.attention.self, encoder.embeddings.word_embeddings.embedding_dim
        count = heads[attention.query]
        filters = layer.intermediate.dense.out_features
        rows.append(
            (width, filters, count, attention.query.out_features // count, attention.value.out_features // count)
        )
    return Shape(*zip(*rows, strict=True))


def _kept_columns(before: Tensor, encoder: Any) -> Tensor:
    """Which channels are left: the columns of the word embeddings tell."""
    after = encoder.embeddings.word_embeddings.weight.detach()
    same = (after[:64].T[:, None] == before[:64].T[None]).all(-1)  # (kept, all)
    kept: Tensor = same.float().argmax(1)
    return kept


def _to_schubert(model: PreTrainedModel, work: PreTrainedModel, shape: Shape, kept: Tensor) -> PreTrainedModel:
    """A new model of that shape with the weights that are left; the heads lose the same channels."""
    smaller: PreTrainedModel = type(model)(with_shape(model.config, shape))
    tensors = {name: tensor.detach().clone() for name, tensor in work.state_dict().items()}
    for layer, (old, new) in enumerate(zip(model.config.key_query_sizes, shape.key_query_sizes, strict=True)):
        for kind in ("weight", "bias"):  # our softmax divides by the root of the new k
            tensors[f"bert.encoder.layer.{layer}.attention.self.query.{kind}"] *= math.sqrt(new / old)
    columns = ("cls.predictions.transform.dense.weight", "cls.seq_relationship.weight")
    rows: tuple[str, ...] = (
        "bert.pooler.dense.weight",
        "bert.pooler.dense.bias",
        "cls.predictions.transform.dense.weight",
    )
    rows += ("cls.predictions.transform.dense.bias",)
    rows += tuple(f"cls.predictions.transform.LayerNorm.{kind}" for kind in ("weight", "bias"))
    for name in columns:
        if name in tensors:
            tensors[name] = tensors[name][:, kept]
    for name in rows:
        tensors[name] = tensors[name][kept]
    tensors["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"]
    smaller.load_state_dict(tensors)
    smaller.tie_weights()
    return smaller
