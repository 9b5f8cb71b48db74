"""How new weights can begin as a search engine: words matched as BM25 does, beside a vector of a text's meaning.

A ListConRanker can express more than a projection of TF-IDF. Here each part of it begins with a task:

- Each word embedding holds a code of the word, the word itself (a direction of `directions`, as long as the word is
  rare), and its share in the meaning of a text. What is left fills it up to one length, so that the embeddings'
  LayerNorm keeps these shares.
- The encoder's first attention head finds a word's repetitions by their codes. The more there are, the longer the
  vector of the code that it adds, and the smaller LayerNorm makes the rest: BM25's saturation of the term frequency.
- Its second head gathers the meaning of all words in `[CLS]`, where LayerNorm gives it one length. `[SEP]` says `1`.
  The mean over n tokens so holds, each times 1/n: the sum of the words, the meaning, and the `1` that n is known by.
- The list's first LayerNorm divides by that last number, whatever n is: scores do not fall with a text's length, as a
  cosine does. The first layer then makes passages short beside the query, so that what they have in common with each
  other does not count, and the second layer's attention on the query is the score: a softmax of small numbers, which
  is about linear in the inner product of query and passage. One head, without one, says how large the attention is in
  a list of that many passages.

The meaning, and how much each word counts, are then learnt (`words.WordBags`, stage 0).

Sources: BM25 (Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework"); heads that find repetitions
("In-context Learning and Induction Heads", arXiv 2209.11895).
Shapes in comments: V tokens of the vocabulary, H and D the widths, n texts, W numbers of the words, M of the meaning.
"""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from transformers import PreTrainedTokenizerFast

from listcon_eval.model import ListConModel
from listcon_eval.model.architecture import PASSAGE_TAG, QUERY_TAG
from listcon_eval.train.directions import of_length_1, spread_directions
from listcon_eval.train.tokens import TokenRows
from listcon_eval.train.words import (
    CODE,
    CODE_SHARE,
    ELSEWHERE,
    GAIN,
    LONG,
    MARK,
    MEANING_WEIGHT,
    SAME,
    SCALE,
    Places,
    WordBags,
    count_words,
    filling,
    signs,
)

# Of a word's embedding, whose length is 1 before the scale: the rarest word, and the meaning as it begins.
_WORD_SHARE, _MEANING_SHARE = 0.7, 0.025
_SURE = 20.0  # a logit that leaves the others nothing
_GATHER = 1000.0  # of the meaning in [CLS], beside what else is there
_LENGTH = 30.0  # the mark by which the number of tokens is known, beside the sum of the words
_PROJECTION = 10.0  # keeps the features of long texts far above LayerNorm's epsilon
_SHORTEN = 1000.0  # passages, beside the query
_LARGEST = 0.03  # logit of attention on the query: the softmax is about linear there
_ATTENTION = 50000.0  # of what attention says, beside the rest of a row; float16 still holds it
_STEEPNESS = 2.0  # of the logit; few scores then come near 0 or 1, where float32 knows no difference
_SAMPLE = 256  # texts from which the logits' scale is taken


@torch.no_grad()
def start_matching(
    model: ListConModel,
    tokenizer: PreTrainedTokenizerFast,
    meaning: int,
    documents: NDArray[np.int64],
    rows: TokenRows,
) -> None:
    """Give a model of new weights the tasks that the module's docstring describes.

    Args:
        model: the model, of `Places.of(...).list_width` and two list layers.
        tokenizer: its tokenizer.
        meaning: the width of the meaning, M.
        documents: in how many texts each token of the vocabulary occurs, (V,).
        rows: the tokens of training texts, from which scales are taken.
    """
    config = model.config.encoder
    places = Places.of(config.hidden_size, config.num_attention_heads, meaning)
    _start_embeddings(model, tokenizer, places, documents, rows)
    _start_encoder(model, places)
    sample = np.random.default_rng(0).permutation(len(rows))[:_SAMPLE]
    words = WordBags(model, meaning).words(rows, sample)  # (n, W)
    _start_projection(model, places, float(words.square().sum(dim=1).median()))
    _start_lists(model, places)
    _scale_logits(model, places, rows, sample)


def _start_embeddings(
    model: ListConModel,
    tokenizer: PreTrainedTokenizerFast,
    places: Places,
    documents: NDArray[np.int64],
    rows: TokenRows,
) -> None:
    tables: Any = model.encoder.embeddings  # whose attributes torch annotates as tensors or modules
    texts = len(rows)
    relative = np.log((texts + 1) / (documents + 0.5)) / math.log(2 * (texts + 1))
    rarity = relative.clip(min=0).astype(np.float32)  # (V,)
    made = torch.zeros_like(tables.word_embeddings.weight)  # (V, H)
    width = places.words.stop - places.words.start
    directions = spread_directions(_words_of_texts(rows, rarity), width)
    made[:, places.words] = _WORD_SHARE * torch.from_numpy(rarity)[:, None] * directions
    for part, share in ((places.code, CODE_SHARE), (places.word_meaning, _MEANING_SHARE)):
        made[:, part] = share * of_length_1(torch.randn_like(made[:, part]))
    made[:, places.fill] = filling((1 - made.square().sum(dim=1)).sqrt())
    for token, mark in ((tokenizer.cls_token_id, places.cls), (tokenizer.sep_token_id, places.sep)):
        made[token] = 0
        made[token, mark] = signs(MARK) / math.sqrt(MARK)
    tables.word_embeddings.weight.copy_(SCALE * made)
    tables.position_embeddings.weight.zero_()
    tables.token_type_embeddings.weight.zero_()


def _words_of_texts(rows: TokenRows, rarity: NDArray[np.float32]) -> csr_array:
    """What each word adds to the sum of each text, up to its direction, (N, V)."""
    counted = count_words(rows, np.arange(len(rows)))
    texts = np.repeat(1 / (1 + rows.lengths / LONG), np.diff(counted.starts)).astype(np.float32)
    added = counted.saturated * rarity[counted.tokens] * texts
    return csr_array((added, counted.tokens, counted.starts), shape=(len(rows), len(rarity)))


def _start_encoder(model: ListConModel, places: Places) -> None:
    config = model.config.encoder
    width, head = config.hidden_size, config.hidden_size // config.num_attention_heads
    layers: Any = model.encoder.encoder.layer
    for layer in layers:
        for output in (layer.attention.output.dense, layer.output.dense):
            output.weight.zero_()
            output.bias.zero_()
    attention = layers[0].attention
    query, key, value = attention.self.query, attention.self.key, attention.self.value
    output = attention.output.dense
    for part in (query, key, value):  # heads without a task say nothing yet, and could learn to
        part.weight.copy_(torch.eye(width))
        part.weight[: 2 * head].zero_()
        part.bias.zero_()
    # LayerNorm makes an embedding sqrt(H) long; a mark is sqrt(H / 2) in its first number.
    mark = math.sqrt(width / MARK)
    root = math.sqrt(head)
    code = torch.arange(CODE)
    codes = torch.arange(width)[places.code]
    # Head 0: words by their codes; the marks, with nothing to say, take what BM25's k1 would.
    sharpness = math.log(SAME) * root / (CODE_SHARE**2 * width)
    query.weight[code, codes] = sharpness
    key.weight[code, codes] = 1.0
    query.bias[CODE] = math.log(ELSEWHERE / 2) * root
    for place in (places.cls, places.sep):
        key.weight[CODE, place.start] = 1 / mark
        query.weight[CODE, place.start] = _SURE * root / mark
    value.weight[code, codes] = 1.0
    output.weight[codes, code] = GAIN
    # Head 1: [CLS] looks at all tokens alike, every other token at the marks.
    query.bias[head] = _SURE * root
    query.weight[head, places.cls.start] = -_SURE * root / mark
    for place in (places.cls, places.sep):
        key.weight[head, place.start] = 1 / mark
    gathered = head + torch.arange(places.meaning.stop - places.meaning.start)
    value.weight[gathered, torch.arange(width)[places.word_meaning]] = 1.0
    output.weight[torch.arange(width)[places.meaning], gathered] = _GATHER


def _start_projection(model: ListConModel, places: Places, words: float) -> None:
    """Let features be the words, the meaning and the length's mark; `words` is the usual square of the words' norm."""
    projection = model.linear_in_embedding
    projection.weight.zero_()
    projection.bias.zero_()
    rows, columns = torch.arange(model.config.list_width), torch.arange(projection.weight.shape[1])
    projection.weight[rows[places.words], columns[places.words]] = _PROJECTION
    projection.weight[rows[places.meaning], columns[places.meaning]] = _PROJECTION * math.sqrt(MEANING_WEIGHT * words)
    length = _PROJECTION * _LENGTH * math.sqrt(words)
    projection.weight[places.length, places.sep] = length / MARK * torch.outer(signs(MARK), signs(MARK))


def _start_lists(model: ListConModel, places: Places) -> None:
    width, heads = model.config.list_width, model.config.encoder.num_attention_heads
    head = width // heads
    projected = model.linear_in_embedding.weight[places.length.start, places.sep].abs().sum()
    length = float(projected) * math.sqrt(model.config.encoder.hidden_size / MARK)  # the mark of a text of one token
    tags = model.query_embedding.query_embedding.weight
    tags.zero_()
    tags[PASSAGE_TAG, places.length] = length / LONG * signs(MARK)
    # A tenth of the length's mark in a text of one token, so that it is the larger from ten tokens on.
    tags[QUERY_TAG, places.query] = length / 10 * signs(MARK)
    first, second = (layer for layer in model.list_transformer.layers)
    same = torch.eye(width)
    for layer in (first, second):
        parts: Any = layer
        parts.self_attn.in_proj_weight.copy_(same.repeat(3, 1))
        parts.self_attn.in_proj_bias.zero_()
        for output in (parts.self_attn.out_proj, parts.linear2):
            output.weight.zero_()
            output.bias.zero_()
    # Layer 1: a unit that is large in passages, 0 in the query, where 10 times the query's mark is taken from it.
    inner: Any = first
    inner.linear1.weight[0].zero_()
    inner.linear1.bias[0] = 0
    inner.linear1.weight[0, places.length.start] = 1.0
    inner.linear1.weight[0, places.query.start] = -10.0
    inner.linear2.weight[places.length, 0] = _SHORTEN * signs(MARK)
    # Layer 2: attention by words and meaning in all heads but the last, which sees all rows alike; its value is 1 in
    # the query and 0 in passages.
    attention: Any = second
    attention = attention.self_attn
    attention.in_proj_weight[: 2 * width].zero_()
    matched = torch.arange(places.meaning.stop)
    attention.in_proj_weight[matched, matched] = 1.0
    attention.in_proj_weight[width + matched, matched] = 1.0
    firsts = head * torch.arange(heads)
    attention.in_proj_weight[2 * width + firsts] = 0
    attention.in_proj_weight[2 * width + firsts, places.query.start] = 1 / math.sqrt(MARK * width)
    attention.in_proj_weight[2 * width + firsts, places.query.stop - 1] = -1 / math.sqrt(MARK * width)
    attention.out_proj.weight[places.attention, firsts[:-1]] = _ATTENTION * signs(MARK)[:, None] / (heads - 1)
    attention.out_proj.weight[places.reference, firsts[-1]] = _ATTENTION * signs(MARK)
    for score in (model.linear_score2, model.linear_score3):
        score.weight.copy_(torch.cat([same, -same], dim=1))
        score.bias.zero_()
    # The head: the attention less its reference, each about sqrt(D / 4) after LayerNorm.
    model.linear_score3.weight[0].zero_()
    model.linear_score3.weight[0, width + places.attention.start] = 1.0
    model.linear_score3.weight[0, width + places.reference.start] = -1.0
    model.linear_score3.bias[0] = math.sqrt(width)  # out of relu's way
    model.linear_score1.weight.zero_()
    model.linear_score1.weight[0, width] = _STEEPNESS
    model.linear_score1.bias.fill_(-_STEEPNESS * (math.sqrt(width) + math.sqrt(width) / 2 * _LARGEST / 2))


def _scale_logits(model: ListConModel, places: Places, rows: TokenRows, sample: NDArray[np.int64]) -> None:
    """Scale the last attention's logits: the best passage's of a query, averaged over heads, is usually `_LARGEST`."""
    heads = model.config.encoder.num_attention_heads - 1
    device = torch.device("cpu")
    model.eval()
    features = torch.zeros(len(sample), model.config.list_width)
    for batch in rows.batches(sample, 4096, device):
        features[torch.from_numpy(batch.places)] = model.features(batch.input_ids, batch.attention_mask)
    queries = features[rows.lengths[sample] <= np.median(rows.lengths[sample]), None]  # (n, 1, D)
    lists = torch.cat([queries, features.expand(len(queries), -1, -1)], dim=1)  # (n, 1 + P, D)
    valid = torch.ones(lists.shape[:2], dtype=torch.bool)
    compared = model.list_transformer.layers[0](model.query_embedding(lists), valid)[:, :, : places.meaning.stop]
    logits = (compared[:, 1:] @ compared[:, 0, :, None]).squeeze(-1)  # (n, P)
    second = logits.topk(2, dim=1).values[:, 1].median()  # the first is the query's own text
    root = math.sqrt(model.config.list_width // (heads + 1))
    attention: Any = model.list_transformer.layers[1]
    width = model.config.list_width
    attention.self_attn.in_proj_weight[: 2 * width].mul_((_LARGEST * heads * root / second).sqrt())
