"""Starts for pretraining on little compute: a vocabulary, heads that look at their neighbours, stacked layers.

A freshly initialised BERT attends to everything evenly and stays for thousands of steps at the loss of a bag of words,
until some heads have found the word before and the word after. Here they begin there: the position embeddings are
sinusoids (Vaswani et al. 2017, section 3.5), in which a shift is a rotation, and the query of each head is rotated
against its key by an offset of its own. It is an initialisation only, in the spirit of Trockman & Kolter, *Mimetic
Initialization of Self-Attention Layers*, ICML 2023: every weight is trained, and the model is an ordinary BERT.

A deep BERT may also begin as a trained shallow one, repeated (Gong et al., *Efficient Training of BERT by
Progressively Stacking*, ICML 2019): neighbouring layers attend alike, so copies are a better start than random ones.
"""

from __future__ import annotations

import copy

import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertTokenizerFast, PreTrainedModel

from schubert_hf.anatomy import embeddings, layers, move_layer, place_of_tensor, rebuild
from schubert_hf.configuration_schubert import LAYER_LISTS

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ALPHABET = 400  # characters; rare scripts of an encyclopedia would displace English word pieces
# Amplitude of the sinusoids, in units of `initializer_range`: after the LayerNorm they stand out in their channels.
AMPLITUDE = 8.0
# The score of the position a head looks for, before the softmax; the rest lies lower, falling with the distance.
PEAK = 6.0


@torch.no_grad()
def initialize_local_attention(model: PreTrainedModel) -> None:
    """Sets position embeddings, queries and keys of a fresh model, in place.

    The heads of a layer look at offsets -1, 1, -2, 2, ... in turn. The sinusoids fill the first `key_query_size`
    channels (an even number of them), with wave lengths from 2 pi to the number of positions.

    Args:
        model: a SchuBERT whose layers are alike, freshly initialised.
    """
    config = model.config
    size = config.key_query_sizes[0] // 2 * 2
    if size == 0:
        return  # a head of one channel has no room for a rotation
    positions, pairs = config.max_position_embeddings, size // 2
    longest = positions / (2 * torch.pi)
    frequencies = longest ** -(torch.arange(pairs) / max(1, pairs - 1))  # (pairs,) from 1 to 2 pi / positions
    angles = torch.arange(positions)[:, None] * frequencies  # (positions, pairs)
    table = embeddings(model).tables[1].weight
    amplitude = AMPLITUDE * config.initializer_range
    table.zero_()
    table[:, 0:size:2] = amplitude * angles.sin()
    table[:, 1:size:2] = amplitude * angles.cos()
    # What an amplitude becomes in the embeddings' LayerNorm, when words and sinusoids are independent.
    variance = config.initializer_range**2 + amplitude**2 * pairs / config.hidden_sizes[0]
    normalized = amplitude / variance**0.5
    scale = (PEAK * config.key_query_sizes[0] ** 0.5 / pairs) ** 0.5 / normalized
    for layer in layers(model):
        attention = layer.attention
        for head in range(attention.heads):
            offset = (head // 2 + 1) * (-1 if head % 2 == 0 else 1)
            rows = slice(head * attention.key_query_size, head * attention.key_query_size + size)
            attention.inputs["key"].weight[rows, :size] += scale * torch.eye(size)
            attention.inputs["query"].weight[rows, :size] += scale * _rotation(frequencies * offset)


def _rotation(angles: torch.Tensor) -> torch.Tensor:
    """Block-diagonal (2n, 2n): advances n pairs (sin, cos) by `angles`; sin(x + d) = sin x cos d + cos x sin d."""
    blocks = [torch.tensor([[d.cos(), d.sin()], [-d.sin(), d.cos()]]) for d in angles]
    matrix: torch.Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
    return matrix


def stack_layers(model: PreTrainedModel, times: int) -> PreTrainedModel:
    """A model of `times` the depth: layer i of the result is a copy of layer i mod l of `model`.

    Args:
        model: a SchuBERT of any class; it is not touched.
        times: at least 1; 1 gives a copy.

    Returns:
        A new model of the same class, everything but the layers as it was.
    """
    if times < 1:
        raise ValueError(f"`times` is {times}; give how often the layers are repeated, at least 1.")
    config = copy.deepcopy(model.config)
    depth = config.num_hidden_layers
    lists = {name: getattr(config, name) * times for name in LAYER_LISTS}
    shape = type(config).from_dict({**config.to_dict(), "num_hidden_layers": None, **lists})
    deeper = rebuild(model, shape).to(model.dtype)
    state = {}
    for name, tensor in model.state_dict().items():
        layer = place_of_tensor(name).layer
        for repeat in range(1 if layer is None else times):
            state[name if layer is None else move_layer(name, layer + repeat * depth)] = tensor
    deeper.load_state_dict(state)
    deeper.tie_weights()
    return deeper.to(model.device).train(model.training)


def train_wordpiece(
    documents: Dataset, *, vocab_size: int, max_length: int, lowercase: bool = True
) -> BertTokenizerFast:
    """Trains a WordPiece tokenizer (Wu et al. 2016) with BERT's normalisation, `[PAD]` at 0.

    Args:
        documents: a dataset with the column `text`.
        vocab_size: word pieces, special tokens included; fewer where the text has no more.
        max_length: what the tokenizer truncates to when asked; the model's number of positions.
        lowercase: lower-case the text and strip its accents.
    """
    # The trainer numbers characters that continue a word in the order of a hash map, and breaks ties by these numbers.
    # So a first pass collects them, and a second one gets them in a fixed order: the same text, the same vocabulary.
    collected = _train(documents, SPECIAL_TOKENS, vocab_size=1, lowercase=lowercase)
    characters = sorted(token for token in collected if token.startswith("##"))
    vocabulary = _train(documents, SPECIAL_TOKENS + characters, vocab_size=vocab_size, lowercase=lowercase)
    tokenizer = _new_tokenizer(vocabulary, lowercase=lowercase)
    tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"])
    )
    return BertTokenizerFast(tokenizer_object=tokenizer, do_lower_case=lowercase, model_max_length=max_length)


def _new_tokenizer(vocabulary: dict[str, int], *, lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _train(documents: Dataset, first: list[str], *, vocab_size: int, lowercase: bool) -> dict[str, int]:
    tokenizer = _new_tokenizer({}, lowercase=lowercase)
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=first,
        continuing_subword_prefix="##",
        limit_alphabet=ALPHABET,
        show_progress=False,
    )
    texts = ([text for text in batch["text"] if text] for batch in documents.iter(batch_size=1000))
    tokenizer.train_from_iterator(texts, trainer=trainer, length=len(documents))
    return tokenizer.get_vocab()
