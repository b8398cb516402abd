"""footprint: what the steady agent and the server hold in memory, idle and after many deploys."""
import sys

from lib import QUICK, Nginx, Place, free_ports, memory, say
from loss import CONFIG
from service import PY_APP, Baton


def put(results, subject, pid, when):
    rss, private = memory(pid)
    results.add("footprint", subject, "rss", rss, "MiB", when=when)
    results.add("footprint", subject, "private", private, "MiB", when=when)


def run(results):
    deploys = 10 if QUICK else 100
    with Place("footprint") as place:
        ports = free_ports(2)
        nginx = Nginx(place, "nginx", "http://app",
                      "upstream app { server 127.0.0.1:%d; }\n" % ports[0], outside=True)
        baton = Baton(place)
        agent = baton.agent_pid()
        put(results, "agent", agent, "idle")
        put(results, "server", baton.process.pid, "idle")
        config = place.write("shop/baton.yaml", CONFIG.format(
            service="shop", python=sys.executable, app=PY_APP, conf=nginx.conf, prefix=nginx.dir,
            inc=nginx.inc, url=nginx.url, strategy="blue-green", more="",
            slots="blue: %d, green: %d" % tuple(ports)))
        for n in range(deploys):
            artifact = place.write("shop/artifact", "content %d\n" % n)
            baton.deploy("shop", config, artifact, "v%d" % n)
            if n == 0:
                put(results, "agent", agent, "after-1")
                put(results, "server", baton.process.pid, "after-1")
            elif (n + 1) % 10 == 0:
                say("deploy %d of %d" % (n + 1, deploys))
        put(results, "agent", agent, "after-%d" % deploys)
        put(results, "server", baton.process.pid, "after-%d" % deploys)
