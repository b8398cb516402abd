"""The health-check instance: a real HAProxy, which nobody tells anything, asks the agents of two hosts
whether to send there. The second host has a network of its own."""
import shutil
import subprocess
import urllib.error
import urllib.request

import pytest

from farhost import FarHost
from lab import poll

HAPROXY = shutil.which("haproxy") or "/usr/sbin/haproxy"


def good(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return done


class Haproxy:
    """Ours, with a configuration of its own; who is up is read from its statistics page."""

    def __init__(self, lab, servers, check):
        self.lab = lab
        lines = "\n".join(f"    server {n} {a} check inter 200ms fall 2 rise 2 {port}" for n, a, port in servers)
        (lab.dir / "haproxy.cfg").write_text(f"""\
global
    maxconn 1000
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    retries 0
frontend front
    bind 127.0.0.1:{lab.port('page')}
    default_backend shop
frontend stats
    bind 127.0.0.1:{lab.port('stats')}
    stats enable
    stats uri /
backend shop
    balance roundrobin
    {check}
{lines}
""")
        with open(lab.dir / "haproxy.log", "w", encoding="utf-8") as log:
            lab.children["haproxy"] = subprocess.Popen(
                [HAPROXY, "-db", "-f", str(lab.dir / "haproxy.cfg")], cwd=lab.dir, stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

    def up(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.lab.port('stats')}/;csv", timeout=10) as a:
                rows = [line.split(",") for line in a.read().decode().splitlines()]
        except OSError:
            return None
        head = rows[0]
        status = head.index("status")
        return sorted(r[1] for r in rows[1:] if r[0] == "shop" and r[1] not in ("BACKEND", "FRONTEND")
                      and r[status].startswith("UP"))


def set_up(lab, slots=("a",), **rotation):
    """was1 is this machine, was2 another one."""
    if not shutil.which(HAPROXY):
        pytest.skip("no haproxy")
    was2 = FarHost(lab)
    lab.config(nginx=False, host="was1", slots=slots, deploy={"strategy": "rolling", "bake": "0s"}, traffic={
        "rotation": {"listen": str(lab.port("rotation")), "interval": "200ms", "fall": 2, "rise": 2, **rotation}})
    lab.services["shop"]["hosts"] = ["was1", "was2"]
    lab.write()
    lab.page = f"http://127.0.0.1:{lab.port('page')}"
    lab.server()
    lab.agent("was1")
    lab.agent("was2", machine=was2)
    return was2


def rotation(lab, address="127.0.0.1", path="/rotation/shop"):
    try:
        with urllib.request.urlopen(f"http://{address}:{lab.port('rotation')}{path}", timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as e:
        return e.code
    except OSError:
        return None


def test_rolling_over_two_hosts(lab):
    was2 = set_up(lab)
    port = f"port {lab.port('rotation')}"
    lb = Haproxy(lab, [("was1", f"127.0.0.1:{lab.port('shop-a')}", port),
                       ("was2", f"{was2.address}:{lab.port('shop-a')}", port)], "option httpchk GET /rotation/shop")
    poll("haproxy runs", lambda: lb.up() == [])
    good(lab.deploy("v1", listen="0.0.0.0"))
    assert lb.up() == ["was1", "was2"] and lab.ask() == "v1"  # seen in, when the deployment says so
    with lab.load() as load:
        good(lab.deploy("v2", listen="0.0.0.0"))
        good(lab.baton("rollback", "shop"))
    assert load.failed == 0, load.summary()
    assert load.versions()[0] == "v1" and "v2" in load.versions()
    assert lb.up() == ["was1", "was2"] and lab.ask() == "v1"
    assert {(s["host"], s["in"]) for s in lab.service()["slots"]} == {("was1", True), ("was2", True)}


def test_it_answers_while_the_server_and_the_agent_are_away(lab):
    was2 = set_up(lab)
    port = f"port {lab.port('rotation')}"
    lb = Haproxy(lab, [("was1", f"127.0.0.1:{lab.port('shop-a')}", port),
                       ("was2", f"{was2.address}:{lab.port('shop-a')}", port)],
                 "option httpchk GET /rotation/shop HTTP/1.1\\r\\nHost:\\ x")
    good(lab.deploy("v1", listen="0.0.0.0"))
    with lab.load() as load:
        lab.kill("server")
        assert rotation(lab) == 200 and rotation(lab, was2.address) == 200
        lab.kill("agent-was1")
        lab.agent("was1", wait=False)
        poll("the agent answers again", lambda: rotation(lab) == 200)
        poll("haproxy sends to both", lambda: lb.up() == ["was1", "was2"])
    assert load.failed == 0, load.summary()
    lab.server()
    poll("the agents are back", lambda: lab.connected("was1") and lab.connected("was2"))
    with lab.load() as load:
        good(lab.deploy("v2", listen="0.0.0.0"))
    assert load.failed == 0, load.summary()


def test_what_is_out_stays_out_over_a_restart(lab):
    """Two slots of one host, each asked for by its own path; the deployment of one hangs in the middle."""
    set_up(lab, slots=("a", "b"))
    good(lab.deploy("v1", listen="0.0.0.0"))
    assert [rotation(lab, path=f"/rotation/shop{p}") for p in ("", "/a", "/b", "/c")] == [200, 200, 200, 404]
    lab.services["shop"]["deploy"]["on_failure"] = "halt"
    lab.write()
    child = lab.start_deploy("v2", listen="0.0.0.0", healthy=False)
    out = poll("one slot is out, and what is new runs in it", lambda: [
        f"/{s['slot']}" for s in lab.service()["slots"] if s["host"] == "was1" and s.get("version") == "v2" and not s["in"]])
    assert len(out) == 1 and rotation(lab) == 200
    lab.kill("server")
    lab.kill("agent-was1")
    lab.agent("was1", wait=False)
    poll("the agent answers again", lambda: rotation(lab) is not None)
    assert rotation(lab, path=f"/rotation/shop{out[0]}") == 503 and rotation(lab) == 200
    child.kill()
    child.wait(30)


def test_a_closed_port_says_it_too(lab):
    was2 = set_up(lab, tcp=True)
    port = f"port {lab.port('rotation')}"
    lb = Haproxy(lab, [("was1", f"127.0.0.1:{lab.port('shop-a')}", port),
                       ("was2", f"{was2.address}:{lab.port('shop-a')}", port)], "option tcp-check")
    good(lab.deploy("v1", listen="0.0.0.0"))
    assert lb.up() == ["was1", "was2"]
    with lab.load() as load:
        good(lab.deploy("v2", listen="0.0.0.0"))
    assert load.failed == 0, load.summary()
    assert lab.ask() == "v2" and lb.up() == ["was1", "was2"]


def test_a_port_that_cannot_be_had(lab):
    """Said before anything is begun."""
    set_up(lab)
    taken = f"127.0.0.1:{lab.port('api')}"  # by the server
    lab.services["shop"]["traffic"]["rotation"]["hosts"] = {"was1": taken}
    lab.write()
    done = lab.deploy("v1", listen="0.0.0.0")
    assert done.returncode == 1 and "Address already in use" in done.stderr, done.stderr
    assert lab.api("GET", "/v1/services/shop")[0] == 404  # nothing was begun
