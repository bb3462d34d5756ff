"""A stand-in for the Hugging Face Hub on the loopback: as much of its interface as its client asks for."""

import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs


class Hub:
    """Serves the files of a folder, with ranges; breaks off in the middle of a file the first time, if it should."""

    def __init__(self, folder):
        self.folder, self.breaks, self.down, self.wrong_hash = folder, set(), False, False
        self.requests, self.ranges, self.sent = [], [], 0
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def entry(self, path):
        data = path.read_bytes()
        digest = "0" * 64 if self.wrong_hash else hashlib.sha256(data).hexdigest()
        lfs = {"oid": digest, "size": len(data), "pointerSize": 130}
        return {"type": "file", "path": path.name, "size": len(data), "oid": "0" * 40, "lfs": lfs}

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *arguments):
        pass

    def answer(self, status, data, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        broken = self.path.rpartition("/")[2] in self.hub.breaks and len(data) > 100
        if broken:
            self.hub.breaks.discard(self.path.rpartition("/")[2])
            data = data[: len(data) // 2]
            self.close_connection = True
        if self.command != "HEAD":
            self.wfile.write(data)
            self.hub.sent += len(data)

    def answer_json(self, value):
        self.answer(200, json.dumps(value).encode(), Content_Type="application/json")

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        paths = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body)["paths"]
        self.answer_json([self.hub.entry(self.hub.folder / path) for path in paths])

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.hub.requests.append(f"{self.command} {self.path}")
        if self.hub.down:
            self.answer(503, b"")
        elif "/tree/" in self.path:
            self.answer_json([self.hub.entry(path) for path in sorted(self.hub.folder.glob("*.zip"))])
        elif found := re.search(r"/resolve/([^/]+)/(.*)$", self.path):
            self.hub.ranges.append((found[2], self.headers.get("Range")))
            data = (self.hub.folder / found[2]).read_bytes()
            part = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
            first, last = (int(part[1]), min(int(part[2] or len(data)), len(data) - 1)) if part else (0, len(data) - 1)
            headers = {
                "ETag": f'"{hashlib.sha256(data).hexdigest()}"',
                "X_Repo_Commit": found[1],
                "Accept_Ranges": "bytes",
            }
            if part:
                headers["Content_Range"] = f"bytes {first}-{last}/{len(data)}"
            self.answer(206 if part else 200, data[first : last + 1], **headers)
        else:
            self.answer_json({"id": "data", "sha": "0" * 40, "siblings": []})
