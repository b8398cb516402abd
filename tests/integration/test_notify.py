"""Notify by a real agent: commands by hand (fake_agents_server.py), and a receiver that stands in for an
outside service (a webhook, a chat). It is a fake of one: it keeps what came and answers as the test says."""
import http.server
import json
import pathlib
import signal
import subprocess
import threading

import pytest

from fake_agents_server import FakeServer
from lab import BATON, poll

SENTINEL = "s3cr3t-sentinel-hook"


class Receiver:
    """Not the outside service itself: a fake that speaks just enough HTTP."""

    def __init__(self):
        self.came, self.status, self.headers, self.body = [], 200, [], b"ok"
        self.hold, self.cut = None, False
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.came.append((self.path, dict(self.headers), body))
                if outer.hold:
                    outer.hold.wait(60)
                if outer.cut:
                    return
                self.send_response(outer.status)
                for name, value in outer.headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(outer.body)))
                self.end_headers()
                try:
                    self.wfile.write(outer.body)
                except OSError:
                    pass  # whoever asked has read enough

            def log_message(self, *args):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.port = self.http.server_address[1]
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        if self.hold:
            self.hold.set()
        self.http.shutdown()
        self.http.server_close()


class Host:
    def __init__(self, lab, receiver):
        self.lab, self.receiver, self.number = lab, receiver, 0
        self.server = FakeServer(str(lab.dir / "fake"), lab.port("agents"))
        self.dir = lab.dir / "agent"
        joined = subprocess.run([BATON, "agent", "join", self.server.url, "--token", self.server.join_token(), "--dir",
                                 self.dir, "--host", "was1", "--address", "127.0.0.1"],
                                stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        assert joined.returncode == 0, joined.stderr
        self.start()

    def start(self):
        hellos = len(self.server.hellos)
        self.lab.start("agent", "agent", "run", "--dir", self.dir, "--own-machine")
        self.server.wait("said hello", lambda: len(self.server.hellos) > hellos)

    def send(self, url=None, secret=SENTINEL, to="ops", format_="json", **more):
        self.number += 1
        url = url or f"http://127.0.0.1:{self.receiver.port}/hooks/${{HOOK}}?to=a"
        config = {"service": "shop", "artifact": "app.py", "hosts": ["was1"],
                  "run": {"command": "./app {port}", "slots": {"blue": 8081, "green": 8082}, "secrets": ["HOOK"]},
                  "notify": {"ops": {"url": url, "format": format_}}}
        params = {"service": config, "to": to, "message": "shop is out", "version": "v2", "flow": "turnOffL4",
                  "release": 3, "secrets": {"HOOK": secret} if secret else {}}
        return self.server.send("Notify", params, **{"number": self.number, "deployment": 7, **more})

    def run(self, *args, **more):
        return self.server.result(self.send(*args, **more), 60)

    def nothing_leaked(self, secret=SENTINEL):
        texts = {"log": self.lab.log("agent"), "results": json.dumps(self.server.result_posts),
                 "progress": json.dumps(self.server.progress), "observations": json.dumps(self.server.observations)}
        for path in pathlib.Path(self.dir / "results").glob("*"):
            texts[path.name] = path.read_text()
        for name, text in texts.items():
            assert secret not in text, f"the secret is in {name}: {text}"


@pytest.fixture(name="receiver")
def fixture_receiver():
    it = Receiver()
    yield it
    it.close()


@pytest.fixture(name="host")
def fixture_host(lab, receiver):
    it = Host(lab, receiver)
    try:
        yield it
        it.nothing_leaked()
    finally:
        it.server.stop()


def test_what_is_sent(host, receiver):
    result = host.run(attempt=2)
    assert result["outcome"] == "done", result
    (path, headers, body), = receiver.came
    assert path == f"/hooks/{SENTINEL}?to=a"
    assert headers["X-Baton-Delivery"] == "7-1-2" and headers["Content-Type"] == "application/json"
    said = json.loads(body)
    assert said.pop("at").endswith("Z")
    assert said == {"service": "shop", "version": "v2", "deployment": 7, "flow": "turnOffL4", "message": "shop is out",
                    "host": "was1"}
    assert host.run(format_="slack")["outcome"] == "done"
    assert json.loads(receiver.came[-1][2]) == {"text": "shop v2, deployment 7: shop is out"}


def test_answers(host, receiver):
    receiver.body = b"no_service <script>\nmore " + SENTINEL.encode()
    for status, outcome in ((204, "done"), (500, "failed"), (404, "failed")):
        receiver.status = status
        result = host.run()
        assert result["outcome"] == outcome, result
    assert "404" in result["detail"] and "no_service" in result["detail"] and "more" not in result["detail"]
    # the receiver repeats what it was given: the first line of it is shown, without the secret
    receiver.body = f"unknown hook {SENTINEL}".encode()
    result = host.run()
    assert "unknown hook ***" in result["detail"], result
    # a redirect is not followed, wherever it leads
    receiver.status, receiver.headers = 302, [("Location", f"http://127.0.0.1:{receiver.port}/other")]
    before = len(receiver.came)
    result = host.run()
    assert result["outcome"] == "failed" and "302" in result["detail"] and len(receiver.came) == before + 1
    # however long an answer is, its status counts
    receiver.status, receiver.headers, receiver.body = 200, [], b"x" * (8 << 20)
    assert host.run()["outcome"] == "done"


def test_it_was_not_sent(host, lab):
    refused = host.run(f"http://127.0.0.1:{lab.port('nobody')}/${{HOOK}}")
    assert refused["outcome"] == "failed" and "efused" in refused["detail"] and "ops" in refused["detail"], refused
    assert "/" not in refused["detail"].split("127.0.0.1", 1)[1], refused
    for secret, words in ((None, "HOOK"), ("with blank", "URL"), ("ftp://x", "URL"), ("http://", "URL")):
        result = host.run("${HOOK}", secret=secret)
        assert result["outcome"] == "refused" and words in result["detail"], result
    result = host.run(to="nobody")
    assert result["outcome"] == "refused" and "nobody" in result["detail"]


def test_a_whole_url_may_be_the_secret(host, receiver):
    secret = f"http://127.0.0.1:{receiver.port}/T0/B0/{SENTINEL}"
    assert host.run("${HOOK}", secret=secret)["outcome"] == "done"
    receiver.status = 403
    result = host.run("${HOOK}", secret=secret)
    assert result["outcome"] == "failed" and "B0" not in result["detail"], result
    host.nothing_leaked("/T0/B0")


def test_nobody_knows_whether_it_arrived(host, receiver):
    receiver.cut = True
    result = host.run()
    assert result["outcome"] == "unknown" and "not known" in result["detail"], result
    receiver.cut, receiver.hold = False, threading.Event()
    result = host.run(timeout_ms=1500)
    assert result["outcome"] == "unknown", result
    assert len(receiver.came) == 2
    # killed while it waits for the answer: it is not sent again
    key = host.send()
    poll("it came", lambda: len(receiver.came) == 3)
    host.lab.kill("agent", signal.SIGKILL)
    host.start()
    result = host.server.result(key)
    assert result["outcome"] == "unknown" and "person" in result["detail"], result
    assert len(receiver.came) == 3


def test_a_repeated_command_sends_nothing(host, receiver):
    ledger = host.lab.dir / "agent/ledger"
    assert host.run()["outcome"] == "done"
    poll("the agent knows that its result came", lambda: '"acked"' in ledger.read_text(errors="replace"))
    command, posts = host.server.commands[-1], len(host.server.result_posts)
    host.server.offer({k: v for k, v in command.items() if k != "seq"})
    host.server.wait("answered the repeat", lambda: len(host.server.result_posts) > posts)
    assert len(receiver.came) == 1
