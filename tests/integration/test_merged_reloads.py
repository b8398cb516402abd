"""Several services behind one nginx, deployed at the same time: what waits goes into one reload, nothing is
lost, and one service's bad change is its own."""
import pytest

from lab import poll

NAMES = ("cart", "pay", "shop", "user")


def good(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture
def behind_one(lab):
    """Four services at /NAME/, and a gate: while it is closed, nginx -T waits, and so does its batch."""
    lab.page = f"http://127.0.0.1:{lab.port('page')}"
    (lab.dir / "tmp").mkdir()
    temp = "".join(f"{k}_temp_path {lab.dir}/tmp;" for k in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (lab.dir / "nginx.conf").write_text(
        f"worker_processes 2;\npid {lab.dir}/nginx.pid;\nerror_log {lab.dir}/error.log notice;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{temp}\ninclude {lab.dir}/up-*.conf;\n"
        f"server {{\nlisten 127.0.0.1:{lab.port('page')} backlog=1024;\n"
        "proxy_http_version 1.1; proxy_set_header Connection '';\n"
        + "".join(f"location /{n}/ {{ proxy_pass http://{n}; }}\n" for n in NAMES)
        + "location /broken { return 503; }\nlocation / { return 200 'front'; }\n}\n}\n")
    gate, program = lab.dir / "closed", lab.dir / "nginx-behind-a-gate"
    program.write_text(f"#!/bin/sh\nwhile [ -e '{gate}' ]; do sleep 0.02; done\nexec nginx \"$@\"\n")
    program.chmod(0o755)
    for name in NAMES:
        (lab.dir / f"up-{name}.conf").write_text(
            f"upstream {name} {{ server 127.0.0.1:{lab.port(f'{name}-blue')}; }}\n")
        config = lab.config(name, nginx=False, deploy={"bake": "0s"})
        config["traffic"] = {"nginx": {"url": lab.page, "binary": str(program), "adopt": {
            "config": str(lab.dir / "nginx.conf"), "prefix": str(lab.dir), "include": f"{lab.dir}/up-{name}.conf"}}}
    lab.write()
    lab.start_nginx()
    lab.up()
    for name in NAMES:
        good(lab.deploy("v1", service=name))
    return lab


def reloads(lab):
    return (lab.dir / "error.log").read_text().count("signal 1 (SIGHUP) received")


def all_at_once(lab, version):
    """Deploys them all, by four people; their changes meet before the gate. Exit codes by name."""
    (lab.dir / "closed").touch()
    artifact = lab.artifact(version)  # the same for all: they upload it at once, too
    clients = {n: lab.start_baton("deploy", n, "--artifact", artifact, "--version", version) for n in NAMES}

    def switching(name):
        newest = lab.deployments(name)[0]
        return newest["version"] == version and any(
            t["kind"] == "Switch" and t["state"] == "running" for t in lab.deployment(newest["id"])["tasks"])
    poll("every change waits", lambda: all(switching(n) for n in NAMES) or any(
        c.poll() is not None and pytest.fail(f"{n}: {c.stdout.read()}") for n, c in clients.items()))
    (lab.dir / "closed").unlink()
    return {n: (c.wait(120), c.stdout.read()) for n, c in clients.items()}


def loads(lab):
    return {n: lab.load(path=f"/{n}/version", rate=40, browsers=2) for n in NAMES}


def check_loads(running):
    for name, load in running.items():
        load.stop()
        assert load.failed == 0, f"{name}: {load.summary()}"


def test_changes_that_wait_go_into_one_reload(behind_one):
    lab, before = behind_one, reloads(behind_one)
    running = loads(lab)
    for load in running.values():
        load.__enter__()
    ended = all_at_once(lab, "v2")
    check_loads(running)
    assert all(code == 0 for code, _ in ended.values()), ended
    assert {n: lab.ask(f"/{n}/version") for n in NAMES} == {n: "v2" for n in NAMES}
    made = reloads(lab) - before
    assert 0 < made < len(NAMES), f"{made} reloads for {len(NAMES)} changes"


def test_one_bad_change_is_its_own(behind_one):
    """nginx answers 503 where this service has its change confirmed: all go back, and each is tried alone."""
    lab = behind_one
    lab.services["pay"]["traffic"]["nginx"]["url"] = lab.page + "/broken"
    lab.write()
    running = loads(lab)
    for load in running.values():
        load.__enter__()
    ended = all_at_once(lab, "v2")
    check_loads(running)
    assert {n: code for n, (code, _) in ended.items()} == {"cart": 0, "pay": 1, "shop": 0, "user": 0}, ended
    assert "nginx answers 503" in ended["pay"][1], ended["pay"][1]
    assert {n: lab.ask(f"/{n}/version") for n in NAMES} == {"cart": "v2", "pay": "v1", "shop": "v2", "user": "v2"}
    assert lab.deployments("pay")[0]["end"] == "rolled_back"
