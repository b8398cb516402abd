"""What test_ipvs.py runs in user-mode Linux, whose kernel has IPVS: one network of hosts, real agents, real
connections. Named otherwise than test_*.py, so that it is not looked for on this machine's kernel."""
import re
import time

import pytest

from flow_lab import FlowLab
from l4lab import LAN, NET, L4Lab
from lab import PATIENCE, poll

PORT = 8080
SLOW = 3 * PATIENCE  # one processor, and every system call is traced


@pytest.fixture
def net(lab):
    net = L4Lab(lab)
    net.l4.hold(net.vip)
    for name in ("expire_nodest_conn", "expire_quiescent_template"):
        net.l4.set(f"net.ipv4.vs.{name}", 1)
    return net


def table(net):
    """{address: (forwarding, weight, active, inactive)} and the service's line."""
    service, servers = None, {}
    for line in net.l4.run("ipvsadm", "-L", "-n").stdout.splitlines():
        words = line.split()
        if words and words[0] == "TCP":
            service = line.strip()
        if words and words[0] == "->" and words[1] != "RemoteAddress:Port":
            servers[words[1]] = (words[2], *map(int, words[3:6]))
    return service, servers


def config(net, mode, **groups):
    """Clients that keep a connection close it before the drain is over; what is stopped has none."""
    return net.config(port=PORT, traffic={"ipvs": {"on": "l4", "vip": net.vip, "mode": mode, **groups}},
                      deploy={"strategy": "rolling", "drain": "60s", "bake": "0s"})


def deploy(net, version, **settings):
    return net.lab.deploy(version, listen="0.0.0.0", **settings)


def balancer(net):
    return net.lab.service()["balancers"][0]


def was(net):
    return [f"{net.hosts[n].address}:{PORT}" for n in ("was1", "was2")]


def run_flow(net, version):
    return net.lab.baton("run", "deployAndTomcatRestartWithL4Control", "--service", "shop", "--version", version,
                         "--artifact", net.lab.artifact(version, listen="0.0.0.0"))


def rolls_under_load(net, roll):
    done = deploy(net, "v1")
    assert done.returncode == 0, done.stdout + done.stderr
    with net.load(path="/where", rate=20, keepers=2) as load:
        load.wait(20)
        done = roll(net, "v2")
        assert done.returncode == 0, done.stdout + done.stderr
        after = time.monotonic()
        load.wait(40)
    assert load.failed == 0, load.summary()
    assert not load.strayed()
    return load, after


def test_direct_routing(net):
    for name in ("was1", "was2"):
        net.hosts[name].serve_behind(net.vip)
    net.agents()
    config(net, "dr")
    load, after = rolls_under_load(net, run_flow)
    assert len(load.bodies(after)) == 2, load.bodies(after)  # both hosts serve, each with the new release
    service, servers = table(net)
    assert f"{net.vip}:{PORT} wrr" in service
    assert {k: v[:2] for k, v in servers.items()} == {a: ("Route", 100) for a in was(net)}
    assert not balancer(net).get("trouble"), balancer(net)

    # a connection that is held holds the drain of its host, and the other serves meanwhile, also while
    # the balancer's agent is dead
    with net.load(path="/where", rate=10, keepers=0, holders=1, pause=0.1) as load:
        load.wait(5)
        held = poll("a host has the held connection", lambda: next(
            (a for a, (_, _, active, _) in table(net)[1].items() if active == 1 and once_more(net, a)), None))
        client = net.lab.start_deploy("v3", listen="0.0.0.0")
        poll("its host is out of rotation", lambda: table(net)[1][held][1] == 0, SLOW)
        net.lab.kill("agent-l4")
        load.wait(20)
        now = table(net)[1][held]
        assert now[1] == 0 and now[2] == 1, "it keeps its connection and has weight 0"
        assert client.poll() is None
        net.lab.agent("l4", machine=net.l4)
        load.tell("finish")
        output, _ = client.communicate(timeout=SLOW)
        assert client.returncode == 0, output
    assert load.failed == 0, load.summary()
    assert {v[1] for v in table(net)[1].values()} == {100}

    # emptied by somebody: said again
    net.l4.run("ipvsadm", "-C")
    poll("the table is as it was", lambda: {v[:2] for v in table(net)[1].values()} == {("Route", 100)} and
         len(table(net)[1]) == 2, SLOW)

    # settings that let it fail are named, with what is there and what is expected
    net.l4.set("net.ipv4.vs.expire_nodest_conn", 0)
    poll("the setting is named", lambda: re.search(
        r"net\.ipv4\.vs\.expire_nodest_conn is 0, expected 1", balancer(net).get("trouble") or ""), SLOW)
    net.l4.run("ip", "addr", "del", f"{net.vip}/32", "dev", LAN)
    poll("the missing address is named", lambda: f"vip {net.vip} is no address of this host" in
         (balancer(net).get("trouble") or ""), SLOW)


def test_tomcats(lab):
    """The flow of the document with a Tomcat on each host, the addresses taken off and put on by it."""
    net = FlowLab(lab, "ipvs", health={"within": f"{SLOW}s"}, deploy={"drain": "60s"})
    done = net.deploy("v1")
    assert done.returncode == 0, done.stdout + done.stderr
    with net.load_shop(rate=20, keepers=2) as load:
        load.wait(20)
        done = net.run_flow("v2")
        assert done.returncode == 0, done.stdout + done.stderr
        load.wait(20)
    assert load.failed == 0, load.summary()
    assert load.bodies() == {"v1", "v2"} and net.versions() == {"v2"}
    steps = [f"{name}: " for name in ("L4TurnOff", "LoopbackStop", "TomcatStop", "ComponentDeploy", "TomcatStart",
                                      "LoopbackStart", "L4TurnOn")]
    assert not [step for step in steps if step not in done.stdout], done.stdout
    assert {k: v[:2] for k, v in table(net)[1].items()} == {a: ("Route", 100) for a in was(net)}


def once_more(net, address):
    """Not one that was just passing by."""
    time.sleep(0.3)
    return table(net)[1][address][2] == 1


def test_nat(net):
    # replies must come back through the balancer, although the client is on the same segment
    for name in ("all", LAN):
        net.l4.set(f"net.ipv4.conf.{name}.send_redirects", 0)
    for name in ("was1", "was2"):
        net.hosts[name].run("ip", "route", "add", f"{NET}.10/32", "via", net.l4.address, "dev", LAN)
    net.l4.set("net.ipv4.ip_forward", 0)
    net.agents()
    config(net, "nat", weight=5)
    poll("forwarding is named", lambda: in_plan(net, "net.ipv4.ip_forward is 0, expected 1"), SLOW)
    net.l4.set("net.ipv4.ip_forward", 1)
    load, after = rolls_under_load(net, deploy)
    assert len(load.bodies(after)) == 2, load.bodies(after)
    assert {k: v[:2] for k, v in table(net)[1].items()} == {a: ("Masq", 5) for a in was(net)}


def in_plan(net, words):
    done = net.lab.baton("plan", "shop", "--artifact", net.lab.artifact("v0"), "--version", "v0", "--json")
    return words in done.stdout + done.stderr


def test_adopted(net):
    """A service that ipvsadm made keeps what it has: scheduler, persistence, weights, a real server of others."""
    for name in ("was1", "was2"):
        net.hosts[name].serve_behind(net.vip)
    foreign = f"{NET}.50:{PORT}"
    one, two = was(net)
    at = ("-t", f"{net.vip}:{PORT}")
    net.l4.run("ipvsadm", "-A", *at, "-s", "wlc", "-p", 360)
    net.l4.run("ipvsadm", "-a", *at, "-r", one, "-g", "-w", 4, "-x", 900, "-y", 800)
    net.l4.run("ipvsadm", "-a", *at, "-r", two, "-g", "-w", 0)
    net.l4.run("ipvsadm", "-a", *at, "-r", foreign, "-g", "-w", 3)
    before = table(net)[0]
    net.agents()
    config(net, "dsr", scheduler="rr")
    for version in ("v1", "v2"):
        done = deploy(net, version)
        assert done.returncode == 0, done.stdout + done.stderr
    service, servers = table(net)
    assert service == before and "wlc persistent 360" in service
    # was2 had none, so it has as much as the others at most
    assert {k: v[:2] for k, v in servers.items()} == {
        one: ("Route", 4), two: ("Route", 4), foreign: ("Route", 3)}
    limits = net.l4.run("ipvsadm", "-L", "-n", "--thresholds").stdout
    assert re.search(rf"{re.escape(one)}\s+900\s+800", limits), limits
    # it is told that somebody else's is in rotation there, which keeps no deployment from going on
    assert in_plan(net, f"sends to {foreign} too"), "the foreign real server is not named"
