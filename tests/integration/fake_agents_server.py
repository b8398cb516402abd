"""A fake server, for tests of the agent alone: it speaks the agents' half of docs/wire.md over TLS,
does what a test says, and remembers what the agent said. It is not baton's server."""

import json
import os
import re
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse


def openssl(*args, stdin=None):
    done = subprocess.run(["openssl", *args], input=stdin, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


class Ca:
    """A certificate authority in a directory, as `baton server init` would have made one."""

    def __init__(self, directory, address="127.0.0.1"):
        self.dir = directory
        os.makedirs(directory, exist_ok=True)
        self.ca, self.ca_key = self.path("ca.pem"), self.path("ca.key")
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-keyout", self.ca_key, "-out", self.ca, "-days", "30", "-subj", "/CN=fake CA",
                "-addext", "basicConstraints=critical,CA:TRUE")
        self.cert, self.key = self.path("server.pem"), self.path("server.key")
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
                self.key, "-out", self.path("server.csr"), "-subj", "/CN=fake server")
        self.sign_file(self.path("server.csr"), self.cert, days=30,
                       ext=f"subjectAltName=DNS:localhost,IP:{address}\n")

    def path(self, name):
        return os.path.join(self.dir, name)

    def sign_file(self, csr, out, days, ext=""):
        ext_file = out + ".ext"
        with open(ext_file, "w", encoding="ascii") as f:
            f.write("basicConstraints=critical,CA:FALSE\n" + ext)
        openssl("x509", "-req", "-in", csr, "-CA", self.ca, "-CAkey", self.ca_key, "-set_serial",
                str(time.time_ns()), "-days", str(days), "-extfile", ext_file, "-out", out)

    def sign(self, csr_pem, days=30):
        csr, out = self.path("agent.csr"), self.path("agent.crt")
        with open(csr, "w", encoding="ascii") as f:
            f.write(csr_pem)
        self.sign_file(csr, out, days)
        with open(out, encoding="ascii") as f:
            return f.read()

    def text(self):
        with open(self.ca, encoding="ascii") as f:
            return f.read()

    def fingerprint(self):
        out = openssl("x509", "-in", self.ca, "-noout", "-fingerprint", "-sha256").decode()
        return out.split("=")[1].strip().replace(":", "").lower()


class FakeServer:
    def __init__(self, directory, port, address="127.0.0.1"):
        self.ca = Ca(directory, address)
        self.port, self.address = port, address
        self.url = f"https://{address}:{port}"
        self.lock = threading.Condition()
        self.store, self.wire = "store-1", 1
        self.commands, self.asks = [], []
        self.results, self.result_posts = {}, []
        self.hellos, self.observations, self.progress, self.renewals = [], [], [], []
        self.streams, self.closed_streams = {}, set()
        self.artifacts = {}
        self.tokens = {"btj_" + "t" * 43: "was1"}
        self.refuse_results = 0
        self.next_seq = 1
        self.httpd = None
        self.start()

    # -- the test's side

    def start(self):
        fake = self

        class Handler(FakeHandler):
            server_side = fake

        self.httpd = ThreadingHTTPServer((self.address, self.port), Handler, bind_and_activate=False)
        self.httpd.allow_reuse_address = True
        self.httpd.daemon_threads = True
        self.httpd.server_bind()
        self.httpd.server_activate()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.ca.cert, self.ca.key)
        context.load_verify_locations(self.ca.ca)
        context.verify_mode = ssl.CERT_OPTIONAL
        self.httpd.socket = context.wrap_socket(self.httpd.socket, server_side=True,
                                                do_handshake_on_connect=False)
        threading.Thread(target=self.httpd.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self):
        """As a killed server: nothing listens, and open connections end without an answer."""
        httpd = self.httpd
        with self.lock:
            self.httpd = None
            self.lock.notify_all()
        httpd.shutdown()
        httpd.server_close()

    def join_token(self):
        return next(iter(self.tokens)) + "." + self.ca.fingerprint()

    def send(self, task, params, deployment=1, number=1, verb="do", attempt=1, token=5,
             timeout_ms=30000, wait_ms=0, prior=None, service="shop", **more):
        key = {"deployment": deployment, "task": number, "verb": verb, "attempt": attempt}
        command = {"wire": 1, "key": key, "token": token, "service": service, "task": task,
                   "params": params, "timeout_ms": timeout_ms, "wait_ms": wait_ms, **more}
        if prior:
            command["prior"] = prior
        self.offer(command)
        return (deployment, number, verb, attempt)

    def offer(self, command):
        with self.lock:
            command = dict(command, seq=self.next_seq)
            self.next_seq += 1
            self.commands.append(command)
            self.lock.notify_all()

    def ask(self, **ask):
        with self.lock:
            self.asks.append(ask)
            self.lock.notify_all()

    def wait(self, what, condition, timeout=30):
        with self.lock:
            assert self.lock.wait_for(condition, timeout), f"the agent never: {what}"

    def result(self, key, timeout=30):
        self.wait(f"gave a result of {key}", lambda: key in self.results, timeout)
        return self.results[key]

    def run(self, task, params, **more):
        return self.result(self.send(task, params, **more))

    # -- the agent's side: path → (status, answer)

    def hello(self, body):
        self.hellos.append(body)
        if body["store"] == self.store:
            cursor = body["cursor"]
        else:
            cursor = 0
        return 200, {"wire": self.wire, "version": "fake", "store": self.store,
                     "server_time": "2026-01-01T00:00:00Z", "cursor": cursor}

    def take_results(self, body):
        if self.refuse_results > 0:
            self.refuse_results -= 1
            return 503, {"error": {"code": "store", "message": "the disk is full"}}
        self.result_posts.append(body)
        acked = []
        for r in body["results"]:
            k = r.get("key", r)
            key = (k["deployment"], k["task"], k["verb"], k["attempt"])
            self.results[key] = r
            acked.append(dict(zip(("deployment", "task", "verb", "attempt"), key)))
        return 200, {"acked": acked}

    def stream(self, ask, body):
        if ask in self.closed_streams:
            return 404, {"error": {"code": "not_found", "message": "nobody waits"}}
        self.streams.setdefault(ask, []).append(body)
        return 204, None

    def poll(self, query):
        after, wait = int(query["after"][0]), int(query["wait"][0].rstrip("s"))
        httpd = self.httpd

        def news():
            return [c for c in self.commands if c["seq"] > after]

        self.lock.wait_for(lambda: news() or self.asks or self.httpd is not httpd
                           or self.store != query["store"][0], wait)
        if self.store != query["store"][0]:
            return 200, {"store": self.store, "commands": [], "asks": []}
        asks, self.asks = self.asks, []
        return 200, {"store": self.store, "commands": news(), "asks": asks}

    def join(self, body):
        host = self.tokens.get(body["token"].split(".")[0])
        if host != body["host"]:
            return 401, {"error": {"code": "auth", "message": "this token is for another host"}}
        return 201, {"certificate": self.ca.sign(body["csr"]), "ca": self.ca.text(),
                     "host": host}

    def renew(self, body):
        self.renewals.append(body)
        return 200, {"certificate": self.ca.sign(body["csr"])}

    def answer(self, method, path, query, body, peer):
        with self.lock:
            try:
                if path != "/v1/join" and not peer:
                    return 401, {"error": {"code": "auth", "message": "no certificate"}}
                if (method, path) == ("GET", "/v1/agent/commands"):
                    return self.poll(query)
                if path.startswith("/v1/agent/stream/"):
                    return self.stream(path.rsplit("/", 1)[1], body)
                return {
                    "/v1/join": self.join,
                    "/v1/agent/hello": self.hello,
                    "/v1/agent/results": self.take_results,
                    "/v1/agent/renew": self.renew,
                    "/v1/agent/progress": lambda b: (202, self.progress.extend(b["items"])),
                    "/v1/agent/observation": lambda b: (204, self.observations.append(b)),
                }[path](body)
            finally:
                self.lock.notify_all()


class FakeHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_side = None

    def log_message(self, *args):
        pass

    def send_artifact(self, digest):
        data = self.server_side.artifacts.get(digest)
        if data is None:
            self.send_error(404)
            return
        start = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        offset = int(start[1]) if start else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - offset))
        if start:
            self.send_header("Content-Range", f"bytes {offset}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        self.wfile.write(data[offset:])

    def end_if_stopped(self):
        if self.server is not self.server_side.httpd:
            raise ConnectionAbortedError

    def handle_one(self, method):
        url = urlparse(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.end_if_stopped()
        if url.path.startswith("/v1/agent/artifacts/"):
            self.send_artifact(url.path.rsplit("/", 1)[1])
            return
        status, answer = self.server_side.answer(
            method, url.path, parse_qs(url.query), json.loads(body) if body else None,
            self.connection.getpeercert())
        self.end_if_stopped()
        data = json.dumps(answer).encode() if answer is not None else b""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        self.handle_one("GET")

    def do_POST(self):
        self.handle_one("POST")

    def handle(self):
        try:
            super().handle()
        except (OSError, ssl.SSLError):
            pass  # the agent was killed, or the test ended
