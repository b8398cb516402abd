"""Flows on real processes behind a real nginx, under load: templates by their names, flows of the config, on
chosen hosts and instances; what is refused before anything happens; and what a failure puts back."""
import json

from lab import poll

from test_notify import Receiver
from test_strategies import good, running, runs, upstream

TWO = ("blue", "green")
ROLLING = {"strategy": "rolling", "drain": "10s", "bake": "0s"}


def begin(lab, **config):
    lab.nginx()
    lab.config(slots=TWO, deploy=ROLLING, **config)
    lab.up()
    good(lab.deploy("v1"))
    runs(lab, "v1", "v1")


def run(lab, flow, *args, **env):
    return lab.baton("run", flow, "--service", "shop", *args, **env)


def deploying(lab, flow, version, *args, **settings):
    return run(lab, flow, "--version", version, "--artifact", lab.artifact(version, **settings), *args)


def ports(lab, *slots):
    return {lab.port(f"shop-{s}") for s in slots}


def test_template_deploys_instance_by_instance(lab):
    begin(lab)
    with lab.load(slow=1) as load:
        done = good(deploying(lab, "multiInstanceDeployToReleaseWithL4Control", "v2"))
    assert load.failed == 0, load.summary()
    assert "deployed shop v2" in done.stdout
    runs(lab, "v2", "v2")
    assert upstream(lab) == ports(lab, *TWO)
    last = lab.deployments()[0]
    assert (last["strategy"], last["purpose"], last["end"]) == (
        "multiInstanceDeployToReleaseWithL4Control", "deploy", "done")
    steps = [t.get("step") for s in lab.deployment(last["id"])["plan"]["stages"] for la in s["lanes"] for t in la["tasks"]]
    assert {"L4TurnOff", "TomcatStop", "ComponentDeploy", "TomcatStart", "HealthCheck", "L4TurnOn"} <= set(steps)
    assert lab.service()["release"]["version"] == "v2"


def test_several_services_one_after_the_other(lab):
    """Instances of two services on one host, each behind its own pool: one artifact each, or one for both."""
    lab.nginx()
    lab.config(slots=TWO, deploy=ROLLING)
    lab.config("api", slots=("a", "b"), nginx=False, deploy=ROLLING,
               traffic={"nginx": {"on": "local", "listen": f"127.0.0.1:{lab.port('api-page')}"}})
    lab.up()
    both = lab.artifact("v1")
    flow = "multiInstanceDeployToReleaseWithL4Control"
    done = good(lab.baton("run", flow, "--service", "shop,api", "--artifact", both, "--version", "v1"))
    assert "deployed shop v1" in done.stdout and "deployed api v1" in done.stdout
    shop, api = lab.artifact("v2", name="shop"), lab.artifact("v2b", name="api")
    with lab.load() as load:
        good(lab.baton("run", flow, "--service", "shop,api", "-a", f"shop={shop}", "-a", f"api={api}", "--version", "v2"))
    assert load.failed == 0, load.summary()
    runs(lab, "v2", "v2")
    poll("api, too", lambda: sorted(running(lab, "api").values()) == ["v2", "v2"])
    digests = {s: lab.api("GET", f"/v1/services/{s}/releases/v2")[1]["digest"] for s in ("shop", "api")}
    assert digests["shop"] != digests["api"]
    # the first that fails ends it: api is not touched
    bad = lab.artifact("bad", healthy=False)
    count = len(lab.deployments("api"))
    done = lab.baton("run", flow, "--service", "shop,api", "--artifact", bad, "--version", "bad")
    assert done.returncode == 1 and len(lab.deployments("api")) == count


def test_off_restart_and_on_leave_what_is_live(lab):
    begin(lab)
    before = lab.service()["release"]
    with lab.load() as load:
        done = good(run(lab, "turnOffL4", "--instances", "green"))
        assert "ran turnOffL4 of shop" in done.stdout
        assert upstream(lab) == ports(lab, "blue")
        assert sorted(running(lab).values()) == ["v1", "v1"]
        # what is out may be restarted without the switch; what is in may not
        refused = run(lab, "tomcatRestart", "--instances", "blue")
        assert refused.returncode == 1 and "in rotation" in refused.stderr and "turnOffL4" in refused.stderr
        pid = {i["slot"]: i["pid"] for h in lab.service()["world"]["hosts"] for i in h["instances"]}
        good(run(lab, "tomcatRestart", "--instances", "green"))
        poll("another process", lambda: {i["slot"]: i["pid"] for h in lab.service()["world"]["hosts"]
                                         for i in h["instances"]}.get("green") not in (pid["green"], 0, None))
        good(run(lab, "turnOnL4", "--instances", "green"))
        assert upstream(lab) == ports(lab, *TWO)
    assert load.failed == 0, load.summary()
    assert lab.service()["release"] == before


def test_the_last_one_stays_in(lab):
    begin(lab)
    count = len(lab.deployments())
    done = run(lab, "turnOffL4")
    assert done.returncode == 1, done.stdout
    assert "stage 'hosts, batch 1 of 1'" in done.stderr and "nobody in rotation" in done.stderr
    assert upstream(lab) == ports(lab, *TWO) and len(lab.deployments()) == count
    plan = lab.baton("plan", "shop", "--flow", "turnOffL4")
    assert plan.returncode == 1 and "nobody in rotation" in plan.stderr


def test_flows_of_the_config(lab):
    marks = lab.dir / "marks"
    begin(lab, flows={
        "night": [{"once": [{"run": ["/bin/sh", "-c", f"echo before >>{marks}"]}]},
                  {"per": "instance", "name": "renew", "tasks": [
                      "L4TurnOffTask", "TomcatStopTask", "ComponentDeployTask", "TomcatStartTask",
                      {"Exec": {"run": ["/bin/sh", "-c", f"echo {{slot}} >>{marks}"]}}, {"Wait": {"for": "200ms"}},
                      "L4TurnOnTask"]},
                  {"once": [{"Approve": {"within": "1m"}}]}]})
    shown = good(lab.baton("flows", "show", "night", "--service", "shop")).stdout
    assert "renew, per instance" in shown and "Approve" in shown
    listed = json.loads(good(lab.baton("flows", "--json")).stdout)["flows"]
    assert {"night", "turnOnL4", "canary"} <= {f["name"] for f in listed}
    with lab.load() as load:
        child = lab.start_baton("run", "night", "--service", "shop", "--version", "v2", "--artifact", lab.artifact("v2"))
        poll("it asks", lambda: lab.service().get("asks") or "approve" in json.dumps(lab.service()))
        poll("the words of both", lambda: marks.exists() and len(marks.read_text().split()) == 3)
        poll("approved", lambda: lab.baton("approve", "shop").returncode == 0)
        assert child.wait(60) == 0, child.stdout.read()
    assert load.failed == 0, load.summary()
    assert marks.read_text().split() == ["before", "blue", "green"]
    runs(lab, "v2", "v2")


def test_a_failure_puts_back_what_was_changed(lab):
    begin(lab)
    good(run(lab, "turnOffL4", "--instances", "green"))  # out for maintenance
    with lab.load() as load:
        done = deploying(lab, "multiInstanceDeployToReleaseWithL4Control", "bad", "--instances", "green", healthy=False)
    assert done.returncode == 1 and "rolled back" in done.stdout, done.stdout + done.stderr
    assert load.failed == 0, load.summary()
    runs(lab, "v1", "v1")
    assert upstream(lab) == ports(lab, "blue"), "what was out stays out"


def test_what_nobody_knows(lab):
    begin(lab)
    done = run(lab, "turnOfL4")
    assert done.returncode == 2 and "did you mean 'turnOffL4'" in done.stderr
    done = run(lab, "turnOffL4", "--hosts", "loca")
    assert done.returncode == 2 and "no host 'loca'" in done.stderr and "local" in done.stderr
    done = run(lab, "turnOffL4", "--instances", "grene")
    assert done.returncode == 2 and "did you mean 'green'" in done.stderr
    done = run(lab, "deployAndTomcatRestart")
    assert done.returncode == 2 and "--version" in done.stderr
    done = run(lab, "L4TurnOffTask")
    assert done.returncode == 2 and "is a task" in done.stderr
    for option in ("--hosts", "--instances"):  # what an empty variable leaves is not "all of them"
        done = run(lab, "turnOnL4", option, "")
        assert done.returncode == 2 and f"{option}: expected names" in done.stderr, done.stdout + done.stderr
        status, bad = lab.api("POST", "/v1/plan", {"service": "shop", "flow": "turnOnL4", option[2:]: []})
        assert status == 400 and "1 to" in bad["error"]["message"], bad
    lab.services["shop"]["flows"] = {"x": ["L4TurnOf"]}
    lab.write()
    done = lab.baton("lint")
    assert done.returncode == 2 and "did you mean 'L4TurnOff'" in done.stderr


# ---- one task by HTTP ----


def task(lab, wait="30s", token=None, **message):
    return lab.api("POST", f"/v1/tasks{'?wait=' + wait if wait else ''}", message, token=token, timeout=60)


def test_a_task_as_the_message_of_a_deployment_tool(lab):
    begin(lab)
    with lab.load() as load:
        status, off = task(lab, task="L4Task", serviceName="shop", action="turnOff", port=lab.port("shop-green"))
        assert (status, off["end"], off["task"]) == (200, "done", "L4TurnOff"), off
        assert upstream(lab) == ports(lab, "blue")
        status, done = task(lab, task="TomcatTask", action="stop", instanceId="green")
        assert (status, done["end"]) == (200, "done"), done
        poll("it is stopped", lambda: list(running(lab).values()) == ["v1"])
        status, done = task(lab, wait=None, task="TomcatTask", action="start", host="local", instanceId="green")
        assert status == 202 and done["id"] == off["id"] + 2, done
        status, done = lab.api("GET", f"/v1/tasks/{done['id']}?wait=60s", timeout=90)
        assert (status, done["end"]) == (200, "done"), done
        runs(lab, "v1", "v1")
        status, done = task(lab, task="L4TurnOnTask", service="shop", instanceId="green")
        assert (status, done["end"]) == (200, "done"), done
    assert load.failed == 0, load.summary()
    assert upstream(lab) == ports(lab, *TWO)
    # nothing in front has an address on this host: the task is there, is skipped, and says why
    status, done = task(lab, task="LoopbackTask", action="stop")
    assert (status, done["end"]) == (200, "done"), done
    told = [t for t in lab.deployment(done["id"])["tasks"] if t["kind"] == "LoopbackStop"]
    assert [t["state"] for t in told] == ["skipped"]


def test_component_deploy_as_a_message(lab):
    begin(lab)
    assert lab.deploy("v2", "--detach").returncode == 0
    poll("v2 serves", lambda: sorted(running(lab).values()) == ["v2", "v2"])
    poll("ended", lambda: lab.deployments()[0].get("end") == "done")
    digest = lab.api("GET", "/v1/services/shop/releases/v1")[1]["digest"]
    for file in ("v1", digest):
        status, done = task(lab, task="ComponentDeployTask", action="componentDeployStart", file=file, version="v1",
                            instanceId="green")
        assert (status, done.get("end")) == (200, "done"), done
    status, bad = task(lab, task="ComponentDeployTask", action="componentDeployStart", file="v9", instanceId="green")
    assert status == 400 and "sha256" in bad["error"]["message"]
    status, bad = task(lab, task="ComponentDeployTask", action="componentDeployStart", file="v1", instanceId="green",
                       deployPath="/somewhere")
    assert status == 400 and "deployPath" in bad["error"]["message"]


def test_a_task_that_could_mean_several(lab):
    begin(lab)
    before = len(lab.deployments())
    status, bad = task(lab, task="TomcatTask", action="stop")
    assert status == 400 and "shop on local/blue, shop on local/green" in bad["error"]["message"], bad
    status, bad = task(lab, task="TomcatTask", action="stp", instanceId="blue")
    assert status == 400 and "did you mean 'stop'" in bad["error"]["message"], bad
    status, bad = task(lab, task="L4Task", action="turnOff", instanceId="blue", prot=80)
    assert status == 400 and "unknown member 'prot'" in bad["error"]["message"], bad
    assert "did you mean 'port'" in bad["error"]["message"], bad
    status, bad = task(lab, task="L4Task", action="turnOff", instanceId="blue", port="http")
    assert status == 400 and "port" in bad["error"]["message"], bad
    status, bad = task(lab, task="Wait", instanceId="blue")
    assert status == 400 and "needs for" in bad["error"]["message"], bad
    status, bad = task(lab, task="TomcatTsk", action="stop")
    assert status == 400 and "expected TomcatTask" in bad["error"]["message"], bad
    status, bad = task(lab, task="L4Task", action="turnOff", serviceName="shopp")
    assert status == 400 and "no deployed service fits" in bad["error"]["message"], bad
    # out of rotation comes first, also for a task by itself
    status, bad = task(lab, task="TomcatTask", action="stop", instanceId="blue")
    assert status == 403 and "in rotation" in bad["error"]["message"], bad
    viewer = good(lab.baton("token", "create", "look", "--role", "viewer", "--json"))
    status, bad = task(lab, token=json.loads(viewer.stdout)["token"], task="L4Task", action="turnOff", instanceId="blue")
    assert status == 403, bad
    other = good(lab.baton("token", "create", "other", "--service", "api", "--json"))
    status, bad = task(lab, token=json.loads(other.stdout)["token"], task="L4Task", action="turnOff", instanceId="blue")
    assert status == 400 and "shop" not in bad["error"]["message"].replace("serviceName", ""), bad
    assert len(lab.deployments()) == before and upstream(lab) == ports(lab, *TWO)


def test_somebody_outside_is_told_and_silence_changes_nothing(lab):
    """The receiver stands in for a chat. What it is told names the run; when it is gone, the flow goes on."""
    receiver = Receiver()
    try:
        begin(lab, notify={
            "ops": {"url": f"http://127.0.0.1:{receiver.port}/hook", "format": "slack"},
            "gone": {"url": f"http://127.0.0.1:{lab.port('nobody')}/"}},
            flows={"tell": [{"per": "instance", "tasks": ["L4TurnOff", "L4TurnOn"]},
                            {"once": [{"Notify": {"to": "gone"}}, {"NotifyTask": {"to": "ops", "message": "shop is back"}}]}]})
        with lab.load() as load:
            done = good(run(lab, "tell"))
        assert load.failed == 0, load.summary()
        assert "ran tell of shop" in done.stdout
        path, headers, body = receiver.came[-1]
        number = lab.deployments()[0]["id"]
        assert path == "/hook" and headers["X-Baton-Delivery"].startswith(f"{number}-"), headers
        assert "shop is back" in json.loads(body)["text"], body
        states = {t["words"]: t["state"] for t in lab.deployment(number)["tasks"] if t["kind"] == "Notify"}
        assert sorted(states.values()) == ["done", "skipped"], states
    finally:
        receiver.close()
