"""loss: requests that failed at the client during deploys, blue-green and rolling, with three kinds
of client. `close` and `hey` must be 0; `wrk`, raw keep-alive, cannot be 0 with reloads and is printed
as it is."""
import sys

from lib import QUICK, Load, Nginx, Place, free_ports, say
from service import PY_APP, Baton

CONFIG = """\
service: {service}
hosts: [local]
run:
  command: {python} {app} {{port}} {{slot}}
  slots: {{{slots}}}
health: {{http: /actuator/health, every: 100ms, passes: 1, within: 30s}}
traffic:
  nginx: {{adopt: {{config: {conf}, prefix: {prefix}, include: {inc}, form: upstream, upstream: app}}, url: "{url}"}}
deploy: {{strategy: {strategy}, drain: 20s, bake: 0s{more}}}
"""

STRATEGIES = {"blue-green": (2, ""), "rolling": (3, ", batch: 1")}


def one(results, place, baton, strategy, load, deploys):
    slots, more = STRATEGIES[strategy]
    ports = free_ports(slots)
    name = "%s-%s" % (strategy, load)
    nginx = Nginx(place, "nginx-" + name, "http://app",
                  "upstream app { server 127.0.0.1:%d; }\n" % ports[0], outside=True)
    config = place.write(name + "/baton.yaml", CONFIG.format(
        service=name, python=sys.executable, app=PY_APP, conf=nginx.conf, prefix=nginx.dir,
        inc=nginx.inc, url=nginx.url, strategy=strategy, more=more,
        slots=", ".join("s%d: %d" % (i + 1, p) for i, p in enumerate(ports))))
    artifact = place.write(name + "/artifact", "content\n")
    baton.deploy(name, config, artifact, "v0")
    generator = Load(place, load, nginx.url + "/", 1200)
    for n in range(deploys):
        place.write(name + "/artifact", "content %d\n" % n)
        seconds, _ = baton.deploy(name, config, artifact, "v%d" % (n + 1))
        say("%s with %s: deploy %d of %d in %.1f s" % (strategy, load, n + 1, deploys, seconds))
    total, failed = generator.finish()
    results.add("loss", "nginx-reload", "failed", failed, "requests", of=total, load=load,
                strategy=strategy, deploys=deploys)


def run(results):
    deploys = 3 if QUICK else 20
    with Place("loss") as place:
        baton = Baton(place)
        for load in ("close", "hey", "wrk"):
            for strategy in STRATEGIES:
                one(results, place, baton, strategy, load, deploys)
