"""kill -9 anywhere: after each journal record of a deployment in turn the server is killed, then the
agent; a shim, an app, nginx. After the restart the run goes on or back by itself, and under load no
request fails."""
import json
import os
import pathlib
import signal
import threading
import time
import urllib.request

from lab import Failed, poll


def records(lab, number):
    """The journal's records of one deployment as they are written, until its end."""
    request = urllib.request.Request(f"{lab.url}/v1/deployments/{number}/events?after=0")
    request.add_header("Authorization", f"Bearer {lab.token}")
    with urllib.request.urlopen(request, timeout=60) as stream:
        for line in stream:
            if line.strip() == b"event: record":
                yield True
            elif line.strip() == b"event: end":
                return


def reaches(lab, number, k):
    """True as soon as record k is there; False when the run ended before."""
    return any(n == k for n, _ in enumerate(records(lab, number), 1))


def recorded(lab, number):
    """Every record's event, as a client that comes late gets them."""
    request = urllib.request.Request(f"{lab.url}/v1/deployments/{number}/events?after=0")
    request.add_header("Authorization", f"Bearer {lab.token}")
    out, kind = [], None
    with urllib.request.urlopen(request, timeout=60) as stream:
        for line in stream:
            word, _, rest = line.decode().rstrip("\n").partition(": ")
            kind = rest if word == "event" else kind
            if word == "data" and kind == "record":
                out.append(json.loads(rest))
            elif kind == "end":
                return out
    return out


def newest(lab):
    return (lab.deployments() or [{"id": 0}])[0]["id"]


def begin(lab, version, *args, **settings):
    before = newest(lab)
    client = lab.start_deploy(version, *args, **settings)

    def begun():
        if client.poll() is not None and newest(lab) == before:
            raise Failed(f"the client ended with {client.returncode}: {client.stdout.read()}")
        return newest(lab) != before
    poll("the deployment begins", begun)
    return client, newest(lab)


def finish(lab, client):
    """Exit code and what the client said; read beside it, so that a full pipe stops nobody."""
    said = []
    reader = threading.Thread(target=lambda: said.append(client.stdout.read()), daemon=True)
    reader.start()
    code = client.wait(120)
    reader.join(10)
    return code, "".join(said)


def team(lab):
    """A server, an agent, nginx, and version v0 in service."""
    lab.nginx()
    lab.config(host="was1", deploy={"bake": "0s"}, health={"passes": 1})
    lab.server()
    lab.agent("was1")
    first = lab.deploy("v0")
    assert first.returncode == 0, first.stdout + first.stderr


def kill_after_each_record(lab, victim, restart):
    team(lab)
    serving, ends = "v0", []
    with lab.load(rate=40, browsers=2) as load:
        k = 0
        while True:
            k += 1
            client, number = begin(lab, f"v{k}")
            reached = reaches(lab, number, k)
            if reached:
                lab.kill(victim)
                while_gone = time.monotonic()
                poll("requests are answered while it is gone", lambda: load.answered(while_gone))
                restart()
            code, said = finish(lab, client)
            ended = time.monotonic()
            where = f"killed after record {k} of deployment {number}:\n{said}"
            assert code in (0, 1), f"exit code {code}, {where}"
            run = lab.deployment(number)
            assert run["end"] == ("done" if code == 0 else "rolled_back"), f"{run['end']}, {where}"
            serving = f"v{k}" if code == 0 else serving
            assert lab.ask() == serving, where
            poll("requests are answered after it", lambda: load.answered(ended) >= 3)
            assert load.versions(after=ended) == [serving], f"{load.versions(after=ended)}, {where}"
            assert load.failed == 0, f"{load.summary()}, {where}"
            ends.append(run["end"])
            if not reached:
                break
    assert load.failed == 0, load.summary()
    assert k > 20, f"a deployment of {k} records is too short to mean anything"
    assert "done" in ends


def test_server_killed_after_each_record(lab):
    kill_after_each_record(lab, "server", lab.server)


def test_agent_killed_after_each_record(lab):
    kill_after_each_record(lab, "agent-was1", lambda: lab.agent("was1"))


def test_a_follower_loses_nothing_when_the_server_restarts(lab):
    """Twice in one run: the client's stream goes on at its cursor, and each record is told once."""
    team(lab)
    with lab.load(rate=60) as load:
        client, number = begin(lab, "v1", "--json", start_delay=3)
        for k in (4, 9):
            assert reaches(lab, number, k), f"the run has ended before record {k}"
            lab.kill("server")
            lab.server()
        code, said = finish(lab, client)
        assert code == 0, said
        assert lab.ask() == "v1"
    assert load.failed == 0, load.summary()
    events = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    told = [{k: v for k, v in e.items() if k != "event"} for e in events if e["event"] == "record"]
    assert len(told) > 20 and told == recorded(lab, number), said


def shim_of(lab, slot):
    """The shim's pid: the parent of the app that serves the slot, by its own command line."""
    for pid in lab.processes():
        words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if words[0].endswith(b"baton-shim") and f"/{slot}".encode() in b" ".join(words):
            return pid
    raise Failed(f"no shim of {slot} among {[pathlib.Path(f'/proc/{p}/cmdline').read_bytes() for p in lab.processes()]}")


def slot_of(lab, slot, name="shop"):
    for host in lab.service(name)["world"]["hosts"]:
        for instance in host["instances"]:
            if instance["slot"] == slot:
                return instance
    return None


def test_shim_killed_the_app_lives_and_the_next_deploy_replaces_it(lab):
    team(lab)
    live = lab.service()["live"]["slot"]
    app = slot_of(lab, live)["pid"]
    with lab.load(rate=60) as load:
        os.kill(shim_of(lab, live), signal.SIGKILL)
        poll("the app is adopted", lambda: (slot_of(lab, live) or {}).get("state") == "running")
        assert slot_of(lab, live)["pid"] == app, "another process: the app did not live on"
        done = lab.deploy("v1")
        assert done.returncode == 0, done.stdout + done.stderr
        assert lab.ask() == "v1"
        poll("the adopted app is gone", lambda: not pathlib.Path(f"/proc/{app}").exists())
    assert load.failed == 0, load.summary()


def test_shim_killed_in_mid_run(lab):
    team(lab)
    with lab.load(rate=60) as load:
        client, _ = begin(lab, "v1", start_delay=2)
        other = {"blue": "green", "green": "blue"}[lab.service()["live"]["slot"]]
        poll("the new instance starts", lambda: (slot_of(lab, other) or {}).get("pid"))
        os.kill(shim_of(lab, other), signal.SIGKILL)
        code, said = finish(lab, client)
        assert code in (0, 1), said
        assert lab.ask() == ("v1" if code == 0 else "v0"), said
    assert load.failed == 0, load.summary()


def workers(master):
    kids = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            continue
        if int(stat.rsplit(")", 1)[1].split()[1]) == master:
            kids.append(int(pid))
    return kids


def test_nginx_master_killed_before_the_switch(lab):
    """Orphaned workers go on serving the old version; baton sees that nginx is gone, goes back and
    says so; once nginx runs again a deploy works."""
    team(lab)
    with lab.load(rate=60) as load:
        client, _ = begin(lab, "v1", start_delay=1)
        master = lab.nginx_pid()
        orphans = workers(master)
        os.kill(master, signal.SIGKILL)
        code, said = finish(lab, client)
        assert code == 1, said
        assert "nginx" in said and "not running" in said, said
        assert lab.ask() == "v0"
    assert load.failed == 0, load.summary()
    for pid in orphans:
        os.kill(pid, signal.SIGKILL)
    poll("the workers are gone", lambda: not any(pathlib.Path(f"/proc/{p}").exists() for p in orphans))
    (lab.dir / "nginx.pid").unlink(missing_ok=True)
    lab.start_nginx()
    assert lab.ask() == "v0"
    done = lab.deploy("v2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert lab.ask() == "v2"


def test_client_killed_changes_nothing(lab):
    team(lab)
    client, number = begin(lab, "v1", start_delay=1)
    client.kill()
    client.wait()
    poll("the run ends", lambda: lab.deployment(number).get("end"))
    assert lab.deployment(number)["end"] == "done"
    assert lab.ask() == "v1"
