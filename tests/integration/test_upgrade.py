"""An agent becomes its server's version: two programs that differ, real processes, apps that run on."""
import os
import pathlib
import shutil
import signal
import subprocess

import pytest

from lab import BUILD, Lab, poll

NEXT = "99.1.0-next"


def install(where, program=BUILD / "src/cli/baton"):
    """A directory as `make install` makes it: bin and libexec."""
    (where / "bin").mkdir(parents=True)
    (where / "libexec/baton").mkdir(parents=True)
    shutil.copy2(program, where / "bin/baton")
    for name in ("baton-shim", "baton-unpack"):
        shutil.copy2(BUILD / "src/shim" / name, where / "libexec/baton" / name)
    return where / "bin/baton"


class Two(Lab):
    """The server is the newer program, the agent the older one, each installed on its own."""

    def __init__(self):
        super().__init__()
        self.server_program = install(self.dir / "srv", BUILD / "tests/integration/baton-next")
        self.agent_program = install(self.dir / "host")

    def start_program(self, name, program, *args):
        with open(self.dir / f"{name}.log", "a", encoding="utf-8") as log:
            self.children[name] = subprocess.Popen(
                [program, *map(str, args)], cwd=self.dir, env=self.env(), stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True)

    def begin(self, policy="upgrade: true\n"):
        self.server()
        self.kill("server", signal.SIGTERM)
        self.start_program("server", self.server_program, "server", "run", "--dir", self.dir / "server", "--listen",
                           f"127.0.0.1:{self.port('api')}", "--agent-listen", f"127.0.0.1:{self.port('agents')}")
        poll("the server answers", self.healthy)
        assert self.join("was1", self.join_token("was1")).returncode == 0
        (self.dir / "policy.yaml").write_text(policy)
        self.start_program("agent", self.agent_program, "agent", "run", "--dir", self.dir / "agent-was1",
                           "--own-machine", "--policy", self.dir / "policy.yaml")
        poll("the agent connects", lambda: self.connected("was1"))
        self.config(host="was1")

    def version(self):
        return self.api("GET", "/v1/hosts")[1]["hosts"][0]["agent_version"]

    def app(self):
        host = self.service()["world"]["hosts"][0]
        return [(i["pid"], i["restarts"], i["version"]) for i in host["instances"] if i["state"] == "running"]


@pytest.fixture
def two():
    it = Two()
    try:
        yield it
    finally:
        it.close()


def refused(lab, *words):
    done = lab.baton("hosts", "upgrade", "was1")
    assert done.returncode == 1 and not done.stdout, done.stdout
    assert len(done.stderr.splitlines()) == 1 and all(w in done.stderr for w in words), done.stderr
    assert not list(lab.dir.glob("host/**/*.new"))
    assert lab.alive("agent")


def test_the_apps_run_on(two):
    two.nginx()
    two.begin()
    assert two.deploy("v1").returncode == 0
    old, pid, before = two.version(), two.children["agent"].pid, two.app()
    assert old != NEXT and len(before) == 1
    with two.load() as load:
        done = two.baton("hosts", "upgrade")
        assert done.returncode == 0, done.stderr + two.log("agent")
        assert "was1" in done.stdout and NEXT in done.stdout
        poll("it is linked for good", lambda: two.connected("was1") and two.version() == NEXT)
        assert two.alive("agent") and os.readlink(f"/proc/{pid}/exe") == str(two.agent_program)
        assert two.agent_program.read_bytes() == two.server_program.read_bytes()
        poll("the app is seen", lambda: two.app() == before)
        assert two.deploy("v2").returncode == 0
    assert load.failed == 0, load.summary()
    assert not list(two.dir.glob("host/**/*.new"))
    assert "already" in two.baton("hosts", "upgrade").stdout
    refused(two, "already")
    assert "upgrade agent" in {a["what"] for a in two.api("GET", "/v1/audit")[1]["audit"]}


def test_what_may_not_be(two):
    two.begin(policy="{}\n")
    refused(two, "upgrade: true", "policy.yaml")
    viewer = two.baton("token", "create", "v", "--role", "deployer").stdout.strip()
    done = two.baton("hosts", "upgrade", "was1", BATON_TOKEN=viewer)
    assert done.returncode == 1 and "role" in done.stderr
    assert two.baton("hosts", "upgrade", "was9").returncode == 2
    assert two.version() != NEXT
    assert two.join("was2", two.join_token("was2")).returncode == 0
    done = two.baton("hosts", "upgrade", "was2")
    assert done.returncode == 1 and "not connected" in done.stderr


def test_a_program_that_does_not_come_up(two):
    two.begin()
    pid, before = two.children["agent"].pid, two.agent_program.read_bytes()
    # What lies in the server's place is a program, but no agent.
    replace(two, pathlib.Path("/bin/false"))
    done = two.baton("hosts", "upgrade", "was1")
    assert done.returncode == 1 and "exit code" in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    poll("the old one is back", lambda: two.connected("was1") and two.alive("agent"))
    assert two.agent_program.read_bytes() == before and two.children["agent"].pid == pid
    assert not list(two.dir.glob("host/**/*.new"))
    # One of another kind of machine is not even tried.
    other = two.dir / "other"
    data = bytearray(before)
    data[18:20] = (183).to_bytes(2, "little")  # aarch64
    other.write_bytes(data)
    other.chmod(0o755)
    replace(two, other)
    refused(two, "kind of machine")
    # And it can be upgraded once the server offers what works.
    replace(two, BUILD / "tests/integration/baton-next")
    assert two.baton("hosts", "upgrade", "was1").returncode == 0
    poll("it is the new one", lambda: two.version() == NEXT)


def replace(two, program):
    aside = two.server_program.with_suffix(".aside")
    shutil.copy2(program, aside)
    aside.rename(two.server_program)


def test_baton_up_is_not_upgraded(lab):
    lab.up()
    done = lab.baton("hosts", "upgrade", "local")
    assert done.returncode == 1 and "baton up" in done.stderr
