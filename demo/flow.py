"""The demo of a flow: client, L4, was1 and was2, each a network of its own on this machine, with a real Tomcat
on both servers and a real balancer in front of them. A flow brings version 2 to both hosts, one after the other,
under load from the client; every request is accounted for. Called by demo/run.

The laboratory is the one of the integration tests (tests/integration/flow_lab.py), and stays there: it is kept
true by tests that run every day, and a second home would only be one more thing to keep in step. Nothing that
is installed knows of either.
"""
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
KEPT = ("FLOW", "BALANCER", "STAY", "BUILD", "NO_COLOR")  # of the environment, through sudo
# By what they do: bring a release, or work on the one that is there.
DEPLOYING = ("deployAndTomcatRestartWithL4Control", "multiInstanceDeployToReleaseWithL4Control")
SMALL = ("turnOffL4", "tomcatRestart", "turnOnL4")  # shown together, host by host
HOSTS = ("was1", "was2")


def plain(text):
    return re.fullmatch(r"[A-Za-z/][\w/.-]*|\d+m?s", text) and text not in ("true", "false", "yes", "no", "on", "off",
                                                                         "null")


def words(value):
    """A value of baton.yaml on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {words(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(words, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value if plain(value) else "'" + value.replace("'", "''") + "'"
    return str(value)


def yaml(config, indent=""):
    out = ""
    for key, value in config.items():
        line = f"{indent}{key}: {words(value)}\n"
        out += line if len(line) < 100 or not isinstance(value, dict) else f"{indent}{key}:\n{yaml(value, indent + '  ')}"
    return out


class Show:
    """The laboratory, and what is done in it before a person's eyes."""

    def __init__(self, flow, balancer, say):
        from flow_lab import FlowLab  # only once it is known where the build is
        from lab import BATON, Lab

        class DemoLab(Lab):
            def write(self):
                (self.dir / "baton.yaml").write_text(yaml(next(iter(self.services.values()))))

        self.program, self.flow, self.balancer, self.say = BATON, flow, balancer, say
        self.make_net = FlowLab
        self.lab = DemoLab("baton-demo-")
        # --stop finds the networks by it, whatever became of us
        (self.lab.dir / "networks").write_text(f"bt{self.lab.ports_.base}-\n")
        self.load = None

    def baton(self, *args):
        print("$ baton " + " ".join(args), flush=True)
        child = subprocess.Popen([self.program, *args], cwd=self.lab.dir, env=self.lab.env(), stdin=subprocess.DEVNULL,
                                 text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for line in child.stdout:
            print("  " + line, end="", flush=True)
        if child.wait() != 0:
            raise RuntimeError(f"baton {args[0]}: exit code {child.returncode}")

    def page_link(self):
        return self.lab.baton("page").stdout.strip()

    def build(self):
        self.say(f"Four networks of their own: client, L4 ({self.balancer}), was1 and was2; baton's server and three agents")
        self.net = self.make_net(self.lab, self.balancer)
        print("  client 192.168.77.10 ─▶ VIP " + self.net.vip + " on l4 " + self.net.l4.address + " ─▶ " +
              ", ".join(f"{n} {self.net.hosts[n].address}" for n in HOSTS))
        self.say("Watch it in a browser: this opens the page, logged in (once, within 10 minutes)")
        print(self.page_link(), flush=True)
        self.say("baton.yaml")
        print((self.lab.dir / "baton.yaml").read_text(), end="", flush=True)

    def war(self, version):
        import wars
        return wars.build(self.lab.dir, version).name

    def deploying(self):
        """Version 2 by the flow."""
        which = ("--service", "shop", "--hosts", ",".join(HOSTS), "-a", self.war("v2"), "-v", "v2")
        self.say("What the flow would do")
        self.baton("plan", "shop", "--flow", self.flow, "--hosts", ",".join(HOSTS), "-a", "shop-v2.war", "-v", "v2")
        self.say("The flow, as Jenkins calls it: a template and the servers")
        self.baton("run", self.flow, *which)
        return {"v1", "v2"}

    def small(self):
        """The same release, restarted host by host with the three small flows."""
        for host in HOSTS:
            self.say(f"{host} leaves the balancer, its Tomcat begins anew, and it comes back")
            for flow in SMALL:
                self.baton("run", flow, "--service", "shop", "--hosts", host)
        return {"v1"}

    def run(self):
        self.build()
        self.say("Version 1: nothing serves yet, so it simply becomes live")
        self.baton("lint")
        self.baton("deploy", "shop", "-a", self.war("v1"), "-v", "v1")
        self.say("Load begins, from the client: connections new and kept; nothing that fails is sent again")
        with self.net.load_shop(rate=150, keepers=8) as load:
            load.wait(200)
            wanted = self.deploying() if self.flow in DEPLOYING else self.small()
            load.wait(200)
        self.say("What baton knows of it")
        self.baton("status", "shop")
        self.baton("history", "shop")
        return self.account(load, wanted)

    def account(self, load, wanted):
        problems = [f"a {kind} connection failed: {why}" for _, kind, why in load.failures[:5]]
        if load.bodies() != wanted:
            problems.append(f"versions seen: {sorted(load.bodies())}, expected {sorted(wanted)}")
        last = self.net.versions()
        if last != {max(wanted)}:
            problems.append(f"the client gets {last} at the end")
        number = {kind: len({c for _, _, k, c, _ in load.seen if k == kind}) for kind in ("new", "kept")}
        print()
        for problem in problems:
            print(f"demo: {problem}")
        print(f"demo: {len(load.seen) + load.failed} requests, {load.failed} failed, through {self.balancer}, while "
              f"{' and '.join(HOSTS)} were taken out, restarted and put back; {number['new']} new and {number['kept']} "
              f"kept connections; versions seen: {', '.join(sorted(load.bodies()))}", flush=True)
        return 1 if problems else 0

    def stays(self):
        env = self.lab.dir / "env"
        with open(os.open(env, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as out:
            out.write(f"export BATON_SERVER={self.lab.url} BATON_TOKEN={self.lab.token}\n")
        print(f"demo: it stays: baton's page is {self.page_link()} ; the shop is behind `ip netns exec "
              f"{self.net.client.name} curl http://{self.net.vip}:8080/version`; as root, try `. {env}; {self.program} "
              f"status`; `demo/run --stop {self.lab.dir}` ends it")


def remove_networks(place):
    """What is left of the networks of a demo that stayed. Its processes have ended."""
    mark = place / "networks"
    name = mark.read_text().strip() if mark.exists() else ""
    if not re.fullmatch(r"bt\d+-", name):
        return
    for kind, where in (("netns", "/run/netns"), ("link", "/sys/class/net")):
        for it in pathlib.Path(where).glob(name + "*"):
            subprocess.run(["ip", kind, "del", it.name], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def as_root(*args):
    """Networks of their own need root: the same once more, by sudo."""
    if not shutil.which("sudo"):
        sys.exit("demo: a network of its own for each host needs root, and sudo is missing: run it as root")
    kept = [f"{k}={os.environ[k]}" for k in KEPT if k in os.environ]
    os.execvp("sudo", ["sudo", "env", "PYTHONDONTWRITEBYTECODE=1", *kept, str(HERE / "run"), *args])


def arguments():
    flow, balancer = os.environ["FLOW"], os.environ.get("BALANCER", "dsr")
    if flow not in DEPLOYING + SMALL:
        sys.exit(f"demo: there is no demo of a flow '{flow}'; there are {', '.join(DEPLOYING + SMALL)}; "
                 "`baton flows` lists all that baton has")
    if balancer not in ("nat", "dsr", "haproxy"):
        sys.exit(f"demo: no balancer '{balancer}'; there are nat, dsr, haproxy")
    return flow, balancer


def main(build, say):
    flow, balancer = arguments()
    os.environ["BATON_BUILD"] = str(build)
    sys.path.insert(0, str(HERE.parent / "tests/integration"))
    if os.geteuid() != 0:
        import wars
        wars.classes()  # what is made in the build directory is made by whom it belongs to
        as_root()
    if subprocess.run(["unshare", "--net", "true"], stderr=subprocess.DEVNULL, check=False).returncode != 0:
        sys.exit("demo: networks cannot be made here, not even by root (a container without CAP_SYS_ADMIN and "
                 "CAP_NET_ADMIN?): run it on a machine, virtual or real")
    show, code, stay = Show(flow, balancer, say), 1, False
    begun = time.monotonic()
    try:
        code = show.run()
        stay = code == 0 and os.environ.get("STAY") == "1"
        if stay:
            show.stays()
    except Exception as e:  # whatever it is: said in a line, with the logs, and cleaned up after
        print(f"demo: FAILED after {time.monotonic() - begun:.0f} s: {e}", flush=True)
        show.lab.report(sys.stdout)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        if not stay:
            show.lab.close()
    return code
