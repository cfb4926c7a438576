"""A stand-in for the Hugging Face hub: what its client asks for, from a folder, and the ways in which it can fail.

    with hub_server.serve(tree, faults) as url: ...

All repositories hold the same tree. Large files lie, as on the hub, on another host than the interface: "localhost"
instead of 127.0.0.1, which answers 400 where the token comes along, as a signed address does.
"""

import contextlib
import hashlib
import http.server
import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import _http

LARGE = (".h5ad", ".h5", ".tif", ".safetensors", ".bin")  # kept outside git, known by SHA-256


@dataclass
class Faults:
    """What goes wrong; a test may change it while the server runs. Paths are those in the repository.

    Attributes
    ----------
    delay
        Seconds before each answer.
    altered
        Files of which one byte differs.
    slow
        Seconds before each large file.
    busy
        Status of all files, if they do not come.
    limited
        So many of the next requests to the interface are answered 429, to come again in 7 seconds.
    token
        The only one that is let in, if any is needed.
    refused
        Status and error code, by repository.
    asked
        Every request: method, path, Authorization.
    """

    delay: float = 0.0
    altered: set[str] = field(default_factory=set)
    slow: float = 0.0
    busy: int | None = None
    limited: int = 0
    token: str | None = None
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)

    def fetched(self) -> list[str]:
        """Paths of files that were asked for with GET, sorted."""
        bodies = [re.split("/large/|/resolve/", path)[1:] for method, path, _ in self.asked if method == "GET"]
        return sorted(commit_and_path.partition("/")[2] for body in bodies for commit_and_path in body)


class Tree:
    """One commit: a folder's files with sizes and hashes; the commit's 40 hex digits follow from the content."""

    def __init__(self, folder: Path) -> None:
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        self.files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
        self.commit = hashlib.sha1(repr(self.files).encode()).hexdigest()

    def row(self, path: str) -> dict:
        """A file as the interface lists it."""
        content = self.files[path]
        row = {"type": "file", "path": path, "size": len(content), "oid": blob(content)}
        if path.endswith(LARGE):
            row["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        return row


def blob(content: bytes) -> str:
    """Git's name of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    trees: dict[str, Tree]
    faults: Faults

    def tree(self, revision: str) -> Tree | None:
        return self.trees.get(revision) or {tree.commit: tree for tree in self.trees.values()}.get(revision)

    def handle_error(self, request, client_address) -> None:
        """A client that went away is no news."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *args) -> None:
        pass

    def _answer(self) -> None:
        faults, path = self.server.faults, unquote(urlsplit(self.path).path)
        faults.asked.append((self.command, path, self.headers.get("Authorization")))
        time.sleep(faults.delay)
        if not path.startswith("/large/"):
            self._hub(path)
        elif self.headers.get("Authorization"):
            self._send(400)
        else:
            time.sleep(faults.slow)
            _, _, commit, name = path.split("/", 3)
            self._file(self.server.tree(commit), name)

    do_GET = do_HEAD = _answer

    def _hub(self, path: str) -> None:
        parts = path.removeprefix("/").removeprefix("api/").split("/")
        parts = parts[1:] if parts[0] in ("datasets", "models") else parts
        repository, (what, *rest) = "/".join(parts[:2]), parts[2:] or [""]
        if self.server.faults.limited:
            self.server.faults.limited -= 1
            return self._send(429, headers={"Retry-After": "7"})
        refusal = self.server.faults.refused.get(repository) or self._let_in()
        tree = self.server.tree(rest[0] if rest else "main")
        if refusal:
            self._send(refusal[0], headers={"X-Error-Code": refusal[1]})
        elif what == "auth-check":
            self._send(200)
        elif tree is None:
            self._send(404, headers={"X-Error-Code": "RevisionNotFound"})
        elif what == "resolve":
            self._resolve(tree, "/".join(rest[1:]))
        elif what == "tree":
            self._json([tree.row(path) for path in tree.files])
        else:
            self._json({"id": repository, "sha": tree.commit, "siblings": [], "private": False, "tags": []})

    def _let_in(self) -> tuple[int, str] | None:
        token, given = self.server.faults.token, self.headers.get("Authorization")
        if token is None or given == f"Bearer {token}":
            return None
        return (401, "GatedRepo") if given is None else (403, "GatedRepo")

    def _resolve(self, tree: Tree, name: str) -> None:
        if self.server.faults.busy:
            self._send(self.server.faults.busy)
        elif not name.endswith(LARGE):
            self._file(tree, name)
        else:
            headers = {
                "Location": f"http://localhost:{self.server.server_port}/large/{tree.commit}/{name}",
                "X-Linked-Etag": f'"{tree.row(name)["lfs"]["oid"]}"',
                "X-Linked-Size": str(len(tree.files[name])),
                "X-Repo-Commit": tree.commit,
            }
            self._send(302, headers=headers)

    def _file(self, tree: Tree, name: str) -> None:
        content = tree.files[name]
        headers = {"ETag": f'"{blob(content)}"', "X-Repo-Commit": tree.commit}
        if name in self.server.faults.altered:
            content = content[:-1] + bytes([content[-1] ^ 1])
        self._send(200, content, headers)

    def _json(self, value) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextlib.contextmanager
def serve(tree: Path | Mapping[str, Path], faults: Faults | None = None) -> Iterator[str]:
    """Serve a folder as the repositories of a hub, and send the hub's client there, which waits for nothing.

    Parameters
    ----------
    tree
        The folder, or one for each branch.
    """
    folders = tree if isinstance(tree, Mapping) else {"main": tree}
    server = _Server(("127.0.0.1", 0), _Handler)
    server.trees = {branch: Tree(Path(folder)) for branch, folder in folders.items()}
    server.faults = faults or Faults()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    with pytest.MonkeyPatch.context() as patch:
        send_client_to(patch, url)
        patch.setattr(_http, "time", SimpleNamespace(sleep=lambda seconds: None))
        try:
            yield url
        finally:
            server.shutdown()
            server.server_close()


def send_client_to(patch: pytest.MonkeyPatch, url: str) -> None:
    """What HF_ENDPOINT does, which the client reads once."""
    patch.setattr(constants, "ENDPOINT", url)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
