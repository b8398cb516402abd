"""The agent against a fake server (fake_agents_server.py): joining, the link, the executor with the real
process runtime, what survives kill -9, and what it refuses."""

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request

import pytest

from fake_agents_server import FakeServer
from lab import Ports

BUILD = os.environ.get("BATON_BUILD", os.path.join(os.path.dirname(__file__), "../../build"))
BATON = os.environ.get("BATON", os.path.join(BUILD, "src/cli/baton"))
SENTINEL = "s3cr3t-sentinel-value"
HELD = Ports()  # for as long as this process lives: tests run side by side in several
PORT, BLUE, GREEN = (HELD.take() for _ in range(3))

APP = b'''
import http.server, os, sys
port, slot, starts = int(sys.argv[1]), sys.argv[2], sys.argv[3]
with open(starts, "a") as f:
    f.write("%s %d\\n" % (slot, os.getpid()))
print("hello from", slot, flush=True)
print("secret", os.environ.get("DB_PASSWORD"), flush=True)
if os.path.exists(starts + ".fail"):
    print("cannot open database with", os.environ.get("DB_PASSWORD"), flush=True)
    sys.exit(3)
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = slot.encode()
        if self.path == "/say":
            print("said", flush=True)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *a):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", port), H).serve_forever()
'''
DIGEST = hashlib.sha256(APP).hexdigest()


def until(what, condition, timeout=20):
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.02)


def ask(port, path="/"):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as r:
        return r.read().decode()


def listens(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


class Agent:
    def __init__(self, root, server):
        self.dir = os.path.join(root, "agent")
        self.root, self.server = root, server
        self.log = os.path.join(root, "agent.log")
        self.process = None
        os.makedirs(self.dir, exist_ok=True)

    def join(self, token=None, host="was1"):
        return subprocess.run(
            [BATON, "agent", "join", self.server.url, "--token", token or self.server.join_token(),
             "--dir", self.dir, "--host", host, "--address", "127.0.0.1"],
            capture_output=True, text=True, timeout=60, check=False)

    def start(self, *more, wait=True):
        hellos = len(self.server.hellos)
        with open(self.log, "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [BATON, "agent", "run", "--dir", self.dir, *(more or ["--own-machine"])],
                stderr=log, stdout=log, stdin=subprocess.DEVNULL)
        if wait:
            self.server.wait("said hello", lambda: len(self.server.hellos) > hellos)
        return self

    def kill(self, number=signal.SIGKILL):
        self.process.send_signal(number)
        return self.process.wait(20)

    def said(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return f.read()

    def ledger(self):
        with open(self.file("ledger"), encoding="utf-8", errors="replace") as f:
            return f.read()

    def file(self, *names):
        return os.path.join(self.dir, *names)


@pytest.fixture(name="server")
def fixture_server(tmp_path):
    server = FakeServer(str(tmp_path / "fake"), PORT)
    server.artifacts[DIGEST] = APP
    yield server
    server.stop()


def processes_of(directory):
    """Pids whose command line or environment names the test's own directory."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                if directory.encode() in f.read() and int(pid) != os.getpid():
                    found.append(int(pid))
        except OSError:
            pass
    return found


@pytest.fixture(name="agent")
def fixture_agent(tmp_path, server):
    agent = Agent(str(tmp_path), server)
    done = agent.join()
    assert done.returncode == 0, done.stderr
    yield agent
    if agent.process and agent.process.poll() is None:
        agent.kill(signal.SIGTERM)
    for pid in processes_of(str(tmp_path)):  # shims and apps of this test, by their arguments
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


class Shop:
    """The commands of one service, as the server would make them."""

    def __init__(self, root, starts="starts.txt"):
        self.starts = os.path.join(root, starts)
        self.service = {
            "service": "shop", "artifact": "app.py", "hosts": ["was1"],
            "run": {"command": f"/usr/bin/python3 {{artifact}} {{port}} {{slot}} {self.starts}",
                    "slots": {"blue": BLUE, "green": GREEN}, "secrets": ["DB_PASSWORD"],
                    "stop": {"signal": "TERM", "grace": "5s"}},
            "health": {"http": "/health", "every": "100ms", "passes": 1, "within": "20s"},
            "identity": {"path": "/profile"},
            "deploy": {"strategy": "blue-green"}}

    def launches(self):
        try:
            with open(self.starts, encoding="ascii") as f:
                return f.read().splitlines()
        except FileNotFoundError:
            return []

    def deploy(self, release=1):
        return {"release": release, "version": f"v{release}", "digest": DIGEST, "size": len(APP),
                "file_name": "app.py", "unpack": False,
                "release_json": {"service": self.service, "version": f"v{release}",
                                 "digest": DIGEST, "id": release}}

    def slot(self, slot="blue", release=1, **more):
        return {"slot": slot, "port": BLUE if slot == "blue" else GREEN, "release": release,
                "service": self.service, **more}

    def start(self, slot="blue", release=1):
        params = self.slot(slot, release, secrets={"DB_PASSWORD": SENTINEL})
        del params["service"]
        return params


@pytest.fixture(name="shop")
def fixture_shop(tmp_path):
    return Shop(str(tmp_path))


def bring_up(server, shop):
    assert server.run("ComponentDeploy", shop.deploy(), number=1)["outcome"] == "done"
    r = server.run("InstanceStart", shop.start(), number=2)
    assert r["outcome"] == "done", r
    r = server.run("HealthCheck", shop.slot(identity=True), number=3)
    assert r["outcome"] == "done", r


# ---- joining


def test_join_writes_a_whole_identity(agent):
    with open(agent.file("agent.json"), encoding="utf-8") as f:
        said = json.load(f)
    assert said["host"] == "was1" and said["server"] == agent.server.url
    assert os.stat(agent.file("agent.pem")).st_mode & 0o077 == 0
    again = agent.join()
    assert again.returncode != 0 and "joined already" in again.stderr


def test_join_trusts_only_the_fingerprint(tmp_path, server):
    agent = Agent(str(tmp_path), server)
    token = server.join_token()
    wrong = token[:-4] + ("0000" if token[-4:] != "0000" else "1111")
    done = agent.join(wrong)
    assert done.returncode != 0
    assert not os.path.exists(agent.file("agent.json"))
    assert len(done.stderr.strip().splitlines()) == 1
    assert server.results == {} and not server.hellos


def test_join_refused_and_malformed(tmp_path, server):
    agent = Agent(str(tmp_path), server)
    done = agent.join(host="elsewhere")
    assert done.returncode != 0 and "another host" in done.stderr
    done = agent.join("btj_nonsense")
    assert done.returncode != 0 and "join token" in done.stderr
    assert not os.path.exists(agent.file("agent.json"))


# ---- the link and a deployment's tasks


def test_a_release_is_placed_started_checked_and_stopped(agent, server, shop):
    agent.start()
    bring_up(server, shop)
    assert ask(BLUE) == "blue"
    seen = server.run("Observe", {"service": shop.service, "balancers": []}, number=4)
    blue = next(i for i in seen["observation"]["instances"] if i["slot"] == "blue")
    assert blue["state"] == "running" and blue["release"] == 1 and blue["identity"] == "blue"
    assert seen["observation"]["releases"] == [1]
    stopped = server.run("InstanceStop", shop.slot(), number=5)
    assert stopped["outcome"] == "done" and stopped["prior"]["running"] is True
    assert not listens(BLUE)
    undone = server.run("InstanceStop", shop.slot(), number=5, verb="undo",
                        prior=stopped["prior"])
    assert undone["outcome"] == "done", undone
    assert ask(BLUE) == "blue"
    undone = server.run("ComponentDeploy", shop.deploy(2), number=6)
    assert undone["outcome"] == "done"
    pruned = server.run("Prune", {"service_name": "shop", "keep": [1], "current": 1}, number=7)
    assert pruned["outcome"] == "done", pruned
    assert os.listdir(agent.file("releases", "shop")) and not os.path.exists(
        agent.file("releases", "shop", "2"))
    server.wait("observed blue", lambda: any(
        i["slot"] == "blue" and i["state"] == "running"
        for o in server.observations for i in o["services"].get("shop", {}).get("instances", [])))


def test_repeats_change_nothing_and_stale_is_refused(agent, server, shop):
    agent.start()
    bring_up(server, shop)
    before = shop.launches()
    command = next(c for c in server.commands if c["task"] == "InstanceStart")
    until("acknowledged all", lambda: agent.ledger().count('"acked"') == 3)
    for n in range(3):
        server.offer({k: v for k, v in command.items() if k != "seq"})
        until("answered the repeat", lambda n=n: agent.ledger().count('"acked"') == 4 + n)
    assert shop.launches() == before
    r = server.run("InstanceStop", shop.slot(), number=9, token=4)
    assert r["outcome"] == "refused" and "stale" in r["detail"]
    assert ask(BLUE) == "blue"


def test_unknown_tasks_and_newer_wires_are_refused_in_words(agent, server, shop):
    agent.start()
    r = server.run("TeleportInstance", {}, number=1)
    assert r["outcome"] == "refused" and "older than the server" in r["detail"]
    r = server.run("InstanceStop", shop.slot(), number=2, wire=2)
    assert r["outcome"] == "refused" and "wire" in r["detail"]
    assert agent.process.poll() is None


def test_a_newer_server_is_told_apart(agent, server):
    server.wire = 2
    agent.start()
    until("said what is wrong", lambda: "speaks wire 2" in agent.said())
    assert "upgrade the agent" in agent.said()
    assert agent.process.poll() is None


def test_results_wait_for_a_server_that_is_away(agent, server, shop):
    agent.start()
    bring_up(server, shop)
    server.refuse_results = 3
    key = server.send("InstanceStop", shop.slot(), number=8)
    assert server.result(key)["outcome"] == "done"
    server.stop()
    until("noticed", lambda: "no link to" in agent.said())
    assert agent.process.poll() is None
    hellos = len(server.hellos)
    server.start()
    server.wait("came back", lambda: len(server.hellos) > hellos)
    assert server.run("Observe", {"service": shop.service, "balancers": []},
                      number=9)["outcome"] == "done"


def test_another_store_starts_where_it_says(agent, server, shop):
    agent.start()
    bring_up(server, shop)
    launches = shop.launches()
    with server.lock:
        server.store, server.commands, server.next_seq = "store-2", [], 1
        server.lock.notify_all()
    hellos = len(server.hellos)
    server.wait("said hello again", lambda: len(server.hellos) > hellos)
    assert server.hellos[-1]["store"] == "store-1" and server.hellos[-1]["tokens"] == {"shop": 5}
    r = server.run("Observe", {"service": shop.service, "balancers": []}, deployment=7, token=9)
    assert r["outcome"] == "done"
    assert shop.launches() == launches


# ---- what survives


def test_apps_outlive_the_agent(agent, server, shop):
    agent.start()
    bring_up(server, shop)
    pid = shop.launches()[0]
    assert agent.kill(signal.SIGTERM) == 0
    assert ask(BLUE) == "blue"
    agent.start()
    agent.kill(signal.SIGKILL)
    assert ask(BLUE) == "blue"
    agent.start()
    r = server.run("HealthCheck", shop.slot(identity=True), number=8)
    assert r["outcome"] == "done", r
    assert shop.launches() == [pid]


def test_killed_in_the_middle_of_a_task(agent, server, shop):
    agent.start()
    bring_up(server, shop)
    key = server.send("HealthCheck", shop.slot("green", 0), number=8)  # nothing runs in green yet
    server.wait("took it", lambda: '"task":8' in agent.ledger())
    r = server.result(key)
    assert r["outcome"] == "failed"  # said at once, not after the 20 s of `within`
    bake = server.send("Bake", shop.slot(), number=10, wait_ms=1500)
    until("began the bake", lambda: agent.ledger().count('"task":10') >= 2)
    agent.kill()
    agent.start()
    assert server.result(bake)["outcome"] == "done"


def ledger_thread(pid):
    """The ledger's thread is the first one that the agent makes."""
    tids = sorted(int(t) for t in os.listdir(f"/proc/{pid}/task"))
    assert len(tids) > 1
    return tids[1]


def attach_killer(agent, k):
    """kill -9 as the ledger's thread enters its k-th sync from now on."""
    tid = ledger_thread(agent.process.pid)
    tracer = subprocess.Popen(
        ["strace", "-p", str(tid), "-e", "trace=fdatasync", "-e",
         f"inject=fdatasync:signal=KILL:when={k}", "-o", "/dev/null"],
        stderr=subprocess.PIPE, text=True)
    assert "attached" in tracer.stderr.readline()
    return tracer


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_killed_at_every_line_of_the_ledger(tmp_path, agent, server):
    crashes, k = 0, 0
    while True:
        k += 1
        shop = Shop(str(tmp_path), f"starts-{k}.txt")
        agent.start()
        tracer = attach_killer(agent, k)
        tasks = [("ComponentDeploy", shop.deploy(k)), ("InstanceStart", shop.start("green", k)),
                 ("HealthCheck", shop.slot("green", k, identity=True)),
                 ("InstanceStop", shop.slot("green", k))]
        killed = False
        for number, (task, params) in enumerate(tasks, 1):
            key = server.send(task, params, deployment=k, number=number, token=k)
            until("died or answered", lambda q=key: q in server.results
                  or agent.process.poll() is not None, 60)
            if agent.process.poll() is not None and not killed:
                killed = True
                crashes += 1
                agent.start()
            assert server.result(key)["outcome"] == "done", (k, task, server.results[key])
        launches = shop.launches()
        assert len(launches) == 1, (k, launches)
        assert not listens(GREEN)
        if agent.process.poll() is None:
            agent.kill(signal.SIGTERM)
        elif not killed:  # while the last acknowledgement was written
            killed = True
            crashes += 1
        tracer.wait(20)
        if not killed:
            break
    assert crashes >= 10, crashes


def test_a_torn_ledger_is_cut_and_a_damaged_one_refused(agent, server, shop):
    agent.start()
    bring_up(server, shop)
    agent.kill()
    with open(agent.file("ledger"), "ab") as f:
        f.write(b"deadbeef half a li")
    agent.start()
    assert "are dropped" in agent.said()
    assert ask(BLUE) == "blue"
    agent.kill()
    with open(agent.file("ledger"), "r+b") as f:
        f.seek(30)
        f.write(b"#")
    agent.start(wait=False)
    assert agent.process.wait(20) != 0
    assert "damaged" in agent.said()
    assert ask(BLUE) == "blue"  # what runs goes on


@pytest.fixture(name="small_disk")
def fixture_small_disk(tmp_path):
    """The agent's directory on a disk of its own, of 80 MiB (64 of them are to stay free)."""
    directory = tmp_path / "agent"
    directory.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80m,mode=700", "tmpfs",
                              str(directory)], check=False).returncode == 0
    if not mounted:
        pytest.skip("needs the right to mount a tmpfs")
    yield directory
    subprocess.run(["umount", "-l", str(directory)], check=True)


def test_a_full_disk_stops_nothing_that_runs(small_disk, agent, server, shop):
    agent.start()
    bring_up(server, shop)
    with open(small_disk / "filler", "wb") as f, pytest.raises(OSError):
        while True:
            f.write(b"x" * 65536)
            f.flush()
    r = server.run("ComponentDeploy", shop.deploy(2), number=8)
    assert r["outcome"] == "failed" and "free" in r["detail"], r
    assert os.listdir(small_disk / "releases" / "shop").count("2") == 0
    r = server.run("HealthCheck", shop.slot(identity=True), number=9)
    assert r["outcome"] == "done", r  # and the ledger could still say so
    assert ask(BLUE) == "blue"
    agent.kill()
    agent.start()
    assert server.run("HealthCheck", shop.slot(), number=10)["outcome"] == "done"
    os.unlink(small_disk / "filler")
    assert server.run("ComponentDeploy", shop.deploy(2), number=11)["outcome"] == "done"


# ---- what is refused


def test_a_second_agent_is_refused(agent):
    agent.start()
    second = subprocess.run([BATON, "agent", "run", "--dir", agent.dir, "--own-machine"],
                            capture_output=True, text=True, timeout=30, check=False)
    assert second.returncode != 0
    assert "another agent runs on" in second.stderr


def policy(tmp_path, text, mode=0o644):
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    path.chmod(mode)
    return str(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="the policy belongs to root")
def test_the_host_policy_comes_first(tmp_path, agent, server, shop):
    agent.start("--policy", policy(tmp_path, "root: false\n"))
    assert server.run("ComponentDeploy", shop.deploy(), number=1)["outcome"] == "done"
    r = server.run("InstanceStart", shop.start(), number=2)
    assert r["outcome"] == "refused" and "rule 'root'" in r["detail"]
    assert shop.launches() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="the policy belongs to root")
def test_a_policy_that_others_may_write_is_refused(tmp_path, agent):
    agent.start("--policy", policy(tmp_path, "root: true\n", 0o666), wait=False)
    assert agent.process.wait(20) != 0
    assert "nobody else may write" in agent.said()
    agent.start("--policy", policy(tmp_path, "rot: true\n"), wait=False)
    assert agent.process.wait(20) != 0
    assert "did you mean 'root'" in agent.said()


def test_secrets_stay_on_the_host(tmp_path, agent, server, shop):
    agent.start()
    bring_up(server, shop)
    server.ask(ask="a1", kind="logs", service="shop", slot="blue", lines=50, follow=False)
    server.wait("sent the log", lambda: any(p.get("end") for p in server.streams.get("a1", [])))
    lines = [line for p in server.streams["a1"] for line in p.get("lines", [])]
    assert "secret ***" in lines
    (tmp_path / "starts.txt.fail").write_text("")
    server.run("InstanceStart", shop.start("green"), number=8)
    r = server.run("HealthCheck", shop.slot("green"), number=9)
    assert r["outcome"] == "failed"
    said = json.dumps([server.result_posts, server.progress, server.observations, server.streams,
                       server.hellos])
    assert "cannot open database with ***" in said
    assert SENTINEL not in said
    assert SENTINEL not in agent.said()


# ---- asks, renewal


def test_logs_are_followed_until_nobody_reads(agent, server, shop):
    agent.start()
    bring_up(server, shop)
    server.ask(ask="f1", kind="logs", service="shop", slot="blue", lines=1, follow=True)

    def lines():
        return [line for p in server.streams.get("f1", []) for line in p.get("lines", [])]

    server.wait("sent the tail", lines)
    ask(BLUE, "/say")
    server.wait("followed", lambda: "said" in lines())
    with server.lock:
        server.closed_streams.add("f1")
    n = len(server.streams["f1"])
    ask(BLUE, "/say")
    server.ask(ask="o1", kind="observe", service=shop.service, balancers=[])
    server.wait("observed", lambda: server.streams.get("o1"))
    assert server.streams["o1"][0]["observation"]["host"] == "was1"
    assert len(server.streams["f1"]) == n
    server.ask(ask="x1", kind="logs", service="shop", slot="red", lines=1, follow=False)
    server.wait("answered", lambda: server.streams.get("x1"))
    assert "no slot red" in server.streams["x1"][0]["error"]


def test_the_certificate_is_renewed_in_time(tmp_path, server):
    agent = Agent(str(tmp_path), server)
    server.ca.sign = old_certificate(server.ca.sign, server.ca)
    assert agent.join().returncode == 0
    server.ca.sign = server.ca.sign.plain
    with open(agent.file("agent.pem"), encoding="ascii") as f:
        before = f.read()
    agent.start()
    server.wait("renewed", lambda: server.renewals, 20)
    until("wrote it", lambda: open(agent.file("agent.pem"), encoding="ascii").read() != before)
    assert os.stat(agent.file("agent.pem")).st_mode & 0o077 == 0
    assert not os.path.exists(agent.file("agent.key.new"))
    agent.kill(signal.SIGTERM)
    agent.start()
    agent.kill(signal.SIGTERM)


def old_certificate(plain, ca):
    """Signs with a life from 20 days ago to 5 days from now: the last third has begun."""

    def sign(csr_pem):
        csr, out = ca.path("old.csr"), ca.path("old.crt")
        with open(csr, "w", encoding="ascii") as f:
            f.write(csr_pem)
        with open(ca.path("index.txt"), "w", encoding="ascii"):
            pass
        with open(ca.path("ca.cnf"), "w", encoding="ascii") as f:
            f.write(f"[ca]\ndefault_ca=d\n[d]\ndatabase={ca.path('index.txt')}\n"
                    f"new_certs_dir={ca.dir}\ndefault_md=sha256\npolicy=p\nrand_serial=yes\n"
                    "[p]\ncommonName=supplied\n")
        stamp = "%Y%m%d%H%M%SZ"
        now = time.time()
        done = subprocess.run(
            ["openssl", "ca", "-batch", "-notext", "-config", ca.path("ca.cnf"), "-cert", ca.ca,
             "-keyfile", ca.ca_key, "-in", csr, "-out", out, "-startdate",
             time.strftime(stamp, time.gmtime(now - 20 * 86400)), "-enddate",
             time.strftime(stamp, time.gmtime(now + 5 * 86400))], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        with open(out, encoding="ascii") as f:
            return f.read()

    sign.plain = plain
    return sign


# ---- size


def test_the_steady_agent_is_small(agent, server, shop):
    agent.start()
    bring_up(server, shop)
    for i in range(5):
        server.run("HealthCheck", shop.slot(), number=20 + i)
    if b"libasan" in open(f"/proc/{agent.process.pid}/maps", "rb").read():
        pytest.skip("sizes mean nothing under a sanitizer")
    with open(f"/proc/{agent.process.pid}/smaps_rollup", encoding="ascii") as f:
        kib = {line.split(":")[0]: int(line.split()[1]) for line in f if " kB" in line}
    private = kib["Private_Clean"] + kib["Private_Dirty"]
    print(f"agent: RSS {kib['Rss']} KiB, private {private} KiB")
    assert kib["Rss"] <= 20 * 1024
