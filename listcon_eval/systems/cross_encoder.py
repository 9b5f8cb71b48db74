"""Cross-encoders: a classifier with one label reads query and passage together, one pair at a time."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerBase

from listcon_eval.errors import ListconError
from listcon_eval.inference.memory import BatchBudget
from listcon_eval.model.architecture import max_tokens
from listcon_eval.model.checkpoint import check_token_ids, check_tokenizer
from listcon_eval.ordering import ranked_list
from listcon_eval.records import CandidateList
from listcon_eval.systems.base import LoadOptions, RankContext, Ranking
from listcon_eval.systems.network import (
    NetworkSystem,
    TokenCounts,
    check_length,
    check_weights,
    count_tokens,
    in_batches,
    loading,
    observed_tokens,
    own_length,
)
from listcon_eval.systems.resolve import ModelSpec, read_json

logger = logging.getLogger(__name__)

_CHAT_LENGTH = 1024  # that of LdIR-Qwen2-reranker's model card
_MARK = "listcon-eval-message"


class CrossEncoder(NetworkSystem):
    """A cross-encoder, ranking by its logits. Every distinct pair is scored once."""

    kind = "cross-encoder"
    reads_every_list = True
    frameworks = ("Sentence Transformers", "PyTorch", "Transformers")

    def _network(self, spec: ModelSpec, options: LoadOptions, device: torch.device, dtype: torch.dtype) -> nn.Module:
        folder = self._source.folder
        with loading(spec, "a cross-encoder", dtype) as self._loaded:
            self.scorer: PairScorer | ChatClassifier = (
                ChatClassifier(folder, options.max_length)
                if is_chat_classifier(folder)
                else PairScorer(folder, options.max_length, device)
            )
            check_weights(folder, self._loaded)
            check_tokenizer(self.scorer.tokenizer, folder)
            check_token_ids(self.scorer.tokenizer, self._loaded[0].network.config, folder)
        self.max_length = self.scorer.max_length
        self._usual_length = self.max_length if options.max_length is None else None
        return self.scorer.model

    def _rank(self, lists: Sequence[CandidateList], mode: str, context: RankContext) -> Ranking:
        """Score the distinct pairs of all lists together."""
        pairs = list(dict.fromkeys((row.query, passage) for row in lists for passage in row.passages))
        lengths, observed = self._count(pairs, context)
        scores = np.empty(len(pairs), dtype=np.float32)
        done, total = 0, int(lengths.sum()) or 1
        for chunk, found in self._in_chunks("score", "pairs", pairs, lengths, self.score, context):
            scores[chunk] = found
            done += int(lengths[chunk].sum())
            context.progress("score", done, total)
        places = {pair: place for place, pair in enumerate(pairs)}
        ranked = [ranked_list(scores[[places[row.query, passage] for passage in row.passages]]) for row in lists]
        return Ranking(ranked, {}, observed)

    def _try(self) -> None:
        self.score([("0", "0")], self.max_length)

    def score(self, pairs: Sequence[tuple[str, ...]], longest: int) -> NDArray[np.float32]:
        """The logits of a chunk of pairs, (N,); `longest` is the tokens of the longest pair."""
        return self.scorer(pairs, longest, self.budget)

    def _count(
        self, pairs: Sequence[tuple[str, str]], context: RankContext
    ) -> tuple[NDArray[np.int64], dict[str, Any]]:
        """The tokens that each pair is read with, (N,), and what was seen of the texts."""
        with context.phases.measured("tokenise"):
            texts = {text: place for place, text in enumerate(dict.fromkeys(text for pair in pairs for text in pair))}
            counts = count_tokens(self.scorer.tokenizer, list(texts))
        places = np.array([[texts[query], texts[passage]] for query, passage in pairs])  # (N, 2)
        lengths = counts.lengths[places].sum(axis=1) + self.scorer.added
        of_pairs = TokenCounts(lengths, counts.unknown[places].sum(axis=1))
        cut = int((lengths > self.max_length).sum())
        observed = observed_tokens(context, self.name, of_pairs, len(pairs), cut)
        return np.minimum(lengths, self.max_length), {"prompts": {"pair": self.scorer.prompt}, **observed}

    def key(self) -> Mapping[str, Any]:
        """Weights, and how a pair is read."""
        return {**super().key(), "reads": self.scorer.reads}

    def provenance(self) -> Mapping[str, Any]:
        """The model's files, and how a pair is read."""
        return {**super().provenance(), "reads": self.scorer.reads}


class PairScorer:
    """A cross-encoder that sentence-transformers loads: pairs as its tokenizer and its prompts make them.

    Attributes:
        model: the network.
        tokenizer: its tokenizer.
        max_length: tokens a pair is cut to; the model's own unless another is asked for.
        added: tokens that a pair has beside those of its texts.
        reads: how a pair becomes a text.
        prompt: what is put before a pair.

    Raises:
        ListconError: it has not one label, or does not take that length.
    """

    reads = "pairs, as sentence-transformers"

    def __init__(self, folder: Path, max_length: int | None, device: torch.device) -> None:
        import sentence_transformers

        self.model = sentence_transformers.CrossEncoder(str(folder), device=str(device), local_files_only=True)
        _check_labels(self.model.num_labels, folder)
        network: Any = self.model.transformers_model
        tokenizer: Any = self.model.tokenizer
        _give_padding(tokenizer, network)
        _give_segments(tokenizer, network)
        given = {name: text for name, text in self.model.prompts.items() if text}
        self.prompt: str = given.pop(self.model.default_prompt_name, "")
        if given:
            logger.warning(
                "%s: its prompts %s are not used: sentence-transformers puts only the one that default_prompt_name "
                "names before a pair",
                folder,
                ", ".join(map(repr, given)),
            )
        self.tokenizer: PreTrainedTokenizerBase = tokenizer
        self.added = tokenizer.num_special_tokens_to_add(pair=True) + len(tokenizer.tokenize(self.prompt))
        shortest = self.added + 1  # with one token of the texts
        own = own_length(self.model.max_seq_length, network, folder, shortest)
        self.max_length = own if max_length is None else check_length(max_length, shortest, own, folder)
        self.model.max_seq_length = self.max_length

    def __call__(self, pairs: Sequence[tuple[str, ...]], longest: int, budget: BatchBudget) -> NDArray[np.float32]:
        """The logits of pairs of query and passage, (N,); `longest` is the tokens of the longest pair."""

        def logits(size: int) -> NDArray[np.float32]:
            found = self.model.predict(
                list(map(list, pairs)), batch_size=size, show_progress_bar=False, activation_fn=nn.Identity()
            )
            return np.asarray(found, dtype=np.float32)

        return in_batches(budget, longest, logits)


def _check_labels(labels: int, folder: Path) -> None:
    if labels != 1:
        raise ListconError(f"the classifier in {folder} has {labels} labels: a reranker has one, its score")


def _give_padding(tokenizer: PreTrainedTokenizerBase, network: Any) -> None:  # noqa: ANN401 - a network of any class
    """Tell a decoder that classifies which token is padding: it reads the score from the last token before it."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    config = network.config.get_text_config()
    if getattr(config, "pad_token_id", None) is None:
        config.pad_token_id = tokenizer.pad_token_id


def _give_segments(tokenizer: PreTrainedTokenizerBase, network: Any) -> None:  # noqa: ANN401 - a network of any class
    """Have a tokenizer say which text a token belongs to, if the network has an embedding for it.

    A plain `PreTrainedTokenizerFast`, which transformers 4 saved for some BERTs, does not do so in transformers 5. A
    tokenizer whose files name its inputs keeps to these.
    """
    segments = getattr(network.config, "type_vocab_size", 0) or 0
    names = tokenizer.model_input_names
    if segments > 1 and "token_type_ids" not in names and "model_input_names" not in tokenizer.init_kwargs:
        tokenizer.model_input_names = [*names, "token_type_ids"]


def is_chat_classifier(folder: Path) -> bool:
    """Whether a folder holds a Qwen2 classifier and a chat template, and was not written by sentence-transformers."""
    template = read_json(folder / "tokenizer_config.json").get("chat_template")
    has_template = bool(template) or (folder / "chat_template.jinja").exists()
    is_qwen2 = "Qwen2ForSequenceClassification" in (read_json(folder / "config.json").get("architectures") or ())
    return is_qwen2 and has_template and not (folder / "modules.json").exists()


class ChatClassifier:
    """A Qwen2 classifier with one label that reads a chat: `neofung/LdIR-Qwen2-reranker-1.5B`; as `PairScorer`.

    As its model card has it: query and passage, an empty line between them, are a user's message; what the chat
    template adds at the end is always kept, the passage is cut. Rows are padded on the left here, so that the token a
    score is read from is the last one of every row, whatever the padding token is.

    Raises:
        ListconError: it has not one label, or the length is too short for its template or too long for it.
    """

    reads = "a chat message of query and passage, as LdIR-Qwen2-reranker"

    def __init__(self, folder: Path, max_length: int | None) -> None:
        self.model: nn.Module = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=False)
        config: Any = self.model.config
        _check_labels(config.num_labels, folder)
        self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        self.prompt, _, after = self._template(_MARK).partition(_MARK)
        self._after = self._ids([after])[0]  # never cut
        self.added = len(self._ids([self.prompt])[0]) + len(self._after) + 1  # an empty line between the texts
        positions = max_tokens(self.model) or _CHAT_LENGTH
        wanted = min(_CHAT_LENGTH, positions) if max_length is None else max_length
        self.max_length = check_length(wanted, self.added, positions, folder)

    @torch.inference_mode()
    def __call__(self, pairs: Sequence[tuple[str, ...]], longest: int, budget: BatchBudget) -> NDArray[np.float32]:
        """The logits of pairs of query and passage, (N,); the longest of each batch is found out here."""
        rows = self._ids([self._template("\n\n".join(pair)) for pair in pairs])
        rows = [
            row if len(row) <= self.max_length else row[: self.max_length - len(self._after)] + self._after
            for row in rows
        ]
        order = np.argsort([-len(row) for row in rows], kind="stable")
        logits = np.empty(len(rows), dtype=np.float32)
        start = 0
        while start < len(order):
            places = order[start : start + max(1, budget.size // len(rows[order[start]]))]
            logits[places] = budget.run(self._logits, [rows[place] for place in places], len).numpy()
            start += len(places)
        return logits

    def _logits(self, rows: Sequence[list[int]]) -> Tensor:
        """Logits of rows of token ids, (N,)."""
        model: Any = self.model
        length = max(map(len, rows))
        ids = torch.zeros(len(rows), length, dtype=torch.long)  # any token will do as padding: it is masked
        mask = torch.zeros_like(ids)
        for place, row in enumerate(rows):
            ids[place, length - len(row) :] = torch.tensor(row)
            mask[place, length - len(row) :] = 1
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)  # a row's first token is at 0
        ids, mask, positions = (tensor.to(model.device) for tensor in (ids, mask, positions))
        hidden: Tensor = model.base_model(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False
        ).last_hidden_state  # (N, T, H)
        scores: Tensor = model.score(hidden[:, -1])  # (N, 1)
        return scores[:, 0].float().cpu()

    def _template(self, message: str) -> str:
        chat = [{"role": "user", "content": message}]
        return str(self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        rows: list[list[int]] = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return rows
