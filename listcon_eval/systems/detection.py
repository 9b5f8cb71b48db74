"""Which kind of system does `--model` name? Told by names, by files, and by what a model's folder holds."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from listcon_eval.errors import ListconError
from listcon_eval.model import PUBLISHED_ID
from listcon_eval.model.checkpoint import holds_listconranker
from listcon_eval.model.sources import Source, resolve
from listcon_eval.systems.registry import KINDS

if TYPE_CHECKING:
    from mteb.models import ModelMeta

# Kinds that are named, not found in files; a variant may follow a colon, as in bm25:jieba.
_NAMED = ("bm25", "random", "oracle")
_MODELS = ("listconranker", "embedding", "cross-encoder")
_NOT_A_FOLDER = f"beside models, a TREC run file can be given, or one of {', '.join(_NAMED)}"
_REGISTRY_TYPES = {"dense": "embedding", "cross-encoder": "cross-encoder"}


class Found(NamedTuple):
    """What `--model` names.

    Attributes:
        given: as it was given.
        kind: the kind of system.
        variant: what followed a named kind's colon; "" without.
        source: a model's folder, and where it came from; None for a kind without one.
    """

    given: str
    kind: str
    variant: str = ""
    source: Source | None = None

    def folder_of_model(self) -> Source:
        """The model's folder.

        Raises:
            ListconError: this kind was forced on something that is no model.
        """
        if self.source is None:
            raise ListconError(f"{self.given} is no model's folder or hub id, which the kind {self.kind} needs")
        return self.source


def registered(hub_id: str | None) -> "ModelMeta | None":
    """What mteb's registry says of a model; None when it is not there."""
    if hub_id is None:
        return None
    import mteb

    try:
        return mteb.get_model_meta(hub_id, fetch_from_hf=False)
    except KeyError:
        return None


def identify(model: str, kind: str | None = None, revision: str | None = None) -> Found:
    """Find out what `--model` names, and fetch a model of the hub.

    Args:
        model: `bm25`, `random` or `oracle` (a folder of that name: `./bm25`); a TREC run file; a model's folder;
            `mini`, the packaged ListConRanker; a hub id. A model of mteb's registry comes at the revision that mteb
            pins, ListConRanker at its own.
        kind: the kind, when it is not to be found out.
        revision: the hub revision.

    Raises:
        ListconError: no such kind, file, folder or model, or it is not clear what it is; says what was found.
    """
    if kind is not None and kind not in KINDS:
        raise ListconError(f"no kind {kind!r}: give one of {', '.join(KINDS)}")
    name, _, variant = model.partition(":")
    if kind in _NAMED or (kind is None and name in _NAMED):
        if kind is not None and name != kind:
            raise ListconError(f"the kind {kind} has no model {model!r}: give --model {kind}")
        return Found(model, name, variant)
    path = Path(model).expanduser()
    if kind == "run-file" or (kind is None and path.is_file()):
        if not path.is_file():
            raise ListconError(f"{model} is no file: the kind run-file takes a TREC run, one file for one task")
        return Found(model, "run-file")
    meta = None if path.exists() else registered(model)
    pinned = meta.revision if meta is not None and model != PUBLISHED_ID else None
    try:
        source = resolve(model, revision or pinned)
    except ListconError as error:
        if kind is not None or path.exists() or meta is not None:
            raise
        raise ListconError(f"{error}; {_NOT_A_FOLDER}") from error
    return Found(model, kind or _kind_of(source, meta), source=source)


def _kind_of(source: Source, meta: "ModelMeta | None") -> str:
    if source.hub_id == PUBLISHED_ID:
        return "listconranker"
    if meta is not None:
        for model_type in meta.model_type:
            if model_type in _REGISTRY_TYPES:
                return _REGISTRY_TYPES[model_type]
        raise ListconError(f"mteb's registry has {meta.name} as a {'/'.join(meta.model_type)} model. {_ways()}")
    return kind_of_folder(source.folder)


def kind_of_folder(folder: Path) -> str:
    """The kind of the model in a folder, told by its files.

    Raises:
        ListconError: they are of no kind that is known, or of several; says what was found.
    """
    if holds_listconranker(folder):
        return "listconranker"
    config = _json(folder / "config.json")
    architectures = config.get("architectures") or []
    if (folder / "modules.json").exists():
        # A folder that sentence-transformers wrote; before version 5 it wrote embedding models alone.
        model_type = _json(folder / "config_sentence_transformers.json").get("model_type", "SentenceTransformer")
        known = {"SentenceTransformer": "embedding", "CrossEncoder": "cross-encoder"}
        if model_type in known:
            return known[model_type]
        raise ListconError(f"{folder} holds a {model_type} of sentence-transformers. {_ways()}")
    if any(str(name).endswith("ForSequenceClassification") for name in architectures):
        return "cross-encoder"
    files = ", ".join(sorted(path.name for path in folder.iterdir())[:12]) or "nothing"
    raise ListconError(
        f"cannot tell what {folder} holds: architectures {', '.join(map(str, architectures)) or 'not said'}, files "
        f"{files}. A ListConRanker has list_transformer.pt or its keys in one file, an embedding model of "
        f"sentence-transformers modules.json, a cross-encoder a config.json with a ...ForSequenceClassification. "
        f"{_ways()}"
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ListconError(f"{path} cannot be read: {error}") from error
    return content if isinstance(content, dict) else {}


def _ways() -> str:
    return (
        f"Give a model's folder, a hub id such as {PUBLISHED_ID}, a TREC run file, or one of {', '.join(_NAMED)}; and, "
        f"if a model's files do not say what it is, --kind {'|'.join(_MODELS)}"
    )
