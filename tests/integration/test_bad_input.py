"""What bad input gets: one clear line, an exit code, nothing changed, nothing lost. Users go on clicking
all the while, and none of them sees it."""
import hashlib
import os
import signal
import socket
import subprocess

import pytest

from lab import BUILD, SANITIZED, poll


@pytest.fixture
def shop(lab):
    """v1 serves behind nginx."""
    lab.nginx()
    lab.up()
    lab.config(health={"within": "20s"})
    done = lab.deploy("v1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert lab.ask() == "v1"
    return lab


def state(lab):
    """What must not change when a deployment fails."""
    return ((lab.dir / "shop.conf").read_text(), lab.ask(), lab.ask("/profile"),
            [r["state"] for r in lab.api("GET", "/v1/services/shop/releases")[1]["releases"] if r["version"] == "v1"])


def refused(done, code, *words):
    """The exit code, and one line that names the thing."""
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    last = said.strip().splitlines()[-1]
    for word in words:
        assert word in said, said
    assert "Traceback" not in said and len(last) < 1200


def works_again(lab, version="good"):
    done = lab.deploy(version)
    assert done.returncode == 0, done.stdout + done.stderr
    assert lab.ask() == version


# ---- the artifact ----

def test_artifacts_that_are_none(shop):
    before = state(shop)
    (shop.dir / "empty.py").write_bytes(b"")
    (shop.dir / "secret.py").write_text("x")
    (shop.dir / "secret.py").chmod(0)
    refused(shop.baton("deploy", "-a", "none.py", "-v", "v2"), 2, "none.py")
    refused(shop.baton("deploy", "-a", "empty.py", "-v", "v2"), 2, "empty.py")
    refused(shop.baton("deploy", "-a", "/dev/null", "-v", "v2"), 2, "/dev/null")
    if os.geteuid() != 0:  # root reads everything
        refused(shop.baton("deploy", "-a", "secret.py", "-v", "v2"), 2, "secret.py")
    assert len(shop.deployments()) == 1 and state(shop) == before


def test_a_pattern_matches_exactly_one_file(shop):
    """Also in a directory whose own name looks like a pattern, and asked from another one."""
    libs = shop.dir / "a[b]*" / "libs"
    libs.mkdir(parents=True)
    shop.config(artifact="libs/shop-*.py")
    config = shop.dir / "a[b]*" / "baton.yaml"
    (shop.dir / "baton.yaml").rename(config)
    before = state(shop)
    refused(shop.baton("deploy", "-f", config, "-v", "v2"), 2, "libs/shop-*.py", "found none")
    v2 = shop.artifact("v2").read_text()
    for i in range(15):
        (libs / f"shop-{i:02}.py").write_text(v2)
    refused(shop.baton("deploy", "-f", config, "-v", "v2"), 2, "exactly one", "found 15", "libs/shop-00.py, ",
            "libs/shop-09.py and 5 more")
    refused(shop.baton("deploy", "-f", config, "-a", f"{shop.dir}/nothing-*", "-v", "v2"), 2, "found none")
    assert len(shop.deployments()) == 1 and state(shop) == before
    for path in sorted(libs.iterdir())[1:]:
        path.unlink()
    done = shop.baton("deploy", "-f", config, "-v", "v2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert shop.ask() == "v2"
    assert shop.api("GET", "/v1/services/shop/releases")[1]["releases"][0]["version"] == "v2"


def test_a_digest_that_does_not_fit(lab):
    lab.up()
    data, other = b"x" * 1000, hashlib.sha256(b"y").hexdigest()
    status, answer = lab.api("PATCH", f"/v1/artifacts/{other}?size=1000&name=a.jar", data,
                             headers={"Upload-Offset": "0", "Content-Type": "application/octet-stream"})
    assert status == 422 and answer["error"]["code"] == "corrupt", answer
    assert lab.api("HEAD", f"/v1/artifacts/{other}")[0] == 404
    good = hashlib.sha256(data).hexdigest()
    for offset, part, expected in ((0, data[:400], 200), (0, data[:400], 409), (400, data[400:], 201)):
        status, answer = lab.api("PATCH", f"/v1/artifacts/{good}?size=1000&name=a.jar", part,
                                 headers={"Upload-Offset": str(offset), "Content-Type": "application/octet-stream"})
        assert status == expected, answer
    assert lab.api("HEAD", f"/v1/artifacts/{good}")[0] == 200


# ---- the app ----

@pytest.mark.parametrize("name, settings, words", [
    ("exits at once", {"exit_at_once": 7}, ["exit", "7", "cannot work"]),
    ("never healthy", {"healthy": False}, ["503", "DOWN"]),
    ("starts too slowly", {"start_delay": 60}, ["healthy"]),
    ("dies in the bake", {"die_after": 2.5}, []),
    ("sick in the bake", {"health_fails_after": 2.5}, []),
])
def test_apps_that_fail(shop, name, settings, words):
    shop.config(health={"within": "4s", "fails": 2}, deploy={"bake": "8s"})
    before = state(shop)
    with shop.load(rate=60) as load:
        done = shop.deploy("v2", **settings)
    refused(done, 1, "rolled back", "green" if before[2] == "blue" else "blue", *words)
    assert state(shop)[1:] == before[1:]
    if "bake" not in name:  # an app that dies while it serves takes its requests with it
        assert load.failed == 0 and load.versions() == ["v1"], load.summary()
    shop.config()
    works_again(shop)


def test_an_app_that_answers_500(lab):
    """baton's own nginx has a log that tells; a user's nginx has one of his own."""
    lab.page = f"http://127.0.0.1:{lab.port('page')}"
    managed = {"nginx": {"on": "local", "listen": f"127.0.0.1:{lab.port('page')}"}}
    lab.up()
    lab.config(nginx=False, traffic=managed)
    assert lab.deploy("v1").returncode == 0 and lab.ask() == "v1"
    lab.config(nginx=False, traffic=managed, deploy={"bake": "10s", "bake_max_5xx": "5%"})
    with lab.load(rate=60) as load:
        done = lab.deploy("v2", answer_500=True)
    refused(done, 1, "rolled back", "5xx")
    assert lab.ask() == "v1" and load.seen[-1][3] == 200


def test_a_port_that_a_stranger_holds(shop):
    before = state(shop)
    idle = "green" if before[2] == "blue" else "blue"
    with socket.socket() as stranger, shop.load(rate=60) as load:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind(("127.0.0.1", shop.port(f"shop-{idle}")))
        stranger.listen()
        done = shop.deploy("v2")
    refused(done, 1, str(shop.port(f"shop-{idle}")), str(os.getpid()))
    assert load.failed == 0, load.summary()
    assert state(shop) == before
    works_again(shop)


# ---- nginx ----

def test_a_mistake_in_the_users_own_nginx_file(shop):
    before = state(shop)
    conf = shop.dir / "nginx.conf"
    good = conf.read_text()
    conf.write_text(good.replace("http {", "http {\n    no_such_directive on;"))
    with shop.load(rate=60) as load:
        done = shop.deploy("v2")
    refused(done, 1, "no_such_directive", "nginx.conf")
    assert load.failed == 0 and load.versions() == ["v1"], load.summary()
    assert state(shop) == before
    conf.write_text(good)
    works_again(shop)


def test_nginx_does_not_run(shop):
    before = state(shop)
    os.kill(shop.nginx_pid(), signal.SIGTERM)
    poll("nginx ends", lambda: not (shop.dir / "nginx.pid").exists())
    done = shop.deploy("v2")
    refused(done, 1, "nginx", "not run")
    shop.start_nginx()
    assert state(shop) == before
    works_again(shop)


# ---- two at once, and giving up ----

def wait_for_stage(lab, child, word):
    lines = []
    for line in child.stdout:
        lines.append(line)
        if word in line:
            return lines
    raise AssertionError("".join(lines))


def test_two_deploys_at_once(shop):
    first = shop.start_deploy("v2", start_delay=3)
    wait_for_stage(shop, first, "start shop v2")
    second = shop.deploy("v3")
    refused(second, 4, "shop", "2")
    said = first.communicate(timeout=90)[0]
    assert first.returncode == 0, said
    assert shop.ask() == "v2"
    works_again(shop, "v4")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_client_that_is_interrupted(shop, number):
    before = state(shop)
    with shop.load(rate=60) as load:
        child = shop.start_deploy("v2", start_delay=10)
        wait_for_stage(shop, child, "start shop v2")
        child.send_signal(number)
        said = child.communicate(timeout=90)[0]
    assert child.returncode == 130 and "rolled back" in said, said
    assert load.failed == 0 and load.versions() == ["v1"], load.summary()
    assert state(shop) == before
    works_again(shop)


def test_a_client_that_is_killed(shop):
    child = shop.start_deploy("v2", start_delay=2)
    wait_for_stage(shop, child, "start shop v2")
    child.kill()
    child.communicate(timeout=30)
    poll("the deployment ends", lambda: shop.deployments()[0].get("end") == "done")
    assert shop.ask() == "v2"


# ---- full disks ----

def small_disk(path, size):
    """A prefix that gives a process its own small file system at path; skips where none can be mounted."""
    path.mkdir(exist_ok=True)
    user = [] if os.geteuid() == 0 else ["-r"]
    prefix = ["unshare", *user, "-m", "sh", "-c", f'mount -t tmpfs -o size={size} tmpfs "{path}" && exec "$@"', "sh"]
    if subprocess.run([*prefix, "true"], stderr=subprocess.DEVNULL, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    return prefix


def test_the_servers_disk_is_full(lab):
    wrap = small_disk(lab.dir / "state", "96m")  # 64 MiB of it are kept free
    lab.up(wrap=wrap)
    lab.config(nginx=False)
    big = lab.artifact("big")
    with open(big, "ab") as f:
        f.write(b"#" + os.urandom(20 << 20).hex().encode())
    done = lab.baton("deploy", "-a", big, "-v", "big")
    assert done.returncode in (1, 2), done.stdout + done.stderr
    refused(done, done.returncode, "app-big.py", "free on the server")
    assert lab.healthy()
    done = lab.deploy("v1")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_hosts_disk_is_full(lab):
    lab.nginx()
    lab.server()
    lab.agent("local", wrap=small_disk(lab.dir / "agent-local", "96m"))  # 64 MiB of it are kept free
    lab.config()
    assert lab.deploy("v1").returncode == 0
    before = state(lab)
    big = lab.artifact("big")
    with open(big, "ab") as f:
        f.write(b"#" + os.urandom(20 << 20).hex().encode())
    with lab.load(rate=60) as load:
        done = lab.baton("deploy", "-a", big, "-v", "big")
    refused(done, 1, "local", "free")
    assert load.failed == 0 and load.versions() == ["v1"], load.summary()
    assert state(lab) == before
    works_again(lab)


@pytest.mark.skipif(SANITIZED, reason="the figure is one of a plain build")
def test_failing_costs_no_memory(shop):
    """A dozen failed deployments leave the server as large as it was."""
    def rss():
        with open(f"/proc/{shop.children['up'].pid}/statm", encoding="ascii") as f:
            return int(f.read().split()[1]) * 4096
    for i in range(3):
        shop.deploy(f"warm{i}", exit_at_once=1)
    before = rss()
    for i in range(12):
        assert shop.deploy(f"bad{i}", exit_at_once=1).returncode == 1
    assert rss() < before + (4 << 20)


# ---- clocks ----

def agents(lab):
    """Processes that `baton up` started as its agent."""
    up = lab.children["up"].pid
    with open(f"/proc/{up}/task/{up}/children", encoding="ascii") as f:
        return [int(pid) for pid in f.read().split()]


def test_clocks_that_jump(lab):
    """Somebody sets the time, forwards and back, in the middle of a deployment and between two."""
    shift = lab.dir / "shift"
    shift.write_text("0")
    lab.nginx()
    lab.up(LD_PRELOAD=str(BUILD / "tests/integration/clock_shift.so"), CLOCK_SHIFT=str(shift),
           ASAN_OPTIONS=os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0")
    lab.config(deploy={"bake": "1s"})
    assert lab.deploy("v1").returncode == 0
    hour, version = 3600, 1
    with lab.load(rate=60) as load:
        for jump in (hour, -hour, 20 * 24 * hour, -20 * hour, 0):
            version += 1
            child = lab.start_deploy(f"v{version}", start_delay=1)
            wait_for_stage(lab, child, f"start shop v{version}")
            shift.write_text(str(jump))
            said = child.communicate(timeout=90)[0]
            assert child.returncode == 0, said
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
    shift.write_text(str(-hour))
    lab.kill("up", signal.SIGTERM)
    lab.up(LD_PRELOAD=str(BUILD / "tests/integration/clock_shift.so"), CLOCK_SHIFT=str(shift),
           ASAN_OPTIONS=os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0")
    works_again(lab)
