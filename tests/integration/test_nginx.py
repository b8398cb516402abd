"""nginx from end to end: the forms that people have, long requests over a drain, a managed nginx that
is killed, 5xx during the bake, old workers that pile up."""
import json
import os
import pathlib
import signal
import socket

import pytest

from lab import poll


def good(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def conf(lab, server):
    temp = "".join(f"    {kind}_temp_path {lab.dir}/tmp;\n"
                   for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    return (f"worker_processes 2;\npid {lab.dir}/nginx.pid;\nerror_log {lab.dir}/error.log;\nevents {{}}\n"
            f"http {{\n    access_log {lab.dir}/access.log;\n{temp}"
            f"    server {{\n        listen 127.0.0.1:{lab.port('page')} backlog=1024;\n{server}\n    }}\n}}\n")


@pytest.mark.parametrize("form, first, target", [
    ("service_port", "set $service_port {port};", "http://127.0.0.1:$service_port"),
    ("service_url", "set $service_url http://127.0.0.1:{port};", "$service_url"),
])
def test_the_documents_forms(lab, form, first, target):
    """Documents 002 and 003: one `set` that a script rewrote with tee until today."""
    lab.page = f"http://127.0.0.1:{lab.port('page')}"
    include = lab.dir / "service-url.inc"
    lab.nginx(conf=conf(lab, f"        set $service_port 1; set $service_url http://127.0.0.1:1;\n"
                             f"        include {lab.dir}/*.inc;\n"
                             f"        location / {{ proxy_pass {target}; proxy_set_header Host $http_host; }}"))
    include.write_text(first.format(port=lab.port("shop-blue")) + "\n")
    lab.config(traffic={"nginx": {"on": "local", "url": lab.page, "adopt": {
        "config": str(lab.dir / "nginx.conf"), "prefix": str(lab.dir), "include": str(include), "form": form}}})
    lab.up()
    good(lab.deploy("v1"))
    assert lab.ask() == "v1"
    with lab.load(slow=1) as load:
        good(lab.deploy("v2"))
        good(lab.deploy("v3"))
        good(lab.baton("rollback", "shop"))
    assert load.failed == 0, load.summary()
    assert lab.ask() == "v2"
    assert lab.ask("/profile") in include.read_text() or str(lab.port("shop-green")) in include.read_text()


@pytest.mark.parametrize("policy, code, serves", [("continue", 0, "v2"), ("fail", 1, "v1")])
def test_a_request_that_outlives_the_drain(lab, policy, code, serves):
    """Work that lasts longer than the drain. The app finishes what it has, and the old worker waits for
    it; with `fail` the old version serves on as if nothing had been."""
    lab.nginx()
    lab.config(deploy={"drain": "1s", "on_drain_timeout": policy}, run={"stop": {"signal": "TERM", "grace": "60s"}})
    lab.up()
    good(lab.deploy("v1"))
    with lab.load() as load, Slow(lab) as slow:
        client = lab.start_deploy("v2")
        poll("a second deployment", lambda: len(lab.deployments()) == 2)
        poll("the drain is over", lambda: drained(lab, lab.deployments()[0]["id"]))
        slow.finish()
        said = client.communicate(timeout=120)[0]
        assert client.returncode == code, said
        assert "when the drain time passed" in said, said
        assert lab.ask() == serves
        assert slow.answer() == (200, "v1")
    assert load.failed == 0, load.summary()
    assert lab.deployments()[0]["end"] == {0: "done", 1: "rolled_back"}[code]


def test_a_way_back_does_not_wait_for_ever(lab):
    """`fail` is about going forward: requests that the new version has begun park no rollback."""
    lab.nginx()
    strict = {"drain": "1s", "on_drain_timeout": "fail"}
    lab.config(deploy=strict, run={"stop": {"signal": "TERM", "grace": "60s"}})
    lab.up()
    good(lab.deploy("v1"))
    lab.config(deploy={**strict, "bake": "60s"}, run={"stop": {"signal": "TERM", "grace": "60s"}})
    with lab.load() as load:
        client = lab.start_deploy("v2")
        poll("a second deployment", lambda: len(lab.deployments()) == 2)
        number = lab.deployments()[0]["id"]
        poll("v2 serves and is watched", lambda: any(
            t["kind"] == "Bake" and t["state"] == "running" for t in lab.deployment(number)["tasks"]))
        with Slow(lab) as slow:
            good(lab.baton("abort", number))
            poll("the drain of the way back is over", lambda: drained(lab, number))
            slow.finish()
            said = client.communicate(timeout=120)[0]
            assert client.returncode == 1, said
            assert "when the drain time passed" in said and "parked" not in said, said
            assert lab.deployment(number)["end"] == "rolled_back"
            assert lab.ask() == "v1"
            assert slow.answer() == (200, "v2")
    assert load.failed == 0, load.summary()


class Slow:
    """One request through nginx that is under way inside of the app, until it is told to finish."""

    def __init__(self, lab):
        self.lab, self.until = lab, lab.dir / "finish"

    def __enter__(self):
        self.socket = socket.create_connection(("127.0.0.1", self.lab.port("page")))
        self.socket.sendall(f"GET /slow?until={self.until} HTTP/1.0\r\nHost: x\r\n\r\n".encode())
        slots = [f"http://127.0.0.1:{self.lab.port(slot)}" for slot in ("shop-blue", "shop-green")]
        poll("the slow request is under way", lambda: "1" in [self.lab.ask("/held", url) for url in slots])
        return self

    def finish(self):
        self.until.touch()

    def answer(self):
        self.socket.settimeout(60)
        head, _, body = b"".join(iter(lambda: self.socket.recv(4096), b"")).partition(b"\r\n\r\n")
        return int(head.split()[1]), body.decode()

    def __exit__(self, *_):
        self.finish()
        self.socket.close()


def drained(lab, number):
    """A Drain of that run has ended."""
    return any(t["kind"] == "Drain" and t["state"] in ("done", "failed", "undone") for t in lab.deployment(number)["tasks"])


def accepted(client):
    """A worker has the other end of this connection: in the listener's queue it has no inode yet."""
    rows = [row.split() for row in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]]
    end = f":{client.getsockname()[1]:04X}"
    return any(row[2].endswith(end) and row[3] == "01" and row[9] != "0" for row in rows)


def managed(lab, **nginx):
    lab.page = f"http://127.0.0.1:{lab.port('page')}"
    lab.config(nginx=False)
    config = json.loads((lab.dir / "baton.yaml").read_text())
    config["traffic"] = {"nginx": {"listen": f"127.0.0.1:{lab.port('page')}", **nginx}}
    config["identity"] = {"path": "/profile"}
    lab.services["shop"] = config
    (lab.dir / "baton.yaml").write_text(json.dumps(config))
    lab.up()
    good(lab.deploy("v1"))


def managed_master(lab):
    found = list(lab.dir.glob("state/**/balancers/shop/nginx/nginx.pid"))
    return int(found[0].read_text() or 0) if found else 0  # nginx may be about to write it


def test_a_managed_nginx_that_is_killed(lab):
    """Nobody notices: its workers serve on, and a new master takes their sockets over."""
    managed(lab)
    first = managed_master(lab)
    with lab.load() as load:
        os.kill(first, signal.SIGKILL)
        poll("a new master", lambda: managed_master(lab) not in (0, first)
             and pathlib.Path(f"/proc/{managed_master(lab)}").exists())
        good(lab.deploy("v2"))
    assert load.failed == 0, load.summary()
    assert lab.ask() == "v2"


def test_a_managed_nginx_outlives_baton(lab):
    managed(lab)
    first = managed_master(lab)
    with lab.load() as load:
        lab.kill("up")
        assert lab.ask() == "v1"
        lab.up()
        good(lab.deploy("v2"))
    assert load.failed == 0, load.summary()
    assert managed_master(lab) == first


def test_5xx_during_the_bake_roll_back(lab):
    managed(lab)
    config = lab.services["shop"]
    config["deploy"] = {**config["deploy"], "bake": "20s", "bake_max_5xx": "5%"}
    del config["identity"]
    (lab.dir / "baton.yaml").write_text(json.dumps(config))
    with lab.load():
        done = lab.deploy("v2", answer_500=True)
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert "requests with 5xx" in said, said
    assert lab.ask() == "v1"


def test_old_workers_that_pile_up(lab):
    """Clients that never end hold old workers; the next reload is refused and says who they are."""
    lab.nginx()
    config = lab.config(deploy={"drain": "200ms"})
    config["traffic"]["nginx"]["max_old_workers"] = 1
    (lab.dir / "baton.yaml").write_text(json.dumps(config))
    lab.up()
    good(lab.deploy("v1"))
    clients = []
    for version in ("v2", "v3"):
        clients.append(socket.create_connection(("127.0.0.1", lab.port("page"))))
        clients[-1].sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nbegins")
        poll("a worker has it", lambda: accepted(clients[-1]))
        good(lab.deploy(version))
    done = lab.deploy("v4")
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert "2 old workers still shut down" in said and "from 127.0.0.1" in said, said
    assert "worker_shutdown_timeout" in said, said
    assert lab.ask() == "v3"
    for client in clients:
        client.close()
    poll("the old workers go", lambda: lab.deploy("v5").returncode == 0)
    assert lab.ask() == "v5"
