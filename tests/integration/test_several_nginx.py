"""Several hosts: nginx on two of them, switched in order and both back when one fails; and instances on two
of them behind one nginx. The second host has a network and files of its own."""
import json
import subprocess

from lab import Load, poll
from farhost import FarHost, ip


def good(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def events(done):
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def two_nginx(lab, address=None, nginx=None, **groups):
    """was1 and web1 are this machine, web2 is another one: its FarHost."""
    web2 = FarHost(lab)
    lab.page = f"http://127.0.0.1:{lab.port('page')}"
    config = lab.config(nginx=False, host="was1", **groups)
    config["traffic"] = {"nginx": {"on": ["web1", "web2"], "listen": str(lab.port("page"))} if nginx is None
                         else {"on": ["web1", "web2"], **nginx(web2)}}
    lab.write()
    lab.server()
    lab.agent("was1", address=address or web2.gateway)
    lab.agent("web1")
    lab.agent("web2", machine=web2)
    return web2, f"http://{web2.address}:{lab.port('page')}"


ANY = {"listen": "0.0.0.0"}  # the app is reached from the other machine too


def test_two_managed_nginx_are_switched_in_order(lab):
    _, second = two_nginx(lab, deploy={"bake": "0s"})
    good(lab.deploy("v1", **ANY))
    assert lab.ask() == "v1" and lab.ask(url=second) == "v1"
    with lab.load() as one, Load(second) as two:
        done = good(lab.deploy("v2", "--json", **ANY))
        good(lab.baton("rollback", "shop"))
    assert one.failed == 0, one.summary()
    assert two.failed == 0, two.summary()
    assert lab.ask() == "v1" and lab.ask(url=second) == "v1"
    switched = [(e["kind"], e["task"]["host"]) for e in events(done)
                if e.get("kind") in ("sent", "result") and e.get("task", {}).get("kind") == "Switch"]
    assert switched == [("sent", "web1"), ("result", "web1"), ("sent", "web2"), ("result", "web2")]
    checked = {e["task"]["host"] for e in events(done) if e.get("task", {}).get("kind") == "BackendCheck"}
    assert checked == {"web1", "web2"}


def test_rolling_behind_two_nginx(lab):
    _, second = two_nginx(lab, slots=("s1", "s2"), deploy={"strategy": "rolling", "bake": "0s"})
    good(lab.deploy("v1", **ANY))
    with lab.load(path="/who") as one, Load(second, path="/who") as two:
        good(lab.deploy("v2", **ANY))
    assert one.failed == 0, one.summary()
    assert two.failed == 0, two.summary()
    for url in (lab.page, second):
        seen = set()
        poll("both instances answer", lambda: seen.add(lab.ask("/who", url=url)) or seen >= {"s1 v2", "s2 v2"})


def test_one_that_cannot_be_switched_brings_all_back(lab):
    """A user's own file of the second nginx is broken by then: the first returns to the old pool too."""
    def adopted(web2):
        etc = lab.dir / "ngx"
        etc.mkdir()
        temp = "".join(f"{kind}_temp_path {etc};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        (etc / "shop.conf").write_text(f"upstream shop {{ server {web2.gateway}:{lab.port('shop-blue')}; }}\n")
        (etc / "own.conf").write_text("# the user's\n")
        (etc / "nginx.conf").write_text(
            f"worker_processes 2;\npid {etc}/nginx.pid;\nerror_log {etc}/error.log;\nevents {{}}\nhttp {{\n"
            f"access_log off;\n{temp}\ninclude {etc}/shop.conf;\ninclude {etc}/own.conf;\n"
            f"server {{ listen {lab.port('page')} backlog=1024;\nlocation / {{ proxy_pass http://shop;\n"
            "proxy_http_version 1.1; proxy_set_header Connection ''; } }\n}\n")
        lab.far = web2.own(etc)
        for wrap in ((), web2.wrap()):
            subprocess.run([*wrap, "nginx", "-p", etc, "-c", etc / "nginx.conf"], check=True,
                           stdin=subprocess.DEVNULL)
        return {"adopt": {"config": str(etc / "nginx.conf"), "prefix": str(etc), "include": str(etc / "shop.conf")},
                "url": lab.page}
    web2, second = two_nginx(lab, nginx=adopted, deploy={"bake": "0s"})
    good(lab.deploy("v1", **ANY))
    with lab.load() as one, Load(second) as two:
        good(lab.deploy("v2", **ANY))
        (lab.far / "own.conf").write_text("no_such_directive on;\n")
        done = lab.deploy("v3", "--json", **ANY)
        said = done.stdout + done.stderr
        assert done.returncode == 1, said
        assert 'unknown directive \\"no_such_directive\\"' in said, said
    assert one.failed == 0, one.summary()
    assert two.failed == 0, two.summary()
    undone = [e["task"]["host"] for e in events(done) if e.get("kind") == "sent" and e.get("verb") == "undo"
              and e["task"]["kind"] == "Switch"]
    assert "web1" in undone, said
    assert lab.ask() == "v2" and lab.ask(url=second) == "v2"
    assert lab.deployments()[0]["end"] == "rolled_back"
    assert "v3" in {body for *_, body in one.seen}, "the first had been switched"


def test_a_backend_is_checked_from_each_nginx(lab):
    """web2 has no way to the address of the instances: that is found before anything is switched."""
    hidden = f"10.250.{lab.ports_.base // 256 % 250}.{lab.ports_.base % 256}"
    ip("addr", "add", f"{hidden}/32", "dev", "lo")
    try:
        two_nginx(lab, address=hidden, health={"within": "2s"})
        done = lab.deploy("v1", **ANY)
        said = done.stdout + done.stderr
        assert done.returncode == 1, said
        assert "from web2" in said and f"{hidden}:{lab.port('shop-blue')}" in said, said
        assert lab.ask() is None, "nothing was switched"
    finally:
        ip("addr", "del", f"{hidden}/32", "dev", "lo")


def test_routes_over_two_hosts(lab):
    """Two instances on each of two hosts behind one nginx: `/` moves once, `/api` stays balanced over all."""
    was2 = FarHost(lab)
    lab.page = f"http://127.0.0.1:{lab.port('page')}"
    config = lab.config(nginx=False, slots=("s1", "s2"), deploy={"strategy": "rolling", "bake": "0s"})
    config["hosts"] = ["was1", "was2"]
    config["traffic"] = {"nginx": {"on": "web1", "listen": f"127.0.0.1:{lab.port('page')}", "routes": [
        {"path": "/", "to": "one"}, {"path": "/api", "to": "all"}]}}
    config["run"]["command"] += " --host {host}"
    lab.write()
    lab.server()
    lab.agent("web1")
    lab.agent("was1", address=was2.gateway)
    lab.agent("was2", machine=was2)
    good(lab.deploy("v1", **ANY))
    was = lab.ask("/where")
    with lab.load(path="/where") as one, lab.load(path="/api/where") as every:
        good(lab.deploy("v2", **ANY))
    assert one.failed == 0, one.summary()
    assert every.failed == 0, every.summary()
    now = lab.ask("/where")
    assert {body for *_, body in one.seen} == {was, now} and was.endswith(" v1") and now.endswith(" v2")
    seen, all_four = set(), {f"{h}/{s} v2" for h in ("was1", "was2") for s in ("s1", "s2")}
    poll("/api reaches all", lambda: seen.add(lab.ask("/api/where")) or seen >= all_four)
    assert seen == all_four
