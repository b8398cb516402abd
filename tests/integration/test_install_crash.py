"""kill -9 inside Install: before each call that changes the disk, in turn. Started again, the agent ends what it began;
or where it cannot, the revision before comes back. Either way what is there is exactly one revision's, and so is the list
of what the next Install removes."""
import json
import os
import pathlib
import re
import shutil
import stat
import subprocess

import pytest

from lab import poll
from steps import good
from test_codedeploy import START, Bundle, answers, service

pytestmark = pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")

# The system calls of each step (their names differ between machines), and what is to be hit by some kill.
FILE = r"/etc/(both|tool|current|odd/w|odd/deep/x|even/y|other/z)\b"
DIRECTORY = r"/etc/(odd|odd/deep|even|other)\b(?!/)"
ASIDE = r"/etc/(.*/)?\.baton-aside\b"
CALLS = {
    "state and list": {"rename|renameat|renameat2": (r"/state\.json\b", r"/cleanup\b", FILE, r"/site/app\.py\b")},
    "removing": {"unlink|unlinkat": (FILE, ASIDE), "rmdir|unlinkat": (DIRECTORY,)},
    "making": {"mkdir|mkdirat": (DIRECTORY,), "symlink|symlinkat": (ASIDE,)},
    "copying": {"ioctl": (ASIDE, r"/site/\.baton-aside\b")},
    "permitting": {"chmod|fchmodat": (ASIDE, FILE, DIRECTORY), "lchown|fchownat": (FILE,)},
    "syncing": {"fsync": (r"/state\.json\.tmp", r"/cleanup\.tmp", "/bundles/shop>"), "syncfs": ("/etc>", "/site>")},
}
# An app that runs on, so that all is about files.
KEEP = """#!/bin/sh
[ -f {site}/app.pid ] && kill -0 $(cat {site}/app.pid) 2> /dev/null && exit 0
"""


def revision(lab, number):
    """Odd and even ones have as much, share some names and not others; a file's text says whose it is."""
    b = Bundle(lab, f"v{number}")
    out, text = lab.dir / "etc", f"of v{number}\n"
    b.files = [{"source": "conf", "destination": str(out)}, {"source": "app", "destination": str(lab.dir / "site")}]
    b.put("app/app.py", (pathlib.Path(__file__).parent / "app.py").read_text())
    b.put("conf/both", text)
    for name in ("odd/deep/x", "odd/w") if number % 2 else ("even/y", "other/z"):
        b.put(f"conf/{name}", text)
    b.put("conf/tool", text, 0o755)
    (b.dir / "conf/current").symlink_to("both" if number % 2 else "even/y")
    b.more["permissions"] = [{"object": str(out), "mode": "0640", "type": ["file"], "owner": "root", "group": "root"},
                             {"object": str(out), "mode": "0750", "type": ["directory"]}]
    if os.geteuid() != 0:
        for p in b.more["permissions"]:
            p.pop("owner", None), p.pop("group", None)
    b.hooks.clear()
    b.script("BeforeInstall", "gate.sh", f"#!/bin/sh\ntouch {lab.dir}/at-{b.version}\n"
             f"while ! [ -e {lab.dir}/go ]; do sleep 0.02; done\n")
    b.script("ApplicationStart", "start.sh", KEEP.format(**b.words) + START.format(**b.words).split("\n", 1)[1])
    return b


def tree(place):
    """Everything below: name to kind, mode and content."""
    out = {}
    for path in sorted(place.rglob("*")):
        st = path.lstat()
        mode = None if stat.S_ISLNK(st.st_mode) else oct(stat.S_IMODE(st.st_mode))
        what = os.readlink(path) if stat.S_ISLNK(st.st_mode) else None if stat.S_ISDIR(st.st_mode) else path.read_text()
        out[str(path.relative_to(place))] = (mode, what)
    return out


def expected(number, whose="mine"):
    text = f"of v{number}\n"
    files = {"both": ("0o640", text), "tool": ("0o640", text), "mine": ("0o600", whose)}
    if number % 2:
        return {**files, "current": (None, "both"), "odd": ("0o750", None), "odd/deep": ("0o750", None),
                "odd/deep/x": ("0o640", text), "odd/w": ("0o640", text)}
    return {**files, "current": (None, "even/y"), "even": ("0o750", None), "even/y": ("0o640", text),
            "other": ("0o750", None), "other/z": ("0o640", text)}


def bundles(lab):
    return lab.dir / "agent-local/bundles/shop"


def listed(lab):
    """The clean-up list, as it lies there."""
    names = (bundles(lab) / "cleanup").read_bytes().decode().split("\0")
    assert names.pop() == ""
    return names


def whole(lab, number):
    """All that is there is that revision's."""
    out = lab.dir / "etc"
    assert tree(out) == expected(number)
    assert sorted(p.name for p in (lab.dir / "site").iterdir()) == ["app.out", "app.pid", "app.py"]
    want = [f"{'d' if what is None else 'f'}{out}/{name}" for name, (_, what) in expected(number).items() if name != "mine"]
    assert listed(lab) == sorted(want + [f"f{lab.dir}/site/app.py"], key=lambda name: name[1:])
    state = json.loads((bundles(lab) / "state.json").read_text())
    assert state["installing"] == 0 and state["slots"]["main"]["version"] == f"v{number}", state
    assert sorted(p.name for p in bundles(lab).iterdir()) == ["cleanup", "lock", "state.json"]


def begin(lab, number):
    """A host with the revision installed, a directory and a file of the user's, and its client."""
    (lab.dir / "etc").mkdir()
    (lab.dir / "site").mkdir()
    (lab.dir / "etc/mine").write_text("mine")
    (lab.dir / "etc/mine").chmod(0o600)
    (lab.dir / "go").touch()
    lab.server()
    lab.agent("local")
    service(lab)
    good(lab.baton("deploy", "shop", "--bundle", revision(lab, number).write(), "-v", f"v{number}"))
    whole(lab, number)


def touched(lab, pid):
    """Every path that Install changes, here and in the revisions of this file. What is written whole has a name aside
    with the agent's pid and a number, of which there are few since its start."""
    out, site = lab.dir / "etc", lab.dir / "site"
    names = {name for number in (1, 2) for name in expected(number)} - {"mine"}
    places = [out, site, site / "app.py", *(out / name for name in names)]
    aside = (f"{name}.tmp.{pid}.{n}" for name in ("state.json", "cleanup") for n in range(200))
    return [*places, *{p.parent / ".baton-aside" for p in places[2:]}, bundles(lab), *(bundles(lab) / n for n in aside)]


def attach_killer(lab, calls, k):
    """kill -9 as a thread of the agent enters its k-th such call about one of these places from now on."""
    pid = lab.children["agent-local"].pid
    threads = os.listdir(f"/proc/{pid}/task")
    calls = ",".join(f"?{name}" for name in calls.split("|"))
    tracer = subprocess.Popen(["strace", "-y", *(w for t in threads for w in ("-p", t)),
                               *(w for path in touched(lab, pid) for w in ("-P", path)), "-e", f"trace={calls}", "-e",
                               f"inject={calls}:signal=KILL:when={k}", "-o", lab.dir / "strace"],
                              stderr=subprocess.PIPE, text=True)
    attached = 0
    while attached < len(threads):
        line = tracer.stderr.readline()
        assert line, "strace ended"
        attached += "attached" in line
    return tracer


def deploy_and_kill(lab, number, calls, k):
    """Until the agent is dead, or the client has ended: the client, and the call that was not made, None without one."""
    (lab.dir / "go").unlink(missing_ok=True)
    client = lab.start_baton("deploy", "shop", "--bundle", revision(lab, number).write(), "-v", f"v{number}")
    poll("Install is next", lambda: client.poll() is not None or (lab.dir / f"at-v{number}").exists())
    tracer = attach_killer(lab, calls, k)
    agent = lab.children["agent-local"]
    (lab.dir / "go").touch()
    poll("died or done", lambda: agent.poll() is not None or client.poll() is not None)
    dead = agent.poll() is not None
    if not dead:
        tracer.terminate()
    tracer.wait(20)
    tracer.stderr.close()
    if not dead:
        return client, None
    lines = (lab.dir / "strace").read_text().splitlines()
    return client, [line for line in lines if line.endswith(("= ?", "<unfinished ...>"))][-1]


@pytest.mark.parametrize("step", CALLS)
def test_killed_before_each_call(lab, step):
    begin(lab, 1)
    number = 1
    for calls, places in CALLS[step].items():
        hit = []
        while len(hit) < 40:
            number += 1
            client, call = deploy_and_kill(lab, number, calls, len(hit) + 1)
            if call:
                hit.append(call)
                lab.agent("local")
            said = client.communicate(timeout=120)[0]
            assert client.returncode == 0, f"killed before {call}: {said}"
            whole(lab, number)
            if not call:  # it has fewer
                break
        missed = [place for place in places if not any(re.search(place, call) for call in hit)]
        assert not missed, f"{calls}: no kill at {missed}, only at {hit}"
        print(f"{calls}: {len(hit)} kills")
    assert answers(lab)


def test_killed_and_then_it_cannot_go_on(lab):
    """While the agent is away somebody puts a file where a directory is to be: the revision before comes back whole."""
    begin(lab, 1)
    other, left = lab.dir / "etc/other", []
    for k in range(1, 10):
        client, _ = deploy_and_kill(lab, 2 * k, "chmod|fchmodat", k)
        left += [str(p.relative_to(lab.dir)) for p in lab.dir.rglob(".baton-aside")]
        shutil.rmtree(other, ignore_errors=True)
        other.write_text("somebody's")
        lab.agent("local")
        said = client.communicate(timeout=120)[0]
        assert client.returncode == 1 and f"{other} is there already, and is no directory" in said, said
        assert lab.deployments()[0]["end"] == "rolled_back"
        assert other.read_text() == "somebody's"
        other.unlink()
        whole(lab, 1)
        if "etc/even/.baton-aside" in left:  # where nothing else of the revision before is made
            break
    assert "etc/even/.baton-aside" in left, left
    good(lab.baton("deploy", "shop", "--bundle", revision(lab, 20).write(), "-v", "v20"))
    whole(lab, 20)
