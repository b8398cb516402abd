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


@pytest.mark.parametrize("policy, code, serves, seconds", [("continue", 0, "v2", 15), ("fail", 1, "v1", 60)])
def test_a_request_that_outlives_the_drain(lab, policy, code, serves, seconds):
    lab.nginx()
    lab.config(deploy={"drain": "500ms", "on_drain_timeout": policy}, run={"stop": {"signal": "TERM", "grace": "60s"}})
    lab.up()
    good(lab.deploy("v1"))
    with lab.load() as load, socket.create_connection(("127.0.0.1", lab.port("page"))) as slow:
        before = connections(lab.port("page"))
        slow.sendall(f"GET /slow?s={seconds} HTTP/1.0\r\nHost: x\r\n\r\n".encode())
        poll("the slow request is under way", lambda: connections(lab.port("page")) >= before)
        done = lab.deploy("v2")
        said = done.stdout + done.stderr
        assert done.returncode == code, said
        assert "when the drain time passed" in said, said
        assert lab.ask() == serves
        if policy == "continue":  # the app finishes what it has, and the old worker waits for it
            slow.settimeout(60)
            answer = b"".join(iter(lambda: slow.recv(4096), b""))
            assert b" 200 OK" in answer and answer.endswith(b"v1"), answer
    assert load.failed == 0, load.summary()


def connections(port):
    """Established to this port, from /proc/net/tcp."""
    rows = pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(row.split()[2].endswith(f":{port:04X}") and row.split()[3] == "01" for row in rows)


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
        before = connections(lab.port("page"))
        clients.append(socket.create_connection(("127.0.0.1", lab.port("page"))))
        clients[-1].sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nbegins")
        poll("a worker has it", lambda: connections(lab.port("page")) > before)
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
