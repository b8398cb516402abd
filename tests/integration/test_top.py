"""`baton top` on a real terminal, with real runs to watch."""
import re
import signal

import pytest

from lab import BATON
from terminal import Terminal

UP, DOWN, LEFT, ENTER = "\x1b[A", "\x1b[B", "\x1b[D", "\r"


@pytest.fixture
def shop(lab):
    lab.nginx()
    lab.config(deploy={"bake": "2s"})
    lab.up()
    assert lab.deploy("v1").returncode == 0
    return lab


@pytest.fixture
def top(shop):
    opened = []

    def start(*args, rows=24, columns=100, **env):
        opened.append(Terminal([BATON, "top", *args], shop.env(**env), shop.dir, rows, columns))
        opened[-1].wait_for("local/green")
        return opened[-1]
    yield start
    for terminal in opened:
        terminal.close()


def slot(text, name):
    """Words of a slot's line."""
    return re.search(rf"^ *local/{name} +(.*)$", text, re.M).group(1).split()


def test_elsewhere_than_on_a_terminal_it_looks_once(shop):
    assert shop.deploy("bad", exit_at_once=7).returncode == 1
    run = shop.baton("top")
    assert run.returncode == 0 and run.stderr == "" and "\x1b" not in run.stdout
    assert slot(run.stdout, "blue" if shop.service()["live_slot"] == "blue" else "green")[:3] == ["v1", "running", "in"]
    assert re.search(r"^2 +shop +v1 → bad +rolled back ", run.stdout, re.M) and "exit code 7" in run.stdout
    assert re.search(r"^local +127.0.0.1 +\S+ +yes ", run.stdout, re.M)
    assert shop.baton("lock", "shop", "-m", "black friday").returncode == 0
    assert re.search("^  shop is locked by admin since .*: black friday$", shop.baton("top").stdout, re.M)
    shop.kill("up", signal.SIGTERM)
    gone = shop.baton("top")
    assert gone.returncode == 5 and gone.stderr.count("\n") == 1 and gone.stdout == ""


def test_a_run_is_watched_from_the_overview_to_its_end(shop, top):
    t = top()
    live = shop.service()["live_slot"]
    idle = {"blue": "green", "green": "blue"}[live]
    text = t.wait_for("rotation", lambda s: slot(s, live)[2] == "in")
    assert slot(text, live)[:2] == ["v1", "running"] and slot(text, idle)[:2] == ["-", "absent"]
    child = shop.start_deploy("v2")
    t.wait_for("the run at its bake", lambda s: re.search(r"^2 +shop +v1 → v2 +running +bake ", s, re.M))
    t.type(DOWN + DOWN + ENTER)  # the service, then the newest run
    text = t.wait_for("deployment 2 ")
    assert "shop v2 over v1" in text
    t.wait_for("── bake")
    text = t.wait_for("ended: done")
    assert text.count("ended: done") == 1 and "remove old releases" in text
    t.type(UP * 40)
    t.wait_for("── prepare")
    t.wait_for("deployment 2 · shop v2 over v1 · blue-green · done ·")
    t.type(LEFT)
    text = t.wait_for("the overview", lambda s: re.search(r"^2 +shop +v1 → v2 +done ", s, re.M) and
                      slot(s, idle)[:3] == ["v2", "running", "in"])
    child.communicate(timeout=60)
    t.type("q")
    assert t.end() == 0


def test_it_follows_the_size_of_the_terminal(shop, top):
    t = top(columns=100)
    assert "PORT" in t.text()
    t.size(8, 44)
    text = t.wait_for("a narrow view", lambda s: "PORT" not in s and "SERVICE" in s and "choose" in s.splitlines()[7])
    assert all(len(line) <= 44 for line in text.splitlines())
    t.type(DOWN + DOWN)
    t.wait_for("the chosen run in a small window", lambda s: re.search(r"^1 +shop ", s, re.M))
    t.size(30, 120)
    t.wait_for("everything again", lambda s: "PORT" in s and "HOSTS" in s)
    t.size(1, 1)
    t.type("G")
    t.size(24, 80)
    t.wait_for("HOSTS")
    t.type("q")
    assert t.end() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_leave_the_terminal_as_it_was(top, number):
    t = top()
    t.child.send_signal(number)
    t.end()


def test_colours_are_an_option(top):
    t = top()
    t.type("q")
    t.end()
    colours = rb"\x1b\[(?:\d+;)*3[0-7]m"
    assert re.search(colours, t.raw)
    plain = top(NO_COLOR="1")
    plain.type("q")
    plain.end()
    assert not re.search(colours, plain.raw)


def test_a_server_that_goes_and_comes_is_told(shop, top):
    t = top()
    shop.kill("up", signal.SIGTERM)
    t.wait_for("the server is away")
    shop.up()
    t.wait_for("the news", lambda s: "away" not in s and "local/green" in s)
    t.type("q")
    assert t.end() == 0
