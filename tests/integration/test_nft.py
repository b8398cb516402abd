"""nftables as the balancer of two hosts, address translation and direct server return: real packets between
networks, under load from a client that reaches nothing but the VIP."""
import json
import time

import pytest

from l4lab import LAN, L4Lab, alone
from lab import PYTHON, poll

BOTH = pytest.mark.parametrize("mode", ["nat", "dsr", "nat6", "dsr6"])


def good(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return done


class Net(L4Lab):
    """With a service behind nftables on l4, and agents everywhere. nat6, dsr6: by IPv6."""

    def __init__(self, lab, mode, outside=False, traffic=None, **groups):
        super().__init__(lab, six=mode.endswith("6"))
        self.mode = mode = mode.rstrip("6")
        self.l4.forward()
        if outside:
            self.go_outside()
        else:
            self.l4.hold(self.vip)
        traffic = {"on": "l4", "vip": self.vip, "port": 8080, "mode": mode, **(traffic or {})}
        if mode == "dsr":
            traffic["interface"] = LAN
            for host in (self.was1, self.was2):
                host.serve_behind(self.vip)
        self.config(traffic={"nftables": traffic}, **{"deploy": {"bake": "0s", "strategy": "rolling"}, **groups})
        self.agents()

    @property
    def table(self):
        return ("netdev" if self.mode == "dsr" else "ip6" if self.six else "ip", "baton_shop")

    def members(self):
        """{address: in} as baton's server sees it."""
        world = self.lab.service()["world"]
        found = [b for h in world["hosts"] for b in h["balancers"] if b["running"]]
        return {m["address"]: m["in"] for b in found for m in b["members"]}

    def answering(self, *hosts):
        """Until new connections reach all of these hosts."""
        seen = set()
        poll(f"answers of {hosts}", lambda: seen.add((self.ask() or "/").split("/")[0]) or seen >= set(hosts))


ANY = {"listen": "::"}


def hosts_of(load, **which):
    return {body.split("/")[0] for body in load.bodies(**which)}


@BOTH
def test_rolling_under_load(lab, mode):
    net = Net(lab, mode)
    good(lab.deploy("v1", **ANY))
    net.answering("was1", "was2")
    with net.load() as load:
        load.wait(50)
        good(lab.deploy("v2", **ANY))
        load.wait(50)
        good(lab.baton("rollback", "shop"))
        load.wait(50)
    assert load.failed == 0, load.summary()
    assert load.strayed() == {}
    assert {b.split()[-1] for b in load.bodies(kind="new")} == {"v1", "v2"}
    assert hosts_of(load) == {"was1", "was2"}


@BOTH
def test_off_and_on_again(lab, mode):
    """Established connections keep their server through every change, new ones go where the balancer is told."""
    net = Net(lab, mode, deploy={"bake": "0s", "strategy": "rolling", "drain": "1s"})
    good(lab.deploy("v1", **ANY))
    net.answering("was1", "was2")
    with net.load(holders=24) as load:
        load.wait(100)
        assert hosts_of(load, kind="held") == {"was1", "was2"}
        good(lab.baton("run", "turnOffL4", "--service", "shop", "--hosts", "was1"))
        off = time.monotonic()
        load.wait(60)
        assert hosts_of(load, kind="new", after=off) == {"was2"}
        assert hosts_of(load, kind="held", after=off) == {"was1", "was2"}
        assert net.members() == {net.was1.address: False, net.was2.address: True}
        good(lab.baton("run", "turnOnL4", "--service", "shop", "--hosts", "was1"))
        on = time.monotonic()
        poll("new connections reach was1", lambda: "was1" in hosts_of(load, kind="new", after=on))
        good(lab.baton("run", "turnOffL4", "--service", "shop", "--hosts", "was2"))
        good(lab.baton("run", "turnOnL4", "--service", "shop", "--hosts", "was2"))
        load.wait(50)
    assert load.failed == 0, load.summary()
    assert load.strayed() == {}, "a connection changed its server"


@BOTH
def test_drain_waits_for_connections(lab, mode):
    """The drain ends when the last connection of the host has ended, and counts no other."""
    net = Net(lab, mode, deploy={"bake": "0s", "strategy": "rolling", "drain": "60s"})
    good(lab.deploy("v1", **ANY))
    net.answering("was1", "was2")
    with net.load(holders=24, rate=5, keepers=0) as load:
        poll("both are held", lambda: hosts_of(load, kind="held") == {"was1", "was2"})
        run = lab.start_baton("run", "turnOffL4", "--service", "shop", "--hosts", "was1", "--json")
        poll("was1 is out", lambda: net.members().get(net.was1.address) is False)
        off = time.monotonic()
        load.wait(10, after=off)
        assert run.poll() is None, "it did not wait for the connections"
        load.tell("finish")
        assert run.wait(60) == 0, run.stdout.read()
    assert load.failed == 0, load.summary()
    tasks = [json.loads(line) for line in run.stdout.read().splitlines() if line.startswith("{")]
    drains = [t for t in tasks if t.get("task", {}).get("kind") == "Drain" and t.get("kind") == "result"]
    assert drains and all(t["outcome"] == "done" for t in drains)
    assert {t["task"]["host"] for t in drains} == {"was1" if net.mode == "dsr" else "l4"}


@BOTH
def test_half_open_connections(lab, mode):
    """One that was begun before the host went out and is not established yet, since packets were lost, ends
    where it began: its SYN is repeated to the same host, and the drain waits for it."""
    net = Net(lab, mode, deploy={"bake": "0s", "strategy": "rolling", "drain": "60s"})
    good(lab.deploy("v1", **ANY))
    net.answering("was1", "was2")
    net.was1.run("nft", "add table inet lost; add chain inet lost out { type filter hook output priority 0; }; "
                 "add rule inet lost out tcp sport 8080 tcp flags & (syn | ack) == syn | ack drop")
    with net.load(holders=12, rate=0, keepers=0) as load:
        poll("some wait for was1", lambda: net.was1.run("ss", "-Htn", "state", "syn-recv", "sport", "=", ":8080").stdout)
        run = lab.start_baton("run", "turnOffL4", "--service", "shop", "--hosts", "was1")
        poll("was1 is out", lambda: net.members().get(net.was1.address) is False)
        off = time.monotonic()
        assert run.poll() is None, "it did not wait for what is half open"
        net.was1.run("nft", "delete", "table", "inet", "lost")
        poll("was1 answers them", lambda: "was1" in hosts_of(load, kind="held", after=off))
        load.tell("finish")
        assert run.wait(60) == 0, run.stdout.read()
    assert load.failed == 0, load.summary()
    assert load.strayed() == {}


@BOTH
def test_the_agent_is_killed(lab, mode):
    net = Net(lab, mode)
    good(lab.deploy("v1", **ANY))
    net.answering("was1", "was2")
    with net.load() as load:
        load.wait(30)
        run = lab.start_deploy("v2", **ANY)
        poll("one is out", lambda: list(net.members().values()).count(False) == 1)
        lab.kill("agent-l4")
        load.wait(30)
        lab.agent("l4", machine=net.l4)
        assert run.wait(120) == 0, run.stdout.read()
        load.wait(30)
    assert load.failed == 0, load.summary()
    assert load.strayed() == {}
    assert all(net.members().values())


ONE_PORT = """
import socket, sys
with socket.create_connection((sys.argv[1], 8080), timeout=20, source_address=("", int(sys.argv[2]))) as s:
    s.sendall(b"GET /where HTTP/1.0\\r\\nHost: x\\r\\n\\r\\n")
    print(b"".join(iter(lambda: s.recv(4096), b"")).partition(b"\\r\\n\\r\\n")[2].decode())
"""


def test_a_port_that_is_used_again(lab):
    """A client takes the port of a connection that has just ended: what begins there is new, and does not go
    to whom the old one went when that host is out."""
    net = Net(lab, "dsr")
    good(lab.deploy("v1", **ANY))
    net.answering("was1", "was2")

    def ask(port):
        return net.client.run(PYTHON, "-c", ONE_PORT, net.vip, port).stdout.split("/")[0].strip()

    ports = [port for port in range(20000, 20040) if ask(port) == "was1"][-3:]
    assert len(ports) == 3
    good(lab.baton("run", "turnOffL4", "--service", "shop", "--hosts", "was1"))
    assert [ask(port) for port in ports] == ["was2"] * 3


@BOTH
def test_somebody_flushes_the_rules(lab, mode):
    """What was in force is written again, with who was out still out."""
    net = Net(lab, mode)
    good(lab.deploy("v1", **ANY))
    good(lab.baton("run", "turnOffL4", "--service", "shop", "--hosts", "was1"))
    net.l4.run("nft", "flush", "ruleset")
    poll("the rules are back", lambda: net.l4.run("nft", "list", "table", *net.table, check=False).returncode == 0)
    poll("was2 answers", net.ask)
    with net.load(rate=100, keepers=0) as load:
        load.wait(50)
    assert load.failed == 0, load.summary()
    assert hosts_of(load) == {"was2"}


def off_and_on_while_it_is_deployed(net):
    """Everything that changes the rules, under load: no request fails, and the servers know who asks."""
    lab, asks = net.lab, net.client_address
    good(lab.deploy("v1", **ANY))
    net.answering("was1", "was2")
    assert {net.ask("/client").removeprefix("::ffff:") for _ in range(4)} == {asks}
    with net.load() as load:
        load.wait(50)
        for host, other in (("was1", "was2"), ("was2", "was1")):
            good(lab.baton("run", "turnOffL4", "--service", "shop", "--hosts", host))
            off = time.monotonic()
            load.wait(30)
            assert hosts_of(load, kind="new", after=off) == {other}
            good(lab.baton("run", "turnOnL4", "--service", "shop", "--hosts", host))
        good(lab.deploy("v2", **ANY))
        load.wait(50)
    assert load.failed == 0, load.summary()
    assert load.strayed() == {}
    assert {net.ask("/client").removeprefix("::ffff:") for _ in range(4)} == {asks}


@pytest.mark.parametrize("mode", ["nat", "nat6"])
@pytest.mark.parametrize("outside", [True, False], ids=["two_segments", "one_segment"])
def test_no_masquerade(lab, mode, outside):
    """The servers' way back leads through the balancer, from another segment or, by a route, to a client on
    their own one."""
    net = Net(lab, mode, outside=outside, traffic={"masquerade": False})
    if not outside:
        for host in (net.was1, net.was2):
            host.run("ip", "route", "add", alone(net.client_address), "via", net.l4.address)
    off_and_on_while_it_is_deployed(net)


def test_a_silent_host_is_not_switched_to(lab):
    """Direct server return would swallow the connections of a host that is not to be found on the segment."""
    net = Net(lab, "dsr")
    good(lab.deploy("v1", **ANY))
    good(lab.baton("run", "turnOffL4", "--service", "shop", "--hosts", "was1"))
    net.was1.run("ip", "link", "set", LAN, "down")
    net.l4.run("ip", "neigh", "flush", "dev", LAN)
    done = lab.baton("run", "turnOnL4", "--service", "shop", "--hosts", "was1")
    assert done.returncode == 1, done.stdout
    with net.load(rate=100, keepers=0) as load:
        load.wait(50)
    assert load.failed == 0, load.summary()
    assert hosts_of(load) == {"was2"}


def test_a_balancer_that_speaks_from_the_vip(lab):
    """IPv6 takes any address of a host for its own word, and who is asked from the VIP answers himself: that is
    said before anything begins, with the command that mends it. What is on its way goes on."""
    net = Net(lab, "dsr6")
    good(lab.deploy("v1", **ANY))
    net.answering("was1", "was2")
    net.l4.run("ip", "addr", "change", f"{net.vip}/128", "dev", LAN, "preferred_lft", "forever")
    before = len(lab.deployments())
    done = lab.deploy("v2", **ANY)
    assert done.returncode not in (0, 3) and len(lab.deployments()) == before, done.stdout + done.stderr
    command = f"ip addr change {net.vip}/128 dev {LAN} preferred_lft 0"
    assert command in done.stderr, done.stderr
    net.answering("was1", "was2")
    net.l4.run(*command.split())
    good(lab.deploy("v2", **ANY))


def test_no_forwarding(lab):
    """What the host lacks is said, and nothing is begun."""
    net = Net(lab, "nat")
    net.l4.set("net.ipv4.ip_forward", 0)
    done = lab.deploy("v1", **ANY)
    assert done.returncode != 0
    assert "net.ipv4.ip_forward" in done.stdout + done.stderr
    net.l4.set("net.ipv4.ip_forward", 1)
    good(lab.deploy("v2", **ANY))
    net.answering("was1", "was2")


def test_the_mode_is_changed(lab):
    """From address translation to direct server return by the next deployment: no old rule stays."""
    net = Net(lab, "nat")
    good(lab.deploy("v1", **ANY))
    net.answering("was1", "was2")
    for host in (net.was1, net.was2):
        host.serve_behind(net.vip)
    lab.services["shop"]["traffic"]["nftables"].update(mode="dsr", interface=LAN)
    lab.write()
    good(lab.deploy("v2", **ANY))
    tables = json.loads(net.l4.run("nft", "-j", "list", "tables").stdout)["nftables"]
    assert [t["table"]["family"] for t in tables if t.get("table", {}).get("name") == "baton_shop"] == ["netdev"]
    net.answering("was1", "was2")
