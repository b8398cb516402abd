"""A managed nginx that serves https: HTTP/2, the redirect, certificates that change on disk or do not fit
their key, and raw directives."""
import http.client
import pathlib
import ssl
import subprocess

from lab import poll


def good(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def make_certificate(lab, name, days=30):
    """A new key and certificate at lab.dir/NAME.pem and .key, put there by renames as renewal tools do."""
    aside = lab.dir / f"{name}.new"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-keyout", f"{aside}.key", "-out", f"{aside}.pem", "-days", str(days), "-subj", "/CN=shop.test"],
                   check=True, capture_output=True)
    for end in ("pem", "key"):
        pathlib.Path(f"{aside}.{end}").rename(lab.dir / f"{name}.{end}")
    return (lab.dir / f"{name}.pem").read_text()


def served(lab):
    """The certificate that nginx shows now."""
    return ssl.get_server_certificate(("127.0.0.1", lab.port("page")))


def tls(lab, routes=None, **nginx):
    lab.page = f"https://127.0.0.1:{lab.port('page')}"
    config = lab.config(nginx=False, deploy={"bake": "0s"})
    config["traffic"] = {"nginx": {
        "listen": f"127.0.0.1:{lab.port('page')}", **nginx,
        "tls": {"certificate": f"{lab.dir}/shop.pem", "key": f"{lab.dir}/shop.key", "http2": True,
                "redirect": f"127.0.0.1:{lab.port('plain')}"}}}
    if routes:
        config["traffic"]["nginx"]["routes"] = routes
    lab.write()
    lab.up()
    return config


def trouble(lab):
    seen = [b for h in lab.service()["world"]["hosts"] for b in h["balancers"]]
    return (seen[0].get("trouble") or "") if seen else ""


def master(lab):
    return int(next(lab.dir.glob("state/**/balancers/shop/nginx/nginx.pid")).read_text())


def test_https_http2_and_the_redirect(lab):
    make_certificate(lab, "shop")
    tls(lab, client_max_body_size="1k")
    good(lab.deploy("v1"))
    answer = subprocess.run(["curl", "-sk", "--http2", "-w", "%{http_version} %{http_code}", "-o", "/dev/null",
                             lab.page + "/version"], capture_output=True, text=True, check=True)
    assert answer.stdout == "2 200"
    plain = http.client.HTTPConnection("127.0.0.1", lab.port("plain"))
    plain.request("POST", "/pay?x=1", body="a", headers={"Host": "shop.test"})
    moved = plain.getresponse()
    assert moved.status == 308
    assert moved.getheader("Location") == f"https://shop.test:{lab.port('page')}/pay?x=1"
    plain.close()
    secure = http.client.HTTPSConnection("127.0.0.1", lab.port("page"), context=ssl._create_unverified_context())
    secure.request("POST", "/version", body="a" * 2000)
    assert secure.getresponse().status == 413
    secure.close()


def test_certificates_that_change_on_disk(lab):
    first = make_certificate(lab, "shop")
    tls(lab)
    good(lab.deploy("v1"))
    assert served(lab) == first
    pid = master(lab)
    with lab.load() as load:
        second = make_certificate(lab, "shop")
        poll("the new certificate is served", lambda: served(lab) == second)
        # one that does not fit: told, and the old one serves on
        key = (lab.dir / "shop.key").read_text()
        make_certificate(lab, "other")
        (lab.dir / "other.key").rename(lab.dir / "shop.key")
        poll("it is told", lambda: "does not fit its key" in trouble(lab))
        assert "the one from before serves on" in trouble(lab)
        assert "does not fit its key" in good(lab.baton("status", "shop")).stdout
        assert served(lab) == second
        done = lab.deploy("v2")
        said = done.stdout + done.stderr
        assert done.returncode == 1, said
        line, = [text for text in said.splitlines() if "does not fit" in text and "note:" not in text]
        assert f"{lab.dir}/shop.pem does not fit its key {lab.dir}/shop.key" in line
        assert lab.ask() == "v1"
        assert [d["version"] for d in lab.deployments()] == ["v1"], "nothing was begun"
        # mended
        (lab.dir / "shop.key").write_text(key)
        poll("the trouble is over", lambda: not trouble(lab))
        good(lab.deploy("v2"))
    assert load.failed == 0, load.summary()
    assert served(lab) == second and master(lab) == pid
    assert lab.ask() == "v2"


def test_a_certificate_that_never_fitted(lab):
    """The very first deployment: nothing is touched, nothing listens."""
    make_certificate(lab, "shop")
    make_certificate(lab, "other")
    (lab.dir / "other.key").rename(lab.dir / "shop.key")
    tls(lab)
    done = lab.deploy("v1")
    said = done.stdout + done.stderr
    assert done.returncode == 1 and "does not fit its key" in said, said
    assert lab.ask() is None
    assert not list(lab.dir.glob("state/**/balancers/shop/nginx/nginx.conf"))
    assert not list(lab.dir.glob("state/**/releases/shop/*"))


def test_raw_directives(lab):
    make_certificate(lab, "shop")
    config = tls(lab, directives=["add_header X-From server always", "proxy_buffer_size 128k", "proxy_buffers 4 256k",
                                  "proxy_busy_buffers_size 256k"],
                 routes=[{"path": "/", "to": "one"},
                         {"path": "/api", "directives": ["add_header X-Route api", "proxy_set_header X-Api yes"]}])
    good(lab.deploy("v1"))

    def headers(path):
        c = http.client.HTTPSConnection("127.0.0.1", lab.port("page"), context=ssl._create_unverified_context())
        c.request("GET", path)
        answer = c.getresponse()
        answer.read()
        c.close()
        return answer.getheader("X-From"), answer.getheader("X-Route")
    assert headers("/version") == ("server", None)
    assert headers("/api/version") == ("server", "api")
    # what nginx does not take is told in its words, and the old configuration serves on
    with lab.load() as load:
        config["traffic"]["nginx"]["directives"] = ["proxy_buffer_size 128k", "proxy_buffers 2 4k"]
        lab.write()
        done = lab.deploy("v2")
        assert done.returncode == 1 and "proxy_busy_buffers_size" in done.stdout + done.stderr, done.stdout
    assert load.failed == 0, load.summary()
    assert headers("/api/version") == ("server", "api") and lab.ask() == "v1"
    # and what would read files or end the directive is refused where it is written
    for bad in ("alias /etc", "include /etc/passwd", "gzip on; } load_module /tmp/x.so"):
        config["traffic"]["nginx"]["directives"] = [bad]
        lab.write()
        done = lab.baton("lint")
        assert done.returncode == 2 and "traffic.nginx.directives: expected one directive" in done.stdout + done.stderr
