"""A vocabulary for an encoder that starts from nothing: BERT-Chinese's characters, or pieces of several characters."""

from collections import Counter
from collections.abc import Iterable

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertTokenizer, PreTrainedTokenizerFast

from listcon_eval.errors import ListconError

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_LONGEST_PIECE = 4  # characters: Chinese words and idioms are not longer


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


def build_piece_tokenizer(
    texts: Iterable[str], *, size: int, minimum_count: int, max_length: int
) -> PreTrainedTokenizerFast:
    """A lower-casing tokenizer of pieces of one to four characters, by byte pair encoding.

    A bag of characters does not know which of them stood side by side; one of frequent words does, and is shorter.
    Source: "Neural Machine Translation of Rare Words with Subword Units" (arXiv 1508.07909), within the words that BERT
    splits at spaces and punctuation.

    Args:
        texts: the training text.
        size: tokens of the vocabulary, the special ones included.
        minimum_count: how often a pair of pieces must occur to become one.
        max_length: the longest text the encoder takes, in tokens.

    Raises:
        ListconError: when the size has no room for the characters of the text.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, handle_chinese_chars=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=minimum_count,
        special_tokens=list(SPECIAL_TOKENS),
        max_token_length=_LONGEST_PIECE,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() > size:
        raise ListconError(
            f"a vocabulary of {size} tokens has no room for the characters of the training text: give "
            f"{tokenizer.get_vocab_size()} or more"
        )
    cls, sep = SPECIAL_TOKENS.index("[CLS]"), SPECIAL_TOKENS.index("[SEP]")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", cls), ("[SEP]", sep)]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
