"""Who asks right after a run sees what the run did."""
import json
import threading

from fake_agent import FakeAgent
from lab import poll


def agreed(lab, version):
    """What `baton status --json` says at once, without asking twice."""
    said = json.loads(lab.baton("status", "shop", "--json").stdout)
    running = [(i["slot"], i["version"]) for h in said["world"]["hosts"] for i in h["instances"]
               if i["state"] == "running"]
    assert said["release"]["version"] == version and said["phase"] == "idle"
    assert running == [(said["live_slot"], version)], said


def test_status_agrees_with_the_end_of_every_run(lab):
    lab.nginx()
    lab.config(deploy={"bake": "0s"})
    lab.up()
    for n in range(1, 5):
        assert lab.deploy(f"v{n}").returncode == 0
        agreed(lab, f"v{n}")
    assert lab.deploy("bad", exit_at_once=7).returncode == 1
    agreed(lab, "v4")
    assert lab.baton("rollback", "shop").returncode == 0
    agreed(lab, "v3")


def test_what_turns_unhealthy_after_its_deployment_is_shown(lab):
    """Nothing is done about it, and nothing is hidden: status, top and the API say which and why."""
    lab.nginx()
    lab.config(deploy={"bake": "0s"}, health={"watch": "200ms", "fails": 1})
    lab.up()
    assert lab.deploy("v1", health_fails_after=8).returncode == 0

    def slot():
        service = lab.service()
        return next(s for s in service["slots"] if s["slot"] == service["live_slot"])

    poll("seen healthy", lambda: slot().get("healthy") is True)
    poll("seen unhealthy", lambda: slot().get("healthy") is False)
    assert "503" in slot()["unhealthy_why"] and slot()["in"], slot()
    said = lab.baton("status", "shop").stdout
    assert "running, unhealthy" in said and "attention: local/" in said and "503" in said, said
    assert "unhealthy" in lab.baton("top", "--once").stdout
    assert lab.deploy("v2").returncode == 0
    assert slot().get("healthy") is not False, "an answer belongs to the process that gave it"
    poll("the next one is seen healthy", lambda: slot().get("healthy") is True)


def test_a_switch_is_not_taken_for_somebody_elses_hand(lab):
    """Whoever looks in the middle of a switch sees the file of the next generation."""
    lab.nginx()
    lab.config(deploy={"bake": "0s"})
    lab.up()
    assert lab.deploy("v1").returncode == 0
    seen, over = [], threading.Event()

    def look():
        while not over.is_set():
            world = lab.service()["world"]
            seen.extend(b["trouble"] for h in world["hosts"] for b in h.get("balancers", []) if "trouble" in b)

    reader = threading.Thread(target=look)
    reader.start()
    try:
        for n in range(2, 8):
            assert lab.deploy(f"v{n}").returncode == 0
    finally:
        over.set()
        reader.join()
    assert not seen, set(seen)
    # and when it really is somebody else's, it is told
    with open(lab.dir / "shop.conf", "a", encoding="ascii") as f:
        f.write("# by hand\n")
    poll("it is told", lambda: any("changed by somebody else" in b.get("trouble", "")
                                   for h in lab.service()["world"]["hosts"] for b in h.get("balancers", [])))


def test_a_reader_waits_for_the_host_that_has_news_and_for_no_other(lab):
    """The marks of results and observations, with an agent that sends them by hand."""
    lab.server()
    agent = FakeAgent(lab, "h1", lab.join_token("h1"))
    agent.hello()
    answers = []

    def read():
        answers.append(lab.api("GET", "/v1/services"))

    assert lab.api("GET", "/v1/services")[0] == 200
    assert agent.call("POST", "/v1/agent/results", {"results": [], "produced": 3})[0] == 200
    reader = threading.Thread(target=read)
    reader.start()
    # seen before the last result: does not count
    assert agent.call("POST", "/v1/agent/observation", {"services": {}, "produced": 2})[0] == 204
    assert agent.call("POST", "/v1/agent/observation", {"services": {}, "produced": 3})[0] == 204
    reader.join(30)
    assert answers[0][0] == 200
    # nothing comes after the news: what is known is told all the same
    assert agent.call("POST", "/v1/agent/results", {"results": [], "produced": 4})[0] == 200
    assert lab.api("GET", "/v1/services")[0] == 200
    # a reader that leaves early, and a server that ends while one waits
    assert agent.call("POST", "/v1/agent/results", {"results": [], "produced": 5})[0] == 200
    assert lab.api("GET", "/v1/services", timeout=0.2)[0] == 0
    assert agent.call("POST", "/v1/agent/observation", {"services": {}, "produced": 5})[0] == 204
    assert lab.api("GET", "/v1/services")[0] == 200
