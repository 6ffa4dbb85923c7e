"""A stand-in for the hub's HTTP interface: one repository of models, to read from and to send to."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit


class Repository:
    """A model's files by revision, in folders; None in place of them until it is made by sending to it.

    Attributes:
        asked: the paths of the requests, in order.
        private: whether it is.
        refused: status with which requests to send are answered; 0 for none.
        stored: large files that were sent, by digest.
    """

    def __init__(self, name: str, revisions: dict[str, Path] | None, new: Path | None = None):
        self.name, self.new, self.asked = name, new, []
        self.private, self.refused, self.stored = False, 0, {}
        self.folders = {} if revisions is None else dict(revisions)

    def commit(self, revision: str) -> str:
        return hashlib.sha1(revision.encode()).hexdigest()

    def folder(self, revision: str) -> Path | None:
        named = {self.commit(each): folder for each, folder in self.folders.items()} | self.folders
        return named.get(revision)

    def branch(self, revision: str) -> Path:
        """The folder of a branch, made where there is none; it begins empty, whatever the main one holds."""
        if revision not in self.folders:
            self.folders[revision] = self.new / revision
            self.folders[revision].mkdir(parents=True)
        return self.folders[revision]

    def change(self, revision: str, lines: list[dict]) -> None:
        """What a commit says, applied."""
        folder = self.branch(revision)
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                (folder / value["path"]).write_bytes(base64.b64decode(value["content"]))
            elif line["key"] == "lfsFile":
                (folder / value["path"]).write_bytes(self.stored[value["oid"]])
            elif line["key"] == "deletedFile":
                (folder / value["path"]).unlink()


class Handler(BaseHTTPRequestHandler):
    """Answers for `self.server.repository`."""

    protocol_version = "HTTP/1.1"

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def tell(self, status=200, /, **content):
        self.answer(status, json.dumps(content).encode(), Content_Type="application/json")

    def refuse(self, code):
        self.answer(404, b"{}", X_Error_Code=code)

    def route(self):
        repository = self.server.repository
        path = unquote(urlsplit(self.path).path)
        repository.asked.append(path)
        return repository, path, f"/api/models/{repository.name}", f"/{repository.name}/resolve/"

    def do_GET(self):
        repository, path, api, files = self.route()
        if path.startswith(files):
            revision, _, file = path.removeprefix(files).partition("/")
            return self.file(repository, revision, file)
        if not f"{path}/".startswith(f"{api}/") or not repository.folders:
            return self.refuse("RepoNotFound")
        kind, _, revision = path.removeprefix(api).strip("/").partition("/")
        folder = repository.folder(revision or "main")
        if folder is None:
            return self.refuse("RevisionNotFound")
        listed = sorted(folder.iterdir())
        if kind == "tree":
            entries = [{"type": "file", "path": f.name, "size": f.stat().st_size, "oid": "0" * 40} for f in listed]
            return self.answer(200, json.dumps(entries).encode(), Content_Type="application/json")
        commit = next(repository.commit(each) for each, there in repository.folders.items() if there == folder)
        names = [{"rfilename": file.name} for file in listed]
        self.tell(id=repository.name, sha=commit, siblings=names, private=repository.private)

    do_HEAD = do_GET

    def file(self, repository, revision, file):
        folder = repository.folder(revision)
        if folder is None or not (folder / file).is_file():
            return self.refuse("EntryNotFound")
        body = (folder / file).read_bytes()
        commit = next(repository.commit(each) for each, there in repository.folders.items() if there == folder)
        self.answer(200, body, ETag=f'"{hashlib.sha1(body).hexdigest()}"', X_Repo_Commit=commit)

    def do_PUT(self):
        repository, path, *_ = self.route()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        repository.stored[hashlib.sha256(body).hexdigest()] = body
        self.answer(200)

    def do_POST(self):
        repository, path, api, _ = self.route()
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if repository.refused:
            return self.tell(repository.refused, error="not for you")
        if path == "/api/repos/create":
            return self.create(repository, json.loads(body))
        if path == "/api/validate-yaml":
            return self.tell(errors=[], warnings=[])
        if path == f"/{repository.name}.git/info/lfs/objects/batch":
            objects = json.loads(body)["objects"]
            address = f"http://{self.headers['Host']}/stored"
            return self.tell(objects=[each | {"actions": {"upload": {"href": address}}} for each in objects])
        kind, _, revision = path.removeprefix(api).strip("/").partition("/")
        if kind == "branch":
            repository.branch(revision)
            return self.tell()
        if kind == "preupload":
            return self.tell(files=[self.upload_mode(each["path"]) for each in json.loads(body)["files"]])
        assert kind == "commit", path
        repository.change(revision, [json.loads(line) for line in body.splitlines()])
        self.tell(commitUrl=f"http://{self.headers['Host']}/{repository.name}/commit/1", commitOid="1" * 40)

    def upload_mode(self, path):
        large = path.endswith((".safetensors", ".png"))
        return {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": None}

    def create(self, repository, given):
        made = not repository.folders
        if made:
            assert f"{given['organization']}/{given['name']}" == repository.name
            repository.private = given.get("visibility", "") == "private" or given.get("private", False)
            repository.branch("main")
        self.tell(200 if made else 409, url=f"http://{self.headers['Host']}/{repository.name}", id=repository.name)

    def log_message(self, *arguments):
        pass


@contextmanager
def serving(repository: Repository):
    """The address of a hub that has this repository alone."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.repository = repository
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield urlunsplit(("http", f"127.0.0.1:{server.server_port}", "", "", ""))
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def hub(name: str, revisions: dict[str, Path]):
    """The address of a hub that has one model, each of whose revisions is a folder, and the paths it was asked for."""
    repository = Repository(name, revisions)
    with serving(repository) as address:
        yield address, repository.asked
