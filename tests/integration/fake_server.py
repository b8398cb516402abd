"""A server made of the client's side of docs/wire.md, so that the client is tested alone: what it
asks is recorded, what it is told is a script of the test."""
import http.server
import json
import re
import threading
import time
import urllib.parse

TOKEN = "bt_test"


class FakeServer:
    """script: list of ("record", dict) / ("progress", dict) / ("end", dict) / ("cut",) / ("wait", event)."""

    def __init__(self, script=(), port=0):
        self.script, self.asked, self.parts = list(script), [], {}
        self.bodies, self.answers = {}, {}
        self.have = {}            # digest -> bytes that are there
        self.aborted = threading.Event()
        self.cut_parts = 0        # this many PATCHes lose their connection after half of their bytes
        self.lock = threading.Lock()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def handle_any(self):
                outer.handle(self)

            do_GET = do_POST = do_PATCH = do_HEAD = do_DELETE = handle_any

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()

    def env(self):
        return {"BATON_SERVER": self.url, "BATON_TOKEN": TOKEN}

    def paths(self, method):
        return [path for m, path in self.asked if m == method]

    # ---- answers ----

    def reply(self, h, status, body=None, headers=()):
        raw = b"" if body is None else json.dumps(body).encode() if not isinstance(body, str) else body.encode()
        h.send_response(status)
        for name, value in headers:
            h.send_header(name, value)
        h.send_header("Content-Type", "application/json")
        h.send_header("Content-Length", str(len(raw)))
        h.end_headers()
        if h.command != "HEAD":
            h.wfile.write(raw)

    def error(self, h, status, code, message):
        self.reply(h, status, {"error": {"code": code, "message": message}})

    def handle(self, h):
        url = urllib.parse.urlsplit(h.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        with self.lock:
            self.asked.append((h.command, url.path))
        length = int(h.headers.get("Content-Length", 0))
        if h.headers.get("Authorization") != f"Bearer {TOKEN}":
            h.rfile.read(length)
            return self.error(h, 401, "auth", "unknown token")
        if (h.command, url.path) in self.answers:
            body = h.rfile.read(length)
            self.bodies[url.path] = json.loads(body) if body else None
            return self.reply(h, *self.answers[h.command, url.path])
        match = re.fullmatch(r"/v1/artifacts/([0-9a-f]{64})", url.path)
        if match:
            return self.artifact(h, match[1], query, length)
        body = h.rfile.read(length)
        self.bodies[url.path] = json.loads(body) if body else None
        if (h.command, url.path) == ("POST", "/v1/deployments"):
            return self.reply(h, 201, {"id": 17, "service": "shop", "release": {"id": 3, "version": "v2"}})
        if url.path == "/v1/deployments/17/abort":
            self.aborted.set()
            return self.reply(h, 202, {})
        if url.path == "/v1/deployments/17/events":
            return self.stream(h, int(query["after"]))
        if url.path == "/v1/deployments/17":
            return self.reply(h, 200, {"id": 17, "service": "shop", "version": "v2", "old_version": "v1",
                                       "strategy": "blue-green", "started_at": "2026-11-21T06:39:02.123Z"})
        if url.path == "/v1/deployments/17/log":
            return self.reply(h, 200, "task 1: the log of a task\n")
        return self.error(h, 404, "not_found", f"no such path {url.path}")

    def artifact(self, h, digest, query, length):
        have = self.have.setdefault(digest, b"")
        if h.command == "HEAD":
            size = self.parts.get(digest)
            if size is not None and len(have) == size:
                return self.reply(h, 200)
            return self.reply(h, 404, headers=[("Upload-Offset", str(len(have)))])
        offset, size = int(h.headers["Upload-Offset"]), int(query["size"])
        if self.cut_parts:
            self.cut_parts -= 1
            h.rfile.read(length // 2)
            h.close_connection = True
            h.connection.close()
            return None
        data = h.rfile.read(length)
        if offset != len(have):
            return self.reply(h, 409, {"error": {"code": "exists", "message": "wrong offset"}},
                              [("Upload-Offset", str(len(have)))])
        assert length <= 8 << 20
        self.have[digest] = have + data
        self.parts[digest] = size
        done = len(self.have[digest]) == size
        return self.reply(h, 201 if done else 200, {"offset": len(self.have[digest])})

    def stream(self, h, after):
        h.send_response(200)
        h.send_header("Content-Type", "text/event-stream")
        h.send_header("Connection", "close")
        h.end_headers()
        h.close_connection = True
        cursor = 0
        for step in self.script:
            if step[0] == "cut":
                cursor += 1
                if cursor > after:
                    # a record that nobody sees, so that the next connection begins behind the cut
                    self.script[self.script.index(step)] = ("record", {"kind": "token"})
                    return
                continue
            if step[0] == "wait":
                step[1].wait(20)
                continue
            if step[0] != "progress":
                cursor += 1
            if cursor <= after and step[0] != "end":
                continue
            data = json.dumps({"cursor": cursor, "deployment": 17, **step[1]}, ensure_ascii=False)
            ident = f"id: {cursor}\n" if step[0] != "progress" else ""
            try:
                h.wfile.write(f"{ident}event: {step[0]}\ndata: {data}\n\n".encode())
                h.wfile.flush()
            except OSError:
                return
            time.sleep(0.01)
