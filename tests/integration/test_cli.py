"""The client against a scripted server: exit codes, output, signals, uploads, reconnection."""
import json
import os
import pathlib
import pty
import re
import select
import signal
import socket
import subprocess
import threading
import time

import pytest

from fake_server import FakeServer, TOKEN

ROOT = pathlib.Path(__file__).resolve().parents[2]
BATON = str(pathlib.Path(os.environ.get("BATON_BUILD", ROOT / "build")).resolve() / "src/cli/baton")
CONFIG = """\
service: shop
artifact: shop.jar
hosts: [local]
run:
  as: process
  command: java -jar {artifact} --server.port={port}
  slots: {blue: 27101, green: 27102}
health: {http: /actuator/health, within: 20s}
deploy: {strategy: blue-green}
"""


def task(words, where="local/green", host="local"):
    return {"id": 1, "kind": "InstanceStart", "host": host, "instance": where, "words": words}


def record(kind, **members):
    return ("record", {"kind": kind, "service": "shop", "at": "2026-11-21T06:39:02.123Z", **members})


RUN = [record("plan", purpose="deploy", text="blue-green of shop"), record("stage", stage="start", text="green is idle"),
       record("sent", lane="local/green", task=task("start shop v2 in local/green"), verb="do", attempt=1),
       ("progress", {"task": task("x"), "line": "try 3: 503 starting"}),
       record("result", lane="local/green", task=task("start shop v2 in local/green"), verb="do", attempt=1,
              outcome="done", detail="healthy after 4 tries")]


def end(name, code, reason="", tail=None):
    return ("end", {"end": name, "exit_code": code, "reason": reason, "log_tail": tail or {}})


@pytest.fixture
def place(tmp_path):
    (tmp_path / "baton.yaml").write_text(CONFIG)
    (tmp_path / "shop.jar").write_bytes(b"PK" + b"x" * 1000)
    return tmp_path


def environment(server=None, **more):
    keep = {k: v for k, v in os.environ.items() if not k.startswith("BATON_") and k not in ("NO_COLOR", "TERM")}
    return {**keep, "HOME": "/nonexistent", "BATON_DIR": "/nonexistent", **(server.env() if server else {}), **more}


def baton(place, *args, server=None, **env):
    return subprocess.run([BATON, *args], cwd=place, env=environment(server, **env), text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)


@pytest.fixture
def serve():
    servers = []

    def make(script=(), **options):
        servers.append(FakeServer(script, **options))
        return servers[-1]
    yield make
    for s in servers:
        s.close()


# ---- the command line ----

@pytest.mark.parametrize("args, words", [
    (["deplyo"], "did you mean 'deploy'"), (["deploy", "--versoin", "1"], "did you mean '--version'"),
    (["deploy", "a", "b"], "one word too many"), (["show"], "needs DEPLOYMENT"),
    (["deploy", "--version"], "needs a value"), (["deploy", "--json=1"], "takes no value"),
    (["server"], "baton server init"), (["--json", "status"], "the command comes first"),
    (["help", "nothing"], "unknown command"), (["history", "-n", "many"], "--limit")])
def test_usage_errors_are_one_line_and_exit_2(place, args, words):
    run = baton(place, *args, BATON_SERVER="http://127.0.0.1:1", BATON_TOKEN="x")
    assert run.returncode == 2
    assert run.stderr.startswith("baton: ") and run.stderr.count("\n") == 1 and words in run.stderr
    assert run.stdout == ""


def test_options_before_and_after_mean_the_same(place, serve):
    s = serve(RUN + [end("done", 0)])
    for args in (["deploy", "--version", "v2", "shop"], ["deploy", "shop", "-vv2"], ["deploy", "--version=v2", "--", "shop"]):
        assert baton(place, *args, server=s).returncode == 0
        assert s.bodies["/v1/deployments"]["version"] == "v2"


def test_docs_cli_is_the_table(place):
    assert baton(place, "help", "--markdown").stdout == (ROOT / "docs/cli.md").read_text(), \
        "write it anew: build/src/cli/baton help --markdown > docs/cli.md"


def test_every_command_explains_itself(place):
    commands = re.findall(r"^## baton (.*)$", (ROOT / "docs/cli.md").read_text(), re.M)
    assert len(commands) >= 20
    for command in commands:
        run = baton(place, "help", *command.split())
        assert run.returncode == 0 and run.stdout.startswith(f"usage: baton {command}")
        assert baton(place, *command.split(), "--help").stdout == run.stdout


# ---- config and artifact: exit 2, nothing asked of the server ----

def test_lint(place):
    assert baton(place, "lint").returncode == 0
    (place / "baton.yaml").write_text(CONFIG.replace("health:", "helth:") + "nonsense: 1\n")
    run = baton(place, "lint")
    assert run.returncode == 2
    assert re.search(r"^baton.yaml:8:1: .*helth.*health", run.stderr, re.M)
    assert re.search(r"^baton.yaml:10:1: .*nonsense", run.stderr, re.M)
    assert "problems in baton.yaml" in run.stderr.splitlines()[-1]


@pytest.mark.parametrize("name", ["README.md", "README.ko.md"])
def test_the_example_of_the_readme_is_a_config(place, name):
    example = re.search(r"```yaml\n(.*?)```", (ROOT / name).read_text(), re.S)[1]
    (place / "baton.yaml").write_text(example)
    run = baton(place, "lint")
    assert run.returncode == 0, run.stderr
    assert len(example.splitlines()) <= 20


@pytest.mark.parametrize("spoil, words", [
    (lambda p: (p / "shop.jar").unlink(), "No such file"),
    (lambda p: (p / "shop.jar").write_bytes(b""), "is empty"),
    (lambda p: ((p / "shop.jar").unlink(), (p / "shop.jar").mkdir()), "is a directory"),
    (lambda p: (p / "baton.yaml").unlink(), "no such file"),
    (lambda p: (p / "baton.yaml").write_text(CONFIG + "  nope: 1\n"), "problem"),
    (lambda p: (p / "baton.yaml").write_text(CONFIG.replace("health:", "  secrets: [DB_PASSWORD]\nhealth:")),
     "DB_PASSWORD")])
def test_what_cannot_be_deployed_is_said_before_the_server_is_asked(place, serve, spoil, words):
    s = serve()
    spoil(place)
    run = baton(place, "deploy", "-v", "v2", server=s)
    assert run.returncode == 2 and words in run.stderr and "baton: " in run.stderr.splitlines()[-1]
    assert s.asked == []


def test_a_release_needs_a_name_and_the_service_must_exist(place, serve):
    assert baton(place, "deploy", server=serve()).returncode == 2
    run = baton(place, "deploy", "shp", "-v", "1", server=serve())
    assert run.returncode == 2 and "which has: shop" in run.stderr


# ---- exit codes ----

@pytest.mark.parametrize("name, code, words", [
    ("done", 0, "deployed shop v2"), ("rolled_back", 1, "rolled back"), ("refused", 1, "nothing was changed"),
    ("parked", 3, "NOT rolled back"), ("halted", 3, "NOT rolled back")])
def test_the_end_of_a_run_is_the_exit_code(place, serve, name, code, words):
    tail = {"local/green": [f"line {i}" for i in range(20)]} if code else {}
    run = baton(place, "deploy", "shop", "-v", "v2", server=serve(RUN + [end(name, code, "it said no", tail)]))
    assert run.returncode == code, run.stderr
    last = [line for line in run.stdout.splitlines() if "deployment 17," in line]
    assert len(last) == 1 and words in last[0]
    if code:
        assert "it said no" in last[0] and "line 19" in run.stdout and "last lines of local/green" in run.stdout


def test_no_server_is_5_and_fast(place):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        free = s.getsockname()[1]
    run = baton(place, "deploy", "-v", "v2", BATON_SERVER=f"http://127.0.0.1:{free}", BATON_TOKEN="x")
    assert run.returncode == 5 and f":{free}" in run.stderr


def test_lease_is_4_and_names_the_holder(place, serve):
    s = serve()
    s.answers["POST", "/v1/deployments"] = 409, {"error": {"code": "lease", "message": "deployment 16 of shop is running"}}
    run = baton(place, "deploy", "-v", "v2", server=s)
    assert run.returncode == 4 and "deployment 16" in run.stderr


def test_a_wrong_token_is_2(place, serve):
    run = baton(place, "status", BATON_SERVER=serve().url, BATON_TOKEN="wrong")
    assert run.returncode == 2 and "BATON_TOKEN" in run.stderr


def test_problems_that_the_server_finds_are_printed(place, serve):
    s = serve()
    s.answers["POST", "/v1/deployments"] = 400, {"error": {
        "code": "config", "message": "2 problems", "problems": ["baton.yaml:3:1: no host 'local'", "b:1:1: x"]}}
    run = baton(place, "deploy", "-v", "v2", server=s)
    assert run.returncode == 2 and "baton.yaml:3:1: no host 'local'\nb:1:1: x\nbaton: " in run.stderr


# ---- who the server is ----

def test_status_shows_who_holds_the_address(place, serve):
    s = serve()
    host = {"instances": [], "balancers": []}
    s.answers["GET", "/v1/services/shop"] = 200, {"name": "shop", "hosts": ["was1", "was2"], "world": {"hosts": [
        {"host": "was1", "vips": [{"address": "192.0.2.10", "there": True}], **host},
        {"host": "was2", "vips": [{"address": "192.0.2.10", "there": False, "trouble": "it is on eth0"}], **host},
        {"host": "lb", **host}]}}
    done = baton(place, "status", "shop", server=s)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["192.0.2.10", "was1", "on"] in rows and ["192.0.2.10", "was2", "off"] in rows, done.stdout
    assert "attention: 192.0.2.10 on was2: it is on eth0" in done.stdout


def test_the_config_file_and_a_local_up_are_found(place, serve):
    s = serve()
    s.answers["GET", "/v1/services"] = 200, {"services": []}
    (place / "state").mkdir()
    (place / "state/client.json").write_text(json.dumps({"url": s.url, "token": TOKEN}))
    assert baton(place, "status", BATON_DIR=str(place / "state")).returncode == 0
    assert baton(place, "status", "--dir", "state").returncode == 0
    assert baton(place, "status", "--config", "state/client.json").returncode == 0
    other = serve()
    run = baton(place, "status", "--config", "state/client.json", "--server", other.url)
    assert run.returncode == 2 and "no token" in run.stderr and other.asked == []
    assert baton(place, "status").returncode == 2


# ---- the upload ----

def test_the_upload_goes_in_parts_resumes_and_is_not_repeated(place, serve):
    s = serve(RUN + [end("done", 0)])
    data = os.urandom((20 << 20) + 5)
    (place / "shop.jar").write_bytes(data)
    s.cut_parts = 2                        # the first is sent again by the HTTP library itself
    run = baton(place, "deploy", "-v", "v2", server=s)
    assert run.returncode == 0, run.stderr
    digest = s.bodies["/v1/deployments"]["artifact"]["digest"]
    assert s.have[digest] == data
    sent = len(s.paths("PATCH"))
    assert sent == 5                       # three parts, the first of them three times
    assert "uploaded shop.jar" in run.stdout and "going on" in run.stdout
    run = baton(place, "deploy", "-v", "v3", server=s)
    assert run.returncode == 0 and "nothing to send" in run.stdout
    assert len(s.paths("PATCH")) == sent


def test_a_part_that_is_there_already_is_not_sent_again(place, serve):
    s = serve(RUN + [end("done", 0)])
    data = os.urandom(12 << 20)
    (place / "shop.jar").write_bytes(data)
    baton(place, "deploy", "-v", "v1", server=s)
    digest = s.bodies["/v1/deployments"]["artifact"]["digest"]
    s.have[digest], s.parts, s.asked = data[:8 << 20], {}, []
    run = baton(place, "deploy", "-v", "v2", server=s)
    assert run.returncode == 0 and s.have[digest] == data and len(s.paths("PATCH")) == 1
    assert "were there already" in run.stdout


# ---- what is shown ----

def test_plain_lines_carry_the_time_and_no_control_characters(place, serve):
    evil = record("result", lane="local/green", task=task("start shop v2"), verb="do", attempt=1, outcome="failed",
                  detail="\x1b[2J\x1b]0;owned\x07 done\nnewline")
    run = baton(place, "deploy", "-v", "v2", server=serve(RUN + [evil, end("done", 0)]), TZ="UTC")
    assert "06:39:02 local/green    start shop v2 in local/green: ok, healthy after 4 tries" in run.stdout
    assert "try 3: 503 starting" in run.stdout
    assert "\x1b" not in run.stdout and "\x07" not in run.stdout
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in run.stdout.splitlines()[:-1])


def test_json_is_one_event_a_line(place, serve):
    run = baton(place, "deploy", "-v", "v2", "--json", server=serve(RUN + [end("done", 0)]))
    events = [json.loads(line) for line in run.stdout.splitlines()]
    kinds = [e["event"] for e in events]
    assert kinds[-1] == "end" and kinds.count("record") == 4 and "progress" in kinds and "upload" in kinds
    assert events[-1]["end"] == "done"


def terminal(place, server, *args, columns=72, **env):
    """The bytes that a terminal would get, and the exit code."""
    master, slave = pty.openpty()
    import fcntl
    import struct
    import termios
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    before = termios.tcgetattr(slave)
    child = subprocess.Popen([BATON, *args], cwd=place, env=environment(server, TERM="xterm", **env),
                             stdin=slave, stdout=slave, stderr=slave)
    out, deadline = b"", time.monotonic() + 30
    while time.monotonic() < deadline:
        if select.select([master], [], [], 0.05)[0]:
            out += os.read(master, 65536)
        elif child.poll() is not None:
            break
    after = termios.tcgetattr(slave)
    os.close(slave)
    os.close(master)
    assert before == after, "the terminal's modes are as before"
    return out.decode(), child.wait(5)


def test_the_live_view_redraws_and_leaves_the_result(place, serve):
    out, code = terminal(place, serve(RUN + [end("done", 0)]), "deploy", "-y", "-v", "v2")
    assert code == 0
    assert "\x1b[J" in out and "\x1b[32m" in out
    assert "deployed shop v2" in out.splitlines()[-1]
    assert "?25l" not in out
    widths = [len(re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line)) for line in out.replace("\r", "").splitlines()]
    assert max(widths[:-1]) <= 80
    colourless, _ = terminal(place, serve(RUN + [end("done", 0)]), "deploy", "-y", "-v", "v2", NO_COLOR="1")
    assert "\x1b[32m" not in colourless and "\x1b[J" in colourless


def test_show_replays_a_finished_run_with_its_logs(place, serve):
    run = baton(place, "show", "17", server=serve(RUN + [end("rolled_back", 1, "no")]))
    assert run.returncode == 1 and "healthy after 4 tries" in run.stdout and "the log of a task" in run.stdout
    assert run.stdout.startswith("deployment 17 of shop v2 over v1")


# ---- signals, restarts ----

def started(place, server, *args):
    child = subprocess.Popen([BATON, *args], cwd=place, env=environment(server), text=True,
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for line in child.stdout:
        if "start shop v2" in line:
            return child
    raise AssertionError(f"the stream did not begin: {child.stderr.read()}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_aborts_and_waits(place, serve, number):
    s = serve()
    s.script = RUN + [("wait", s.aborted), record("operator", op="abort", text="aborted by ci"), end("rolled_back", 1, "aborted")]
    child = started(place, s, "deploy", "-v", "v2")
    child.send_signal(number)
    out, _ = child.communicate(timeout=20)
    assert child.returncode == 130 and s.aborted.is_set()
    assert "asking the server to abort" in out and "interrupted and rolled back: aborted" in out


def test_an_abort_that_leaves_a_mess_is_3(place, serve):
    s = serve()
    s.script = RUN + [("wait", s.aborted), end("parked", 3, "undo failed")]
    child = started(place, s, "deploy", "-v", "v2")
    child.send_signal(signal.SIGTERM)
    out, _ = child.communicate(timeout=20)
    assert child.returncode == 3 and "NOT rolled back" in out


def test_a_second_signal_leaves_at_once(place, serve):
    never = threading.Event()
    s = serve(RUN + [("wait", never)])
    child = started(place, s, "deploy", "-v", "v2")
    child.send_signal(signal.SIGINT)
    assert s.aborted.wait(10)
    child.send_signal(signal.SIGINT)
    out, _ = child.communicate(timeout=10)
    never.set()
    assert child.returncode == 130 and "baton show 17" in out


def test_detach_leaves_it_running(place, serve):
    s = serve(RUN)
    run = baton(place, "deploy", "-v", "v2", "--detach", server=s)
    assert run.returncode == 0 and "baton show 17" in run.stdout
    assert "/v1/deployments/17/events" not in s.paths("GET")


def test_the_stream_goes_on_at_its_cursor(place, serve):
    s = serve(RUN[:4] + [("cut",)] + RUN[4:] + [end("done", 0)])
    run = baton(place, "deploy", "-v", "v2", server=s)
    assert run.returncode == 0
    assert run.stdout.count("green is idle") == 1 and run.stdout.count("healthy after 4 tries") == 1
    assert s.paths("GET").count("/v1/deployments/17/events") == 2


def test_a_server_restart_is_told_once_and_survived(place, serve):
    s = serve(RUN[:4] + [("cut",)])
    port = s.http.server_address[1]
    child = started(place, s, "deploy", "-v", "v2")
    s.close()
    for line in child.stdout:
        if "the server is away" in line:
            break
    else:
        raise AssertionError("it was not told")
    again = serve(RUN[:4] + [record("token")] + RUN[4:] + [end("done", 0)], port=port)
    out, _ = child.communicate(timeout=30)
    assert child.returncode == 0 and "is away" not in out and "the server is back" in out
    assert "healthy after 4 tries" in out and "green is idle" not in out
    assert again.paths("GET").count("/v1/deployments/17/events") == 1


def test_rollback_names_the_release(place, serve):
    s = serve(RUN + [end("done", 0)])
    s.answers["POST", "/v1/services/shop/rollback"] = 201, {"id": 17, "service": "shop", "release": {"id": 1, "version": "v1"}}
    run = baton(place, "rollback", "shop", "--to", "v1", server=s)
    assert run.returncode == 0 and s.bodies["/v1/services/shop/rollback"]["to"] == "v1"
    assert "deployed shop v1" in run.stdout
