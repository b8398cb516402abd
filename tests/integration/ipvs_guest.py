"""What test_ipvs.py runs in user-mode Linux, whose kernel has IPVS: one network of hosts, real agents, real
connections. Named otherwise than test_*.py, so that it is not looked for on this machine's kernel."""
import ctypes
import ipaddress
import os
import re
import threading
import time

import pytest

from flow_lab import FlowLab
from keepalived import Keepalived, virtual_server
from l4lab import LAN, NET, L4Lab, alone, place
from lab import PATIENCE, poll

PORT = 8080
CLONE_NEWNET = 0x40000000
SLOW = 3 * PATIENCE  # one processor, and every system call is traced


def network(lab, **options):
    net = L4Lab(lab, **options)
    net.l4.hold(net.vip)
    for name in ("expire_nodest_conn", "expire_quiescent_template"):
        net.l4.set(f"net.ipv4.vs.{name}", 1)
    return net


@pytest.fixture
def net(lab):
    return network(lab)


def kernel_table(net):
    """The file that tells l4's table, which a thread has opened there: to begin a program for each look would take
    most of the guest's one processor."""
    def enter():
        with open(f"/run/netns/{net.l4.name}", encoding="utf-8") as where:
            assert ctypes.CDLL(None, use_errno=True).setns(where.fileno(), CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        net.ip_vs = open("/proc/thread-self/net/ip_vs", "rb", buffering=0)  # pylint: disable=consider-using-with

    if not hasattr(net, "ip_vs"):
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
    net.ip_vs.seek(0)
    return b"".join(iter(lambda: net.ip_vs.read(4096), b"")).decode()


def spoken(hexadecimal):
    """"C0A84D0B:1F90" or "[fd77:…]:1F90", as the kernel writes it, in words of ours."""
    address, port = hexadecimal.rsplit(":", 1)
    number = ipaddress.ip_address(address.strip("[]") if "[" in address else int(address, 16))
    return place(str(number), int(port, 16))


def table(net, port=PORT):
    """{address: (forwarding, weight, active, inactive)} and the service's line."""
    service, servers, here = None, {}, False
    for line in kernel_table(net).splitlines():
        words = line.split()
        if words[0] == "TCP":
            here = spoken(words[1]) == place(str(ipaddress.ip_address(net.vip)), port)
            service = " ".join(["TCP", place(net.vip, port), *words[2:]]) if here else service
        elif here and words[0] == "->":
            servers[spoken(words[1])] = (words[2], *map(int, words[3:6]))
    return service, servers


def config(net, mode, name="shop", port=PORT, **groups):
    """Clients that keep a connection close it before the drain is over; what is stopped has none."""
    return configured(net, name, port, {"ipvs": {"on": "l4", "vip": net.vip, "mode": mode, **groups}})


def configured(net, name, port, traffic):
    return net.config(name, port, traffic=traffic, health={"every": "500ms", "within": f"{SLOW}s"},
                      deploy={"strategy": "rolling", "drain": "60s", "bake": "0s"})


def listen(net):
    return "::" if net.six else "0.0.0.0"


def deploy(net, version, **options):
    return net.lab.deploy(version, listen=listen(net), **options)


def balancer(net):
    return net.lab.service()["balancers"][0]


def was(net, port=PORT):
    return [place(a, port) for a in hosts(net)]


def flow(net, version, **settings):
    return ("run", "deployAndTomcatRestartWithL4Control", "--service", "shop", "--version", version,
            "--artifact", net.lab.artifact(version, listen=listen(net), **settings))


def run_flow(net, version):
    return net.lab.baton(*flow(net, version))


def rolls_under_load(net, roll):
    done = deploy(net, "v1")
    assert done.returncode == 0, done.stdout + done.stderr
    with net.load(path="/where", rate=20, keepers=2, timeout=SLOW) as load:
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
    with net.load(path="/where", rate=10, keepers=0, holders=1, pause=0.1, timeout=SLOW) as load:
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


def in_plan(net, words, service="shop"):
    done = net.lab.baton("plan", service, "--artifact", net.lab.artifact("v0"), "--version", "v0", "--json")
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


def test_ipv6(lab):
    """Both modes once more, with IPv6 addresses everywhere."""
    net = network(lab, six=True)
    for name in ("was1", "was2"):
        net.hosts[name].serve_behind(net.vip)
    net.agents()
    config(net, "dr")
    load, after = rolls_under_load(net, run_flow)
    assert len(load.bodies(after)) == 2, load.bodies(after)
    assert {k: v[:2] for k, v in table(net)[1].items()} == {a: ("Route", 100) for a in was(net)}
    assert not balancer(net).get("trouble"), balancer(net)
    # its prefix is the longest, so it would be the balancer's own source address, too
    net.l4.run("ip", "addr", "change", alone(net.vip), "dev", LAN, "preferred_lft", "forever")
    poll("the address that is preferred is named", lambda: f"from vip {net.vip}" in
         (balancer(net).get("trouble") or ""), SLOW)
    net.l4.hold(net.vip)

    # the way back leads through the balancer; the other service of these hosts stays what it is
    for name in ("was1", "was2"):
        for where in ("all", LAN):
            net.hosts[name].set(f"net.ipv6.conf.{where}.accept_redirects", 0)
        net.hosts[name].run("ip", "route", "add", alone(net.client_address), "via", net.l4.address, "dev", LAN)
    config(net, "nat", "store", PORT + 1)
    poll("forwarding is named", lambda: in_plan(net, "net.ipv6.conf.all.forwarding is 0, expected 1", "store"), SLOW)
    net.l4.set("net.ipv6.conf.all.forwarding", 1)
    done = deploy(net, "v1", service="store")
    assert done.returncode == 0, done.stdout + done.stderr
    with net.load(PORT + 1, path="/where", rate=10, keepers=2, timeout=SLOW) as load:
        goes_out_and_in(net, load, "was1", PORT + 1)
        goes_out_and_in(net, load, "was2", PORT + 1)
    assert load.failed == 0, load.summary()
    assert {k: v[:2] for k, v in table(net, PORT + 1)[1].items()} == {a: ("Masq", 100) for a in was(net, PORT + 1)}


def goes_out_and_in(net, load, name, port, weight=100):
    """As the deployment tool's templates do it, each a run of its own."""
    for flow_name, wanted in (("turnOffL4", 0), ("turnOnL4", weight)):
        done = net.lab.baton("run", flow_name, "--service", "store", "--hosts", name)
        assert done.returncode == 0, done.stdout + done.stderr
        poll(f"{name} has weight {wanted}", lambda: weights(net, port)[("was1", "was2").index(name)] == wanted)
        after = time.monotonic()
        load.wait(10)
        serve = {body.split("/")[0] for body in load.bodies(after)}
        assert (name in serve) == (wanted > 0), serve


def hosts(net):
    return [net.hosts[n].address for n in ("was1", "was2")]


def weights(net, port=PORT):
    return [table(net, port)[1].get(a, (None, None))[1] for a in was(net, port)]


def test_keepalived(net):
    """keepalived made the services, and goes on checking: what a restart makes it take away and put back."""
    def shop(weight):
        return virtual_server(net.vip, PORT, hosts(net), "TCP_CHECK {\n connect_timeout 2\n }", weight)

    for name in ("was1", "was2"):
        net.hosts[name].serve_behind(net.vip)
    ka = Keepalived(net, [shop(4)])
    poll("keepalived finds nobody", lambda: not table(net)[1], SLOW)
    net.agents()
    config(net, "dr")
    done = deploy(net, "v1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert weights(net) == [4, 4] and " wlc" in table(net)[0], "made by keepalived, and not by baton"
    goes_round(net, ka, [shop(7)])
    begins_anew(net, ka)
    asks_agents(net, ka, [shop(7)])


def goes_round(net, ka, heavier):
    """A flow under load. In it a person gives other weights, and keepalived finds the new release well before it
    is ready and its address is on the loopback: whoever is out stays out, and comes back with the new weight."""
    with net.load(path="/where", rate=10, keepers=1, holders=1, timeout=SLOW) as load:
        load.wait(20)
        client = net.lab.start_baton(*flow(net, "v2", warm_up=8))
        out = poll("the held connection's host is out", lambda: next(
            (a for a, s in table(net)[1].items() if s[1] == 0 and s[2] == 1 and once_more(net, a)), None), SLOW)
        before = len(ka.heard())
        ka.reload(heavier)
        poll("who is in has the new weight, who is out none", lambda: sorted(weights(net)) == [0, 7], SLOW)
        load.tell("finish")
        poll("keepalived puts it back", lambda: f"up {out}" in ka.heard()[before:], SLOW)
        poll("it stays out", lambda: table(net)[1][out][1] == 0)
        output, _ = client.communicate(timeout=SLOW)
        assert client.returncode == 0, output
        after = time.monotonic()
        load.wait(40)
    assert load.failed == 0, load.summary()
    assert not load.strayed() and "NOT READY" not in load.bodies()
    assert len(load.bodies(after)) == 2, load.bodies(after)
    assert ka.alive() and {f"{w} {a}" for w in ("up", "down") for a in was(net)} == set(ka.heard())
    assert weights(net) == [7, 7]


def begins_anew(net, ka):
    """What keepalived has made is its own to make again, and then has to be told again; who comes in meanwhile
    waits for it."""
    turn = ("--service", "shop", "--hosts", "was1")
    done = net.lab.baton("run", "turnOffL4", *turn)
    assert done.returncode == 0, done.stdout + done.stderr
    assert weights(net) == [0, 7]
    ka.stop()
    poll("that it is gone is named", lambda: f"{net.vip} port {PORT} is gone" in (balancer(net).get("trouble") or ""),
         SLOW)
    ka.start()
    poll("who is out is told so again", lambda: weights(net) == [0, 7], SLOW)
    ka.stop()
    client = net.lab.start_baton("run", "turnOnL4", *turn)
    waits = next((line for line in client.stdout if "is gone" in line), None)
    ka.start()
    output, _ = client.communicate(timeout=SLOW)
    assert waits and client.returncode == 0, output
    assert weights(net) == [7, 7]


def asks_agents(net, ka, others):
    """The other way: baton tells keepalived nothing, whose checks ask the agents who is in rotation."""
    port, check = PORT + 1, """HTTP_GET {
            url {
                path /rotation/store
                status_code 200
            }
            connect_port 9100
            connect_timeout 2
            retry 1
            delay_before_retry 1
        }"""
    ka.reload([*others, virtual_server(net.vip, port, hosts(net), check, each="inhibit_on_failure")])
    configured(net, "store", port, {"rotation": {"listen": 9100, "interval": "1s", "fall": 2, "rise": 1}})
    done = deploy(net, "v1", service="store")
    assert done.returncode == 0, done.stdout + done.stderr
    with net.load(port, path="/where", rate=10, keepers=2, timeout=SLOW) as load:
        goes_out_and_in(net, load, "was1", port, 1)
    assert load.failed == 0, load.summary()
    assert ka.alive() and f"down {was(net, port)[0]}" in ka.heard()
    assert weights(net, port) == [1, 1] and weights(net) == [7, 7]
