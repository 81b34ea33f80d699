"""A hub on 127.0.0.1: as much of its HTTP interface as pushing and pulling need, with large files by LFS."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

WRITER, READER = "hf_writer", "hf_reader"
LFS = (".safetensors",)


@dataclass
class Repository:
    """private: Whether a token is asked for.  gated: Whether no token is enough.
    commits: Files by name, by commit, in order.
    """

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes]) -> str:
        name = hashlib.sha1(f"{len(self.commits)}{sorted(files)}".encode()).hexdigest()
        self.commits[name] = files
        return name

    @property
    def main(self) -> str:
        return list(self.commits)[-1]

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[self.main]


class Hub(ThreadingHTTPServer):
    """repositories: By name.  blobs: Uploaded by LFS, by SHA-256.  asked: Every request: method, path and token.
    broken: A status to answer everything with.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repositories: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.asked: list[tuple[str, str, str | None]] = []
        self.broken: int | None = None


class Refused(Exception):
    """status (int), and the hub's own code for what is wrong."""


ID = r"(?P<repo>[\w.-]+/[\w.-]+)"
ROUTES = {
    r"POST /api/repos/create": "create",
    r"POST /api/validate-yaml": "validate",
    rf"GET /api/models/{ID}": "info",
    rf"GET /api/models/{ID}/revision/(?P<revision>[^/]+)": "info",
    rf"GET /api/models/{ID}/tree/(?P<revision>[^/]+)": "tree",
    rf"POST /api/models/{ID}/preupload/main": "preupload",
    rf"POST /api/models/{ID}/commit/main": "commit",
    rf"POST /{ID}.git/info/lfs/objects/batch": "lfs",
    r"PUT /lfs/(?P<oid>\w+)": "upload",
    rf"(?:GET|HEAD) /{ID}/resolve/(?P<revision>[^/]+)/(?P<name>.+)": "resolve",
}


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        request = f"{self.command} {unquote(urlsplit(self.path).path)}"
        self.server.asked.append((*request.split(" ", 1), self.token))
        try:
            if self.server.broken:
                raise Refused(self.server.broken, "")
            for pattern, name in ROUTES.items():
                if found := re.fullmatch(pattern, request):
                    return getattr(self, name)(**found.groupdict())
            raise Refused(404, "")
        except Refused as error:
            status, code = error.args
            self.reply({"error": code}, status, **{"X-Error-Code": code})

    do_GET = do_HEAD = do_POST = do_PUT = answer

    def reply(self, content: Any = None, status: int = 200, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def repository(self, repo: str, write: bool = False) -> Repository:
        """Raises Refused as the hub does: what one may not see is not there."""
        found = self.server.repositories.get(repo)
        if found is None or (found.private and self.token not in (WRITER, READER)):
            raise Refused(401 if self.token is None else 404, "RepoNotFound")
        if found.gated:
            raise Refused(403, "GatedRepo")
        if write:
            self.require_writer()
        return found

    def require_writer(self) -> None:
        if self.token != WRITER:
            raise Refused(403 if self.token == READER else 401, "")

    def create(self) -> None:
        self.require_writer()
        asked = json.loads(self.body)
        repo = f"{asked['organization'] or 'me'}/{asked['name']}"
        if repo in self.server.repositories:
            return self.reply({"url": f"{self.server.url}/{repo}"}, 409)
        private = asked.get("private") or asked.get("visibility") == "private"
        self.server.repositories[repo] = new = Repository(private)
        new.commit({".gitattributes": b"*.safetensors filter=lfs"})
        self.reply({"url": f"{self.server.url}/{repo}"})

    def validate(self) -> None:
        card = json.loads(self.body)["content"]
        if re.search(r"^license: proprietary", card, re.M):
            return self.reply({"errors": [{"message": "license"}]}, 400)
        self.reply({"errors": [], "warnings": []})

    def commit_of(self, repository: Repository, revision: str) -> str:
        if revision != "main" and revision not in repository.commits:
            raise Refused(404, "RevisionNotFound")
        return repository.main if revision == "main" else revision

    def info(self, repo: str, revision: str = "main") -> None:
        found = self.repository(repo)
        sha = self.commit_of(found, revision)
        siblings = [{"rfilename": name} for name in found.commits[sha]]
        self.reply({"id": repo, "modelId": repo, "sha": sha, "private": found.private, "siblings": siblings})

    def tree(self, repo: str, revision: str) -> None:
        found = self.repository(repo)
        files = found.commits[self.commit_of(found, revision)]
        self.reply([self.entry(name, data) for name, data in files.items()])

    def entry(self, name: str, data: bytes) -> dict[str, Any]:
        entry = {"type": "file", "path": name, "size": len(data), "oid": git_hash(data)}
        if name.endswith(LFS):
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
        return entry

    def preupload(self, repo: str) -> None:
        self.repository(repo, write=True)
        names = [file["path"] for file in json.loads(self.body)["files"]]
        modes = {name: "lfs" if name.endswith(LFS) else "regular" for name in names}
        self.reply({"files": [{"path": n, "uploadMode": mode, "shouldIgnore": False} for n, mode in modes.items()]})

    def lfs(self, repo: str) -> None:
        self.repository(repo, write=True)
        objects = json.loads(self.body)["objects"]
        actions = [{"upload": {"href": f"{self.server.url}/lfs/{asked['oid']}"}} for asked in objects]
        found = [{**asked, "actions": action} for asked, action in zip(objects, actions, strict=True)]
        self.reply({"transfer": "basic", "objects": found})

    def upload(self, oid: str) -> None:
        assert hashlib.sha256(self.body).hexdigest() == oid
        self.server.blobs[oid] = self.body
        self.reply()

    def commit(self, repo: str) -> None:
        found = self.repository(repo, write=True)
        files = dict(found.files)
        for line in self.body.splitlines():
            operation = json.loads(line)
            key, value = operation["key"], operation["value"]
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = self.server.blobs[value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
        name = found.commit(files)
        self.reply({"commitOid": name, "commitUrl": f"{self.server.url}/{repo}/commit/{name}", "success": True})

    def resolve(self, repo: str, revision: str, name: str) -> None:
        found = self.repository(repo)
        commit = self.commit_of(found, revision)
        if name not in found.commits[commit]:
            raise Refused(404, "EntryNotFound")
        data = found.commits[commit][name]
        etag = hashlib.sha256(data).hexdigest() if name.endswith(LFS) else git_hash(data)
        self.reply(data, **{"ETag": f'"{etag}"', "X-Repo-Commit": commit})


def git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
