"""The four parts of reranking data, as read from local files."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData


class Document(NamedTuple):
    """A document; a model reads title and text joined."""

    title: str
    text: str


class Parts(NamedTuple):
    """The four parts of mteb's retrieval layout, each in the order of its file.

    Attributes:
        queries: query id -> text.
        documents: document id -> document.
        relevant: query id -> document id -> relevance (above 0 is relevant).
        top_ranked: query id -> ids of its candidates.
    """

    queries: dict[str, str]
    documents: dict[str, Document]
    relevant: dict[str, dict[str, int]]
    top_ranked: dict[str, list[str]]

    def content_hash(self) -> str:
        """`sha256-` and the first 40 hexadecimal digits of a hash of everything that can change a score.

        Two files of the same data have one hash, whatever their names, layout or compression.
        """
        digest = hashlib.sha256()
        for query_id, query in self.queries.items():
            candidates = [(doc_id, *self.documents.get(doc_id, ())) for doc_id in self.top_ranked.get(query_id, ())]
            entry = [query_id, query, candidates, sorted(self.relevant.get(query_id, {}).items())]
            digest.update(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
        return f"sha256-{digest.hexdigest()[:40]}"

    def split_data(self) -> RetrievalSplitData:
        """The parts as mteb's retrieval tasks hold them."""
        from datasets import Dataset
        from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData

        return RetrievalSplitData(
            corpus=Dataset.from_dict(
                {
                    "id": list(self.documents),
                    "title": [document.title for document in self.documents.values()],
                    "text": [document.text for document in self.documents.values()],
                }
            ),
            queries=Dataset.from_dict({"id": list(self.queries), "text": list(self.queries.values())}),
            relevant_docs=self.relevant,
            top_ranked=self.top_ranked,
        )
