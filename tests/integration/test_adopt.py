"""Over apps that others started: adopting leaves them serving, the next deployment stops them only after
the cutover and the drain, and what cannot be adopted is one line that changes nothing."""
import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest
from lab import PYTHON, poll
from test_strategies import good, instances, runs, upstream


def foreign(lab, slot="blue", version="old", service="shop", wait=True, **settings):
    """The app as somebody's script starts it: Popen."""
    path = lab.artifact(version, **settings)
    child = subprocess.Popen([PYTHON, path.name, "--port", str(lab.port(f"{service}-{slot}")), "--slot", slot],
                             cwd=lab.dir, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL, start_new_session=True)
    lab.children[f"foreign {child.pid}"] = child
    if wait:
        poll("the foreign app answers", lambda: child.poll() is None and
             lab.ask("/version", url=f"http://127.0.0.1:{lab.port(f'{service}-{slot}')}") == version)
    return child


def adopt(lab, *args):
    return lab.baton("adopt", "shop", *args)


def refused(done, *words):
    """One clear line with these words, and nothing was begun."""
    assert done.returncode != 0, done.stdout
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    for word in words:
        assert str(word) in lines[0], (word, lines[0])


def listeners(port):
    rows = [line.split() for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows)


def ended(child):
    return poll(f"pid {child.pid} ends", lambda: child.poll() is not None)


def test_first_deployment_over_an_adopted_app(lab):
    lab.nginx()
    lab.config(artifact="app.py", deploy={"bake": "0s"})
    lab.up()
    old = foreign(lab)
    good(adopt(lab))
    seen = instances(lab)["local/blue"]
    assert (seen["pid"], seen["adopted"], seen["state"]) == (old.pid, True, "running"), seen
    assert lab.service()["release"]["version"] == "adopted-1"
    status = good(lab.baton("status", "shop")).stdout
    assert "adopted-1" in status and "adopted" in status.split("STATE", 1)[1] and str(old.pid) in status, status
    plan = good(lab.baton("plan", "shop", "--artifact", lab.artifact("v1"))).stdout
    assert f"adopted process (pid {old.pid})" in plan, plan
    with lab.load(slow=1) as load:
        done = good(lab.deploy("v1", "--json"))
        events = [json.loads(line) for line in done.stdout.splitlines()]
        tasks = [e["task"]["kind"] for e in events if e.get("kind") == "result"]
        assert tasks.index("Switch") < tasks.index("Drain") < tasks.index("InstanceStop"), tasks
        ended(old)
        assert lab.ask() == "v1"
    assert load.failed == 0, load.summary()
    assert set(load.versions()) == {"old", "v1"}
    # the file that it ran was kept: the way back starts it under a shim
    with lab.load() as load:
        good(lab.baton("rollback", "shop"))
        assert lab.ask() == "old"
    assert load.failed == 0, load.summary()
    runs(lab, "adopted-1")
    assert not any(i.get("adopted") for i in instances(lab).values())


def test_adopted_is_warm_and_survives_restarts_of_baton(lab):
    lab.nginx()
    lab.config(deploy={"keep_warm": "1h", "bake": "0s"})
    lab.server()
    lab.agent("local")
    old = foreign(lab)
    good(adopt(lab, "--version", "1.0"))
    lab.kill("agent-local")
    lab.agent("local")
    lab.kill("server")
    lab.server()
    poll("the agent is back", lambda: lab.connected("local"))
    poll("it is still adopted", lambda: instances(lab).get("local/blue", {}).get("adopted"))
    assert instances(lab)["local/blue"]["pid"] == old.pid
    good(lab.deploy("v1"))
    assert old.poll() is None, "keep_warm leaves it running"
    with lab.load() as load:
        done = good(lab.baton("rollback", "shop", "--json"))
        assert lab.ask() == "old"
    assert load.failed == 0, load.summary()
    kinds = [e["task"]["kind"] for e in map(json.loads, done.stdout.splitlines()) if e.get("kind") == "sent"]
    assert kinds.count("Switch") == 1 and "InstanceStart" not in kinds, kinds
    assert old.poll() is None and instances(lab)["local/blue"]["pid"] == old.pid


def test_failed_first_deployment_goes_back_to_the_adopted_app(lab):
    lab.nginx()
    lab.config(health={"within": "3s"})
    lab.up()
    old = foreign(lab)
    good(adopt(lab))
    with lab.load() as load:
        done = lab.deploy("v1", healthy=False)
        assert done.returncode == 1, done.stdout + done.stderr
    assert load.failed == 0, load.summary()
    assert set(load.versions()) == {"old"} and old.poll() is None
    assert instances(lab)["local/blue"]["adopted"]


def test_rolling_over_adopted_apps(lab):
    lab.nginx()
    lab.config(slots=("blue", "green"), identity=None, deploy={"strategy": "rolling", "bake": "0s"})
    both = "\n".join(f"server 127.0.0.1:{lab.port(f'shop-{s}')};" for s in ("blue", "green"))
    (lab.dir / "shop.conf").write_text(f"upstream shop {{ {both} }}\n")
    os.kill(lab.nginx_pid(), signal.SIGHUP)
    lab.up()
    old = [foreign(lab, s) for s in ("blue", "green")]
    poll("nginx sends to both", lambda: lab.ask() == "old")
    good(adopt(lab))
    with lab.load() as load:
        good(lab.deploy("v1"))
    assert load.failed == 0, load.summary()
    for child in old:
        ended(child)
    runs(lab, "v1", "v1")
    assert len(upstream(lab)) == 2


def test_restart_puts_an_adopted_app_under_a_shim(lab):
    lab.nginx()
    lab.config(artifact="app.py", deploy={"bake": "0s"})
    lab.up()
    old = foreign(lab)
    good(adopt(lab))
    with lab.load() as load:
        good(lab.baton("restart", "shop"))
        ended(old)
    assert load.failed == 0 and set(load.versions()) == {"old"}, load.summary()
    assert not any(i.get("adopted") for i in instances(lab).values())


def test_what_cannot_be_started_again_is_said(lab):
    """The file was replaced under the running process, as `cp new.jar app.jar` does."""
    lab.nginx()
    lab.config(artifact="app.py", deploy={"bake": "0s"})
    lab.up()
    old = foreign(lab)
    os.utime(lab.artifact("old"))  # written anew: it is not what runs
    done = good(adopt(lab))
    assert "was changed after the process started" in done.stdout + done.stderr, done.stdout
    refused(lab.baton("restart", "shop"), "adopted", "deploy")
    good(lab.deploy("v1"))
    ended(old)
    before = lab.deployments()[0]["id"]
    refused(lab.baton("rollback", "shop"), "adopted-1", "cannot be started again", "deploy")
    assert lab.deployments()[0]["id"] == before and lab.ask() == "v1"


FORKING = """
import http.server, os, sys
ANSWERS = {"/actuator/health": '{"status":"UP"}', "/profile": sys.argv[2], "/version": "old"}
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = ANSWERS.get(self.path, "old").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Page)
for _ in range(2):
    if os.fork() == 0:
        server.serve_forever()
os.wait()
"""


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_workers_end_with_their_master_and_bystanders_stay(lab):
    """Workers that outlive their master are told, too; what a script started beside it is not."""
    lab.nginx()
    lab.config(artifact="app.py", deploy={"bake": "0s"})
    lab.up()
    (lab.dir / "forking.py").write_text(FORKING)
    port = lab.port("shop-blue")
    script = f"{PYTHON} -c 'import signal; signal.pause()' & echo $! > bystander; " \
             f"{PYTHON} forking.py {port} blue & echo $! > master; wait"
    lab.children["script"] = subprocess.Popen(["sh", "-c", script], cwd=lab.dir, start_new_session=True)
    poll("it answers", lambda: lab.ask("/version", url=f"http://127.0.0.1:{port}") == "old")
    master, bystander = (int((lab.dir / n).read_text()) for n in ("master", "bystander"))
    workers = list(map(int, pathlib.Path(f"/proc/{master}/task/{master}/children").read_text().split()))
    assert len(workers) == 2
    good(adopt(lab))
    assert instances(lab)["local/blue"]["pid"] == master
    good(lab.deploy("v1"))
    assert not alive(master) and not any(map(alive, workers))
    assert alive(bystander) and lab.children["script"].poll() is None
    assert lab.ask() == "v1"


# ---- what bad input gets -----------------------------------------------------------------------

def nothing_changed(lab):
    status, answer = lab.api("GET", "/v1/deployments?service=shop")
    assert status == 200 and answer["deployments"] == []
    assert not list((lab.dir / "state").glob("**/adopted.json"))


def test_nothing_to_adopt(lab):
    lab.nginx()
    lab.config()
    lab.up()
    refused(adopt(lab), "nothing to adopt", lab.port("shop-blue"), lab.port("shop-green"))
    nothing_changed(lab)
    good(lab.deploy("v1"))
    refused(adopt(lab), "v1", "nothing to adopt")


def test_two_candidates_on_one_port(lab):
    lab.nginx()
    lab.config()
    lab.up()
    one, two = foreign(lab, reuse_port=True), foreign(lab, reuse_port=True)
    poll("both listen", lambda: listeners(lab.port("shop-blue")) == 2)
    refused(adopt(lab), "2 candidates", one.pid, two.pid)
    nothing_changed(lab)
    assert one.poll() is None and two.poll() is None


def test_two_candidates_without_a_balancer(lab):
    lab.nginx()  # for its page address only
    lab.config(nginx=False)
    lab.up()
    one = foreign(lab, "blue")
    foreign(lab, "green")
    refused(adopt(lab), "which slot", "blue", "green", one.pid)
    nothing_changed(lab)


def test_stranger_in_the_idle_slot_stays_an_error(lab):
    lab.nginx()
    lab.config()
    lab.up()
    old, idle = foreign(lab, "blue"), foreign(lab, "green")
    done = good(adopt(lab))
    assert str(idle.pid) in done.stdout + done.stderr
    refused(lab.deploy("v1"), "green", idle.pid, "python3")
    assert old.poll() is None and idle.poll() is None


def test_unhealthy_is_not_adopted(lab):
    """The config's health check must hold for what is adopted, since a rollback believes it."""
    lab.nginx()
    lab.config(health={"expect": {"json": {"status": "DOWN"}}, "within": "1s"})
    lab.up()
    old = foreign(lab)
    done = adopt(lab)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "DOWN" in done.stdout.splitlines()[-1], done.stdout
    assert old.poll() is None and lab.ask() == "old"
    poll("it is given back", lambda: not list((lab.dir / "state").glob("**/adopted.json")))
    assert not instances(lab)["local/blue"].get("adopted")


def test_policy_decides_whose_processes(lab):
    if os.geteuid() != 0:
        pytest.skip("only root may adopt what others run")
    lab.nginx()
    lab.config()
    policy = lab.dir / "policy.yaml"
    policy.write_text("exec: true\npaths: [/]\nroot: false\n")
    lab.server()
    lab.agent("local", wait=False, BATON_TEST_POLICY="")
    lab.kill("agent-local")
    lab.start("agent-local", "agent", "run", "--dir", lab.dir / "agent-local", "--policy", policy)
    poll("the agent connects", lambda: lab.connected("local"))
    old = foreign(lab)
    refused(adopt(lab), "host policy", "root", old.pid)
    assert not list((lab.dir / "agent-local").glob("**/adopted.json"))


def test_command_line_gets_nobody_a_file(lab):
    """A process names a file that only root may read: adopting it must not hand that file out."""
    if os.geteuid() != 0:
        pytest.skip("only root may adopt what others run")
    lab.nginx()
    lab.config()
    lab.server()
    lab.agent("local")
    lab.kill("agent-local")
    policy = lab.dir / "policy.yaml"
    policy.write_text("exec: true\npaths: [/]\nrun_as: [nobody]\nroot: true\n")
    lab.start("agent-local", "agent", "run", "--dir", lab.dir / "agent-local", "--policy", policy)
    poll("the agent connects", lambda: lab.connected("local"))
    secret = lab.dir / "secret.jar"
    secret.write_text("for root only")
    secret.chmod(0o600)
    port = lab.port("shop-blue")
    child = subprocess.Popen([PYTHON, "-c", FORKING, str(port), "blue", "-jar", secret], cwd="/", user="nobody")
    lab.children["nobody's"] = child
    try:
        poll("it answers", lambda: lab.ask("/version", url=f"http://127.0.0.1:{port}") == "old")
        done = good(adopt(lab))
        assert "cannot be read by nobody" in done.stdout, done.stdout
        assert not [p for p in (lab.dir / "agent-local/releases").glob("**/*") if p.name == secret.name]
    finally:  # not the laboratory's own user's, so it does not see them
        workers = pathlib.Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
        for pid in [child.pid, *map(int, workers)]:
            os.kill(pid, signal.SIGKILL)


def test_pid_that_is_used_again_is_left_alone(lab):
    """A record whose process has ended, and whose pid another has now: nobody is adopted."""
    lab.nginx()
    lab.config()
    lab.server()
    lab.agent("local")
    old = foreign(lab)
    good(adopt(lab))
    lab.kill("agent-local")
    record = next((lab.dir / "agent-local").glob("instances/shop/blue/adopted.json"))
    other = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], cwd=lab.dir)
    lab.children["other"] = other
    text = json.loads(record.read_text())
    record.write_text(json.dumps(dict(text, pid=other.pid)))
    lab.agent("local")
    poll("it is a stranger again", lambda: instances(lab).get("local/blue", {}).get("holder"))
    assert not instances(lab)["local/blue"].get("adopted")
    poll("the record is gone", lambda: not pathlib.Path(record).exists())
    assert other.poll() is None and old.poll() is None
