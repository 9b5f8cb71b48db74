"""A Qwen2 classifier with one label that reads a chat: `neofung/LdIR-Qwen2-reranker-1.5B`.

As its model card has it: query and passage, an empty line between them, are a user's message; what the chat template
adds at the end is always kept, the passage is cut. Rows are padded on the left here, so that the token a score is read
from is the last one of every row, whatever the padding token is.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from listcon_eval.errors import ListconError
from listcon_eval.systems.batches import Batches
from listcon_eval.systems.weights import check_weights

DEFAULT_MAX_LENGTH = 1024  # the card's
_ARCHITECTURE = "Qwen2ForSequenceClassification"
_MARK = "listcon-eval-message"


def is_chat_classifier(folder: Path) -> bool:
    """Whether a folder holds a Qwen2 classifier and a chat template, and was not written by sentence-transformers."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        tokenizer = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    has_template = bool(tokenizer.get("chat_template")) or (folder / "chat_template.jinja").exists()
    is_qwen2 = _ARCHITECTURE in (config.get("architectures") or ())
    return is_qwen2 and has_template and not (folder / "modules.json").exists()


class ChatClassifier:
    """The classifier, in float32 on the CPU until it is moved.

    Args:
        folder: the model's folder.
        max_length: tokens a pair is cut to; as published when None.

    Attributes:
        model: the network.
        max_length: tokens a pair is cut to.
        reads: how a pair becomes a text.

    Raises:
        ListconError: it has not one label, or the length is too short for its template or too long for it.
    """

    reads = "a chat message of query and passage, as LdIR-Qwen2-reranker"

    def __init__(self, folder: Path, max_length: int | None) -> None:
        self.model: nn.Module = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=False)
        config: Any = self.model.config
        if config.num_labels != 1:
            raise ListconError(f"the classifier in {folder} has {config.num_labels} labels: a reranker has one")
        check_weights(folder, self.model)
        self._tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left", trust_remote_code=False)
        before, _, after = self._template(_MARK).partition(_MARK)
        self._after = self._ids([after])[0]  # never cut
        shortest = len(self._ids([before])[0]) + len(self._after) + 1
        positions = config.max_position_embeddings
        self.max_length = min(DEFAULT_MAX_LENGTH, positions) if max_length is None else max_length
        if not shortest <= self.max_length <= positions:
            raise ListconError(
                f"max_length is {self.max_length}: the classifier in {folder} takes {shortest} (its chat template and "
                f"a token) to {positions}"
            )

    @torch.inference_mode()
    def __call__(self, pairs: Sequence[tuple[str, str]], batches: Batches) -> NDArray[np.float32]:
        """The logits of pairs of query and passage, (N,)."""
        rows = self._ids([self._template(f"{query}\n\n{passage}") for query, passage in pairs])
        rows = [self._cut(row) for row in rows]
        order = sorted(range(len(rows)), key=lambda place: -len(rows[place]))
        logits = np.empty(len(rows), dtype=np.float32)
        start = 0
        while start < len(order):
            rest = order[start:]

            def work(size: int, rest: Sequence[int] = rest) -> tuple[Sequence[int], NDArray[np.float32]]:
                return rest[:size], self._logits([rows[place] for place in rest[:size]])

            places, of_batch = batches.run(len(rows[rest[0]]), work)
            logits[list(places)] = of_batch
            start += len(places)
        return logits

    def _logits(self, rows: Sequence[list[int]]) -> NDArray[np.float32]:
        """Logits of rows of token ids, (N,)."""
        model: Any = self.model
        length = max(map(len, rows))
        ids = torch.zeros(len(rows), length, dtype=torch.long)  # any token will do as padding: it is masked
        mask = torch.zeros_like(ids)
        for place, row in enumerate(rows):
            ids[place, length - len(row) :] = torch.tensor(row)
            mask[place, length - len(row) :] = 1
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)  # a row's first token is at 0, wherever it stands
        ids, mask, positions = (tensor.to(model.device) for tensor in (ids, mask, positions))
        hidden: Tensor = model.base_model(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False
        ).last_hidden_state  # (N, T, H)
        scores: Tensor = model.score(hidden[:, -1])  # (N, 1)
        return scores[:, 0].float().cpu().numpy()

    def _template(self, message: str) -> str:
        chat = [{"role": "user", "content": message}]
        return str(self._tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        rows: list[list[int]] = self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return rows

    def _cut(self, row: list[int]) -> list[int]:
        if len(row) <= self.max_length:
            return row
        return row[: self.max_length - len(self._after)] + self._after
