"""Artifacts that are none, changed on their way, or too large: one clear line, nothing changed, nothing
lost. Users go on clicking all the while, and none of them sees it."""
import hashlib
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from lab import poll
from steps import finish, good, idle_is_empty, newest, one_line, says, shop, state, unharmed, works_again


def test_an_artifact_that_is_missing_empty_or_unreadable(lab):
    shop(lab)
    empty, secret = lab.dir / "empty.jar", lab.artifact("v9")
    empty.write_bytes(b"")
    secret.chmod(0)
    # root reads everything, unless it lets go of the capability
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.getuid() == 0 else []
    runs = len(lab.deployments())
    with unharmed(lab):
        one_line(lab.baton("deploy", "--artifact", "none.jar", "--version", "v2"), 2, "none.jar", "No such file")
        one_line(lab.baton("deploy", "--artifact", empty, "--version", "v2"), 2, "empty.jar", "is empty")
        one_line(lab.baton("deploy", "--artifact", "/dev/null", "--version", "v2"), 2, "/dev/null")
        done = subprocess.run([*drop, sys.modules["lab"].BATON, "deploy", "--artifact", secret, "--version", "v2"],
                              cwd=lab.dir, env=lab.env(), text=True, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
        one_line(done, 2, secret.name, "Permission denied")
    assert len(lab.deployments()) == runs
    assert len(lab.api("GET", "/v1/services/shop/releases")[1]["releases"]) == 1


def test_a_pattern_matches_exactly_one_file(lab):
    """Also in a directory whose own name looks like a pattern, and asked from another one."""
    shop(lab)
    libs = lab.dir / "a[b]*" / "libs"
    libs.mkdir(parents=True)
    lab.config(artifact="libs/shop-*.py")
    config = lab.dir / "a[b]*" / "baton.yaml"
    (lab.dir / "baton.yaml").rename(config)
    before = state(lab)
    one_line(lab.baton("deploy", "-f", config, "-v", "v2"), 2, "libs/shop-*.py", "found none")
    v2 = lab.artifact("v2").read_text()
    for i in range(15):
        (libs / f"shop-{i:02}.py").write_text(v2)
    one_line(lab.baton("deploy", "-f", config, "-v", "v2"), 2, "exactly one", "found 15", "libs/shop-00.py, ",
            "libs/shop-09.py and 5 more")
    one_line(lab.baton("deploy", "-f", config, "-a", f"{lab.dir}/nothing-*", "-v", "v2"), 2, "found none")
    assert len(lab.deployments()) == 1 and state(lab) == before
    for path in sorted(libs.iterdir())[1:]:
        path.unlink()
    good(lab.baton("deploy", "-f", config, "-v", "v2"))
    assert lab.ask() == "v2"
    assert lab.api("GET", "/v1/services/shop/releases")[1]["releases"][0]["version"] == "v2"


def test_an_artifact_that_changed_on_the_server_goes_to_no_host(lab):
    """Another host fetches the stored bytes after they rotted."""
    lab.nginx()
    lab.config(host="was1")
    lab.server()
    lab.agent("was1")
    good(lab.deploy("v1"))
    with unharmed(lab):
        client, _ = begin_with_rot(lab)
        code, said = finish(client)
        assert code == 1, said
        assert any("what came is not what was sent" in line and "SHA-256" in line for line in said.splitlines()), said
        idle_is_empty(lab)
    assert not list((lab.dir / "agent-was1").rglob("app-v2.py"))


def begin_with_rot(lab):
    """The bytes go up while the agent is away, rot, and are fetched when it is back."""
    lab.kill("agent-was1", signal.SIGTERM)
    before = newest(lab)
    path = lab.artifact("v2")
    digest = subprocess.run(["sha256sum", path], text=True, stdout=subprocess.PIPE, check=True).stdout.split()[0]
    data = path.read_bytes()
    status, answer = lab.api("PATCH", f"/v1/artifacts/{digest}?size={len(data)}&name={path.name}", data,
                             headers={"Upload-Offset": "0", "Content-Type": "application/octet-stream"})
    assert status == 201, answer
    stored = lab.dir / "server/artifacts" / digest
    stored.write_bytes(data[:-2] + b"X\n")
    lab.agent("was1")
    client = lab.start_deploy("v2")
    poll("the deployment begins", lambda: client.poll() is not None or newest(lab) != before)
    return client, newest(lab)


def test_a_digest_that_does_not_fit(lab):
    """Changed on the wire: refused, and nothing of it is kept. Parts that fit are put together."""
    lab.server()
    data, other = b"x" * 1000, hashlib.sha256(b"y").hexdigest()
    status, answer = lab.api("PATCH", f"/v1/artifacts/{other}?size=1000&name=a.jar", data,
                             headers={"Upload-Offset": "0", "Content-Type": "application/octet-stream"})
    assert status == 422 and answer["error"]["code"] == "corrupt", answer
    assert other[:12] in answer["error"]["message"], answer
    assert not list((lab.dir / "server/artifacts").iterdir())
    assert lab.api("HEAD", f"/v1/artifacts/{other}")[0] == 404
    good = hashlib.sha256(data).hexdigest()
    for offset, part, expected in ((0, data[:400], 200), (0, data[:400], 409), (400, data[400:], 201)):
        status, answer = lab.api("PATCH", f"/v1/artifacts/{good}?size=1000&name=a.jar", part,
                                 headers={"Upload-Offset": str(offset), "Content-Type": "application/octet-stream"})
        assert status == expected, answer
    assert lab.api("HEAD", f"/v1/artifacts/{good}")[0] == 200


def small_disk(path, size):
    """A prefix that gives a process its own small file system at path; skips where none can be mounted."""
    path.mkdir(exist_ok=True)
    user = [] if os.geteuid() == 0 else ["-r"]
    prefix = ["unshare", *user, "-m", "sh", "-c", f'mount -t tmpfs -o size={size} tmpfs "{path}" && exec "$@"', "sh"]
    if subprocess.run([*prefix, "true"], stderr=subprocess.DEVNULL, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    return prefix


def test_the_servers_disk_is_full(lab):
    wrap = small_disk(lab.dir / "state", "96m")  # 64 MiB of it are kept free
    lab.up(wrap=wrap)
    lab.config(nginx=False)
    big = lab.artifact("big")
    with open(big, "ab") as f:
        f.write(b"#" + os.urandom(20 << 20).hex().encode())
    done = lab.baton("deploy", "-a", big, "-v", "big")
    assert done.returncode in (1, 2), done.stdout + done.stderr
    one_line(done, done.returncode, "app-big.py", "free on the server")
    assert lab.healthy()
    good(lab.deploy("v1"))


def test_a_hosts_disk_is_full(lab):
    lab.nginx()
    lab.server()
    lab.agent("local", wrap=small_disk(lab.dir / "agent-local", "96m"))  # 64 MiB of it are kept free
    lab.config()
    good(lab.deploy("v1"))
    big = lab.artifact("big")
    with open(big, "ab") as f:
        f.write(b"#" + os.urandom(20 << 20).hex().encode())
    with unharmed(lab):
        says(lab.baton("deploy", "-a", big, "-v", "big"), 1, "local", "free")
        idle_is_empty(lab)
    seen_by_agent = pathlib.Path(f"/proc/{lab.children['agent-local'].pid}/root{lab.dir}/agent-local")
    assert (seen_by_agent / "agent.json").exists() and not list(seen_by_agent.rglob("app-big.py"))
    works_again(lab)
