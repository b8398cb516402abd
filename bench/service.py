"""The service that is deployed, by baton and by the peers: the demo's Java application, or a light
Python one where what is measured is baton itself."""
import json
import os
import subprocess
import sys
import time

from lib import BATON, ROOT, free_ports, wait_for

JAVA = "java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xmx128m -Xshare:auto -jar"
PY_APP = os.path.join(ROOT, "bench", "app.py")


def build_jars(place, *versions):
    """The demo's application, a runnable jar a version."""
    subprocess.run([os.path.join(ROOT, "demo/app/build.sh"), place.dir, *versions], check=True,
                   stdout=subprocess.DEVNULL)
    return [place.path("shop-%s.jar" % v) for v in versions]


class Baton:
    """`baton up` in the place, and the client against it."""

    def __init__(self, place, name="state"):
        self.dir = place.path(name)
        people, agents = free_ports(2)
        self.env = dict(os.environ, BATON_DIR=self.dir, NO_COLOR="1")
        for key in ("BATON_SERVER", "BATON_TOKEN", "BATON_CACERT"):
            self.env.pop(key, None)
        self.place = place
        self.process = place.start(
            [BATON, "up", "--dir", self.dir, "--listen", "127.0.0.1:%d" % people,
             "--agent-listen", "127.0.0.1:%d" % agents], name + ".log", env=self.env)
        self.services = []
        place.undo.append(self.stop_instances)
        wait_for("baton up", lambda: subprocess.run(
            [BATON, "hosts", "--json"], env=self.env, capture_output=True, check=False
        ).stdout.find(b'"connected":true') >= 0)

    def deploy(self, service, config, artifact, version):
        """Runs one deploy; (seconds, events). Fails loudly: a bench of a failed deploy is none."""
        begin = time.monotonic()
        done = subprocess.run(
            [BATON, "deploy", service, "-f", config, "--artifact", artifact, "--version", version,
             "--json"], env=self.env, capture_output=True, text=True, check=False)
        seconds = time.monotonic() - begin
        if done.returncode != 0:
            raise RuntimeError("deploy failed (%d):\n%s%s" % (
                done.returncode, done.stdout[-4000:], done.stderr))
        if service not in self.services:
            self.services.append(service)
        return seconds, [json.loads(line) for line in done.stdout.splitlines() if line]

    def agent_pid(self):
        kids = subprocess.run(["ps", "--ppid", str(self.process.pid), "-o", "pid=,args="],
                              capture_output=True, text=True, check=False).stdout
        for line in kids.splitlines():
            pid, args = line.split(None, 1)
            if " agent" in args:
                return int(pid)
        raise RuntimeError("no agent under %d:\n%s" % (self.process.pid, kids))

    def stop_instances(self):
        """The applications outlive the agent by design; a bench ends them, by their own pids."""
        for service in self.services:
            root = os.path.join(self.dir, "agent", "instances", service)
            for slot in os.listdir(root) if os.path.isdir(root) else []:
                end_session(os.path.join(root, slot))


def end_session(instance_dir):
    for pid in subprocess.run(["pgrep", "-f", instance_dir], capture_output=True, text=True,
                              check=False).stdout.split():
        try:
            kids = subprocess.run(["pgrep", "-P", pid], capture_output=True, text=True,
                                  check=False).stdout.split()
            for victim in [pid] + kids:
                os.kill(int(victim), 9)
        except (ProcessLookupError, ValueError):
            pass


def task_seconds(events, kind):
    """How long tasks of the kind took in sum, by the journal's own times."""
    began, total = {}, 0.0
    for e in events:
        task = e.get("task") or {}
        if e.get("event") != "record" or task.get("kind") != kind:
            continue
        at = parse_time(e["at"])
        if e.get("kind") == "sent":
            began[task["id"]] = at
        elif e.get("kind") == "result" and task["id"] in began:
            total += at - began.pop(task["id"])
    return total


def parse_time(text):
    whole, fraction = text.rstrip("Z").split(".")
    return time.mktime(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) + float("0." + fraction)


if __name__ == "__main__":
    sys.exit("a module of bench/run")
