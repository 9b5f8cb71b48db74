"""A vocabulary built from training text reads that text as BERT-Chinese would."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from listcon_eval.errors import ListconError
from listcon_eval.train.vocabulary import build_piece_tokenizer, build_tokenizer

TEXTS = ["中文，中国 ABC abc 2009", "中 ab 2001"]


def test_pieces_are_characters_by_frequency() -> None:
    tokenizer = build_tokenizer(TEXTS, minimum_count=1, max_length=32)
    vocabulary = tokenizer.get_vocab()
    ordered = sorted(vocabulary, key=vocabulary.__getitem__)
    assert ordered[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert ordered[5] == "##0"  # four times: 2009 and 2001
    assert set(ordered[6:9]) == {"##b", "a", "中"}  # three times each, by code point
    assert ordered[6:9] == sorted(ordered[6:9])
    assert tokenizer.tokenize("中文ABC，2009") == ["中", "文", "a", "##b", "##c", "，", "2", "##0", "##0", "##9"]
    assert tokenizer("中")["input_ids"] == [2, vocabulary["中"], 3]
    assert tokenizer.model_max_length == 32


def test_rare_pieces_are_unknown() -> None:
    tokenizer = build_tokenizer(TEXTS, minimum_count=3, max_length=32)
    assert tokenizer.tokenize("中文 ab") == ["中", "[UNK]", "a", "##b"]
    with pytest.raises(ListconError, match="occurs 9 times or more"):
        build_tokenizer(TEXTS, minimum_count=9, max_length=32)


def test_it_is_read_back_as_it_was(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(TEXTS, minimum_count=1, max_length=32)
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again(TEXTS)["input_ids"] == tokenizer(TEXTS)["input_ids"]


def test_pieces_of_several_characters_are_frequent_neighbours(tmp_path: Path) -> None:
    texts = ["中国人民，ABC中国人民银行", "中国银行。", "银行人民"]
    tokenizer = build_piece_tokenizer(texts, size=40, minimum_count=2, max_length=32)
    assert tokenizer.tokenize("中国银行，人民abc") == ["中国", "银行", "，", "人民", "a", "b", "c"]
    assert max(map(len, set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens))) <= 4
    assert tokenizer.tokenize("龘") == ["[UNK]"]
    vocabulary = tokenizer.get_vocab()
    assert tokenizer("银行")["input_ids"] == [2, vocabulary["银行"], 3]
    assert tokenizer.pad_token_id == 0
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again(texts)["input_ids"] == tokenizer(texts)["input_ids"]
    assert build_piece_tokenizer(texts, size=40, minimum_count=2, max_length=32).get_vocab() == vocabulary
    with pytest.raises(ListconError, match="a vocabulary of 8 tokens has no room for the characters"):
        build_piece_tokenizer(texts, size=8, minimum_count=2, max_length=32)
