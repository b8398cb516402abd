"""Routes as document 001 has them: `/` goes to one instance, `/api` to all, and instances are replaced one
by one. Nobody's request fails, and `/` moves once: to the first instance that is renewed."""
import pytest

from lab import poll

ROUTES = [{"path": "/", "to": "one"}, {"path": "/api", "to": "all"}]


def good(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def routed(lab, slots, **groups):
    lab.page = f"http://127.0.0.1:{lab.port('page')}"
    config = lab.config(nginx=False, slots=slots, **groups)
    config["deploy"].update(strategy="rolling", batch=1, bake="0s")
    config["traffic"] = {"nginx": {"listen": f"127.0.0.1:{lab.port('page')}", "routes": ROUTES}}
    lab.write()
    return config


def pairs(load):
    """{(slot, version)} of the answers."""
    return {tuple(body.split()) for *_, body in load.seen}


@pytest.mark.parametrize("n", [2, 3, 5])
def test_one_moves_once_and_all_stay_balanced(lab, n):
    slots = [f"s{i}" for i in range(1, n + 1)]
    routed(lab, slots)
    lab.up()
    good(lab.deploy("v1"))
    for version, before in (("v2", "v1"), ("v3", "v2"))[:2 if n == 3 else 1]:
        was = lab.ask("/who").split()
        plan = lab.baton("plan", "shop", "--artifact", lab.artifact(version), "--version", version).stdout
        assert f"/ goes to local/{was[0]} alone, and moves once" in plan, plan
        with lab.load(path="/who") as one, lab.load(path="/api/who") as every:
            good(lab.deploy(version))
            now = lab.ask("/who").split()
        assert one.failed == 0, one.summary()
        assert every.failed == 0, every.summary()
        assert was[1] == before and now[1] == version and now[0] != was[0]
        assert pairs(one) == {tuple(was), tuple(now)}, "from the one to the other, and to no third"
        assert {v for _, v in pairs(every)} == {before, version}
        seen = set()
        poll("/api reaches all", lambda: seen.add(lab.ask("/api/who")) or len(seen) == n)
        assert seen == {f"{s} {version}" for s in slots}


def test_a_rolling_that_fails_brings_one_back(lab):
    """The second instance never gets healthy: `/` has moved to the first new one, and returns."""
    routed(lab, ["s1", "s2", "s3"], health={"within": "5s"})
    lab.up()
    good(lab.deploy("v1"))
    was = lab.ask("/who")
    others = [s for s in ("s1", "s2", "s3") if s != was.split()[0]]
    with lab.load(path="/who") as one, lab.load(path="/api/who") as every:
        done = lab.deploy("v2", healthy_slots=[others[0]])
        assert done.returncode == 1, done.stdout + done.stderr
    assert one.failed == 0, one.summary()
    assert every.failed == 0, every.summary()
    assert (others[0], "v2") in pairs(one), "it had moved"
    assert lab.ask("/who").endswith(" v1")
    assert lab.deployments()[0]["end"] == "rolled_back"
