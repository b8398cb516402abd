"""Instances and releases on a host, through the whole of baton: archives, logs over rotations, an app
that dies, what an app leaves behind."""
import io
import os
import pathlib
import pwd
import re
import signal
import tarfile
import zipfile

import pytest

from lab import HERE, PYTHON, Failed, poll

APP = (HERE / "app.py").read_text()
IN_ARCHIVE = f"{PYTHON} {{artifact}}/bin/app.py --port {{port}} --slot {{slot}}"


@pytest.fixture
def shop(lab):
    """Version v0 in service, without a balancer."""
    lab.config(nginx=False, health={"passes": 1}, deploy={"bake": "0s"})
    lab.up()
    deployed(lab.deploy("v0"))
    return lab


def deployed(done):
    assert done.returncode == 0, done.stdout + done.stderr


def instances(lab, name="shop"):
    return {i["slot"]: i for host in lab.service(name)["world"]["hosts"] for i in host["instances"]
            if i["state"] != "absent"}


def live(lab):
    """The one slot that runs (agents tell it a moment later), and its pid."""
    def one():
        all_ = instances(lab)
        return len(all_) == 1 and [(s, i["pid"]) for s, i in all_.items() if i["state"] == "running"]
    return poll("one instance runs", one)[0]


def page(lab, slot, path="/version"):
    return lab.ask(url=f"http://127.0.0.1:{lab.port(f'shop-{slot}')}{path}", path="")


def members(version):
    return {"bin/app.py": f"SETTINGS = {{'version': {version!r}}}\n{APP}", "lib/data.txt": "data\n"}


def tar_gz(path, version, *extra):
    with tarfile.open(path, "w:gz") as out:
        for name, text in members(version).items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            out.addfile(info, io.BytesIO(text.encode()))
        for info in extra:
            out.addfile(info)


def zipped(path, version):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, text in members(version).items():
            out.writestr(name, text)


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_archives_are_unpacked_and_bad_ones_change_nothing(shop):
    lab = shop
    lab.config(nginx=False, run={"command": IN_ARCHIVE}, health={"passes": 1}, deploy={"bake": "0s"})
    tar_gz(lab.dir / "a.tar.gz", "t1", link("lib/current", "data.txt"))
    deployed(lab.baton("deploy", "shop", "--artifact", "a.tar.gz", "--version", "t1"))
    assert page(lab, live(lab)[0]) == "t1"
    zipped(lab.dir / "a.zip", "z1")
    deployed(lab.baton("deploy", "shop", "--artifact", "a.zip", "--version", "z1"))
    slot, pid = live(lab)
    assert page(lab, slot) == "z1"

    (lab.dir / "not.tar.gz").write_text("no archive at all\n")
    tar_gz(lab.dir / "out.tar.gz", "x", link("lib/evil", "../../../../etc"))
    tar_gz(lab.dir / "hard.tar.gz", "x", link("lib/evil", "/etc/passwd", tarfile.LNKTYPE))
    fifo = tarfile.TarInfo("pipe")
    fifo.type = tarfile.FIFOTYPE
    tar_gz(lab.dir / "fifo.tar.gz", "x", fifo)
    for k, (name, words) in enumerate([("not", "not a tar"), ("out", "leaves the archive"),
                                       ("hard", "absolute path"), ("fifo", "named pipe")]):
        done = lab.baton("deploy", "shop", "--artifact", f"{name}.tar.gz", "--version", f"bad{k}")
        assert done.returncode == 1 and words in done.stdout + done.stderr, done.stdout + done.stderr
        assert live(lab) == (slot, pid), "it was touched"
        assert page(lab, slot) == "z1"
    left = [p.name for p in lab.dir.rglob(".new-*")] + [p.name for p in lab.dir.rglob(".part-*")]
    assert not left, left


def test_logs_are_followed_over_rotations(shop):
    lab = shop
    count = 40000
    lab.config(nginx=False, health={"passes": 1}, deploy={"bake": "0s"},
               run={"logs": {"max": "64k", "keep": 100}})
    app = lab.dir / "talk.py"
    app.write_text(f"""import http.server, os, sys, threading, time
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{{"status": "UP"}}')
    def log_message(self, *args):
        pass
s = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Page)
threading.Thread(target=s.serve_forever, daemon=True).start()
while not os.path.exists({str(lab.dir / "go")!r}):
    time.sleep(0.02)
for i in range({count // 100}):
    os.write(1, b"".join(b"line %06d\\n" % (i * 100 + k) for k in range(100)))
    time.sleep(0.01)
time.sleep(3600)
""")
    deployed(lab.baton("deploy", "shop", "--artifact", app, "--version", "talk"))
    slot, _ = live(lab)
    follower = lab.start_baton("logs", "-f", "shop", "--slot", slot, "--lines", "1")
    assert "starting talk" in follower.stdout.readline()
    (lab.dir / "go").write_text("")
    seen = []
    for text in follower.stdout:
        number = re.search(r"line (\d{6})$", text.rstrip())
        if number:
            seen.append(int(number[1]))
        if len(seen) == count:
            break
    assert seen == list(range(count)), f"{len(seen)} of {count} lines, the first wrong at " \
        f"{next((i for i, n in enumerate(seen) if i != n), None)}"
    rotated = [p for p in lab.dir.rglob(f"{slot}.log.*")]
    assert len(rotated) >= 3, rotated
    os.kill(follower.pid, signal.SIGKILL)


def test_a_dying_app_is_started_again_and_told(shop):
    lab = shop
    slot, pid = live(lab)
    os.kill(pid, signal.SIGKILL)

    def again():
        now = instances(lab).get(slot)
        return now and now["pid"] not in (0, pid) and now["restarts"] == 1
    poll("it is started again", again)
    poll("it serves again", lambda: answers(lab, slot) == "v0")
    assert "ended by signal 9" in lab.baton("logs", "shop", "--lines", "50").stdout


def answers(lab, slot):
    try:
        return page(lab, slot)
    except (OSError, Failed):
        return None


def test_nothing_of_an_app_is_left_behind(shop):
    """Not its children, and not what left its session and its group."""
    lab = shop
    app = lab.artifact("strays")
    lines = app.read_text().split("\n", 1)
    app.write_text(lines[0] + f"""
import os as _os, time as _time
for _session in (False, True):
    if _os.fork() == 0:
        if _session:
            _os.setsid()
            if _os.fork():
                _os._exit(0)
        open({str(lab.dir)!r} + "/stray-%d" % _session, "w").write(str(_os.getpid()))
        _time.sleep(3600)
""" + lines[1])
    deployed(lab.baton("deploy", "shop", "--artifact", app, "--version", "strays"))
    strays = [int(poll("strays", lambda p=p: p.exists() and p.read_text()))
              for p in (lab.dir / "stray-0", lab.dir / "stray-1")]
    for pid in strays:
        assert pathlib.Path(f"/proc/{pid}/stat").exists()
    deployed(lab.deploy("v2"))

    def gone(pid):
        try:
            return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
        except OSError:
            return True
    poll("strays are gone", lambda: all(map(gone, strays)))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_an_app_runs_as_another_user(lab):
    lab.config(nginx=False, host="was1", health={"passes": 1}, deploy={"bake": "0s"}, run={"user": "nobody"})
    lab.server()
    policy = lab.dir / "policy.yaml"
    policy.write_text("run_as: [nobody]\n")
    policy.chmod(0o644)
    assert lab.join("was1", lab.join_token("was1")).returncode == 0
    lab.start("agent-was1", "agent", "run", "--dir", lab.dir / "agent-was1", "--policy", policy)
    poll("the agent connects", lambda: lab.connected("was1"))
    lab.dir.chmod(0o700)
    done = lab.deploy("v0")
    assert done.returncode == 1 and f"cannot enter {lab.dir}" in done.stdout + done.stderr, done.stdout + done.stderr
    lab.dir.chmod(0o711)
    deployed(lab.deploy("v1"))
    _, pid = live(lab)
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    assert f"\nUid:\t{pwd.getpwnam('nobody').pw_uid}\t" in status
    assert f"\nGroups:\t{pwd.getpwnam('nobody').pw_gid} \n" in status
