"""A laboratory for L4 balancers: a switch and four hosts on its one segment, each a network of its own on
this machine. The load comes from the client, which reaches nothing but the segment; the agents of the
others also reach our server, by a leg of their own.

        client   l4   was1   was2          192.168.77.0/24 or fd77::/64, the same addresses in every
           └──────┴─switch─┴────┘          laboratory: nothing leads from one switch to another
                  │    │    │   legs to this machine: baton server, run in the root namespace
                  └────┴────┘

    net = L4Lab(lab)                        # after Lab(), before lab.server()
    net.l4.hold(net.vip)                    # the balancer answers ARP for the VIP
    net.agents()                            # server, and agents l4, was1, was2
    with net.load(path="/where") as load:   # from the client to the VIP
        ...
    assert load.failed == 0, load.summary()
"""
import json
import os
import subprocess
import threading
import time
import unittest

from farhost import FarHost, ip
from lab import HERE, PATIENCE, PYTHON, Failed, poll

NET, NET6 = "192.168.77", "fd77:"
WAN, WAN6 = "192.168.78", "fd78:"  # where the client is once it has gone outside
LAN = "lan"  # every host's interface on the segment


def alone(address):
    """The address as a network of its own."""
    return f"{address}/{128 if ':' in address else 32}"


def place(address, port):
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def at_once(address):
    """For `ip addr`: nobody else has it, so the kernel need not find that out first."""
    return ("nodad",) if ":" in address else ()


class Net:
    """A network namespace; what runs there sees this machine's files, cgroups and processes."""

    def __init__(self, name):
        if os.geteuid() != 0:
            raise unittest.SkipTest("a network of its own needs root")
        self.name = name
        subprocess.run(["ip", "netns", "del", name], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        ip("netns", "add", name)

    def wrap(self):
        return ["nsenter", f"--net=/run/netns/{self.name}", "--"]

    def run(self, *args, check=True, timeout=60, **options):
        """A program there, to its end: CompletedProcess with text."""
        if "input" not in options:
            options["stdin"] = subprocess.DEVNULL
        done = subprocess.run([*self.wrap(), *map(str, args)], check=False, text=True, timeout=timeout,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
        if check and done.returncode != 0:
            raise Failed(f"{self.name}: {' '.join(map(str, args))}: {done.stderr}{done.stdout}")
        return done

    def set(self, key, value):
        self.run("sysctl", "-q", "-w", f"{key}={value}")

    def close(self):
        subprocess.run(["ip", "netns", "del", self.name], stdin=subprocess.DEVNULL, check=False)


class Host(FarHost):
    """On the segment at `address`, and with a leg to this machine at `gateway`."""

    def __init__(self, lab, address):
        super().__init__(lab)
        self.leg, self.address = self.address, address

    run, set = Net.run, Net.set

    def wrap(self):
        enter = ["nsenter", f"--net=/run/netns/{self.name}", "--"]
        if not self.mounts:
            return enter
        bind = "".join(f"mount --bind '{a}' '{b}' && " for a, b in self.mounts)
        return [*enter, "unshare", "--mount", "sh", "-c", bind + 'exec "$@"', "sh"]

    def hold(self, address, interface=LAN):
        """The host answers for the address on the segment, and does not speak from it."""
        silent = ("preferred_lft", "0") if ":" in address else ()
        self.run("ip", "addr", "replace", alone(address), "dev", interface, *silent, *at_once(address))

    def forward(self):
        self.set("net.ipv4.ip_forward", 1)
        self.set("net.ipv6.conf.all.forwarding", 1)

    def serve_behind(self, vip):
        """Direct server return: takes the VIP's packets, and keeps silent about it on the segment."""
        for where in ("all", LAN):
            self.set(f"net.ipv4.conf.{where}.arp_ignore", 1)
            self.set(f"net.ipv4.conf.{where}.arp_announce", 2)
        self.run("ip", "addr", "replace", alone(vip), "dev", "lo", *at_once(vip))


class L4Lab:
    def __init__(self, lab, hosts=("l4", "was1", "was2"), six=False):
        """hosts: with agents, at most four; more than the three for who tests something else. six: all that
        is between them is IPv6."""
        self.lab, self.loads, self.six = lab, [], six
        self.vip = self.address(100)
        base = lab.ports_.base
        self.switch = self.client = None
        lab.networks.append(self)  # its close() is called at the end, whatever happens here
        self.switch = Net(f"bt{base}-switch")
        self.switch.run("ip", "link", "add", "br0", "type", "bridge", "forward_delay", 0)
        self.switch.run("ip", "link", "set", "br0", "up")
        self.client = Net(f"bt{base}-client")
        self.client.run("ip", "link", "set", "lo", "up")
        self.client_address = self.address(10)
        self._plug(self.client, "client", self.client_address)
        # What ended leaves ports in TIME_WAIT for a minute; a soak would run out of them.
        self.client.set("net.ipv4.ip_local_port_range", "2048 65000")
        self.hosts = {}
        for i, name in enumerate(hosts):
            host = self.hosts[name] = Host(lab, self.address(2 if name == "l4" else 10 + i))
            self._plug(host, name, host.address)
            setattr(self, name, host)

    def address(self, last, outside=False):
        if self.six:
            return f"{WAN6 if outside else NET6}:{last}"
        return f"{WAN if outside else NET}.{last}"

    def _segment(self, address):
        """The network that it lies in, by its prefix."""
        return f"{address}/{64 if self.six else 24}"

    def _plug(self, net, name, address, interface=LAN, bridge="br0"):
        net.run("ip", "link", "add", interface, "type", "veth", "peer", "name", name, "netns", self.switch.name)
        self.switch.run("ip", "link", "set", name, "master", bridge, "up")
        net.set(f"net.ipv6.conf.{interface}.accept_dad", 0)  # also for the link's own address
        net.run("ip", "addr", "add", self._segment(address), "dev", interface, *at_once(address))
        net.run("ip", "link", "set", interface, "up")

    def go_outside(self):
        """The client and the VIP move to a segment where only l4 is as well, with another leg; the servers'
        way there leads through it."""
        self.switch.run("ip", "link", "add", "br1", "type", "bridge", "forward_delay", 0)
        self.switch.run("ip", "link", "set", "br1", "up")
        self._plug(self.l4, "l4-wan", self.address(2, outside=True), "wan", "br1")
        self.client.run("ip", "link", "del", LAN)
        self.client_address = self.address(10, outside=True)
        self._plug(self.client, "client", self.client_address, bridge="br1")
        self.vip = self.address(100, outside=True)
        self.l4.hold(self.vip, "wan")
        for name, host in self.hosts.items():
            if name != "l4":
                host.run("ip", "route", "add", self._segment(self.address(0, outside=True)), "via", self.l4.address)

    def close(self):
        for load in self.loads:
            load.kill()
        for net in (self.client, self.switch):
            if net:
                net.close()

    def agents(self, *names):
        self.lab.server()
        for name in names or self.hosts:
            self.lab.agent(name, machine=self.hosts[name])

    def config(self, name="shop", port=8080, traffic=None, hosts=("was1", "was2"), **groups):
        """A service with one slot on each host, of app.py. Both hosts have the same port."""
        config = self.lab.config(name, nginx=False, slots=(), **groups)
        config["hosts"] = list(hosts)
        config["run"]["slots"] = {"main": port}
        config["run"]["command"] += " --host {host}"
        config["deploy"].setdefault("strategy", "rolling")
        if traffic:
            config["traffic"] = traffic
        self.lab.write()
        return config

    def load(self, port=8080, **options):
        self.loads.append(NetLoad(self, f"http://{place(self.vip, port)}", **options))
        return self.loads[-1]

    def ask(self, path="/where", port=8080, address=None, seconds=10):
        """Body of one answer to the client, None when there is none."""
        url = f"http://{place(address or self.vip, port)}{path}"
        done = self.client.run("curl", "-gsS", "-f", "-m", seconds, url, check=False)
        return done.stdout if done.returncode == 0 else None


class NetLoad:
    """netload.py in the client's network. What it reports is here while it runs:
    seen: (begun, ended, kind, connection, body) of good answers; failures: (time, kind, why)."""

    def __init__(self, net, url, **options):
        """Options are netload.py's, such as rate=50, keepers=4, holders=1, path="/where"."""
        self.net, self.url, self.options = net, url, options
        self.seen, self.failures, self.report = [], [], None
        self.child = self.thread = None
        self.kill_time = float(options.get("seconds", 300)) + PATIENCE

    def __enter__(self):
        words = [w for k, v in self.options.items() for w in (f"--{k}", str(v))]
        self.errors = open(self.net.lab.dir / f"netload-{len(self.net.loads)}.log", "w", encoding="utf-8")
        # its arguments name the laboratory's directory, so that its close() finds it
        self.child = subprocess.Popen(
            [*self.net.client.wrap(), PYTHON, HERE / "netload.py", self.url, "--mark", self.net.lab.dir, *words],
            cwd=self.net.lab.dir, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True)
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()
        poll("the load has begun", lambda: self.seen or self.failures or self.report or self.child.poll() is not None)
        return self

    def __exit__(self, *_):
        self.stop()

    def _read(self):
        for line in self.child.stdout:
            item = json.loads(line)
            if "why" in item:
                self.failures.append((item["at"], item["kind"], item["why"]))
            elif "body" in item:
                self.seen.append((item["begun"], item["at"], item["kind"], item["connection"], item["body"]))
            else:
                self.report = item

    def tell(self, word):
        """"finish": kept connections end, and new ones are made; "stop": all end."""
        self.child.stdin.write(word + "\n")
        self.child.stdin.flush()

    def stop(self):
        """Ends the load; what is in flight is finished and counts."""
        if self.report is None and self.child.poll() is None:
            try:
                self.tell("stop")
            except BrokenPipeError:
                pass
        try:
            self.child.wait(PATIENCE + 30)
        finally:
            self.kill()
        assert self.report is not None, "the load ended without a report: its log says why"
        return self

    def kill(self):
        if self.child is None:
            return
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait(10)
        self.thread.join(10)
        if not self.errors.closed:
            self.child.stdin.close()
            self.child.stdout.close()
            self.errors.close()

    @property
    def failed(self):
        return len(self.failures)

    def summary(self):
        return f"{len(self.seen)} answered, {self.failed} failed: {self.failures[:10]}"

    def bodies(self, after=0.0, kind=None):
        """Bodies of answers to requests that began after a time.monotonic() value."""
        return {b for begun, _, k, _, b in list(self.seen) if begun >= after and kind in (None, k)}

    def answered(self, after=0.0):
        return sum(1 for begun, *_ in list(self.seen) if begun >= after)

    def wait(self, n, after=None):
        """Until n more requests, begun from now on, have had their good answer."""
        after = time.monotonic() if after is None else after
        poll(f"{n} more requests are answered", lambda: self.answered(after) >= n)

    def strayed(self):
        """Connections that were answered by more than one server: {connection: bodies}."""
        by = {}
        for _, _, _, connection, body in list(self.seen):
            by.setdefault(connection, set()).add(body)
        return {c: b for c, b in by.items() if len(b) > 1}
