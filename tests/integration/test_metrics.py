"""Metrics under the real promtool and a real Prometheus; the examples that are made of them."""
import json
import pathlib
import re
import shutil
import subprocess
import urllib.parse
import urllib.request

import pytest

from lab import poll

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples/monitoring"


def promtool(*args, text=None, cwd=EXAMPLES):
    run = subprocess.run(["promtool", *map(str, args)], input=text, text=True, cwd=cwd, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT)
    assert run.returncode == 0, run.stdout
    return run.stdout


def metrics(lab, **options):
    status, text = lab.api("GET", "/metrics", **options)
    assert status == 200, text
    return text


def series(text):
    """Every line's name and labels, without the values that may differ."""
    return {re.sub(r'version="[^"]*"', "version", line.rsplit(" ", 1)[0]) for line in text.splitlines()
            if not line.startswith("#")}


def value(text, name):
    return float(re.search(rf"^{re.escape(name)} (\S+)$", text, re.M).group(1))


def names(text):
    return set(re.findall(r"^# TYPE (\S+)", text, re.M))


@pytest.fixture
def shop(lab):
    lab.nginx()
    lab.config(deploy={"bake": "0s"})
    lab.up()
    assert lab.deploy("v1").returncode == 0
    assert lab.deploy("v2").returncode == 0
    return lab


def test_promtool_finds_no_fault_and_labels_do_not_grow(shop):
    before = metrics(shop)
    assert promtool("check", "metrics", text=before) == ""
    ended = 'baton_deployments_total{service="shop",env="",strategy="blue-green",result="%s"}'
    assert value(before, ended % "done") == 2 and value(before, ended % "rolled_back") == 0
    assert 'baton_release_info{service="shop",env="",version="v2"} 1' in before
    for n in range(3, 6):
        assert shop.deploy(f"v{n}").returncode == 0
    assert shop.deploy("bad", exit_at_once=7).returncode == 1
    after = metrics(shop)
    assert promtool("check", "metrics", text=after) == ""
    assert series(after) == series(before), "versions and runs make no series"
    assert value(after, ended % "done") == 5 and value(after, ended % "rolled_back") == 1
    running = re.findall(r'^baton_instance_running\{.*slot="(\w+)"\} 1$', after, re.M)
    assert running == [shop.service()["live_slot"]]
    assert value(after, 'baton_balancer_members_in_rotation{service="shop",env="",host="local"}') == 1
    assert value(after, 'baton_balancer_up{service="shop",env="",host="local"}') == 1
    # counts come from the store, and outlive the server
    shop.kill("up", 15)
    shop.up()
    assert value(metrics(shop), ended % "done") == 5


def test_documents_and_examples_use_what_there_is(shop):
    there = names(metrics(shop))
    said = re.findall(r"^\| `(baton_\w+)` \|", (ROOT / "docs/monitoring.md").read_text(), re.M)
    assert sorted(said) == sorted(there)
    promtool("check", "rules", "baton.rules.yml")
    promtool("test", "rules", "baton.rules.test.yml")
    dashboard = json.loads((EXAMPLES / "grafana-dashboard.json").read_text())
    expressions = [t["expr"] for p in dashboard["panels"] for t in p["targets"]]
    expressions += [dashboard["annotations"]["list"][0]["expr"]]
    used = set(re.findall(r"\bbaton_\w+", " ".join(expressions) + (EXAMPLES / "baton.rules.yml").read_text()))
    assert {re.sub(r"_(bucket|sum|count)$", "", u) for u in used} <= there
    taken = set()
    for panel in dashboard["panels"]:
        g = panel["gridPos"]
        cells = {(x, y) for x in range(g["x"], g["x"] + g["w"]) for y in range(g["y"], g["y"] + g["h"])}
        assert not cells & taken and g["x"] + g["w"] <= 24, panel["title"]
        taken |= cells


def test_a_real_prometheus_scrapes_with_a_viewers_token(shop):
    made = shop.baton("token", "create", "prometheus", "--role", "viewer")
    assert made.returncode == 0, made.stderr
    token = made.stdout.split()[-1]
    scoped = shop.baton("token", "create", "one", "--role", "viewer", "--service", "shop").stdout.split()[-1]
    assert shop.api("GET", "/metrics", token=scoped)[0] == 403
    assert shop.api("GET", "/metrics", token="nobody")[0] == 401
    config = (EXAMPLES / "prometheus.yml").read_text()
    assert "127.0.0.1:7070" in config
    (shop.dir / "prometheus.yml").write_text(config.replace("127.0.0.1:7070", shop.url.split("//")[1])
                                             .replace("interval: 15s", "interval: 1s"))
    shutil.copy(EXAMPLES / "baton.rules.yml", shop.dir)
    (shop.dir / "baton.token").write_text(token + "\n")
    promtool("check", "config", shop.dir / "prometheus.yml", cwd=shop.dir)
    address = f"127.0.0.1:{shop.port('prometheus')}"
    with open(shop.dir / "prometheus.log", "w", encoding="utf-8") as log:
        shop.children["prometheus"] = subprocess.Popen(
            ["prometheus", f"--config.file={shop.dir}/prometheus.yml", f"--storage.tsdb.path={shop.dir}/tsdb",
             f"--web.listen-address={address}"], cwd=shop.dir, stdin=subprocess.DEVNULL, stdout=log,
            stderr=subprocess.STDOUT)

    def query(expression):
        try:
            with urllib.request.urlopen(f"http://{address}/api/v1/query?query={urllib.parse.quote(expression)}",
                                        timeout=10) as answer:
                return json.load(answer)["data"]["result"]
        except OSError:
            return None

    live = poll("Prometheus has scraped", lambda: shop.alive("prometheus") and query("baton_release_info"))
    assert [(r["metric"]["service"], r["metric"]["version"]) for r in live] == [("shop", "v2")]
    assert query('up{job="baton"}')[0]["value"][1] == "1"
    assert query("absent(ALERTS{alertstate=\"firing\"})"), "nothing is wrong, and no rule says so"
