"""CodeDeploy bundles: appspec.yml and its scripts as they are, on one host and on two behind nginx."""
import json
import os
import pathlib
import re
import shutil
import signal
import stat
import subprocess

import pytest

from farhost import FarHost
from lab import BATON, BUILD, PYTHON, poll
from test_artifacts import small_disk
from test_hooks import supervisors
from test_strategies import good

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]

START = """#!/bin/sh
cd {site} || exit 1
nohup {python} app.py --port $BATON_PORT --slot $BATON_SLOT > app.out 2>&1 &
echo $! > app.pid
"""
STOP = """#!/bin/sh
# this revision's own: {version}
echo {version} >> {site}/stopped
[ -f {site}/app.pid ] || exit 0
pid=$(cat {site}/app.pid)
kill $pid 2> /dev/null
for i in $(seq 1 100); do kill -0 $pid 2> /dev/null || break; sleep 0.1; done
rm {site}/app.pid
"""
VALIDATE = """#!/bin/sh
for i in $(seq 1 150); do
  [ "$(curl -s http://127.0.0.1:$BATON_PORT/version)" = {version} ] && exit 0
  sleep 0.1
done
echo "it does not answer as {version}"
exit 1
"""


class Bundle:
    """A revision's directory: an app of tests/integration/app.py with stop, start and validate scripts."""

    def __init__(self, lab, version, where="site", **settings):
        self.lab, self.version, self.site = lab, version, lab.dir / where
        self.dir = lab.dir / f"revision-{version}"
        self.words = {"site": self.site, "version": version, "python": PYTHON}
        self.files = [{"source": "app", "destination": str(self.site)}]
        self.hooks, self.more = {}, {}
        self.put("app/app.py", f"SETTINGS = {dict(settings, version=version)!r}\n" + (HERE / "app.py").read_text())
        self.script("ApplicationStop", "stop.sh", STOP.format(**self.words))
        self.script("ApplicationStart", "start.sh", START.format(**self.words))
        self.script("ValidateService", "validate.sh", VALIDATE.format(**self.words))

    def put(self, name, text, mode=0o644):
        path = self.dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    def script(self, event, name, text, **options):
        """Adds a script; one of that name takes its place."""
        known = name in {s["location"].split("/")[-1] for s in self.hooks.get(event, [])}
        self.put(f"scripts/{name}", text)  # CodeDeploy makes it executable, and so does baton
        if not known:
            self.hooks.setdefault(event, []).append({"location": f"scripts/{name}", **options})
        return self

    def write(self, name="appspec.yml", **more):
        spec = {"version": 0.0, "os": "linux", "files": self.files, "hooks": self.hooks, **self.more, **more}
        self.put(name, json.dumps(spec, indent=1))
        return self.dir


def service(lab, hosts=("local",), slots=("main",), **groups):
    config = {"service": "shop", "hosts": list(hosts),
              "run": {"as": "bundle", "slots": {s: lab.port(f"shop-{s}") for s in slots}},
              "health": {"http": "/actuator/health", "every": "100ms", "within": "20s"},
              "deploy": {"bake": "0s", "drain": "5s"}}
    for key, value in groups.items():
        if isinstance(value, dict) and isinstance(config.get(key), dict):
            config[key].update(value)
        else:
            config[key] = value
    lab.services["shop"] = config
    lab.write()
    return config


def deploy(lab, bundle, *args, name="appspec.yml", **env):
    path = bundle.write(name) if isinstance(bundle, Bundle) else bundle
    version = bundle.version if isinstance(bundle, Bundle) else args[0]
    more = args if isinstance(bundle, Bundle) else args[1:]
    return lab.baton("deploy", "shop", "--bundle", path, "--version", version, "--json", *more, **env)


def events(done):
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def results(done, kind=None):
    """What tasks answered, in order: (kind, host, outcome, detail)."""
    return [(e["task"]["kind"], e["task"].get("host"), e.get("outcome"), e.get("detail", "")) for e in events(done)
            if e.get("kind") == "result" and kind in (None, e["task"]["kind"])]


def failed(done, code=1):
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def answers(lab, slot="main"):
    return lab.ask(url=f"http://127.0.0.1:{lab.port(f'shop-{slot}')}")


# ---- one host --------------------------------------------------------------------------------


def test_the_scripts_of_the_document_run_unchanged(lab):
    """examples/codedeploy: find the idle of two apps, renew it, switch nginx, renew the other one."""
    place, home = lab.dir / "example", lab.dir / "guestbook"
    shutil.copytree(ROOT / "examples/codedeploy", place)
    ports = {str(p): str(lab.port(f"example-{p}")) for p in (8080, 8081, 8082)}
    for path in place.rglob("*"):
        if path.is_file():
            text = re.sub(r"\b808[0-2]\b", lambda m: ports[m.group()], path.read_text())
            path.write_text(text.replace("/srv/guestbook", str(home)).replace("bake: 5s", "bake: 200ms"))
    home.mkdir()
    for name in ("nginx.conf", "service-url.inc"):
        shutil.copy(place / name, home)
    subprocess.run(["nginx", "-p", home, "-c", "nginx.conf"], check=True, stdin=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)
    lab.page = f"http://127.0.0.1:{ports['8080']}"
    lab.up()

    def run(*args):
        return good(subprocess.run([BATON, *args], cwd=place, env=lab.env(PWD=str(place)), text=True, timeout=180,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
    served = {}
    for version in ("v1", "v2"):
        (place / "revision/app/VERSION").write_text(version + "\n")
        run("deploy", "--bundle", "revision", "-v", version)
        served[version] = lab.ask("/profile")
        assert lab.ask() == version
        both = {lab.ask(url=f"http://127.0.0.1:{ports[p]}") for p in ("8081", "8082")}
        assert both == {version}, "the second app was renewed, too"
    assert served["v1"] != served["v2"], "they take turns"
    seen = set()
    poll("/api reaches both", lambda: seen.add(lab.ask("/api")) or seen >= {"real1 v2", "real2 v2"})
    run("rollback", "guestbook")
    assert lab.ask() == "v1" and lab.service("guestbook")["release"]["version"] == "v1"


def test_archives_and_the_names_of_the_appspec(lab):
    lab.up()
    service(lab)
    one = Bundle(lab, "v1")
    tree = one.write()
    for kind, name in (("zip", "revision.zip"), ("gztar", "revision.tar.gz"), ("tar", "revision.tar")):
        shutil.make_archive(str(lab.dir / "revision"), kind, tree)
        version = kind
        good(deploy(lab, lab.dir / name, version))
        assert lab.service()["release"]["version"] == version and answers(lab) == "v1"
    # the asked name first, then .yaml, then .yml
    two = Bundle(lab, "v2")
    two.put("appspec.yaml", "version: 0.0\nos: windows\n")
    said = failed(deploy(lab, two), 2)
    assert "appspec.yaml:2:5: os: expected linux, found 'windows'" in said, said
    good(deploy(lab, two, "--appspec", "other.yml", name="other.yml"))
    assert answers(lab) == "v2"
    # the same directory has the same digest: nothing is sent again
    def digest(version):
        return {r["version"]: r["digest"] for r in lab.api("GET", "/v1/services/shop/releases")[1]["releases"]}[version]
    os.utime(two.dir / "app/app.py", (1, 1))
    good(lab.baton("deploy", "shop", "--bundle", two.dir, "--version", "again", "--appspec", "other.yml"))
    assert digest("v2") == digest("again")


def test_environment_users_and_results(lab):
    policy = lab.dir / "policy.yaml"
    policy.write_text("run_as: [nobody]\n")
    lab.server()
    lab.agent("local", args=["--policy", policy])
    service(lab, run={"env": {"OWN": "of the service"}})
    one = Bundle(lab, "v1")
    one.script("AfterInstall", "look.sh", f"""#!/bin/sh
env > {lab.dir}/env
pwd > {lab.dir}/pwd
id -un > {lab.dir}/who
readlink /proc/self/fd/0 > {lab.dir}/stdin
echo said
""", runas="nobody" if os.geteuid() == 0 else None)
    if os.geteuid() == 0:
        lab.dir.chmod(0o777)
    else:
        one.hooks["AfterInstall"][0].pop("runas")
    done = good(deploy(lab, one, "--commit", "abc123"))
    env = dict(line.split("=", 1) for line in (lab.dir / "env").read_text().splitlines() if "=" in line)
    number = str(lab.deployments()[0]["id"])
    want = {"APPLICATION_NAME": "shop", "DEPLOYMENT_ID": number, "DEPLOYMENT_GROUP_NAME": "shop",
            "DEPLOYMENT_GROUP_ID": "shop", "LIFECYCLE_EVENT": "AfterInstall", "BUNDLE_COMMIT": "abc123",
            "OWN": "of the service", "BATON_SLOT": "main", "BATON_PORT": str(lab.port("shop-main"))}
    assert {k: env.get(k) for k in want} == want
    assert pathlib.Path((lab.dir / "pwd").read_text().strip(), "appspec.yml").exists(), "it is the revision"
    assert (lab.dir / "stdin").read_text().strip() == "/dev/null"
    if os.geteuid() == 0:
        assert (lab.dir / "who").read_text().strip() == "nobody"
    order = [d.split(":")[0] for k, _, _, d in results(done) if k == "Lifecycle"]
    assert order == ["ApplicationStop", "BeforeInstall", "AfterInstall", "ApplicationStart", "ValidateService"]
    said = lab.api("GET", f"/v1/deployments/{number}/log")[1]
    assert "| said" in said and "no script" in said


def test_scripts_that_fail(lab):
    """Result codes, the log's end, what is left running, and that the app of before serves in the end."""
    lab.up()
    service(lab)
    good(deploy(lab, Bundle(lab, "v1")))

    bad = Bundle(lab, "bad").script("BeforeInstall", "bad.sh", "#!/bin/sh\nfor i in $(seq 1 2000); do echo line $i; "
                                    "done\nexit 7\n")
    said = failed(deploy(lab, bad))
    assert "BeforeInstall: scripts/bad.sh: result code 4, exit code 7: line 2000" in said
    detail = next(d for _, _, o, d in results(deploy(lab, bad)) if o == "failed")
    tail = detail.split("its log ends: ", 1)[1]
    assert len(tail) == 2048 and tail.endswith("line 1999 | line 2000")
    poll("v1 serves again", lambda: answers(lab) == "v1")

    late = Bundle(lab, "late").script("AfterInstall", "late.sh", f"#!/bin/sh\necho $$ > {lab.dir}/late.pid\n"
                                      "trap '' TERM\nwhile :; do sleep 0.2; done\n", timeout=1)
    said = failed(deploy(lab, late))
    assert "AfterInstall: scripts/late.sh: result code 3, not done within 1s" in said
    pid = int((lab.dir / "late.pid").read_text())
    poll("it was killed", lambda: not pathlib.Path(f"/proc/{pid}").exists())

    open_ = Bundle(lab, "open").script("ApplicationStart", "open.sh", f"#!/bin/sh\nsleep 60 &\necho $! > {lab.dir}/child\n",
                                       timeout=1)
    said = failed(deploy(lab, open_))
    child = int((lab.dir / "child").read_text())
    assert f"ApplicationStart: scripts/open.sh: result code 6, it ended, but sleep (pid {child}) still held its output" \
        in said, said
    assert pathlib.Path(f"/proc/{child}").exists(), "CodeDeploy leaves it, too"
    os.kill(child, 9)

    good(deploy(lab, Bundle(lab, "fine").script("ApplicationStart", "quiet.sh", "#!/bin/sh\nsleep 60 > /dev/null 2>&1 &\n"
                                                f"echo $! > {lab.dir}/child\n", timeout=5)))
    child = int((lab.dir / "child").read_text())
    assert pathlib.Path(f"/proc/{child}").exists(), "what let go of the output lives on"
    os.kill(child, 9)
    assert answers(lab) == "fine"


def test_scripts_that_do_not_start(lab):
    """Without an interpreter, and removed by the script before: each has its result code."""
    lab.up()
    service(lab)
    good(deploy(lab, Bundle(lab, "v1")))
    none = Bundle(lab, "none").script("BeforeInstall", "none.sh", "#!/no/such/interpreter\n")
    said = failed(deploy(lab, none))
    assert "BeforeInstall: scripts/none.sh: result code 5, " in said, said
    gone = Bundle(lab, "gone").script("BeforeInstall", "rm.sh", '#!/bin/sh\nrm "$(dirname "$0")/gone.sh"\n')
    gone.script("AfterInstall", "gone.sh", "#!/bin/sh\n")
    said = failed(deploy(lab, gone))
    assert "AfterInstall: scripts/gone.sh: result code 1, it is not in the bundle" in said, said
    poll("v1 serves again", lambda: answers(lab) == "v1")


def test_scripts_as_people_write_them(lab):
    """Without a first line that names an interpreter, as CodeDeploy runs them by sh; and with Windows' line ends, where
    that line names none, which is said."""
    lab.up()
    service(lab)
    plain = Bundle(lab, "v1").script("BeforeInstall", "plain.sh", f'echo "$0" > {lab.dir}/ran\n')
    plain.script("BeforeInstall", "bom.sh", f"\ufeff# a byte order mark\necho bom >> {lab.dir}/ran\n")
    good(deploy(lab, plain))
    ran = (lab.dir / "ran").read_text().splitlines()
    assert ran[0].endswith("/scripts/plain.sh") and ran[1] == "bom"
    said = failed(deploy(lab, Bundle(lab, "v2").script("BeforeInstall", "crlf.sh", "#!/bin/sh\r\nexit 0\r\n")))
    line = next(line for line in said.splitlines() if "result code 5" in line)
    assert "scripts/crlf.sh" in line and "carriage return" in line, said
    poll("v1 serves again", lambda: answers(lab) == "v1")


def test_a_script_that_cannot_be_made_executable(lab):
    """The kernel refuses the chmod: the file lies on a mount that is read-only, which goes with the agent."""
    lab.up(wrap=small_disk(lab.dir / "mounts", "1m"))
    service(lab)
    good(deploy(lab, Bundle(lab, "v1")))
    fixed = Bundle(lab, "v2").script("BeforeInstall", "fix.sh", """#!/bin/sh
cd "$(dirname "$0")" && mount --bind fixed.sh fixed.sh && mount -o remount,bind,ro fixed.sh
""")
    fixed.script("AfterInstall", "fixed.sh", f"#!/bin/sh\ntouch {lab.dir}/ran\n")
    said = failed(deploy(lab, fixed))
    assert ("AfterInstall: scripts/fixed.sh: result code 2, it cannot be made executable: Read-only file system"
            in said), said
    assert not (lab.dir / "ran").exists() and lab.deployments()[0]["end"] == "rolled_back"
    poll("v1 serves again", lambda: answers(lab) == "v1")
    fixed.hooks.pop("BeforeInstall")
    fixed.version = "v3"
    good(deploy(lab, fixed))
    assert (lab.dir / "ran").exists()


def test_a_bundle_that_is_not_valid(lab):
    """Wrong in the appspec: said by the client with its place, and nothing is sent. Missing in the bundle: said by
    the agent, before anything is touched."""
    lab.up()
    service(lab)
    good(deploy(lab, Bundle(lab, "v1")))
    bad = Bundle(lab, "bad")
    bad.put("appspec.yml", """version: 0.0
os: linux
files:
  - source: ../../etc
    destination: /srv/x
  - source: app
    destination: srv
permissions:
  - object: /srv/x
    mode: 9
    acls:
      entries: [u:bob:rwx]
hooks:
  AfterInstal:
    - location: scripts/start.sh
  AllowTraffic:
    - location: scripts/start.sh
""")
    n = len(lab.deployments())
    done = lab.baton("deploy", "shop", "--bundle", bad.dir, "--version", "bad")
    assert done.returncode == 2, done.stdout + done.stderr
    for line in ("appspec.yml:4:13: files: source: '../../etc' leaves the bundle",
                 "appspec.yml:7:18: files: destination: expected an absolute path",
                 "appspec.yml:10:11: permissions: mode: expected 1 to 4 octal digits",
                 "appspec.yml:12:7: permissions: acls: baton sets no access control lists",
                 "appspec.yml:14:3: hooks: unknown event 'AfterInstal' (did you mean 'AfterInstall'?)",
                 "appspec.yml:16:3: hooks: AllowTraffic cannot have scripts"):
        assert line in done.stderr, done.stderr
    assert len(lab.deployments()) == n
    stopped = (lab.dir / "site/stopped").read_text() if (lab.dir / "site/stopped").exists() else ""
    missing = Bundle(lab, "missing")
    missing.hooks["ValidateService"][0]["location"] = "scripts/none.sh"
    said = failed(deploy(lab, missing))
    assert "hooks: ValidateService: scripts/none.sh is not in the bundle" in said
    after = (lab.dir / "site/stopped").read_text() if (lab.dir / "site/stopped").exists() else ""
    assert after == stopped and answers(lab) == "v1", "nothing was stopped"
    said = failed(lab.baton("deploy", "shop", "--bundle", lab.dir / "none", "--version", "x"), 2)
    assert "none: No such file" in said
    said = failed(lab.baton("deploy", "shop", "--bundle", HERE, "--version", "x"), 2)
    assert "has no appspec: expected one of appspec.yaml, appspec.yml" in said


def test_stop_scripts_are_the_last_revisions(lab):
    lab.up()
    service(lab)
    good(deploy(lab, Bundle(lab, "v1")))
    assert not (lab.dir / "site/stopped").exists(), "there was no revision before"
    broken = Bundle(lab, "v2")
    broken.script("ApplicationStop", "stop.sh", "#!/bin/sh\necho broken\nexit 1\n")
    good(deploy(lab, broken))
    assert (lab.dir / "site/stopped").read_text() == "v1\n", "v1's script stopped v1"
    three = Bundle(lab, "v3")
    said = failed(deploy(lab, three))
    assert "ApplicationStop: scripts/stop.sh: result code 4, exit code 1: broken" in said
    assert answers(lab) == "v2", "it still runs, so there is nothing to go back to"
    service(lab, deploy={"codedeploy": {"ignore_application_stop_failures": True}})
    three = Bundle(lab, "v4")
    three.script("BeforeInstall", "really.sh", f"#!/bin/sh\nkill $(cat {lab.dir}/site/app.pid)\n"
                 f"while curl -s http://127.0.0.1:{lab.port('shop-main')}/; do sleep 0.1; done\n")
    done = good(deploy(lab, three))
    assert any(o == "failed" and "ApplicationStop" in d for _, _, o, d in results(done)), "it is said"
    assert answers(lab) == "v4"


# ---- files -----------------------------------------------------------------------------------


def test_files_permissions_and_cleaning_up(lab):
    lab.up()
    service(lab)
    out = lab.dir / "etc"
    one = Bundle(lab, "v1")
    one.put("conf/a.conf", "one")
    one.put("conf/sub/b.conf", "one")
    one.put("conf/sub/keep.tmp", "one")
    one.put("single.sh", "#!/bin/sh\n", 0o755)
    one.files += [{"source": "conf", "destination": str(out)}, {"source": "single.sh", "destination": str(out / "bin")}]
    one.more["permissions"] = [
        {"object": str(out), "pattern": "**", "mode": 640, "type": ["file"]},
        {"object": str(out / "sub"), "pattern": "*.conf", "except": ["x*"], "mode": "0600",
         **({"owner": "nobody", "group": "nogroup"} if os.geteuid() == 0 else {})},
        {"object": str(out), "pattern": "sub", "mode": "0750", "type": ["directory"]}]
    good(deploy(lab, one))

    def mode(name):
        return oct(stat.S_IMODE((out / name).stat().st_mode))
    assert (mode("a.conf"), mode("sub/b.conf"), mode("sub/keep.tmp"), mode("bin/single.sh"), mode("sub")) == \
        ("0o640", "0o600", "0o640", "0o640", "0o750")
    if os.geteuid() == 0:
        assert (out / "sub/b.conf").owner() == "nobody" and (out / "a.conf").owner() == "root"
    (out / "mine").write_text("the user's")
    two = Bundle(lab, "v2")
    two.put("conf/a.conf", "two")
    two.files += [{"source": "conf", "destination": str(out)}]
    good(deploy(lab, two))
    assert (out / "a.conf").read_text() == "two" and (out / "mine").read_text() == "the user's"
    assert not (out / "sub").exists() and not (out / "bin").exists(), "what the last one put there is gone"
    good(lab.baton("rollback", "shop"))
    assert (out / "sub/b.conf").read_text() == "one" and (out / "mine").exists()


def test_files_of_others_in_the_way(lab):
    lab.up()
    service(lab)
    good(deploy(lab, Bundle(lab, "v1")))
    out = lab.dir / "etc"
    out.mkdir()
    (out / "a.conf").write_text("the user's")

    def revision(version, behavior):
        b = Bundle(lab, version)
        b.put("conf/a.conf", version)
        b.put("conf/new.conf", version)
        b.files += [{"source": "conf", "destination": str(out)}]
        if behavior:
            b.more["file_exists_behavior"] = behavior
        return b
    said = failed(deploy(lab, revision("v2", None)))
    assert f"{out}/a.conf is there already, and no earlier revision put it there" in said
    assert (out / "a.conf").read_text() == "the user's" and not (out / "new.conf").exists()
    poll("v1 serves again", lambda: answers(lab) == "v1")
    good(deploy(lab, revision("v3", "RETAIN")))
    assert (out / "a.conf").read_text() == "the user's" and (out / "new.conf").read_text() == "v3"
    good(deploy(lab, revision("v4", "OVERWRITE")))
    assert (out / "a.conf").read_text() == "v4"
    good(deploy(lab, Bundle(lab, "v5")))
    assert not list(out.iterdir()), "all of it was a revision's by then"
    assert out.exists(), "the directory was the user's"


def test_files_on_another_file_system(lab):
    """/srv is seldom where the agent's state is; a name may be as long as a file system takes it."""
    out = lab.dir / "srv"
    lab.up(wrap=small_disk(out, "8m"))
    service(lab)
    one, long = Bundle(lab, "v1"), "n" * 255
    one.put("conf/empty", "")
    one.put(f"conf/{long}", "x" * 300000)
    one.files += [{"source": "conf", "destination": str(out)}]
    good(deploy(lab, one))
    there = pathlib.Path(f"/proc/{lab.children['up'].pid}/root{out}")
    assert sorted((p.name, p.stat().st_size) for p in there.iterdir()) == [("empty", 0), (long, 300000)]
    good(deploy(lab, Bundle(lab, "v2")))
    assert not list(there.iterdir())


def test_links_in_a_bundle_and_times_of_its_files(lab):
    """A link to a directory becomes what it leads to, as with CodeDeploy, unless that would never end; a link to a
    file stays a link. A file keeps the time that the archive has, which caches go by."""
    lab.up()
    service(lab)
    out, one = lab.dir / "etc", Bundle(lab, "v1")
    one.put("shared/deep/a", "shared")
    one.put("conf/b", "b")
    for name, target in (("conf/to-dir", "../shared"), ("conf/to-file", "b"), ("conf/self", "."), ("top", "shared/deep"),
                         ("shared/deep/up", "../../conf"), ("conf/nowhere", "missing")):
        (one.dir / name).symlink_to(target)
    one.files += [{"source": "conf", "destination": str(out)}, {"source": "top", "destination": str(out / "top")}]
    os.utime(one.dir / "conf/b", (1234567890, 1234567890))
    one.write()
    subprocess.run(["tar", "-C", one.dir, "-cf", lab.dir / "revision.tar", "."], check=True)
    good(deploy(lab, lab.dir / "revision.tar", "v1"))
    for name, target in (("to-file", "b"), ("self", "."), ("nowhere", "missing")):
        assert os.readlink(out / name) == target
    for directory in ("to-dir", "to-dir/deep", "top"):
        assert (out / directory).is_dir() and not (out / directory).is_symlink(), directory
    assert (out / "to-dir/deep/a").read_text() == (out / "top/a").read_text() == "shared"
    assert os.readlink(out / "to-dir/deep/up") == "../../conf", "it is within itself"
    assert (out / "b").stat().st_mtime == 1234567890
    good(deploy(lab, Bundle(lab, "v2")))
    assert not out.exists(), "what came through links is cleaned up, too"


def test_a_link_makes_way_for_a_directory(lab):
    """What the last revision put there does not count as being in the way, wherever it leads."""
    lab.up()
    service(lab)
    out, one, two = lab.dir / "etc", Bundle(lab, "v1"), Bundle(lab, "v2")
    (lab.dir / "users").mkdir()
    (lab.dir / "users/x").write_text("the user's")
    one.script("AfterInstall", "link.sh", f"#!/bin/sh\nrm {out}/current && ln -s ../users {out}/current\n")
    one.put("conf/current", "to be a link")
    two.put("conf/current/x", "two")
    for b in (one, two):
        b.files += [{"source": "conf", "destination": str(out)}]
    good(deploy(lab, one))
    assert (out / "current/x").read_text() == "the user's"
    good(deploy(lab, two))
    assert not (out / "current").is_symlink() and (out / "current/x").read_text() == "two"
    assert (lab.dir / "users/x").read_text() == "the user's"


def test_a_host_decides_where_files_go(lab):
    """The host's policy holds for destinations, before anything is changed."""
    if os.geteuid() != 0:
        return
    policy = lab.dir / "policy.yaml"
    (lab.dir / "site").mkdir()
    policy.write_text(f"root: true\nexec: true\nports: 1-65535\npaths: [{lab.dir}/site]\n")
    lab.server()
    lab.agent("local", args=["--policy", policy])
    service(lab)
    good(deploy(lab, Bundle(lab, "v1")))
    two = Bundle(lab, "v2")
    two.put("conf/x", "x")
    two.files += [{"source": "conf", "destination": str(lab.dir / "elsewhere")}]
    said = failed(deploy(lab, two))
    assert "rule 'paths'" in said and not (lab.dir / "elsewhere").exists(), said
    poll("v1 serves again", lambda: answers(lab) == "v1")


# ---- two hosts behind nginx ------------------------------------------------------------------


def two_hosts(lab, **groups):
    """was1 and web1 are this machine, was2 is another one, with a site of its own."""
    (lab.dir / "site").mkdir()
    was2 = FarHost(lab)
    was2.own(lab.dir / "site")
    lab.page = f"http://127.0.0.1:{lab.port('page')}"
    service(lab, hosts=("was1", "was2"),
            traffic={"nginx": {"on": "web1", "listen": f"127.0.0.1:{lab.port('page')}"}}, **groups)
    lab.server()
    lab.agent("web1")
    lab.agent("was1", address=was2.gateway)
    lab.agent("was2", machine=was2)
    return was2


ANY = {"listen": "0.0.0.0"}


def versions(lab):
    return {(s["host"], s["slot"]): (s.get("version"), s.get("in", False)) for s in lab.service()["slots"]}


TRAFFIC = ("BeforeBlockTraffic", "AfterBlockTraffic", "BeforeAllowTraffic", "AfterAllowTraffic")


def with_traffic(bundle, log):
    for event in TRAFFIC + ("BeforeInstall", "AfterInstall"):
        bundle.script(event, f"{event}.sh", f"#!/bin/sh\necho {bundle.version} $LIFECYCLE_EVENT >> {log}\n")
    return bundle


def test_one_at_a_time_under_load(lab):
    two_hosts(lab)
    log = lab.dir / "site/events"
    done = good(deploy(lab, with_traffic(Bundle(lab, "v1", **ANY), log)))
    with lab.load() as load:
        done = good(deploy(lab, with_traffic(Bundle(lab, "v2", **ANY), log)))
        good(lab.baton("rollback", "shop"))
        good(deploy(lab, with_traffic(Bundle(lab, "v3", **ANY), log)))
    assert load.failed == 0, load.summary()
    assert lab.ask() == "v3" and versions(lab) == {("was1", "main"): ("v3", True), ("was2", "main"): ("v3", True)}
    # each host whole before the next one begins
    hosts = [h for k, h, _, _ in results(done) if k == "Lifecycle"]
    assert hosts == sorted(hosts, key=hosts.index) and set(hosts) == {"was1", "was2"}
    lines = log.read_text().split("\n")
    at = lines.index("v1 BeforeBlockTraffic")
    assert lines[at:at + 6] == ["v1 BeforeBlockTraffic", "v1 AfterBlockTraffic", "v2 BeforeInstall", "v2 AfterInstall",
                                "v2 BeforeAllowTraffic", "v2 AfterAllowTraffic"], "whose scripts, in which order"


def test_a_failed_validation_goes_back(lab):
    two_hosts(lab)
    good(deploy(lab, Bundle(lab, "v1", **ANY)))
    bad = Bundle(lab, "v2", **ANY)
    bad.script("ValidateService", "validate.sh", "#!/bin/sh\necho not good enough\nexit 1\n")
    with lab.load() as load:
        said = failed(deploy(lab, bad))
    assert load.failed == 0, load.summary()
    assert "ValidateService: scripts/validate.sh: result code 4, exit code 1: not good enough" in said
    assert lab.deployments()[0]["end"] == "rolled_back"
    assert {body for *_, body in load.seen} == {"v1"}, "nobody was sent to what failed"
    assert versions(lab) == {("was1", "main"): ("v1", True), ("was2", "main"): ("v1", True)}


def test_the_last_one_of_one_at_a_time_may_fail(lab):
    """As CodeDeploy says: all but the last must have succeeded. The last stays out of rotation."""
    was2 = two_hosts(lab, deploy={"on_failure": "halt"})
    good(deploy(lab, Bundle(lab, "v1", **ANY)))
    half = Bundle(lab, "v2", **ANY)
    half.script("BeforeInstall", "only.sh", f"#!/bin/sh\nip -o addr show | grep -q '{was2.address}/' || exit 0\nexit 1\n")
    with lab.load() as load:
        good(deploy(lab, half))
    assert load.failed == 0, load.summary()
    seen = versions(lab)
    assert seen[("was1", "main")] == ("v2", True) and not seen[("was2", "main")][1], seen
    assert lab.ask() == "v2"
    # the next one begins with who does not serve
    done = good(deploy(lab, Bundle(lab, "v3", **ANY)))
    first = next(h for k, h, _, d in results(done) if k == "Lifecycle")
    assert first == "was2"
    assert versions(lab) == {("was1", "main"): ("v3", True), ("was2", "main"): ("v3", True)}


def test_all_at_once(lab):
    two_hosts(lab, deploy={"codedeploy": {"config": "CodeDeployDefault.AllAtOnce"}})
    good(deploy(lab, Bundle(lab, "v1", **ANY)))
    good(deploy(lab, Bundle(lab, "v2", **ANY)))
    assert versions(lab) == {("was1", "main"): ("v2", True), ("was2", "main"): ("v2", True)}


def test_blue_green(lab):
    """In the idle slot of each host; the originals pass the events that block traffic, and run on."""
    (lab.dir / "site").mkdir()
    lab.page = f"http://127.0.0.1:{lab.port('page')}"
    service(lab, slots=("blue", "green"), deploy={"codedeploy": {"style": "blue-green"}},
            traffic={"nginx": {"listen": f"127.0.0.1:{lab.port('page')}"}})
    lab.up()
    log = lab.dir / "events"

    def revision(version):
        b = Bundle(lab, version)
        for event, name, text in (("ApplicationStop", "stop.sh", STOP), ("ApplicationStart", "start.sh", START)):
            b.script(event, name, text.format(**b.words).replace("app.pid", "$BATON_SLOT.pid"))
        return with_traffic(b, log)
    good(deploy(lab, revision("v1")))
    with lab.load() as load:
        good(deploy(lab, revision("v2")))
        assert lab.ask() == "v2" and answers(lab, "blue") == "v1", "the original runs on"
        bad = revision("v3")
        bad.script("AfterAllowTraffic", "AfterAllowTraffic.sh", "#!/bin/sh\nexit 1\n")
        failed(deploy(lab, bad))
        poll("v2 serves again, and alone", lambda: versions(lab)[("local", "green")] == ("v2", True) and
             not versions(lab)[("local", "blue")][1])
        assert lab.ask() == "v2"
    assert load.failed == 0, load.summary()
    order = [line for line in log.read_text().splitlines() if line.startswith(("v1 ", "v2 "))]
    at = order.index("v2 BeforeInstall")
    assert order[at:at + 6] == ["v2 BeforeInstall", "v2 AfterInstall", "v2 BeforeAllowTraffic", "v2 AfterAllowTraffic",
                                "v1 BeforeBlockTraffic", "v1 AfterBlockTraffic"]


# ---- crashes ---------------------------------------------------------------------------------


def test_an_agent_that_dies_finds_its_scripts(lab):
    lab.server()
    lab.agent("local")
    service(lab)
    good(deploy(lab, Bundle(lab, "v1")))
    two = Bundle(lab, "v2")
    two.script("BeforeInstall", "once.sh", f"#!/bin/sh\necho ran >> {lab.dir}/ran\n")
    two.script("BeforeInstall", "slow.sh", f"#!/bin/sh\necho slow >> {lab.dir}/ran\n"
               f"while [ ! -f {lab.dir}/go ]; do sleep 0.1; done\n")
    client = lab.start_baton("deploy", "shop", "--bundle", two.write(), "--version", "v2")
    poll("the second script runs", lambda: (lab.dir / "ran").exists() and "slow" in (lab.dir / "ran").read_text())
    lab.kill("agent-local")
    (lab.dir / "go").write_text("")
    lab.agent("local")
    assert client.wait(120) == 0, client.stdout.read()
    assert (lab.dir / "ran").read_text() == "ran\nslow\n", "none of them twice"
    assert answers(lab) == "v2"


def gated(lab, version):
    """On was1 its AfterInstall says that it began, waits for a file, and says that it ended."""
    return Bundle(lab, version, **ANY).script("AfterInstall", "slow.sh", f"""#!/bin/sh
[ "$BATON_HOST" = was1 ] || exit 0
echo $$ begun >> {lab.dir}/told
while ! [ -e {lab.dir}/go ]; do sleep 0.05; done
echo $$ ended >> {lab.dir}/told
""")


def told(lab):
    path = lab.dir / "told"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def nobody_sees_its_end(lab, with_it):
    """A deployment whose script on was1 loses its supervisor; with_it: how it then ends. The client's last words."""
    client = lab.start_baton("deploy", "shop", "--bundle", gated(lab, "v2").write(), "-v", "v2")
    poll("the script runs", lambda: told(lab))
    with_it(int(told(lab)[0][0]), poll("its supervisor is there", lambda: supervisors(lab)))
    said = client.communicate(timeout=120)[0]
    assert client.returncode == 3, said
    line = next(line for line in said.splitlines() if "result code 7" in line)
    for words in ("was1", "AfterInstall", "scripts/slow.sh", "nobody saw how it ended"):
        assert words in line, said
    number = lab.deployments()[0]["id"]
    assert lab.deployment(number)["phase"] == "parked" and len(told(lab)) <= 2, "it was repeated, and nobody wanted it"
    return number


def test_nobody_saw_how_a_script_ended_and_a_person_goes_on(lab):
    """Its supervisor is killed, it ends well: the run asks, the other host serves, and the event runs again."""
    two_hosts(lab)
    good(deploy(lab, Bundle(lab, "v1", **ANY)))

    def end(pid, shims):
        os.kill(shims[0], signal.SIGKILL)
        poll("another one has come", lambda: supervisors(lab) not in ([], shims))
        (lab.dir / "go").touch()
        poll("it has ended", lambda: not pathlib.Path(f"/proc/{pid}").exists())
    with lab.load() as load:
        number = nobody_sees_its_end(lab, end)
        assert versions(lab)[("was2", "main")] == ("v1", True) and not versions(lab)[("was1", "main")][1]
        good(lab.baton("resume", number))
        poll("the run ends", lambda: lab.deployment(number)["phase"] == "ended")
        assert lab.deployment(number)["end"] == "done"
        good(deploy(lab, Bundle(lab, "v3", **ANY)))
    assert load.failed == 0, load.summary()
    assert [word for _, word in told(lab)] == ["begun", "ended"] * 2
    assert versions(lab) == {("was1", "main"): ("v3", True), ("was2", "main"): ("v3", True)}


def test_nobody_saw_how_a_script_ended_and_a_person_goes_back(lab):
    """Supervisor, script and agent are killed, in this order: the agent that comes back says it, and v1 returns."""
    two_hosts(lab)
    good(deploy(lab, Bundle(lab, "v1", **ANY)))

    def end(pid, shims):
        agent = lab.children["agent-was1"]
        os.kill(agent.pid, signal.SIGSTOP)  # or it would give the script another supervisor
        for victim in (shims[0], pid):
            os.kill(victim, signal.SIGKILL)
        poll("the script is gone", lambda: not pathlib.Path(f"/proc/{pid}").exists())
        lab.kill("agent-was1")
        lab.agent("was1", address=lab.machines[0].gateway)
    with lab.load() as load:
        number = nobody_sees_its_end(lab, end)
        assert lab.api("POST", f"/v1/deployments/{number}/rollback", {})[0] == 202
        poll("the run ends", lambda: lab.deployment(number)["phase"] == "ended")
        assert lab.deployment(number)["end"] == "rolled_back"
        assert versions(lab) == {("was1", "main"): ("v1", True), ("was2", "main"): ("v1", True)}
        (lab.dir / "go").touch()
        good(deploy(lab, gated(lab, "v3")))
    assert load.failed == 0, load.summary()
    assert [word for _, word in told(lab)] == ["begun", "begun", "ended"]
    assert versions(lab) == {("was1", "main"): ("v3", True), ("was2", "main"): ("v3", True)}


def test_packing_is_the_same_whenever(tmp_path):
    """baton-pack: order, times and owners of files are not in the tar."""
    packer = BUILD / "src/shim/baton-pack"
    for name in ("a", "b"):
        (tmp_path / name / "x").mkdir(parents=True)
    for name, order in (("a", ("1", "2", "x/3")), ("b", ("x/3", "2", "1"))):
        for f in order:
            (tmp_path / name / f).write_text(f)
        (tmp_path / name / "link").symlink_to("x/3")
        (tmp_path / name / "1").chmod(0o700 if name == "a" else 0o755)
    os.utime(tmp_path / "a/1", (1, 1))
    one, two = (subprocess.run([packer, "tar", tmp_path / n], check=True, stdout=subprocess.PIPE).stdout for n in "ab")
    assert one == two
    (tmp_path / "b/2").chmod(0o755)
    assert one != subprocess.run([packer, "tar", tmp_path / "b"], check=True, stdout=subprocess.PIPE).stdout
    os.mkfifo(tmp_path / "a/pipe")
    done = subprocess.run([packer, "tar", tmp_path / "a"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=False,
                          check=False)
    assert done.returncode == 1 and b"neither a file" in done.stderr
