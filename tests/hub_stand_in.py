"""A stand-in for the hub's HTTP interface: one repository of models, as far as reading it goes."""

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit


@contextmanager
def hub(name: str, revisions: dict[str, Path]):
    """The address of a hub that has one model, each of whose revisions is a folder, and the paths it was asked for."""
    commits = {revision: hashlib.sha1(revision.encode()).hexdigest() for revision in revisions}
    folders = {commits[revision]: folder for revision, folder in revisions.items()}
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self, status, body=b"", **headers):
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def refuse(self, code):
            self.answer(404, b"{}", X_Error_Code=code)

        def do_GET(self):
            path = unquote(urlsplit(self.path).path)
            asked.append(path)
            api, files = f"/api/models/{name}", f"/{name}/resolve/"
            if path.startswith(files):
                commit, _, file = path.removeprefix(files).partition("/")
                return self.file(commits.get(commit, commit), file)
            if not f"{path}/".startswith(f"{api}/"):
                return self.refuse("RepoNotFound")
            kind, _, revision = path.removeprefix(api).strip("/").partition("/")
            commit = commits.get(revision or "main", revision)
            if commit not in folders:
                return self.refuse("RevisionNotFound")
            listed = sorted(folders[commit].iterdir())
            if kind == "tree":
                entries = [{"type": "file", "path": f.name, "size": f.stat().st_size, "oid": "0" * 40} for f in listed]
                return self.answer(200, json.dumps(entries).encode(), Content_Type="application/json")
            found = {"id": name, "sha": commit, "siblings": [{"rfilename": file.name} for file in listed]}
            self.answer(200, json.dumps(found).encode(), Content_Type="application/json")

        do_HEAD = do_GET

        def file(self, commit, file):
            path = folders[commit] / file
            if not path.is_file():
                return self.refuse("EntryNotFound")
            body = path.read_bytes()
            self.answer(200, body, ETag=f'"{hashlib.sha1(body).hexdigest()}"', X_Repo_Commit=commit)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield urlunsplit(("http", f"127.0.0.1:{server.server_port}", "", "", "")), asked
    finally:
        server.shutdown()
        server.server_close()
