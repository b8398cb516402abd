"""deployAndTomcatRestartWithL4Control over two hosts with real Tomcats, under load from a client behind the switch:
new connections and kept ones that finish within the drain. No request fails: by NAT, by direct server return
and by HAProxy; and when the agent, or the server, is killed in the middle of it."""
import signal

import pytest

from flow_lab import FLOW, FlowLab
from lab import poll
from test_strategies import good

pytestmark = pytest.mark.xdist_group("flow_lab")  # two Tomcats at a time are enough for a small machine


@pytest.fixture(params=["nat", "dsr", "haproxy"])
def net(lab, request):
    net = FlowLab(lab, request.param)
    good(net.deploy("v1"))
    assert net.versions() == {"v1"}
    return net


def test_flow_loses_nothing(net):
    with net.load_shop() as load:
        load.wait(50)
        done = good(net.run_flow("v2"))
        load.wait(50)
    assert load.failed == 0, load.summary()
    assert net.versions() == {"v2"}
    assert load.bodies() == {"v1", "v2"}
    steps = [line for line in done.stdout.splitlines() if "L4TurnOff" in line or "LoopbackStop" in line]
    assert steps, done.stdout
    vips = net.was1.run("ip", "-o", "addr", "show", "dev", "lo").stdout
    assert (net.vip in vips) == (net.balancer == "dsr")
