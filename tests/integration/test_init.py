"""baton init on real processes behind a real nginx, as documents 001, 002 and 003 have them: what it writes
passes `baton lint`, and what serves can be adopted and deployed over with it."""
import ctypes
import os
import pathlib
import re
import subprocess

import pytest
from lab import PYTHON, poll
from test_adopt import ended
from test_strategies import good

CLONE_NEWNET = 0x40000000


@pytest.fixture
def host(lab):
    """The laboratory in a network of its own: what else listens on this machine is not its business."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    if libc.unshare(CLONE_NEWNET) != 0:
        os.close(before)
        pytest.skip("only root may have a network of its own")
    try:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        yield lab
        for child in lab.children.values():
            child.terminate()
    finally:
        assert libc.setns(before, CLONE_NEWNET) == 0
        os.close(before)


def java_like(lab, jar, port, *args):
    """A process whose arguments look like `java -jar app.jar …`: the small app under another name."""
    path = lab.dir / jar
    if not path.exists():
        path.write_bytes(lab.artifact("old").read_bytes())
    child = subprocess.Popen([PYTHON, str(path), "--port", str(port), *args], cwd=lab.dir,
                             stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                             start_new_session=True)
    lab.children[f"app {child.pid}"] = child
    poll("the app answers", lambda: child.poll() is None and
         lab.ask("/version", url=f"http://127.0.0.1:{port}") == "old")
    return child


def serve(lab, server, http=""):
    """nginx with this inside server { } and http { }."""
    lab.page = f"http://127.0.0.1:{lab.port('page')}"
    (lab.dir / "tmp").mkdir(exist_ok=True)
    (lab.dir / "nginx.conf").write_text(f"""\
worker_processes 2;
pid {lab.dir}/nginx.pid;
error_log {lab.dir}/error.log;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {lab.dir}/tmp;
    proxy_temp_path {lab.dir}/tmp;
    fastcgi_temp_path {lab.dir}/tmp;
    uwsgi_temp_path {lab.dir}/tmp;
    scgi_temp_path {lab.dir}/tmp;
    {http}
    server {{
        listen 127.0.0.1:{lab.port('page')};
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        {server}
    }}
}}
""")
    # relative to its prefix, as a person would
    subprocess.run(["nginx", "-p", lab.dir, "-c", "nginx.conf"], check=True, stderr=subprocess.DEVNULL)
    poll("nginx listens", lambda: lab.ask("/") is not None)


def init(lab):
    """The text of the file it made, which lint accepts."""
    done = good(lab.baton("init"))
    assert "baton.yaml is written" in done.stdout
    good(lab.baton("lint"))
    return (lab.dir / "baton.yaml").read_text()


def take_over(lab, old):
    """With what init wrote: adopt, then the first deployment under load."""
    lab.up()
    good(lab.baton("adopt"))
    with lab.load() as load:
        good(lab.baton("deploy", "--artifact", lab.artifact("v1"), "--version", "v1"))
        ended(old)
        assert lab.ask() == "v1"
    assert load.failed == 0, load.summary()


def quick(lab):
    """The same file with a short bake, as a person in a hurry would edit it."""
    path = lab.dir / "baton.yaml"
    path.write_text(re.sub(r"bake: 30s", "bake: 200ms", path.read_text()))


def test_document_002(host):
    lab = host
    blue, green = lab.port("shop-blue"), lab.port("shop-green")
    old = java_like(lab, "blue-dev-blog-0.0.1-SNAPSHOT.py", blue, "--slot", "blue")
    (lab.dir / "service-url.inc").write_text(f"set $service_port {blue};\n")
    serve(lab, f"include {lab.dir}/service-url.inc; location / {{ proxy_pass http://127.0.0.1:$service_port; }}")
    text = init(lab)
    assert f"include: {lab.dir}/service-url.inc" in text and "form: service_port" in text, text
    assert "service: dev-blog\n" in text and f"config: {lab.dir}/nginx.conf" in text, text
    assert f"blue: {blue}   # pid {old.pid}" in text and re.search(r"green: \d+   # nothing", text), text
    assert "{artifact}" in text and "{port}" in text and "http: /actuator/health" in text, text
    assert "json: {status: UP}" in text and "blue-green" in text and "identity: /profile" in text, text
    assert f"url: \"{lab.page}\"" in text, text
    assert green != 0
    quick(lab)
    take_over(lab, old)


def test_document_003(host):
    lab = host
    one = lab.port("shop-blue")
    two = lab.port("shop-green")
    old = java_like(lab, "webservice.py", one, "--slot", "real1")
    idle = java_like(lab, "webservice.py", two, "--slot", "real2")
    (lab.dir / "conf.d").mkdir()
    (lab.dir / "conf.d/service-url.inc").write_text(f"set $service_url http://127.0.0.1:{one};\n")
    serve(lab, f"include {lab.dir}/conf.d/service-url.inc; location / {{ proxy_pass $service_url; }}")
    text = init(lab)
    assert "form: service_url" in text and "service: webservice" in text, text
    assert f"real1: {one}   # pid {old.pid}" in text and f"real2: {two}   # pid {idle.pid}" in text, text
    idle.terminate()
    ended(idle)
    quick(lab)
    take_over(lab, old)


def test_document_001(host):
    """Two apps behind one upstream: rolling."""
    lab = host
    one, two = lab.port("shop-blue"), lab.port("shop-green")
    old = [java_like(lab, "back.py", p, "--slot", s) for p, s in ((one, "a"), (two, "b"))]
    (lab.dir / "back.conf").write_text(f"upstream back {{ server 127.0.0.1:{one}; server 127.0.0.1:{two}; }}\n")
    (lab.dir / "service-url.inc").write_text(f"set $service_url http://127.0.0.1:{one};\n")
    serve(lab, f"include {lab.dir}/service-url.inc; location / {{ proxy_pass $service_url; }} "
          "location /api { proxy_pass http://back; }", http=f"include {lab.dir}/back.conf;")
    text = init(lab)
    assert "service: back\n" in text and "form: upstream" in text and "strategy: rolling" in text, text
    assert f"include: {lab.dir}/back.conf" in text and "one: back_one" in text, text
    assert all(str(c.pid) in text for c in old)


def test_upstream_among_other_things(host):
    """It cannot be owned where it stands: the file says what to move."""
    lab = host
    blue = lab.port("shop-blue")
    java_like(lab, "shop.py", blue)
    serve(lab, "location / { proxy_pass http://shop; }", http=f"upstream shop {{ server 127.0.0.1:{blue}; }}")
    text = init(lab)
    assert f"upstream shop stands in {lab.dir}/nginx.conf among other things" in text, text


def test_nothing_runs(host):
    text = init(host)
    assert "No nginx runs here" in text and "java -jar {artifact} --server.port={port}" in text


def test_java_with_a_profile(host):
    """Document 003's own command line, by a program called java."""
    lab = host
    port = lab.port("shop-blue")
    java = lab.dir / "java"
    java.symlink_to(PYTHON)
    code = f"import http.server; http.server.HTTPServer(('127.0.0.1', {port}), http.server.BaseHTTPRequestHandler)" \
           ".serve_forever()"
    (lab.dir / "shop-1.2.jar").write_text("jar")
    child = subprocess.Popen([java, "-c", code, "-jar", "-Dspring.config.location=classpath:/application-real1.properties",
                              "-Dspring.profiles.active=real1", "shop-1.2.jar"], cwd=lab.dir)
    lab.children["java"] = child
    poll("it listens", lambda: lab.ask("/", url=f"http://127.0.0.1:{port}") == 501)
    text = init(lab)
    assert "service: shop\n" in text and "real1: " in text and "real2: " in text, text
    assert "spring.profiles.active={slot}" in text and "application-{slot}.properties" in text, text
    assert "{artifact}" in text and "tcp: true" in text, text


def test_never_over_a_file_that_is_there(lab):
    path = pathlib.Path(lab.dir / "baton.yaml")
    path.write_text("mine")
    done = lab.baton("init")
    assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "there already" in done.stderr and path.read_text() == "mine"
    done = good(lab.baton("init", "--print"))
    assert "service: " in done.stdout and path.read_text() == "mine"
