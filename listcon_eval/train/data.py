"""Training data: which lists are used and sampled, and their texts as batches of tokens or pooled outputs."""

import hashlib
import io
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import datasets
import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset, Sampler
from transformers import PreTrainedTokenizerFast

from listcon_eval.errors import ListconError
from listcon_eval.files import write_bytes
from listcon_eval.inference.tokens import IndexedList, TextTokenizer, pad
from listcon_eval.model import ListConModel
from listcon_eval.progress import Progress, no_progress
from listcon_eval.records import CandidateList
from listcon_eval.train.arguments import Fill

_BATCH_TOKENS = 16_384  # with padding, in one pass of the encoder, at most
_SMALL_BATCH_TOKENS = 1024  # a larger batch ends where texts get much shorter: padding costs as much as tokens
_TABLE_TEXTS = 1024  # texts that are written to a table at once
_CHUNK_CHARACTERS = 65_536  # of the texts whose pooled outputs are one file: about a minute of a large encoder on a CPU


class TrainingList(NamedTuple):
    """One query with its passages, as indices of distinct texts.

    Attributes:
        query_id: the query's id, for messages.
        query: the query's index.
        passages: distinct passages, positives first, (P,).
        positives: how many of them are positives: at least one, and fewer than P.
        teacher: the teacher's scores of the passages, (P,); NaN where there is none.
    """

    query_id: str
    query: int
    passages: NDArray[np.int64]
    positives: int
    teacher: NDArray[np.float32]


class TextTable:
    """Distinct texts, in a temporary Arrow file that is mapped into memory; a hash and a length of each are in memory.

    Attributes:
        digests: a hash of each text, (N, 2); there after `close`.
        lengths: the characters of each text, (N,); there after `close`.
    """

    digests: NDArray[np.uint64]
    lengths: NDArray[np.int64]

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="listcon-texts-", ignore_cleanup_errors=True)
        self._file = str(Path(self._folder.name, "texts.arrow"))
        self._schema = pa.schema({"text": pa.large_string()})
        self._writer = pa.ipc.new_stream(self._file, self._schema)
        self._known: dict[bytes, int] = {}
        self._sizes = array("q")
        self._pending: list[str] = []

    def __len__(self) -> int:
        return len(self._sizes)

    def index(self, text: str) -> int:
        """The index of a text, which is added when it is new."""
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
        known = self._known.setdefault(digest, len(self._sizes))
        if known == len(self._sizes):
            self._sizes.append(len(text))
            self._pending.append(text)
            if len(self._pending) == _TABLE_TEXTS:
                self._write()
        return known

    def _write(self) -> None:
        self._writer.write_batch(pa.record_batch([pa.array(self._pending, pa.large_string())], schema=self._schema))
        self._pending.clear()

    def close(self) -> None:
        """Add no more: from here on texts are read."""
        self._write()
        self._writer.close()
        self._texts = datasets.Dataset.from_file(self._file)
        self.digests = np.frombuffer(b"".join(self._known), dtype=np.uint64).reshape(-1, 2)
        self.lengths = np.array(self._sizes, dtype=np.int64)
        self._known.clear()

    def __getitem__(self, indices: NDArray[np.int64]) -> list[str]:
        return list(self._texts[indices.tolist()]["text"])


def train_eval_split(lists: Sequence[IndexedList], share: float, seed: int) -> NDArray[np.bool_]:
    """Which lists are held out: a random share of the queries; lists with equal query texts stay together.

    Raises:
        ListconError: when the share leaves nothing to train on.
    """
    if share == 0:
        return np.zeros(len(lists), dtype=np.bool_)
    queries = list(dict.fromkeys(row.query for row in lists))
    count = max(1, round(share * len(queries)))
    if count >= len(queries):
        raise ListconError(
            f"holding out {share:g} of {len(queries)} distinct queries leaves none to train on: give a smaller "
            f"--eval_split, or --eval_data"
        )
    chosen = np.random.default_rng([seed, len(queries)]).permutation(len(queries))[:count]
    held_out = {queries[index] for index in chosen}
    return np.array([row.query in held_out for row in lists])


def training_lists(
    lists: Sequence[CandidateList],
    indexed: Sequence[IndexedList],
    teacher: Mapping[str, Mapping[str, float]] | None = None,
) -> list[TrainingList]:
    """The lists that have both classes; a text that is judged both ways in its list is a positive.

    Args:
        lists: the lists.
        indexed: the same over the indices of distinct texts.
        teacher: query id -> document id -> the teacher's score.

    Raises:
        ListconError: when no list has both classes, or the teacher scored none of them.
    """
    kept = []
    for row, places in zip(lists, indexed, strict=True):
        relevant = np.array(row.relevance) > 0
        positives = np.unique(places.passages[relevant])
        negatives = np.setdiff1d(places.passages[~relevant], positives)
        if not len(positives) or not len(negatives):
            continue
        passages = np.concatenate([positives, negatives])
        known = (teacher or {}).get(row.query_id, {})
        by_text = {text: known[doc] for text, doc in zip(places.passages, row.doc_ids, strict=True) if doc in known}
        scores = np.array([by_text.get(text, np.nan) for text in passages], dtype=np.float32)
        kept.append(TrainingList(row.query_id, places.query, passages, len(positives), scores))
    if not kept:
        raise ListconError(
            f"none of the {len(lists)} training lists has both a relevant and another passage: nothing can be learned"
        )
    if teacher is not None and all(np.isnan(row.teacher).all() for row in kept):
        raise ListconError(
            f"the teacher's run scores no passage of the training lists: its queries are such as "
            f"{next(iter(teacher), None)!r}, theirs such as {kept[0].query_id!r}"
        )
    return kept


def oversample(lists: Sequence[TrainingList], given: Sequence[str]) -> list[TrainingList]:
    """The lists of an epoch: `PREFIX=TIMES` repeats those whose query id starts so; the longest fitting prefix counts.

    Raises:
        ListconError: for words of another form, a prefix given twice, or one that no query id starts with.
    """
    times: dict[str, int] = {}
    for word in given:
        prefix, _, count = word.rpartition("=")
        if not prefix or not count.isdecimal() or int(count) < 1:
            raise ListconError(f"--oversample is {word!r}: expected a prefix of query ids, '=' and a number from 1 on")
        if prefix in times:
            raise ListconError(f"--oversample is given twice for {prefix!r}: give it once")
        if not any(row.query_id.startswith(prefix) for row in lists):
            raise ListconError(
                f"no training list has a query id that starts with {prefix!r}; theirs are such as {lists[0].query_id!r}"
            )
        times[prefix] = int(count)
    longest_first = sorted(times, key=len, reverse=True)
    counts = [next((times[prefix] for prefix in longest_first if row.query_id.startswith(prefix)), 1) for row in lists]
    # Copies come after all lists, not next to the first: `--block_size` keeps neighbours together.
    return [row for repeat in range(max(counts)) for row, count in zip(lists, counts, strict=True) if repeat < count]


class EpochItem(NamedTuple):
    """A list's place in the training data, in an epoch: what its random choices follow from.

    `counts` is False for a copy that only fills the last batches of several processes: its loss is left out.
    """

    epoch: int
    place: int
    counts: bool


class ListDataset(Dataset[tuple[TrainingList, bool]]):
    """Samples the passages of a list: all positives, and as many negatives as fit.

    What is sampled depends on the seed, the epoch and the list alone, so it is the same whatever the batches, workers
    and processes, and after a resume.

    A list of `size` passages with more positives than fit keeps all of them, and one negative.

    Args:
        lists: the lists.
        size: passages per list.
        fill: what shorter lists get: nothing; random passages of other queries, from the pool of all; or those of the
            other lists of their batch, by `fill_from_batch`.
        seed: decides what is sampled.
        own_negatives: at most so many of a list's own negatives; None for as many as fit.
    """

    def __init__(
        self, lists: Sequence[TrainingList], *, size: int, fill: Fill, seed: int, own_negatives: int | None = None
    ) -> None:
        self._lists, self._size, self._seed, self._own_negatives = lists, size, seed, own_negatives
        self._fills_from_batch = fill == "batch"
        self._pool = np.unique(np.concatenate([row.passages for row in lists])) if fill == "pool" else None
        positives: dict[int, list[NDArray[np.int64]]] = {}
        for row in lists:
            positives.setdefault(row.query, []).append(row.passages[: row.positives])
        # Two lists may share a query's text: a positive of one is no random negative of the other.
        self._relevant = {query: np.concatenate(parts) for query, parts in positives.items()}

    def __len__(self) -> int:
        return len(self._lists)

    def __getitem__(self, item: EpochItem) -> tuple[TrainingList, bool]:
        row = self._lists[item.place]
        rng = np.random.default_rng([self._seed, item.epoch, item.place])
        wanted = max(1, self._size - row.positives)
        most = wanted if self._own_negatives is None else min(wanted, self._own_negatives)
        own = np.arange(row.positives, len(row.passages))
        if len(own) > most:
            own = rng.choice(own, most, replace=False)
        kept = np.concatenate([np.arange(row.positives), own])
        passages, teacher = row.passages[kept], row.teacher[kept]
        missing = wanted - len(own)
        if self._pool is not None and missing > 0:
            drawn = rng.choice(self._pool, min(len(self._pool), missing + len(self._used(row))), replace=False)
            passages, teacher = self._filled(row, passages, teacher, drawn)
        return TrainingList(row.query_id, row.query, passages, row.positives, teacher), item.counts

    def _used(self, row: TrainingList) -> NDArray[np.int64]:
        return np.concatenate([self._relevant[row.query], row.passages])

    def _filled(
        self, row: TrainingList, passages: NDArray[np.int64], teacher: NDArray[np.float32], others: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        missing = max(self._size, row.positives + 1) - len(passages)
        others = others[~np.isin(others, self._used(row))][:missing]
        nothing = np.full(len(others), np.nan, dtype=np.float32)
        return np.concatenate([passages, others]), np.concatenate([teacher, nothing])

    def fill_from_batch(self, rows: Sequence[TrainingList]) -> list[TrainingList]:
        """Fill the lists of a batch with the passages of those that follow in it, in turn, up to `size`.

        Raises:
            ListconError: when a list has no negatives even so.
        """
        if not self._fills_from_batch:
            return list(rows)
        found = []
        for place, row in enumerate(rows):
            following = [*rows[place + 1 :], *rows[:place]]
            others = np.concatenate([np.empty(0, dtype=np.int64), *(other.passages for other in following)])
            distinct = others[np.sort(np.unique(others, return_index=True)[1])]
            passages, teacher = self._filled(row, row.passages, row.teacher, distinct)
            if len(passages) == row.positives:
                raise ListconError(
                    f"list {row.query_id!r} finds no negatives in a batch of {len(rows)}: give a larger "
                    f"--per_device_train_batch_size, or --own_negatives above 0"
                )
            found.append(row._replace(passages=passages, teacher=teacher))
        return found


class EpochSampler(Sampler[EpochItem]):
    """A random order of all lists in each epoch, the same in every process.

    With a `block_size` above 1 the order is that of blocks of so many neighbouring lists, which stay together: where
    they are about the same passages, these are encoded once in a batch, and are each other's hard negatives (topic
    aware sampling, arXiv 2104.06967).

    The order is filled up to a multiple of `multiple` with copies that do not count, so that several processes have
    equally many batches and the mean is still over every list once.
    """

    def __init__(
        self, count: int, *, seed: int, epoch: Callable[[], int], multiple: int = 1, block_size: int = 1
    ) -> None:
        self._count, self._seed, self._epoch, self._block_size = count, seed, epoch, block_size
        self._length = -(-count // multiple) * multiple

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[EpochItem]:
        epoch = self._epoch()
        whole = self._count // self._block_size
        blocks = np.random.default_rng([self._seed, epoch]).permutation(whole)
        places = (blocks[:, None] * self._block_size + np.arange(self._block_size)).ravel()
        # The last lists of the data, where they are fewer than a block, come last: all others stay whole in a batch.
        order = np.append(places, np.arange(whole * self._block_size, self._count))
        for place in range(self._length):
            yield EpochItem(epoch, int(order[place % self._count]), place < self._count)


class TokenisedTexts:
    """The tokens of texts, each cut to `max_length` tokens with the special ones.

    They are made when they are asked for: in the loader's workers, with `--dataloader_num_workers`.
    """

    def __init__(self, texts: TextTable, tokenizer: PreTrainedTokenizerFast, max_length: int) -> None:
        self.texts = texts
        self._tokenize = TextTokenizer(tokenizer, max_length)
        # About how much work each text is, (N,): a token is a character or more, and special tokens are there too.
        self.work = np.minimum(texts.lengths + 2, max_length)
        self._padding = tokenizer.pad_token_id or 0
        self.key = f"{max_length} {tokenizer.backend_tokenizer.to_str()}"

    def batches(self, indices: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], dict[str, Tensor]]]:
        """The texts at `indices` in batches of similar length, longest first.

        Yields:
            The places of a batch's texts in `indices`, (n,), and its `input_ids` and `attention_mask`, (n, T).
        """
        rows, _ = self._tokenize(self.texts[indices])
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        order = np.argsort(-lengths, kind="stable")
        sorted_lengths = lengths[order]
        start = 0
        while start < len(order):
            longest = int(sorted_lengths[start])
            # As many as are about as long, or as make a small batch; never more than make a large one.
            similar = int(np.searchsorted(-sorted_lengths, -7 * longest // 8, side="right")) - start
            count = min(max(similar, _SMALL_BATCH_TOKENS // longest, 1), max(1, _BATCH_TOKENS // longest))
            places = order[start : start + count]
            input_ids, own = pad([rows[place] for place in places], self._padding)
            yield (
                places,
                {"input_ids": torch.from_numpy(input_ids), "attention_mask": torch.from_numpy(own.astype(np.int64))},
            )
            start += len(places)


@torch.no_grad()
def encode_texts(
    model: ListConModel,
    texts: TokenisedTexts,
    indices: NDArray[np.int64],
    autocast: torch.dtype | None,
    told: Callable[[int], object] = lambda _: None,
) -> NDArray[np.float32]:
    """The encoder's pooled outputs of the texts at `indices`, (n, H), without dropout.

    `autocast` is as in training; after each batch it is `told` how much work that was, as `TokenisedTexts.work`.
    """
    device = next(model.parameters()).device
    was_training = model.encoder.training
    model.encoder.train(False)
    pooled = np.empty((len(indices), model.config.encoder.hidden_size), dtype=np.float32)
    for places, tokens in texts.batches(indices):
        with torch.autocast(device.type, autocast, enabled=autocast is not None):
            found = model.pool(tokens["input_ids"].to(device), tokens["attention_mask"].to(device))
        pooled[places] = found.float().cpu().numpy()
        told(int(texts.work[indices[places]].sum()))
    model.encoder.train(was_training)
    return pooled


class PooledCache:
    """The pooled outputs of a frozen encoder for all texts, on disk, in files named by what decides their content.

    A later run with the same encoder and texts reads the files, and an interrupted run computes only the missing ones.
    Of a file only the rows that are asked for are read.
    """

    def __init__(
        self, folder: Path, model: ListConModel, texts: TokenisedTexts, autocast: torch.dtype | None = None
    ) -> None:
        self._model, self._texts, self._autocast = model, texts, autocast
        digests = texts.texts.digests
        order = np.lexsort((digests[:, 1], digests[:, 0], -texts.texts.lengths))
        work = np.cumsum(texts.work[order])
        self._starts = np.flatnonzero(np.diff((work - 1) // _CHUNK_CHARACTERS, prepend=-1))  # of the files in the order
        self._chunks = np.split(order, self._starts[1:])
        self._place = np.empty(len(order), dtype=np.int64)
        self._place[order] = np.arange(len(order))
        key = hashlib.sha256(f"{autocast} {texts.key} {model.config.encoder.to_json_string(use_diff=False)}".encode())
        for name, value in model.encoder.state_dict().items():
            key.update(name.encode() + value.detach().float().cpu().contiguous().numpy().tobytes())
        names = [hashlib.sha256(key.digest() + digests[chunk].tobytes()).hexdigest()[:32] for chunk in self._chunks]
        self._files = [folder / f"{name}.npy" for name in names]

    def compute(self, share: int = 0, shares: int = 1, progress: Progress = no_progress) -> None:
        """Encode the texts of the missing files; with several processes, of this one's share of them."""
        missing = [place for place in range(share, len(self._files), shares) if not self._files[place].exists()]
        total = sum(int(self._texts.work[self._chunks[place]].sum()) for place in missing)
        done = 0

        def told(work: int) -> None:
            nonlocal done
            done += work
            progress("encode", done, total)

        for place in missing:
            content = io.BytesIO()
            np.save(content, encode_texts(self._model, self._texts, self._chunks[place], self._autocast, told))
            write_bytes(self._files[place], content.getvalue())

    def __call__(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """The pooled outputs of the texts at `indices`, (n, H)."""
        places = self._place[indices]
        chunks = np.searchsorted(self._starts, places, side="right") - 1
        rows = places - self._starts[chunks]
        found = np.empty((len(indices), self._model.config.encoder.hidden_size), dtype=np.float32)
        for chunk in np.unique(chunks):
            mine = chunks == chunk
            # Opened each time: a corpus has more files than a process may hold open.
            found[mine] = np.load(self._files[chunk], mmap_mode="r")[rows[mine]]
        return found


class ListCollator:
    """Makes the batches that `trainer.ListLossModel` takes; every distinct text of a batch is in it once.

    Args:
        texts: the tokens of all texts.
        lists: where the lists are from; fills them from their batch, where it does so.
        pooled: the pooled outputs of a frozen encoder; then batches hold these instead of tokens.
        teacher: the pooled outputs whose cosine similarity is the teacher; None for the lists' own teacher scores.
    """

    def __init__(
        self,
        texts: TokenisedTexts,
        lists: ListDataset,
        pooled: PooledCache | None = None,
        teacher: PooledCache | None = None,
    ) -> None:
        self._texts, self._lists, self._pooled, self._teacher = texts, lists, pooled, teacher

    def __call__(self, items: Sequence[tuple[TrainingList, bool]]) -> dict[str, Any]:
        """Collate B lists of up to P passages with n distinct texts among them.

        Returns:
            `tokens` (batches of texts) or `pooled` (n, H): the texts; `rows` (B, 1 + P): their index at each place,
            query first; `valid` (B, 1 + P) and `positive` (B, P); `teacher` (B, P), NaN for none; `counts` (B,): 0 for
            a copy that is not counted; `query_ids`.
        """
        lists = self._lists.fill_from_batch([row for row, _ in items])
        padded, valid = pad([np.append(row.query, row.passages) for row in lists])
        indices = np.where(valid, padded, padded[:, :1])  # padding is the query again, so it adds no text
        distinct, inverse = np.unique(indices, return_inverse=True)
        rows = inverse.reshape(indices.shape)
        positives = np.array([row.positives for row in lists])
        batch: dict[str, Any] = {
            "valid": torch.from_numpy(valid),
            "positive": torch.from_numpy(np.arange(valid.shape[1] - 1) < positives[:, None]),
            "counts": torch.tensor([counts for _, counts in items], dtype=torch.float32),
            "teacher": torch.full((len(lists), valid.shape[1] - 1), torch.nan),
            "query_ids": [row.query_id for row in lists],
        }
        for place, row in enumerate(lists):
            scores = torch.from_numpy(row.teacher)
            if self._teacher is not None:
                features = functional.normalize(torch.from_numpy(self._teacher(np.append(row.query, row.passages))))
                scores = features[1:] @ features[0]
            batch["teacher"][place, : len(scores)] = scores
        if self._pooled is not None:
            batch["pooled"] = torch.from_numpy(self._pooled(distinct))
        else:
            parts = list(self._texts.batches(distinct))
            batch["tokens"] = [tokens for _, tokens in parts]
            rows = np.argsort(np.concatenate([where for where, _ in parts]))[rows]  # batches are in another order
        batch["rows"] = torch.from_numpy(rows)
        return batch
