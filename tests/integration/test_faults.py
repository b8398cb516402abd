"""What bad input gets, on real parts: one clear line that names the thing, the documented exit code,
nothing changed (the old version serves on, under load) and nothing lost. Crashes are test_crash.py's,
tokens and malformed HTTP test_security.py's."""
import contextlib
import json
import os
import pathlib
import signal
import socket
import stat
import subprocess
import sys

import pytest

from lab import BUILD, poll

DAY = 86400


def text(done):
    return done.stdout + done.stderr


def one_line(done, code, *words):
    """The whole of the client's complaint is one line that names the thing."""
    assert done.returncode == code, text(done)
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("baton: "), text(done)
    for word in words:
        assert str(word) in lines[0], text(done)


def says(done, code, *words):
    """A run that was followed: the exit code, and one line of it that holds all the words."""
    said = done if isinstance(done, str) else text(done)
    if not isinstance(done, str):
        assert done.returncode == code, said
    assert any(all(str(w) in line for w in words) for line in said.splitlines()), f"no line with {words}:\n{said}"


def shop(lab, first="v1", host="local", **groups):
    """nginx, `baton up`, and a first version in service."""
    lab.nginx()
    lab.config(host=host, **groups)
    lab.up()
    done = lab.deploy(first)
    assert done.returncode == 0, text(done)
    assert lab.ask() == first


def include(lab, name="shop"):
    return (lab.dir / f"{name}.conf").read_text()


@contextlib.contextmanager
def unharmed(lab, version="v1", **load):
    """While the block runs nothing of the service changes, and no request fails."""
    before, slot = include(lab), lab.service()["live"]["slot"]
    with lab.load(rate=60, **load) as it:
        yield
        assert lab.ask() == version
    assert it.failed == 0 and it.sent > 0, it.summary()
    assert it.versions() == [version]
    assert include(lab) == before
    assert lab.service()["live"]["slot"] == slot


def idle_is_empty(lab):
    live = lab.service()["live"]["slot"]
    idle = {"blue": "green", "green": "blue"}[live]
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", lab.port(f"shop-{idle}")))


def begin(lab, version, *args, **settings):
    """A deployment in the background: the client and the deployment's number."""
    before = lab.deployments()[0]["id"] if lab.deployments() else 0
    client = lab.start_deploy(version, *args, **settings)
    poll("the deployment begins", lambda: client.poll() is not None or newest(lab) != before)
    assert newest(lab) != before, client.communicate()[0]
    return client, newest(lab)


def newest(lab):
    return (lab.deployments() or [{"id": 0}])[0]["id"]


def finish(client):
    said = client.communicate(timeout=120)[0]
    return client.returncode, said


def state_of(lab, slot):
    for host in lab.service()["world"]["hosts"]:
        for instance in host["instances"]:
            if instance["slot"] == slot:
                return instance.get("state")
    return None


# ---- artifacts ----

def test_an_artifact_that_is_missing_empty_or_unreadable(lab):
    shop(lab)
    empty, secret = lab.dir / "empty.jar", lab.artifact("v9")
    empty.write_bytes(b"")
    secret.chmod(0)
    # root reads everything, unless it lets go of the capability
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.getuid() == 0 else []
    runs = len(lab.deployments())
    with unharmed(lab):
        one_line(lab.baton("deploy", "--artifact", "none.jar", "--version", "v2"), 2, "none.jar", "No such file")
        one_line(lab.baton("deploy", "--artifact", empty, "--version", "v2"), 2, "empty.jar", "is empty")
        done = subprocess.run([*drop, sys.modules["lab"].BATON, "deploy", "--artifact", secret, "--version", "v2"],
                              cwd=lab.dir, env=lab.env(), text=True, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
        one_line(done, 2, secret.name, "Permission denied")
    assert len(lab.deployments()) == runs
    assert len(lab.api("GET", "/v1/services/shop/releases")[1]["releases"]) == 1


def test_an_artifact_that_changed_on_the_server_goes_to_no_host(lab):
    """Another host fetches the stored bytes after they rotted."""
    lab.nginx()
    lab.config(host="was1")
    lab.server()
    lab.agent("was1")
    assert lab.deploy("v1").returncode == 0
    with unharmed(lab):
        client, _ = begin_with_rot(lab)
        code, said = finish(client)
        assert code == 1, said
        says(said, 1, "what came is not what was sent", "SHA-256")
        idle_is_empty(lab)
    assert not list((lab.dir / "agent-was1").rglob("app-v2.py"))


def begin_with_rot(lab):
    """The bytes go up while the agent is away, rot, and are fetched when it is back."""
    lab.kill("agent-was1", signal.SIGTERM)
    poll("the agent is away", lambda: not lab.connected("was1"))
    before = newest(lab)
    path = lab.artifact("v2")
    digest = subprocess.run(["sha256sum", path], text=True, stdout=subprocess.PIPE, check=True).stdout.split()[0]
    data = path.read_bytes()
    status, answer = lab.api("PATCH", f"/v1/artifacts/{digest}?size={len(data)}&name={path.name}", data,
                             headers={"Upload-Offset": "0", "Content-Type": "application/octet-stream"})
    assert status == 201, answer
    stored = lab.dir / "server/artifacts" / digest
    stored.write_bytes(data[:-2] + b"X\n")
    lab.agent("was1")
    client = lab.start_deploy("v2")
    poll("the deployment begins", lambda: client.poll() is not None or newest(lab) != before)
    return client, newest(lab)


def test_an_upload_that_was_changed_on_the_wire_is_refused(lab):
    lab.server()
    data, digest = b"x" * 1000, "ab" * 32
    status, answer = lab.api("PATCH", f"/v1/artifacts/{digest}?size=1000&name=a.jar", data,
                             headers={"Upload-Offset": "0", "Content-Type": "application/octet-stream"})
    assert status == 422 and digest[:12] in answer["error"]["message"], answer
    assert not list((lab.dir / "server/artifacts").iterdir())
    assert lab.api("HEAD", f"/v1/artifacts/{digest}")[0] == 404


@contextlib.contextmanager
def small_disk(where, size):
    """A file system of its own at `where`."""
    where.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", where], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {done.stdout.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", where], check=True)


def test_the_disk_of_the_host_is_full(lab):
    state = lab.dir / "agent-was1"
    with small_disk(state, "400m"):
        state.chmod(0o700)
        lab.nginx()
        lab.config(host="was1")
        lab.server()
        lab.agent("was1")
        assert lab.deploy("v1").returncode == 0
        filler = state / "filler"
        with open(filler, "wb") as f:
            with contextlib.suppress(OSError):
                while True:
                    f.write(b"\0" * (1 << 20))
        with unharmed(lab):
            says(lab.deploy("v2"), 1, "was1", "free")
            assert not list(state.rglob("app-v2.py"))
            idle_is_empty(lab)
        filler.unlink()
        done = lab.deploy("v3")
        assert done.returncode == 0, text(done)
        lab.kill("agent-was1", signal.SIGTERM)


# ---- apps ----

@pytest.mark.parametrize("settings, words", [
    ({"exit_at_once": 7}, ["7", "app: cannot work"]),
    ({"healthy": False}, ["503"]),
    ({"start_delay": 60}, ["refused"])], ids=["exits", "unhealthy", "slow"])
def test_an_app_that_does_not_come_up(lab, settings, words):
    shop(lab, health={"within": "2s"})
    with unharmed(lab):
        done = lab.deploy("v2", **settings)
        for word in words:
            says(done, 1, word)
        idle_is_empty(lab)
    releases = lab.api("GET", "/v1/services/shop/releases")[1]["releases"]
    assert {r["version"]: r["state"] for r in releases} == {"v1": "good", "v2": "bad"}


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
    assert lab.deploy("v1", ignore_term=True).returncode == 0
    with lab.load(rate=60) as load:
        done = lab.deploy("v2")
        assert done.returncode == 0, text(done)
        assert lab.ask() == "v2"
        idle_is_empty(lab)
    assert load.failed == 0, load.summary()


# ---- nginx ----

def test_a_mistake_in_the_users_own_file(lab):
    shop(lab)
    path = lab.dir / "nginx.conf"
    good = path.read_text()
    with unharmed(lab):
        path.write_text(good.replace("worker_processes 2;", "worker_processes 2;\nnonsense on;"))
        says(lab.deploy("v2"), 1, f"{path}:2", "nonsense")
        idle_is_empty(lab)
    path.write_text(good)
    assert lab.deploy("v3").returncode == 0
    assert lab.ask() == "v3"


def test_nginx_does_not_run(lab):
    shop(lab)
    before = include(lab)
    os.kill(lab.nginx_pid(), signal.SIGQUIT)
    poll("nginx is gone", lambda: not (lab.dir / "nginx.pid").exists())
    done = lab.deploy("v2")
    says(done, 1, "nginx", "not running")
    assert include(lab) == before
    lab.start_nginx()
    assert lab.ask() == "v1"


def test_an_include_in_a_missing_directory(lab):
    lab.nginx()
    adopt = {**lab.adopt(), "include": str(lab.dir / "missing/shop.conf")}
    lab.config(traffic={"nginx": {"on": "local", "adopt": adopt, "url": lab.page}})
    lab.up()
    before = include(lab)
    says(lab.deploy("v1"), 1, "missing", "shop.conf")
    assert include(lab) == before and not (lab.dir / "missing").exists()


# ---- people ----

def test_two_deploys_at_once(lab):
    shop(lab)
    with lab.load(rate=60) as load:
        client, number = begin(lab, "v2", start_delay=2)
        one_line(lab.deploy("v3"), 4, "shop", number)
        code, said = finish(client)
        assert code == 0, said
        assert lab.ask() == "v2"
    assert load.failed == 0, load.summary()


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


def test_detach(lab):
    shop(lab)
    with lab.load(rate=60) as load:
        done = lab.deploy("v2", "--detach", start_delay=1)
        says(done, 0, "deployment 2", "baton show 2")
        assert lab.deployment(2).get("end") is None, "it waited"
        assert lab.baton("show", 2).returncode == 0
        assert lab.ask() == "v2"
    assert load.failed == 0, load.summary()


# ---- clocks ----

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


@pytest.mark.parametrize("who, seconds", [("server", -DAY), ("agent", DAY), ("agent", -DAY)],
                         ids=["server back", "agent ahead", "agent back"])
def test_a_clock_jumps_in_mid_run(lab, who, seconds):
    clock = Clock(lab.dir / "clock")
    lab.nginx()
    lab.config(host="was1", deploy={"drain": "5s", "bake": "1s"})
    lab.server(**(clock.env() if who == "server" else {}))
    lab.agent("was1", **(clock.env() if who == "agent" else {}))
    assert lab.deploy("v1").returncode == 0
    with lab.load(rate=60) as load:
        client, number = begin(lab, "v2", start_delay=2)
        poll("the new one starts", lambda: state_of(lab, "green"))
        clock.jump(seconds)
        code, said = finish(client)
        assert code == 0, said
        assert lab.deployment(number)["end"] == "done"
        assert lab.ask() == "v2"
        clock.jump(0)
        done = lab.deploy("v3")
        assert done.returncode == 0, text(done)
        assert lab.ask() == "v3"
    assert load.failed == 0, load.summary()
    assert not any(i.get("version") == "v1" and i.get("state") == "running" for i in instances(lab))


def instances(lab):
    return [i for h in lab.service()["world"]["hosts"] for i in h["instances"]]


# ---- secrets ----

SENTINEL = "hunter2-sentinel-4711"


def test_a_secret_is_nowhere(lab):
    lab.nginx()
    lab.config(run={"secrets": ["DB_PASSWORD"]}, health={"within": "2s"})
    lab.up()
    seen = []
    one_line(lab.deploy("v1"), 2, "DB_PASSWORD")
    done = lab.deploy("v1", env={"DB_PASSWORD": SENTINEL})
    assert done.returncode == 0, text(done)
    assert lab.ask("/env?name=DB_PASSWORD") == SENTINEL
    bad = lab.deploy("v2", env={"DB_PASSWORD": SENTINEL}, print_env="DB_PASSWORD", exit_at_once=1)
    assert bad.returncode == 1
    says(bad, 1, "app: cannot work")
    for number in (1, 2):
        seen += [text(lab.baton("show", number)), text(lab.baton("show", number, "--json")),
                 json.dumps(lab.deployment(number))]
    seen += [text(done), text(bad), text(lab.baton("plan", "--artifact", lab.artifact("v3"), DB_PASSWORD=SENTINEL)),
             text(lab.baton("logs", "shop")), json.dumps(lab.service()), lab.log("up"), lab.log("error"),
             json.dumps(lab.api("GET", "/v1/services/shop/releases")[1])]
    for what in seen:
        assert SENTINEL not in what, what
    for pid in lab.processes():
        with contextlib.suppress(OSError):
            assert SENTINEL.encode() not in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    for path in files_with(lab.dir, SENTINEL):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, f"{path} is readable by others"
        assert "journal" not in path.name and ".db" not in path.name, path


def files_with(root, words):
    return [p for p in root.rglob("*") if p.is_file() and not p.is_symlink() and words.encode() in p.read_bytes()]
