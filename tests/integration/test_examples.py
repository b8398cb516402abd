"""The directories of examples/, as their READMEs say it: apps that somebody started are adopted, and then
deployed over, restarted and rolled back under load. Documents 002 and 003 with real Java; 001 does five rolling
deployments of three instances, so there the small app stands in for Java.

An example is copied and gets ports of its own; nothing else of it is changed but how long it waits."""
import pathlib
import re
import shutil
import subprocess

import pytest
from lab import BATON, PYTHON, poll
from load import Load
from test_adopt import ended
from test_strategies import good

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def jars(tmp_path_factory):
    """demo/app as one runnable jar for each version."""
    out = tmp_path_factory.mktemp("jars")
    subprocess.run(["sh", ROOT / "demo/app/build.sh", out, "v1", "v2", "v3"], check=True)
    return {v: out / f"shop-{v}.jar" for v in ("v1", "v2", "v3")}


class Example:
    def __init__(self, lab, name, service, java=True):
        self.lab, self.service, self.place = lab, service, lab.dir / name
        shutil.copytree(ROOT / "examples" / name, self.place)
        ports = {str(p): str(lab.port(f"example-{p}")) for p in (8080, 8081, 8082, 8083)}
        for path in self.place.iterdir():
            if path.is_file():
                text = re.sub(r"\b808[0-3]\b", lambda m: ports[m.group()], path.read_text())
                text = re.sub(r"bake: \w+", "bake: 200ms", text)
                if not java:
                    text = re.sub(r"java -jar {artifact} --spring.profiles.active={slot} --server.port={port}",
                                  f"{PYTHON} {{artifact}} --slot {{slot}} --port {{port}}", text)
                path.write_text(text)
        self.page = lab.page = f"http://127.0.0.1:{ports['8080']}"
        self.slots = {1: int(ports["8081"]), 2: int(ports["8082"]), 3: int(ports["8083"])}
        subprocess.run([shutil.which("nginx") or "/usr/sbin/nginx", "-p", self.place, "-c", "nginx.conf"],
                       check=True, cwd=self.place, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        poll("nginx listens", lambda: lab.ask("/") is not None)
        lab.up()

    def start(self, port, *argv):
        """As a script did: in the background, from the example's directory."""
        child = subprocess.Popen([str(a) for a in argv], cwd=self.place, stdin=subprocess.DEVNULL,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.lab.children[f"app {child.pid}"] = child
        poll("the app answers", lambda: child.poll() is None and
             self.lab.ask("/version", url=f"http://127.0.0.1:{port}") == "v1")
        return child

    def baton(self, *args):
        env = self.lab.env(PWD=str(self.place), DB_PASSWORD="secret of the example")
        return good(subprocess.run([BATON, *map(str, args)], cwd=self.place, env=env, text=True, timeout=180,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE))

    def live(self):
        return self.lab.service(self.service)["release"]["version"]


def loads(example, *paths):
    out = [Load(example.page, path=p, rate=60) for p in paths]
    example.lab.loads += out
    return out


def none_failed(*all_loads):
    for load in all_loads:
        load.stop()
        assert load.failed == 0 and load.sent > 20, f"{load.path}: {load.summary()}"


def switches_by_adopting(example, old, jars, *deploy):
    """adopt, deploy, restart, deploy, roll back."""
    assert example.lab.ask() == "v1"
    with loads(example, "/version")[0] as load:
        example.baton("adopt", "--version", "v1")
        assert example.live() == "v1" and old.poll() is None
        example.baton("deploy", "-v", "v2", "-a", jars["v2"], *deploy)
        assert example.lab.ask() == "v2"
        example.baton("restart", example.service)
        assert example.lab.ask() == "v2"
        example.baton("deploy", "-v", "v3", "-a", jars["v3"], *deploy)
        assert example.lab.ask() == "v3"
        example.baton("rollback", example.service)
        assert example.lab.ask() == "v2"
    none_failed(load)
    assert load.versions() == ["v1", "v2", "v3"]


def test_document_002_blog(lab, jars):
    it = Example(lab, "blog", "dev-blog")
    shutil.copy(jars["v1"], it.place / "blue-dev-blog-0.0.1-SNAPSHOT.jar")
    old = it.start(it.slots[1], "java", "-jar", "blue-dev-blog-0.0.1-SNAPSHOT.jar", "--spring.profiles.active=blue",
                   f"--server.port={it.slots[1]}")
    switches_by_adopting(it, old, jars)
    ended(old)
    assert "generation 4" in (it.place / "service-url.inc").read_text()


def test_document_003_webservice(lab, jars):
    it = Example(lab, "webservice", "springboot2-webservice")
    shutil.copy(jars["v1"], it.place / "webservice.jar")
    old = it.start(it.slots[1], "java", "-jar", "-Dspring.config.location=classpath:/application-real1.properties",
                   "webservice.jar", "--spring.profiles.active=real1", f"--server.port={it.slots[1]}")
    switches_by_adopting(it, old, jars)
    placed = [p for p in (lab.dir / "state").glob("**/application-real*.properties")]
    assert placed and all("server.port=" in p.read_text() for p in placed)


def test_document_001_assemble(lab):
    it = Example(lab, "assemble", "back", java=False)
    app = it.place / "back.py"
    shutil.copy(lab.artifact("v1"), app)
    old = [it.start(p, PYTHON, app.name, "--port", p, "--slot", f"app{n}") for n, p in it.slots.items()]
    one, every = loads(it, "/version", "/api/version")
    with one, every:
        it.baton("adopt", "--version", "v1")
        for n in range(2, 7):
            it.baton("deploy", "-v", f"v{n}", "-a", lab.artifact(f"v{n}"))
            assert lab.ask() == f"v{n}"
            assert {lab.ask("/api/version") for _ in range(6)} == {f"v{n}"}
        for child in old:
            ended(child)
        it.baton("restart", "back")
        it.baton("rollback", "back", "--to", "v5")
        assert {lab.ask("/version"), lab.ask("/api/version")} == {"v5"}
    none_failed(one, every)
    assert one.versions()[:6] == [f"v{n}" for n in range(1, 7)]
