"""Behind an L4 appliance with a REST API: a fake one (appliance.py), which really balances TCP."""
import json
import threading

from appliance import Appliance
from farhost import FarHost
from lab import poll

SENTINEL = "tok-4pp1i4nc3-sentinel"


def good(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def events(done):
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def traffic(lab, host="127.0.0.1", **more):
    url = f"http://{host}:{lab.port('lb-api')}/api/members/{{host}}-{{slot}}"
    return {"http": {"on": "lb1", "headers": {"Authorization": "Bearer ${LB_TOKEN}"},
                     "status": {"url": url},
                     "turn_on": {"url": url, "body": '{"state": "enabled", "who": "{address}:{port}"}'},
                     "turn_off": {"url": url, "body": '{"state": "disabled"}'},
                     "in_rotation": {"path": "data.state", "is": "enabled"},
                     "connections": "data.connections", "timeout": "3s", "retries": 2, **more}}


def set_up(lab, slots=("s1", "s2"), more=None, **deploy):
    lab.config(nginx=False, host="was1", slots=slots, traffic=traffic(lab, **(more or {})),
               deploy={"strategy": "rolling", "bake": "0s", **deploy})
    lab.services["shop"]["run"]["secrets"] = ["LB_TOKEN"]
    lab.write()
    lab.page = f"http://127.0.0.1:{lab.port('page')}"
    lab.server()
    lab.agent("was1")
    lab.agent("lb1")
    return Appliance(lab.port("page"), lab.port("lb-api"),
                     {f"was1-{s}": ("127.0.0.1", lab.port(f"shop-{s}")) for s in slots}, SENTINEL)


def deploy(lab, version, *args, token=SENTINEL, **settings):
    return lab.deploy(version, *args, env={"LB_TOKEN": token}, **settings)


def ask(lab):
    return lab.ask("/version")


def members(lab):
    """Who is in rotation, as baton sees it."""
    return {s["slot"]: s["in"] for s in lab.service()["slots"]}


def test_rolling_under_load(lab):
    with set_up(lab) as lb:
        good(deploy(lab, "v1"))
        assert lb.enabled() == ["was1-s1", "was1-s2"] and ask(lab) == "v1"
        lb.lag = 2  # it takes a while until it says what it did
        with lab.load() as load:
            done = good(deploy(lab, "v2", "--json"))
        assert load.failed == 0, load.summary()
        assert load.sent > 0 and "v2" in load.versions()
        assert lb.enabled() == ["was1-s1", "was1-s2"] and ask(lab) == "v2"
        assert members(lab) == {"s1": True, "s2": True}
        drains = [e for e in events(done) if e.get("kind") == "sent" and e["task"]["kind"] == "Drain"]
        assert drains and {e["task"]["host"] for e in drains} == {"lb1"}
        assert lb.wrong_tokens == 0
        with lab.load() as load:
            good(lab.baton("rollback", "shop"))
        assert load.failed == 0, load.summary()
        assert ask(lab) == "v1"


def test_blue_green_where_hosts_count_connections(lab):
    """Two hosts, the second one with a network of its own; the API tells no connections."""
    was2 = FarHost(lab)
    lab.config(nginx=False, host="was1", traffic=traffic(lab, connections=None), deploy={"bake": "0s"})
    del lab.services["shop"]["traffic"]["http"]["connections"]
    lab.services["shop"]["hosts"] = ["was1", "was2"]
    lab.services["shop"]["run"]["secrets"] = ["LB_TOKEN"]
    lab.write()
    lab.page = f"http://127.0.0.1:{lab.port('page')}"
    lab.server()
    lab.agent("was1")
    lab.agent("lb1")
    lab.agent("was2", machine=was2)
    with Appliance(lab.port("page"), lab.port("lb-api"),
                   {f"{h}-{s}": (a, lab.port(f"shop-{s}")) for h, a in (("was1", "127.0.0.1"), ("was2", was2.address))
                    for s in ("blue", "green")}, SENTINEL) as lb:
        good(deploy(lab, "v1", listen="0.0.0.0"))
        assert lb.enabled() == ["was1-blue", "was2-blue"]
        with lab.load() as load:
            done = good(deploy(lab, "v2", "--json", listen="0.0.0.0"))
        assert load.failed == 0, load.summary()
        assert lb.enabled() == ["was1-green", "was2-green"] and ask(lab) == "v2"
        drained = {e["task"]["host"] for e in events(done)
                   if e.get("kind") == "sent" and e.get("task", {}).get("kind") == "Drain"}
        assert drained == {"was1", "was2"}


def test_the_api_goes_away_in_the_middle(lab):
    with set_up(lab) as lb:
        good(deploy(lab, "v1"))
        first = threading.Event()

        def watch(method, name):  # the first member that leaves is the signal
            if method == "PUT" and not first.is_set():
                first.set()
            return None
        lb.answer = watch
        with lab.load() as load:
            child = lab.start_deploy("v2", env={"LB_TOKEN": SENTINEL})
            assert first.wait(60)
            lb.api_down()
            out, _ = child.communicate(timeout=180)
            assert child.returncode not in (0, None), out
            assert load.failed == 0, load.summary()
            lb.api_up()
            lb.answer = None
            # until its agent has told it again what was in force, a deployment is refused
            again = poll("a deployment", lambda: "told again yet" not in (d := deploy(lab, "v3")).stderr and d)
            good(again)
        assert load.failed == 0, load.summary()
        assert ask(lab) == "v3" and lb.enabled() == ["was1-s1", "was1-s2"]


def test_an_api_that_is_down_or_talks_nonsense(lab):
    with set_up(lab) as lb:
        good(deploy(lab, "v1"))
        told = lb.told()
        for answer, words in ((b"<html>it works</html>", "no JSON"), (b"{}", "data.state is missing"),
                              (b'{"data": {"state": null}}', "data.state is null"),
                              (b'{"data": {"state": "enabled", "connections": "many"}}', "a count of connections"),
                              (b" " * ((1 << 20) + 1), "larger than")):
            lb.answer = answer
            done = deploy(lab, "v2")
            assert done.returncode == 1, done.stdout + done.stderr
            assert words in done.stderr + done.stdout
        lb.answer = None
        wrong = deploy(lab, "v2", token="another-" + SENTINEL)
        assert wrong.returncode == 1 and "401" in wrong.stderr, wrong.stderr
        assert SENTINEL not in wrong.stderr + wrong.stdout
        lb.api_down()
        down = deploy(lab, "v2")
        assert down.returncode == 1 and "refused" in down.stderr, down.stderr
        lb.api_up()
        assert lb.told() == told and ask(lab) == "v1"  # nothing was begun
        good(deploy(lab, "v2"))
        assert ask(lab) == "v2"


def test_a_member_that_the_appliance_does_not_know(lab):
    with set_up(lab) as lb:
        del lb.members["was1-s2"]
        done = deploy(lab, "v1")
        assert done.returncode == 1
        assert "status of was1/s2" in done.stderr and "404" in done.stderr, done.stderr
        assert lb.told() == []


def test_the_secret_stays_a_secret(lab):
    with set_up(lab) as lb:
        good(deploy(lab, "v1", "--json"))
        lb.token = "another-one"  # what it answers now repeats what it was told
        poll("the look at it fails", lambda: lb.wrong_tokens > 0)
        seen = poll("its trouble is told", lambda: (lab.service()["balancers"] or [{}])[0].get("trouble"))
        assert "401" in seen and SENTINEL not in seen, seen
        texts = [json.dumps(lab.api("GET", p)[1]) for p in
                 ("/v1/services/shop", "/v1/services", "/v1/hosts", "/v1/deployments", "/v1/deployments/1", "/v1/audit",
                  "/v1/deployments/1/events", "/v1/deployments/1/log")]
        assert all(SENTINEL not in t for t in texts)
        for path in lab.dir.rglob("*"):
            if not path.is_file() or path.stat().st_size > 1 << 24:
                continue
            inside = path.relative_to(lab.dir).parts
            kept = inside[0].startswith("agent-") and inside[1:2] in (("desired",), ("ledger",))
            held = SENTINEL.encode() in path.read_bytes()
            if held and not kept:  # an app's own environment is written for its shim
                assert inside[0] == "agent-was1" and inside[1] == "instances", path
            if held:
                assert path.stat().st_mode & 0o077 == 0, path
        # the server is away: the agent still knows what to say
        lb.token = SENTINEL
        lab.kill("server")
        lab.kill("agent-lb1")
        before = len(lb.calls)
        lab.agent("lb1", wait=False)
        poll("it asks again", lambda: any(c[2] == 200 for c in lb.calls[before:]))
