"""LoopbackStop and LoopbackStart by a real agent on a host with a network of its own: commands by hand
(fake_agents_server.py), the kernel's answers by `ip`, and what the network next to it gets to see."""
import contextlib
import errno
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess

import pytest

from fake_agents_server import FakeServer
from farhost import FarHost, ip
from lab import BATON, PYTHON, poll

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a network of its own needs root")
VIP, VIP6 = "192.0.2.10", "2001:db8::10"
SERVICE = {
    "service": "shop", "artifact": "app.py", "hosts": ["was1"],
    "run": {"command": "./app {port}", "slots": {"blue": 8081, "green": 8082}},
    "traffic": {"nginx": {"on": "lb"}, "loopback": {"vips": [VIP, VIP6]}}}


def service(**loopback):
    return {**SERVICE, "traffic": {"nginx": {"on": "lb"}, "loopback": {"vips": [VIP, VIP6], **loopback}}}


class Was:
    """The host was1: its network, its agent, and the server that the agent talks to."""

    def __init__(self, lab):
        self.lab, self.machine, self.number = lab, FarHost(lab), 0
        self.server = FakeServer(str(lab.dir / "fake"), lab.port("agents"), self.machine.gateway)
        self.dir = lab.dir / "agent"
        joined = subprocess.run(
            [*self.machine.wrap(), BATON, "agent", "join", self.server.url, "--token", self.server.join_token(),
             "--dir", self.dir, "--host", "was1", "--address", self.machine.address],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        assert joined.returncode == 0, joined.stderr

    def start(self, *more):
        hellos = len(self.server.hellos)
        self.lab.start("agent", "agent", "run", "--dir", self.dir, *(more or ["--own-machine"]), wrap=self.machine.wrap())
        self.server.wait("said hello", lambda: len(self.server.hellos) > hellos)
        return self

    def kill(self):
        self.lab.kill("agent", signal.SIGKILL)

    def send(self, task, config=None, **more):
        self.number += 1
        return self.server.send(task, {"service": config or SERVICE}, **{"number": self.number, **more})

    def run(self, task, config=None, **more):
        return self.server.result(self.send(task, config, **more))

    def good(self, task, *args, **more):
        result = self.run(task, *args, **more)
        assert result["outcome"] == "done", result
        return result

    def ip(self, *args):
        return subprocess.run(["ip", "-n", self.machine.name, *args], capture_output=True, text=True, check=True).stdout

    def addresses(self, interface="lo"):
        return {a["local"]: a["prefixlen"] for link in json.loads(self.ip("-j", "addr", "show", "dev", interface))
                for a in link["addr_info"] if a["local"] not in ("127.0.0.1", "::1")}

    def holds(self):
        return self.addresses() == {VIP: 32, VIP6: 128}

    def sysctl(self, name, value=None):
        done = subprocess.run(["nsenter", f"--net=/run/netns/{self.machine.name}", "sh", "-c",
                               f"{f'echo {value} >' if value is not None else 'cat'} /proc/sys/net/ipv4/conf/{name}"],
                              capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def seen(self):
        result = self.server.run("Observe", {"service": SERVICE, "balancers": []}, number=1000 + self.number)
        self.number += 1
        return {v["address"]: v for v in result["observation"]["vips"]}


@pytest.fixture(name="was")
def fixture_was(lab):
    it = Was(lab)
    try:
        yield it
    finally:
        it.server.stop()


def test_off_on_undo_and_repeats(was):
    was.start()
    started = was.good("LoopbackStart")
    assert started["prior"]["present"] is False and was.holds()
    assert was.sysctl("all/arp_ignore") == "1" and was.sysctl("all/arp_announce") == "2"
    assert {a: v["there"] for a, v in was.seen().items()} == {VIP: True, VIP6: True}
    stopped = was.good("LoopbackStop")
    assert stopped["prior"]["present"] is True and was.addresses() == {}
    assert {a: v["there"] for a, v in was.seen().items()} == {VIP: False, VIP6: False}
    # the same command again is answered from the ledger: what was done by hand meanwhile stays
    was.ip("addr", "add", f"{VIP}/32", "dev", "lo")
    command = [c for c in was.server.commands if c["task"] == "LoopbackStop"][-1]
    posts = len(was.server.result_posts)
    was.server.offer({k: v for k, v in command.items() if k != "seq"})
    was.server.wait("answered the repeat", lambda: len(was.server.result_posts) > posts)
    assert was.addresses() == {VIP: 32}
    was.good("LoopbackStop")
    was.good("LoopbackStop")  # nothing to do
    assert was.addresses() == {}
    was.good("LoopbackStop", number=stopped["key"]["task"] if "key" in stopped else 2, verb="undo",
             prior=stopped["prior"])
    assert was.holds()


def test_killed_in_between(was):
    was.start()
    was.good("LoopbackStart")
    was.kill()
    key = was.send("LoopbackStop")
    assert was.holds()  # an agent that is away changes nothing
    was.start()
    assert was.server.result(key)["outcome"] == "done" and was.addresses() == {}


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
@pytest.mark.parametrize("task", ["LoopbackStop", "LoopbackStart"])
def test_killed_at_every_line_of_the_ledger(was, task):
    """kill -9 as the ledger's thread enters its k-th sync: the agent that comes back ends what was begun."""
    other = {"LoopbackStop": "LoopbackStart", "LoopbackStart": "LoopbackStop"}[task]
    kills = 0
    for k in range(1, 20):
        was.start()
        was.good(other)
        pid = pid_of(was)
        tracer = subprocess.Popen(
            ["strace", "-p", sorted(os.listdir(f"/proc/{pid}/task"), key=int)[1], "-e", "trace=fdatasync,fsync", "-e",
             f"inject=fdatasync,fsync:signal=KILL:when={k}", "-o", "/dev/null"], stderr=subprocess.PIPE, text=True)
        assert "attached" in tracer.stderr.readline()
        key = was.send(task)
        child = was.lab.children["agent"]
        poll("died or answered", lambda: key in was.server.results or child.poll() is not None)
        killed = child.poll() is not None
        if killed:
            was.start()
        assert was.server.result(key)["outcome"] == "done"
        assert was.holds() == (task == "LoopbackStart") and (was.holds() or was.addresses() == {})
        desired = json.loads(poll("the desired state is there", (was.dir / "desired/shop.json").read_text))
        assert desired["loopback"]["on"] is (task == "LoopbackStart")
        was.kill()
        tracer.wait(20)
        kills += killed
        if not killed:
            break
    assert kills >= 3, kills


def pid_of(was):
    """The agent's own: the child is `ip netns exec`, which becomes it."""
    child = was.lab.children["agent"].pid
    exe = pathlib.Path(f"/proc/{child}/exe").resolve()
    assert exe == BATON.resolve(), exe
    return child


def reboot(was):
    """What a boot leaves of the host's network, and of the agent: nothing but its directory."""
    was.kill()
    for address, prefix in was.addresses().items():
        was.ip("addr", "del", f"{address}/{prefix}", "dev", "lo")
    was.sysctl("all/arp_ignore", 0)
    was.sysctl("all/arp_announce", 0)
    boot = was.dir / "boot"
    boot.write_text(boot.read_text().replace(json.loads(boot.read_text())["boot"], "another boot"))


def test_after_a_boot_it_is_back_where_it_shall_be(was):
    was.start()
    was.good("LoopbackStart")
    reboot(was)
    assert was.addresses() == {}
    was.start()
    # already when it says hello, so before anybody sends requests here
    assert was.holds() and was.sysctl("all/arp_ignore") == "1" and was.sysctl("all/arp_announce") == "2"
    was.good("LoopbackStop")
    reboot(was)
    was.start()
    assert was.addresses() == {} and was.sysctl("all/arp_ignore") == "0"
    assert not any(v["there"] for v in was.seen().values())


def test_after_a_boot_it_waits_for_what_is_in_the_way(was):
    was.start()
    was.good("LoopbackStart")
    reboot(was)
    was.ip("addr", "add", f"{VIP}/24", "dev", "eth0")
    was.start()
    assert was.addresses() == {} and "eth0" in was.lab.log("agent")
    was.ip("addr", "del", f"{VIP}/24", "dev", "eth0")
    poll("it is back", was.holds)


def test_on_another_interface(was):
    was.start()
    was.ip("addr", "add", f"{VIP}/24", "dev", "eth0")
    for task in ("LoopbackStart", "LoopbackStop"):
        result = was.run(task)
        assert result["outcome"] == "refused" and VIP in result["detail"] and "eth0" in result["detail"], result
    assert was.addresses() == {} and VIP in was.addresses("eth0")
    assert "eth0" in was.seen()[VIP]["trouble"] and "trouble" not in was.seen()[VIP6]
    was.ip("addr", "del", f"{VIP}/24", "dev", "eth0")
    was.good("LoopbackStart")
    assert was.holds()


def test_interfaces_that_will_not_do(was):
    was.start()
    for interface, words in (("eth0", "answers to the network"), ("none0", "none0")):
        result = was.run("LoopbackStart", service(interface=interface))
        assert result["outcome"] in ("refused", "failed") and words in result["detail"], result
    result = was.run("LoopbackStart", {k: v for k, v in SERVICE.items() if k != "traffic"})
    assert result["outcome"] == "refused" and "traffic.loopback.vips" in result["detail"], result
    assert was.addresses() == {}


def test_a_host_whose_owner_does_not_allow_it(was):
    policy = was.lab.dir / "policy.yaml"
    policy.write_text("root: true\n")
    was.start("--policy", policy)
    result = was.run("LoopbackStart")
    assert result["outcome"] == "refused" and "rule 'network'" in result["detail"], result
    assert was.addresses() == {} and "rule 'network'" in was.seen()[VIP]["trouble"]
    was.kill()
    policy.write_text("root: true\nnetwork: true\n")
    was.start("--policy", policy)
    was.good("LoopbackStart")
    # the owner thinks again: what is there stays, and nothing is put back
    reboot(was)
    policy.write_text("root: true\nnetwork: false\n")
    was.start("--policy", policy)
    assert was.addresses() == {} and "rule 'network'" in was.lab.log("agent")


# ---- what the network next to it sees


def neighbour(was, address):
    """How the kernel on our side of the cable finds the address: 'REACHABLE' or 'FAILED'."""
    link, family = was.machine.name, socket.AF_INET6 if ":" in address else socket.AF_INET
    ip("neigh", "flush", "to", address, "dev", link)

    def state():
        said = json.loads(subprocess.run(["ip", "-j", "neigh", "show", "to", address, "dev", link], capture_output=True,
                                         text=True, check=True).stdout or "[]")
        states = {s for one in said for s in one.get("state", [])}
        if not states:  # nobody has asked yet; asking where nobody answered would begin anew
            with socket.socket(family, socket.SOCK_DGRAM) as s, contextlib.suppress(OSError):
                s.sendto(b"who has it?", (address, 9))
        return next((s for s in ("REACHABLE", "FAILED") if s in states), None)

    return poll(f"an answer for {address}, or none", state)


# Both lead this machine's own way to the address into their host's cable: one at a time.
@pytest.mark.xdist_group("loopback_route")
def test_neighbours_are_not_told(was):
    link = was.machine.name
    ip("route", "add", f"{VIP}/32", "dev", link)
    ip("-6", "route", "add", f"{VIP6}/128", "dev", link)
    was.start()
    # As a person might do it, without the sysctls: Linux answers ARP for an address of any interface.
    was.ip("addr", "add", f"{VIP}/32", "dev", "lo")
    assert neighbour(was, VIP) == "REACHABLE"
    assert "arp_ignore" in was.seen()[VIP]["trouble"]
    was.good("LoopbackStart")
    assert was.holds() and neighbour(was, VIP) == "FAILED" and "trouble" not in was.seen()[VIP]
    # IPv6 needs nothing: only addresses of the interface itself are answered for.
    assert neighbour(was, VIP6) == "FAILED"
    was.good("LoopbackStop")
    was.ip("addr", "add", f"{VIP6}/64", "dev", "eth0", "nodad")
    assert neighbour(was, VIP6) == "REACHABLE"


ANSWER = ("import socket, sys\n"
          "s = socket.create_server(('::', int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True)\n"
          "print('listens', flush=True)\n"
          "while True:\n    c, _ = s.accept()\n    c.sendall(c.getsockname()[0].encode())\n    c.close()\n")


@pytest.mark.xdist_group("loopback_route")
def test_requests_are_answered_while_it_is_there(was):
    """As behind a balancer of direct server return: packets for the address come with the host's MAC."""
    link, port = was.machine.name, was.lab.port("app")
    mac = json.loads(was.ip("-j", "link", "show", "dev", "eth0"))[0]["address"]
    for address in (VIP, VIP6):
        ip("route", "add", address, "dev", link)
        ip("neigh", "add", address, "lladdr", mac, "dev", link, "nud", "permanent")
    ip("-6", "addr", "add", "2001:db8:1::1/64", "dev", link, "nodad")  # to answer to
    was.ip("addr", "add", "2001:db8:1::2/64", "dev", "eth0", "nodad")
    was.start()
    app = subprocess.Popen([*was.machine.wrap(), PYTHON, "-c", ANSWER, str(port)], stdout=subprocess.PIPE,
                           stdin=subprocess.DEVNULL, cwd=was.lab.dir)
    try:
        assert app.stdout.readline() == b"listens\n"
        was.good("LoopbackStart")
        for address, said in ((VIP, f"::ffff:{VIP}"), (VIP6, VIP6)):
            with socket.create_connection((address, port), 20) as s:
                assert s.recv(100).decode() == said
        was.good("LoopbackStop")
        for address in (VIP, VIP6):
            with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as s:
                s.settimeout(1)
                assert s.connect_ex((address, port)) in (errno.EAGAIN, errno.EHOSTUNREACH, errno.ENETUNREACH)
    finally:
        app.kill()
        app.wait()
        app.stdout.close()
