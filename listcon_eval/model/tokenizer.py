"""The tokenizer in a model's folder, and whether it is a real one."""

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from listcon_eval.errors import ListconError, first_line

_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model", "tokenizer.model")
_LFS_POINTER = b"version https://git-lfs"


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Read the tokenizer in a model's folder.

    Raises:
        ListconError: its files are missing or cannot be read, it is not a fast one, or it has only special tokens.
    """
    found = [folder / name for name in _FILES if (folder / name).is_file()]
    if not found:  # transformers would make one up
        raise ListconError(f"no tokenizer in {folder}: expected one of {', '.join(_FILES)}")
    for path in found:
        check_no_lfs_pointer(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # what a malformed file raises differs by file, library and version
        raise ListconError(f"cannot read the tokenizer in {folder}: {first_line(error)}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        kind = type(tokenizer).__name__
        raise ListconError(f"the tokenizer in {folder} is a {kind}: a fast tokenizer (tokenizer.json) is needed")
    check_tokenizer(tokenizer, folder)
    return tokenizer


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Refuse a tokenizer that has only special tokens: transformers makes one up where files are missing.

    Raises:
        ListconError: it has no others.
    """
    special = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    if not set(tokenizer.get_vocab()) - special:
        raise ListconError(
            f"the tokenizer in {folder} has {len(special)} special tokens and no others, so every text would be "
            f"unknown to it: its files are missing or empty; expected one of {', '.join(_FILES)}"
        )


def check_no_lfs_pointer(path: Path) -> None:
    """Refuse the text that Git LFS leaves where a large file was not fetched.

    Raises:
        ListconError: the file is such a text.
    """
    with path.open("rb") as file:
        if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise ListconError(f"{path} is a Git LFS pointer and not the file itself: fetch it with `git lfs pull`")
