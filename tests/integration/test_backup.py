"""A server's state in one file, made while it works, and put back: agents go on, nothing breaks."""
import json
import os
import shutil
import signal
import subprocess
import tarfile

import pytest

from lab import poll


def backup(lab, name="b.tar", *args):
    done = lab.baton("backup", lab.dir / name, "--dir", lab.dir / "server", *args)
    assert done.returncode == 0, done.stderr
    return lab.dir / name


def restore(lab, file, target="server"):
    done = lab.baton("restore", file, "--dir", lab.dir / target)
    assert done.returncode == 0, done.stderr
    return done.stdout


def store(lab):
    return lab.api("GET", "/v1/health")[1]["store_id"]


def settled(lab, version):
    """Nothing runs, and the live release is this one, in truth and in the store."""
    service = lab.service()
    return service["phase"] == "idle" and service.get("release", {}).get("version") == version \
        and lab.deployments()[0].get("end") == "done"


def slots(lab):
    host = lab.service()["world"]["hosts"][0]
    return {i["slot"]: i.get("version") for i in host["instances"] if i["state"] != "absent"}


def reaches(lab, version, kind):
    """The run of this version is in the middle of a task of this kind."""
    def there():
        run = lab.deployments()[0]
        return run["version"] == version and any(
            t["kind"] == kind and t["state"] == "running" for t in lab.deployment(run["id"])["tasks"])
    poll(f"{version} is at {kind}", there)


def started(lab, bake="300ms"):
    lab.nginx()
    lab.config(deploy={"bake": bake})
    lab.server()
    lab.agent("local")
    assert lab.deploy("v1").returncode == 0


def test_what_is_in_it(lab):
    started(lab)
    file = backup(lab)
    assert file.stat().st_mode & 0o777 == 0o600
    assert not [p for p in lab.dir.iterdir() if ".tmp" in p.name]
    with tarfile.open(file) as tar:
        names = tar.getnames()
        manifest = json.load(tar.extractfile("manifest.json"))
    assert names[0] == "manifest.json" and {"baton.db", "secret.key", "pki/ca.key"} < set(names)
    assert manifest["store_id"] == store(lab) and len([n for n in names if n.startswith("artifacts/")]) == 1
    small = backup(lab, "small.tar", "--without-artifacts")
    with tarfile.open(small) as tar:
        assert not [n for n in tar.getnames() if n.startswith("artifacts/")]
    done = lab.baton("backup", lab.dir / "x.tar", "--dir", lab.dir / "nowhere")
    assert done.returncode == 2 and not (lab.dir / "x.tar").exists() and len(done.stderr.splitlines()) == 1
    # An artifact that rotted on the disk is told now.
    artifact = next((lab.dir / "server/artifacts").iterdir())
    artifact.write_bytes(artifact.read_bytes()[:-1] + b"!")
    done = lab.baton("backup", lab.dir / "x.tar", "--dir", lab.dir / "server")
    assert done.returncode == 1 and artifact.name in done.stderr and not (lab.dir / "x.tar").exists()


def test_bad_input_changes_nothing(lab):
    lab.server()
    file = backup(lab)
    before = store(lab)

    def refused(file, target, code, *words):
        done = lab.baton("restore", file, *(["--dir", lab.dir / target] if target else []))
        assert done.returncode == code and not done.stdout, done.stdout
        assert len(done.stderr.splitlines()) == 1 and all(w in done.stderr for w in words), done.stderr
    refused(file, "server", 1, "runs on", "server")
    assert store(lab) == before and lab.api("GET", "/v1/services")[0] == 200
    refused(file, None, 2, "--dir")
    refused(lab.dir / "none.tar", "new", 1, "none.tar")
    data = file.read_bytes()
    for name, bad in {"cut": data[:-5000], "half": data[:len(data) // 2], "empty": b"", "text": b"hello" * 1000,
                      "flipped": data[:9000] + bytes([data[9000] ^ 1]) + data[9001:]}.items():
        (lab.dir / f"{name}.tar").write_bytes(bad)
        refused(lab.dir / f"{name}.tar", "new", 1)
        assert {p.name for p in (lab.dir / "new").iterdir()} <= {"server.lock"}, name
    lab.kill("server", signal.SIGTERM)
    refused(lab.dir / "flipped.tar", "server", 1)
    lab.server()
    assert store(lab) == before


@pytest.mark.parametrize("moment", ["HealthCheck", "Bake"])
def test_restored_in_the_middle_of_a_run(lab, moment):
    """A backup from the middle of a deployment, put back while it is still there, or much later."""
    started(lab, "2s")
    run = lab.start_deploy("v2", warm_up=2 if moment == "HealthCheck" else 0, env={})
    reaches(lab, "v2", moment)
    file = backup(lab)
    with lab.load() as load:
        old = store(lab)
        lab.kill("server")
        said = restore(lab, file)
        assert "replaced-" in said
        lab.server()
        assert store(lab) != old
        live = "v1" if moment == "HealthCheck" else "v2"
        poll("the service is settled", lambda: settled(lab, live))
        ended = [d for d in lab.deployments() if d["version"] == "v2" and d["purpose"] == "deploy"]
        assert ended[0]["end"] == "halted" and "restored" in ended[0]["reason"]
        assert run.wait(60) == 3, run.stdout.read()
        assert list(slots(lab).values()) == [live]
        # And everything goes on from there.
        assert lab.deploy("v3").returncode == 0
    assert load.failed == 0, load.summary()
    assert settled(lab, "v3")


def test_an_old_backup_and_a_server_that_is_not_told(lab):
    started(lab, "2s")
    run = lab.start_deploy("v2", env={})
    reaches(lab, "v2", "Bake")
    file = backup(lab)
    assert run.wait(60) == 0
    # The world goes on: two more releases, an abandoned copy of the server with a run under way.
    assert lab.deploy("v3").returncode == 0
    lab.config(deploy={"bake": "10m"})
    lab.start_deploy("v4", env={})
    reaches(lab, "v4", "Bake")
    stale = lab.deployments()[0]["id"]
    lab.config(deploy={"bake": "300ms"})
    with lab.load() as load:
        lab.kill("server")
        shutil.copytree(lab.dir / "server", lab.dir / "abandoned", ignore=shutil.ignore_patterns("server.lock"))
        restore(lab, file)
        lab.server()
        poll("the agent is back", lambda: lab.connected("local"))
        # What serves is newer than the backup: that is said, and nothing is touched.
        poll("it is told", lambda: "newer than the backup" in lab.log("server"))
        assert "v4" in slots(lab).values() and lab.ask() == "v4"
        releases = {r["version"] for r in lab.api("GET", "/v1/services/shop/releases")[1]["releases"]}
        assert releases == {"v1", "v2"}
        # A version that the store forgot is a new release of a new number, not the one on the host's disk.
        assert lab.deploy("v5").returncode == 0, lab.log("server")
        poll("v5 serves", lambda: settled(lab, "v5") and lab.ask() == "v5")
        # The abandoned server comes back, and its run wants to go on: the agent refuses.
        lab.kill("server")
        os.rename(lab.dir / "server", lab.dir / "restored")
        os.rename(lab.dir / "abandoned", lab.dir / "server")
        lab.server()
        poll("the agent is back", lambda: lab.connected("local"))
        lab.api("POST", f"/v1/deployments/{stale}/promote", {})
        poll("it is refused", lambda: "stale: local has seen a token above" in lab.log("server"))
        assert lab.ask() == "v5"
    assert load.failed == 0, load.summary()
