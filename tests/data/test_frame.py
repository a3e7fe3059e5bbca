"""Examples and masks use the tokenizer's own special tokens, whatever kind of vocabulary it has."""

import pytest
import torch
from relatives import tokenizer_of

from schubert_hf.data.frame import Frame
from schubert_hf.data.pairs import make_pairs
from schubert_hf.data.spans import make_spans
from schubert_hf.data.stream import POSITION, MaskingCollator

FRAMES = {
    "roberta": ("<s>", "</s></s>", "</s>", False),
    "xlm-roberta": ("<s>", "</s></s>", "</s>", False),
    "camembert": ("<s>", "</s></s>", "</s>", False),
    "distilbert": ("[CLS]", "[SEP]", "[SEP]", True),
}


@pytest.fixture(scope="module", params=FRAMES)
def kind(request, corpus):
    return request.param, tokenizer_of(request.param, corpus)


def test_the_frame_is_the_tokenizers_own(kind):
    name, tokenizer = kind
    frame = Frame.of(tokenizer)
    texts = [tokenizer.convert_tokens_to_string(tokenizer.convert_ids_to_tokens(part)) for part in frame[:3]]
    assert ("".join(texts[0].split()), "".join(texts[1].split()), "".join(texts[2].split())) == FRAMES[name][:3]
    assert frame.size == tokenizer.num_special_tokens_to_add(pair=True)

    first, second = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("The cat", "a dog sees"))
    whole = tokenizer("The cat", "a dog sees", return_token_type_ids=True)
    assert frame.one(first) == tokenizer("The cat")["input_ids"]
    assert frame.pair(first, second)[0] == whole["input_ids"]
    assert frame.pair(first, second)[1] == (
        whole["token_type_ids"] if FRAMES[name][3] else [0] * len(whole["input_ids"])
    )


def test_segments_are_the_tokenizers_own(corpus):
    """A BERT whose tokenizer is an XLM-R's has two segments, and both texts lie in the first one."""
    tokenizer = tokenizer_of("xlm-roberta", corpus)
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    whole = tokenizer("a", "a")
    assert Frame.of(tokenizer).pair(whole["input_ids"][1:3], whole["input_ids"][5:7]) == (
        whole["input_ids"],
        whole["token_type_ids"],
    )


def test_pairs_and_spans_are_framed_and_read_as_the_text(kind, documents, corpus):
    name, tokenizer = kind
    pairs = make_pairs(documents, tokenizer, max_length=32)
    start, middle, end = Frame.of(tokenizer)[:3]
    for row in pairs.select(range(20)):
        ids = row["input_ids"]
        assert len(ids) <= 32
        assert (ids[: len(start)], ids[-len(end) :]) == (start, end)
        assert any(ids[place : place + len(middle)] == middle for place in range(2, len(ids) - 2))
        assert (max(row["token_type_ids"]) == 1) == FRAMES[name][3]
    plain = "".join("".join(corpus).lower().split()).replace("ë", "e")
    for row in make_spans(documents, tokenizer, max_length=32).select(range(20)):
        text = tokenizer.decode(row["input_ids"], skip_special_tokens=True)
        assert "".join(text.lower().split()).replace("ë", "e") in plain
        if name == "roberta":  # its word pieces hold the spaces, also those between sentences
            assert any(text.strip() in whole for whole in corpus)


def test_masks_are_the_tokenizers_own(kind, documents):
    _, tokenizer = kind
    pairs = make_pairs(documents, tokenizer, max_length=32)
    examples = [{**pairs[number], POSITION: number} for number in range(64)]
    batch = MaskingCollator(tokenizer)(examples)
    ids, labels = batch["input_ids"], batch["labels"]
    whole = torch.full_like(ids, tokenizer.pad_token_id)
    for row, example in zip(whole, examples, strict=True):
        row[: len(example["input_ids"])] = torch.tensor(example["input_ids"])
    predicted = labels != -100
    special = torch.isin(whole, torch.tensor(tokenizer.all_special_ids))
    assert not (predicted & special).any()
    assert torch.equal(labels[predicted], whole[predicted])
    assert torch.equal(ids[~predicted], whole[~predicted])
    assert torch.equal(batch["attention_mask"] == 0, whole == tokenizer.pad_token_id)
    share = predicted.sum() / (~special).sum()
    masked = (ids[predicted] == tokenizer.mask_token_id).float().mean()
    assert 0.11 < share < 0.19
    assert 0.7 < masked < 0.9
    assert int(ids.max()) < len(tokenizer)
