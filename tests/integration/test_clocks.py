"""Somebody sets the time, forwards and back, in the middle of a deployment and between two."""
import os
import signal

import pytest

from lab import BUILD, poll
from steps import begin, finish, good, instances, state_of, works_again

HOUR = 3600
DAY = 24 * HOUR


class Clock:
    """Wall time of the processes that are started with env(); monotonic time stays as it is."""

    def __init__(self, path):
        self.path = path
        self.jump(0)

    def env(self):
        return {"LD_PRELOAD": str(BUILD / "tests/integration/clock_shift.so"), "CLOCK_SHIFT": str(self.path),
                "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"}

    def jump(self, seconds):
        aside = self.path.with_suffix(".new")
        aside.write_text(str(seconds))
        aside.rename(self.path)


@pytest.mark.parametrize("who", ["server", "agent"])
def test_a_clock_is_set_in_mid_run(lab, who):
    """A day ahead in the middle of one run, and back in the middle of the next."""
    clock = Clock(lab.dir / "clock")
    lab.nginx()
    lab.config(host="was1", deploy={"drain": "5s", "bake": "300ms"})
    lab.server(**(clock.env() if who == "server" else {}))
    lab.agent("was1", **(clock.env() if who == "agent" else {}))
    good(lab.deploy("v1"))
    with lab.load(rate=60) as load:
        for version, slot, seconds in (("v2", "green", DAY), ("v3", "blue", 0), ("v4", "green", -DAY)):
            client, number = begin(lab, version, start_delay=1)
            poll("the new one starts", lambda: state_of(lab, slot))
            clock.jump(seconds)
            code, said = finish(client)
            assert code == 0, said
            assert lab.deployment(number)["end"] == "done"
            assert lab.ask() == version
        clock.jump(0)
        works_again(lab, "v5")
    assert load.failed == 0, load.summary()
    assert [i["version"] for i in instances(lab) if i.get("state") == "running"] == ["v5"]


def agents(lab):
    """Processes that `baton up` started as its agent."""
    up = lab.children["up"].pid
    with open(f"/proc/{up}/task/{up}/children", encoding="ascii") as f:
        return [int(pid) for pid in f.read().split()]


def test_clocks_that_jump(lab):
    """Server and agent together, and whoever comes anew after it."""
    clock, version = Clock(lab.dir / "clock"), 1
    lab.nginx()
    lab.up(**clock.env())
    lab.config()
    good(lab.deploy("v1"))
    with lab.load(rate=60) as load:
        for jump in (HOUR, -HOUR, 20 * DAY, -20 * HOUR, 0):
            version += 1
            client, _ = begin(lab, f"v{version}", start_delay=1)
            poll("the new one starts", lambda: state_of(lab, ("green", "blue")[version % 2]))
            clock.jump(jump)
            code, said = finish(client)
            assert code == 0, said
            assert lab.ask() == f"v{version}"
            assert lab.deployments()[0]["end"] == "done"
            # whoever comes anew after a jump shakes hands at the new time: clients, and the agent
            agent = agents(lab)[0]
            os.kill(agent, signal.SIGKILL)
            poll("the agent is back", lambda: agents(lab) not in ([], [agent]) and lab.connected("local"))
    began = [d["started_at"] for d in lab.deployments()]
    assert began != sorted(began, reverse=True), "the clock that was set is not the server's"
    assert load.failed == 0, load.summary()
    # and over a restart
    clock.jump(-HOUR)
    lab.kill("up", signal.SIGTERM)
    lab.up(**clock.env())
    works_again(lab)
