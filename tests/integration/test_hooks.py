"""deploy.hooks on real processes: order and environment, failures and how the run goes back, a program
that hangs or is missing, an agent or a supervisor killed in the middle of one, and approvals."""
import io
import json
import os
import pathlib
import signal
import tarfile

from lab import PYTHON, poll


def good(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def script(lab, name, *lines):
    path = lab.dir / name
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return str(path)


def hooks(lab, nginx=True, host="local", deploy=None, **lists):
    return lab.config(host=host, nginx=nginx, deploy={**(deploy or {}), "hooks": lists})


def told(lab, name="told"):
    path = lab.dir / name
    return path.read_text().splitlines() if path.exists() else []


def tasks(lab, number, kind):
    return [t for t in lab.deployment(number)["tasks"] if t["kind"] == kind]


def newest(lab):
    found = lab.deployments()
    return found[0]["id"] if found else 0


def asks(lab):
    """The number of the deployment that waits for an approval."""
    return poll("an approval is asked for", lambda: (number := newest(lab)) and any(
        t["state"] == "running" for t in tasks(lab, number, "Approve")) and number)


def supervisors(lab):
    """Pids of shims that watch a program of a task, by their arguments."""
    out = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            if os.getsid(int(pid)) != int(pid):  # its launcher, which is about to leave
                continue
        except OSError:
            continue
        if len(words) > 1 and words[0].endswith("baton-shim") and f"{lab.dir}/" in words[1] and "/tasks/" in words[1]:
            out.append(int(pid))
    return out


def test_order_environment_and_secrets(lab):
    say = script(lab, "say.sh",
                 'echo "$1 port=${BATON_PORT-none} slot=${BATON_SLOT-none} args=$2 $OWN $SHARED $(basename $PWD)"'
                 f' >> {lab.dir}/told', 'echo "the password is $PASSWORD"')
    lab.nginx()
    lab.config(run={"env": {"SHARED": "both"}, "secrets": ["PASSWORD"]}, deploy={"hooks": {
        "before": [{"run": [say, "before"], "env": {"OWN": "mine"}}, {"Exec": {"run": f"{say} second"}}],
        "before_switch": [{"run": [say, "smoke", "{slot}:{port}:{release}"], "on": "each instance"}],
        "after_switch": [{"run": [say, "after"]}], "on_failure": [{"run": [say, "failed"]}]}})
    lab.up()
    plan = good(lab.baton("plan")).stdout
    places = [plan.index(words) for words in ("prepare\n", "before, 1 of 2", "before, 2 of 2", "start: ", "check\n",
                                              "before the switch", "cutover\n", "after the switch", "bake\n",
                                              "on failure: only if")]
    assert places == sorted(places), plan
    good(lab.deploy("v1", env={"PASSWORD": "hunter2hunter2"}))
    port = lab.port("shop-green")
    assert told(lab) == ["before port=none slot=none args= mine both 1", "second port=none slot=none args=  both 1",
                         f"smoke port={port} slot=green args=green:{port}:v1  both 1",
                         f"after port={port} slot=green args=  both 1"]
    log = lab.api("GET", "/v1/deployments/1/log")[1]
    assert log.count("| the password is ") == 4, log
    assert "hunter2" not in log + lab.log("up"), "a secret is in a log"
    assert not list((lab.dir / "state").glob("agent/tasks/*")), "the programs left something behind"


def test_ports_by_name_on_a_named_host(lab):
    say = script(lab, "say.sh", f'echo "$*" >> {lab.dir}/told')
    lab.config(nginx=False, run={"slots": {"blue": {"port": lab.port("a"), "admin": lab.port("b")},
                                           "green": {"port": lab.port("c"), "admin": lab.port("d")}}},
               deploy={"hooks": {"before_switch": [{"run": [say, "{slot}", "{port}", "{port.admin}"], "on": "local"}]}})
    lab.up()
    good(lab.deploy("v1"))
    assert told(lab) in ([f"blue {lab.port('a')} {lab.port('b')}"], [f"green {lab.port('c')} {lab.port('d')}"])


def test_each_host_and_once_over_two_hosts(lab):
    say = script(lab, "say.sh", f'echo "$BATON_HOST $1" >> {lab.dir}/told', '[ "$BATON_HOST $1" != "was2 each" ]')
    lab.config(nginx=False, hosts=["was1", "was2"], deploy={"hooks": {
        "before": [{"run": [say, "once"]}, {"run": [say, "each"], "on": "each host"}, {"run": [say, "late"]}],
        "on_failure": [{"run": [say, "sorry"], "on": "was2"}]}})
    lab.server()
    lab.agent("was1")
    lab.agent("was2")
    done = lab.deploy("v1")
    assert done.returncode == 1 and "on was2: exit code 1" in done.stdout.splitlines()[-1], done.stdout
    said = told(lab)
    assert said[0] == "was1 once" and sorted(said[1:3]) == ["was1 each", "was2 each"] and said[3:] == ["was2 sorry"], said


def test_a_failing_hook_goes_back_under_load(lab):
    note = script(lab, "note.sh", f'echo "$1" >> {lab.dir}/told')
    fail = script(lab, "fail.sh", "echo checking the new slot", "echo it is broken >&2", "exit 7")
    lab.nginx()
    hooks(lab, on_failure=[{"run": [note, "told"]}])
    lab.up()
    good(lab.deploy("v1"))
    assert not told(lab), "on_failure ran without a failure"
    with lab.load() as load:
        for place, switches in (("before", 0), ("before_switch", 0), ("after_switch", 2)):
            (lab.dir / "told").unlink(missing_ok=True)
            hooks(lab, on_failure=[{"run": [note, "told"]}, {"run": ["./no-such-program"]}],
                  **{place: [{"run": [fail]}]})
            done = lab.deploy(f"v-{place}")
            assert done.returncode == 1, done.stdout + done.stderr
            last = done.stdout.splitlines()[-1]
            assert "exit code 7" in last and "fail.sh" in last, last
            assert "│ it is broken" in done.stdout, done.stdout
            assert "./no-such-program" in done.stdout, "a failure of on_failure is said"
            assert told(lab) == ["told"], (place, told(lab))
            sent = [t for t in tasks(lab, newest(lab), "Switch") if t["state"] == "done"]
            assert len(sent) == switches, (place, sent)
            assert lab.ask() == "v1"
    assert load.failed == 0, load.summary()
    states = {r["version"]: r["state"] for r in lab.api("GET", "/v1/services/shop/releases")[1]["releases"]}
    assert states["v1"] == "good" and states["v-before_switch"] == "bad", states


def test_a_hook_that_hangs_is_ended_with_all_that_it_started(lab):
    # a child that holds the output, and one that left for a session of its own
    hang = script(lab, "hang.sh", f"sleep 1000 & echo $! >> {lab.dir}/pids",
                  f"setsid sh -c 'trap \"\" TERM; echo $$ >> {lab.dir}/pids; sleep 1001' &",
                  "echo begun", "sleep 1002")
    lab.nginx()
    hooks(lab, before_switch=[{"run": [hang], "timeout": "1s"}])
    lab.up()
    done = lab.deploy("v1")
    assert done.returncode == 1, done.stdout
    assert "not done within 1s" in done.stdout.splitlines()[-1], done.stdout
    pids = [int(p) for p in told(lab, "pids")]
    assert len(pids) == 2
    assert not [p for p in pids if pathlib.Path(f"/proc/{p}").exists()], "something of the hook still runs"


def test_a_hook_that_is_missing_says_so(lab):
    lab.nginx()
    hooks(lab, before=[{"run": ["./migrate.sh", "--up"]}])
    lab.up()
    done = lab.deploy("v1")
    assert done.returncode == 1
    assert "run ./migrate.sh: No such file or directory" in done.stdout.splitlines()[-1], done.stdout


def test_a_child_left_behind_does_not_hold_the_run(lab):
    """It went away in good order, with its output elsewhere: a hook leaves nothing running, and is good."""
    leave = script(lab, "leave.sh", f"setsid sleep 1000 </dev/null >/dev/null 2>&1 & echo $! > {lab.dir}/pids", "exit 0")
    lab.nginx()
    hooks(lab, before=[{"run": [leave]}])
    lab.up()
    good(lab.deploy("v1"))
    assert not pathlib.Path(f"/proc/{told(lab, 'pids')[0]}").exists()


def test_a_child_that_holds_the_output_makes_a_hook_fail(lab):
    leave = script(lab, "leave.sh", f"sleep 1000 & echo $! >> {lab.dir}/pids", "exit 0")
    lab.nginx()
    hooks(lab)
    lab.up()
    good(lab.deploy("v1"))
    hooks(lab, before_switch=[{"run": [leave]}])
    done = lab.deploy("v2")
    last = done.stdout.splitlines()[-1]
    assert done.returncode == 1 and "leave.sh" in last and "exit code 0" in last, done.stdout + done.stderr
    pid = told(lab, "pids")[0]
    assert f"sleep (pid {pid})" in last and "holds its output" in last, last
    assert not pathlib.Path(f"/proc/{pid}").exists()
    assert lab.ask() == "v1"


def test_who_filters_the_output_of_a_hook_has_the_last_word(lab):
    """As scripts keep a log of their own: the filter ends after them, and nothing of it is lost."""
    say = lab.dir / "say.sh"
    say.write_text(f"#!/bin/bash\nexec > >(sleep 0.3; tee {lab.dir}/told) 2>&1\necho the last word\n")
    say.chmod(0o755)
    lab.nginx()
    hooks(lab, before=[{"run": [str(say)]}])
    lab.up()
    good(lab.deploy("v1"))
    assert told(lab) == ["the last word"]
    assert "| the last word" in lab.api("GET", "/v1/deployments/1/log")[1]


def slow(lab):
    """Says that it began, waits for a file, says that it ended."""
    return script(lab, "slow.sh", f"echo begun >> {lab.dir}/told",
                  f"while ! [ -e {lab.dir}/go ]; do sleep 0.05; done", f"echo ended >> {lab.dir}/told", "echo all done")


def test_an_agent_killed_in_the_middle_of_a_hook_finds_it_again(lab):
    lab.nginx()
    hooks(lab, host="was1", before_switch=[{"run": [slow(lab)]}])
    lab.server()
    lab.agent("was1")
    run = lab.start_deploy("v1")
    poll("the hook runs", lambda: told(lab) == ["begun"])
    lab.kill("agent-was1")
    (lab.dir / "go").touch()  # it ends while nobody but its supervisor is there
    poll("the hook has ended", lambda: told(lab) == ["begun", "ended"] and not supervisors(lab))
    lab.agent("was1")
    out = run.communicate(timeout=90)[0]
    assert run.returncode == 0, out
    assert told(lab) == ["begun", "ended"], "it was run again"
    assert "| all done" in lab.api("GET", "/v1/deployments/1/log")[1]
    (lab.dir / "go").unlink()
    run = lab.start_deploy("v2")  # and one that still runs when the agent is back
    poll("the hook runs", lambda: len(told(lab)) == 3)
    lab.kill("agent-was1")
    lab.agent("was1")
    (lab.dir / "go").touch()
    out = run.communicate(timeout=90)[0]
    assert run.returncode == 0, out
    assert told(lab) == ["begun", "ended"] * 2


def test_nobody_saw_its_end_so_a_person_is_asked(lab):
    lab.nginx()
    hooks(lab, before=[{"run": [slow(lab)]}])
    lab.up()
    run = lab.start_deploy("v1")
    poll("the hook runs", lambda: told(lab) == ["begun"])
    os.kill(poll("its supervisor is there", lambda: supervisors(lab))[0], signal.SIGKILL)
    (lab.dir / "go").touch()
    out = run.communicate(timeout=90)[0]
    assert run.returncode == 3, out
    assert lab.deployment(1)["phase"] == "parked"
    assert told(lab) == ["begun", "ended"], "it was repeated though nobody wanted it"
    good(lab.baton("resume", "1"))
    poll("the run ends", lambda: lab.deployment(1)["phase"] == "ended")
    assert lab.deployment(1)["end"] == "done"
    assert told(lab) == ["begun", "ended"] * 2
    assert lab.ask() == "v1"


def test_what_says_repeat_safe_is_repeated(lab):
    lab.nginx()
    hooks(lab, before=[{"run": [slow(lab)], "repeat": "safe"}])
    lab.up()
    run = lab.start_deploy("v1")
    poll("the hook runs", lambda: told(lab) == ["begun"])
    os.kill(poll("its supervisor is there", lambda: supervisors(lab))[0], signal.SIGKILL)
    (lab.dir / "go").touch()
    out = run.communicate(timeout=90)[0]
    assert run.returncode == 0, out
    assert told(lab) == ["begun", "ended"] * 2


def test_a_host_whose_owner_allows_no_programs(lab):
    (lab.dir / "policy.yaml").write_text("exec: false\n")
    (lab.dir / "policy.yaml").chmod(0o644)
    say = script(lab, "say.sh", f"echo said >> {lab.dir}/told")
    lab.nginx()
    hooks(lab, host="was1", before=[{"run": [say]}])
    lab.server()
    assert lab.join("was1", lab.join_token("was1")).returncode == 0
    lab.start("agent-was1", "agent", "run", "--dir", lab.dir / "agent-was1", "--own-machine", "--policy",
              lab.dir / "policy.yaml")
    poll("the agent connects", lambda: lab.connected("was1"))
    for done in (lab.baton("plan"), lab.deploy("v1")):
        assert done.returncode == 1, done.stdout + done.stderr
        line = done.stderr.strip().splitlines()[-1]
        assert "deploy.hooks.before" in line and "was1" in line and "policy.yaml" in line and "exec" in line, line
    assert not lab.deployments() and not told(lab)


def test_approve_and_reject(lab):
    lab.nginx()
    hooks(lab, before_switch=[{"Approve": {"within": "10m"}}])
    lab.up()
    refused = lab.baton("approve", "shop")
    assert refused.returncode != 0, refused.stdout
    run = lab.start_deploy("v1")
    number = asks(lab)
    assert lab.ask() != "v1", "it serves before it was approved"
    good(lab.baton("approve", "shop", "-m", "looks good"))
    out = run.communicate(timeout=60)[0]
    assert run.returncode == 0, out
    assert "approved by admin: looks good" in out
    again = lab.baton("approve", number)
    assert again.returncode == 1 and "has ended" in again.stderr, again.stderr
    run = lab.start_deploy("v2")
    number = asks(lab)
    good(lab.baton("reject", number, "-m", "not on a Friday"))
    out = run.communicate(timeout=60)[0]
    assert run.returncode == 1, out
    assert "rejected by admin: not on a Friday" in out.splitlines()[-1]
    assert lab.ask() == "v1"
    audit = lab.api("GET", "/v1/audit")[1]["entries"] if "entries" in lab.api("GET", "/v1/audit")[1] else \
        lab.api("GET", "/v1/audit")[1]
    assert "not on a Friday" in json.dumps(audit)


def test_an_approval_that_nobody_gives(lab):
    lab.nginx()
    hooks(lab, after_switch=[{"Approve": {"within": "2s"}}])
    lab.up()
    run = lab.start_deploy("v1")
    asks(lab)
    lab.kill("up")  # its time runs on while the server is away
    lab.up()
    out = run.communicate(timeout=90)[0]
    assert run.returncode == 1, out
    assert "nobody approved within 2s" in out.splitlines()[-1], out
    poll("nothing of it is left", lambda: not [i for h in lab.service()["world"]["hosts"] for i in h["instances"]
                                               if i.get("state") == "running"])


def test_a_viewer_may_not_approve(lab):
    lab.nginx()
    hooks(lab, before=[{"Approve": {"within": "10m"}}])
    lab.up()
    token = good(lab.baton("token", "create", "eve", "--role", "viewer")).stdout.split()[-1]
    run = lab.start_deploy("v1")
    number = asks(lab)
    assert lab.api("POST", f"/v1/deployments/{number}/approve", {}, token=token)[0] == 403
    status, answer = lab.api("POST", f"/v1/deployments/{number}/approve", {"why": "x" * 600})
    assert status == 400 and "why" in json.dumps(answer)
    assert lab.api("POST", f"/v1/deployments/{number}/approve", {"why": "fine"})[0] == 202
    assert run.wait(60) == 0


def release_with(lab, **scripts):
    """An archive with the app and, beside it, scripts: name=(mode, text)."""
    path = lab.dir / "shop.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(lab.artifact("v1"), "app.py")
        for name, (mode, text) in scripts.items():
            info = tarfile.TarInfo(f"bin/{name}")
            info.mode, info.size = mode, len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return path


def deploy_with(lab, hook, **scripts):
    lab.config(nginx=False, artifact="shop.tar.gz", deploy={"hooks": {"before": [hook]}},
               run={"command": f"{PYTHON} app.py --port {{port}} --slot {{slot}}"})
    release_with(lab, **scripts)
    if "up" not in lab.children:
        lab.up()
    return lab.baton("deploy", "shop", "--artifact", "shop.tar.gz", "--version", f"v{newest(lab) + 1}")


def test_a_script_of_the_release_itself(lab):
    """It is found in the release's directory, and its first line says who runs it."""
    text = (f"#!{PYTHON} -E\nimport os, sys\nprint(sys.argv[1:], os.environ['OWN'], file=open({str(lab.dir / 'told')!r}, 'w'))\n"
            "print('from', os.path.realpath(sys.argv[0]) == os.path.realpath('bin/up'))\n")
    good(deploy_with(lab, {"run": ["./bin/up", "--to", "{release}", "$HOME; *"], "env": {"OWN": "mine"}}, up=(0o755, text)))
    assert told(lab) == ["['--to', 'v1', '$HOME; *'] mine"], "no shell looks at the words"
    assert "| from True" in lab.api("GET", "/v1/deployments/1/log")[1]


def test_a_script_of_the_release_that_cannot_run(lab):
    hook = {"run": ["./bin/up"]}
    for scripts, words in (({"up": (0o644, "#!/bin/sh\n")}, "Permission denied"),
                           ({"up": (0o755, "#!/no/such/interpreter\n")}, "its interpreter is missing"),
                           ({"down": (0o755, "#!/bin/sh\n")}, "No such file")):
        done = deploy_with(lab, hook, **scripts)
        last = done.stdout.splitlines()[-1]
        assert done.returncode == 1 and "./bin/up" in last and words in last, done.stdout + done.stderr
        assert not [i for h in lab.service()["world"]["hosts"] for i in h["instances"] if i["state"] == "running"]


def test_a_script_of_the_release_past_its_time(lab):
    """A child of it holds its output, and does not hear TERM; the log of both is kept."""
    text = ("#!/bin/sh\n"
            f"sh -c 'trap \"\" TERM; echo the child holds on; echo $$ >> {lab.dir}/pids; while :; do sleep 1; done' &\n"
            f"echo $$ >> {lab.dir}/pids\necho the script waits\nwait\n")
    done = deploy_with(lab, {"run": ["./bin/up"], "timeout": "1s"}, up=(0o755, text))
    last = done.stdout.splitlines()[-1]
    assert done.returncode == 1 and "./bin/up" in last and "not done within 1s" in last, done.stdout
    pids = [int(p) for p in told(lab, "pids")]
    assert len(pids) == 2 and not [p for p in pids if pathlib.Path(f"/proc/{p}").exists()]
    log = lab.api("GET", "/v1/deployments/1/log")[1]
    assert "| the script waits" in log and "| the child holds on" in log, log
    assert not list((lab.dir / "state").glob("agent/tasks/*")), "the program left something behind"
    good(deploy_with(lab, {"run": ["./bin/up"]}, up=(0o755, "#!/bin/sh\nexit 0\n")))
