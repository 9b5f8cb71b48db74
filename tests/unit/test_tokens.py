"""Token ids are those of the tokenizer on the whole text, however the texts were cut before."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

from checkpoints import bert_tokenizer
from listcon_eval.inference import tokens as module
from listcon_eval.inference.tokens import TextTokenizer

TOKENIZER = bert_tokenizer()

# What a cut could get wrong: marks that join what stands before, what normalising drops or makes longer, words that
# have no end, ideographs of every block (some are set apart, some not), spaces of many kinds.
NASTY = st.one_of(
    st.sampled_from(
        ["\u0301", "\u0323", "\u3099", "\u20e3", "\ufe0f", "\u200d", "\u200b", "\u00ad", "\x00", "\x1f", "\ufffd"]
    ),
    st.sampled_from(
        ["e\u0301", "ﬁ", "İ", "ß", "Σ", "Ⅷ", "㈠", "가", "が", "ア", "😀", "👩\u200d👩\u200d👧", "🇨🇳", "\U0001f3fd"]
    ),
    st.sampled_from([" ", "\t", "\n", "\r\n", "\u3000", "\u00a0", "\u2028", "\u202f"]),
    st.sampled_from(["[MASK]", "[CLS]", "[SEP]", "[UNK]", "[", "]", "##a", "。", "，", "-", "_", "'"]),
    st.sampled_from(
        ["中", "国", "㐀", "䶵", "\U00020000", "\U0002a6d6", "\U0002f800", "\uf900", "\ufa0e", "々", "〇", "龥", "鿿"]
    ),
    st.integers(1, 130).map(lambda size: "a" * size),
    st.integers(1, 60).map(lambda size: "é\u0301" * size),
    st.text(min_size=1, max_size=6),
)
TEXTS = st.lists(NASTY, max_size=60).map("".join).filter(lambda text: text.isprintable() or _encodes(text))


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def in_full(texts: list[str], max_length: int) -> list[list[int]]:
    """The definition: the tokenizer on whole texts, one at a time."""
    return [TOKENIZER(text, truncation=True, max_length=max_length)["input_ids"] for text in texts]


@settings(max_examples=300)
@given(st.lists(TEXTS, max_size=4), st.sampled_from([3, 8, 33]), st.sampled_from([0, 3, 48]))
def test_ids_are_those_of_the_whole_text(texts: list[str], max_length: int, slack: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_SLACK", slack)  # the shorter, the more texts are cut, and cut too short
        rows = TextTokenizer(TOKENIZER, max_length)(texts)[0]
    assert [row.tolist() for row in rows] == in_full(texts, max_length)
    assert all(row.dtype == np.int32 for row in rows)


@pytest.mark.parametrize(
    "text",
    [
        "中" * 5000,
        "中文" * 400 + "a" * 9000,
        "a" * 9000,
        "a" * 9000 + "中" * 600,  # one word, and then more
        " " * 3000 + "中" * 600,  # spaces give no tokens: the cut is too short
        "abc中" * 300,
        "\u0301" * 700 + "中" * 700,
        "",
    ],
    ids=["ideographs", "then a word", "a word", "a word first", "spaces first", "mixed", "marks first", "empty"],
)
def test_long_texts(text: str) -> None:
    cutter = TextTokenizer(TOKENIZER, 512)
    assert cutter.cuts
    assert [row.tolist() for row in cutter([text, "短"])[0]] == in_full([text, "短"], 512)


def test_a_long_text_is_not_read_to_its_end() -> None:
    seen: list[int] = []

    class Watched(TextTokenizer):
        def _tokenized(self, texts: list[str]) -> tuple[list[NDArray[np.int32]], list[bool]]:
            seen.extend(map(len, texts))
            return super()._tokenized(texts)

    Watched(TOKENIZER, 512)(["中" * 100_000, " " * 600 + "中" * 1000, "短"])
    assert seen == [560, 600, 1, 1600]  # the second gave too few tokens and was tokenised again in full


def test_the_tokenizers_own_settings_stay() -> None:
    tokenizer = bert_tokenizer()
    tokenizer.backend_tokenizer.enable_truncation(5)
    tokenizer.backend_tokenizer.enable_padding(length=9)
    assert [row.tolist() for row in TextTokenizer(tokenizer, 20)(["中国人民的生活"])[0]] == in_full(
        ["中国人民的生活"], 20
    )
    assert (tokenizer.backend_tokenizer.truncation or {})["max_length"] == 5
    assert (tokenizer.backend_tokenizer.padding or {})["length"] == 9


def changed(parts: dict[str, Any]) -> PreTrainedTokenizerFast:
    """The test tokenizer with parts of its JSON replaced."""
    content = json.loads(TOKENIZER.backend_tokenizer.to_str())
    backend = Tokenizer.from_str(json.dumps(content | parts))
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]")  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    "parts",
    [
        {"normalizer": None},
        {"normalizer": {"type": "Lowercase"}},
        {
            "normalizer": {
                "type": "BertNormalizer",
                "clean_text": True,
                "handle_chinese_chars": False,
                "strip_accents": None,
                "lowercase": True,
            }
        },
        {"pre_tokenizer": {"type": "Whitespace"}},
    ],
    ids=["no normalizer", "another normalizer", "ideographs not set apart", "another pre-tokenizer"],
)
def test_other_tokenizers_get_the_whole_text(parts: dict[str, Any]) -> None:
    tokenizer = changed(parts)
    cutter = TextTokenizer(tokenizer, 20)
    assert not cutter.cuts
    text = "中文abc" * 60
    assert cutter([text])[0][0].tolist() == tokenizer(text, truncation=True, max_length=20)["input_ids"]


@pytest.mark.parametrize("added", [AddedToken("中文"), AddedToken("abc", single_word=True)])
def test_added_tokens_that_reach_over_a_cut_forbid_it(added: AddedToken) -> None:
    tokenizer = bert_tokenizer()
    tokenizer.add_tokens([added])
    assert not TextTokenizer(tokenizer, 20).cuts


def test_real_texts(real_data: Callable[[str], Path]) -> None:
    with gzip.open(real_data("heldout_t2ranking_sample.jsonl.gz"), "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    texts = [text for row in rows[:20] for text in (*row["positive"], *row["negative"])]
    assert any(len(text) > 560 for text in texts)
    assert [row.tolist() for row in TextTokenizer(TOKENIZER, 512)(texts)[0]] == in_full(texts, 512)
