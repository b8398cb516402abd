"""Tokens with a scope and an end, and the audit: who did what, from where."""
import json
import re

from lab import HERE, poll


def make_token(lab, name, *args):
    done = lab.baton("token", "create", name, *args)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 1, "a script may take all of stdout for the token"
    return done.stdout.strip()


def audit(lab, *args):
    done = lab.baton("audit", "--json", *args)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["audit"]


def test_every_route_of_a_service_honours_the_scope(lab):
    lab.server()
    lab.agent("local")
    lab.config("shop", nginx=False)
    lab.config("api", nginx=False)
    assert lab.deploy("v1", service="shop").returncode == 0
    assert lab.deploy("v1", service="api", env={"GIT_COMMIT": "c0ffee", "BUILD_URL": "http://ci/7"}).returncode == 0
    number = {name: lab.deployments(name)[0]["id"] for name in ("shop", "api")}
    narrow = make_token(lab, "narrow", "--service", "ap*")
    rows = [("GET", "/v1/services/{0}", None), ("GET", "/v1/services/{0}/releases", None),
            ("GET", "/v1/services/{0}/logs?lines=1", None), ("POST", "/v1/services/{0}/rollback", {}),
            ("GET", "/v1/deployments?service={0}", None), ("GET", "/v1/deployments/{1}", None),
            ("GET", "/v1/deployments/{1}/events", None), ("GET", "/v1/deployments/{1}/log", None),
            ("POST", "/v1/deployments/{1}/abort", {}), ("POST", "/v1/deployments/{1}/rollback", {}),
            ("GET", "/v1/services/{0}/config", None), ("POST", "/v1/services/{0}/config", {}),
            ("POST", "/v1/plan", {"service": "{0}"}), ("POST", "/v1/deployments", {"service": "{0}"})]
    for method, path, body in rows:
        body = {"service": "shop"} if body and "service" in body else body
        code, answer = lab.api(method, path.format("shop", number["shop"]), body, token=narrow)
        assert code == 403, (path, code, answer)
        said = answer["error"]["message"]
        assert "'narrow'" in said and "ap*" in said and "shop" in said and "\n" not in said, said
        body = {"service": "api"} if body and "service" in body else body
        code, answer = lab.api(method, path.format("api", number["api"]), body, token=narrow)
        assert code not in (401, 403), (path, code, answer)
    # And every other route that names a service or a deployment, whichever there are.
    table = (HERE.parents[1] / "docs/api.md").read_text()
    named = re.findall(r"^\| (\w+) \| `(/v1/(?:services|deployments)/\{[^`]*)` \| (?:viewer|deployer) ", table, re.M)
    assert len(named) > 10
    for method, path in named:
        path = re.sub(r"\{(\w+)\}", lambda m: {"service": "shop", "id": str(number["shop"]), "op": "abort"}.get(m[1], "1"), path)
        code, answer = lab.api(method, path, {} if method == "POST" else None, token=narrow)
        assert code == 403 and "'narrow'" in answer["error"]["message"], (method, path, code, answer)
    for path, key in (("/v1/services", "services"), ("/v1/deployments", "deployments")):
        listed = lab.api("GET", path, token=narrow)[1][key]
        assert {one.get("service", one.get("name")) for one in listed} == {"api"}, path
    instances = [i for h in lab.api("GET", "/v1/hosts", token=narrow)[1]["hosts"] for i in h["instances"]]
    assert instances and {i["service"] for i in instances} == {"api"}
    assert lab.api("GET", "/metrics", token=narrow)[0] == 403
    # The client says it in one line and nothing has begun.
    before = len(lab.deployments("shop"))
    done = lab.baton("deploy", "shop", "-a", lab.artifact("v2"), "-v", "v2", BATON_TOKEN=narrow)
    assert done.returncode == 1, done.stdout + done.stderr
    line = [s for s in done.stderr.splitlines() if s.startswith("baton: ")]
    assert len(line) == 1 and "'narrow'" in line[0] and "ap*" in line[0] and "shop" in line[0], done.stderr
    assert len(lab.deployments("shop")) == before
    # Who began it, from where, and out of what.
    by = lab.deployments("api")[0]["by"]
    assert by == {"name": "admin", "from": "127.0.0.1", "commit": "c0ffee", "build_url": "http://ci/7"}
    shown = lab.baton("show", number["api"]).stdout
    assert all(text in shown for text in ("by admin from 127.0.0.1", "c0ffee", "http://ci/7")), shown
    assert "admin" in lab.baton("history").stdout
    # The audit of all that, and its filters.
    assert lab.deploy("v2", service="api", env={"BATON_TOKEN": narrow}).returncode == 0
    starts = [(a["who"], a["service"], a["from"]) for a in audit(lab) if a["what"] == "start"]
    assert starts == [("narrow", "api", "127.0.0.1"), ("admin", "api", "127.0.0.1"), ("admin", "shop", "127.0.0.1")]
    assert {a["service"] for a in audit(lab, "--service", "shop")} == {"shop"}
    assert {a["who"] for a in audit(lab, "--who", "narrow")} == {"narrow"}
    assert audit(lab, "--since", "1h") == audit(lab) and audit(lab, "--since", "2100-01-01T00:00:00Z") == []
    assert lab.baton("audit", "--since", "yesterday").returncode == 2
    assert "narrow" in lab.baton("audit").stdout
    assert lab.baton("audit", BATON_TOKEN=narrow).returncode == 1


def test_patterns_and_environments(lab):
    lab.server()

    def scope(name, *args):
        make_token(lab, name, *args)
        listed = json.loads(lab.baton("token", "list", "--json").stdout)["tokens"]
        return next(t for t in listed if t["name"] == name).get("services")
    assert scope("a") is None
    assert scope("b", "--service", "shop", "--service", "api-*") == ["shop", "api-*"]
    assert scope("c", "--environment", "dev") == ["*@dev"]
    assert scope("d", "--service", "shop", "--environment", "dev", "--environment", "stage") == ["shop@dev", "shop@stage"]
    done = lab.baton("token", "list")
    assert "shop@dev,shop@stage" in done.stdout and "bt_" not in done.stdout

    def refused(code, *args):
        names = {t["name"] for t in lab.api("GET", "/v1/tokens")[1]["tokens"]}
        done = lab.baton("token", *args)
        assert done.returncode == code and not done.stdout, done.stdout + done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert {t["name"] for t in lab.api("GET", "/v1/tokens")[1]["tokens"]} == names
        return done.stderr
    assert "admin covers all" in refused(2, "create", "x", "--role", "admin", "--service", "shop")
    assert "shop release" in refused(2, "create", "x", "--service", "shop release")
    assert "@" in refused(2, "create", "x", "--service", "shop@")
    assert "30d" in refused(2, "create", "x", "--ttl", "soon")
    assert "king" in refused(2, "create", "x", "--role", "king")
    refused(1, "create", "a")
    refused(2, "revoke", "nobody")
    assert "token create" in refused(2, "jenkins", "--role", "deployer")


def test_a_token_ends(lab):
    lab.server()
    short, long = make_token(lab, "short", "--ttl", "1s"), make_token(lab, "long", "--ttl", "1h")
    assert lab.api("GET", "/v1/hosts", token=long)[0] == 200
    poll("the token expires", lambda: lab.api("GET", "/v1/hosts", token=short)[0] == 401)
    done = lab.baton("hosts", BATON_TOKEN=short)
    assert done.returncode == 2 and "'short' expired" in done.stderr and len(done.stderr.splitlines()) == 1
    assert lab.api("POST", "/v1/session", {"token": short})[0] == 401
    assert lab.baton("token", "revoke", "long").returncode == 0
    done = lab.baton("hosts", BATON_TOKEN=long)
    assert done.returncode == 2 and "revoked" in done.stderr
