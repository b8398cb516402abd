"""Document 004's form: two complete files, and sites-enabled has a copy of the one that is live (`rm *`, `cp`,
`nginx -s reload` until today). baton makes it a link and switches that."""
import os

import pytest

from lab import poll


def good(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture
def momo(lab):
    """nginx as the document has it: it sends to the first slot's port, by a copy."""
    lab.page = f"http://127.0.0.1:{lab.port('page')}"
    enabled, own = lab.dir / "sites-enabled", lab.dir / "momo-conf"
    enabled.mkdir()
    own.mkdir()
    temp = "".join(f"{k}_temp_path {lab.dir}/tmp;" for k in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (lab.dir / "nginx.conf").write_text(
        f"worker_processes 2;\npid {lab.dir}/nginx.pid;\nerror_log {lab.dir}/error.log;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{temp}\ninclude {enabled}/*;\n}}\n")
    for slot in ("blue", "green"):
        (own / f"momo-{slot}.conf").write_text(
            f"upstream springApp {{\n    server 127.0.0.1:{lab.port(f'shop-{slot}')};\n}}\n"
            f"server {{\n    listen 127.0.0.1:{lab.port('page')} backlog=1024;\n    server_name dev-api.moyeora.site;\n"
            "    location / {\n        proxy_pass http://springApp;\n        proxy_buffer_size 128k;\n"
            "        proxy_buffers 4 256k;\n        proxy_busy_buffers_size 256k;\n    }\n}\n")
    (enabled / "momo.conf").write_text((own / "momo-blue.conf").read_text())
    (lab.dir / "tmp").mkdir()
    lab.start_nginx()
    config = lab.config(nginx=False, deploy={"bake": "0s"})
    config["traffic"] = {"nginx": {"url": lab.page, "adopt": {
        "config": str(lab.dir / "nginx.conf"), "prefix": str(lab.dir), "include": str(enabled / "momo.conf"),
        "form": "site", "sites": {s: str(own / f"momo-{s}.conf") for s in ("blue", "green")}}}}
    config["identity"] = {"path": "/profile"}
    lab.write()
    lab.up()
    return lab


def live(lab):
    link = lab.dir / "sites-enabled/momo.conf"
    return os.readlink(link) if link.is_symlink() else "a copy"


def site(lab, slot):
    return str(lab.dir / f"momo-conf/momo-{slot}.conf")


def test_a_link_is_switched(momo):
    lab = momo
    plan = good(lab.baton("plan", "shop", "--artifact", lab.artifact("v1"), "--version", "v1")).stdout
    assert "though nginx sends to blue" in plan, plan
    assert live(lab) == "a copy", "planning changes nothing"
    good(lab.deploy("v1"))
    assert live(lab) == site(lab, "green") and lab.ask() == "v1"
    with lab.load(slow=1) as load:
        good(lab.deploy("v2"))
        assert live(lab) == site(lab, "blue")
        good(lab.deploy("v3"))
        good(lab.baton("rollback", "shop"))
    assert load.failed == 0, load.summary()
    assert lab.ask() == "v2" and live(lab) == site(lab, lab.ask("/profile"))
    assert sorted(os.listdir(lab.dir / "sites-enabled")) == ["momo.conf"], "nothing is left beside it"


def test_a_site_that_nginx_does_not_take(momo):
    lab = momo
    good(lab.deploy("v1"))
    path = lab.dir / "momo-conf/momo-blue.conf"
    text = path.read_text()
    path.write_text(text + "no_such_directive on;\n")
    with lab.load() as load:
        done = lab.deploy("v2")
        said = done.stdout + done.stderr
        assert done.returncode == 1 and 'unknown directive "no_such_directive"' in said, said
        assert live(lab) == site(lab, "green") and lab.ask() == "v1"
        path.write_text(text)
        good(lab.deploy("v3"))
    assert load.failed == 0, load.summary()
    assert live(lab) == site(lab, "blue") and lab.ask() == "v3"


def test_what_is_neither_is_refused(momo):
    lab = momo
    good(lab.deploy("v1"))
    link = lab.dir / "sites-enabled/momo.conf"
    link.unlink()
    link.write_text((lab.dir / "momo-conf/momo-green.conf").read_text() + "# edited in place\n")
    done = lab.deploy("v2")
    said = done.stdout + done.stderr
    assert done.returncode == 1 and "is neither a link to nor a copy of one of" in said, said
    assert site(lab, "blue") in said and live(lab) == "a copy" and lab.ask() == "v1"
    poll("status tells it", lambda: "neither a link" in lab.baton("status", "shop").stdout)
    # a file that does not send to its slot's port is found as well
    link.unlink()
    link.symlink_to(site(lab, "green"))
    path = lab.dir / "momo-conf/momo-blue.conf"
    text = path.read_text()
    path.write_text(text.replace(str(lab.port("shop-blue")), "1"))
    done = lab.deploy("v2")
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert f"the site of slot blue, sends nowhere at port {lab.port('shop-blue')}" in said, said
    path.write_text(text)
    good(lab.deploy("v2"))
    assert lab.ask() == "v2" and live(lab) == site(lab, "blue")
