"""The objective `outputs`: a model matches what the dense model gives on unlabelled text, whatever its head.

The dense model is its own teacher, so no label is needed. A bare encoder is compared by the states of real tokens, a
sentence encoder by its embeddings, by their similarities to other texts' embeddings, and by the states: they teach
more than one vector for each text does. Any other head is compared by its logits (Hinton et al. 2015, arXiv
1503.02531). What is squared is relative to the dense model's own outputs, so 0.1 means the same for every model.

At the dense model this loss is at its minimum, and says nothing of any unit. So scores come from `probes`: random
directions of the outputs whose squared gradients are the Gauss-Newton matrix (see `differences`).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor
from transformers import PreTrainedModel

from ..data.stream import Batch, mix_seed
from .differences import Bernoulli, Categorical, Difference, Projected, Squared
from .objective import Objective, ObjectiveError, Predictions, freeze_second_bias, real_tokens
from .reading import HEADS, Given, head_of, items, read, several_labels

# From token states (batch, seq, h), their attention mask (batch, seq) and, with `embeds_ids`, their word pieces to
# embeddings (batch, width).
Embed = Callable[..., Tensor]
EXAMPLES = 16  # of the sample, at a time
RIDGE = 1e-2  # of the channels that predict those that were cut: a share of their variance


@dataclass(frozen=True)
class Reference:
    """The dense model, and what it gives on the first training examples.

    Attributes:
        model: in evaluation mode; neither trained nor saved.
        differences: by term; none for `states`, whose scale depends on the channels that are compared.
        mean, covariance: of its last hidden states, shape (h,) and (h, h), float64; None where logits are compared.
    """

    model: PreTrainedModel
    differences: dict[str, Difference]
    mean: Tensor | None = None
    covariance: Tensor | None = None


@dataclass(frozen=True)
class Outputs:
    """Makes an `OutputsObjective` from a model: what `SchuBertPruner(objective=...)` takes.

    Attributes:
        embed: pools token states to sentence embeddings, differentiably, on the device of the states; None: states.
        embeds_ids: whether `embed` also takes the word pieces, by which it may leave a prompt out.
        draws: random directions per example that scores are taken from.
        temperature: that logits are divided by.
        seed: of the directions.
        reference: set by `taught_by`.
        channels: of the dense last hidden state, those that the model has, in its order; None: all.
    """

    embed: Embed | None = None
    embeds_ids: bool = False
    draws: int = 4
    temperature: float = 1.0
    seed: int = 0
    reference: Reference | None = None
    channels: tuple[int, ...] | None = None

    def __call__(self, model: PreTrainedModel) -> OutputsObjective:
        return OutputsObjective(model, self)

    def taught_by(self, dense: PreTrainedModel, sample: Batch, *, temperature: float, seed: int) -> Outputs:
        """The same with a dense model to match; `sample`: the first training examples, by which scales are set.

        Raises:
            ObjectiveError: the dense model's outputs are not finite.
        """
        reference = _measure(dense.eval(), sample, self, temperature)
        return replace(self, reference=reference, temperature=temperature, seed=seed)

    def narrowed(self, channels: Sequence[int]) -> Outputs:
        """The same for a model that keeps these channels of the last hidden state."""
        known = range(max(channels) + 1) if self.channels is None else self.channels
        return replace(self, channels=tuple(known[channel] for channel in channels))


class OutputsObjective(Objective):
    """Distances from the dense model's outputs, term by term; `_correct` counts equal predictions of classifiers.

    Terms: `states` |x - t|^2 by the variance of t, for real tokens; `embedding` |e - t|^2 / 2 by the mean of |t|^2,
    which is 1 - cosine where embeddings are normalised; `similarity` ((e - t) . a)^2, mean over the dense embeddings a
    of the first training examples, by the variance of t . a; logits T^2 KL, `score` (one logit) as `states`.

    Where channels were cut, `states` compares those that stay. A sentence encoder's are compared, and its embeddings
    made, in the dense width: the best linear prediction of the dense states from the channels that stay (`lift`) leads
    there, and stays as it is. Scores come from the embeddings alone, which are what its users get.

    Args:
        model: with any head that `reading.HEADS` names.
        recipe: without a reference it can `count` only.

    Raises:
        ObjectiveError: the head is not known, or `embed` is given and the model is no bare encoder.
    """

    follows_dense = True
    rate_power = 0.5
    dropout = False
    lift_weight: Tensor | None
    lift_bias: Tensor | None

    def __init__(self, model: PreTrainedModel, recipe: Outputs) -> None:
        super().__init__(model)
        self.recipe, self.head = recipe, head_of(model)
        self.terms = _terms(model, recipe.embed)
        reference, pooler = recipe.reference, getattr(model.base_model, "pooler", None)
        if pooler is not None and not self.head:
            pooler.requires_grad_(False)  # nothing is computed from it: data-parallel training would wait for it
        freeze_second_bias(model)
        self._differences = dict(reference.differences) if reference is not None else {}
        weight = bias = None
        if reference is not None and reference.covariance is not None:
            assert reference.mean is not None
            variance, channels = reference.covariance.diagonal(), recipe.channels
            chosen = torch.arange(len(variance)) if channels is None else torch.tensor(channels)
            compared = variance if recipe.embed is not None else variance[chosen]
            self._differences["states"] = Squared(float(compared.sum()))
            if recipe.embed is not None and len(chosen) < len(variance):
                weight, bias = (x.to(model.device, model.dtype) for x in _best_prediction(reference, chosen))
        self.register_buffer("lift_weight", weight, persistent=False)
        self.register_buffer("lift_bias", bias, persistent=False)

    @property
    def lift(self) -> tuple[Tensor, Tensor] | None:
        """Weight (dense h, h) and bias (dense h,) that lead token states back to the dense width; None: no need."""
        return None if self.lift_weight is None or self.lift_bias is None else (self.lift_weight, self.lift_bias)

    def count(self, batch: Batch) -> dict[str, int]:
        return {term: int(items(self.head, term, batch).sum()) for term in self.terms}

    def predict(
        self, batch: Batch, model: PreTrainedModel | None = None, *, hidden_states: bool = False
    ) -> Predictions:
        """A model's outputs as `logits`, those of the dense model as `labels`."""
        reference = self.recipe.reference
        if reference is None:
            raise ObjectiveError("`Outputs` has no dense model yet: `SchuBertPruner` gives it one, or `taught_by`.")
        used = self.model if model is None else model
        given = self._give(batch, used, hidden_states)
        if used is reference.model and not used.training:
            wanted = {term: output.detach() for term, output in given.outputs.items()}
        else:
            reference.model.eval()
            with torch.no_grad():
                wanted = self._give(batch, reference.model, False).outputs
        if self.terms == ("states",) and self.recipe.channels is not None:
            wanted["states"] = wanted["states"][:, list(self.recipe.channels)]
        return Predictions(given.outputs, wanted, given.hidden_states)

    def losses(self, predictions: Predictions) -> dict[str, Tensor]:
        sums: dict[str, Tensor] = {}
        for term, own in predictions.logits.items():
            wanted, difference = predictions.labels[term], self._differences[term]
            sums[term] = difference.distance(own, wanted)
            if isinstance(difference, Categorical):
                sums[f"{term}_correct"] = (own.detach().argmax(-1) == wanted.argmax(-1)).sum()
            elif isinstance(difference, Bernoulli):
                sums[f"{term}_correct"] = ((own.detach() > 0) == (wanted > 0)).all(-1).sum()
        return sums

    def divergence(self, logits: Tensor, wanted: Tensor, temperature: float) -> Tensor:
        raise NotImplementedError("The loss itself is the divergence from the dense model.")

    def probes(self, batch: Batch) -> Iterator[Tensor]:
        """`draws` random directions of all outputs; an example's own tokens and the seed decide which."""
        outputs, draws = self._give(batch, self.model, False).outputs, self.recipe.draws
        keys = _keys(batch)
        numbers = {term: items(self.head, term, batch).tolist() for term in self.terms}
        for draw in range(draws):
            total = torch.zeros((), device=batch["input_ids"].device)
            for place, (term, own) in enumerate(outputs.items()):
                if term == "states" and len(outputs) > 1:
                    continue
                width = self._differences[term].signs(own.shape[-1])
                seeds = (mix_seed(self.recipe.seed, draw, place, key) for key in keys)
                signs = torch.cat([_signs(n, width, seed) for n, seed in zip(numbers[term], seeds, strict=True)])
                direction = self._differences[term].direction(own.detach(), signs.to(own))
                total = total + (direction * own).sum()
            yield total / math.sqrt(draws)

    def _give(self, batch: Batch, model: PreTrainedModel, hidden_states: bool) -> Given:
        lift = self.lift if model is self.model else None
        return _give(self.head, self.terms, model, batch, self.recipe, lift, hidden_states)


def _terms(model: PreTrainedModel, embed: Embed | None) -> tuple[str, ...]:
    head = head_of(model)
    if embed is not None:
        if head:
            raise ObjectiveError(
                f"`embed` pools the token states of a bare encoder; `{type(model).__name__}` has a head. Leave "
                "`embed` out, or give the encoder alone."
            )
        return ("embedding", "similarity", "states")
    one = head in ("SequenceClassification", "TokenClassification") and model.config.num_labels == 1
    return ("score",) if one else HEADS[head]


def _give(
    head: str,
    terms: tuple[str, ...],
    model: PreTrainedModel,
    batch: Batch,
    recipe: Outputs,
    lift: tuple[Tensor, Tensor] | None = None,
    hidden_states: bool = False,
) -> Given:
    if recipe.embed is None:
        given = read(head, model, batch, hidden_states=hidden_states)
        return given._replace(outputs=dict(zip(terms, given.outputs.values(), strict=True)))
    inputs: dict[str, Any] = {name: batch[name] for name in ("input_ids", "token_type_ids") if name in batch}
    real = real_tokens(batch)
    encoder: Any = model.base_model
    found = encoder(**inputs, attention_mask=real.long(), output_hidden_states=hidden_states)
    states = found.last_hidden_state
    if lift is not None:
        states = torch.nn.functional.linear(states, *lift)
    ids = (batch["input_ids"],) if recipe.embeds_ids else ()
    embedding = recipe.embed(states, real.long(), *ids).float()
    outputs = {**dict.fromkeys(terms, embedding), "states": states[real].float()}
    return Given(outputs, found.hidden_states or ())


@torch.no_grad()
def _measure(dense: PreTrainedModel, sample: Batch, recipe: Outputs, temperature: float) -> Reference:
    """Scales of the terms, and moments of the last hidden states, on the first training examples."""
    head, terms = head_of(dense), _terms(dense, recipe.embed)
    states: list[Tensor] = []
    found: dict[str, list[Tensor]] = {}
    for start in range(0, len(sample["input_ids"]), EXAMPLES):
        some = send_to_device({name: x[start : start + EXAMPLES] for name, x in sample.items()}, dense.device)
        if head == "":
            states.append(read(head, dense, some).outputs["states"].cpu())
        for term, output in _give(head, terms, dense, some, recipe).outputs.items():
            if not bool(torch.isfinite(output).all()):
                raise ObjectiveError(
                    f"What the dense model gives (`{term}`) is not finite on the first training examples. Look for "
                    "NaN in its weights, and load it in float32."
                )
            if term in ("score", "embedding"):
                found.setdefault(term, []).append(output)
    if recipe.embed is not None:
        anchors = torch.cat(found["embedding"])  # (examples, width)
        similar = anchors @ anchors.mT
        apart = similar[~torch.eye(len(similar), dtype=torch.bool, device=similar.device)]
        spread = float(apart.var(correction=0)) if len(apart) else float(similar.square().mean())
        size = float(anchors.square().sum(-1).mean())
        differences: dict[str, Difference] = {"embedding": Squared(2 * size), "similarity": Projected(anchors, spread)}
    elif terms == ("score",):
        differences = {"score": Squared(float(torch.cat(found["score"]).var(correction=0)))}
    elif several_labels(head, dense):
        differences = {"logits": Bernoulli(temperature)}
    else:
        differences = dict.fromkeys(terms, Categorical(temperature)) if head else {}
    if head:
        return Reference(dense, differences)
    tokens = torch.cat(states).double()  # (tokens, h)
    return Reference(dense, differences, tokens.mean(0), torch.cov(tokens.mT, correction=0))


def _best_prediction(reference: Reference, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (h, kept) and bias (h,) of the best linear prediction of all channels; those that stay are themselves."""
    covariance, mean = reference.covariance, reference.mean
    assert covariance is not None
    assert mean is not None
    gram = covariance[kept][:, kept]
    gram = gram + torch.diag(RIDGE * gram.diagonal() + 1e-12)
    weight = torch.linalg.solve(gram, covariance[kept]).mT  # (h, kept)
    weight[kept] = torch.eye(len(kept), dtype=weight.dtype)
    return weight, mean - weight @ mean[kept]


def _keys(batch: Batch) -> list[int]:
    """A number for each example, of its real tokens alone."""
    real = real_tokens(batch)
    rows = zip(batch["input_ids"].cpu(), real.cpu(), strict=True)
    return [zlib.crc32(ids[mask].numpy().tobytes()) for ids, mask in rows]


def _signs(number: int, width: int, seed: int) -> Tensor:
    """-1 or 1, shape (number, width)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(2, (number, width), generator=generator, dtype=torch.int8) * 2 - 1
