"""deployAndTomcatRestartWithL4Control over two hosts with real Tomcats, under load from a client behind the switch:
new connections and kept ones that finish within the drain. No request fails: by NAT, by direct server return
and by HAProxy; and when an agent, or the server, is killed in the middle of it.

SOAK=10 runs each of them so many times (make soak), and each death behind each of the balancers."""
import os
import signal

import pytest

from flow_lab import FLOW, FlowLab
from l4lab import alone
from lab import SANITIZED, poll
from test_strategies import good

TIMES = range(int(os.environ.get("SOAK", "1")))
DEATHS = {"agent-was1": ("HealthCheck", "was1"), "agent-l4": ("InstanceStop", "was2"), "server": ("HealthCheck", "was2")}
# Behind direct server return each of them; behind the others whose host the balancer is on, unless it is soaked.
BEHIND = [(b, victim) for b in ("nat", "dsr", "haproxy") for victim in DEATHS
          if "SOAK" in os.environ or b == "dsr" or victim == "agent-l4"]


def begin(lab, balancer, **groups):
    net = FlowLab(lab, balancer, **groups)
    good(net.deploy("v1"))
    assert net.versions() == {"v1"}
    return net


def holds_vip(net, host):
    return alone(net.vip) in net.hosts[host].run("ip", "-o", "addr", "show", "dev", "lo").stdout


def check(net, load, version="v2"):
    assert load.failed == 0, load.summary()
    assert net.versions() == {version}
    for host in ("was1", "was2"):
        assert holds_vip(net, host) == net.balancer.startswith("dsr")


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("balancer", ["nat", "dsr", "nat6", "dsr6", "haproxy"])
def test_flow_loses_nothing(lab, balancer, time):
    net = begin(lab, balancer)
    with net.load_shop() as load:
        load.wait(50)
        done = good(net.run_flow("v2"))
        load.wait(50)
    check(net, load)
    assert load.bodies() == {"v1", "v2"}
    for step in ("L4TurnOff", "TomcatStop", "ComponentDeploy", "TomcatStart", "L4TurnOn"):
        assert f"{step}: " in done.stdout, step
    run = lab.deployments()[0]
    assert (run["strategy"], run["end"]) == (FLOW, "done")
    loopback = {t["state"] for t in lab.deployment(run["id"])["tasks"] if t["kind"].startswith("Loopback")}
    assert loopback == ({"done"} if balancer.startswith("dsr") else {"skipped"})


def reached(lab, kind, host):
    """The task of the run that goes on was sent to the host, and has no result yet."""
    tasks = lab.deployment(lab.deployments()[0]["id"])["tasks"]
    return any(t["kind"] == kind and t.get("host") == host and t["state"] == "running" for t in tasks)


@pytest.mark.skipif(SANITIZED, reason="the same crashes as with the plain build, three times as slow")
@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("balancer,victim", BEHIND)
def test_a_death_in_the_middle(lab, balancer, victim, time):
    task, host = DEATHS[victim]
    net = begin(lab, balancer)
    with net.load_shop() as load:
        load.wait(20)
        child = net.start_flow("v2")
        poll(f"{task} on {host}", lambda: reached(lab, task, host))
        lab.kill(victim, signal.SIGKILL)
        load.wait(20)  # traffic goes on while it is away
        if victim == "server":
            lab.server()
        else:
            lab.agent(victim[6:], machine=net.hosts[victim[6:]])
        assert child.wait(120) == 0, child.stdout.read()
        load.wait(20)
    check(net, load)


def test_a_version_that_never_turns_healthy_goes_back(lab):
    net = begin(lab, "dsr", health={"within": "5s"})
    with net.load_shop() as load:
        done = net.run_flow("v2", unhealthy=True)
        load.wait(20)
    assert done.returncode == 1 and "rolled back" in done.stdout, done.stdout
    check(net, load, "v1")
    assert load.bodies() == {"v1"}
    untouched = [t for t in lab.deployment(lab.deployments()[0]["id"])["tasks"]
                 if t.get("host") == "was2" and t["kind"] == "InstanceStop" and t["state"] == "done"]
    assert untouched == []
