# Copyright 2026 The modeling_pixelvit team. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
A small local server that speaks as much of the hub's API as `huggingface_hub` uses to publish and to load models.

Repositories with branches and commits, files as git blobs or in large file storage (whole or in parts), downloads. It
counts what it receives, and does what a network does when told to: answers with a status, breaks a connection before,
within or after a request, or waits. Everything is in memory.
"""

import base64
import contextlib
import hashlib
import io
import json
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


TOKEN, USER = "hf_local_test", "tester"
# As the hub's .gitattributes has it: these go to large file storage, and whatever is larger than this.
LFS_SUFFIXES = (".safetensors", ".bin", ".pth", ".png")
LFS_FROM_BYTES = 10 * 2**20
CHUNK = 1 << 14


@dataclass
class Fault:
    """
    What goes wrong with requests to a path.

    Args:
        method: Of the requests.
        path: A regular expression that is found in their path.
        status: To answer with; None: the connection breaks.
        when: A broken connection: "before" anything is read, "within" the body, or "after" all was done as asked.
        action: Called instead of all that, before the request is answered as usual.
        times: So many requests; the later ones are as usual.
        skip: So many requests before them are as usual.
        headers: Of the answer.
        message: In the answer's X-Error-Message.
    """

    method: str
    path: str
    status: int | None = None
    when: str = "before"
    times: float = 1
    skip: int = 0
    headers: dict = field(default_factory=dict)
    message: str = "as the test wants it"
    action: Callable[[], None] | None = None


@dataclass
class Commit:
    """Files by name: a blob's bytes, or the SHA-256 of an object in large file storage."""

    oid: str
    parent: str | None
    title: str
    files: dict[str, bytes | str]


@dataclass
class Repository:
    private: bool
    kind: str = "model"
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def add(self, branch: str, title: str, files: dict[str, bytes | str]) -> Commit:
        parent = self.branches.get(branch)
        oid = hashlib.sha1(f"{parent} {title} {len(self.commits)} {sorted(files)}".encode()).hexdigest()
        self.commits[oid] = Commit(oid, parent, title, files)
        self.branches[branch] = oid
        return self.commits[oid]


class Hub:
    """
    The server's state, which tests look into, and change while it runs.

    Args:
        part_bytes: Objects of more bytes are sent in parts of so many.
    """

    def __init__(self, part_bytes: int = 10**12):
        self.part_bytes = part_bytes
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.blocks: dict[str, list[bytes]] = {}  # of Xet, each a list of chunks
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        self.bytes_received: Counter[str] = Counter()  # by object
        self.role, self.organizations = "write", []
        self.moved: dict[str, str] = {}
        self.held_path = ""
        self.hold = threading.Event()  # set: PUT requests to that path go on
        self.hold.set()
        self.held = threading.Event()  # set by such a request that waits
        self.lock = threading.RLock()
        self.page_size = 1000
        self.transfer = "basic"  # what clients are told to use that ask; newer ones do not
        self.url = ""

    def head(self, repo_id: str, branch: str = "main") -> Commit:
        repository = self.repositories[repo_id]
        return repository.commits[repository.branches[branch]]

    def commits(self, repo_id: str) -> list[Commit]:
        """Without the first one, which the hub makes."""
        return list(self.repositories[repo_id].commits.values())[1:]

    def files(self, repo_id: str, branch: str = "main") -> dict[str, bytes]:
        """A branch's files, but for the hub's own."""
        files = self.head(repo_id, branch).files
        return {name: self.content(value) for name, value in files.items() if name != ".gitattributes"}

    def content(self, value: bytes | str) -> bytes:
        return value if isinstance(value, bytes) else self.objects[value]

    def make(self, repo_id: str, private: bool = False, kind: str = "model") -> Repository:
        repository = self.repositories[repo_id] = Repository(private, kind)
        repository.add("main", "initial commit", {".gitattributes": b"*.safetensors filter=lfs\n"})
        return repository

    def fault_for(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.method == method and re.search(fault.path, path) and fault.times > 0:
                    if fault.skip > 0:
                        fault.skip -= 1
                        continue
                    fault.times -= 1
                    return fault
        return None


class ApiError(Exception):
    def __init__(self, status: int, message: str, code: str | None = None):
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


class Handler(BaseHTTPRequestHandler):
    """Answers one request; `hub` is set by `serve`."""

    hub: Hub
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer is one packet: between two the client's delayed acknowledgement would cost 40 ms
    disable_nagle_algorithm = True

    def log_message(self, *arguments):
        pass

    def handle_one_request(self):
        with contextlib.suppress(ConnectionError):
            super().handle_one_request()

    def do_GET(self):
        self.answer_request("GET")

    def do_HEAD(self):
        self.answer_request("HEAD")

    def do_POST(self):
        self.answer_request("POST")

    def do_PUT(self):
        self.answer_request("PUT")

    def answer_request(self, method: str):
        address = urlsplit(self.path)
        path, self.query = address.path, parse_qs(address.query)
        with self.hub.lock:
            self.hub.requests.append((method, path))
        fault = self.hub.fault_for(method, path)
        if fault and fault.action is not None:
            fault = fault.action()
        if fault and fault.status is None and fault.when == "before":
            return self.break_connection()
        if fault and fault.status is None and fault.when == "within":
            self.rfile.read(int(self.headers.get("Content-Length", 0)) // 2)
            return self.break_connection()
        self.body = self.read_body(method, path)
        try:
            if fault and fault.status is not None:
                raise ApiError(fault.status, fault.message)
            status, content, headers = self.route(method, path)
        except ApiError as error:
            headers = {"X-Error-Message": error.message, **(fault.headers if fault else {})}
            if error.code:
                headers["X-Error-Code"] = error.code
            status, content = error.status, {"error": error.message}
        if fault and fault.status is None:
            return self.break_connection()
        self.send(method, status, content, headers)

    def read_body(self, method: str, path: str) -> bytes:
        """The body, read bit by bit and counted, so that what a broken upload has sent is known."""
        left, parts = int(self.headers.get("Content-Length") or 0), []
        name = re.fullmatch(r"/lfs/(\w{64})(?:/part/\d+)?", path)
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            return b"".join(self.chunks())
        while left > 0:
            if method == "PUT" and path == self.hub.held_path and not self.hub.hold.is_set():
                self.hub.held.set()
                self.hub.hold.wait()
            part = self.rfile.read(min(CHUNK, left))
            if not part:
                raise ConnectionResetError
            left -= len(part)
            parts.append(part)
            if method == "PUT" and name:
                with self.hub.lock:
                    self.hub.bytes_received[name[1]] += len(part)
        return b"".join(parts)

    def chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().strip() or b"0", 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def break_connection(self):
        """Without a proper end, as when a cable is pulled."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.wfile = io.BytesIO()  # which takes what is flushed when the request ends

    def send(self, method: str, status: int, content, headers: dict):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if method != "HEAD":
            self.wfile.write(body)

    def route(self, method: str, path: str):
        for wanted, pattern, answer in ROUTES:
            found = re.fullmatch(pattern, path)
            if found and method in wanted:
                if (
                    answer is not Handler.validate_yaml
                    and not path.startswith(("/lfs/", "/xet/"))
                    and "resolve" not in path
                ):
                    self.check_token()
                names = {name: unquote(value) for name, value in found.groupdict().items() if value is not None}
                result = answer(self, **names)
                return result if isinstance(result, tuple) else (200, result, {})
        raise ApiError(404, f"there is no {method} {path}")

    def check_token(self):
        given = self.headers.get("Authorization")
        if given != f"Bearer {TOKEN}":
            raise ApiError(401, "Invalid credentials in Authorization header")

    # Accounts and repositories

    def whoami(self):
        return {
            "type": "user",
            "name": USER,
            "orgs": [{"name": name} for name in self.hub.organizations],
            "auth": {"type": "access_token", "accessToken": {"displayName": "test", "role": self.hub.role}},
        }

    def create(self):
        wanted = json.loads(self.body)
        repo_id = f"{wanted.get('organization') or USER}/{wanted['name']}"
        if repo_id in self.hub.repositories:
            raise ApiError(409, "You already created this model repo")
        is_private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
        self.hub.make(repo_id, is_private, wanted.get("type", "model"))
        return {"url": f"{self.hub.url}/{repo_id}", "name": repo_id}

    def validate_yaml(self):
        return {"errors": [], "warnings": []}

    def repository(self, repo_id: str) -> Repository:
        repository = self.hub.repositories.get(repo_id)
        if repository is None or (self.path.startswith("/api/") and f"/api/{repository.kind}s/" not in self.path):
            raise ApiError(404, "Repository not found", "RepoNotFound")
        return repository

    def commit_of(self, repo_id: str, revision: str) -> Commit:
        repository = self.repository(repo_id)
        oid = repository.branches.get(revision, revision)
        if oid not in repository.commits:
            raise ApiError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return repository.commits[oid]

    def info(self, repo_id: str, revision: str = "main"):
        repo_id = self.hub.moved.get(repo_id, repo_id)
        commit = self.commit_of(repo_id, revision)
        return {
            "id": repo_id,
            "modelId": repo_id,
            "sha": commit.oid,
            "private": self.repository(repo_id).private,
            "tags": [],
            "siblings": [{"rfilename": name} for name in commit.files],
        }

    def branch(self, repo_id: str, branch: str):
        repository = self.repository(repo_id)
        if branch in repository.branches:
            raise ApiError(409, "Reference already exists")
        repository.branches[branch] = repository.branches["main"]
        return {}

    def tree(self, repo_id: str, revision: str, folder: str = ""):
        commit = self.commit_of(repo_id, revision)
        start = int(self.query.get("cursor", ["0"])[0])
        entries = [self.entry(name, commit.files[name]) for name in sorted(commit.files) if self.lists(name, folder)]
        end = start + self.hub.page_size
        headers = {}
        if end < len(entries):
            address = f"{self.hub.url}/api/{self.repository(repo_id).kind}s/{repo_id}/tree/{revision}?cursor={end}"
            headers["Link"] = f'<{address}>; rel="next"'
        return 200, entries[start:end], headers

    def lists(self, name: str, folder: str) -> bool:
        recursive = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
        return name.startswith(folder) and (recursive or "/" not in name[len(folder) :].lstrip("/"))

    def entry(self, name: str, value: bytes | str) -> dict:
        content = self.hub.content(value)
        blob = content
        if isinstance(value, str):
            blob = f"version https://git-lfs.github.com/spec/v1\noid sha256:{value}\nsize {len(content)}\n".encode()
        oid = hashlib.sha1(b"blob %d\0" % len(blob) + blob).hexdigest()
        entry = {"type": "file", "oid": oid, "size": len(content), "path": name}
        if isinstance(value, str):
            entry["lfs"] = {"oid": value, "size": len(content), "pointerSize": len(blob)}
        return entry

    def paths_info(self, repo_id: str, revision: str):
        commit = self.commit_of(repo_id, revision)
        wanted = json.loads(self.body)["paths"]
        return [self.entry(name, commit.files[name]) for name in wanted if name in commit.files]

    # Uploads

    def preupload(self, repo_id: str, revision: str):
        commit = self.commit_of(repo_id, revision)
        files = []
        for file in json.loads(self.body)["files"]:
            large = file["path"].endswith(LFS_SUFFIXES) or file["size"] > LFS_FROM_BYTES
            known = commit.files.get(file["path"])
            oid = None if known is None else (known if isinstance(known, str) else self.entry("", known)["oid"])
            mode = "lfs" if large else "regular"
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return {"files": files}

    def batch(self, repo_id: str):
        self.repository(repo_id)
        request, objects = json.loads(self.body), []
        for wanted in request["objects"]:
            answer = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.hub.objects:
                answer["actions"] = self.actions(wanted["oid"], wanted["size"])
            objects.append(answer)
        transfer = self.hub.transfer if self.hub.transfer in request["transfers"] else "basic"
        return {"transfer": transfer, "objects": objects}

    def actions(self, oid: str, size: int) -> dict:
        place = f"{self.hub.url}/lfs/{oid}"
        verify = {"href": f"{self.hub.url}/lfs-verify"}
        if size <= self.hub.part_bytes:
            return {"upload": {"href": place}, "verify": verify}
        count = -(-size // self.hub.part_bytes)
        header = {str(index): f"{place}/part/{index}" for index in range(1, count + 1)}
        header["chunk_size"] = str(self.hub.part_bytes)
        return {"upload": {"href": f"{place}/complete", "header": header}, "verify": verify}

    def put(self, oid: str):
        self.store(oid, self.body)
        return b""

    def store(self, oid: str, content: bytes):
        if hashlib.sha256(content).hexdigest() != oid:
            raise ApiError(400, "the content is not that of its checksum")
        self.hub.objects[oid] = content

    def put_part(self, oid: str, index: str):
        self.hub.parts.setdefault(oid, {})[int(index)] = self.body
        return 200, b"", {"ETag": hashlib.md5(self.body).hexdigest()}

    def complete(self, oid: str):
        parts = self.hub.parts[oid]
        for part in json.loads(self.body)["parts"]:
            if hashlib.md5(parts[part["partNumber"]]).hexdigest() != part["etag"]:
                raise ApiError(400, "a part is not what was sent")
        whole = b"".join(parts[index] for index in sorted(parts))
        self.store(oid, whole)
        return {}

    def verify(self):
        wanted = json.loads(self.body)
        if len(self.hub.objects.get(wanted["oid"], b"")) != wanted["size"]:
            raise ApiError(404, "there is no such object")
        return {}

    def commit(self, repo_id: str, revision: str):
        lines = [json.loads(line) for line in self.body.splitlines()]
        with self.hub.lock:
            repository, parent = self.repository(repo_id), self.commit_of(repo_id, revision)
            header = lines[0]["value"]
            if header.get("parentCommit", parent.oid) != parent.oid:
                raise ApiError(412, "A commit has happened since. Please refresh and try again.")
            files = dict(parent.files)
            for line in lines[1:]:
                self.apply(line["key"], line["value"], files)
            commit = repository.add(revision, header["summary"], files)
        url = f"{self.hub.url}/{repo_id}/commit/{commit.oid}"
        return {"success": True, "commitOid": commit.oid, "commitUrl": url, "hookOutput": ""}

    def apply(self, key: str, value: dict, files: dict):
        if key == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif key == "lfsFile":
            if value["oid"] not in self.hub.objects:
                raise ApiError(400, f"{value['path']} was not uploaded")
            files[value["path"]] = value["oid"]
        elif key == "deletedFile":
            del files[value["path"]]
        else:
            raise ApiError(400, f"this server does not know {key}")

    # Downloads

    def resolve(self, repo_id: str, revision: str, name: str):
        commit = self.commit_of(repo_id, revision)
        if name not in commit.files:
            raise ApiError(404, "Entry not found", "EntryNotFound")
        value = commit.files[name]
        etag = value if isinstance(value, str) else self.entry(name, value)["oid"]
        headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        return 200, self.hub.content(value), headers


REPO = r"(?P<repo_id>[^/]+/[^/]+)"
API = rf"/api/(?:models|kernels)/{REPO}"
REVISION = r"(?P<revision>[^/]+)"
ROUTES = [
    (("GET",), r"/api/whoami-v2", Handler.whoami),
    (("POST",), r"/api/repos/create", Handler.create),
    (("POST",), r"/api/validate-yaml", Handler.validate_yaml),
    (("GET",), API, Handler.info),
    (("GET",), rf"{API}/revision/{REVISION}", Handler.info),
    (("GET",), rf"{API}/tree/{REVISION}(/(?P<folder>.*))?", Handler.tree),
    (("POST",), rf"{API}/paths-info/{REVISION}", Handler.paths_info),
    (("POST",), rf"{API}/preupload/{REVISION}", Handler.preupload),
    (("POST",), rf"{API}/commit/{REVISION}", Handler.commit),
    (("POST",), rf"{API}/branch/(?P<branch>[^/]+)", Handler.branch),
    (("POST",), rf"/{REPO}\.git/info/lfs/objects/batch", Handler.batch),
    (("PUT",), r"/lfs/(?P<oid>\w{64})", Handler.put),
    (("PUT",), r"/lfs/(?P<oid>\w{64})/part/(?P<index>\d+)", Handler.put_part),
    (("POST",), r"/lfs/(?P<oid>\w{64})/complete", Handler.complete),
    (("POST",), r"/lfs-verify", Handler.verify),
    (("GET", "HEAD"), rf"/{REPO}/resolve/{REVISION}/(?P<name>.+)", Handler.resolve),
]


@contextlib.contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Serves a hub on a free port of this machine; `hub.url` is its address."""
    handler = type("HubHandler", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.hold.set()
        server.shutdown()
        server.server_close()
        thread.join(5)
