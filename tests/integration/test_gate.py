"""Who may begin: locks, freezes by the calendar, and the queue of deployments that wait for their turn."""
import datetime
import hashlib
import json
import signal

from lab import poll


def good(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def refused(done, *words, code=1):
    assert done.returncode == code, done.stdout + done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert all(w in line for w in words), line


def plain(lab, **deploy):
    lab.config(nginx=False, deploy={"bake": "0s", "drain": "0s", **deploy})


def slow(lab):
    """A service whose deployments wait for an approval before they start anything."""
    plain(lab, hooks={"before": [{"Approve": {"within": "10m"}}]})


def begun(lab, n):
    """Waits until the n-th deployment asks for its approval."""
    poll(f"deployment {n} asks", lambda: len(lab.deployments()) == n and any(
        t["kind"] == "Approve" and t["state"] == "running" for t in lab.deployment(n)["tasks"]))


def token(lab, name, *args):
    return good(lab.baton("token", "create", name, *args)).stdout.split()[-1]


def queue_ids(lab):
    """The number of a ticket that was just given out, and back."""
    ticket = lab.api("POST", "/v1/services/shop/queue")[1]["ticket"]
    lab.api("DELETE", f"/v1/services/shop/queue/{ticket}")
    return ticket


def queue(lab, service="shop"):
    """How many wait: the place of a new ticket, which leaves again."""
    ticket = lab.api("POST", f"/v1/services/{service}/queue")[1]
    lab.api("DELETE", f"/v1/services/{service}/queue/{ticket['ticket']}")
    return ticket["place"] - 1


def test_a_lock_is_kept_and_says_who_and_why(lab):
    plain(lab)
    lab.up()
    refused(lab.baton("lock", "shop", "-m", "x"), "no service 'shop'", code=2)
    good(lab.deploy("v1"))
    good(lab.deploy("v2"))
    refused(lab.baton("lock", "shop"), "-m", code=2)
    good(lab.baton("lock", "shop", "-m", "stock-taking until six"))
    lab.kill("up")
    lab.up()
    for done in (lab.deploy("v3"), lab.baton("rollback", "shop")):
        refused(done, "shop is locked by admin since", "stock-taking until six", "baton unlock shop")
    assert len(lab.deployments()) == 2
    assert good(lab.baton("plan")).stdout, "a plan changes nothing, so it may be made"
    status = good(lab.baton("status")).stdout
    assert "shop is locked by admin since" in status and "stock-taking" in status, status
    assert lab.service()["locked"]["why"] == "stock-taking until six"
    jenkins = token(lab, "jenkins")
    refused(lab.deploy("v3", "--force", env={"BATON_TOKEN": jenkins}), "only an admin may force past it")
    refused(lab.baton("lock", "shop", "-m", "me too", BATON_TOKEN=jenkins), "locked by admin already")
    good(lab.deploy("v3", "--force"))
    assert "force" in json.dumps(lab.api("GET", "/v1/audit")[1])
    good(lab.baton("unlock", "shop", BATON_TOKEN=jenkins))
    refused(lab.baton("unlock", "shop"), "is not locked", code=2)
    good(lab.deploy("v4"))
    assert "locked" not in lab.service()


def test_a_lock_leaves_what_runs_to_its_operators(lab):
    slow(lab)
    lab.up()
    run = lab.start_deploy("v1")
    begun(lab, 1)
    good(lab.baton("lock", "shop", "-m", "nothing new"))
    good(lab.baton("abort", "1"))
    run.communicate(timeout=60)
    assert run.returncode == 1
    refused(lab.deploy("v2"), "shop is locked")


def test_a_freeze_refuses_until_it_ends_and_an_admin_may_force(lab):
    plain(lab)
    lab.up()
    good(lab.deploy("v1"))
    good(lab.deploy("v2"))
    for window in ("Friday", "2026-12-20", "22:00-22:00"):
        refused(lab.baton("freeze", "add", window, "-m", "x"), "Fri 16:00-Mon 08:00", window, code=2)
    refused(lab.baton("freeze", "add", "22:00-06:00", "-m", "x", "--zone", "Seoul"), "+09:00", code=2)
    refused(lab.baton("freeze", "add", "22:00-06:00"), "-m", code=2)
    assert "no freezes" in good(lab.baton("freeze", "list")).stdout
    today = datetime.datetime.now(datetime.timezone.utc).date()
    window = f"{today}..{today + datetime.timedelta(days=2)}"
    end = f"{today + datetime.timedelta(days=3)} 00:00 (+00:00)"
    good(lab.baton("freeze", "add", window, "-m", "other people", "--service", "api-*", "--zone", "UTC"))
    good(lab.deploy("v3"))
    good(lab.baton("freeze", "add", window, "-m", "holidays", "--service", "sho*", "--zone", "UTC"))
    lab.kill("up")
    lab.up()
    refused(lab.deploy("v4"), "shop is frozen until", end, "holidays", "--force")
    assert end in good(lab.baton("status")).stdout
    assert lab.service()["frozen"]["why"] == "holidays"
    good(lab.baton("rollback", "shop"))  # going back is what a freeze must not keep one from
    jenkins = token(lab, "jenkins")
    refused(lab.deploy("v4", "--force", env={"BATON_TOKEN": jenkins}), "only an admin may force past it")
    refused(lab.baton("freeze", "add", window, "-m", "x", BATON_TOKEN=jenkins), "role of the token")
    good(lab.deploy("v4", "--force"))
    listed = good(lab.baton("freeze", "list")).stdout
    assert "sho*" in listed and window in listed, listed
    good(lab.baton("freeze", "remove", "2"))
    refused(lab.baton("freeze", "remove", "2"), "no freeze 2", code=2)
    good(lab.deploy("v5"))


def waiting(lab, run, text):
    """Reads what a client says until it has said so."""
    seen = []
    for line in run.stdout:
        seen.append(line)
        if text in line:
            return line
    raise AssertionError(f"it never said {text!r}:\n" + "".join(seen))


def test_three_deployers_go_in_the_order_in_which_they_came(lab):
    slow(lab)
    lab.up()
    first = lab.start_deploy("v1")
    begun(lab, 1)
    refused(lab.deploy("v9"), "is held by deployment 1", code=4)  # without --wait, at once
    runs = []
    for n, version in enumerate(("v2", "v3", "v4")):
        runs.append(lab.start_deploy(version, "--wait", env={"BATON_TOKEN": token(lab, f"ci-{n}")}))
        poll("it is in the queue", lambda: queue(lab) == n + 1)
    assert "held by deployment 1" in waiting(lab, runs[0], "waiting, next")
    waiting(lab, runs[2], "waiting, 2 before us")
    lab.kill("up")
    lab.up()
    assert queue(lab) == 3, "the queue did not survive the server's restart"
    runs[1].send_signal(signal.SIGINT)  # one has enough
    out = runs[1].communicate(timeout=60)[0]
    assert runs[1].returncode == 130 and "nothing was changed" in out, out
    poll("it has left", lambda: queue(lab) == 2)
    for number, (run, version) in enumerate(((first, "v1"), (runs[0], "v2"), (runs[2], "v4")), 1):
        begun(lab, number)
        assert lab.deployment(number)["version"] == version
        if number == 1:  # nobody jumps the queue in between
            good(lab.baton("approve", number))
        else:
            good(lab.baton("approve", number))
        out = run.communicate(timeout=60)[0]
        assert run.returncode == 0, out
    assert len(lab.deployments()) == 3 and queue(lab) == 0


def test_a_turn_that_nobody_takes_passes_on_and_waiting_has_a_limit(lab):
    slow(lab)
    lab.up()
    run = lab.start_deploy("v1")
    begun(lab, 1)
    done = lab.deploy("v2", "--wait=1s")
    refused(done, "not our turn within 1s", "deployment 1", code=4)
    assert queue(lab) == 0
    gone = lab.start_deploy("v3", "--wait")
    poll("it is in the queue", lambda: queue(lab) == 1)
    lab.kill(f"client {gone.pid}")  # without a word; its place is given up after a while
    assert "shop waits for an approval: `baton approve 1`" in good(lab.baton("status")).stdout
    good(lab.baton("approve", "1"))
    assert run.wait(60) == 0
    assert "waits for an approval" not in good(lab.baton("status")).stdout
    refused(lab.deploy("v4"), "the turn is admin's", code=4)
    stranger = token(lab, "stranger")  # a ticket is good for who has it
    data = lab.artifact("v1").read_bytes()
    for ticket in range(1, queue_ids(lab)):
        status, answer = lab.api("POST", "/v1/deployments", {
            "service": "shop", "version": "v4", "config": lab.services["shop"], "ticket": ticket, "artifact": {
                "digest": hashlib.sha256(data).hexdigest(), "size": len(data), "file_name": "x.py"}}, token=stranger)
        assert status >= 400 and "the turn is admin's" in json.dumps(answer), (status, answer)
    last = lab.start_deploy("v5", "--wait")
    begun(lab, 2)
    good(lab.baton("approve", "2"))
    assert last.wait(60) == 0
    refused(lab.deploy("v6", "--wait=soon"), "--wait", code=2)
