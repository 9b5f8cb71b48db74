"""Which kind of system does `--model` name? Told by names, by files, and by what a model's folder holds."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from listcon_eval.errors import ListconError, did_you_mean
from listcon_eval.model.source import MINI, PUBLISHED_ID, ModelSource, refuse_revision, resolve_source
from listcon_eval.mteb_compat import registered_model

KINDS = {
    "listconranker": "listconranker:ListConRankerSystem",
    "embedding": "embedding:Embedding",
    "cross-encoder": "cross_encoder:CrossEncoder",
    "bm25": "baselines:Bm25",
    "run-file": "runs:RunFile",
    "random": "baselines:Random",
    "oracle": "baselines:Oracle",
}
"""Kind -> where its class is (`module:class` in this package); it is imported when the kind is asked for."""

# Kinds that are named, not found in files; a variant may follow a colon, as in bm25:jieba.
_NAMED = ("bm25", "random", "oracle")
_WAYS = (
    f"Give a model's folder, a hub id such as {PUBLISHED_ID}, a TREC run file, or one of {', '.join(_NAMED)}; and, "
    "if a model's files do not say what it is, --kind listconranker|embedding|cross-encoder"
)
_LONGEST_NAME = 200  # bytes, of the 255 that a file system gives a name; the revision is a folder of its own
_REGISTRY_TYPES = {"dense": "embedding", "cross-encoder": "cross-encoder"}


class ModelSpec(NamedTuple):
    """What `--model` names: as it was given, its kind, the variant after a colon, and the folder of a model."""

    given: str
    kind: str
    variant: str = ""
    source: ModelSource | None = None

    def model_source(self) -> ModelSource:
        """The model's folder; ListconError when the kind was forced on something that is no model."""
        if self.source is None:
            raise ListconError(f"{self.given} is no model's folder or hub id, which the kind {self.kind} needs")
        return self.source


def safe_name(name: str) -> str:
    """A name that is one folder on every file system and one half of an `org/model` name."""
    short = re.sub(r"[^\w.-]+", "-", name).encode()[:_LONGEST_NAME].decode(errors="ignore")
    return short.strip("-.") or "model"


def model_name(source: ModelSource) -> str:
    """The hub id of a model, or `local/` (`packaged/` if it came with this package) and its folder's name."""
    if source.is_packaged:
        return f"packaged/{source.folder.name}"
    return source.hub_id or f"local/{safe_name(source.folder.resolve().name)}"


def model_revision(source: ModelSource, weights_sha256: str) -> str:
    """The hub's commit of a model, or a hash of its files."""
    return source.revision or f"sha256-{weights_sha256[:40]}"


def resolve_model(model: str | Path, kind: str | None = None, revision: str | None = None) -> ModelSpec:
    """Find out what `--model` names, and fetch a model of the hub.

    Args:
        model: `bm25`, `random` or `oracle` (a folder of that name: `./bm25`); a TREC run file; a model's folder;
            `mini`, the packaged ListConRanker; a hub id. A `Path` is a file or folder, whatever its name.
        kind: the kind, when it is not to be found out.
        revision: the hub revision; that of mteb's registry when None, of ListConRanker the published one.

    Raises:
        ListconError: there is no such kind, file, folder or model, or its kind is not clear.
    """
    if kind is not None and kind not in KINDS:
        raise ListconError(f"no kind {kind!r}: give one of {', '.join(KINDS)}")
    if isinstance(model, Path):
        model = str(model.expanduser().absolute())
    if not str(model):
        raise ListconError(f"the model is '' (empty). {_WAYS}")
    name, _, variant = str(model).partition(":")
    if kind in _NAMED or (kind is None and name in _NAMED):
        if kind is not None and name != kind:
            raise ListconError(f"the kind {kind} has no model {model!r}: give --model {kind}")
        refuse_revision(revision, model)
        return ModelSpec(model, name, variant)
    path = Path(model).expanduser()
    if kind == "run-file" or (kind is None and path.is_file()):
        if not path.is_file():
            raise ListconError(f"{model} is no file: the kind run-file takes a TREC run, one file for one task")
        refuse_revision(revision, model)
        return ModelSpec(model, "run-file")
    meta = None if path.exists() else registered_model(model)
    pinned = meta.revision if meta is not None and model != PUBLISHED_ID else None
    try:
        source = resolve_source(model, revision or pinned)
    except ListconError as error:
        if kind is not None or path.exists() or meta is not None:
            raise
        hint = did_you_mean(model, (*_NAMED, MINI))
        named = f"{model} is no TREC run file and not one of {', '.join(_NAMED)}{hint}"
        raise ListconError(f"{named}; {error}") from error
    if kind is None and source.hub_id == PUBLISHED_ID:
        kind = "listconranker"
    elif kind is None and meta is not None:
        kind = next((_REGISTRY_TYPES[name] for name in meta.model_type if name in _REGISTRY_TYPES), None)
        if kind is None:
            raise ListconError(f"mteb's registry has {meta.name} as a {'/'.join(meta.model_type)} model. {_WAYS}")
    return ModelSpec(model, kind or kind_of_folder(source.folder), source=source)


def kind_of_folder(folder: Path) -> str:
    """The kind of the model in a folder, by its files; ListconError, naming these, when they do not tell."""
    from listcon_eval.model.checkpoint import holds_listconranker  # it imports torch

    if holds_listconranker(folder):
        return "listconranker"
    config = read_json(folder / "config.json")
    architectures = config.get("architectures") or []
    if (folder / "modules.json").exists():
        # A folder that sentence-transformers wrote; before version 5 it wrote embedding models alone.
        model_type = read_json(folder / "config_sentence_transformers.json").get("model_type", "SentenceTransformer")
        known = {"SentenceTransformer": "embedding", "CrossEncoder": "cross-encoder"}
        if model_type in known:
            return known[model_type]
        raise ListconError(f"{folder} holds a {model_type} of sentence-transformers. {_WAYS}")
    if any(str(name).endswith("ForSequenceClassification") for name in architectures):
        return "cross-encoder"
    files = ", ".join(sorted(path.name for path in folder.iterdir())[:12]) or "nothing"
    raise ListconError(
        f"cannot tell what {folder} holds: architectures {', '.join(map(str, architectures)) or 'not said'}, files "
        f"{files}. A ListConRanker has list_transformer.pt or its keys in one file, an embedding model of "
        f"sentence-transformers modules.json, a cross-encoder a config.json with a ...ForSequenceClassification. "
        f"{_WAYS}"
    )


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; nothing where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ListconError(f"{path} cannot be read: {error}") from error
    return content if isinstance(content, dict) else {}
