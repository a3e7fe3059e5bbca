"""A loopback Hub for the real huggingface_hub client: create, push, list, load; with faults to inject.

User and default organisation are "org"; "org/taken-away" may not be written by anybody.
A request whose token is "hf_bad" is 401; what a fault does to the next requests that match stands in `Hub.faults`.
"""

import base64
import hashlib
import json
import re
import socket
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse

import yaml

LFS_SUFFIXES = (".safetensors", ".bin", ".png")


@dataclass
class Fault:
    """The next `times` requests of this method whose path matches get `status`; "cut" drops the connection instead,
    "cut after" does so when the request was carried out."""

    method: str
    path: str
    status: int | str
    times: int = 1
    message: str = "injected"


@dataclass
class Commit:
    oid: str
    title: str
    files: dict[str, bytes]


@dataclass
class Repo:
    private: bool
    commits: list[Commit]


@dataclass
class Hub:
    """A server on 127.0.0.1. `log` holds (method, path, status) of every request."""

    repos: dict[str, Repo] = field(default_factory=dict)
    lfs: dict[str, bytes] = field(default_factory=dict)
    log: list[tuple[str, str, int | str]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def __post_init__(self):
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.lock = threading.RLock()
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def create(self, name, *, private=False, **files):
        """A repository that somebody made before."""
        first = {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n", **files}
        self.repos[name] = Repo(private, [Commit(_oid(name), "initial commit", first)])
        return self.repos[name]

    def count(self, method, path):
        return sum(1 for m, p, _ in self.log if m == method and re.search(path, p))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two packets, and the second would wait 40 ms
    hub: Hub

    def log_message(self, *args):
        pass

    def handle_all(self):
        body = self._body()
        path = urlparse(self.path).path
        fault = self._fault(path)
        if fault is not None and fault.status == "cut":
            return self._cut()
        if fault is not None and isinstance(fault.status, int):
            return self._error(fault.status, fault.message.replace("TOKEN", self.headers.get("Authorization", "")))
        self.cut_after = fault is not None
        if self.headers.get("Authorization", "") == "Bearer hf_bad":
            return self._error(401, "Invalid username or password.")
        with self.hub.lock:
            return self._route(path, body)

    do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = handle_all

    def _route(self, path, body):
        for pattern, action in ROUTES:
            if match := re.fullmatch(pattern, path):
                return action(self, body, *match.groups())
        return self._error(404, f"no route {self.command} {path}")

    def validate_yaml(self, body):
        match = re.match(r"\s*---\r?\n(.*?)\r?\n---", json.loads(body)["content"], re.DOTALL)
        data = yaml.safe_load(match[1]) if match else {}
        errors = [] if isinstance(data, dict) else [{"message": "metadata must be a mapping"}]
        if isinstance(data, dict) and data.get("license") == "no such license":
            errors = [{"message": '"license" must be one of [...]'}]
        return self._json({"errors": errors, "warnings": []}, 400 if errors else 200)

    def create_repo(self, body):
        asked = json.loads(body)
        name = f"{asked.get('organization') or 'org'}/{asked['name']}"
        if not self.headers.get("Authorization"):
            return self._error(401, "Invalid username or password.")
        if name in self.hub.repos:
            return self._json({"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"}, 409)
        if not name.startswith("org/"):
            return self._error(403, "You don't have the rights to create a model under this namespace")
        self.hub.create(name, private=bool(asked.get("private")) or asked.get("visibility") == "private")
        return self._json({"url": f"{self.hub.url}/{name}", "name": name, "id": "0" * 24})

    def preupload(self, body, name):
        head = self._repo(name)
        if head is None:
            return self._error(404, "Repository not found", "RepoNotFound")
        if name == "org/taken-away":
            return self._error(403, "Forbidden: you must have write access")
        files = []
        for asked in json.loads(body)["files"]:
            present = head.commits[-1].files.get(asked["path"])
            lfs = asked["path"].endswith(LFS_SUFFIXES)
            oid = None if present is None else hashlib.sha256(present).hexdigest() if lfs else _git_oid(present)
            mode = "lfs" if lfs else "regular"
            files.append({"path": asked["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return self._json({"files": files})

    def commit(self, body, name):
        repo = self._repo(name)
        if repo is None:
            return self._error(404, "Repository not found", "RepoNotFound")
        files, header = dict(repo.commits[-1].files), {}
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header":
                header = value
            elif item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                if value["oid"] not in self.hub.lfs:
                    return self._error(400, f"LFS object {value['oid']} is missing")
                files[value["path"]] = self.hub.lfs[value["oid"]]
        if header.get("parentCommit") not in (None, repo.commits[-1].oid):
            return self._error(412, "A commit has happened since. Please refresh and try again.")
        repo.commits.append(Commit(_oid(f"{name} {time.time_ns()}"), header.get("summary", ""), files))
        if self.cut_after:
            return self._cut()
        oid = repo.commits[-1].oid
        url = f"{self.hub.url}/{name}/commit/{oid}"
        return self._json({"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""})

    def info(self, body, name, revision=None):
        repo = self._repo(name)
        if repo is None:
            return self._error(404, "Repository not found", "RepoNotFound")
        commit = self._revision(repo, revision or "main")
        if commit is None:
            return self._error(404, "Revision not found", "RevisionNotFound")
        siblings = [{"rfilename": path} for path in sorted(commit.files)]
        told = {
            "_id": "0" * 24,
            "id": name,
            "sha": commit.oid,
            "private": repo.private,
            "siblings": siblings,
            "tags": [],
        }
        return self._json({**told, "downloads": 0, "likes": 0})

    def tree(self, body, name, revision, folder=""):
        repo = self._repo(name)
        commit = None if repo is None else self._revision(repo, revision)
        if commit is None:
            return self._error(404, "Revision not found", "RevisionNotFound")
        entries = [
            {"type": "file", "oid": _git_oid(content), "size": len(content), "path": path}
            for path, content in sorted(commit.files.items())
            if path.startswith(unquote(folder or ""))
        ]
        return self._json(entries)

    def lfs_batch(self, body, name):
        objects = []
        for asked in json.loads(body)["objects"]:
            upload = {"href": f"{self.hub.url}/lfs/{asked['oid']}"}
            actions = {} if asked["oid"] in self.hub.lfs else {"actions": {"upload": upload}}
            objects.append({"oid": asked["oid"], "size": asked["size"], **actions})
        return self._json({"transfer": "basic", "objects": objects})

    def lfs_put(self, body, oid):
        if hashlib.sha256(body).hexdigest() != oid:
            return self._error(422, "sha mismatch")
        self.hub.lfs[oid] = body
        return self._json({})

    def resolve(self, body, name, revision, path):
        repo = self._repo(name)
        if repo is None:
            return self._error(404, "Repository not found", "RepoNotFound")
        commit = self._revision(repo, revision)
        if commit is None:
            return self._error(404, "Invalid rev id", "RevisionNotFound")
        content = commit.files.get(unquote(path))
        if content is None:
            return self._error(404, "Entry not found", "EntryNotFound", {"X-Repo-Commit": commit.oid})
        headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{_git_oid(content)}"', "Accept-Ranges": "bytes"}
        return self._send(200, content, headers, "application/octet-stream")

    def _repo(self, name):
        repo = self.hub.repos.get(name)
        return None if repo is None or (repo.private and not self.headers.get("Authorization")) else repo

    @staticmethod
    def _revision(repo, name):
        if name == "main":
            return repo.commits[-1]
        return next((commit for commit in repo.commits if commit.oid == unquote(name)), None)

    def _fault(self, path):
        with self.hub.lock:
            for fault in self.hub.faults:
                if fault.times and fault.method == self.command and re.search(fault.path, path):
                    fault.times -= 1
                    return fault
        return None

    def _body(self):
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().strip(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _cut(self):
        self.hub.log.append((self.command, self.path, "cut"))
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _json(self, value, status=200):
        return self._send(status, json.dumps(value).encode())

    def _error(self, status, message, code=None, headers=None):
        told = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {}), **(headers or {})}
        return self._send(status, json.dumps({"error": message}).encode(), told)

    def _send(self, status, body, headers=None, kind="application/json"):
        self.hub.log.append((self.command, self.path, status))
        self.send_response(status)
        fixed = {"Content-Type": kind, "Content-Length": str(len(body)), "X-Request-Id": "test"}
        for name, value in {**fixed, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        return


ROUTES = [
    (r"/api/validate-yaml", _Handler.validate_yaml),
    (r"/api/repos/create", _Handler.create_repo),
    (r"/api/models/([^/]+/[^/]+)/preupload/main", _Handler.preupload),
    (r"/api/models/([^/]+/[^/]+)/commit/main", _Handler.commit),
    (r"/api/models/([^/]+/[^/]+)", _Handler.info),
    (r"/api/models/([^/]+/[^/]+)/revision/([^/]+)", _Handler.info),
    (r"/api/models/([^/]+/[^/]+)/tree/([^/]+)(?:/(.*))?", _Handler.tree),
    (r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    (r"/lfs/([0-9a-f]{64})", _Handler.lfs_put),
    (r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", _Handler.resolve),
]


def _oid(text):
    return hashlib.sha1(text.encode()).hexdigest()


def _git_oid(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
