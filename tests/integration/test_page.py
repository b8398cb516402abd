"""The page in a real browser, on real runs. Pictures of every view are left in build/screens."""
import contextlib
import gzip
import json
import os
import signal
import socket
import sqlite3
import urllib.error
import urllib.request

import pytest

from lab import Lab, poll
from test_hooks import slow, supervisors, told

webdriver = pytest.importorskip("selenium.webdriver", reason="python3-selenium is not installed")

from browser import Browser  # noqa: E402 (selenium first)
from selenium.webdriver.common.keys import Keys  # noqa: E402

MARK = "<img src=x onerror=document.title='taken'><b>bold</b>"
RUN = {"env": {"MARK": MARK}}
HEALTH = {"within": "4s", "every": "200ms"}

pytestmark = pytest.mark.xdist_group("page")  # one browser for all of them


@pytest.fixture(scope="module")
def chromium():
    browser = Browser()
    try:
        yield browser
    finally:
        browser.close()


@pytest.fixture(scope="module")
def house():
    """One laboratory for all tests of the page, with shop v1 live."""
    lab = Lab()
    try:
        lab.nginx()
        lab.config(run=RUN, health=HEALTH, deploy={"bake": "1s"})
        lab.up()
        assert lab.deploy("v1").returncode == 0
        yield lab
    finally:
        lab.close()


@pytest.fixture
def page(chromium, house):
    """Logged in as admin, at the first view; the console must be clean at the end."""
    chromium.wide()
    chromium.media(prefers_color_scheme="light")
    chromium.driver.delete_all_cookies()
    chromium.open(house.url)
    chromium.see("form.login")
    chromium.script("localStorage.clear()")
    chromium.complaints()
    chromium.open(house.baton("page").stdout.strip())
    chromium.see(".who", "admin")
    yield chromium
    assert chromium.complaints() == []


def number(lab):
    return lab.deployments()[0]["id"]


def started(lab, version, **settings):
    """A deployment in the background: its client and number."""
    before = number(lab)
    child = lab.start_deploy(version, **settings)
    poll("it is there", lambda: number(lab) > before)
    return child, number(lab)


def deployed(lab, version, **settings):
    assert lab.deploy(version, **settings).returncode == 0
    return number(lab)


@contextlib.contextmanager
def held(lab, version):
    """A deployment in the background whose app listens when this is over: number and client."""
    health, gate = lab.services["shop"]["health"], lab.dir / f"listen-{version}"
    before = health["within"]
    health["within"] = "5m"
    lab.write()
    try:
        child, run = started(lab, version, start_when=str(gate))
        yield run, child
    finally:
        gate.touch()
        health["within"] = before
        lab.write()


def calm(lab):
    """No run is under way."""
    poll("the last run ends", lambda: lab.deployments()[0].get("end"))


# ---- what the server sends


def fetch(url, **headers):
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as e:
        return e.code, e.headers, e.read()


def test_files_come_gzipped_with_an_etag_and_a_strict_policy(house):
    status, headers, body = fetch(house.url + "/", **{"Accept-Encoding": "gzip"})
    assert status == 200 and headers["Content-Encoding"] == "gzip" and headers["Cache-Control"] == "no-cache"
    html = gzip.decompress(body).decode()
    assert "<script type=\"module\" src=\"/page/app.js\"></script>" in html
    assert "style=" not in html and "onclick" not in html
    policy = headers["Content-Security-Policy"]
    for part in ("default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'",
                 "frame-ancestors 'none'", "base-uri 'none'"):
        assert part in policy
    assert "unsafe" not in policy and headers["X-Content-Type-Options"] == "nosniff"
    again = fetch(house.url + "/", **{"Accept-Encoding": "gzip", "If-None-Match": headers["ETag"]})
    assert again[0] == 304 and again[2] == b""
    assert fetch(house.url + "/page/app.js", **{"Accept-Encoding": "gzip"})[1]["ETag"] != headers["ETag"]
    for path in ("/page/none.js", "/page/..%2fbaton.db", "/page/"):
        assert fetch(house.url + path, **{"Accept-Encoding": "gzip"})[0] == 404
    status, _, body = fetch(house.url + "/", **{"Accept-Encoding": "identity"})
    assert status == 400 and b"gzip" in body


def test_events_from_now_begin_with_the_cursor_they_go_on_from(house):
    def first(after):
        request = urllib.request.Request(f"{house.url}/v1/events?after={after}",
                                         headers={"Authorization": f"Bearer {house.token}"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            lines = [answer.readline().decode().strip() for _ in range(3)]
        return int(lines[0].removeprefix("id: ")), lines[1], json.loads(lines[2].removeprefix("data: "))["cursor"]

    newest, event, cursor = first("now")
    assert event == "event: begin" and newest == cursor > 10
    assert first(5) == (5, "event: begin", 5)


def test_a_stream_ends_with_the_token_that_opened_it(house):
    token = house.api("POST", "/v1/tokens", {"name": "listener", "role": "viewer"})[1]["token"]
    request = urllib.request.Request(f"{house.url}/v1/events?after=now", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.readline().startswith(b"id: ")
        house.api("DELETE", "/v1/tokens/listener")
        answer.read()                        # to its end, which would not come before


# ---- who comes in


def test_a_link_logs_in_once_and_leaves_nothing_behind(page, house):
    link = house.baton("page").stdout.strip()
    assert page.driver.current_url == house.url + "/#/"
    page.click("#logout")
    page.see("h1", "Log in")
    page.open(link)
    page.see(".who", "admin")
    assert "login=" not in page.driver.current_url
    local, session, cookies = page.storage()
    assert session == {} and cookies == "" and "bt" not in str(local)
    cookie = next(c for c in page.driver.get_cookies() if c["name"].startswith("baton_session"))
    assert cookie["httpOnly"] and cookie["sameSite"] == "Strict"
    page.click("#logout")
    page.see("h1", "Log in")
    page.open(link)
    page.see(".error", "used already")
    assert house.api("GET", "/v1/audit")[1]["audit"][0]["what"] == "log in"


def test_no_more_links_are_kept_than_anybody_needs(house):
    links = [house.api("POST", "/v1/login-links", {})[1]["path"].split("=")[1] for _ in range(65)]
    status, answer = house.api("POST", "/v1/session", {"link": links[0]})
    assert status == 401 and "baton page" in answer["error"]["message"]
    assert house.api("POST", "/v1/session", {"link": links[-1]})[0] == 201
    assert house.api("POST", "/v1/session", {"link": links[-1]})[0] == 401
    assert house.api("POST", "/v1/session", {})[0] == 400


def test_a_token_logs_in_and_a_wrong_one_says_so(page, house):
    page.click("#logout")
    page.see("#token").send_keys("bt_wrong", Keys.ENTER)
    page.see(".error", "not known")
    page.screen("login")
    page.see("#token").clear()
    page.see("#token").send_keys(house.token, Keys.ENTER)
    page.see(".who", "admin")
    page.see("h1", "Services")


def test_a_session_cannot_make_a_link_and_another_site_cannot_log_in(page, house):
    made = page.driver.execute_async_script(
        "fetch('/v1/login-links', {method: 'POST', body: '{}'}).then((r) => arguments[0](r.status))")
    assert made == 403
    page.complaints()
    status, answer = house.api("POST", "/v1/session", {"token": house.token}, headers={"Origin": "http://evil.example"})
    assert status == 403 and "evil.example" in answer["error"]["message"]


def test_an_ended_session_returns_to_the_login(page, house):
    token = house.api("POST", "/v1/tokens", {"name": "soon-gone", "role": "viewer"})[1]["token"]
    page.open(house.baton("page", BATON_TOKEN=token).stdout.strip())
    page.see(".who", "soon-gone")
    page.click("nav a", "Hosts")
    page.see("h1", "Hosts")
    house.api("DELETE", "/v1/tokens/soon-gone")
    page.see("h1", "Log in")
    page.see(".error", "session has ended")


# ---- runs


def test_a_blue_green_is_watched_under_load(page, house):
    live = next(s for s in house.service()["slots"] if s["in"])
    with house.load() as load:
        with held(house, "v2") as (run, child):
            with socket.create_connection(("127.0.0.1", live["port"])):
                poll("the open connection is counted", lambda: next(
                    s for s in house.service()["slots"] if s["slot"] == live["slot"])["connections"])
            page.see(".service .now", "v2 is being deployed")
            page.screen("services-running")
            page.click(".service .now")
            page.see("h1", "shop v1 → v2")
            page.see(".station.running .what")
            page.see(".banner.busy", "try")      # what the health check says, live
            page.screen("run-running")
        page.see(".banner.good", "shop v2 serves")
        assert child.wait(60) == 0
    assert load.failed == 0, load.summary()
    states = set(page.script("return [...document.querySelectorAll('.station')].map((e) => e.className.split(' ')[2])"))
    assert states == {"done"}
    assert page.all(".station") and page.see("#elapsed").text != ""
    page.screen("run-done")
    page.click("nav a", "Services")
    page.see(".version", "v2")
    page.see(".traffic .in", "v2")
    assert house.deployment(run)["end"] == "done" and house.ask() == "v2"
    page.screen("services")


def test_a_failed_run_shows_why_and_the_apps_last_lines(page, house):
    before = house.ask()
    child, run = started(house, "v3", healthy=False, print_env="MARK")
    page.open(f"{house.url}/#/runs/{run}")
    page.see(".banner.busy", "503")
    assert child.wait(60) == 1
    page.see("#reason", "not healthy within 4s")
    page.see(".tail", MARK)                   # as text: the app's own words become nothing else
    assert page.all("main b") == [] and page.all("main img") == [] and house.ask() == before
    page.screen("run-failed")
    page.click(".station.failed button")
    page.see(".task", "wait until local/")
    page.see(".task .log", "503")
    page.see(".station.undone", "Start")
    page.screen("run-failed-task")


def test_a_flow_is_shown_by_its_name(page, house):
    """What it did is no release that serves: the heading, the last line and the lists say which flow ran."""
    calm(house)
    live = next(s["slot"] for s in house.service()["slots"] if s["in"])
    done = house.baton("run", "turnOffL4", "--service", "shop", "--hosts", "local", "--instances", live)
    assert done.returncode == 1 and "nobody in rotation" in done.stderr, done.stderr
    done = house.baton("run", "turnOnL4", "--service", "shop", "--hosts", "local", "--instances", live)
    assert done.returncode == 0, done.stderr
    run = number(house)
    page.open(f"{house.url}/#/runs/{run}")
    page.see("h1", "shop turnOnL4")
    page.see(".banner.good", "turnOnL4 has run on shop")
    page.see(".facts dt", "Flow")
    page.screen("run-flow")
    page.open(f"{house.url}/#/history")
    page.see(f"[data-key='r-{run}'] [data-label='What']", "turnOnL4")
    page.screen("history-flow")


@pytest.fixture
def viewer(page, house):
    token = house.api("POST", "/v1/tokens", {"name": "reader", "role": "viewer"})[1]["token"]
    page.open(house.baton("page", BATON_TOKEN=token).stdout.strip())
    page.see(".who", "reader")
    yield page
    house.api("DELETE", "/v1/tokens/reader")


def test_a_viewer_sees_but_may_do_nothing(viewer, house):
    child, run = started(house, "v4")
    viewer.open(f"{house.url}/#/runs/{run}")
    viewer.see("main", "pausing, aborting and the like take a deployer")
    assert viewer.all("#operations button") == []
    tried = viewer.driver.execute_async_script(
        f"fetch('/v1/deployments/{run}/abort', {{method: 'POST', body: '{{}}'}}).then(async (r) => arguments[0]([r.status, await r.text()]))")
    assert tried[0] == 403 and "too low" in tried[1]
    assert child.wait(60) == 0 and house.ask() == "v4"
    viewer.open(house.url + "/#/audit")
    viewer.see(".banner.bad", "may not see this")
    assert "Audit" not in viewer.text("nav")
    viewer.screen("denied")
    viewer.open(house.url + "/#/services/shop")
    viewer.see("h2", "Slots")
    assert viewer.all("#rollback") == []
    assert [m for m in viewer.complaints() if "403" not in m] == []


def test_pause_resume_and_abort_say_what_will_happen(page, house):
    before = house.deployments()[0]
    with held(house, "v5") as (run, child):
        page.open(f"{house.url}/#/runs/{run}")
        page.click("#op-pause")
        page.see("dialog", "Nothing new starts until somebody resumes")
        page.screen("dialog")
        page.keys(Keys.ESCAPE)
        page.gone("dialog")
        assert house.deployment(run)["phase"] == "running"
        page.click("#op-pause")
        page.click("dialog button[type=submit]")
        page.see(".banner.warn", "Paused")
        page.screen("run-paused")
        page.click("#op-resume")
        page.click("dialog button[type=submit]")
        page.click("#op-abort")
        page.see("dialog", f"traffic returns to shop {before['version']}")
        page.click("dialog button[type=submit]")
    page.see("h1", "rolled back")
    assert child.wait(60) == 1 and house.ask() == before["version"]
    calm(house)
    rows = [(a["who"], a["what"]) for a in house.api("GET", "/v1/audit?service=shop&limit=5")[1]["audit"]]
    assert rows[:4] == [("admin", "end"), ("admin", "abort"), ("admin", "resume"), ("admin", "pause")]


def test_an_approval_is_given_and_refused_on_the_page(page, house):
    before = house.ask()
    house.config(deploy={"bake": "300ms", "hooks": {"before_switch": [{"Approve": {"within": "10m"}}]}})
    try:
        for op, words, end, code in (("reject", "traffic returns to shop", "rolled back", 1), ("approve", "goes on: switch nginx/shop to", "done", 0)):
            child, run = started(house, f"asks-{op}")
            page.open(f"{house.url}/#/runs/{run}")
            page.see(".banner", "Approval")
            page.click(f"#op-{op}")
            page.see("dialog", words)
            page.see("#why").send_keys("numbers look odd")
            page.screen(f"dialog-{op}")
            page.click("dialog button[type=submit]")
            page.see("h1", end)
            assert child.wait(60) == code
            row = next(a for a in house.api("GET", "/v1/audit")[1]["audit"] if a["what"] == op)
            assert row["who"] == "admin" and row["detail"] == f"deployment {run}: numbers look odd"
        assert house.ask() == "asks-approve" != before
    finally:
        house.config(deploy={"bake": "1s"}, health=HEALTH, run=RUN)


def test_a_run_that_needs_a_person_goes_on_when_one_says_so(page, house):
    house.config(deploy={"bake": "300ms", "hooks": {"before": [{"run": [slow(house)]}]}})
    try:
        child, run = started(house, "parks")
        page.open(f"{house.url}/#/runs/{run}")
        page.see(".banner.busy", "Run")
        poll("the hook runs", lambda: told(house) == ["begun"])
        os.kill(poll("its supervisor is there", lambda: supervisors(house))[0], signal.SIGKILL)
        (house.dir / "go").touch()
        page.see(".banner.bad", "A person is needed")
        assert child.wait(60) == 3
        page.screen("run-parked")
        page.click("#op-resume", "Try again")
        page.see("dialog", "What failed is tried again")
        page.click("dialog button[type=submit]")
        page.see(".banner.good", "shop parks serves")
        assert told(house) == ["begun", "ended"] * 2 and house.deployment(run)["end"] == "done"
    finally:
        house.config(deploy={"bake": "1s", "hooks": {}}, health=HEALTH, run=RUN)


def test_a_service_is_locked_and_unlocked(page, house):
    serves = house.ask()
    page.open(house.url + "/#/services/shop")
    page.click("#lock")
    page.see("dialog", "refused until somebody unlocks")
    page.click("dialog button[type=submit]")            # not without a reason
    page.see("#why").send_keys("the database moves", Keys.ENTER)
    page.see(".banner.warn", "the database moves")
    page.screen("service-locked")
    refused = house.deploy("locked-out")
    assert refused.returncode != 0 and "the database moves" in refused.stderr and house.ask() == serves
    page.open(house.url + "/#/")
    page.see(".service .badge.warn", "locked")
    page.click(".service h2 a")
    page.click("#unlock")
    page.see("dialog", "the database moves")
    page.click("dialog button[type=submit]")
    page.see("#lock")
    assert house.api("GET", "/v1/audit?service=shop")[1]["audit"][0]["what"] == "unlock"


def test_by_keyboard_alone_from_the_services_to_a_rollback(page, house):
    deployed(house, "v6")
    target = house.service()["rollback_to"]["version"]
    page.open(house.url + "/#/")
    page.see(".service", "v6")
    page.keys(Keys.TAB)
    assert page.script("return document.activeElement.id") == "skip"
    page.tab_to("shop")
    page.keys(Keys.ENTER)
    page.see("h1", "shop")
    page.see("#rollback")
    page.tab_to("Roll back")
    page.keys(Keys.ENTER)
    page.see("dialog", "in the place of v6")
    for _ in range(8):                       # the focus stays inside
        page.keys(Keys.TAB)
        assert page.script("const e = document.activeElement; return e === document.body || !!e.closest('dialog')")
    page.tab_to("Roll back")
    page.keys(Keys.ENTER)
    page.see("h1", f"shop v6 → {target}")
    page.see(".banner.good", f"shop {target} serves")
    page.tab_to("Health")
    page.keys(Keys.ENTER)
    page.see(".task", "Health")
    assert house.ask() == target


def test_it_comes_back_by_itself_after_a_restart_of_the_server(page, house):
    with held(house, "v7") as (run, child):
        page.open(f"{house.url}/#/runs/{run}")
        page.script("window.stays = true")
        page.click("#op-pause")
        page.click("dialog button[type=submit]")
        page.see(".banner.warn", "Paused")
    house.kill("up")
    page.see("#away", "does not answer")
    page.screen("away")
    page.click("nav a", "History")                 # opened while nobody answers, they come as well
    page.click("nav a", "Hosts")
    page.script("history.back(); history.back()")
    house.up()
    page.gone("#away")
    page.click("#op-resume")
    page.click("dialog button[type=submit]")
    page.see(".banner.good", "shop v7 serves")
    assert page.script("return window.stays") is True
    lines = page.script("return [...document.querySelectorAll('.journal li')].map((e) => e.dataset.key)")
    assert len(lines) == len(set(lines)) > 10      # nothing comes twice
    assert child.wait(60) == 0
    calm(house)


# ---- how it looks


VIEWS = [("services", "/#/", ".service"), ("service", "/#/services/shop", ".rows td"), ("history", "/#/history", ".rows td"),
         ("run", "/#/runs/1", ".station.done"), ("hosts", "/#/hosts", ".rows td"), ("audit", "/#/audit", ".rows td")]


def title(path, language):
    words = {"/#/": ("Services", "서비스"), "/#/history": ("History", "배포 이력"), "/#/hosts": ("Hosts", "호스트"),
             "/#/audit": ("Audit", "감사 기록")}
    return words.get(path, ("shop", "shop"))[language == "ko"]


@pytest.mark.parametrize("scheme,language", [("light", "en"), ("dark", "ko")])
def test_every_view_on_a_wide_screen_and_on_a_phone(page, house, scheme, language):
    page.media(prefers_color_scheme=scheme)
    if language == "ko":
        page.click("#language")
        page.see("nav", "배포 이력")
        assert page.script("return document.documentElement.lang") == "ko"
    for width in (1280, 360):
        page.wide(width, 800)
        for name, path, there in VIEWS:
            page.script("location.hash = arguments[0]", path.removeprefix("/"))
            page.see("h1", title(path, language))
            page.see(there)
            assert page.pale() == [], f"{name} {scheme}"
            over = page.script("return document.documentElement.scrollWidth - innerWidth")
            assert over <= 0, f"{name} is {over} px too wide at {width}"
            page.screen(f"{name}-{scheme}-{language}-{'phone' if width == 360 else 'wide'}")
    if language == "ko":
        assert not any(w in page.text("nav") + page.text("th") for w in ("Services", "History", "Detail"))


def test_nothing_moves_for_who_does_not_want_it(page, house):
    page.media(prefers_reduced_motion="reduce")
    child, run = started(house, "v8", start_delay=1)
    page.open(f"{house.url}/#/runs/{run}")
    page.see(".turn")
    assert page.script("return getComputedStyle(document.querySelector('.turn')).animationName") == "none"
    assert child.wait(60) == 0


def test_a_thousand_services_do_not_freeze_it(page, house):
    house.kill("up", signal.SIGTERM)
    with sqlite3.connect(house.dir / "state/server/baton.db") as db:
        config = db.execute("SELECT config FROM services WHERE name='shop'").fetchone()[0]
        db.executemany("INSERT INTO services(name,config,token,updated_at) VALUES(?,?,0,0)",
                       [(f"svc-{i:04}", json.dumps({**json.loads(config), "service": f"svc-{i:04}"})) for i in range(1000)])
    house.up()
    page.open(house.url + "/#/")
    page.see(".service", "svc-0000")
    assert len(page.all(".service")) == 30
    page.see("#find").send_keys("0999")
    poll("one is left", lambda: page.texts(".service h2") == ["svc-0999"])
    page.screen("services-many")
    page.see("#find").send_keys("x")
    page.see("main", "No service has")
    page.see("#find").clear()
    page.see("#find").send_keys("svc", Keys.BACK_SPACE)
    page.click("main button", "more")
    poll("more are shown", lambda: len(page.all(".service")) == 130)
    status, answer = house.api("GET", "/v1/services?limit=2&find=svc-00")
    assert status == 200 and answer["total"] == 100 and [s["name"] for s in answer["services"]] == ["svc-0000", "svc-0001"]
