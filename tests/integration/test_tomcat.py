"""Services on a real Tomcat: Debian's, and one as it is unpacked. What is asked is what serves, what lies
in the base afterwards, and that nothing of baton's work is left half done by whoever dies."""
import json
import os
import pathlib
import shutil
import signal

import pytest

import wars
from lab import poll
from steps import finish, good, instances, newest, says, text
from wars import deploy


def base(lab, slot="a", name="shop"):
    return lab.dir / f"{name}-{slot}"


def placed(lab, slot="a"):
    """What lies in the base's appBase."""
    return sorted(p.name for p in (base(lab, slot) / "webapps").iterdir())


def page(lab, path, slot="a"):
    """A page of one instance, past every balancer."""
    return lab.ask(path, f"http://127.0.0.1:{lab.port(f'shop-{slot}')}")


def pids(lab):
    return {i["slot"]: i.get("pid", 0) for i in instances(lab) if i.get("state") == "running"}


def alive(pid):
    return pathlib.Path(f"/proc/{pid}").exists()


def serves(lab, version):
    assert lab.ask() == version
    poll(f"{version} is seen", lambda: [i["version"] for i in instances(lab) if i.get("state") == "running"]
         and {i["version"] for i in instances(lab) if i.get("state") == "running"} == {version})


def war(lab, version, **settings):
    return wars.build(lab.dir, version, **settings)


# ---- there and back ----

def test_recreate_there_and_back(lab):
    """One Tomcat: stopped, the WAR exchanged, started; and the same for the way back."""
    lab.up()
    wars.config(lab, tomcat={"context": "/shop", "access_log": True},
                health={"http": "/shop/health"}, run={"env": {"GREETING": "hello {slot}"}})
    good(deploy(lab, war(lab, "v1"), "v1"))
    assert lab.ask("/shop/version") == "v1"
    assert page(lab, "/shop/env?name=GREETING") == "hello a"
    assert page(lab, "/shop/property?name=baton.port") == str(lab.port("shop-a"))
    assert int(page(lab, "/shop/heap")) <= 64 << 20
    first = pids(lab)["a"]
    good(deploy(lab, war(lab, "v2"), "v2"))
    assert lab.ask("/shop/version") == "v2"
    assert not alive(first)
    assert placed(lab) == ["shop", "shop.war"]
    good(lab.baton("rollback", "shop"))
    assert lab.ask("/shop/version") == "v1"
    assert placed(lab) == ["shop", "shop.war"]
    assert (base(lab) / "webapps/shop.war").read_bytes() == (lab.dir / "shop-v1.war").read_bytes()
    assert any(base(lab).glob("logs/access*")), "the access log that the config asks for"
    assert "shop: begins as v2" in good(lab.baton("logs", "shop", "--lines", "2000")).stdout


def test_rolling_over_two_instances_under_load(lab):
    lab.up()
    wars.config(lab, slots=("a", "b"), strategy="rolling", deploy={"batch": 1, "min_in_rotation": 1})
    good(deploy(lab, war(lab, "v1"), "v1"))
    assert page(lab, "/profile", "a") == "a" and page(lab, "/profile", "b") == "b"
    assert len(set(pids(lab).values())) == 2
    with lab.load(slow=1) as load:
        good(deploy(lab, war(lab, "v2"), "v2"))
        serves(lab, "v2")
        good(lab.baton("rollback", "shop"))
    assert load.failed == 0 and load.sent > 0, load.summary()
    assert load.versions() == ["v1", "v2"]
    serves(lab, "v1")


def test_blue_green_leaves_the_other_base_alone(lab):
    lab.up()
    wars.config(lab, slots=("a", "b"), strategy="blue-green")
    good(deploy(lab, war(lab, "v1"), "v1"))
    with lab.load() as load:
        good(deploy(lab, war(lab, "v2"), "v2"))
        good(deploy(lab, war(lab, "v3"), "v3"))
    assert load.failed == 0 and load.sent > 0, load.summary()
    serves(lab, "v3")


def test_a_version_that_does_not_start_goes_back(lab):
    lab.up()
    wars.config(lab, health={"within": "15s"})
    good(deploy(lab, war(lab, "v1"), "v1"))
    done = deploy(lab, war(lab, "v2", start_fails=True), "v2")
    says(done, 1, "rolled back")
    serves(lab, "v1")
    assert (base(lab) / "webapps/ROOT.war").read_bytes() == (lab.dir / "shop-v1.war").read_bytes()


# ---- what is placed, and where ----

@pytest.mark.parametrize("context, name, path", [
    ("/", "ROOT", ""), ("/api/v1", "api#v1", "/api/v1"), ("/shop##7", "shop##7", "/shop")],
    ids=["root", "two levels", "version"])
def test_contexts(lab, context, name, path):
    lab.up()
    wars.config(lab, tomcat={"context": context}, health={"http": path + "/health"})
    good(deploy(lab, war(lab, "v1"), "v1"))
    assert lab.ask(path + "/version") == "v1"
    assert page(lab, path + "/context").startswith(path + " ")
    assert placed(lab) == [name, name + ".war"]


def test_another_context_takes_the_old_one_with_it(lab):
    """… and what people put there stays."""
    lab.up()
    wars.config(lab, tomcat={"context": "/shop##1"}, health={"http": "/shop/health"})
    good(deploy(lab, war(lab, "v1"), "v1"))
    own = base(lab) / "webapps/hello"
    own.mkdir()
    (own / "index.html").write_text("hello")
    shutil.copy(lab.dir / "shop-v1.war", base(lab) / "webapps/by-hand.war")
    wars.config(lab, tomcat={"context": "/store"}, health={"http": "/store/health"})
    good(deploy(lab, war(lab, "v2"), "v2"))
    assert placed(lab) == ["by-hand", "by-hand.war", "hello", "store", "store.war"]
    assert page(lab, "/store/version") == "v2" and page(lab, "/hello/index.html") == "hello"
    assert page(lab, "/by-hand/version") == "v1"
    work = {p.name for p in (base(lab) / "work/Catalina/localhost").iterdir()}
    assert "store" in work and "shop##1" not in work


@pytest.mark.parametrize("kind", ["war", "archive"])
def test_exploded(lab, kind):
    """A WAR that the agent unpacks, or an archive of a directory; the next one is a WAR again."""
    lab.up()
    wars.config(lab, tomcat={"exploded": kind == "war"})
    make = wars.build if kind == "war" else wars.packed
    for version in ("v1", "v2"):
        good(deploy(lab, make(lab.dir, version), version))
        serves(lab, version)
        assert placed(lab) == ["ROOT"]
    wars.config(lab)
    good(deploy(lab, war(lab, "v3"), "v3"))
    serves(lab, "v3")
    assert placed(lab) == ["ROOT", "ROOT.war"]


@pytest.mark.parametrize("kind", ["war", "directory"])
def test_the_examples_of_tomcat(lab, kind):
    lab.up()
    wars.config(lab, tomcat={"context": "/examples", "jars_to_skip": "nothing.jar"},
                health={"http": "/examples/index.html", "expect": {"status": 200}})
    artifact = wars.examples(lab.dir) if kind == "war" else wars.tar(wars.EXAMPLES, lab.dir / "examples.tar.gz")
    good(deploy(lab, artifact, "v1"))
    assert "Hello World" in lab.ask("/examples/servlets/servlet/HelloWorldExample")
    assert "<html" in str(lab.ask("/examples/jsp/dates/date.jsp")).lower(), "a JSP, which is compiled first"


def test_a_war_that_is_not_a_zip(lab):
    """… is refused before anything is stopped; the same for one that was cut, and for an empty one."""
    lab.up()
    wars.config(lab)
    good(deploy(lab, war(lab, "v1"), "v1"))
    before, files = pids(lab), placed(lab)
    whole = war(lab, "v2").read_bytes()
    bad = {"page": b"<html>404 Not Found</html>", "cut": whole[:len(whole) - 30],
           "none": b"PK\x05\x06" + bytes(18), "moved": whole[:-22] + whole[-22:-6] + b"\xff\xff\x00\x00\x00\x00"}
    with lab.load() as load:
        for version, data in bad.items():
            path = lab.dir / f"{version}.war"
            path.write_bytes(data)
            says(deploy(lab, path, version), 1, f"{version}.war", "zip")
    assert load.failed == 0 and load.sent > 0 and load.versions() == ["v1"], load.summary()
    assert pids(lab) == before and placed(lab) == files


# ---- bases and homes ----

def test_a_base_that_is_there(lab):
    """Made by hand: used as it is, with its own word for the shutdown port."""
    lab.up()
    port, shutdown = lab.port("shop-a"), lab.port("by-hand-shutdown")
    wars.base(base(lab), port, shutdown, "please &amp; &lt;end>")
    xml = (base(lab) / "conf/server.xml").read_bytes()
    wars.config(lab, shutdown=False)
    good(deploy(lab, war(lab, "v1"), "v1"))
    first = pids(lab)["a"]
    good(deploy(lab, war(lab, "v2"), "v2"))
    serves(lab, "v2")
    assert not alive(first)
    assert stop_words(lab) == ["shutdown port"], "it was enough"
    assert (base(lab) / "conf/server.xml").read_bytes() == xml


def test_a_base_of_another_port(lab):
    lab.up()
    wars.base(base(lab), lab.port("elsewhere"))
    wars.config(lab, managed=False, shutdown=False)
    says(deploy(lab, war(lab, "v1"), "v1"), 1, str(lab.port("elsewhere")), str(lab.port("shop-a")), "server.xml")
    assert placed(lab) == []
    xml = base(lab) / "conf/server.xml"
    xml.write_text(xml.read_text().replace(f'port="{lab.port("elsewhere")}"', 'port="${baton.port}"'))
    good(deploy(lab, war(lab, "v2"), "v2"))
    assert page(lab, "/version") == "v2"


def test_what_stands_at_the_context_already(lab):
    lab.up()
    wars.base(base(lab), lab.port("shop-a"))
    shutil.copy(war(lab, "old"), base(lab) / "webapps/ROOT.war")
    (base(lab) / "webapps/ROOT").mkdir()
    wars.config(lab, managed=False, shutdown=False)
    says(deploy(lab, war(lab, "v1"), "v1"), 1, "ROOT.war", "take_over")
    assert placed(lab) == ["ROOT", "ROOT.war"]
    wars.config(lab, managed=False, shutdown=False, tomcat={"take_over": True})
    good(deploy(lab, war(lab, "v2"), "v2"))
    assert page(lab, "/version") == "v2"
    kept = base(lab) / ".before-baton"
    assert sorted(p.name for p in kept.iterdir()) == ["ROOT", "ROOT.war"]
    assert (kept / "ROOT.war").read_bytes() == (lab.dir / "shop-old.war").read_bytes()


def test_an_unpacked_distribution(lab):
    lab.up()
    home = wars.distribution(lab.dir)
    before = {p: p.stat().st_mtime_ns for p in home.rglob("*")}
    wars.config(lab, tomcat={"home": str(home)})
    good(deploy(lab, war(lab, "v1"), "v1"))
    good(deploy(lab, war(lab, "v2"), "v2"))
    serves(lab, "v2")
    assert page(lab, "/property?name=catalina.home") == str(home)
    assert {p: p.stat().st_mtime_ns for p in home.rglob("*")} == before, "nothing is written there"


def test_a_home_that_is_none(lab):
    lab.up()
    wars.config(lab, managed=False, tomcat={"home": str(lab.dir)})
    says(deploy(lab, war(lab, "v1"), "v1"), 1, "run.tomcat.home", "catalina.sh")


def test_the_base_is_not_named(lab):
    lab.up()
    wars.config(lab, managed=False)
    del lab.services["shop"]["run"]["tomcat"]["base"]
    lab.write()
    good(deploy(lab, war(lab, "v1"), "v1"))
    assert page(lab, "/version") == "v1"
    assert page(lab, "/property?name=catalina.base") == str(lab.dir / "state/agent/tomcat/shop/a")


def test_a_policy_that_does_not_allow_the_base(lab):
    (lab.dir / "policy.yaml").write_text("root: true\nports: 1024-65535\npaths: [/opt/none]\n")
    lab.server()
    good(lab.join("was1", lab.join_token("was1")))
    lab.start("agent-was1", "agent", "run", "--dir", lab.dir / "agent-was1", "--policy", lab.dir / "policy.yaml")
    poll("the agent connects", lambda: lab.connected("was1"))
    wars.config(lab, managed=False, hosts=["was1"])
    says(deploy(lab, war(lab, "v1"), "v1"), 1, "run.tomcat.base", "paths")
    assert not base(lab).exists()


# ---- stopping ----

def stop_words(lab):
    """The steps of the newest deployment's stop in their order, as the task's log has them all."""
    words = ("shutdown port", "catalina.sh stop", "TERM sent", "KILL sent")
    said = text(good(lab.baton("show", str(newest(lab)))))
    found = [w for line in said.splitlines() for w in words if w in line]
    return [w for i, w in enumerate(found) if w not in found[:i]]


@pytest.mark.parametrize("settings, steps", [
    ({"hang_in_stop": True}, ["shutdown port", "catalina.sh stop", "TERM sent"]),
    ({"hang_in_stop": True, "ignore_term": True}, ["shutdown port", "catalina.sh stop", "TERM sent", "KILL sent"])],
    ids=["in its own stop", "whatever it is told"])
def test_a_tomcat_that_hangs_in_stop(lab, settings, steps):
    lab.up()
    wars.config(lab, tomcat={"shutdown_wait": "1s", "stop_wait": "20s"},
                run={"stop": {"signal": "TERM", "grace": "1s"}})
    good(deploy(lab, war(lab, "v1", **settings), "v1"))
    first = pids(lab)["a"]
    good(deploy(lab, war(lab, "v2"), "v2"))
    assert stop_words(lab) == steps
    assert not alive(first)
    serves(lab, "v2")
    assert [i["restarts"] for i in instances(lab)] == [0], "no end was taken for a crash"


def test_without_a_shutdown_port_a_signal_is_the_first(lab):
    lab.up()
    wars.config(lab, shutdown=False)
    good(deploy(lab, war(lab, "v1"), "v1"))
    good(deploy(lab, war(lab, "v2"), "v2"))
    assert stop_words(lab) == ["TERM sent"]
    serves(lab, "v2")


# ---- who dies meanwhile ----

def remote(lab, **more):
    lab.server()
    lab.agent("was1")
    wars.config(lab, managed=False, hosts=["was1"], **more)


def slot_log(lab):
    path = lab.dir / "agent-was1/logs/shop/a.log"
    return path.read_text(errors="replace") if path.exists() else ""


def begin_war(lab, version, **settings):
    """A deployment in the background, once it is the newest one: the client."""
    before = newest(lab)
    client = lab.start_baton("deploy", "shop", "--artifact", war(lab, version, **settings), "--version", version)
    poll("the deployment begins", lambda: newest(lab) != before)
    return client


def test_the_agent_is_killed_in_the_middle_of_a_stop(lab):
    remote(lab)
    good(deploy(lab, war(lab, "v1", stop_delay=3), "v1"))
    first = pids(lab)["a"]
    client = begin_war(lab, "v2")
    poll("the application is told to end", lambda: "told to end" in (slot_log(lab)))
    lab.kill("agent-was1")
    assert alive(first), "it is in the middle of its end"
    lab.agent("was1")
    code, said = finish(client)
    assert code == 0, said
    assert not alive(first)
    assert page(lab, "/version") == "v2"
    assert "shop: ends" in slot_log(lab), "it had the time that it needs"
    assert slot_log(lab).count("shop: begins as v1") == 1, "nobody started it again"


def test_the_agent_is_killed_in_the_middle_of_a_start(lab):
    remote(lab)
    good(deploy(lab, war(lab, "v1"), "v1"))
    client = begin_war(lab, "v2", start_delay=2)
    poll("the application begins", lambda: "shop: begins as v2" in slot_log(lab))
    lab.kill("agent-was1")
    lab.agent("was1")
    code, said = finish(client)
    assert code == 0, said
    assert page(lab, "/version") == "v2"
    assert slot_log(lab).count("shop: begins as v2") == 1, "it is not started twice"


def test_the_agent_is_killed_again_and_again(lab):
    """Whatever it was at: in the end the new release runs, alone, and the base has only that."""
    remote(lab)
    good(deploy(lab, war(lab, "v1"), "v1"))
    client = begin_war(lab, "v2")
    for _ in range(4):
        lab.kill("agent-was1")
        lab.agent("was1")
    code, said = finish(client)
    assert code == 0, said
    assert page(lab, "/version") == "v2"
    assert placed(lab) == ["ROOT", "ROOT.war"]
    state = json.loads((base(lab) / ".baton-tomcat.json").read_text())
    assert state["placed"] == ["ROOT"]


def test_the_agent_takes_a_running_tomcat_over(lab):
    remote(lab)
    good(deploy(lab, war(lab, "v1"), "v1"))
    first = pids(lab)["a"]
    lab.kill("agent-was1")
    assert page(lab, "/version") == "v1"
    lab.agent("was1")
    poll("it is seen again", lambda: pids(lab).get("a") == first)
    good(deploy(lab, war(lab, "v2"), "v2"))
    assert page(lab, "/version") == "v2" and not alive(first)


def test_a_tomcat_that_crashes_is_started_again(lab):
    lab.up()
    wars.config(lab, managed=False, run={"restart": {"backoff": "100ms"}})
    good(deploy(lab, war(lab, "v1"), "v1"))
    first = pids(lab)["a"]
    os.kill(first, signal.SIGKILL)
    poll("it serves again", lambda: page(lab, "/version") == "v1" and pids(lab).get("a") not in (None, first))
