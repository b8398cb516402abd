"""`baton up` and the client on real runs: what a person on one machine sees."""
import json
import os
import re
import signal

import pytest

from lab import poll


@pytest.fixture
def shop(lab):
    lab.nginx()
    lab.config()
    lab.up()
    assert lab.deploy("v1").returncode == 0
    return lab


def agent_of(lab):
    """The agent's pid: the child of `baton up`."""
    for pid in lab.processes():
        try:
            stat = open(f"/proc/{pid}/stat", encoding="utf-8").read()
            words = open(f"/proc/{pid}/cmdline", encoding="utf-8").read().split("\0")
        except OSError:
            continue
        if int(stat.rsplit(")", 1)[1].split()[1]) == lab.children["up"].pid and words[1:3] == ["agent", "run"]:
            return pid
    return None


def test_the_first_start_asks_nothing_and_says_what_to_do_next(lab):
    lab.up()
    said = poll("the greeting", lambda: "agent is connected" in lab.log("up") and lab.log("up"))
    assert "baton deploy" in said and str(lab.dir / "state") in said
    client = lab.dir / "state/client.json"
    assert client.stat().st_mode & 0o777 == 0o600
    assert json.loads(client.read_text())["url"] == lab.url
    # found without a word, by its directory alone
    run = lab.baton("status", BATON_SERVER="", BATON_TOKEN="", BATON_DIR=str(lab.dir / "state"))
    assert run.returncode == 0 and "no services yet" in run.stdout


def test_a_second_start_on_the_same_directory_is_refused(lab):
    lab.up()
    run = lab.baton("up", "--dir", lab.dir / "state", "--listen", f"127.0.0.1:{lab.port('other')}")
    assert run.returncode == 1 and run.stderr.count("\n") == 1
    assert str(lab.children["up"].pid) in run.stderr and str(lab.dir / "state") in run.stderr
    assert lab.healthy()


def test_apps_outlive_baton_up_and_are_taken_over(shop):
    before = [i["pid"] for h in shop.service()["world"]["hosts"] for i in h["instances"] if i["pid"]]
    assert before
    assert shop.kill("up", signal.SIGTERM) == 0
    assert shop.ask() == "v1"
    assert shop.baton("status").returncode == 5
    shop.up()
    poll("the instance is seen again", lambda: [
        i["pid"] for h in shop.service()["world"]["hosts"] for i in h["instances"] if i["pid"]] == before)
    assert shop.deploy("v2").returncode == 0 and shop.ask() == "v2"


def test_a_killed_agent_is_started_again(shop):
    old = poll("the agent", lambda: agent_of(shop))
    os.kill(old, signal.SIGKILL)
    poll("another agent", lambda: agent_of(shop) not in (None, old))
    assert shop.ask() == "v1"
    assert shop.deploy("v2").returncode == 0 and shop.ask() == "v2"


def test_a_killed_up_leaves_traffic_alone_and_starts_again(shop):
    shop.kill("up", signal.SIGKILL)
    assert shop.ask() == "v1"
    shop.up()
    assert shop.deploy("v2").returncode == 0 and shop.ask() == "v2"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_deploy_is_rolled_back(shop, number):
    child = shop.start_deploy("v2", start_delay=60)
    for line in child.stdout:
        if "wait until" in line:
            break
    child.send_signal(number)
    out = child.communicate(timeout=60)[0]
    assert child.returncode == 130, out
    assert "interrupted and rolled back" in out.splitlines()[-1]
    assert shop.ask() == "v1"
    assert shop.deployments()[0]["end"] == "rolled_back"


def test_a_killed_client_changes_nothing(shop):
    child = shop.start_deploy("v2", start_delay=1)
    for line in child.stdout:
        if "wait until" in line:
            break
    child.kill()
    child.wait()
    poll("the run ends", lambda: shop.deployments()[0]["phase"] == "ended")
    assert shop.deployments()[0]["end"] == "done" and shop.ask() == "v2"


def test_two_deploys_at_once(shop):
    first = shop.start_deploy("v2", start_delay=3)
    for line in first.stdout:
        if "wait until" in line:
            break
    second = shop.deploy("v3")
    assert second.returncode == 4 and re.search(r"deployment \d+", second.stderr)
    first.communicate(timeout=60)
    assert first.returncode == 0 and shop.ask() == "v2"


def test_what_people_ask(shop):
    assert shop.deploy("bad", exit_at_once=7).returncode == 1
    assert shop.deploy("v2").returncode == 0
    status = shop.baton("status", "shop").stdout
    assert re.search(r"^shop +v2 ", status, re.M)
    history = shop.baton("history", "shop").stdout.splitlines()
    assert [line.split()[2:4] for line in history[1:]] == [["blue-green", v] for v in ("v2", "bad", "v1")]
    releases = json.loads(shop.baton("releases", "shop", "--json").stdout)["releases"]
    assert {r["version"]: r["state"] for r in releases} == {"v1": "good", "bad": "bad", "v2": "good"}
    assert "app v2 listens" in shop.baton("logs", "shop", "-n", "50").stdout
    shown = shop.baton("show", "2")
    assert shown.returncode == 1 and "exit code 7" in shown.stdout and "logs of the tasks" in shown.stdout
    assert re.search(r"^== task \d+: start shop bad in local/", shown.stdout, re.M), "whose log it is"
    assert re.search(r"^== task \d+: undo: start shop bad", shown.stdout, re.M)
    plan = shop.baton("plan", "shop")
    assert plan.returncode == 0 and "idle" in plan.stdout
    assert json.loads(shop.baton("plan", "shop", "--json").stdout)["stages"]
    back = shop.baton("rollback", "shop")
    assert back.returncode == 0 and shop.ask() == "v1" and "went back to shop v1" in back.stdout
    again = shop.baton("show", "shop").stdout
    assert "went back to shop v1" in again and re.search(r"^== task \d+: switch nginx/shop", again, re.M)
    # the slot that failed had another app before: its lines explain nothing
    assert shop.deploy("v3").returncode == 0
    worse = shop.deploy("worse", exit_at_once=7)
    assert worse.returncode == 1
    tail = worse.stdout.split("last lines of ")[1]
    assert "starting worse" in tail and "app v1" not in tail and "app v2" not in tail
