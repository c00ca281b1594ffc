"""A stand-in of the Hugging Face Hub: repositories in memory, by the few requests that uploading and downloading make."""

import base64
import contextlib
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def commit(files):
    """The revision of a repository: another one where its files are."""
    content = b"".join(name.encode() + files[name] for name in sorted(files))
    return hashlib.sha1(content).hexdigest()


@contextlib.contextmanager
def serve():
    """Yields (address, {USER/NAME: {file: bytes}}, the tokens that were sent)."""
    repos = {}
    tokens = set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def answer(self, status, tree=None, content=b"", **headers):
            content = content if tree is None else json.dumps(tree).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def do_POST(self):
            tokens.add(self.headers.get("Authorization"))
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            else:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path == "/api/repos/create":
                tree = json.loads(body)
                repo = f"{tree.get('organization') or 'user'}/{tree['name']}"
                if repo in repos:
                    return self.answer(409, {"error": "exists", "url": f"http://{self.headers['Host']}/{repo}"})
                repos[repo] = {}
                return self.answer(200, {"url": f"http://{self.headers['Host']}/{repo}", "name": repo, "id": "1"})
            if self.path == "/api/validate-yaml":
                return self.answer(200, {"errors": [], "warnings": []})
            repo, what = re.fullmatch(r"/api/models/([^/]+/[^/]+)/([\w-]+)/?.*", self.path).groups()
            if what == "preupload":
                names = [file["path"] for file in json.loads(body)["files"]]
                regular = {"uploadMode": "regular", "shouldIgnore": False}
                return self.answer(200, {"files": [{"path": name, **regular} for name in names]})
            assert what == "commit", self.path
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    repos[repo][entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
                if entry["key"] == "deletedFile":
                    del repos[repo][entry["value"]["path"]]
            url = f"http://{self.headers['Host']}/{repo}/commit/{commit(repos[repo])}"
            return self.answer(200, {"commitUrl": url, "commitOid": commit(repos[repo]), "success": True})

        def do_HEAD(self):
            tokens.add(self.headers.get("Authorization"))
            if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/main", self.path.partition("?")[0]):
                files = [(name, len(content)) for name, content in repos[match[1]].items()]
                return self.answer(200, [{"type": "file", "path": name, "size": size, "oid": ""} for name, size in files])
            match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path.partition("?")[0])
            if match is None:
                match = re.fullmatch(r"/api/models/([^/]+/[^/]+)(.*)", self.path)
                if match and match[1] in repos:
                    return self.answer(200, {"id": match[1], "sha": commit(repos[match[1]]), "siblings": [], "private": False})
                return self.answer(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
            repo, revision, file = match.groups()
            if repo not in repos:
                return self.answer(404, X_Error_Code="RepoNotFound")
            if revision not in ("main", "v1", commit(repos[repo])):
                return self.answer(404, X_Error_Code="RevisionNotFound")
            if file not in repos[repo]:
                return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit(repos[repo]))
            content = repos[repo][file]
            etag = f'"{hashlib.sha256(content).hexdigest()[:40]}"'
            return self.answer(200, content=content, ETag=etag, X_Repo_Commit=commit(repos[repo]))

        do_GET = do_HEAD

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", repos, tokens
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
