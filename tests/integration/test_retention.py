"""What a server forgets, and what it must not."""
import json
import os
import signal
import sqlite3
import urllib.request

from fake_agent import FakeAgent
from lab import BUILD, poll
from test_api import SERVICE, ended, upload


def run(lab, version):
    config = {**SERVICE, "deploy": {**SERVICE["deploy"], "bake": "0s", "drain": "0s"}}
    status, answer = lab.api("POST", "/v1/deployments", {"service": "shop", "version": version, "config": config,
                                                         "artifact": upload(lab, version.encode())})
    assert status == 201, answer
    return ended(lab, answer["id"])


def kept(lab):
    return {d["id"] for d in lab.api("GET", "/v1/deployments?limit=1000")[1]["deployments"]}


def releases(lab):
    return {r["version"] for r in lab.api("GET", "/v1/services/shop/releases")[1]["releases"]}


def totals(lab):
    text = lab.api("GET", "/metrics")[1]
    return [line for line in text.splitlines() if line.startswith("baton_deployment") and "service=" in line]


def again(lab, agent, *args, **env):
    agent.paused.set()
    lab.kill("server", signal.SIGTERM)
    lab.server(*args, **env)
    agent.paused.clear()
    poll("the agent is back", lambda: lab.connected("h1"))


def test_old_runs_go_and_what_is_needed_stays(lab):
    shift = lab.dir / "clock"
    shift.write_text("0")
    lab.server()
    agent = FakeAgent(lab, "h1", lab.join_token("h1")).start()
    poll("the fake agent is connected", lambda: lab.connected("h1"))
    try:
        for n in range(1, 23):
            assert run(lab, f"v{n}")["end"] == "done"
        agent.refuse["InstanceStart"] = "no"
        assert run(lab, "v23")["end"] == run(lab, "v24")["end"] == "rolled_back"
        agent.refuse.clear()
        before = totals(lab)
        assert kept(lab) == set(range(1, 25))

        # by age: the newest twenty stay, however old
        shift.write_text("7200")
        again(lab, agent, "--keep-for", "1h", LD_PRELOAD=str(BUILD / "tests/integration/clock_shift.so"),
              CLOCK_SHIFT=str(shift),
              ASAN_OPTIONS=os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0")
        poll("four runs are forgotten", lambda: kept(lab) == set(range(5, 25)))
        assert releases(lab) == {f"v{n}" for n in range(3, 25)}, "v4 is named by run 5, v3 is a newer good one"
        assert totals(lab) == before, "counts do not fall"
        status, answer = lab.api("GET", "/v1/deployments/2")
        assert status == 404 and "old ones are forgotten" in answer["error"]["message"]
        assert lab.api("GET", "/v1/deployments/99")[1]["error"]["message"].endswith("'99'")

        # by number: the run that made the live release live stays, however many failed since
        agent.refuse["InstanceStart"] = "no"
        for n in (25, 26, 27):
            assert run(lab, f"v{n}")["end"] == "rolled_back"
        agent.refuse.clear()
        before = totals(lab)
        again(lab, agent, "--keep-runs", "2")
        poll("all but three runs are forgotten", lambda: kept(lab) == {22, 26, 27})
        assert releases(lab) == {f"v{n}" for n in [*range(3, 23), 26, 27]}
        assert totals(lab) == before
        assert {p.name for p in (lab.dir / "server/runs").iterdir()} == {"22", "26", "27"}
        assert lab.api("GET", "/v1/deployments/22/log")[1].startswith("==")
        request = urllib.request.Request(lab.url + "/v1/events?after=0")
        request.add_header("Authorization", f"Bearer {lab.token}")
        with urllib.request.urlopen(request, timeout=30) as stream:
            first = next(line for line in stream if line.startswith(b"data: ") and b'"deployment"' in line)
        assert json.loads(first[6:])["deployment"] == 22, "a stream from the beginning begins with what is left"

        # what was live before is still known, and no number comes twice
        status, answer = lab.api("POST", "/v1/services/shop/rollback", {})
        assert status == 201 and answer["id"] == 28
        assert ended(lab, 28)["end"] == "done" and ended(lab, 28)["version"] == "v21"
        poll("the next round", lambda: kept(lab) == {27, 28})
        lab.kill("server", signal.SIGTERM)
        with sqlite3.connect(lab.dir / "server/baton.db") as db:
            assert {row[0] for row in db.execute("SELECT DISTINCT deployment FROM records")} == {27, 28}
            assert {row[0] for row in db.execute("SELECT DISTINCT deployment FROM outbox")} <= {27, 28}
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert db.execute("PRAGMA auto_vacuum").fetchone() == (2,), "free pages are given back"
    finally:
        agent.stop()


def test_bounds_that_make_no_sense_are_refused(lab):
    for args, words in ((("--keep-runs", "0"), "--keep-runs"), (("--keep-for", "0"), "--keep-for"),
                        (("--keep-for", "90"), "--keep-for"), (("--keep-runs", "many"), "--keep-runs")):
        done = lab.baton("server", "run", "--dir", lab.dir / "none", *args)
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and words in done.stderr
        assert lab.baton("up", "--dir", lab.dir / "none", *args).returncode == 2
