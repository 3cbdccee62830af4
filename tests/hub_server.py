"""A stand-in for the Hugging Face hub: repositories in memory, over HTTP, as far as bundles need it."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote


class Hub:
    """Start it with `with Hub() as hub`; `repositories` are name -> file -> content, `requests` what was asked."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.requests: list[tuple[str, str]] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                path = unquote(self.path.split("?")[0])
                hub.requests.append((self.command, path))
                status, headers, content = hub.answer(path, body)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_POST = do_HEAD = _answer

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Hub:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *problem: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def commit_of(self, name: str) -> str:
        parts = sorted(self.repositories[name].items())
        return hashlib.sha1(repr([(file, hashlib.sha1(c).hexdigest()) for file, c in parts]).encode()).hexdigest()

    def answer(self, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = "/".join(part for part in (asked.get("organization"), asked["name"]) if part)
            self.repositories.setdefault(name, {".gitattributes": b"*.onnx filter=lfs\n"})
            self.private.setdefault(name, bool(asked.get("private") or asked.get("visibility") == "private"))
            return _json({"url": f"{self.address}/{name}", "id": name, "name": name})
        if path.startswith("/api/models/"):
            return self._api(path.removeprefix("/api/models/").split("/"), body)
        name, _, rest = path[1:].partition("/resolve/")
        file = rest.partition("/")[2]
        content = self.repositories.get(name, {}).get(file)
        if content is None:
            code = "EntryNotFound" if name in self.repositories else "RepoNotFound"
            return 404, {"X-Error-Code": code}, b""
        etag = hashlib.sha256(content).hexdigest()
        return 200, {"ETag": f'"{etag}"', "X-Repo-Commit": self.commit_of(name)}, content

    def _api(self, parts: list[str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        name, what = "/".join(parts[:2]), parts[2] if len(parts) > 2 else "revision"
        if name not in self.repositories:
            return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
        files = self.repositories[name]
        if what == "preupload":
            asked = json.loads(body)["files"]
            rows = [{"path": row["path"], "uploadMode": "regular", "shouldIgnore": False} for row in asked]
            return _json({"files": rows})
        if what == "commit":
            self._commit(files, body)
            address = f"{self.address}/{name}/commit/{self.commit_of(name)}"
            return _json({"commitUrl": address, "commitOid": self.commit_of(name), "success": True})
        if what == "tree":
            rows = [{"type": "file", "path": file, "size": len(c), "oid": "0"} for file, c in sorted(files.items())]
            return _json(rows)
        siblings = [{"rfilename": file} for file in sorted(files)]
        return _json({"id": name, "modelId": name, "sha": self.commit_of(name), "siblings": siblings, "tags": []})

    def _commit(self, files: dict[str, bytes], body: bytes) -> None:
        for line in body.decode().splitlines():
            row = json.loads(line)
            value = row["value"]
            if row["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif row["key"] == "deletedFile":
                del files[value["path"]]
            else:
                assert row["key"] == "header", row


def _json(value: Any) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()
