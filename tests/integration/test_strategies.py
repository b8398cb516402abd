"""Every strategy on real processes behind a real nginx, under load: no request fails, and what serves
in the end is what the run said."""
import json
import time

from lab import poll

THREE = ("blue", "green", "red")  # nginx starts at the first


def good(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def instances(lab, name="shop"):
    """{"host/slot": instance}"""
    return {f"{h['host']}/{i['slot']}": i for h in lab.service(name)["world"]["hosts"] for i in h["instances"]}


def running(lab, name="shop"):
    return {k: i["version"] for k, i in instances(lab, name).items() if i.get("state") == "running"}


def runs(lab, *versions):
    """The agent tells what changed a moment after the run has ended: wait for these to run."""
    poll(f"{versions} run", lambda: sorted(running(lab).values()) == sorted(versions))


def upstream(lab, name="shop"):
    """Ports that nginx sends to, as its own file has it; `backup` servers do not count."""
    text = (lab.dir / f"{name}.conf").read_text()
    return {int(line.split(":")[1].split(";")[0].split()[0]) for line in text.splitlines()
            if line.strip().startswith("server ") and " backup" not in line and " down" not in line}


def test_blue_green_there_and_back(lab):
    lab.nginx()
    lab.config()
    lab.up()
    good(lab.deploy("v1"))
    with lab.load(slow=1) as load:
        good(lab.deploy("v2"))
        confirmed = time.monotonic()
        assert lab.ask() == "v2"
        runs(lab, "v2")  # and the old one was stopped
        good(lab.baton("rollback", "shop"))
        back = time.monotonic()
        assert lab.ask() == "v1"
    assert load.failed == 0, load.summary()
    assert load.versions(after=back) in ([], ["v1"]), "an old version answered after the confirmation"
    middle = [b for begun, _, kind, _, b in load.seen if confirmed < begun and kind != "slow"]
    assert set(middle) <= {"v1", "v2"}


def test_warm_slot_comes_back_by_one_switch(lab):
    lab.nginx()
    lab.config(deploy={"keep_warm": "1h"})
    lab.up()
    good(lab.deploy("v1"))
    good(lab.deploy("v2"))
    runs(lab, "v1", "v2")
    pids = {k: i["pid"] for k, i in instances(lab).items()}
    with lab.load() as load:
        done = good(lab.baton("rollback", "shop", "--json"))
    assert load.failed == 0, load.summary()
    kinds = [e["task"]["kind"] for e in map(json.loads, done.stdout.splitlines()) if e.get("kind") == "sent"]
    assert "InstanceStart" not in kinds, kinds
    assert kinds.count("Switch") == 1, kinds
    live = poll("the live slot is seen", lambda: lab.service()["live"]["slot"])
    assert instances(lab)[f"local/{live}"]["pid"] == pids[f"local/{live}"], "the warm instance was to serve again"
    assert lab.ask() == "v1"


def test_warm_slot_is_stopped_when_its_time_has_passed(lab):
    lab.nginx()
    lab.config(deploy={"keep_warm": "1s"})
    lab.up()
    good(lab.deploy("v1"))
    good(lab.deploy("v2"))
    poll("the warm instance is retired", lambda: set(running(lab).values()) == {"v2"})
    assert lab.ask() == "v2"


def test_rolling_instance_by_instance(lab):
    lab.nginx()
    lab.config(slots=THREE, identity=None, deploy={"strategy": "rolling", "batch": 1, "min_in_rotation": 2})
    lab.up()
    good(lab.deploy("v1"))
    assert len(upstream(lab)) == 3
    with lab.load(slow=1) as load:
        for n in range(2, 5):
            done = good(lab.deploy(f"v{n}", "--json"))
            pools = [e for e in map(json.loads, done.stdout.splitlines())
                     if e.get("kind") == "result" and e["task"]["kind"] == "Switch"]
            assert len(pools) == 6, "out and in again, one by one"
            runs(lab, *[f"v{n}"] * 3)
            assert len(upstream(lab)) == 3
    assert load.failed == 0, load.summary()


def test_rolling_goes_back_when_the_second_batch_fails(lab):
    """The new version is healthy on the first slot only: all three are at the old one afterwards."""
    lab.nginx()
    lab.config(slots=THREE, identity=None, health={"within": "5s"},
               deploy={"strategy": "rolling", "batch": 1})
    lab.up()
    good(lab.deploy("v1"))
    with lab.load() as load:
        done = lab.deploy("v2", healthy_slots=["blue"])
        assert done.returncode == 1, done.stdout + done.stderr
    assert load.failed == 0, load.summary()
    runs(lab, "v1", "v1", "v1")
    assert len(upstream(lab)) == 3
    assert lab.deployments()[0]["end"] == "rolled_back"


def test_halt_leaves_it_and_says_so(lab):
    lab.nginx()
    lab.config(slots=THREE, identity=None, health={"within": "5s"},
               deploy={"strategy": "rolling", "batch": 1, "on_failure": "halt"})
    lab.up()
    good(lab.deploy("v1"))
    with lab.load() as load:
        done = lab.deploy("v2", healthy_slots=["blue"])
    assert done.returncode == 3, done.stdout + done.stderr
    assert load.failed == 0, load.summary()
    runs(lab, "v1", "v1", "v2")
    assert len(upstream(lab)) == 3, "the failed lane was to be put back in rotation"


def test_continue_goes_on_past_one_failure(lab):
    lab.nginx()
    lab.config(slots=THREE, identity=None, health={"within": "5s"},
               deploy={"strategy": "rolling", "batch": 1, "on_failure": "continue 1"})
    lab.up()
    good(lab.deploy("v1"))
    with lab.load() as load:
        done = good(lab.deploy("v2", healthy_slots=["blue", "red"]))
    assert load.failed == 0, load.summary()
    runs(lab, "v1", "v2", "v2")
    assert "stayed behind" in done.stdout, done.stdout


def test_recreate(lab):
    lab.nginx()
    lab.config(slots=("blue",), deploy={"strategy": "recreate"})
    lab.up()
    good(lab.deploy("v1"))
    good(lab.deploy("v2"))
    runs(lab, "v2")
    assert lab.ask() == "v2"


def test_bake_notices_failing_health_and_goes_back(lab):
    lab.nginx()
    lab.config()
    lab.up()
    good(lab.deploy("v1"))
    lab.config(deploy={"bake": "30s"})
    with lab.load() as load:
        done = lab.deploy("v2", health_fails_after=2)
        assert done.returncode == 1, done.stdout + done.stderr
        assert lab.ask() == "v1"
    assert load.failed == 0, load.summary()
    assert lab.deployments()[0]["end"] == "rolled_back"
    assert [r["state"] for r in lab.api("GET", "/v1/services/shop/releases")[1]["releases"]
            if r["version"] == "v2"] == ["bad"]


def test_promote_ends_a_bake_and_pause_holds_a_run(lab):
    lab.nginx()
    lab.config(deploy={"bake": "10m"})
    lab.up()
    client = lab.start_deploy("v1")
    poll("a bake to promote", lambda: lab.baton("promote", "shop").returncode == 0)
    assert client.wait(60) == 0, client.stdout.read()
    client = lab.start_deploy("v2")
    poll("the bake runs", lambda: (lab.deployments()[0]["version"] == "v2") and lab.ask() == "v2")
    good(lab.baton("pause", "shop"))
    poll("the run is paused", lambda: lab.deployments()[0]["phase"] == "paused")
    good(lab.baton("resume", "shop"))
    good(lab.baton("abort", "shop"))
    assert client.wait(60) == 1, client.stdout.read()
    assert lab.ask() == "v1"
    assert lab.deployments()[0]["end"] == "rolled_back"


def two_hosts(lab, **groups):
    """web1 has nginx, was1 the instances: a server and two agents on this machine."""
    lab.nginx()
    lab.server()
    for host in ("web1", "was1"):
        lab.agent(host)
    config = lab.config(host="was1", **groups)
    config["traffic"]["nginx"]["on"] = "web1"
    (lab.dir / "baton.yaml").write_text(json.dumps(config))
    return config


def test_nginx_on_another_host(lab):
    two_hosts(lab)
    good(lab.deploy("v1"))
    with lab.load() as load:
        good(lab.deploy("v2"))
        good(lab.baton("rollback", "shop"))
    assert load.failed == 0, load.summary()
    assert lab.ask() == "v1"


def test_managed_nginx_with_routes(lab):
    lab.config(nginx=False, slots=THREE, deploy={"strategy": "rolling", "batch": 1})
    config = json.loads((lab.dir / "baton.yaml").read_text())
    lab.page = f"http://127.0.0.1:{lab.port('page')}"
    config["traffic"] = {"nginx": {"listen": f"127.0.0.1:{lab.port('page')}", "server_name": "shop.test",
                                   "routes": [{"path": "/", "to": "one"}, {"path": "/version", "to": "all"}]}}
    (lab.dir / "baton.yaml").write_text(json.dumps(config))
    lab.up()
    good(lab.deploy("v1"))
    with lab.load(host="shop.test") as load:
        good(lab.deploy("v2"))
    assert load.failed == 0, load.summary()
    assert lab.ask() == "v2"
    assert lab.ask("/profile") in THREE


def test_status_history_logs_hosts_releases_show(lab):
    lab.nginx()
    lab.config()
    lab.up()
    good(lab.deploy("v1"))
    good(lab.deploy("v2"))
    assert "v2" in good(lab.baton("status", "shop")).stdout
    assert json.loads(good(lab.baton("status", "--json")).stdout)
    assert len(json.loads(good(lab.baton("history", "--json")).stdout)["deployments"]) == 2
    assert "local" in good(lab.baton("hosts")).stdout
    releases = good(lab.baton("releases", "shop")).stdout
    assert "v1" in releases and "v2" in releases
    shown = good(lab.baton("show", str(lab.deployments()[0]["id"]))).stdout
    assert "switch" in shown and "deployed" in shown.lower(), shown
    lab.ask("/version")
    logs = lab.baton("logs", "shop", "--lines", "5")
    assert logs.returncode == 0, logs.stderr
