"""Who asks right after a run sees what the run did."""
import json
import threading

from fake_agent import FakeAgent


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
