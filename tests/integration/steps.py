"""What tests of whole deployments have in common: a service that serves, what must not change, what a
client has to say."""
import contextlib
import socket

from lab import poll


def text(done):
    return done.stdout + done.stderr


def good(done):
    assert done.returncode == 0, text(done)
    return done


def one_line(done, code, *words):
    """The whole of the client's complaint is one line that names the thing."""
    assert done.returncode == code, text(done)
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("baton: ") and len(lines[0]) < 1200, text(done)
    for word in words:
        assert str(word) in lines[0], text(done)


def says(done, code, *words):
    """A run that was followed: the exit code, and one line of it that holds all the words."""
    said = text(done)
    assert done.returncode == code, said
    assert any(all(str(w) in line for w in words) for line in said.splitlines()), f"no line with {words}:\n{said}"
    assert "Traceback" not in said and all(len(line) < 1200 for line in said.splitlines()), said


def shop(lab, first="v1", **groups):
    """nginx, `baton up`, and a first version in service."""
    lab.nginx()
    lab.up()
    lab.config(**groups)
    good(lab.deploy(first))
    assert lab.ask() == first


def works_again(lab, version="good"):
    good(lab.deploy(version))
    assert lab.ask() == version


def include(lab, name="shop"):
    return (lab.dir / f"{name}.conf").read_text()


def state(lab):
    """What must not change when a deployment fails."""
    return (include(lab), lab.ask(), lab.ask("/profile"), lab.service()["live"]["slot"],
            [r["state"] for r in lab.api("GET", "/v1/services/shop/releases")[1]["releases"] if r["version"] == "v1"])


@contextlib.contextmanager
def unharmed(lab, version="v1", **load):
    """While the block runs nothing of the service changes, and no request fails."""
    before = state(lab)
    assert before[1] == version
    with lab.load(rate=60, **load) as it:
        yield
        assert lab.ask() == version
    assert it.failed == 0 and it.sent > 0, it.summary()
    assert it.versions() == [version]
    assert state(lab) == before


def idle_slot(lab):
    return {"blue": "green", "green": "blue"}[lab.service()["live"]["slot"]]


def idle_is_empty(lab):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", lab.port(f"shop-{idle_slot(lab)}")))


def newest(lab):
    return (lab.deployments() or [{"id": 0}])[0]["id"]


def begin(lab, version, *args, **settings):
    """A deployment in the background: the client and the deployment's number."""
    before = newest(lab)
    client = lab.start_deploy(version, *args, **settings)
    poll("the deployment begins", lambda: client.poll() is not None or newest(lab) != before)
    assert newest(lab) != before, client.communicate()[0]
    return client, newest(lab)


def finish(client):
    said = client.communicate(timeout=120)[0]
    return client.returncode, said


def state_of(lab, slot):
    for instance in instances(lab):
        if instance["slot"] == slot:
            return instance.get("state")
    return None


def instances(lab):
    return [i for h in lab.service()["world"]["hosts"] for i in h["instances"]]
