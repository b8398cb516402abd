"""What a flow does about bad input and broken parts, on real Tomcats behind real balancers: it says in one line
what, where and what to do; before anything has happened where that can be known, else the lane is undone. Whatever
goes wrong, no request of a client fails."""
import os
import re

import pytest

import flow_lab
from flow_lab import FLOW, FlowLab
from lab import poll
from test_flows import begin, deploying, run, upstream
from test_hooks import script, told
from test_strategies import good, runs

pytestmark = pytest.mark.xdist_group("flow_lab")  # two Tomcats at a time are enough for a small machine


def vips(host, net, device="lo"):
    return net.vip in host.run("ip", "-o", "addr", "show", "dev", device).stdout


def pool(net):
    """Who is in rotation, as the service's status has it."""
    return {s["host"] for s in net.lab.service()["slots"] if s["in"]}


def pids(net):
    return {h["host"]: i["pid"] for h in net.lab.service()["world"]["hosts"] for i in h["instances"] or ()}


def settled(net, version):
    """Both hosts serve the version, with the address on them."""
    poll("both are in", lambda: pool(net) == {"was1", "was2"})
    assert net.versions() == {version}
    assert vips(net.was1, net) and vips(net.was2, net)


def last(done):
    return (done.stderr.strip() or done.stdout.strip()).splitlines()[-1]


class Nothing:
    """Within it nothing is begun: no deployment, no other process, nobody out, no address moved."""

    def __init__(self, net):
        self.net = net

    def facts(self):
        net = self.net
        return (len(net.lab.deployments()), pids(net), pool(net), vips(net.was1, net), vips(net.was2, net))

    def __enter__(self):
        self.before = self.facts()
        return self

    def __exit__(self, kind, *_):
        assert kind or self.facts() == self.before


@pytest.fixture(name="net")
def fixture_net(lab):
    """Direct server return; v1 hangs in its own stop."""
    net = FlowLab(lab, "dsr", run={"stop": {"signal": "TERM", "grace": "1s"}})
    lab.services["shop"]["run"]["tomcat"].update(shutdown_wait="500ms", stop_wait="20s")
    lab.write()
    good(net.deploy("v1", hang_in_stop=True))
    settled(net, "v1")
    return net


def test_faults_of_a_flow_behind_direct_server_return(net):
    with net.load_shop() as load:
        a_host_without_an_agent(net)
        a_war_that_is_no_zip(net)
        a_version_that_never_gets_healthy(net)
        an_address_on_another_interface(net)
        an_address_that_is_missing(net)
        a_tomcat_that_hangs_in_stop(net)
        load.wait(50)
    assert load.failed == 0, load.summary()


def a_host_without_an_agent(net):
    with Nothing(net):
        net.lab.kill("agent-was2")
        poll("its absence is noticed", lambda: not net.lab.connected("was2"))
        done = net.run_flow("v2")
        assert done.returncode != 0 and "host was2 is not connected: is its agent running?" in last(done), done.stderr
        plan = net.lab.baton("plan", "shop", "--flow", "turnOffL4", "--hosts", "was1")
        assert plan.returncode != 0 and "was2 is not connected" in last(plan), plan.stdout + plan.stderr
        net.lab.agent("was2", machine=net.was2)
    hosts = net.lab.services["shop"]["hosts"]
    with Nothing(net):
        net.lab.services["shop"]["hosts"] = [*hosts, "was3"]
        net.lab.write()
        done = net.run_flow("v2")
        assert done.returncode != 0 and "host 'was3' is not known here: join its agent first" in last(done), done.stderr
        net.lab.services["shop"]["hosts"] = hosts
        net.lab.write()


def a_war_that_is_no_zip(net):
    """It is brought before the first host is taken out, and goes no further."""
    before, war = pids(net), net.lab.dir / "page.war"
    war.write_text("<html>404 Not Found</html>")
    done = net.lab.baton("run", FLOW, "--service", "shop", "--artifact", war, "--version", "page")
    assert done.returncode == 1 and "page.war" in last(done) and "zip" in last(done), done.stdout + done.stderr
    assert pids(net) == before and "L4TurnOff" not in done.stdout
    settled(net, "v1")


def a_version_that_never_gets_healthy(net):
    """was1 is as it was again, and nobody has touched was2."""
    before = pids(net)
    health = net.lab.services["shop"]["health"]
    health["within"] = "5s"
    net.lab.write()
    done = net.run_flow("v2", unhealthy=True)
    health["within"] = "60s"
    net.lab.write()
    line = last(done)
    assert done.returncode == 1 and "HealthCheck on was1/a: not healthy within 5s" in line, done.stdout + done.stderr
    settled(net, "v1")
    assert pids(net)["was2"] == before["was2"] and pids(net)["was1"] != before["was1"]
    number = net.lab.deployments()[0]
    assert number["end"] in ("rolled_back", "undone", "failed"), number
    assert not any(t["state"] == "done" for t in net.lab.deployment(number["id"])["tasks"]
                   if t["kind"] == "InstanceStop" and t.get("host") == "was2")


def an_address_on_another_interface(net):
    """Somebody moved it: requests are still answered there, and whose it is is for a person to say."""
    net.was1.run("ip", "link", "add", "other", "type", "veth", "peer", "name", "end")
    net.was1.run("ip", "link", "set", "other", "up")
    net.was1.run("ip", "addr", "add", f"{net.vip}/32", "dev", "other")
    net.was1.run("ip", "addr", "del", f"{net.vip}/32", "dev", "lo")
    with Nothing(net):
        done = net.run_flow("v3")
        line = last(done)
        assert done.returncode == 1 and "stage 'hosts, batch 1 of 2'" in line, done.stdout + done.stderr
        assert f"LoopbackStop on was1: {net.vip}: it is on other" in line, line
    assert vips(net.was1, net, "other") and not vips(net.was1, net)
    net.was1.run("ip", "addr", "add", f"{net.vip}/32", "dev", "lo")
    net.was1.run("ip", "link", "del", "other")
    settled(net, "v1")


def an_address_that_is_missing(net):
    """… on a host that is out: it is not put in without it, and the flow puts both back."""
    good(net.lab.baton("run", "turnOffL4", "--service", "shop", "--hosts", "was1"))
    net.was1.run("ip", "addr", "del", f"{net.vip}/32", "dev", "lo")
    done = net.lab.baton("run", "turnOnL4", "--service", "shop", "--hosts", "was1")
    assert done.returncode == 1 and "stage 'hosts, batch 1 of 1'" in last(done), done.stdout + done.stderr
    assert "not on its loopback" in last(done) and "LoopbackStart" in last(done)
    assert pool(net) == {"was2"}
    # the other one is now the last
    done = net.lab.baton("run", "turnOffL4", "--service", "shop", "--hosts", "was2")
    assert done.returncode == 1 and "nobody in rotation" in last(done), done.stdout + done.stderr


def a_tomcat_that_hangs_in_stop(net):
    """Each step of the stop has its wait, and the flow goes on."""
    before = pids(net)
    done = good(net.run_flow("v4"))
    settled(net, "v4")
    assert not set(pids(net).values()) & set(before.values())
    said = good(net.lab.baton("show", net.lab.deployments()[0]["id"])).stdout
    assert len(re.findall("TERM sent", said)) >= 2, said + done.stdout


def test_haproxy_that_knows_no_server_for_a_host(lab, monkeypatch):
    monkeypatch.setitem(flow_lab.BALANCERS, "was1 alone", lambda net: flow_lab.haproxy(net, ("was1",)))
    net = FlowLab(lab, "was1 alone")
    for done in (net.deploy("v1"), net.run_flow("v1")):
        assert done.returncode == 1 and "knows no server was2" in last(done), done.stdout + done.stderr
    assert not lab.deployments() and not list((lab.dir / "tomcat").iterdir())


# ---- programs in a flow: on processes behind nginx, which is quicker ----


def test_a_program_in_a_flow_that_fails_its_lane(lab):
    """Past its time, and with a child that holds its output: the lane is undone, and nobody else is touched."""
    hang = script(lab, "hang.sh", f"sleep 1000 & echo $! >> {lab.dir}/pids", "echo waits", "wait")
    leave = script(lab, "leave.sh", f"sleep 1001 & echo $! >> {lab.dir}/pids", "echo leaves")

    def flow(exec_):
        return [{"per": "instance", "tasks": ["L4TurnOff", "TomcatStop", "ComponentDeploy", "TomcatStart", exec_,
                                              "L4TurnOn"]}]
    begin(lab, flows={"late": flow({"Exec": {"run": [hang], "timeout": "1s"}}), "held": flow({"run": [leave]})})
    with lab.load() as load:
        for name, words in (("late", ("hang.sh", "not done within 1s", "waits")),
                            ("held", ("leave.sh", "exit code 0", "sleep (pid", "holds its output"))):
            done = deploying(lab, name, f"v-{name}")
            line = last(done)
            assert done.returncode == 1 and all(w in line for w in words), done.stdout + done.stderr
            runs(lab, "v1", "v1")
            assert upstream(lab) == {lab.port("shop-blue"), lab.port("shop-green")}
    assert load.failed == 0, load.summary()
    assert "v-late" not in load.versions() and "v-held" not in load.versions()
    assert len(told(lab, "pids")) == 2, "the second instance's turn never came"
    assert not [p for p in told(lab, "pids") if os.path.exists(f"/proc/{p}")]


def test_a_flow_that_may_run_no_programs(lab):
    """The owner of the host says so, and the flow's stage is named before anything is begun."""
    (lab.dir / "policy.yaml").write_text("exec: false\n")
    lab.config(nginx=False, host="was1", flows={"f": [{"once": [{"run": ["./x"]}]}]})
    lab.server()
    good(lab.join("was1", lab.join_token("was1")))
    lab.start("agent-was1", "agent", "run", "--dir", lab.dir / "agent-was1", "--own-machine", "--policy",
              lab.dir / "policy.yaml")
    poll("the agent connects", lambda: lab.connected("was1"))
    good(lab.deploy("v1"))
    done = run(lab, "f")
    line = last(done)
    assert done.returncode == 1 and "once (stage 1)" in line and "was1" in line and "policy.yaml" in line, done.stderr
    assert len(lab.deployments()) == 1
