"""A stand-in for the Hugging Face hub: what its client asks for, from a folder, and every way in which it can fail.

    with hub_server.serve(tree, faults) as url: ...

All repositories hold the same tree. Large files lie, as on the hub, on another host than the interface: "localhost"
instead of 127.0.0.1, which answers 400 where the token comes along, as a signed address does.
"""

import contextlib
import hashlib
import http.server
import json
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = (".h5ad", ".h5", ".tif", ".safetensors", ".bin")  # kept outside git, known by SHA-256
PIECE = 4096  # bytes sent at a time


@dataclass
class Faults:
    """What goes wrong; a test may change it while the server runs. Paths are those in the repository.

    Attributes
    ----------
    delay
        Seconds before each answer.
    pause
        Seconds between two pieces of a file.
    cut
        The connection breaks after so many bytes of an answer, by path.
    cuts
        So many times; then files come whole.
    short
        Files that end after so many bytes, in an answer that says it is whole.
    altered
        Files of which one byte differs.
    busy
        Statuses of the next answers, in turn.
    no_ranges
        Answers begin with the file's first byte whatever is asked for.
    token
        The only one that is let in, if any is needed.
    refused
        Status and error code, by repository.
    asked
        Every request: method, path, Range, Authorization.
    """

    delay: float = 0.0
    pause: float = 0.0
    cut: dict[str, int] = field(default_factory=dict)
    cuts: int = 10**9
    short: dict[str, int] = field(default_factory=dict)
    altered: set[str] = field(default_factory=set)
    busy: list[int] = field(default_factory=list)
    no_ranges: bool = False
    token: str | None = None
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)
    asked: list[tuple[str, str, str | None, str | None]] = field(default_factory=list)

    def fetched(self, end: str = "") -> list[str]:
        """Paths of files that were asked for with GET and end so."""
        found = [path for method, path, *_ in self.asked if method == "GET" and "/resolve/" in path]
        return [path.partition("/resolve/")[2].partition("/")[2] for path in found if path.endswith(end)]


class Tree:
    """One commit: a folder's files with sizes and hashes."""

    def __init__(self, folder: Path) -> None:
        self.files = {
            str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
        }

    @cached_property
    def commit(self) -> str:
        """40 hex digits that follow from the content."""
        text = "".join(f"{path} {hashlib.sha256(content).hexdigest()}\n" for path, content in self.files.items())
        return hashlib.sha1(text.encode()).hexdigest()

    def row(self, path: str) -> dict:
        """A file as the interface lists it."""
        content = self.files[path]
        row = {"type": "file", "path": path, "size": len(content)}
        if path.endswith(LARGE):
            sha = hashlib.sha256(content).hexdigest()
            pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha}\nsize {len(content)}\n".encode()
            lfs = {"oid": sha, "size": len(content), "pointerSize": len(pointer)}
            return {**row, "oid": blob(pointer), "lfs": lfs}
        return {**row, "oid": blob(content)}

    def rows(self, folder: str, recursive: bool) -> list[dict]:
        """What lies in a folder."""
        prefix, rows = f"{folder}/" if folder else "", {}
        for path in self.files:
            if path.startswith(prefix):
                first, slash, _ = path.removeprefix(prefix).partition("/")
                if slash and not recursive:
                    rows[first] = {"type": "directory", "path": prefix + first, "oid": "0" * 40, "size": 0}
                else:
                    rows[path] = self.row(path)
        return list(rows.values())


def blob(content: bytes) -> str:
    """Git's name of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    trees: dict[str, Tree]
    faults: Faults

    def tree(self, revision: str) -> Tree | None:
        by_commit = {tree.commit: tree for tree in self.trees.values()}
        return self.trees.get(revision) or by_commit.get(revision)

    def handle_error(self, request, client_address) -> None:
        """A client that went away is no news."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *args) -> None:
        pass

    def _answer(self) -> None:
        faults, path = self.server.faults, unquote(urlsplit(self.path).path)
        length = int(self.headers.get("Content-Length") or 0)
        form = parse_qs(self.rfile.read(length).decode()) if length else {}
        faults.asked.append((self.command, path, self.headers.get("Range"), self.headers.get("Authorization")))
        time.sleep(faults.delay)
        if faults.busy:
            self._send(faults.busy.pop(0))
        elif path.startswith("/large/"):
            if self.headers.get("Authorization"):
                self._send(400)
            else:
                _, _, commit, name = path.split("/", 3)
                self._file(self.server.tree(commit), name)
        else:
            self._hub(path, form)

    do_GET = do_HEAD = do_POST = _answer

    def _hub(self, path: str, form: Mapping[str, list[str]]) -> None:
        parts = path.removeprefix("/").removeprefix("api/").split("/")
        parts = parts[1:] if parts[0] in ("datasets", "models") else parts
        repository, (what, *rest) = "/".join(parts[:2]), parts[2:] or [""]
        refusal = self.server.faults.refused.get(repository) or self._let_in()
        if refusal:
            self._send(refusal[0], headers={"X-Error-Code": refusal[1]})
            return
        tree = self.server.tree(rest[0] if rest else "main")
        if what == "auth-check":
            self._send(200)
        elif tree is None:
            self._send(404, headers={"X-Error-Code": "RevisionNotFound"})
        elif what == "resolve":
            self._resolve(tree, "/".join(rest[1:]))
        elif what == "tree":
            recursive = "recursive=True" in self.path or "recursive=true" in self.path
            self._json(tree.rows("/".join(rest[1:]), recursive))
        elif what == "paths-info":
            self._json([tree.row(name) for name in form.get("paths", []) if name in tree.files])
        else:
            names = [{"rfilename": name} for name in tree.files]
            self._json({"id": repository, "sha": tree.commit, "siblings": names, "private": False, "tags": []})

    def _let_in(self) -> tuple[int, str] | None:
        token, given = self.server.faults.token, self.headers.get("Authorization")
        if token is None or given == f"Bearer {token}":
            return None
        return (401, "GatedRepo") if given is None else (403, "GatedRepo")

    def _resolve(self, tree: Tree, name: str) -> None:
        if name not in tree.files:
            self._send(404, headers={"X-Error-Code": "EntryNotFound", "X-Repo-Commit": tree.commit})
            return
        if not name.endswith(LARGE):
            self._file(tree, name)
            return
        sha, size = tree.row(name)["lfs"]["oid"], len(tree.files[name])
        headers = {
            "Location": f"http://localhost:{self.server.server_port}/large/{tree.commit}/{name}",
            "X-Linked-Etag": f'"{sha}"',
            "X-Linked-Size": str(size),
            "X-Repo-Commit": tree.commit,
        }
        self._send(302, headers=headers)

    def _file(self, tree: Tree, name: str) -> None:
        faults, content = self.server.faults, tree.files[name]
        if name in faults.altered:
            content = content[:-1] + bytes([content[-1] ^ 1])
        content = content[: faults.short.get(name, len(content))]
        start, wanted = 0, self.headers.get("Range")
        if wanted and not faults.no_ranges:
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
            if start > len(content) or (start == len(content) and content):
                self._send(416 if name not in faults.short else 206)
                return
        headers = {"ETag": f'"{blob(content)}"', "X-Repo-Commit": tree.commit}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._send(206 if start else 200, content[start:], headers, name)

    def _json(self, value) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(
        self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None, name: str | None = None
    ) -> None:
        faults = self.server.faults
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if name in faults.cut and faults.cuts > 0 and len(body) > faults.cut[name]:
            faults.cuts -= 1
            body, self.close_connection = body[: faults.cut[name]], True
        for begin in range(0, len(body), PIECE):
            self.wfile.write(body[begin : begin + PIECE])
            if name:
                time.sleep(faults.pause)


@contextlib.contextmanager
def serve(tree: Path | Mapping[str, Path], faults: Faults | None = None) -> Iterator[str]:
    """Serve a folder as the repositories of a hub.

    Parameters
    ----------
    tree
        The folder, or one for each branch.

    Returns
    -------
    The hub's address, as HF_ENDPOINT takes it.
    """
    folders = tree if isinstance(tree, Mapping) else {"main": tree}
    server = _Server(("127.0.0.1", 0), _Handler)
    server.trees = {branch: Tree(Path(folder)) for branch, folder in folders.items()}
    server.faults = faults or Faults()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
