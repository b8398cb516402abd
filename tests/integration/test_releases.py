"""What a release is made of besides its artifact: ports by name, files, configuration; and what becomes of
it: stored, compared, restarted, marked, removed."""
import hashlib
import json
import socket
import tarfile

from lab import PYTHON


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
