"""What a release is made of besides its artifact: ports by name, files, configuration; and what becomes of
it: stored, compared, restarted, marked, removed."""
import hashlib
import json
import socket
import tarfile

import pytest

from lab import PYTHON, poll


def good(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def refused(done, code, *words):
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    for word in words:
        assert word in said, said
    assert "Traceback" not in said


# ---- several ports a slot ----

def two_ports(lab, within="30s"):
    lab.config(run={"command": f"{PYTHON} {{artifact}} --port {{port}} --slot {{slot}} --management {{port.management}}",
                    "slots": {s: {"port": lab.port(f"shop-{s}"), "management": lab.port(f"shop-{s}-management")}
                              for s in ("blue", "green")}},
               health={"port": "management", "within": within})


def test_an_actuator_on_a_port_of_its_own(lab):
    """The app answers health on its management port only, in either slot."""
    lab.nginx()
    two_ports(lab)
    lab.up()
    good(lab.deploy("v1"))
    with lab.load() as load:
        good(lab.deploy("v2"))
        good(lab.deploy("v3"))
        assert lab.ask() == "v3"
    assert load.failed == 0, load.summary()
    assert lab.ask("/actuator/health") == 404
    # the other slot's ports are free again, both of them
    slots = lab.services["shop"]["run"]["slots"]
    idle = slots["green" if lab.ask("/profile") == "blue" else "blue"]
    for port in idle.values():
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(("127.0.0.1", port))
    # unhealthy there is unhealthy: nothing changes
    two_ports(lab, within="1s")
    refused(lab.deploy("v4", healthy=False), 1, str(idle["management"]), "503")
    assert lab.ask() == "v3"


def test_a_stranger_on_the_other_port(lab):
    lab.nginx()
    two_ports(lab)
    lab.up()
    good(lab.deploy("v1"))
    idle = "green" if lab.ask("/profile") == "blue" else "blue"
    port = lab.port(f"shop-{idle}-management")
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", port))
        s.listen()
        refused(lab.deploy("v2"), 1, str(port), "python3")
        assert lab.ask() == "v1"
    good(lab.deploy("v2"))


# ---- files ----

def with_files(lab, greeting, mode="0640"):
    """A plain file, a template that differs from slot to slot, and a binary one."""
    (lab.dir / "conf").mkdir(exist_ok=True)
    (lab.dir / "conf/application-prod.properties").write_text(f"greeting={greeting} ${{NOT_OURS}} {{slot}}\n")
    (lab.dir / "slot.tmpl").write_text("slot={slot} port={port} release={release} host={host} by=${WHO} {{slot} $${x}\n")
    (lab.dir / "key.p12").write_bytes(bytes(range(256)))
    config = lab.config(files=["conf/application-prod.properties", {"from": "key.p12", "to": "keys/{slot}.p12"},
                               {"from": "slot.tmpl", "to": "application-{slot}.properties", "template": True,
                                "mode": mode}])
    config = {"env": ["WHO"], **config}
    (lab.dir / "baton.yaml").write_text(json.dumps(config))


def test_files_travel_with_the_release(lab):
    """Beside the artifact, with their modes, rendered for each slot; a rollback has its own ones."""
    lab.nginx()
    lab.up()
    with_files(lab, "hello")
    good(lab.deploy("v1", env={"WHO": "ann"}))
    slot = lab.ask("/profile")
    assert lab.ask("/file?name=application-prod.properties") == "greeting=hello ${NOT_OURS} {slot}\n"
    assert lab.ask(f"/file?name=application-{slot}.properties") == (
        f"slot={slot} port={lab.port('shop-' + slot)} release=v1 host=local by=ann {{slot}} ${{x}}\n")
    number = lab.api("GET", "/v1/services/shop/releases")[1]["releases"][0]["id"]
    place = lab.dir / f"state/agent/releases/shop/{number}"
    assert (place / "application-prod.properties").stat().st_mode & 0o7777 == 0o600
    assert (place / f"application-{slot}.properties").stat().st_mode & 0o7777 == 0o640
    assert (place / f"keys/{slot}.p12").read_bytes() == bytes(range(256))
    with_files(lab, "goodbye")
    good(lab.deploy("v2", env={"WHO": "bob"}))
    assert "goodbye" in lab.ask("/file?name=application-prod.properties")
    # the same version with other contents is a release of its own
    with_files(lab, "again")
    good(lab.deploy("v2", env={"WHO": "bob"}))
    assert "again" in lab.ask("/file?name=application-prod.properties")
    good(lab.baton("rollback", "shop", "--to", "v1"))
    slot = lab.ask("/profile")
    assert "hello" in lab.ask("/file?name=application-prod.properties")
    assert "by=ann" in lab.ask(f"/file?name=application-{slot}.properties")
    # neither the store nor a commands' table holds what is in them
    for path in (lab.dir / "state").rglob("*.db*"):
        assert b"NOT_OURS" not in path.read_bytes() and b"Z3JlZXRpbmc" not in path.read_bytes()


def test_files_that_do_not_hold(lab):
    lab.nginx()
    lab.up()
    with_files(lab, "hello")
    good(lab.deploy("v1", env={"WHO": "ann"}))
    before = lab.deployments()
    (lab.dir / "slot.tmpl").write_text("a={slot}\nb={prot} ${WHOM}\n")
    for command in (("lint",), ("plan",), ("deploy", "-v", "v2", "-a", lab.artifact("v2"))):
        refused(lab.baton(*command, WHO="ann"), 2, "slot.tmpl:2:3: unknown placeholder {prot}", "slot.tmpl:2:10: ${WHOM}",
                "did you mean 'WHO'", "2 problems")
    (lab.dir / "slot.tmpl").unlink()
    refused(lab.baton("lint", WHO="ann"), 2, "baton.yaml:1:", "files: slot.tmpl: No such file")
    (lab.dir / "slot.tmpl").write_bytes(b"x" * (513 << 10))
    refused(lab.baton("lint", WHO="ann"), 2, "files: slot.tmpl is larger than 512 KiB")
    lab.config(files=[{"from": "slot.tmpl", "to": "../up"}])
    refused(lab.baton("lint"), 2, "without '..'", "../up")
    # what the client lets through, the server and the agent refuse
    (lab.dir / "slot.tmpl").write_text("x")
    lab.config(files=[{"from": "slot.tmpl", "to": "app-v3.py"}])
    refused(lab.deploy("v3"), 1, "files: app-v3.py is the artifact's or baton's own name")
    assert lab.ask() == "v1" and len(lab.deployments()) == len(before) + 1
    config = {k: v for k, v in lab.services["shop"].items()}
    body = {"service": "shop", "version": "v4", "config": config,
            "artifact": {"digest": "0" * 64, "size": 1, "file_name": "x"}}
    digest = hashlib.sha256(lab.artifact("v1").read_bytes()).hexdigest()
    body["artifact"]["digest"] = digest
    for files, words in (({}, "no content"), ({"app-v3.py": "%"}, "not base64"),
                         ({"app-v3.py": "", "other": ""}, "more than the config")):
        status, answer = lab.api("POST", "/v1/deployments", {**body, "files": files})
        assert status == 400 and words in answer["error"]["message"], answer


def test_files_of_an_archive(lab):
    """They lie in what the archive unpacked to, and take the place of what it brought."""
    lab.nginx()
    lab.up()
    (lab.dir / "tree/conf").mkdir(parents=True)
    (lab.dir / "tree/app.py").write_bytes(lab.artifact("v1").read_bytes())
    (lab.dir / "tree/conf/app.conf").write_text("of the archive\n")
    with tarfile.open(lab.dir / "shop.tar.gz", "w:gz") as tar:
        tar.add(lab.dir / "tree", arcname=".")
    (lab.dir / "app.conf").write_text("ours\n")
    lab.config(run={"command": f"{PYTHON} app.py --port {{port}} --slot {{slot}}"}, artifact="shop.tar.gz",
               files=[{"from": "app.conf", "to": "conf/app.conf"}, {"from": "app.conf", "to": "release/app.conf"}])
    good(lab.baton("deploy", "-v", "v1"))
    assert lab.ask("/file?name=conf/app.conf") == "ours\n"
    assert lab.ask("/file?name=release/app.conf") == "ours\n"


# ---- the stored config ----

def stored(lab, query=""):
    return lab.api("GET", "/v1/services/shop/config" + query)[1]


def test_apply_diff_and_deploy_without_a_file(lab):
    lab.nginx()
    lab.up()
    lab.config(run={"env": {"COLOUR": "red"}, "secrets": ["PASSWORD"]})
    refused(lab.baton("diff"), 2, "no config of shop is stored")
    assert lab.api("GET", "/v1/services/shop/config")[0] == 404
    said = good(lab.baton("apply")).stdout
    assert "shop: stored as version 1" in said
    assert "unchanged, version 1" in good(lab.baton("apply")).stdout
    assert good(lab.baton("diff")).stdout == ""
    assert lab.api("GET", "/v1/services")[1]["services"][0]["name"] == "shop", "the page shows it before its first run"
    assert lab.deployments() == []
    # the same deploy as ever, and the stored config does not change
    good(lab.deploy("v1", env={"PASSWORD": "one"}))
    assert stored(lab)["version"] == 1
    lab.config(run={"env": {"COLOUR": "green"}, "secrets": ["PASSWORD"]}, deploy={"bake": "200ms"})
    done = lab.baton("diff", "shop")
    refused(done, 1, "--- stored: version 1", "+++ baton.yaml", "-  env: {COLOUR: red}", "+  env: {COLOUR: green}",
            "-  bake: 300ms", "+  bake: 200ms")
    assert len(done.stdout.splitlines()) < 25, "only what differs, and a little around it"
    assert json.loads(good(lab.baton("apply", "--json")).stdout)[0]["version"] == 2
    assert stored(lab, "?version=1")["config"]["run"]["env"] == {"COLOUR": "red"}
    assert [v["version"] for v in stored(lab)["versions"]] == [2, 1]
    # nothing at hand: the stored config, and the secrets of the last release
    (lab.dir / "baton.yaml").rename(lab.dir / "away.yaml")
    assert "deploy shop next (blue-green)" in good(lab.baton("plan", "shop")).stdout
    refused(lab.baton("plan", "other"), 2, "no config of other is stored")
    good(lab.deploy("v2"))
    assert (lab.ask(), lab.ask("/env?name=COLOUR"), lab.ask("/env?name=PASSWORD")) == ("v2", "green", "one")
    good(lab.baton("deploy", "shop", "-v", "v3", "-a", lab.artifact("v3"), PASSWORD="two"))
    assert lab.ask("/env?name=PASSWORD") == "two"
    refused(lab.baton("deploy", "other", "-v", "v1", "-a", "app-v1.py"), 2, "no ./baton.yaml is here", "baton apply")
    refused(lab.baton("deploy", "-v", "v1", "-a", "app-v1.py"), 2, "baton.yaml: no such file")
    # a rollback restores the config of its release, and stores it
    good(lab.baton("rollback", "shop", "--to", "v1"))
    assert (lab.ask(), lab.ask("/env?name=COLOUR"), lab.ask("/env?name=PASSWORD")) == ("v1", "red", "one")
    assert stored(lab)["version"] == 3 and stored(lab)["config"]["run"]["env"] == {"COLOUR": "red"}


def test_restart_applies_changed_config(lab):
    """Under load, without an artifact; files and secrets come along; a broken config changes nothing."""
    lab.nginx()
    lab.up()
    (lab.dir / "shop.properties").write_text("greeting=one\n")
    more = {"files": ["shop.properties"]}
    lab.config(run={"env": {"COLOUR": "red"}, "secrets": ["PASSWORD"]}, **more)
    refused(lab.baton("restart", "shop"), 2, "no live release to restart")
    good(lab.deploy("v1", env={"PASSWORD": "one"}))
    slot = lab.ask("/profile")
    lab.config(run={"env": {"COLOUR": "green"}, "secrets": ["PASSWORD"]}, **more)
    (lab.dir / "shop.properties").write_text("greeting=two\n")
    with lab.load() as load:
        good(lab.baton("restart"))
        assert (lab.ask(), lab.ask("/env?name=COLOUR"), lab.ask("/env?name=PASSWORD")) == ("v1", "green", "one")
        assert lab.ask("/file?name=shop.properties") == "greeting=two\n" and lab.ask("/profile") != slot
        (lab.dir / "baton.yaml").unlink()
        good(lab.baton("restart", "shop", PASSWORD="two"))  # nothing changed but a secret
        assert lab.ask("/env?name=PASSWORD") == "two" and lab.ask("/profile") == slot
        lab.config(run={"command": f"{PYTHON} no-such-file.py", "secrets": ["PASSWORD"]})
        refused(lab.baton("restart", "shop"), 1, "exited at once")
        assert lab.ask("/env?name=COLOUR") == "green"
    assert load.failed == 0, load.summary()
    assert len({r["digest"] for r in lab.api("GET", "/v1/services/shop/releases")[1]["releases"]}) == 1
    # what failed is not stored: the next restart without a file works
    (lab.dir / "baton.yaml").unlink()
    good(lab.baton("restart", "shop"))
    assert (lab.ask(), lab.ask("/env?name=COLOUR")) == ("v1", "green")


def test_restart_of_a_rolling_service(lab):
    lab.nginx()
    lab.config(slots=("blue", "green", "red"), deploy={"strategy": "rolling"}, run={"env": {"COLOUR": "red"}})
    lab.up()
    good(lab.deploy("v1"))
    lab.config(slots=("blue", "green", "red"), deploy={"strategy": "rolling"}, run={"env": {"COLOUR": "green"}})
    with lab.load() as load:
        good(lab.baton("restart"))
    assert load.failed == 0, load.summary()
    assert {lab.ask("/env?name=COLOUR") for _ in range(12)} == {"green"}


def test_a_locked_config_is_an_admins(lab):
    lab.nginx()
    lab.up()
    config = lab.config(run={"env": {"COLOUR": "red"}})
    token = json.loads(good(lab.baton("token", "create", "jenkins", "--json")).stdout)["token"]
    as_jenkins = {"BATON_TOKEN": token}
    refused(lab.baton("apply", "--lock", **as_jenkins), 1, "an admin's")
    good(lab.baton("apply", **as_jenkins))
    assert "locked by" in good(lab.baton("apply", "--lock")).stdout
    # artifact and environment are a release's matter
    config["run"]["env"] = {"COLOUR": "green"}
    (lab.dir / "baton.yaml").write_text(json.dumps(config))
    good(lab.deploy("v1", env=as_jenkins))
    assert lab.ask("/env?name=COLOUR") == "green"
    # anything else is not, whichever way it comes
    config["run"]["command"] += " --management 1"
    (lab.dir / "baton.yaml").write_text(json.dumps(config))
    for done in (lab.deploy("v2", env=as_jenkins), lab.baton("restart", **as_jenkins), lab.baton("apply", **as_jenkins)):
        refused(done, 1, "locked by", "run.command differs from its version 2", "without an admin")
    assert lab.ask() == "v1" and len(lab.deployments()) == 1
    config["run"]["command"] = config["run"]["command"].replace(" --management 1", "")
    config["health"]["port"] = 1
    (lab.dir / "baton.yaml").write_text(json.dumps(config))
    refused(lab.baton("apply", **as_jenkins), 1, "health.port differs")
    good(lab.baton("apply"))  # an admin may
    lab.kill("up", 15)
    lab.up()  # and it is locked after a restart of the server, too
    refused(lab.baton("apply", "--unlock", **as_jenkins), 1, "an admin's")
    config["health"].pop("port")
    (lab.dir / "baton.yaml").write_text(json.dumps(config))
    refused(lab.baton("apply", **as_jenkins), 1, "health.port differs")
    good(lab.baton("apply", "--unlock"))
    good(lab.deploy("v2", env=as_jenkins))


# ---- what becomes of releases ----

def releases(lab):
    return {r["id"]: r for r in lab.api("GET", "/v1/services/shop/releases")[1]["releases"]}


def test_marked_bad_is_refused_without_force(lab):
    lab.nginx()
    lab.up()
    lab.config(files=["baton.yaml"], deploy={"bake": "0s"})
    for version in ("v1", "v2", "v3"):
        good(lab.deploy(version))
    assert "v2 is bad now" in good(lab.baton("release", "bad", "shop", "v2", "-m", "loses orders")).stdout
    listed = good(lab.baton("release", "list", "shop")).stdout
    assert "good, live" in listed and ": loses orders)" in listed
    assert json.loads(good(lab.baton("releases", "shop", "--json")).stdout) == json.loads(
        good(lab.baton("release", "list", "shop", "--json")).stdout)
    refused(lab.deploy("v2"), 1, "shop v2 was marked bad by", "loses orders", "--force")
    refused(lab.baton("rollback", "shop", "--to", "v2"), 1, "marked bad", "--force")
    good(lab.baton("rollback", "shop"))  # and by itself a rollback goes past it
    assert lab.ask() == "v1"
    good(lab.baton("rollback", "shop", "--to", "v2", "--force"))
    assert lab.ask() == "v2"
    good(lab.deploy("v3"))
    good(lab.deploy("v2", "--force"))  # and deployed well
    assert [r["state"] for r in releases(lab).values() if r["version"] == "v2"] == ["bad"], "what a person said holds"
    good(lab.baton("release", "good", "shop", "v2"))
    shown = good(lab.baton("release", "show", "shop", "v2")).stdout
    for words in ("release    shop v2", "good, live", "files      baton.yaml", "app-v2.py", "run:", "command:"):
        assert words in shown
    refused(lab.baton("release", "show", "shop", "v9"), 2, "no release 'v9' of shop")
    refused(lab.baton("release", "bad", "shop", "v9"), 2, "no release 'v9' of shop")
    assert lab.api("POST", "/v1/services/shop/releases/v1", {"state": "fine"})[0] == 400
    # a deployment that failed may be tried again, but nobody goes back to it by mistake
    assert lab.deploy("v4", exit_at_once=1).returncode == 1
    refused(lab.baton("rollback", "shop", "--to", "v4"), 1, "the deployment of shop v4 failed", "--force")
    assert "cannot work" in lab.deploy("v4", exit_at_once=1).stdout


def test_prune_keeps_what_is_needed(lab):
    lab.nginx()
    lab.up()
    lab.config(deploy={"keep": 2})
    for version in ("v1", "v2", "v3", "v4"):
        good(lab.deploy(version))
    good(lab.baton("rollback", "shop", "--to", "v1"))  # the live one is not among the last two good ones
    stored_ = lab.dir / "state/server/artifacts"
    assert len(list(stored_.iterdir())) == 4
    config = lab.services["shop"]
    place = lab.dir / "state/agent/releases/shop"
    before = lab.ask()
    with lab.load() as load:
        said = good(lab.baton("release", "prune", "shop")).stdout
    assert load.failed == 0, load.summary()
    assert "of v2" in said and "of v1" not in said
    poll("the file is gone", lambda: len(list(stored_.iterdir())) == 3)
    marks = {r["version"]: ("pruned_at" in r, r["live"]) for r in releases(lab).values()}
    assert marks == {"v1": (False, True), "v2": (True, False), "v3": (False, False), "v4": (False, False)}
    assert "pruned" in good(lab.baton("release", "list", "shop")).stdout
    on_disk = {int(p.name) for p in place.iterdir() if p.name.isdigit()}
    assert on_disk == {i for i, r in releases(lab).items() if r["version"] != "v2"}
    refused(lab.baton("rollback", "shop", "--to", "v2"), 1, "removed (pruned)", "deploy that version again")
    assert lab.ask() == before and config["deploy"]["keep"] == 2
    assert "is not needed" in good(lab.baton("release", "prune", "shop")).stdout
    good(lab.deploy("v2"))  # its bytes come again, and with them the release
    assert lab.ask() == "v2" and not any("pruned_at" in r for r in releases(lab).values())
    refused(lab.baton("release", "prune", "other"), 2, "other has no live release")


# ---- environments ----

@pytest.mark.parametrize("managed", (False, True))
def test_environments_live_side_by_side(lab, managed):
    """One file, two environments on one host: each has its own releases, config, slots and nginx."""
    ports = {s: lab.port(f"release-{s}") for s in ("blue", "green")}
    url = f"http://127.0.0.1:{lab.port('release-page')}"
    (lab.dir / "release.conf").write_text(f"upstream shop-release {{ server 127.0.0.1:{ports['blue']}; }}\n")
    lab.nginx(extra="" if managed else f"""include {lab.dir}/release.conf;
    server {{ listen {url[7:]}; location / {{ proxy_pass http://shop-release; }} }}""")
    lab.up()
    config = lab.config(run={"env": {"COLOUR": "red"}})
    ours = config["traffic"]["nginx"]
    over = {"run": {"slots": ports, "env": {"COLOUR": "green"}}}
    dev = lab.page
    if managed:
        dev = f"http://127.0.0.1:{lab.port('dev-page')}"
        config["traffic"]["nginx"] = {"on": "local", "listen": dev[7:]}
        over["traffic"] = {"nginx": {"listen": url[7:]}}
    else:
        ours["adopt"]["upstream"] = "shop"
        # the upstream of the other is called shop-release by itself
        over["traffic"] = {"nginx": {"adopt": {"include": str(lab.dir / "release.conf"), "upstream": None}, "url": url}}
    config["environments"] = {"dev": None, "release": over}
    (lab.dir / "baton.yaml").write_text(json.dumps(config))
    assert "shop@dev, shop@release" in good(lab.baton("lint")).stdout
    assert "service: \"shop@release\"" in good(lab.baton("lint", "--print", "--env", "release")).stdout
    refused(lab.baton("lint", "--env", "prod"), 2, "no service has an environment 'prod'", "shop@dev, shop@release")
    refused(lab.baton("deploy", "shop", "-v", "v1", "-a", lab.artifact("v1")), 2, "shop@dev, shop@release")
    good(lab.baton("deploy", "shop", "--env", "dev", "-v", "v1", "-a", lab.artifact("v1")))
    good(lab.baton("deploy", "-e", "release", "-v", "v2", "-a", lab.artifact("v2")))
    assert (lab.ask(url=dev), lab.ask(url=url)) == ("v1", "v2")
    assert (lab.ask("/env?name=COLOUR", url=dev), lab.ask("/env?name=COLOUR", url=url)) == ("red", "green")
    good(lab.baton("deploy", "-e", "release", "-v", "v3", "-a", lab.artifact("v3")))
    good(lab.baton("rollback", "shop@release"))
    assert (lab.ask(url=dev), lab.ask(url=url)) == ("v1", "v2")
    assert good(lab.baton("diff", "shop", "-e", "release")).stdout == ""
    assert "shop@release" in good(lab.baton("status")).stdout
    assert "v2" in good(lab.baton("status", "shop@release")).stdout
    good(lab.baton("logs", "shop@release"))
    # a token of one environment reaches no other
    token = json.loads(good(lab.baton("token", "create", "dev", "--environment", "dev", "--json")).stdout)["token"]
    good(lab.baton("restart", "shop", "-e", "dev", BATON_TOKEN=token))
    refused(lab.baton("restart", "shop", "-e", "release", BATON_TOKEN=token), 1, "shop@release")
    # the agent finds its way after a restart, too
    lab.kill("up", 15)
    lab.up()
    good(lab.baton("deploy", "-e", "release", "-v", "v4", "-a", lab.artifact("v4")))
    assert (lab.ask(url=dev), lab.ask(url=url)) == ("v1", "v4")
