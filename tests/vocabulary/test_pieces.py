"""A text of words that stay is cut into the same words, whatever the kind of tokenizer; nothing becomes unknown."""

import json

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from schubert_hf.vocabulary.comparison import compare_tokens
from schubert_hf.vocabulary.pieces import Pieces, TrimError
from schubert_hf.vocabulary.selection import Selection, count_tokens, whole_texts

ODD = ["naïve café 東京 \U0001f600", "ﬁn de siècle №5 <mask> Heathcliff-the-added", "xyzzyqwv zzzzzz", "\u0000\ufffd"]


def trimmed(tokenizer, texts, share):
    """The tokenizer before and after, and the words that stay."""
    pieces = Pieces(tokenizer)
    whole = whole_texts(tokenizer.backend_tokenizer)
    counts = count_tokens(whole, texts, len(pieces.ids))
    kept = Selection(coverage=share).choose(pieces, pieces.needed(), counts)
    return whole, pieces.keep(kept), {word for word, number in pieces.ids.items() if number in kept}


@pytest.mark.parametrize("share", [0.5, 0.8, 1.0])
def test_words_that_stay_are_cut_as_before(any_tokenizer, novels, share):
    before, after, kept = trimmed(any_tokenizer, novels[0], share)
    assert set(after.get_vocab()) == kept
    assert len(kept) < len(before.get_vocab()) or share == 1
    same = other = 0
    for text in [*novels[0], *novels[1], *" ".join(novels[1]).split()]:
        old, new = before.encode(text), after.encode(text)
        if set(old.tokens) <= kept:
            assert new.tokens == old.tokens
            same += 1
        else:
            other += 1
    assert same > 20
    assert other > 20 or share == 1
    assert share < 1 or all(set(before.encode(text).tokens) <= kept for text in novels[0])


@pytest.mark.parametrize("share", [0.01, 0.8])
def test_nothing_becomes_unknown(any_tokenizer, novels, share):
    before, after, kept = trimmed(any_tokenizer, novels[0], share)
    assert {"<unk>", "<pad>", "<s>", "</s>", "<mask>", "Heathcliff-the-added"} <= kept
    for text in [*novels[1], *ODD]:
        tokens = [one.encode(text).tokens.count("<unk>") for one in (before, after)]
        assert tokens[0] == tokens[1], text
        spelled = ["".join(one.encode(text).tokens).replace("##", "") for one in (before, after)]
        assert spelled[0] == spelled[1]


def test_a_bpe_keeps_what_leads_to_a_word():
    raw = Tokenizer(
        models.BPE(
            {w: n for n, w in enumerate(["a", "b", "c", "ab", "bc", "abc", "cab"])},
            [("a", "b"), ("b", "c"), ("ab", "c"), ("c", "ab")],
        )
    )
    pieces = Pieces(PreTrainedTokenizerFast(tokenizer_object=raw))
    assert pieces.reach(["abc"]) == {0, 1, 2, 3, 5}
    made = pieces.keep(pieces.needed() | pieces.reach(["abc"]))
    assert json.loads(made.to_str())["model"]["merges"] == [["a", "b"], ["ab", "c"]]
    assert made.encode("abc").tokens == ["abc"]


def test_a_unigram_keeps_its_unknown_word_and_what_one_costs():
    """Before the unknown word words go; the lowest score, which sets the cost of what is unknown, stays."""
    vocabulary = [("ab", -1.0), ("abc", -9.0), ("cab", -3.0), ("<unk>", 0.0), ("a", -2.0), ("b", -2.0), ("éa", -4.0)]
    raw = Tokenizer(models.Unigram(vocabulary, unk_id=3, byte_fallback=False))
    pieces = Pieces(PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>"))
    assert pieces.needed() == {1, 2, 3, 4, 5, 6}  # those with a character that is no word stay
    made = pieces.keep(pieces.needed())
    assert json.loads(made.to_str())["model"]["unk_id"] == 2
    for text in ("ab", "abq", "éa", "é", "cabab"):
        assert made.encode(text).tokens.count("<unk>") == raw.encode(text).tokens.count("<unk>")


def test_the_ids_of_post_processor_and_padding_move_along():
    words = ["bb", "a", "b", "##b", "ab", "[UNK]", "[CLS]", "[SEP]", "[PAD]"]
    raw = Tokenizer(models.WordPiece({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    content = json.loads(raw.to_str())
    template = {
        "type": "TemplateProcessing",
        "pair": [],
        "special_tokens": {
            name: {"id": name, "ids": [words.index(name)], "tokens": [name]} for name in ("[CLS]", "[SEP]")
        },
    }
    template["single"] = [
        {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
    ]
    template["pair"] = [*template["single"], {"Sequence": {"id": "B", "type_id": 1}}]
    bert = {"type": "BertProcessing", "sep": ["[SEP]", 7], "cls": ["[CLS]", 6]}
    for processor in (template, bert, {"type": "Sequence", "processors": [template]}):
        content["post_processor"] = processor
        made = Tokenizer.from_str(json.dumps(content))
        made.enable_padding(pad_id=8, pad_token="[PAD]", length=6)
        pieces = Pieces(PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]"))
        small = pieces.keep(pieces.needed() | pieces.reach(["ab"]))
        assert "bb" not in small.get_vocab()
        assert small.encode("ab").tokens == made.encode("ab").tokens == ["[CLS]", "ab", "[SEP]", *["[PAD]"] * 3]
        assert small.encode("ab").ids == [small.token_to_id(token) for token in small.encode("ab").tokens]
        assert small.padding["pad_id"] == small.token_to_id("[PAD]") == 7
        made.enable_padding(pad_id=0, pad_token="[PAD]")  # of another word: that one stays, too
        assert 0 in Pieces(PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]")).needed()
        made.enable_padding(pad_id=99, pad_token="[PAD]")
        wrong = Pieces(PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]"))
        with pytest.raises(TrimError, match="names the id 99, which no word has"):
            wrong.keep(wrong.needed())


def test_kinds_that_cannot_be_rewritten_are_refused():
    level = Tokenizer(models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>"))
    marked = Tokenizer(models.BPE({"a": 0, "b</w>": 1}, [], end_of_word_suffix="</w>"))
    for raw in (level, marked):
        with pytest.raises(TrimError, match="allowed are WordPiece, BPE, Unigram"):
            Pieces(PreTrainedTokenizerFast(tokenizer_object=raw))

    class Slow:
        pass

    with pytest.raises(TrimError, match=r"Slow without a tokenizer\.json"):
        Pieces(Slow())


def test_the_comparison_counts_words_and_tokens():
    vocabulary = {word: n for n, word in enumerate(["<unk>", "a", "b", "##a", "##b", "ab", "##ab"])}
    raw = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    small = Pieces(PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>")).keep(range(5))
    found = compare_tokens(raw, small, ["a ab aab", "q ab"], "<unk>")
    # a | ab -> a ##b | a ##ab -> a ##a ##b || q | ab -> a ##b
    assert found == {"texts": 2, "tokens": [6, 9], "unknown": [1, 1], "words": 5, "changed": 3}
