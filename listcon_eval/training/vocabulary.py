"""A vocabulary for an encoder that starts from nothing: BERT's WordPiece over characters, as BERT-Chinese has it."""

from collections import Counter
from collections.abc import Iterable

from tokenizers import normalizers, pre_tokenizers
from transformers import BertTokenizer, PreTrainedTokenizerFast

from listcon_eval.errors import ListconError

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def build_tokenizer(texts: Iterable[str], *, minimum_count: int, max_length: int) -> PreTrainedTokenizerFast:
    """A lower-casing BERT tokenizer that knows the characters of texts.

    Chinese characters and punctuation are words of their own. Of other words, the first character and the ones that
    continue a word (`##a`) are counted and kept apart, as WordPiece reads them.

    Args:
        texts: the training text.
        minimum_count: how often a piece must occur to be kept; rarer ones become `[UNK]`.
        max_length: the longest text the encoder takes, in tokens.

    Raises:
        ListconError: when no piece occurs often enough.
    """
    normalizer = normalizers.BertNormalizer(lowercase=True)
    splitter = pre_tokenizers.BertPreTokenizer()
    words: Counter[str] = Counter()
    for text in texts:
        words.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    pieces: Counter[str] = Counter()
    for word, count in words.items():
        pieces[word[0]] += count
        for character in word[1:]:
            pieces[f"##{character}"] += count
    kept = sorted((piece for piece in pieces if pieces[piece] >= minimum_count), key=lambda p: (-pieces[p], p))
    if not kept:
        raise ListconError(
            f"no character of the training text occurs {minimum_count} times or more: lower the minimum count"
        )
    vocabulary = {token: index for index, token in enumerate((*SPECIAL_TOKENS, *kept))}
    tokenizer = BertTokenizer(vocab=vocabulary, do_lower_case=True, model_max_length=max_length)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    return tokenizer
