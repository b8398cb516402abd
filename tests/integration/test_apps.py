"""Apps that do not come up, fall over or answer nonsense, and ports that others hold: the old version
serves on, and the release is known as bad."""
import os
import socket

import pytest

from lab import SANITIZED
from steps import good, idle_is_empty, idle_slot, says, shop, state, unharmed, works_again


@pytest.mark.parametrize("settings, words", [
    ({"exit_at_once": 7}, ["exit", "7", "app: cannot work"]),
    ({"healthy": False}, ["503", "DOWN"]),
    ({"start_delay": 60}, ["healthy", "refused"]),
], ids=["exits at once", "never healthy", "starts too slowly"])
def test_an_app_that_does_not_come_up(lab, settings, words):
    shop(lab, health={"within": "3s", "fails": 2})
    with unharmed(lab):
        done = lab.deploy("v2", **settings)
        for word in ("rolled back", idle_slot(lab), *words):
            says(done, 1, word)
        idle_is_empty(lab)
    releases = lab.api("GET", "/v1/services/shop/releases")[1]["releases"]
    assert {r["version"]: r["state"] for r in releases} == {"v1": "good", "v2": "bad"}
    works_again(lab)


@pytest.mark.parametrize("settings", [{"die_after": 2.5}, {"health_fails_after": 2.5}], ids=["dies", "falls sick"])
def test_an_app_that_fails_in_the_bake(lab, settings):
    shop(lab)
    lab.config(health={"fails": 2}, deploy={"bake": "8s"})
    before = state(lab)
    with lab.load(rate=60) as load:
        done = lab.deploy("v2", **settings)
    says(done, 1, "rolled back")
    says(done, 1, idle_slot(lab))
    assert state(lab)[1:] == before[1:]
    if "die_after" not in settings:  # an app that dies while it serves takes its requests with it
        assert load.failed == 0, load.summary()
    lab.config()
    works_again(lab)


def test_an_app_that_answers_500_in_the_bake(lab):
    """baton's own nginx has a log that tells; a user's nginx has one of his own."""
    lab.page = f"http://127.0.0.1:{lab.port('page')}"
    managed = {"nginx": {"on": "local", "listen": f"127.0.0.1:{lab.port('page')}"}}
    lab.up()
    lab.config(nginx=False, traffic=managed)
    good(lab.deploy("v1"))
    assert lab.ask() == "v1"
    lab.config(nginx=False, traffic=managed, deploy={"bake": "10s", "bake_max_5xx": "5%"})
    with lab.load(rate=60) as load:
        done = lab.deploy("v2", answer_500=True)
    says(done, 1, "rolled back", "5xx")
    assert lab.ask() == "v1" and load.seen[-1][3] == 200


def test_an_app_that_answers_500(lab):
    """Healthy by its health page, but every page is 500: /profile tells before the switch."""
    shop(lab, health={"within": "2s"})
    with unharmed(lab):
        says(lab.deploy("v2", answer_500=True), 1, "500")
        idle_is_empty(lab)


def test_an_app_that_ignores_term(lab):
    """The stop sequence goes on to KILL: the deploy ends well and the whole group is gone."""
    lab.nginx()
    lab.config(run={"stop": {"signal": "TERM", "grace": "1s"}})
    lab.up()
    good(lab.deploy("v1", ignore_term=True))
    with lab.load(rate=60) as load:
        good(lab.deploy("v2"))
        assert lab.ask() == "v2"
        idle_is_empty(lab)
    assert load.failed == 0, load.summary()


def test_a_port_that_a_stranger_holds(lab):
    shop(lab)
    port = lab.port(f"shop-{idle_slot(lab)}")
    with socket.socket() as stranger, unharmed(lab):
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind(("127.0.0.1", port))
        stranger.listen()
        says(lab.deploy("v2"), 1, port, os.getpid())
    works_again(lab)


@pytest.mark.skipif(SANITIZED, reason="the figure is one of a plain build")
def test_failing_costs_no_memory(lab):
    """A dozen failed deployments leave the server as large as it was."""
    shop(lab)

    def rss():
        with open(f"/proc/{lab.children['up'].pid}/statm", encoding="ascii") as f:
            return int(f.read().split()[1]) * 4096
    for i in range(3):
        lab.deploy(f"warm{i}", exit_at_once=1)
    before = rss()
    for i in range(12):
        assert lab.deploy(f"bad{i}", exit_at_once=1).returncode == 1
    assert rss() < before + (4 << 20)
