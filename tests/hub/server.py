"""A small hub: the part of the Hugging Face hub's protocol that loading and uploading models needs, on loopback.

It knows one user, `user`, with the token `TOKEN`, who writes to every repository. Other tokens are invalid; without a
token only public repositories are there.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from tests.hub.repositories import RefusalError, Repository, git_oid, is_large

TOKEN = "hf_local"
USER = "user"
_ID = r"(?P<name>[\w.-]+/[\w.-]+)"


@dataclass
class Hub:
    """What the hub holds, and what was asked of it.

    Attributes:
        large: Contents of LFS files, by hash.
        requests: Method, path and token of each request.
        cut_off: Paths of files of which only a part is sent before the connection closes.
    """

    repositories: dict[str, Repository] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    cut_off: set[str] = field(default_factory=set)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def storage_url(self) -> str:
        """Where large files are; another host for clients, which do not send their token there."""
        return f"http://localhost:{self.port}/lfs"

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        """Files of a repository."""
        return self.repositories[name].at(revision).files

    def repository(self, name: str, token: str | None, *, to_write: bool = False) -> Repository:
        """A repository, if whoever asks may see it."""
        if token is not None and token != TOKEN:
            raise RefusalError(401, message="Invalid credentials in Authorization header")
        if to_write and token is None:
            raise RefusalError(401, message="Invalid username or password.")
        found = self.repositories.get(name)
        if found is None or (found.private and token is None):
            raise RefusalError(404 if token else 401, "RepoNotFound", "Repository not found")
        return found


@dataclass
class Request:
    """One request, as routes take it."""

    hub: Hub
    token: str | None
    query: dict[str, list[str]]
    body: bytes
    head: bool
    range_start: int

    @property
    def json(self) -> Any:
        return json.loads(self.body or b"{}")


@dataclass
class Answer:
    """Status, headers and content of an answer; `sent` cuts the content off."""

    content: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    sent: int | None = None


Route = Callable[..., Any]
_routes: list[tuple[str, re.Pattern[str], Route]] = []


def route(method: str, pattern: str) -> Callable[[Route], Route]:
    """Register what answers a path; its groups become keywords."""

    def register(function: Route) -> Route:
        _routes.append((method, re.compile(pattern), function))
        return function

    return register


# -- reading -----------------------------------------------------------------------------------------------------------


@route("GET", "/api/whoami-v2")
def who_am_i(request: Request) -> Any:
    if request.token != TOKEN:
        raise RefusalError(401, message="Invalid credentials in Authorization header")
    return {"type": "user", "name": USER, "orgs": [], "auth": {"type": "access_token"}}


@route("GET", rf"/api/models/{_ID}(/revision/(?P<revision>[^/]+))?")
def information(request: Request, name: str, revision: str | None) -> Any:
    repository = request.hub.repository(name, request.token)
    commit = repository.at(unquote(revision or "main"))
    siblings = [{"rfilename": path} for path in sorted(commit.files)]
    gated = "auto" if repository.gated else False
    values = {"id": name, "modelId": name, "sha": commit.sha, "private": repository.private, "gated": gated}
    return {**values, "siblings": siblings, "tags": [], "downloads": 0, "likes": 0}


@route("GET", rf"/api/models/{_ID}/refs")
def references(request: Request, name: str) -> Any:
    repository = request.hub.repository(name, request.token)
    found: dict[str, list[Any]] = {"branches": [], "tags": [], "converts": [], "pullRequests": []}
    for ref, sha in repository.refs.items():
        kind = "pullRequests" if ref in repository.pull_requests else "tags" if ref in repository.tags else "branches"
        whole = ref if kind == "pullRequests" else f"refs/{'tags' if kind == 'tags' else 'heads'}/{ref}"
        found[kind].append({"name": ref, "ref": whole, "targetCommit": sha})
    return found


@route("GET", rf"/api/models/{_ID}/tree/(?P<revision>[^/]+)(?P<folder>/.+)?")
def tree(request: Request, name: str, revision: str, folder: str | None) -> Any:
    files = request.hub.repository(name, request.token).at(unquote(revision)).files
    prefix = f"{unquote(folder or '')[1:]}/" if folder else ""
    found = [_entry(path, content) for path, content in sorted(files.items()) if path.startswith(prefix)]
    if not found:
        raise RefusalError(404, "EntryNotFound", f"{folder} does not exist")
    return found


def _entry(path: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": git_oid(content)}
    if is_large(path, len(content)):
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return entry


@route("GET", rf"/{_ID}/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
def resolve(request: Request, name: str, revision: str, path: str) -> Answer:
    repository = request.hub.repository(name, request.token)
    if repository.gated:
        raise RefusalError(403 if request.token else 401, "GatedRepo", f"Access to model {name} is restricted")
    commit = repository.at(unquote(revision))
    content = commit.files.get(path := unquote(path))
    headers = {"X-Repo-Commit": commit.sha}
    if content is None:
        raise RefusalError(404, "EntryNotFound", "Entry not found") if not request.head else _absent(commit.sha)
    if not is_large(path, len(content)):
        return _part(request, path, content, {**headers, "ETag": f'"{git_oid(content)}"'})
    sha = hashlib.sha256(content).hexdigest()
    request.hub.large[sha] = content
    linked = {"X-Linked-Etag": f'"{sha}"', "X-Linked-Size": str(len(content))}
    place = f"{request.hub.storage_url}/{sha}?path={path}"
    return Answer(status=302, headers={**headers, **linked, "Location": place})


def _absent(sha: str) -> RefusalError:
    refusal = RefusalError(404, "EntryNotFound", "Entry not found")
    refusal.headers = {"X-Repo-Commit": sha}  # type: ignore[attr-defined]
    return refusal


@route("GET", "/lfs/(?P<oid>[0-9a-f]{64})")
def large_file(request: Request, oid: str) -> Answer:
    return _part(request, request.query["path"][0], request.hub.large[oid], {"ETag": f'"{oid}"'})


def _part(request: Request, path: str, content: bytes, headers: dict[str, str]) -> Answer:
    start = request.range_start
    sent = len(content) // 2 - start if path in request.hub.cut_off else None
    return Answer(content[start:], 206 if start else 200, headers, None if sent is None else max(sent, 0))


# -- writing -----------------------------------------------------------------------------------------------------------


@route("POST", "/api/repos/create")
def create(request: Request) -> Any:
    values = request.json
    name = f"{values.get('organization') or USER}/{values['name']}"
    answer = {"url": f"{request.hub.url}/{name}", "name": name}
    if request.token != TOKEN:
        raise RefusalError(401, message="Invalid username or password.")
    if name in request.hub.repositories:
        return Answer(json.dumps(answer).encode(), 409)
    request.hub.repositories[name] = Repository(private=values.get("visibility") == "private")
    return answer


@route("POST", rf"/api/models/{_ID}/(?P<kind>branch|tag)/(?P<revision>[^/]+)")
def create_reference(request: Request, name: str, kind: str, revision: str) -> Any:
    repository = request.hub.repository(name, request.token, to_write=True)
    created = request.json.get("tag") or unquote(revision)
    if created in repository.refs:
        raise RefusalError(409, message="Reference already exists")
    start = unquote(revision) if kind == "tag" else request.json.get("startingPoint", "main")
    repository.refs[created] = repository.at(start).sha
    repository.tags |= {created} if kind == "tag" else set()
    return {}


@route("POST", "/api/validate-yaml")
def validate_yaml(request: Request) -> Any:
    text = request.json["content"]
    metadata = text.split("---")[1] if text.startswith("---") else ""
    try:
        values = yaml.safe_load(metadata) or {}
    except yaml.YAMLError as error:
        return Answer(json.dumps({"errors": [{"message": str(error)}], "warnings": []}).encode(), 400)
    empty = [] if values else [{"message": "empty or missing yaml metadata in repo card"}]
    return {"errors": [], "warnings": empty}


@route("POST", rf"/api/models/{_ID}/preupload/(?P<revision>[^/]+)")
def before_upload(request: Request, name: str, revision: str) -> Any:
    files = request.hub.repository(name, request.token, to_write=True).at(unquote(revision)).files
    answers = []
    for file in request.json["files"]:
        large, there = is_large(file["path"], file["size"]), files.get(file["path"])
        oid = None if there is None else hashlib.sha256(there).hexdigest() if large else git_oid(there)
        mode = "lfs" if large else "regular"
        answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    return {"files": answers}


@route("POST", rf"/{_ID}\.git/info/lfs/objects/batch")
def batch(request: Request, name: str) -> Any:
    request.hub.repository(name, request.token, to_write=True)
    objects = []
    for wanted in request.json["objects"]:
        found = {"oid": wanted["oid"], "size": wanted["size"]}
        if wanted["oid"] not in request.hub.large:
            found["actions"] = {"upload": {"href": f"{request.hub.storage_url}/{wanted['oid']}"}}
        objects.append(found)
    return {"transfer": "basic", "objects": objects}


@route("PUT", "/lfs/(?P<oid>[0-9a-f]{64})")
def put_large(request: Request, oid: str) -> Any:
    if hashlib.sha256(request.body).hexdigest() != oid:
        raise RefusalError(400, message="the content has another hash")
    request.hub.large[oid] = request.body
    return {}


@route("POST", rf"/api/models/{_ID}/commit/(?P<revision>[^/]+)")
def commit(request: Request, name: str, revision: str) -> Any:
    repository = request.hub.repository(name, request.token, to_write=True)
    lines = [json.loads(line) for line in request.body.splitlines() if line.strip()]
    pull = "create_pr" in request.query
    ref = repository.commit(unquote(revision), lines, request.hub.large, pull)
    sha, number = repository.at(ref).sha, ref.rpartition("/")[2]
    address = f"{request.hub.url}/{name}/discussions/{number}" if pull else None
    return {"commitUrl": f"{request.hub.url}/{name}/commit/{sha}", "commitOid": sha, "pullRequestUrl": address}


# -- HTTP --------------------------------------------------------------------------------------------------------------


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        split = urlsplit(self.path)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ") or None
        self.hub.requests.append((self.command, split.path, token))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        start = re.match(r"bytes=(\d+)", self.headers.get("Range") or "")
        head = self.command == "HEAD"
        query = parse_qs(split.query, keep_blank_values=True)
        request = Request(self.hub, token, query, body, head, int(start[1]) if start else 0)
        try:
            answer = _dispatch("GET" if head else self.command, split.path, request)
        except RefusalError as refusal:
            codes = {"X-Error-Code": refusal.code} if refusal.code else {}
            headers = {**codes, "X-Error-Message": refusal.message, **getattr(refusal, "headers", {})}
            answer = Answer(json.dumps({"error": refusal.message}).encode(), refusal.status, headers)
        self._send(answer, head)

    do_GET = do_HEAD = do_POST = do_PUT = _answer  # noqa: N815

    def _send(self, answer: Answer, head: bool) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        if not head:
            self.wfile.write(answer.content[: answer.sent])
            self.close_connection = self.close_connection or answer.sent is not None


def _dispatch(method: str, path: str, request: Request) -> Answer:
    for known, pattern, function in _routes:
        if known == method and (match := pattern.fullmatch(path)):
            found = function(request, **match.groupdict())
            return found if isinstance(found, Answer) else Answer(json.dumps(found).encode())
    raise RefusalError(404, message=f"no route for {method} {path}")


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub that answers on a free port of this machine."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
