"""The words of a tokenizer, and its tokenizer.json with some of them only.

tokenizer.json is edited as it is: in it, ids stand in five places. (`skeletoken`, which has a model of that file,
leaves Unigram's `unk_id` as it was when words before it go, and makes the unknown word an added token.)

WordPiece takes the longest word that fits and Unigram the best path, so a text that was cut into words that stay is
cut into the same ones: what is gone had not won. BPE merges by rank, so the merges that lead to a word must stay, and
with them the words in between.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from ..errors import SchuBertError

KINDS = ("WordPiece", "BPE", "Unigram")
BYTE = re.compile(r"<0x[0-9A-F]{2}>")


class TrimError(SchuBertError):
    """A vocabulary that cannot be trimmed, or not to what is asked for."""


class Pieces:
    """The words of a tokenizer: `ids` has every word, those that were added to it included.

    Raises:
        TrimError: the tokenizer is of a kind that cannot be rewritten.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        backend: Tokenizer | None = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise TrimError(
                f"The tokenizer is a {type(tokenizer).__name__} without a tokenizer.json, which cannot be rewritten. "
                "Save it as a fast tokenizer (`AutoTokenizer.from_pretrained(..., use_fast=True)`) beside the model."
            )
        self.content: dict[str, Any] = json.loads(backend.to_str())
        self.model: dict[str, Any] = self.content["model"]
        self.kind: str = self.model.get("type", "WordPiece")
        self.ids: dict[str, int] = backend.get_vocab(with_added_tokens=True)
        self.special = [token for token in tokenizer.all_special_tokens if token in self.ids]
        marks = [self.model.get(name) for name in ("continuing_subword_prefix", "end_of_word_suffix")]
        if self.kind not in KINDS or (self.kind == "BPE" and any(marks)):
            what = f"{self.kind} with a mark at each word's end or inside" if self.kind == "BPE" else self.kind
            raise TrimError(
                f"The tokenizer is of the kind {what}; allowed are {', '.join(KINDS)} (of BPE the byte-level and the "
                "plain one), in which a word that is gone falls back to smaller ones. Leave the vocabulary as it is."
            )
        self._ranks = {tuple(pair): rank for rank, pair in enumerate(self.model.get("merges") or ())}

    def needed(self) -> set[int]:
        """Ids that always stay, so that nothing becomes unknown that was not.

        They are special and added words, single characters and bytes, and words with a character that is no word by
        itself. Of Unigram also the word with the lowest score, which is what an unknown character costs.
        """
        words = {added["content"] for added in self.content["added_tokens"]} | set(self.special)
        words |= {self.model["unk_token"]} if self.model.get("unk_token") else set()
        for word in self.ids:
            letters = self._letters(word)
            if letters == [word] or BYTE.fullmatch(word) or not all(letter in self.ids for letter in letters):
                words.add(word)
        needed = {self.ids[word] for word in words if word in self.ids}
        needed |= {ids[place] for ids, place in _places(self.content)} & set(self.ids.values())
        if self.kind == "Unigram":
            scores = [score for _, score in self.model["vocab"]]
            needed.add(min(range(len(scores)), key=scores.__getitem__))
            needed |= {self.model["unk_id"]} if self.model.get("unk_id") is not None else set()
        return needed

    def reach(self, words: Iterable[str]) -> set[int]:
        """Ids of these words, and of those that the tokenizer goes through to reach them."""
        if self.kind != "BPE":
            return {self.ids[word] for word in words}
        return {self.ids[part] for word in words for part in self._merged(word) if part in self.ids}

    def keep(self, kept: Collection[int]) -> Tokenizer:
        """The tokenizer with the words of these ids, in the same order, numbered from 0.

        Raises:
            TrimError: `tokenizers` numbers them otherwise, or the file names an id that no word has.
        """
        new = {old: number for number, old in enumerate(sorted(kept))}
        content = copy.copy(self.content)
        content["model"] = self._model(new)
        content["added_tokens"] = [{**added, "id": new[added["id"]]} for added in content["added_tokens"]]
        for name in ("post_processor", "padding"):
            content[name] = copy.deepcopy(content.get(name))
        for ids, place in _places(content):
            if ids[place] not in new:
                raise TrimError(
                    f"The tokenizer's post-processor or padding names the id {ids[place]}, which no word has. Correct "
                    "its tokenizer.json."
                )
            ids[place] = new[ids[place]]
        made = Tokenizer.from_str(json.dumps(content, ensure_ascii=False))
        if made.get_vocab(with_added_tokens=True) != {word: new[old] for word, old in self.ids.items() if old in new}:
            raise TrimError(
                "The tokenizer's added words stand between the others, and would be numbered otherwise when it is "
                "read again. Leave the vocabulary as it is."
            )
        return made

    def _model(self, new: dict[int, int]) -> dict[str, Any]:
        model, vocab = dict(self.model), self.model["vocab"]
        if self.kind == "Unigram":
            model["vocab"] = [piece for old, piece in enumerate(vocab) if old in new]
            model["unk_id"] = new[model["unk_id"]] if model.get("unk_id") is not None else None
            return model
        model["vocab"] = {word: new[old] for word, old in vocab.items() if old in new}
        if self.kind == "BPE":
            model["merges"] = [[a, b] for a, b in model["merges"] if all(x in model["vocab"] for x in (a, b, a + b))]
        return model

    def _letters(self, word: str) -> list[str]:
        """The words of one character that spell a word."""
        prefix = self.model.get("continuing_subword_prefix") if self.kind == "WordPiece" else None
        if not prefix:
            return list(word)
        first, rest = (word[:1], word[1:]) if not word.startswith(prefix) else ("", word.removeprefix(prefix))
        return [*first, *(prefix + letter for letter in rest)]

    def _merged(self, word: str) -> set[str]:
        """Every word on the way from the characters of a word to the word itself."""
        parts, on_the_way = list(word), {word, *word}
        while len(parts) > 1:
            pairs = range(len(parts) - 1)
            rank, first = min((self._ranks.get((parts[n], parts[n + 1]), len(self._ranks)), n) for n in pairs)
            if rank == len(self._ranks):
                break
            parts[first : first + 2] = [parts[first] + parts[first + 1]]
            on_the_way.add(parts[first])
        return on_the_way


def _places(content: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Where post-processor and padding name ids: the list or object that holds one, and its place in it."""
    processors = [content["post_processor"]] if content.get("post_processor") else []
    while processors:
        processor = processors.pop()
        processors += processor.get("processors", ())
        yield from ((processor[name], 1) for name in ("cls", "sep") if name in processor)
        for special in (processor.get("special_tokens") or {}).values():
            yield from ((special["ids"], place) for place in range(len(special["ids"])))
    if content.get("padding"):
        yield content["padding"], "pad_id"
