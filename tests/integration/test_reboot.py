"""The host loses its power and comes back, under a real systemd: all that ran runs again by itself, and no
request meets an app that is not healthy."""
import json
import os
import pathlib
import shutil
import time

import pytest

from lab import HERE, PYTHON, poll
from machine import Machine, Requests

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="a container needs root")
PAGE = "http://127.0.0.1:8000/version"


@pytest.fixture
def machine(lab):
    assert shutil.which("systemd-nspawn"), "systemd-container is missing: tools/deps.sh test"
    it = Machine(lab)
    try:
        yield it
        if it.leader:
            (lab.dir / "journal.log").write_text(it.journal())
    finally:
        it.close()


def set_up(machine, traffic):
    """Server, agent and policy as the packaging's comments say; one service on this machine."""
    machine.write("/etc/baton/policy.yaml", "run_as: [www-data]\n")
    machine.write("/srv/shop/baton.yaml", json.dumps({
        "service": "shop", "hosts": ["was1"],
        "run": {"as": "process", "user": "www-data", "command": f"{PYTHON} {{artifact}} --port {{port}} --slot {{slot}}",
                "slots": {"blue": 8081, "green": 8082}},
        "health": {"http": "/actuator/health", "every": "100ms", "within": "30s"},
        "traffic": {"nginx": {"on": "was1", **traffic}},
        "deploy": {"strategy": "blue-green", "drain": "5s", "bake": "0s"}}))
    machine.boot()
    machine.run("systemd-sysusers")
    machine.run("install", "-d", "-o", "baton", "-g", "baton", "-m", "700", "/var/lib/baton")
    done = machine.run("runuser", "-u", "baton", "--", "baton", "server", "init", "--dir", "/var/lib/baton", "--name", "localhost")
    client = {"BATON_TOKEN": done.stdout.split()[-1], "BATON_SERVER": "http://127.0.0.1:7070"}
    machine.run("systemctl", "start", "baton-server")
    poll("the server answers", lambda: machine.run("baton", "hosts", check=False, **client).returncode == 0)
    token = machine.run("baton", "join-token", "was1", **client).stdout.split()[-1]
    machine.run("baton", "agent", "join", "https://127.0.0.1:7071", "--host", "was1", "--address", "127.0.0.1", "--dir",
                "/var/lib/baton-agent", BATON_JOIN_TOKEN=token)
    machine.run("systemctl", "start", "baton-agent")
    poll("the agent connects", lambda: "yes" in machine.run("baton", "hosts", **client).stdout)
    return client


def deploy(machine, client, version, **settings):
    machine.write(f"/srv/shop/{version}.py", f"SETTINGS = {dict(settings, version=version)!r}\n" + (HERE / "app.py").read_text())
    machine.run("baton", "deploy", "-f", "/srv/shop/baton.yaml", "-a", f"/srv/shop/{version}.py", "-v", version,
                timeout=120, **client)


def app_pids(machine):
    done = machine.run("pgrep", "-u", "www-data", "-f", "--", "--slot", check=False)
    return set(done.stdout.split())


def plug(machine, requests, client):
    """Pulls the plug and boots; every answer from then on until the service is back for good."""
    begun = time.monotonic()
    machine.power_off()
    machine.boot(wait=False)
    poll("the service is back by itself", lambda: [s for s in requests.since(begun)[-20:] if s[1] == 200][19:])
    poll("server and agent are back", lambda: "yes" in machine.run("baton", "hosts", check=False, **client).stdout)
    poll("the server sees what runs", lambda: "running" in machine.run("baton", "status", "shop", check=False, **client).stdout)
    return requests.since(begun)


def test_managed_nginx_after_a_power_cut(machine):
    client = set_up(machine, {"listen": "127.0.0.1:8000"})
    machine.enable("baton-server.service", "baton-agent.service")
    deploy(machine, client, "v1", warm_up=2)
    deploy(machine, client, "v2", warm_up=2)
    with Requests(machine, PAGE) as requests:
        poll("it serves", lambda: "v2" in requests.bodies())
        # A restart of the agent is nothing to the apps.
        before = app_pids(machine)
        machine.run("systemctl", "restart", "baton-agent")
        poll("the agent is back", lambda: "yes" in machine.run("baton", "hosts", **client).stdout)
        assert app_pids(machine) == before and before
        assert {status for _, status, _ in requests.seen} == {200}, "the restart was noticed"
        after = plug(machine, requests, client)
        assert {body for _, status, body in after if status == 200} == {"v2"}
        assert {status for _, status, _ in after} <= {200, 502, 503, None}
        # In the middle of a run, which goes on to its end.
        one = app_pids(machine)
        machine.write("/srv/shop/v2b.py", machine.path("/srv/shop/v2.py").read_text().replace("'v2'", "'v2b'"))
        machine.run("baton", "deploy", "--detach", "-f", "/srv/shop/baton.yaml", "-a", "/srv/shop/v2b.py", "-v", "v2b", **client)
        poll("its app is there", lambda: len(app_pids(machine)) > len(one))
        after = plug(machine, requests, client)
        poll("the run ends", lambda: "done" in machine.run("baton", "history", "-n", "1", **client).stdout)
        assert "v2b" in requests.bodies()
        assert {body for _, status, body in after if status == 200} <= {"v2", "v2b"}
        # And it is still one that can be deployed to, and whose agent may be restarted.
        deploy(machine, client, "v3")
        machine.run("systemctl", "restart", "baton-agent")
        poll("v3 serves", lambda: requests.seen[-1][2] == "v3")
    assert requests.bodies() == {"v2", "v2b", "v3"}
    assert not pathlib.Path(machine.path("/var/lib/baton-agent/boot")).read_text().count("slot")


def test_nginx_of_systemd_that_starts_before_the_agent(machine):
    machine.write("/etc/nginx/baton/shop.conf", "upstream shop { server 127.0.0.1:8081; }\n")
    machine.write("/etc/nginx/sites-enabled/default", "include /etc/nginx/baton/shop.conf;\nserver { listen 127.0.0.1:8000; "
                  "location / { proxy_pass http://shop; } }\n")
    machine.enable("nginx.service")
    client = set_up(machine, {"adopt": {"include": "/etc/nginx/baton/shop.conf"}, "url": "http://127.0.0.1:8000"})
    machine.enable("baton-agent.service")  # and no server: it is away when the host comes back
    deploy(machine, client, "v1", warm_up=3)
    confirmed = machine.path("/etc/nginx/baton/shop.conf").read_text()
    with Requests(machine, PAGE) as requests:
        poll("it serves", lambda: "v1" in requests.bodies())
        begun = time.monotonic()
        machine.power_off()
        machine.boot(wait=False)
        poll("nginx is back", lambda: any(status for _, status, _ in requests.since(begun)))
        poll("the service is back by itself", lambda: [s for s in requests.since(begun)[-20:] if s[1] == 200][19:])
        after = requests.since(begun)
        # An agent that is restarted now holds nothing back.
        machine.run("systemctl", "restart", "baton-agent")
        machine.run("systemctl", "start", "baton-server")
        poll("the agent links", lambda: "yes" in machine.run("baton", "hosts", check=False, **client).stdout)
        assert requests.seen[-1][1] == 200
    assert {body for _, status, body in after if status == 200} == {"v1"}
    assert 502 in {status for _, status, _ in after}
    assert machine.path("/etc/nginx/baton/shop.conf").read_text() == confirmed
