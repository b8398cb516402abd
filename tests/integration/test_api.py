"""The server alone: its API, roles, artifacts, runner and journal, driven over HTTP and, for the agents'
half, by a fake agent (fake_agent.py) in whose world nothing really runs."""
import hashlib
import http.client
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import threading
import urllib.request

import pytest

from fake_agent import FakeAgent
from lab import poll

SERVICE = {"service": "shop", "hosts": ["h1"],
           "run": {"as": "process", "command": "app {port}", "slots": {"blue": 18081, "green": 18082}},
           "health": {"http": "/"}, "traffic": {"nginx": {"on": "h1", "listen": "127.0.0.1:18080"}},
           "deploy": {"strategy": "blue-green", "drain": "1s", "bake": "100ms"}}


@pytest.fixture
def server(lab):
    lab.server()
    return lab


@pytest.fixture
def agent(server):
    one = FakeAgent(server, "h1", server.join_token("h1")).start()
    server.fake = one
    poll("the fake agent is connected", lambda: server.connected("h1"))
    yield one
    one.stop()


def upload(lab, data, part=1 << 20, name="app"):
    digest = hashlib.sha256(data).hexdigest()
    status = 0
    for at in range(0, len(data), part):
        status, _ = lab.api("PATCH", f"/v1/artifacts/{digest}?size={len(data)}&name={name}", data[at:at + part],
                            headers={"Upload-Offset": str(at)})
    assert status == 201
    return {"digest": digest, "size": len(data), "file_name": name}


def wish(lab, version, data=None, **more):
    return {"service": "shop", "version": version, "config": SERVICE,
            "artifact": upload(lab, data or version.encode()), **more}


def deploy(lab, version, **more):
    status, answer = lab.api("POST", "/v1/deployments", wish(lab, version, **more))
    assert status == 201, answer
    return answer["id"]


def ended(lab, number):
    def fact():
        status, one = lab.api("GET", f"/v1/deployments/{number}")
        return one if status == 200 and one.get("end") else None
    return poll(f"deployment {number} ends", fact)


def events(lab, number, after=0, timeout=60):
    """(id or None, event, data) of the whole stream."""
    request = urllib.request.Request(f"{lab.url}/v1/deployments/{number}/events?after={after}")
    request.add_header("Authorization", f"Bearer {lab.token}")
    out, one = [], {}
    with urllib.request.urlopen(request, timeout=timeout) as stream:
        for raw in stream:
            line = raw.decode().rstrip("\n")
            if not line and one:
                out.append((int(one["id"]) if "id" in one else None, one["event"], json.loads(one["data"])))
                one = {}
            elif line and not line.startswith(":"):
                key, value = line.split(": ", 1)
                one[key] = value
    return out


# ---- who may do what -------------------------------------------------------------------------


def test_roles_and_scopes(server):
    def token(name, role, services=()):
        status, answer = server.api("POST", "/v1/tokens", {"name": name, "role": role, "services": list(services)})
        assert status == 201
        return answer["token"]
    viewer, deployer = token("v", "viewer"), token("d", "deployer", ["other"])
    assert server.api("GET", "/v1/hosts", token="bt_wrong")[0] == 401
    assert server.api("GET", "/v1/hosts", token=viewer)[0] == 200
    assert server.api("POST", "/v1/deployments", {}, token=viewer)[0] == 403
    assert server.api("POST", "/v1/join-tokens", {"host": "h"}, token=deployer)[0] == 403
    status, answer = server.api("POST", "/v1/deployments", {"service": "shop"}, token=deployer)
    assert status == 403 and "'d' is for other; it does not cover the service shop" in answer["error"]["message"]
    assert server.api("POST", "/v1/tokens", {"name": "v", "role": "viewer"})[0] == 409
    assert server.api("POST", "/v1/tokens", {"name": "x", "role": "king"})[0] == 400
    assert server.api("DELETE", "/v1/tokens/v")[0] == 200
    assert server.api("GET", "/v1/hosts", token=viewer)[0] == 401
    names = [t["name"] for t in server.api("GET", "/v1/tokens")[1]["tokens"]]
    assert sorted(names) == ["admin", "d", "v"]
    assert "token create" in {a["what"] for a in server.api("GET", "/v1/audit")[1]["audit"]}


def test_page_logs_in_by_cookie_and_only_from_here(server):
    def ask(method, path, body=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", server.port("api"), timeout=30)
        connection.request(method, path, body and json.dumps(body), {k.replace("_", "-"): v for k, v in headers.items()})
        answer = connection.getresponse()
        answer.read()
        return answer
    assert ask("POST", "/v1/session", {"token": "bt_wrong"}).status == 401
    answer = ask("POST", "/v1/session", {"token": server.token})
    cookie = answer.headers["Set-Cookie"]
    assert answer.status == 201 and "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert server.token not in cookie
    cookie = cookie.split(";")[0]
    assert ask("GET", "/v1/hosts", Cookie=cookie).status == 200
    assert ask("GET", "/v1/hosts", Cookie=cookie, Origin=server.url).status == 200
    assert ask("GET", "/v1/hosts", Cookie=cookie, Origin="http://evil.example").status == 403
    assert ask("GET", "/v1/hosts", Cookie=cookie, Host="evil.example").status in (400, 403, 421)
    assert ask("DELETE", "/v1/session", Cookie=cookie).status == 200
    assert ask("GET", "/v1/hosts", Cookie=cookie).status == 401


def test_join_tokens_are_single_use_named_and_short(server):
    token = server.join_token("h1")
    other = FakeAgent(server, "h2")
    status, answer = other.join(token)
    assert status == 401 and "for host h1" in answer["error"]["message"]
    first = FakeAgent(server, "h1", token)
    assert first.hello()[0] == 200
    status, answer = FakeAgent(server, "h1").join(token)
    assert status == 401 and "used already" in answer["error"]["message"]
    assert FakeAgent(server, "h1").join("btj_nobody.00")[0] == 401
    status, answer = server.api("POST", "/v1/join-tokens", {"host": "h3", "ttl": "1ms"})
    assert status == 201
    late = FakeAgent(server, "h3")

    def expired():
        code, said = late.join(answer["token"])
        return code == 401 and "expired" in said["error"]["message"]
    assert expired()
    assert server.api("POST", "/v1/join-tokens", {"host": "h3", "ttl": "30d"})[0] == 400
    assert server.api("POST", "/v1/join-tokens", {"host": "../h3"})[0] == 400


def test_removed_host_is_out_at_once_and_renewed_certificates_take_over(server):
    one = FakeAgent(server, "h1", server.join_token("h1"))
    assert one.hello()[0] == 200
    status, answer, _ = one.call("POST", "/v1/agent/renew", {"csr": one.csr()})
    assert status == 200
    assert one.hello()[0] == 200, "the old certificate lives for another day"
    one.take(answer["certificate"])
    assert one.hello()[0] == 200
    assert server.api("DELETE", "/v1/hosts/h1")[0] == 200
    status, answer = one.hello()
    assert status == 403 and "revoked" in answer["error"]["message"]
    assert server.api("DELETE", "/v1/hosts/h1")[0] == 404
    assert server.api("GET", "/v1/hosts")[1]["hosts"] == []
    status, answer, _ = one.call("POST", "/v1/agent/hello", {}, anonymous=True)
    assert status == 401
    assert FakeAgent(server, "h1", server.join_token("h1")).hello()[0] == 200


def test_another_wire_version_is_told(server):
    one = FakeAgent(server, "h1", server.join_token("h1"))
    status, answer = one.hello(wire=2)
    assert status == 409 and "upgrade the server" in answer["error"]["message"]


# ---- artifacts ---------------------------------------------------------------------------------


def test_upload_resumes_and_is_checked(server):
    data = os.urandom(300_000)
    digest = hashlib.sha256(data).hexdigest()
    path = f"/v1/artifacts/{digest}?size={len(data)}&name=app"

    def part(at, end, where=path):
        return server.api("PATCH", where, data[at:end], headers={"Upload-Offset": str(at)})

    def offset():
        request = urllib.request.Request(f"{server.url}/v1/artifacts/{digest}", method="HEAD")
        request.add_header("Authorization", f"Bearer {server.token}")
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, int(answer.headers["Content-Length"])
        except urllib.error.HTTPError as e:
            return e.code, int(e.headers["Upload-Offset"])
    assert offset() == (404, 0)
    assert part(0, 100_000) == (200, {"offset": 100_000})
    server.kill("server")
    server.server()
    assert offset() == (404, 100_000)
    status, answer = part(0, 100_000)
    assert status == 409 and answer["offset"] == 100_000
    status, answer = part(200_000, 300_000)
    assert status == 409 and answer["offset"] == 100_000
    assert part(100_000, 300_000)[0] == 201
    assert offset() == (200, 300_000)
    assert part(0, 1)[0] == 201, "the same digest is not stored twice"
    stored = server.dir / "server/artifacts" / digest
    assert stored.read_bytes() == data and not stored.with_suffix(".part").exists()


def test_an_upload_that_nobody_finished(server):
    """The server was killed after the last byte and before the file had its name: it is finished, not stuck."""
    data = b"x" * 5000
    digest = hashlib.sha256(data).hexdigest()
    (server.dir / "server/artifacts" / f"{digest}.part").write_bytes(data)
    status, answer = server.api("PATCH", f"/v1/artifacts/{digest}?size={len(data)}&name=app", b"",
                                headers={"Upload-Offset": str(len(data))})
    assert (status, answer) == (201, {"offset": len(data)})
    assert (server.dir / "server/artifacts" / digest).read_bytes() == data


def test_bad_uploads_are_refused(server):
    data = b"what was meant"
    digest = hashlib.sha256(data).hexdigest()

    def part(body, size, where=digest, at="0"):
        return server.api("PATCH", f"/v1/artifacts/{where}?size={size}", body, headers={"Upload-Offset": at})
    status, answer = part(b"what came here", 14)
    assert status == 422 and "upload it again" in answer["error"]["message"]
    assert part(data, 14)[0] == 201, "it begins anew after that"
    status, answer = part(b"x", 0)
    assert status == 400 and "empty" in answer["error"]["message"]
    assert part(b"12", 1)[0] == 400
    assert part(b"1", 1, where="../../etc/passwd")[0] in (400, 404)
    assert part(b"1", 1, at="-1")[0] == 400
    assert part(b"1", 1 << 50)[0] == 400


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
def test_full_disk_is_told_before_anything_is_written(server):
    artifacts = server.dir / "server/artifacts"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=70m", "none", artifacts], check=True)
    try:
        data = os.urandom(8 << 20)
        digest = hashlib.sha256(data).hexdigest()
        status, answer = server.api("PATCH", f"/v1/artifacts/{digest}?size={len(data)}", data,
                                    headers={"Upload-Offset": "0"})
        assert status == 507 and "free" in answer["error"]["message"]
        assert server.healthy()
    finally:
        subprocess.run(["umount", "-l", artifacts], check=True)


# ---- deployments -------------------------------------------------------------------------------


def test_deploy_events_and_replay(server, agent):
    first = deploy(server, "v1")
    assert ended(server, first)["end"] == "done"
    number = deploy(server, "v2")
    stream = events(server, number)
    records = [e for e in stream if e[1] == "record"]
    assert stream[-1][1] == "end" and stream[-1][2]["end"] == "done" and stream[-1][2]["exit_code"] == 0
    cursors = [e[0] for e in records]
    assert cursors == sorted(set(cursors))
    assert [e[2]["kind"] for e in records][0] == "plan" and records[-1][2]["kind"] == "end"
    middle = cursors[len(cursors) // 2]
    again = events(server, number, after=middle)
    assert [e for e in again if e[1] == "record"] == [e for e in records if e[0] > middle]
    one = server.deployment(number)
    assert one["phase"] == "ended" and {t["state"] for t in one["tasks"]} == {"done"}
    assert agent.slots == {("shop", "blue"): 0, ("shop", "green"): 2}
    assert server.service()["release"]["version"] == "v2"
    poll("the hosts' own word is there", lambda: server.service().get("live_slot") == "green")
    states = {r["version"]: r["state"] for r in server.api("GET", "/v1/services/shop/releases")[1]["releases"]}
    assert states == {"v1": "good", "v2": "good"}
    assert "log of InstanceStart" in server.api("GET", f"/v1/deployments/{number}/log")[1]
    lines = server.api("GET", "/v1/services/shop/logs?slot=green&lines=3")[1].splitlines()
    assert lines == ["h1/green │ green line 0", "h1/green │ green line 1", "h1/green │ green line 2"]
    metrics = server.api("GET", "/metrics")[1]
    assert 'baton_deployments_total{service="shop",env="",strategy="blue-green",result="done"} 2' in metrics
    assert 'baton_release_info{service="shop",env="",version="v2"} 1' in metrics
    assert 'baton_task_duration_seconds_count{task="Switch"} 2' in metrics
    if shutil.which("promtool"):
        done = subprocess.run(["promtool", "check", "metrics"], input=metrics, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr + done.stdout


def test_failure_rolls_back_and_shows_the_log(server, agent):
    assert ended(server, deploy(server, "v1"))["end"] == "done"
    agent.refuse["HealthCheck"] = "503 for 30s"
    number = deploy(server, "v2")
    end = events(server, number)[-1]
    assert end[1] == "end" and end[2]["end"] == "rolled_back" and end[2]["exit_code"] == 1
    assert "503 for 30s" in end[2]["reason"]
    assert len(end[2]["log_tail"]["h1/green"]) == 20
    assert events(server, number)[-1] == end, "a replay shows the same end"
    assert agent.slots[("shop", "blue")] == 1 and not agent.slots.get(("shop", "green"))
    states = {r["version"]: r["state"] for r in server.api("GET", "/v1/services/shop/releases")[1]["releases"]}
    assert states == {"v1": "good", "v2": "bad"}


def test_rollback_to_the_release_before(server, agent):
    for version in ("v1", "v2"):
        assert ended(server, deploy(server, version))["end"] == "done"
    status, answer = server.api("POST", "/v1/services/shop/rollback", {})
    assert status == 201 and answer["release"]["version"] == "v1", answer
    assert ended(server, answer["id"])["end"] == "done"
    assert server.service()["release"]["version"] == "v1"
    status, answer = server.api("POST", "/v1/services/shop/rollback", {"to": "v9"})
    assert status == 404 and "v9" in answer["error"]["message"]
    status, answer = server.api("POST", "/v1/services/shop/rollback", {"to": "v2"})
    assert status == 201
    assert ended(server, answer["id"])["end"] == "done"


def test_a_second_deployment_is_told_who_holds_the_lease(server, agent):
    agent.hold.add("HealthCheck")
    number = deploy(server, "v1")
    status, answer = server.api("POST", "/v1/deployments", wish(server, "v2"))
    assert status == 409 and answer["error"]["code"] == "lease"
    assert f"deployment {number} of admin" in answer["error"]["message"]
    assert server.api("POST", f"/v1/deployments/{number}/dance", {})[0] == 404
    assert server.api("POST", f"/v1/deployments/{number}/promote", {})[0] in (403, 409)
    assert server.api("POST", f"/v1/deployments/{number}/pause", {})[0] == 202
    assert server.deployment(number)["phase"] == "paused"
    assert server.api("POST", f"/v1/deployments/{number}/resume", {})[0] == 202
    assert server.api("POST", f"/v1/deployments/{number}/abort", {})[0] == 202
    agent.hold.clear()

    def give_up():
        # the held task ends now, as an aborted one would
        agent.cursor = 0
        return server.deployment(number).get("end")
    assert poll("the aborted run ends", give_up) == "rolled_back"
    assert server.api("POST", f"/v1/deployments/{number}/abort", {})[0] == 409


def test_releases_never_change(server, agent):
    assert ended(server, deploy(server, "v1", data=b"one"))["end"] == "done"
    status, answer = server.api("POST", "/v1/deployments", wish(server, "v1", data=b"two"))
    assert status == 409 and "another artifact" in answer["error"]["message"]
    again = wish(server, "v1", data=b"one")
    status, answer = server.api("POST", "/v1/deployments", again)
    assert status == 201 and answer["release"]["id"] == 1, "the same release"
    ended(server, answer["id"])
    again["config"] = {**SERVICE, "deploy": {**SERVICE["deploy"], "bake": "200ms"}}
    status, answer = server.api("POST", "/v1/deployments", again)
    assert status == 201 and answer["release"]["id"] == 2, "another config is another release"
    ended(server, answer["id"])


def test_what_cannot_be_deployed_changes_nothing(server, agent):
    good = wish(server, "v1")

    def refused(status, words, **change):
        code, answer = server.api("POST", "/v1/deployments", {**good, **change})
        assert code == status and words in answer["error"]["message"], answer
    refused(400, "host 'h9' is not known", config={**SERVICE, "hosts": ["h9"]})
    refused(400, "version", version="../v1")
    refused(404, "upload it first", artifact={**good["artifact"], "digest": "0" * 64})
    refused(400, "not declared in run.secrets", env_secrets={"X": "y"})
    refused(400, "has no value", config={**SERVICE, "run": {**SERVICE["run"], "secrets": ["DB"]}})
    refused(400, "comes with the config of", service="else")
    for words in ("helth", "; ", "keep: expected"):  # all at once, as lint says them
        refused(400, words, config={**SERVICE, "helth": 1, "deploy": {"keep": -1}})
    assert server.api("POST", "/v1/deployments", b"{")[0] == 400
    assert server.api("POST", "/v1/deployments", b"")[0] == 400
    agent.stop()
    assert server.api("GET", "/v1/deployments")[1]["deployments"] == []
    status, answer = server.api("POST", "/v1/plan", good)
    assert status in (502, 504) and "h1" in answer["error"]["message"]


def test_plan_is_shown_and_not_stored(server, agent):
    status, answer = server.api("POST", "/v1/plan", wish(server, "v1"))
    assert status == 200 and answer["plan"]["stages"] and "blue" in answer["text"]
    assert server.api("GET", "/v1/deployments")[1]["deployments"] == []
    assert agent.runs == []


def test_secrets_reach_the_instance_and_nothing_else(server, agent):
    sentinel = "sentinel-4711"
    config = {**SERVICE, "run": {**SERVICE["run"], "secrets": ["DB"]}}
    body = {**wish(server, "v1"), "config": config, "env_secrets": {"DB": sentinel}}
    status, answer = server.api("POST", "/v1/deployments", body)
    assert status == 201
    stream = events(server, answer["id"])
    assert stream[-1][2]["end"] == "done"
    starts = [c for c in agent.seen if c["task"] == "InstanceStart"]
    assert starts[0]["params"]["secrets"] == {"DB": sentinel}
    assert sentinel not in json.dumps(stream) and sentinel not in server.log("server")
    assert sentinel not in json.dumps(server.deployment(answer["id"]))
    server.kill("server", signal.SIGTERM)
    for path in (server.dir / "server").rglob("*"):
        if path.is_file():
            assert sentinel.encode() not in path.read_bytes(), path


# ---- agents may only what concerns them --------------------------------------------------------


def test_results_of_others_are_refused_and_repeats_change_nothing(server, agent):
    other = FakeAgent(server, "h2", server.join_token("h2"))
    assert other.hello()[0] == 200
    number = deploy(server, "v1")
    ended(server, number)
    records = [e[2] for e in events(server, number)]
    result = next(iter(agent.done.values()))
    status, answer, _ = other.post([{**result, "outcome": "failed"}])
    assert status == 403 and "was not sent to host h2" in answer["error"]["message"]
    status, answer, _ = agent.post([{**result, "outcome": "failed"}])
    assert status == 200 and answer["acked"] == [result["key"]], "a repeat is acknowledged"
    stranger = {"deployment": 999, "task": 1, "verb": "do", "attempt": 1}
    status, answer, _ = agent.post([{"key": stranger, "outcome": "done"}])
    assert status == 200 and answer["acked"] == [stranger], "so that an agent does not keep it for ever"
    assert [e[2] for e in events(server, number)] == records
    digest = hashlib.sha256(b"v1").hexdigest()
    assert agent.call("GET", f"/v1/agent/artifacts/{digest}")[1] == b"v1"
    assert agent.call("GET", f"/v1/agent/artifacts/{digest}", headers={"Range": "bytes=1-"})[1] == b"1"
    assert other.call("GET", f"/v1/agent/artifacts/{digest}")[0] == 403
    assert other.call("POST", "/v1/agent/stream/000000", {"lines": [], "end": True})[0] == 404


# ---- crashes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("fails", [False, True])
def test_killed_at_each_record_it_goes_on(server, agent, fails):
    """kill -9 of the server around every single result of a run, by turns before it was posted and after
    it was acknowledged: nothing is done twice, the run ends as it would have, and the stream has neither
    gap nor repeat."""
    assert ended(server, deploy(server, "v0"))["end"] == "done"
    if fails:
        agent.refuse["Bake"] = "5xx"
    agent.stop()
    starter = threading.Thread(target=agent.once, kwargs={"wait": "10s"})
    starter.start()  # the question what is there
    number = deploy(server, "v1")
    starter.join()
    kills = 0

    def again():
        server.kill("server")
        server.server()
    while kills < 200 and not server.deployment(number).get("end"):
        status, answer, _ = agent.poll("200ms")
        assert status == 200
        for ask in answer["asks"]:
            agent.answer(ask)
        for command in answer["commands"][:1]:
            agent.cursor = command["seq"]
            result = agent.run(command)
            kills += 1
            if kills % 2:
                again()
            status, acked, _ = agent.post([result])
            assert status == 200 and acked["acked"] == [result["key"]]
            if not kills % 2:
                again()
    one = ended(server, number)
    assert one["end"] == ("rolled_back" if fails else "done"), one
    assert len(agent.runs) == len(set(agent.runs)), "something was done twice"
    stream = events(server, number)
    cursors = [e[0] for e in stream if e[1] == "record"]
    assert cursors == sorted(set(cursors)) and stream[-1][1] == "end"
    assert sorted(r for r in agent.slots.values() if r) == [1 if fails else 2]
    assert kills >= 8


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
def test_full_disk_in_mid_run_loses_nothing(lab):
    """While nothing can be stored nothing is sent and no result is acknowledged; then the run goes on."""
    (lab.dir / "server").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "none", lab.dir / "server"], check=True)
    agent = None
    try:
        lab.server()
        agent = FakeAgent(lab, "h1", lab.join_token("h1")).start()
        poll("the fake agent is connected", lambda: lab.connected("h1"))
        agent.hold.add("HealthCheck")
        number = deploy(lab, "v1")
        poll("it waits for its health", lambda: any(t["kind"] == "HealthCheck" and t["state"] == "running"
                                                    for t in lab.deployment(number)["tasks"]))
        before = lab.deployment(number)["tasks"]
        with open(lab.dir / "server/filler", "wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(b"x" * 4096)
            except OSError:
                pass
        agent.hold.clear()
        agent.cursor = 0
        poll("the server says so", lambda: "nothing was sent" in lab.log("server"))
        assert lab.healthy()
        assert lab.deployment(number)["tasks"] == before
        (lab.dir / "server/filler").unlink()
        assert ended(lab, number)["end"] == "done"
        assert len(agent.runs) == len(set(agent.runs))
    finally:
        if agent:
            agent.stop()
        if "server" in lab.children:
            lab.kill("server", signal.SIGTERM)
        subprocess.run(["umount", "-l", lab.dir / "server"], check=True)


def test_lost_agent_is_noted_and_the_run_waits_for_it(server, agent):
    agent.hold.add("HealthCheck")
    number = deploy(server, "v1")
    poll("it waits for its health", lambda: any(c["task"] == "HealthCheck" for c in agent.seen_all))
    agent.stop()
    poll("the loss is in the journal", lambda: "no contact with its agent" in server.log("server"))
    agent.hold.clear()
    agent.cursor = 0
    agent.stop_.clear()
    agent.start()
    assert ended(server, number)["end"] == "done"
    kinds = [(e[2]["kind"], e[2].get("back")) for e in events(server, number) if e[1] == "record"]
    assert ("agent", False) in kinds


def test_deploy_timeout_aborts_and_rolls_back(server, agent):
    assert ended(server, deploy(server, "v1"))["end"] == "done"
    agent.hold.add("HealthCheck")
    status, answer = server.api("POST", "/v1/deployments", wish(
        server, "v2", config={**SERVICE, "deploy": {**SERVICE["deploy"], "timeout": "1s"}}))
    assert status == 201
    poll("it is aborted", lambda: "deploy.timeout" in json.dumps(server.deployment(answer["id"])))
    agent.hold.clear()
    agent.cursor = 0
    assert ended(server, answer["id"])["end"] == "rolled_back"
    assert agent.slots[("shop", "blue")] == 1


def test_stopping_answers_who_waits(server, agent):
    """SIGTERM while a stream, a log and a deployment are open: everyone is let go, nothing is left over."""
    agent.hold.add("HealthCheck")
    number = deploy(server, "v1")
    agent.answers = False
    opened = []
    for path in (f"/v1/deployments/{number}/events", "/v1/services/shop/logs?follow=1", "/v1/events"):
        connection = http.client.HTTPConnection("127.0.0.1", server.port("api"), timeout=60)
        connection.request("GET", path, headers={"Authorization": f"Bearer {server.token}"})
        opened.append((connection, connection.getresponse()))
    assert server.kill("server", signal.SIGTERM) == 0
    for connection, answer in opened:
        try:
            answer.read()
        except (OSError, http.client.HTTPException):
            pass
        connection.close()
    server.server()
    assert server.deployment(number)["phase"] == "running"


def test_unreadable_journal_keeps_its_lease_and_nobody_else_down(server, agent):
    agent.hold.add("HealthCheck")
    number = deploy(server, "v1")
    poll("it waits for its health", lambda: any(c["task"] == "HealthCheck" for c in agent.seen_all))
    server.kill("server", signal.SIGTERM)
    with sqlite3.connect(server.dir / "server/baton.db") as db:
        db.execute("UPDATE records SET body='{\"version\":1,\"kind\":\"dance\"}' WHERE kind='sent'")
    db.close()
    server.server()
    assert "not taken over, its lease stays" in server.log("server")
    poll("the fake agent is connected", lambda: server.connected("h1"))
    status, answer = server.api("POST", "/v1/deployments", wish(server, "v2"))
    assert status == 409 and answer["error"]["code"] == "lease", answer
    agent.hold.clear()
    other = {**SERVICE, "service": "other", "run": {**SERVICE["run"], "slots": {"blue": 18083, "green": 18084}},
             "traffic": {"nginx": {"on": "h1", "listen": "127.0.0.1:18090"}}}
    status, answer = server.api("POST", "/v1/deployments", {**wish(server, "v2"), "service": "other", "config": other})
    assert status == 201, answer
    assert ended(server, answer["id"])["end"] == "done"
    assert server.deployment(number)["error"]["code"] in ("corrupt", "protocol")


def test_restored_store_takes_a_new_id_and_raises_numbers(server, agent):
    assert ended(server, deploy(server, "v1"))["end"] == "done"
    old = server.api("GET", "/v1/health")[1]["store_id"]
    server.kill("server", signal.SIGTERM)
    copy = server.dir / "copy.db"
    shutil.copy(server.dir / "server/baton.db", copy)
    server.server()
    number = deploy(server, "v2")
    assert ended(server, number)["end"] == "done"
    generation = agent.pools["nginx/shop"]["generation"]
    token = max(c["token"] for c in agent.seen)
    agent.stop()
    server.kill("server", signal.SIGTERM)
    for name in ("baton.db-wal", "baton.db-shm"):
        (server.dir / "server" / name).unlink(missing_ok=True)
    shutil.copy(copy, server.dir / "server/baton.db")
    server.server()
    agent.stop_.clear()
    assert agent.hello(tokens={"shop": token}, generations={"nginx/shop": generation}, deployment=number)[0] == 200
    assert agent.store != old
    agent.start()
    poll("the agent is back", lambda: server.connected("h1"))
    again = deploy(server, "v3")
    assert again > number
    assert ended(server, again)["end"] == "done"
    assert agent.pools["nginx/shop"]["generation"] > generation
    assert min(c["token"] for c in agent.seen if c["key"]["deployment"] == again) > token


def test_a_second_server_on_the_directory_is_refused(server):
    done = server.baton("server", "run", "--dir", server.dir / "server", "--listen", "127.0.0.1:0", "--agent-listen",
                        "127.0.0.1:0", timeout=60)
    assert done.returncode != 0 and "runs on" in done.stderr
    done = server.baton("server", "init", "--dir", server.dir / "server")
    assert done.returncode != 0
    server.kill("server", signal.SIGTERM)
    done = server.baton("server", "run", "--dir", server.dir / "server", "--listen", "0.0.0.0:0", timeout=60)
    assert done.returncode != 0 and "without TLS only loopback" in done.stderr
