"""Clients that are two at once, go away, are interrupted, or find no server. One that is killed is
test_crash.py's."""
import signal

import pytest

from lab import poll
from steps import begin, finish, idle_is_empty, one_line, says, shop, state_of, unharmed, works_again


def test_two_deploys_at_once(lab):
    shop(lab)
    with lab.load(rate=60) as load:
        client, number = begin(lab, "v2", start_delay=2)
        one_line(lab.deploy("v3"), 4, "shop", number)
        code, said = finish(client)
        assert code == 0, said
        assert lab.ask() == "v2"
    assert load.failed == 0, load.summary()
    works_again(lab, "v4")


def test_a_server_that_does_not_answer(lab):
    lab.nginx()
    lab.config()
    lab.url, lab.token = f"http://127.0.0.1:{lab.port('api')}", "bt_x"
    for args in (["deploy", "--artifact", lab.artifact("v1"), "--version", "v1"], ["status"]):
        one_line(lab.baton(*args), 5, f"127.0.0.1:{lab.port('api')}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_client_rolls_back(lab, number):
    shop(lab)
    with unharmed(lab):
        client, deployment = begin(lab, "v2", start_delay=30)
        poll("the new one starts", lambda: state_of(lab, "green"))
        client.send_signal(number)
        code, said = finish(client)
        assert code == 130, said
        assert "rolled back" in said, said
        assert lab.deployment(deployment)["end"] == "rolled_back"
        idle_is_empty(lab)
    works_again(lab)


def test_detach(lab):
    shop(lab)
    with lab.load(rate=60) as load:
        done = lab.deploy("v2", "--detach", start_delay=1)
        says(done, 0, "deployment 2", "baton show 2")
        assert lab.deployment(2).get("end") is None, "it waited"
        assert lab.baton("show", 2).returncode == 0
        assert lab.ask() == "v2"
    assert load.failed == 0, load.summary()
