"""The hub and its cache, against a small hub on this machine: a revision is used, or one message says why not."""

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from huggingface_hub import constants

from listcon_eval import hub
from listcon_eval.errors import ListconError
from listcon_eval.hub import hub_state, snapshot
from listcon_eval.model.source import (
    PUBLISHED_ID,
    PUBLISHED_REVISION,
    REGISTRY_REVISION,
    ModelSource,
    resolve_source,
)

OLD, NEW = "1" * 40, "2" * 40
ERRORS = {
    "org/none": (404, "RepoNotFound"),
    "org/gated": (403, "GatedRepo"),
}


class FakeHub(BaseHTTPRequestHandler):
    """One repository, org/model, whose files are config.json and weights.bin; `main` is the commit NEW."""

    requests: list[str]
    delay: float
    commits: dict[str, str]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        type(self).requests.append(self.path)
        time.sleep(self.delay)
        path = self.path.partition("?")[0]
        for repository, (status, code) in ERRORS.items():
            if repository in path:
                self.answer(b"{}", status, {"X-Error-Code": code})
                return
        name = path.rpartition("/")[2]
        if "/resolve/" in path:
            commit = path.split("/resolve/")[1].split("/")[0]
            self.answer(b"{}", headers={"X-Repo-Commit": commit, "ETag": f'"{name}"'})
        elif "/tree/" in path:
            entries = [
                {"type": "file", "path": file, "oid": file, "size": 2} for file in ("config.json", "weights.bin")
            ]
            self.answer(json.dumps(entries).encode())
        elif "/revision/" in path:
            known = self.commits.get(name)
            if known is None:
                self.answer(b"{}", 404, {"X-Error-Code": "RevisionNotFound"})
            else:
                self.answer(json.dumps({"id": "org/model", "sha": known}).encode())
        else:
            self.answer(b"")

    def answer(self, content: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            with suppress(BrokenPipeError):  # the client has given up
                self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Keep the output clean."""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no hub behind it."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    return tmp_path / "hub"


@pytest.fixture
def fake_hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeHub]]:
    """A hub that answers."""
    commits = {"main": NEW, **{commit: commit for commit in (OLD, NEW, PUBLISHED_REVISION, REGISTRY_REVISION)}}
    handler = type("Handler", (FakeHub,), {"requests": [], "delay": 0.0, "commits": commits})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    )
    yield handler
    server.shutdown()
    server.server_close()


def put(cache: Path, commit: str, *, branch: str | None = None, repository: str = "models--org--model") -> Path:
    """A cached snapshot as older clients leave it: without the list of the repository's files."""
    folder = cache / repository / "snapshots" / commit
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "weights.bin").write_text("{}")
    if branch is not None:
        (cache / repository / "refs").mkdir(exist_ok=True)
        (cache / repository / "refs" / branch).write_text(commit)
    return folder


def refused(repository: str = "org/model", revision: str | None = None) -> str:
    with pytest.raises(ListconError) as caught:
        snapshot(repository, revision=revision)
    return str(caught.value)


def test_a_branch_is_asked_of_the_hub_and_a_fetched_commit_no_more(cache: Path, fake_hub: type[FakeHub]) -> None:
    put(cache, OLD, branch="main")
    folder = snapshot("org/model")
    assert folder.name == NEW  # not the `main` of the cache
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "weights.bin"]
    fake_hub.requests.clear()
    assert snapshot("org/model", revision=NEW) == folder
    if any(cache.rglob("trees")):  # older clients keep no list of a repository's files, and ask for it
        assert fake_hub.requests == []
    snapshot("org/model", revision="main")
    assert fake_hub.requests  # each call asks


def test_a_snapshot_that_lacks_a_file_is_completed(cache: Path, fake_hub: type[FakeHub]) -> None:
    for folder in (put(cache, OLD), snapshot("org/model", revision=NEW)):  # without and with the list of its files
        (folder / "weights.bin").unlink()
        assert (snapshot("org/model", revision=folder.name) / "weights.bin").exists()


def test_a_cached_commit_is_used_when_the_hub_does_not_answer(cache: Path) -> None:
    folder = put(cache, OLD)
    assert snapshot("org/model", revision=OLD) == folder


@pytest.mark.parametrize("revision", [None, "main", "v2", NEW])
def test_any_other_revision_ends_the_run_when_the_hub_does_not_answer(cache: Path, revision: str | None) -> None:
    put(cache, OLD, branch="main")
    said = refused(revision=revision)
    assert f"cannot get org/model @ {revision or 'main'}." in said
    assert "hub http://127.0.0.1:9: it does not answer" in said
    assert f"The cache has main at {OLD}, commit {OLD}." in said
    assert all(
        way in said for way in ("--revision COMMIT", "HF_HUB_OFFLINE=1", "HF_HOME", "HF_ENDPOINT", "hf download")
    )


def test_a_hub_that_hangs_is_waited_for_once(
    cache: Path, fake_hub: type[FakeHub], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(cache, OLD, branch="main")
    fake_hub.delay = 2.0
    monkeypatch.setattr(hub, "_TIMEOUT_SECONDS", 0.2)
    start = time.monotonic()
    assert "it does not answer (ReadTimeout" in refused()
    assert time.monotonic() - start < 1.5
    assert len(fake_hub.requests) == 1


def test_offline_mode_takes_branches_from_the_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    folder = put(cache, OLD, branch="main")
    assert snapshot("org/model") == snapshot("org/model", revision=OLD) == folder
    assert resolve_source("org/model") == ModelSource(folder, "org/model", OLD)
    said = refused(revision="v2")
    assert "offline mode is set (HF_HUB_OFFLINE)" in said
    assert f"The cache has main at {OLD}" in said
    assert "The cache has no snapshot of it" in refused("org/other")
    assert "offline mode" in hub_state()


def test_what_the_hub_refuses_is_said(fake_hub: type[FakeHub]) -> None:
    assert "the hub has no org/model @ v2: check the revision" in refused(revision="v2")
    assert "has no model org/none, or it is private" in refused("org/none")
    assert "org/gated is gated: accept its terms at" in refused("org/gated")
    assert "it answers" in hub_state()


@pytest.mark.parametrize(
    ("revision", "commit"),
    [
        (None, PUBLISHED_REVISION),
        ("published", PUBLISHED_REVISION),
        ("mteb", REGISTRY_REVISION),
        (REGISTRY_REVISION, REGISTRY_REVISION),
        ("main", NEW),
    ],
)
def test_revisions_of_the_published_model(fake_hub: type[FakeHub], revision: str | None, commit: str) -> None:
    source = resolve_source(PUBLISHED_ID, revision)
    assert (source.hub_id, source.revision, source.folder.name) == (PUBLISHED_ID, commit, commit)


def test_the_revision_of_mtebs_registry() -> None:
    import mteb

    assert mteb.get_model_meta(PUBLISHED_ID, fetch_from_hf=False).revision == REGISTRY_REVISION


def test_what_is_no_model(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name, message in (
        (str(tmp_path / "file"), "is a file"),
        ("./absent", "no checkpoint folder at ./absent"),
        ("absent/model", "no folder has the name absent/model, and as a hub id: cannot get absent/model @ main."),
    ):
        with pytest.raises(ListconError, match=message):
            resolve_source(name)
    for name in ("mini", str(tmp_path)):
        with pytest.raises(ListconError, match="only hub ids have one"):
            resolve_source(name, "main")
    assert resolve_source("mini").is_packaged
    assert resolve_source(tmp_path) == ModelSource(tmp_path, None, None)
