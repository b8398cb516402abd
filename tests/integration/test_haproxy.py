"""A real haproxy before two slots of a process, told by its runtime API: under load no request fails, and
whatever haproxy, agent or a person forgets, who is in rotation is what the run said."""
import json
import signal
import socket
import subprocess
import threading
import time

import pytest

from lab import PATIENCE, poll
from test_crash import begin, finish, newest

ADMIN_DRAIN = 8


class Haproxy:
    """haproxy as a person runs it: configuration, stats socket and server-state-file below lab.dir."""

    def __init__(self, lab, mode="http", host="local", slots=("a", "b"), check="check inter 100 rise 1 fall 2",
                 page="/actuator/health"):
        self.lab, self.mode, self.check, self.page, self.child = lab, mode, check, page, None
        self.socket, self.state = lab.dir / "haproxy.sock", lab.dir / "server-state"
        self.servers = {f"{host}-{s}": lab.port(f"shop-{s}") for s in slots}
        lab.page = f"http://127.0.0.1:{lab.port('page')}"
        self.state.write_text("")
        self.start()

    def write(self):
        servers = "\n".join(f"    server {n} 127.0.0.1:{p} {self.check}" for n, p in self.servers.items())
        http = f"option httpchk GET {self.page}" if self.mode == "http" else ""
        (self.lab.dir / "haproxy.cfg").write_text(f"""\
global
    stats socket {self.socket} mode 600 level admin expose-fd listeners
    server-state-file {self.state}
defaults
    mode {self.mode}
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    load-server-state-from-file global
frontend page
    bind 127.0.0.1:{self.lab.port('page')} backlog 1024
    default_backend shop
backend shop
    {http}
{servers}
""")

    def start(self, *args):
        self.write()
        with open(self.lab.dir / "haproxy.log", "a", encoding="utf-8") as log:
            child = subprocess.Popen(["/usr/sbin/haproxy", "-db", "-f", self.lab.dir / "haproxy.cfg", *map(str, args)],
                                     cwd=self.lab.dir, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.lab.children[f"haproxy {child.pid}"] = self.child = child
        poll("haproxy answers", lambda: child.poll() is None and f"\nPid: {child.pid}\n" in self.ask("show info"))

    def reload(self):
        """The new process takes the listening sockets over; the old one finishes what it serves."""
        self.start("-x", self.socket, "-sf", self.child.pid)

    def kill(self, number=signal.SIGKILL):
        self.child.send_signal(number)
        self.child.wait(PATIENCE)

    def ask(self, command):
        try:
            with socket.socket(socket.AF_UNIX) as s:
                s.settimeout(30)
                s.connect(str(self.socket))
                s.sendall(command.encode() + b"\n")
                return b"".join(iter(lambda: s.recv(65536), b"")).decode()
        except OSError:
            return ""

    def states(self):
        """{server: (srv_op_state, srv_admin_state)}"""
        rows = [line.split() for line in self.ask("show servers state shop").splitlines()[2:]]
        return {r[3]: (int(r[5]), int(r[6])) for r in rows if r}

    def drained(self):
        return {n for n, (_, admin) in self.states().items() if admin & ADMIN_DRAIN}


def behind(lab, proxy, host="local", on="local", state_file=True, deploy=None, **groups):
    haproxy = {"on": on, "socket": str(proxy.socket), "backend": "shop", "server": "{host}-{slot}"}
    if state_file:
        haproxy["state_file"] = str(proxy.state)
    return lab.config(host=host, slots=("a", "b"), nginx=False, traffic={"haproxy": haproxy},
                      deploy={"strategy": "rolling", "drain": "2s", "bake": "300ms", **(deploy or {})}, **groups)


def good(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def everywhere(lab, version):
    """Each of the slots serves it."""
    return {lab.ask(url=f"http://127.0.0.1:{lab.port(f'shop-{s}')}") for s in "ab"} == {version}


@pytest.mark.parametrize("mode", ["http", "tcp"])
def test_rolling_under_load(lab, mode):
    proxy = Haproxy(lab, mode)
    behind(lab, proxy)
    lab.up()
    good(lab.deploy("v1"))
    poll("both serve", lambda: not proxy.drained())
    with lab.load(slow=0.5) as load:
        good(lab.deploy("v2"))
        after = time.monotonic()
        assert everywhere(lab, "v2")
        good(lab.baton("rollback", "shop"))
        assert everywhere(lab, "v1")
    assert load.failed == 0, load.summary()
    assert load.versions(after=after)
    assert not proxy.drained()
    assert all(op == 2 for op, _ in proxy.states().values()), proxy.states()


def test_drain_counts_what_haproxy_serves(lab):
    """Requests that take longer than the switch are finished, and only then their instance ends."""
    proxy = Haproxy(lab)
    behind(lab, proxy, deploy={"drain": "60s"})
    lab.up()
    good(lab.deploy("v1"))
    answers = []
    clients = [threading.Thread(target=lambda: answers.append(lab.ask("/slow?s=4"))) for _ in range(4)]
    for client in clients:
        client.start()
    poll("each of them serves two", lambda: "shop,local-a,0,0,2," in proxy.ask("show stat shop 4 -1") and
         "shop,local-b,0,0,2," in proxy.ask("show stat shop 4 -1"))
    done = good(lab.deploy("v2"))
    for client in clients:
        client.join(PATIENCE)
    assert answers == ["v1"] * 4, answers
    assert "2 connections" in done.stdout, done.stdout
    assert everywhere(lab, "v2")


def test_reload_in_mid_run(lab):
    """While one of two is out: the new process has it out, too, from its first moment on."""
    proxy = Haproxy(lab)
    behind(lab, proxy)
    lab.up()
    good(lab.deploy("v1"))
    with lab.load() as load:
        client, _ = begin(lab, "v2", start_delay=2)
        poll("one of them is out", proxy.drained)
        poll("the state file says so", lambda: " 8 " in proxy.state.read_text())
        out = proxy.drained()
        proxy.reload()
        assert proxy.drained() == out != set()
        code, said = finish(lab, client)
        assert code == 0, said
        assert everywhere(lab, "v2")
    assert load.failed == 0, load.summary()
    assert not proxy.drained()


def test_restart_without_a_state_file(lab):
    """What it has forgotten it is told again."""
    proxy = Haproxy(lab)
    behind(lab, proxy, state_file=False, deploy={"strategy": "blue-green", "keep_warm": "1h"})
    lab.up()
    good(lab.deploy("v1"))
    good(lab.deploy("v2"))
    out = proxy.drained()
    assert len(out) == 1  # v1 runs there, warm
    proxy.kill()
    proxy.start()
    poll("it is told again who is out", lambda: proxy.drained() == out)
    with lab.load() as load:
        poll("requests are answered", lambda: load.answered(0) > 50)
    assert load.failed == 0, load.summary()
    assert load.versions() == ["v2"]


def test_what_people_do_is_told_and_left(lab):
    proxy = Haproxy(lab)
    behind(lab, proxy)
    lab.up()
    good(lab.deploy("v1"))
    proxy.ask("set server shop/local-a state maint")
    poll("status tells it", lambda: "has local/a in maintenance" in lab.baton("status", "shop").stdout)
    assert proxy.states()["local-a"][1] & 1
    good(lab.deploy("v2"))
    assert not proxy.states()["local-a"][1] & 9
    assert everywhere(lab, "v2")


def state_of(lab, agent):
    path = lab.dir / f"agent-{agent}/l4/shop/state.json"
    return json.loads(path.read_text()) if path.exists() else {}


def test_agent_killed_between_pending_and_confirmed(lab):
    """haproxy needs a while to find a server up, and in that time its agent is killed, again and again."""
    proxy = Haproxy(lab, host="was1", check="check inter 300 rise 5 fall 1")
    behind(lab, proxy, host="was1", on="l4")
    lab.server()
    lab.agent("was1")
    lab.agent("l4")
    good(lab.deploy("v1"))
    with lab.load(rate=40, browsers=2) as load:
        client, number = begin(lab, "v2", start_delay=2)  # long enough to be found down
        for slot in "ab":
            def comes_in():
                state = state_of(lab, "l4")
                members = state.get("pending", {}).get("members", [])
                return client.poll() is not None or any(m["in"] and m["slot"] == slot for m in members) and \
                    any(not m["in"] and m["slot"] == slot for m in state["confirmed"]["members"])
            poll(f"slot {slot} comes in", comes_in)
            assert client.poll() is None, client.stdout.read()
            lab.kill("agent-l4")
            assert "pending" in state_of(lab, "l4")
            lab.agent("l4")
        code, said = finish(lab, client)
        assert code == 0, said
        assert everywhere(lab, "v2")
    assert load.failed == 0, load.summary()
    assert not proxy.drained()
    assert "pending" not in state_of(lab, "l4")
    assert lab.deployment(number)["end"] == "done"


def test_unknown_server_is_told_before_anything_begins(lab):
    proxy = Haproxy(lab)
    config = behind(lab, proxy)
    lab.up()
    good(lab.deploy("v1"))
    before = len(lab.deployments())
    config["traffic"]["haproxy"]["server"] = "{host}_{slot}"
    lab.write()
    done = lab.deploy("v2")
    assert done.returncode not in (0, 3)
    assert "knows no server local_a" in done.stderr and "did you mean local-a?" in done.stderr, done.stderr
    config["traffic"]["haproxy"].update(server="{host}-{slot}", backend="shob")
    lab.write()
    done = lab.deploy("v2")
    assert done.returncode not in (0, 3)
    assert "no backend shob (did you mean shop?)" in done.stderr, done.stderr
    assert len(lab.deployments()) == before
    assert everywhere(lab, "v1") and not proxy.drained()
    config["traffic"]["haproxy"]["backend"] = "shop"
    lab.write()
    good(lab.deploy("v2"))


def test_haproxy_is_down(lab):
    proxy = Haproxy(lab)
    behind(lab, proxy)
    lab.up()
    good(lab.deploy("v1"))
    before = len(lab.deployments())
    proxy.kill()
    done = lab.deploy("v2")
    assert done.returncode not in (0, 3)
    assert "is haproxy running?" in done.stderr, done.stderr
    assert len(lab.deployments()) == before
    assert everywhere(lab, "v1")
    proxy.start()
    good(lab.deploy("v2"))


def dies_in_mid_run(lab):
    """Until the run stands still: haproxy has died for good when one of two was out and stopped. Its way back needs
    haproxy, too: 3. Returns haproxy, the run's number and what the client said."""
    proxy = Haproxy(lab)
    behind(lab, proxy)
    lab.up()
    good(lab.deploy("v1"))
    client, number = begin(lab, "v2", start_delay=2)
    poll("one of them has stopped", lambda: any(
        t["kind"] == "InstanceStop" and t["state"] == "done" for t in lab.deployment(number)["tasks"]))
    left = ({"local-a", "local-b"} - proxy.drained()).pop()[-1]
    proxy.kill()
    code, said = finish(lab, client)
    assert code == 3, said
    # nothing is stopped on the word of a balancer that is not there
    assert lab.ask(url=f"http://127.0.0.1:{lab.port(f'shop-{left}')}") == "v1", said
    return proxy, number, said


def told_again(lab):
    done = poll("haproxy has been told again what was in force", lambda: next(
        (d for d in [lab.deploy("v3")] if "will be in a moment" not in d.stderr), None))
    good(done)


def test_haproxy_dies_in_mid_run(lab):
    """The last lines say what, where and what to do, and that does it: once haproxy is back, the run that is
    resumed goes its way back to the end."""
    proxy, number, said = dies_in_mid_run(lab)
    why, command = said.strip().splitlines()[-2:]
    assert "a person is needed" in why and "haproxy on local: nobody listens at the stats socket "\
        f"{proxy.socket}: is haproxy running?" in why, said
    assert f"`baton resume {number}`" in command and f"`baton abort {number}`" in command, said
    held = lab.deploy("v3")
    assert held.returncode == 4 and "(parked)" in held.stderr and "resume" in held.stderr, held.stderr
    lab.baton("resume", number)  # too early: it stands still again
    poll("it stands still again", lambda: lab.deployment(number)["phase"] == "parked")
    proxy.start()
    with lab.load(rate=40) as load:
        good(lab.baton("resume", number))
        assert poll("it has ended", lambda: lab.deployment(number).get("end")) == "rolled_back"
        assert everywhere(lab, "v1") and not proxy.drained()
        told_again(lab)
        assert everywhere(lab, "v3") and not proxy.drained()
    assert load.failed == 0, load.summary()


def test_haproxy_dies_in_mid_run_and_a_person_aborts(lab):
    """All stays as it is, and the next deployment makes it whole."""
    proxy, number, _ = dies_in_mid_run(lab)
    proxy.start()
    out = proxy.drained()
    assert len(out) == 1
    good(lab.baton("abort", number))
    assert poll("it has ended", lambda: lab.deployment(number).get("end")) == "parked"
    assert proxy.drained() == out
    told_again(lab)
    assert everywhere(lab, "v3") and not proxy.drained()


def test_haproxy_dies_while_it_is_told(lab):
    """Who was to leave had not left yet for all that is known: nothing is stopped, and the run goes back by itself."""
    proxy = Haproxy(lab)
    behind(lab, proxy)
    lab.up()
    good(lab.deploy("v1"))
    client, _ = begin(lab, "v2")
    poll("one of them is out", proxy.drained)
    proxy.kill()
    code, said = finish(lab, client)
    assert code in (1, 3), said  # 3: it had been told already
    proxy.start()
    if code == 3:
        good(lab.baton("resume", newest(lab)))
    poll("it has ended", lambda: lab.deployments()[0].get("end"))
    told_again(lab)
    assert everywhere(lab, "v3") and not proxy.drained()


def test_a_server_that_haproxy_finds_down_is_not_in(lab):
    """haproxy asks for another page than baton, and its word counts: the run goes back."""
    proxy = Haproxy(lab, page="/version")
    behind(lab, proxy, health={"within": "5s"})
    lab.up()
    good(lab.deploy("v1"))
    with lab.load(rate=40) as load:
        done = lab.deploy("v2", answer_500=True)  # healthy, by its own page
        assert done.returncode == 1, done.stdout + done.stderr
        assert "DOWN, L7STS" in done.stdout, done.stdout
        assert everywhere(lab, "v1")
    assert load.failed == 0, load.summary()
    poll("both serve", lambda: not proxy.drained())
