"""examples/jenkins: the Jenkinsfiles, run whole in Groovy 2.4 (pipeline.groovy), and the freestyle steps, as Jenkins
runs them: `sh -xe` with a file, no terminal, no input, hardly an environment, in a group of its own that gets TERM
and then KILL when a person aborts the build. Jenkins and Gradle are not here: what stands in for them are
pipeline.groovy, the runner of steps below and a `gradlew` that copies the app."""
import json
import os
import pathlib
import re
import signal
import subprocess

import pytest

from lab import BATON, HERE, poll
from steps import good

EXAMPLES = HERE.parents[1] / "examples/jenkins"
JAVA_HOME = str(pathlib.Path("/usr/bin/java").resolve().parents[1])
CASES = re.compile(r"case (\d+):")


class Step:
    """One sh step of a Jenkinsfile: its stage, its script, and whether the token is there while it runs."""

    def __init__(self, text, at, script):
        before = text[:at]
        self.stage = re.findall(r"stage\('(\w+)'\)", before)[-1]
        self.status = before.rstrip().endswith("script:")  # its exit code is looked at, not just 0 or not
        open_ = before.rfind("withCredentials(")
        inside = text[open_:at] if open_ >= 0 else ""
        self.token = bool(inside) and inside.count("{") > inside.count("}")
        self.script = script


def steps_of(example):
    """The sh '''…''' and sh(…, script: '''…''') of a Jenkinsfile, in order."""
    text = (EXAMPLES / example / "Jenkinsfile").read_text()
    found = [Step(text, m.start(1), m[2]) for m in re.finditer(r"\bsh[ (][^'{}\n]*('''(.*?)''')", text, re.S)]
    assert len(found) == len(re.findall(r"\bsh\b[ (]", text)), "a step that this test does not understand"
    assert not any("\\" in step.script for step in found), "Groovy would take the backslash"
    return found


class Job:
    """A build of a job: its workspace, and what Jenkins puts into the environment."""

    def __init__(self, lab, number=1, **more):
        self.lab, self.number = lab, number
        self.place = lab.dir / "workspace"
        self.place.mkdir(exist_ok=True)
        self.token = good(lab.baton("token", "create", f"jenkins-{number}", "--service", "*")).stdout.split()[-1]
        self.env = {"PATH": f"{BATON.parent}:/usr/bin:/bin", "HOME": str(lab.dir / "home"), "WORKSPACE": str(self.place),
                    "BUILD_URL": f"https://ci.example.com/job/x/{number}/", "BUILD_NUMBER": str(number), "JOB_NAME": "x",
                    "BATON_SERVER": lab.url, **more}

    def gradlew(self, version, where=".", name="app.jar", **settings):
        """What `./gradlew` makes of the checkout."""
        (self.place / where).mkdir(exist_ok=True)
        wrapper = self.place / where / "gradlew"
        wrapper.write_text(f"#!/bin/sh -e\n[ $1 = clean ]\nrm -rf build\nmkdir -p build/libs\n"
                           f"cp {self.lab.artifact(version, **settings)} build/libs/{name}\n")
        wrapper.chmod(0o755)

    def begin(self, script, token=True):
        number = len(list(self.lab.dir.glob("step-*.sh")))
        path = self.lab.dir / f"step-{number}.sh"
        path.write_text(script)
        env = {**self.env, **({"BATON_TOKEN": self.token} if token else {})}
        child = subprocess.Popen(["sh", "-xe", path], cwd=self.place, env=env, stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        self.lab.children[f"step {number}"] = child
        return child

    def end(self, child):
        """Exit code and console of a step; what must hold for every console."""
        said = child.communicate(timeout=180)[0].decode()
        assert self.token not in said, "the token is on the console"
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", said), f"a control character on the console:\n{said!r}"
        return child.returncode, said

    def step(self, script, token=True):
        return self.end(self.begin(script, token))

    def build(self, example, **env):
        """The whole pipeline: the build's result, and its console without the controller's last word."""
        for name in ("scripts", "archive"):
            (self.lab.dir / name).mkdir(exist_ok=True)
        about = self.lab.dir / f"build-{self.number}.json"
        about.write_text(json.dumps({
            "workspace": str(self.place), "env": {**self.env, **env}, "credentials": {"baton-token": self.token},
            "scripts": str(self.lab.dir / "scripts"), "archive": str(self.lab.dir / "archive")}))
        child = subprocess.Popen(["groovy", HERE / "pipeline.groovy", EXAMPLES / example / "Jenkinsfile", about],
                                 env={"PATH": "/usr/bin:/bin", "HOME": str(self.lab.dir), "JAVA_HOME": JAVA_HOME,
                                      "JAVA_OPTS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}, stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        self.lab.children[f"build {self.number}"] = child
        code, said = self.end(child)
        assert code == 0, said
        *console, finished = said.splitlines()
        return finished.removeprefix("Finished: "), "\n".join(console)

    def deploy_step(self, example):
        return next(s for s in steps_of(example) if s.status)

    def deployed(self, example):
        """The steps alone, without their pipeline, to begin with."""
        for step in steps_of(example):
            code, said = self.step(step.script, step.token)
            assert code == 0, said


def abort(child):
    os.killpg(child.pid, signal.SIGTERM)


def blog(lab, **deploy):
    lab.nginx("dev-blog")
    lab.config("dev-blog", deploy=deploy)
    lab.up()
    job = Job(lab)
    (job.place / "baton.yaml").write_text((lab.dir / "baton.yaml").read_text())
    return job


def live(lab, name):
    return lab.service(name)["release"]["version"]


@pytest.mark.parametrize("example", ["flow", "blog", "momo"])
def test_the_pipelines_say_what_each_exit_code_means(example):
    text = (EXAMPLES / example / "Jenkinsfile").read_text()
    assert {int(c) for c in CASES.findall(text)} == {0, 3, 4} and "default: error" in text
    assert "BATON_SERVER = 'https://" in text and "bt_" not in text
    looked_at = [s for s in steps_of(example) if s.status]
    assert len(looked_at) == 1 and looked_at[0].token and "exec baton" in looked_at[0].script
    assert all(s.token for s in steps_of(example) if "baton " in s.script)
    freestyle = (EXAMPLES / example / "freestyle.sh").read_text()
    for line in looked_at[0].script.splitlines():  # the same command in both
        assert line.strip() in freestyle


def test_blog_deploys_and_goes_back(lab):
    job = blog(lab)
    job.gradlew("v1")
    result, said = job.build("blog")
    assert result == "SUCCESS" and "deployed dev-blog 1" in said.splitlines()[-1], said
    assert lab.ask() == "v1"
    by = lab.deployments("dev-blog")[0]["by"]
    assert job.env["BUILD_URL"] in str(by), by
    with lab.load(rate=60) as load:
        job = Job(lab, 2)
        job.gradlew("v2")
        code, said = job.step((EXAMPLES / "blog/freestyle.sh").read_text())
        assert code == 0, said
        job = Job(lab, 3)
        job.gradlew("bad", healthy=False)
        (job.place / "baton.yaml").write_text((job.place / "baton.yaml").read_text().replace('"within": "30s"', '"within": "2s"'))
        result, said = job.build("blog")
        assert result == "FAILURE" and "rolled back" in said.splitlines()[-2], said
        assert said.splitlines()[-1] == "ERROR: not deployed: exit code 1"
    assert load.failed == 0, load.summary()
    assert lab.ask() == "v2" and live(lab, "dev-blog") == "2"


def test_a_build_that_is_aborted_goes_back(lab):
    """TERM to the group, and KILL before the client has seen the end: the run ends on the server."""
    job = blog(lab)
    job.gradlew("v1")
    job.deployed("blog")
    for number, kill in ((2, False), (3, True)):
        job = Job(lab, number)
        job.gradlew(f"v{number}", start_delay=30)
        before = lab.deployments("dev-blog")[0]["id"]
        assert job.step("./gradlew clean bootJar", token=False)[0] == 0
        with lab.load(rate=60) as load:
            child = job.begin(job.deploy_step("blog").script)
            run = poll("the run begins", lambda b=before: (d := lab.deployments("dev-blog")[0])["id"] != b and d["id"])
            poll("the new one starts", lambda: any(i.get("state") == "running" and i["release"] == number for h in lab.service(
                "dev-blog")["world"]["hosts"] for i in h["instances"]))
            abort(child)
            if kill:
                poll("the server goes back", lambda r=run: lab.deployment(r)["phase"] != "running")
                os.killpg(child.pid, signal.SIGKILL)
            code, said = job.end(child)
            assert code == (-signal.SIGKILL if kill else 130), said
            poll("the run ends", lambda r=run: lab.deployment(r)["phase"] == "ended")
            assert lab.deployment(run)["end"] == "rolled_back"
            assert lab.ask() == "v1" and live(lab, "dev-blog") == "1"
        assert load.failed == 0, load.summary()


def test_a_person_is_needed(lab):
    """What fails once the new one serves stays so where the config says `halt`."""
    job = blog(lab, on_failure="halt", hooks={"after_switch": [{"run": ["/bin/test", "{release}", "!=", "2"]}]})
    job.gradlew("v1")
    job.deployed("blog")
    job = Job(lab, 2)
    job.gradlew("v2")
    result, said = job.build("blog")
    assert result == "UNSTABLE" and "baton show 2" in said, said
    assert lab.deployment(2)["end"] == "halted" and lab.ask() in ("v1", "v2")


def momo(lab):
    lab.nginx("momo")
    lab.config("momo", artifact="backend/build/libs/momo-*.jar", health={"within": "5m"})
    lab.up()
    job = Job(lab, GIT_COMMIT="0123456789abcdef0123456789abcdef01234567")
    (job.place / "baton.yaml").write_text((lab.dir / "baton.yaml").read_text())
    return job


def test_momo_plans_and_deploys_the_commit(lab):
    job = momo(lab)
    job.gradlew("v1", "backend", "momo-0.0.1.jar")
    result, said = job.build("momo")
    assert result == "SUCCESS", said
    assert "cutover" in (lab.dir / "archive/baton-plan.txt").read_text()
    assert "deployed momo" in (job.place / "baton-run.txt").read_text() + said
    assert lab.ask() == "v1" and live(lab, "momo") == job.env["GIT_COMMIT"]
    assert job.env["GIT_COMMIT"] in str(lab.deployments("momo")[0]["by"])
    # the next commit, from a freestyle job, while another build's deployment goes on: not built, nothing changed
    first = Job(lab, 2, GIT_COMMIT="1" * 40)
    first.gradlew("v2", "backend", "momo-0.0.2.jar", start_delay=300)
    assert first.step(next(s for s in steps_of("momo") if s.stage == "Build").script, token=False)[0] == 0
    child = first.begin(first.deploy_step("momo").script)
    poll("the run begins", lambda: lab.deployments("momo")[0]["version"] == "1" * 40)
    second = Job(lab, 3, GIT_COMMIT="2" * 40)
    code, said = second.step((EXAMPLES / "momo/freestyle.sh").read_text())
    assert code == 4, said
    third = Job(lab, 4, GIT_COMMIT="3" * 40)
    third.gradlew("v3", "backend", "momo-0.0.3.jar")
    result, said = third.build("momo")
    assert result == "NOT_BUILT" and "ERROR: another deployment goes on" in said, said
    assert "it goes on" in (lab.dir / "archive/baton-run.txt").read_text()  # and nobody waited for its end
    abort(child)
    assert first.end(child)[0] == 130
    assert lab.ask() == "v1"


def test_the_example_config_of_momo_holds(lab):
    good(lab.baton("lint", "-f", EXAMPLES / "momo/baton.yaml"))


def test_without_a_server_or_with_a_wrong_token(lab):
    job = blog(lab)
    job.gradlew("v1")
    job.token = "bt_" + "0" * 43
    script = job.deploy_step("blog").script
    assert job.step("./gradlew clean bootJar", token=False)[0] == 0
    assert job.step(script)[0] == 2
    job.env["BATON_SERVER"] = f"http://127.0.0.1:{lab.port('nobody')}"
    code, said = job.step(script)
    assert code == 5 and str(lab.port("nobody")) in said, said
    assert lab.api("GET", "/v1/services/dev-blog")[0] == 404, "something was begun"


def test_flow_by_parameters(lab):
    """A template on chosen hosts and instances, with and without an artifact."""
    lab.nginx()
    lab.config(slots=("blue", "green"), deploy={"strategy": "rolling", "drain": "10s", "bake": "0s"})
    lab.up()
    good(lab.deploy("v1"))
    job = Job(lab, 7, FLOW="multiInstanceDeployToReleaseWithL4Control", SERVICE="shop", HOSTS="local", INSTANCES="",
              ARTIFACT=str(lab.artifact("v2")))
    with lab.load(rate=60) as load:
        result, said = job.build("flow")
        assert result == "SUCCESS", said
        assert (lab.dir / "archive/baton-run.txt").read_text().strip()
        assert lab.ask() == "v2" and lab.deployments()[0]["version"] == "7"
        job = Job(lab, 8, FLOW="turnOffL4", SERVICE="shop", HOSTS="local", INSTANCES="green", ARTIFACT="")
        code, said = job.step((EXAMPLES / "flow/freestyle.sh").read_text())
        assert code == 0, said
        assert [s["slot"] for s in lab.service()["slots"] if s["in"]] == ["blue"]
    assert load.failed == 0, load.summary()
    job = Job(lab, 9, FLOW="turnOfL4", SERVICE="shop", HOSTS="local", INSTANCES="", ARTIFACT="")
    code, said = job.step((EXAMPLES / "flow/freestyle.sh").read_text())
    assert code == 2 and "turnOffL4" in said, said
    # the pipeline's own parameters: a choice that is none, and the presets of what is not said
    result, said = job.build("flow")
    assert result == "FAILURE" and "no choice" in said, said
    result, said = Job(lab, 10).build("flow", FLOW="turnOnL4", HOSTS="nowhere")
    assert result == "FAILURE" and "baton: exit code 2" in said and "nowhere" in said, said
