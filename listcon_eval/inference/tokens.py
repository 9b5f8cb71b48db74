"""Texts to rows of token ids; very long texts are cut before they are tokenised, where that changes nothing."""

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

# Characters that BERT's normalizer surely sets apart with spaces: the ideographs of the two large blocks.
_IDEOGRAPH = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")
# A text gives about a token a character; the characters that give none (spaces, letters inside words) have to fit in
# here for the first cut to do.
_SLACK = 48
_AT_ONCE = 128


class TextCutter:
    """Tokenises texts and cuts them to a number of tokens, over a copy of a tokenizer. Threads may share one.

    A text of thousands of characters need not be read to its end for its first 512 tokens. BERT's tokenizer sets every
    ideograph apart as a word of its own, so what stands before one gives the same tokens whatever follows. A long text
    is therefore cut before an ideograph, and if that was not enough text for all the tokens, it is tokenised in full:
    the ids are the same in every case.

    Args:
        tokenizer: the tokenizer; its own settings are neither used nor changed.
        max_length: tokens a text is cut to, the special ones counted.

    Attributes:
        cuts: whether the tokenizer is one of which this is known; texts are always tokenised in full otherwise.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, max_length: int) -> None:
        self.max_length = max_length
        content = tokenizer.backend_tokenizer.to_str()
        self.cuts = _sets_ideographs_apart(json.loads(content))
        self._tokenizer = Tokenizer.from_str(content)
        self._tokenizer.enable_truncation(max_length)
        self._tokenizer.no_padding()

    def __call__(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """The token ids of texts, special tokens included: one row of at most `max_length` a text, in their order."""
        starts = [self._start_of(text) for text in texts] if self.cuts else list(texts)
        rows = self._tokenised(starts)
        short = [
            place
            for place, (start, row) in enumerate(zip(starts, rows, strict=True))
            if len(row) < self.max_length and len(start) < len(texts[place])
        ]
        if short:
            for place, row in zip(short, self._tokenised([texts[place] for place in short]), strict=True):
                rows[place] = row
        return rows

    def _tokenised(self, texts: list[str]) -> list[NDArray[np.int32]]:
        # A few at a time: what the tokenizer says of a token besides its id takes 30 times the memory of the id.
        parts = (texts[start : start + _AT_ONCE] for start in range(0, len(texts), _AT_ONCE))
        return [
            np.array(encoding.ids, dtype=np.int32)
            for part in parts
            for encoding in self._tokenizer.encode_batch_fast(part)
        ]

    def _start_of(self, text: str) -> str:
        """The text up to an ideograph past the tokens that are wanted of it; all of it where there is none."""
        enough = self.max_length + _SLACK
        if len(text) <= enough:
            return text
        found = _IDEOGRAPH.search(text, enough)
        return text[: found.start()] if found else text


def _sets_ideographs_apart(content: dict[str, Any]) -> bool:
    """Whether a tokenizer, as its JSON says, tokenises what stands before an ideograph without looking beyond it."""
    normalizer = content.get("normalizer") or {}
    return (
        normalizer.get("type") == "BertNormalizer"
        and normalizer.get("handle_chinese_chars") is True
        and (content.get("pre_tokenizer") or {}).get("type") == "BertPreTokenizer"
        and (content.get("model") or {}).get("type") == "WordPiece"
        # Added tokens are looked for in the whole text, before words are set apart.
        and not any(
            token.get("single_word") or not token.get("content", "").isascii()
            for token in content.get("added_tokens") or ()
        )
    )
