"""docs/security.md, held against running processes."""
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import threading

import pytest

from lab import PATIENCE, poll

HOST = b"Host: localhost\r\n"
MALFORMED = {
    "length twice": b"POST /v1/session HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx",
    "length and chunked": b"POST /v1/join HTTP/1.1\r\n" + HOST
                          + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "gzip": b"POST /v1/join HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip\r\n\r\n",
    "no host": b"GET /v1/health HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /v1/health HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
    "bare line feeds": b"GET /v1/health HTTP/1.1\nHost: localhost\n\n",
    "space before colon": b"GET /v1/health HTTP/1.1\r\nHost : localhost\r\n\r\n",
    "control": b"GET /v1/health HTTP/1.1\r\n" + HOST + b"X: \x01\r\n\r\n",
    "nonsense": bytes(range(256)),
}
OVERSIZED = {
    414: b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    431: b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"y" * 40000 + b"\r\n\r\n",
    413: b"POST /v1/%s HTTP/1.1\r\n" + HOST + b"Content-Length: 99999999999\r\n\r\n",
}


def any_certificate():
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def say(lab, listener, data, context=None):
    """What a listener answers to raw bytes, until it closes."""
    out = b""
    with socket.create_connection(("127.0.0.1", lab.port(listener)), timeout=PATIENCE) as raw:
        if listener == "agents":
            raw = (context or any_certificate()).wrap_socket(raw)
        try:
            raw.sendall(data)
            while piece := raw.recv(65536):
                out += piece
        except (ConnectionError, ssl.SSLError):
            pass
        raw.close()
    return out


def status(answer):
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else None


def one_line(text, *words):
    """An error is one line that names the thing."""
    lines = text.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("baton: "), text
    for word in words:
        assert word in lines[0], lines[0]


def test_malformed_and_oversized_http(lab):
    lab.server()
    hidden = b"GET /v1/health HTTP/1.1\r\n" + HOST + b"\r\n"
    for listener in ("api", "agents"):
        for name, data in MALFORMED.items():
            answer = say(lab, listener, data + hidden)
            assert status(answer) == 400 and answer.count(b"HTTP/1.1 ") == 1, (listener, name, answer)
            assert b'"code":"protocol"' in answer
        for code, data in OVERSIZED.items():
            path = b"session" if listener == "api" else b"join"
            answer = say(lab, listener, data.replace(b"%s", path))
            assert status(answer) == code, (listener, code, answer)
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"]
    assert lab.healthy()
    assert lab.alive("server")


def test_plain_http_on_the_agents_port_and_tls_on_the_people_port(lab):
    lab.server()
    with socket.create_connection(("127.0.0.1", lab.port("agents")), timeout=PATIENCE) as s:
        s.sendall(b"GET /v1/health HTTP/1.1\r\n" + HOST + b"\r\n")
        try:
            assert b"200" not in s.recv(1000)
        except ConnectionResetError:
            pass
    with socket.create_connection(("127.0.0.1", lab.port("api")), timeout=PATIENCE) as s:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            any_certificate().wrap_socket(s)
    assert lab.healthy()


def renew(lab, name):
    """A new certificate and its key, put in place one after the other as renewal tools do."""
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-keyout", "new.key", "-out", "new.pem", "-days", "30", "-subj", f"/CN={name}", "-addext",
                    "subjectAltName=IP:127.0.0.1"], cwd=lab.dir, check=True, capture_output=True)
    for end in ("pem", "key"):
        (lab.dir / f"new.{end}").rename(lab.dir / f"people.{end}")
    return (lab.dir / "people.pem").read_text()


def test_a_renewed_certificate_is_used_without_a_restart(lab):
    first = renew(lab, "first")
    done = lab.baton("server", "init", "--dir", lab.dir / "server", "--name", "localhost")
    assert done.returncode == 0, done.stderr
    address = ("127.0.0.1", lab.port("api"))
    lab.start("server", "server", "run", "--dir", lab.dir / "server", "--listen", "%s:%d" % address, "--agent-listen",
              f"127.0.0.1:{lab.port('agents')}", "--cert", lab.dir / "people.pem", "--key", lab.dir / "people.key")

    def shown():
        try:
            return ssl.get_server_certificate(address)
        except OSError:
            return None
    poll("the first certificate", lambda: lab.alive("server") and shown() == first)
    second = renew(lab, "second")
    poll("the second certificate", lambda: lab.alive("server") and shown() == second)
    (lab.dir / "people.key").write_text("no key")
    poll("it is said", lambda: "is not used: " in lab.log("server"))
    assert shown() == second
    third = renew(lab, "third")
    poll("the third certificate", lambda: lab.alive("server") and shown() == third)


def test_half_requests_hold_up_nobody(lab):
    lab.server()
    slow = [socket.create_connection(("127.0.0.1", lab.port(p)), timeout=PATIENCE) for p in ("api", "agents") * 100]
    for s in slow:
        s.sendall(b"GET /v1/hea")
    assert lab.healthy()
    assert lab.baton("hosts").returncode == 0
    for s in slow:
        s.close()


def test_wrong_token(lab):
    lab.server()
    for token in ("bt_" + "A" * 43, "nonsense", lab.token[:-1]):
        assert lab.api("GET", "/v1/services", token=token)[0] == 401
        done = lab.baton("status", BATON_TOKEN=token)
        assert done.returncode == 2 and done.stdout == ""
        one_line(done.stderr, "token")
        assert token not in done.stderr
    assert lab.api("GET", "/v1/services")[0] == 200
    answer = say(lab, "api", b"GET /v1/services HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
    assert status(answer) == 401 and b"WWW-Authenticate: Bearer" in answer


def make_token(lab, name, *args):
    done = lab.baton("token", "create", name, *args)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


def test_roles(lab):
    lab.server()
    tokens = {role: make_token(lab, f"a-{role}", "--role", role) for role in ("viewer", "deployer", "admin")}
    tokens["shop only"] = make_token(lab, "shop", "--role", "deployer", "--service", "shop")
    body = {"host": "was9", "ttl": "1m"}
    rows = [("GET", "/v1/services", None, {"viewer", "deployer", "admin", "shop only"}),
            ("GET", "/v1/hosts", None, {"viewer", "deployer", "admin", "shop only"}),
            ("POST", "/v1/deployments/1/abort", {}, {"deployer", "admin", "shop only"}),
            ("HEAD", "/v1/artifacts/" + "0" * 64, None, {"deployer", "admin", "shop only"}),
            ("POST", "/v1/join-tokens", body, {"admin"}),
            ("POST", "/v1/tokens", {"name": "x", "role": "viewer", "services": []}, {"admin"}),
            ("DELETE", "/v1/hosts/none", None, {"admin"})]
    for method, path, sent, allowed in rows:
        for name, token in tokens.items():
            code, answer = lab.api(method, path, sent, token=token)
            assert (code not in (401, 403)) == (name in allowed), (method, path, name, code, answer)
    done = lab.baton("join-token", "was9", BATON_TOKEN=tokens["deployer"])
    assert done.returncode not in (0, 5)
    one_line(done.stderr, "role")


def test_scope_of_a_token(lab):
    lab.server()
    lab.agent("local")
    lab.config("shop", nginx=False)
    lab.config("api", nginx=False)
    other = make_token(lab, "other", "--role", "deployer", "--service", "api")
    done = lab.baton("deploy", "shop", "-a", lab.artifact("v1"), "-v", "v1", BATON_TOKEN=other)
    assert done.returncode not in (0, 5), done.stdout
    assert "shop" in done.stderr.splitlines()[-1], done.stderr
    assert lab.api("GET", "/v1/deployments?service=shop")[1]["deployments"] == []
    done = lab.baton("deploy", "api", "-a", lab.artifact("v1"), "-v", "v1", BATON_TOKEN=other)
    assert done.returncode == 0, done.stdout + done.stderr
    names = [s["name"] for s in lab.api("GET", "/v1/services", token=other)[1]["services"]]
    assert names == ["api"]


def test_join_tokens(lab):
    lab.server()
    token = lab.join_token("was1")
    assert re.fullmatch(r"btj_[A-Za-z0-9_-]{43}\.[0-9a-f]{64}", token)
    secret, pin = token.split(".")

    def refused(done, *words):
        assert done.returncode not in (0, 130) and not (lab.dir / "agent-was1/agent.json").exists()
        one_line(done.stderr, *words)
        assert secret not in done.stderr

    refused(lab.join("was1", "nonsense"), "token")
    # the right token for another server: nothing is sent to one that does not show this authority
    refused(lab.join("was1", f"{secret}.{pin[:-1]}{'0' if pin[-1] != '0' else '1'}"), "authority")
    refused(lab.join("was1", f"btj_{'A' * 43}.{pin}"), "token")
    done = lab.join("was2", token)
    assert done.returncode not in (0, 130) and not (lab.dir / "agent-was2/agent.json").exists()
    refused(lab.join("was1", lab.join_token("was1", "--ttl", "1ms")), "expired")
    token = lab.join_token("was1")
    done = lab.join("was1", token)
    assert done.returncode == 0, done.stderr
    assert os.stat(lab.dir / "agent-was1/agent.pem").st_mode & 0o077 == 0
    # it worked once
    (lab.dir / "agent-was1").rename(lab.dir / "agent-first")
    refused(lab.join("was1", token), "used")
    shutil.rmtree(lab.dir / "agent-was1", ignore_errors=True)
    (lab.dir / "agent-first").rename(lab.dir / "agent-was1")
    # a directory that is joined is not joined again
    done = lab.join("was1", lab.join_token("was1"))
    assert done.returncode not in (0, 130)
    lab.agent("was1")


def certificate(lab, host):
    context = any_certificate()
    context.load_cert_chain(lab.dir / f"agent-{host}/agent.pem")
    return context


def agent_says(lab, host, method, path, body=b"{}"):
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    return say(lab, "agents", head.encode() + (body if method == "POST" else b""),
               certificate(lab, host) if host else None)


def test_agents_api_wants_a_certificate_that_still_counts(lab):
    lab.server()
    lab.agent("was1")
    digest = "0" * 64
    for method, path in (("POST", "/v1/agent/hello"), ("GET", "/v1/agent/commands?store=x&after=0&wait=0s"),
                         ("POST", "/v1/agent/results"), ("POST", "/v1/agent/renew"),
                         ("GET", f"/v1/agent/artifacts/{digest}")):
        body = b"" if method == "GET" else b"{}"
        assert status(agent_says(lab, None, method, path, body)) == 401, path
    # only what was sent to this host
    assert status(agent_says(lab, "was1", "GET", f"/v1/agent/artifacts/{digest}", b"")) in (403, 404)
    # people's paths are not there, whoever asks
    assert status(agent_says(lab, "was1", "GET", "/v1/services", b"")) == 404
    assert lab.api("GET", "/v1/agent/commands")[0] == 404
    # removed: the next request is refused
    assert lab.baton("hosts", "--remove", "was1").returncode == 0
    assert status(agent_says(lab, "was1", "POST", "/v1/agent/observation")) == 403
    poll("was1 is gone", lambda: not lab.connected("was1"))


def test_artifacts_of_other_hosts(lab):
    lab.server()
    lab.agent("was1")
    lab.agent("was2")
    lab.config(host="was1", nginx=False)
    done = lab.deploy("v1")
    assert done.returncode == 0, done.stdout + done.stderr
    digest = lab.api("GET", "/v1/services/shop/releases")[1]["releases"][0]["digest"]
    assert status(agent_says(lab, "was1", "GET", f"/v1/agent/artifacts/{digest}", b"")) == 200
    assert status(agent_says(lab, "was2", "GET", f"/v1/agent/artifacts/{digest}", b"")) in (403, 404)


def test_cookie_login(lab):
    lab.server()
    origin = f"http://127.0.0.1:{lab.port('api')}"

    def ask(method, path, body=b"", *headers):
        head = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{lab.port('api')}", "Connection: close",
                f"Content-Length: {len(body)}", *headers]
        return say(lab, "api", "\r\n".join(head).encode() + b"\r\n\r\n" + body)

    assert status(ask("POST", "/v1/session", b'{"token":"bt_wrong"}')) == 401
    assert status(ask("POST", "/v1/session", b"not JSON")) == 400
    login = json.dumps({"token": lab.token}).encode()
    assert status(ask("POST", "/v1/session", login, "Origin: http://evil.example")) == 403
    answer = ask("POST", "/v1/session", login, f"Origin: {origin}")
    assert status(answer) in (200, 201, 204), answer
    head = answer.partition(b"\r\n\r\n")[0].decode()
    cookie = re.search(r"(?im)^set-cookie: ([^\r\n]+)", head).group(1)
    assert "httponly" in cookie.lower() and "samesite=strict" in cookie.lower(), cookie
    assert lab.token not in cookie
    session = "Cookie: " + cookie.split(";")[0]
    assert status(ask("GET", "/v1/services", b"", session)) == 200
    assert status(ask("GET", "/v1/services", b"", session + "x")) == 401
    assert status(ask("POST", "/v1/join-tokens", b'{"host":"h","ttl":"1m"}', session,
                      "Origin: http://evil.example")) == 403
    assert status(ask("POST", "/v1/join-tokens", b'{"host":"h","ttl":"1m"}', session, f"Origin: {origin}")) < 300
    assert status(ask("DELETE", "/v1/session", b"", session, f"Origin: {origin}")) < 300
    assert status(ask("GET", "/v1/services", b"", session)) == 401


def test_names_that_are_not_the_servers(lab):
    lab.server()
    for host, good in (("localhost", True), (f"127.0.0.1:{lab.port('api')}", True), ("[::1]", True),
                       ("evil.example", False), ("127.0.0.1.evil.example", False)):
        answer = say(lab, "api", f"GET /v1/health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        assert status(answer) == (200 if good else 403), host


def test_plain_http_beyond_loopback(lab):
    lab.server()
    lab.kill("server", 15)
    done = lab.baton("server", "run", "--dir", lab.dir / "server", "--listen", f"0.0.0.0:{lab.port('api')}",
                     "--agent-listen", f"127.0.0.1:{lab.port('agents')}")
    assert done.returncode not in (0, 130)
    one_line(done.stderr, "0.0.0.0", "certificate", "loopback")


def test_one_process_a_directory(lab):
    lab.up()
    more = ("--listen", f"127.0.0.1:{lab.port('api2')}", "--agent-listen", f"127.0.0.1:{lab.port('agents2')}")
    done = lab.baton("up", "--dir", lab.dir / "state", *more)
    assert done.returncode not in (0, 130)
    one_line(done.stderr, str(lab.dir / "state"), str(lab.children["up"].pid))
    done = lab.baton("server", "run", "--dir", lab.dir / "state/server", *more)
    assert done.returncode not in (0, 130)
    one_line(done.stderr, "state/server")
    done = lab.baton("agent", "run", "--dir", lab.dir / "state/agent", "--own-machine")
    assert done.returncode not in (0, 130)
    one_line(done.stderr, "state/agent")
    assert lab.healthy() and lab.connected("local")


def test_a_port_that_is_taken(lab):
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", lab.port("api")))
        taken.listen()
        done = lab.baton("up", "--dir", lab.dir / "state", "--listen", f"127.0.0.1:{lab.port('api')}",
                         "--agent-listen", f"127.0.0.1:{lab.port('agents')}")
    assert done.returncode not in (0, 130)
    one_line(done.stderr, str(lab.port("api")), "in use")


def test_secrets_stay_secret(lab):
    """A sentinel goes through everything; it is where it belongs and nowhere else."""
    sentinel = "s3ntinel" + os.urandom(8).hex()
    lab.server()
    lab.agent("local")
    lab.config(nginx=False, run={"secrets": ["DB_PASSWORD"]})
    done = lab.deploy("v1", env={"DB_PASSWORD": sentinel})
    assert done.returncode == 0, done.stdout + done.stderr
    page = f"http://127.0.0.1:{lab.port('shop-blue')}"
    assert lab.ask("/env?name=DB_PASSWORD", page) == sentinel
    number = lab.deployments()[0]["id"]
    told = [done.stdout, done.stderr, lab.log("server"), lab.log("agent-local"),
            lab.baton("show", str(number)).stdout, lab.baton("show", str(number), "--json").stdout]
    for path in ("/v1/services", "/v1/services/shop", f"/v1/deployments/{number}", "/v1/hosts",
                 "/v1/services/shop/releases", "/metrics", f"/v1/deployments/{number}/log"):
        told.append(json.dumps(lab.api("GET", path)[1]))
    for text in told:
        assert sentinel not in text
    for path in (lab.dir / "server").rglob("*"):
        if path.is_file():
            assert sentinel.encode() not in path.read_bytes(), path


def test_a_policy_that_others_may_write(lab):
    lab.server()
    policy = lab.dir / "policy.yaml"
    policy.write_text("root: true\n")
    policy.chmod(0o666)
    assert lab.join("was1", lab.join_token("was1")).returncode == 0
    done = lab.baton("agent", "run", "--dir", lab.dir / "agent-was1", "--policy", policy)
    assert done.returncode not in (0, 130)
    one_line(done.stderr, "policy.yaml")
    policy.write_text("roots: true\n")
    policy.chmod(0o600)
    done = lab.baton("agent", "run", "--dir", lab.dir / "agent-was1", "--policy", policy, "--own-machine")
    assert done.returncode not in (0, 130)
    one_line(done.stderr, "policy.yaml:1:1", "root")


def test_many_connections_from_strangers(lab):
    """Strangers fill what is theirs; who has a token goes on."""
    lab.server()
    strangers = []

    def flood():
        for _ in range(300):
            try:
                strangers.append(socket.create_connection(("127.0.0.1", lab.port("api")), timeout=PATIENCE))
            except OSError:
                return

    threads = [threading.Thread(target=flood) for _ in range(3)]
    for t in threads:
        t.start()
    while any(t.is_alive() for t in threads):
        assert lab.api("GET", "/v1/services")[0] == 200
    for t in threads:
        t.join()
    assert lab.api("GET", "/v1/services")[0] == 200
    for s in strangers:
        s.close()
    assert lab.alive("server")
