"""overhead: how long a deploy takes beside the application's own boot, the configured drain and
bake, and the old instance's exit. baton and the documents' scripts take turns on the same machine,
each behind an nginx of its own."""
import os
import statistics
import subprocess
import time

from lib import QUICK, ROOT, BootPoll, Nginx, Place, free_ports, listener, say
from service import JAVA, Baton, build_jars, task_seconds

HEALTH = "/actuator/health"

CONFIG = """\
service: shop
hosts: [local]
run:
  command: {java} {{artifact}} --server.port={{port}} --spring.profiles.active={{slot}}
  slots: {{blue: {blue}, green: {green}}}
health: {{http: {health}, every: 100ms, passes: 1, within: 60s}}
identity: /profile
traffic:
  nginx:
    adopt: {{config: {conf}, prefix: {prefix}, include: {inc}, form: service_port}}
    url: {url}
deploy: {{strategy: blue-green, drain: 10s, bake: 0s}}
"""


def booted(ports, deploy):
    """Runs the deploy; (seconds, boot seconds) with the boot taken by the independent poll."""
    poll = BootPoll(ports, HEALTH)
    seconds = deploy()
    return seconds, poll.boot()


class BatonSubject:
    name = "baton"

    def __init__(self, place, jars):
        self.ports = free_ports(2)
        self.nginx = Nginx(place, "nginx-baton", "http://127.0.0.1:$service_port",
                           "set $service_port %d;\n" % self.ports[0])
        self.baton = Baton(place)
        self.jars = jars
        self.round = 0
        self.config = place.write("shop/baton.yaml", CONFIG.format(
            java=JAVA, blue=self.ports[0], green=self.ports[1], health=HEALTH, conf=self.nginx.conf,
            prefix=self.nginx.dir, inc=self.nginx.inc, url=self.nginx.url))

    def deploy(self):
        self.round += 1
        seconds, events = self.baton.deploy(
            "shop", self.config, self.jars[self.round % 2], "r%d" % self.round)
        away = sum(task_seconds(events, kind) for kind in ("Drain", "Bake", "InstanceStop"))
        return seconds - away


class ScriptSubject:
    def __init__(self, place, jars, name, argv, target, form):
        self.name = name
        self.ports = free_ports(2)
        self.nginx = Nginx(place, "nginx-" + name, target, form % self.ports[0])
        base = place.path(name)
        os.makedirs(base)
        self.argv, self.jars, self.round, self.base, self.place = argv, jars, 0, base, place
        self.env = dict(os.environ, BASE=base, ENTRY=self.nginx.url, INC=self.nginx.inc, JAVA=JAVA,
                        RELOAD=self.nginx.reload_command(), BLUE=str(self.ports[0]),
                        GREEN=str(self.ports[1]))
        place.undo.append(self.end)

    def deploy(self):
        self.round += 1
        begin = time.monotonic()
        subprocess.run(self.argv, check=True, stdout=subprocess.DEVNULL,
                       env=dict(self.env, JAR=self.jars[self.round % 2]))
        return time.monotonic() - begin

    def end(self):
        for port in self.ports:
            if listener(port):
                os.kill(listener(port), 9)


def run(results):
    peers = os.path.join(ROOT, "bench/peers")
    with Place("overhead") as place:
        jars = build_jars(place, "1.0", "2.0")
        subjects = [
            BatonSubject(place, jars),
            ScriptSubject(place, jars, "script-002", [peers + "/script-002.sh"],
                          "http://127.0.0.1:$service_port", "set $service_port %d;\n"),
            ScriptSubject(place, jars, "script-003", [peers + "/script-003/deploy.sh"],
                          "$service_url", "set $service_url http://127.0.0.1:%d;\n"),
        ]
        figures = {s.name: [] for s in subjects}
        rounds = 4 if QUICK else 8
        for n in range(rounds):
            for s in subjects:
                seconds, boot = booted(s.ports, s.deploy)
                say("round %d of %d: %s %.3f s beside a boot of %.3f s" % (
                    n + 1, rounds, s.name, seconds - boot, boot))
                if n > 1:  # the first two meet empty slots
                    figures[s.name].append(seconds - boot)
        for name, values in figures.items():
            results.add("overhead", name, "seconds", statistics.median(values), "s",
                        min=round(min(values), 3), max=round(max(values), 3), rounds=len(values))
        ratio = statistics.median(figures["script-002"]) / statistics.median(figures["baton"])
        results.add("overhead", "baton", "script-002-over-baton", ratio, "times")
