"""flow: what a flow over two hosts costs beside Tomcat itself, in seconds a host. In the laboratory of networks
(tests/integration/flow_lab.py) with a real Tomcat on both hosts, and no connections, so that a drain has nothing
to wait for.

    overhead = (the run, from its first record in the journal to its last − for each host: stop + start) / hosts

stop     from Tomcat's own line `A valid shutdown command was received` to the end of its process, which the
         kernel tells (pidfd): before that line it was baton that had not told it yet
start    from the start of its process, by the kernel's account, to its first good answer to a look of our own at
         its health every 10 ms: what baton needs beyond that to see it healthy is baton's

Nothing else is subtracted. The drain is not: it waits for nobody here, so whatever it takes, and that zero must be
seen twice, is overhead, and so are both changes of the balancer, the VIP's way off the loopback and back, bringing
the WAR, every look at health that comes late, every record and message.

The peer is bench/peers/script-000.sh, by hand and with a fixed wait in place of the drain, measured in the same way
from its start to its end."""
import datetime
import json
import os
import re
import select
import statistics
import subprocess
import sys
import threading
import time
import types

from lib import BUILD, QUICK, ROOT, get, process_start, say, wait_for

FLOW = "deployAndTomcatRestartWithL4Control"
TARGET = 0.3  # seconds a host
TOLD = re.compile(r"^(\d+-\w+-\d+ [\d:.]+) .*valid shutdown command was received", re.M)


def laboratory():
    """The modules of the integration tests that this uses; they want to know the build first."""
    os.environ["BATON_BUILD"] = BUILD
    sys.path.append(os.path.join(ROOT, "tests/integration"))
    import flow_lab
    import l4lab
    import lab
    import wars
    return types.SimpleNamespace(Lab=lab.Lab, FlowLab=flow_lab.FlowLab, L4Lab=l4lab.L4Lab, wars=wars)


def tomcat_of(net):
    """Pid of the Tomcat that runs in a network of its own, or None."""
    inode = os.stat("/run/netns/" + net).st_ino
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/cmdline" % pid, "rb") as f:
                words = f.read()
            if b"catalina.startup.Bootstrap\0start" in words and os.stat("/proc/%s/ns/net" % pid).st_ino == inode:
                return int(pid)
        except OSError:
            continue
    return None


class Watch(threading.Thread):
    """Of one host's Tomcat while it is stopped and started anew; all times are those of the wall's clock,
    as the journal's and Tomcat's are."""

    def __init__(self, host, port, log):
        super().__init__(daemon=True)
        self.net, self.log = host.name, log
        self.url = "http://%s:%d/health" % (host.leg, port)
        self.ended = self.answered = None
        self.pid = wait_for("a Tomcat in " + self.net, lambda: tomcat_of(self.net))
        self.fd = os.pidfd_open(self.pid)
        self.start()

    def run(self):
        gone = select.poll()
        gone.register(self.fd, select.POLLIN)
        if not gone.poll(300_000):
            return
        self.ended = time.time()
        end = time.monotonic() + 120
        while time.monotonic() < end:
            answer = get(self.url, 1.0)
            if answer and answer[0] == 200:
                self.answered = time.time()
                return
            time.sleep(0.01)

    def seconds(self):
        """(stop, start) of Tomcat itself."""
        self.join()
        os.close(self.fd)
        with open(self.log, encoding="utf-8", errors="replace") as f:
            told = [datetime.datetime.strptime(t, "%d-%b-%Y %H:%M:%S.%f").timestamp() for t in TOLD.findall(f.read())]
        told = max(t for t in told if t <= self.ended)
        new = tomcat_of(self.net)
        assert new and new != self.pid, "%s was not restarted" % self.net
        began = process_start(new) + time.time() - time.monotonic()
        return self.ended - told, self.answered - began


class BatonSubject:
    name, watched = FLOW, "agent-{}/logs/shop/a.log"

    def __init__(self, parts, lab, balancer):
        self.lab, self.balancer, self.round = lab, balancer, 0
        self.net = parts.FlowLab(lab, balancer)
        self.good(self.net.deploy("v0"))

    @staticmethod
    def good(done):
        if done.returncode != 0:
            raise RuntimeError("a bench of a failed run is none:\n" + done.stdout + done.stderr)

    def once(self):
        """Seconds of a run, and what its kinds of task took in it."""
        self.round += 1
        self.good(self.net.run_flow("v%d" % self.round))
        return journal(self.lab)


def journal(lab):
    number = lab.deployments()[0]["id"]
    text = lab.api("GET", "/v1/deployments/%d/events" % number)[1]
    events = [json.loads(line[5:]) for line in text.splitlines() if line.startswith("data:")]
    began, kinds, times = {}, {}, []
    for e in events:
        if "at" not in e:
            continue
        times.append(datetime.datetime.fromisoformat(e["at"].replace("Z", "+00:00")).timestamp())
        task = e.get("task") or {}
        if e["kind"] == "sent":
            began[task["id"]] = times[-1]
        elif e["kind"] == "result":
            kinds[task["kind"]] = kinds.get(task["kind"], 0.0) + times[-1] - began[task["id"]]
    return times[-1] - times[0], kinds


class ScriptSubject:
    """The same hosts without baton: Tomcats from catalina.sh, rules from nft."""
    name, watched = "script-000", "tomcat-{}/logs/catalina.out"

    def __init__(self, parts, lab, balancer):
        self.lab, self.balancer, self.parts, self.round = lab, balancer, parts, 0
        self.net = net = parts.L4Lab(lab)
        net.l4.hold(net.vip)
        net.l4.set("net.ipv4.ip_forward", 1)
        self.env = dict(os.environ, VIP=net.vip, PORT="8080", HOSTS="was1 was2", ON_l4=" ".join(net.l4.wrap()),
                        CATALINA_HOME=str(parts.wars.HOME),
                        CATALINA_OPTS="-Xmx64m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
        for name in ("was1", "was2"):
            host = net.hosts[name]
            base = parts.wars.base(lab.dir / ("tomcat-" + name), 8080, shutdown=8005)
            conf = base / "conf/server.xml"
            conf.write_text(conf.read_text().replace(' address="127.0.0.1"', ""))
            parts.wars.build(base / "webapps", "v0").rename(base / "webapps/ROOT.war")
            self.env.update({"ON_" + name: " ".join(host.wrap()), "AT_" + name: host.address, "BASE_" + name: str(base)})
            subprocess.run([*host.wrap(), parts.wars.HOME / "bin/catalina.sh", "start"], check=True,
                           stdout=subprocess.DEVNULL, env=dict(self.env, CATALINA_BASE=str(base),
                                                               CATALINA_PID=str(base / "pid")))
        self.script("in")
        wait_for("v0 at the VIP", lambda: net.ask("/version") == "v0")

    def script(self, *args):
        subprocess.run([os.path.join(ROOT, "bench/peers/script-000.sh"), *args], check=True, env=self.env,
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def once(self):
        self.round += 1
        war = self.parts.wars.build(self.lab.dir, "v%d" % self.round)
        begin = time.monotonic()
        self.script("deploy", war)
        return time.monotonic() - begin, {}


def measure(results, parts, subject, balancer, rounds):
    lab, figures = parts.Lab("baton-bench-"), []
    try:
        it = subject(parts, lab, balancer)
        for n in range(rounds):
            watches = [Watch(it.net.hosts[h], 8080, lab.dir / it.watched.format(h)) for h in ("was1", "was2")]
            whole, kinds = it.once()
            own = [w.seconds() for w in watches]
            if {it.net.ask("/version") for _ in range(4)} != {"v%d" % it.round}:
                raise RuntimeError("%s: not every answer is of v%d" % (it.name, it.round))
            figures.append((whole - sum(map(sum, own))) / len(own))
            say("%s, %s, run %d of %d: %.3f s a host; %.3f s in all, of it Tomcat's %s; tasks: %s" % (
                it.name, balancer, n + 1, rounds, figures[-1], whole,
                " ".join("stop %.3f start %.3f" % o for o in own),
                " ".join("%s %.3f" % k for k in sorted(kinds.items())) or "-"))
    finally:
        lab.close()
    value = statistics.median(figures)
    # How busy the machine was, with others' work, too: a figure from a busy one is no figure of baton alone.
    more = {"target": TARGET} if subject is BatonSubject else {"of_it_asleep": 10}
    results.add("flow", subject.name, "overhead", value, "s/host", balancer=balancer, min=round(min(figures), 3),
                max=round(max(figures), 3), runs=len(figures), load=round(os.getloadavg()[0], 1), **more)
    return value


def run(results):
    if os.geteuid() != 0:
        print("flow: left out: networks of their own need root (sudo make bench BENCH=flow)", flush=True)
        return
    print("subtracted from each run: Tomcat's own stop (its shutdown line to its process's end) and start (its process's "
          "start to its first good answer), and nothing else; no connections are open", flush=True)
    parts = laboratory()
    values = {b: measure(results, parts, BatonSubject, b, 2 if QUICK else 5)
              for b in (("nat",) if QUICK else ("nat", "dsr", "haproxy"))}
    peer = measure(results, parts, ScriptSubject, "nat", 1 if QUICK else 3)
    results.add("flow", FLOW, "script-000-over-baton", peer / values["nat"], "times", balancer="nat")
