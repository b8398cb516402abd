"""The HTTP server from outside: sockets that say what no client library would."""
import json
import os
import resource
import socket
import ssl
import subprocess
import time
import warnings

import pytest

BIN = os.environ.get("NET_BIN", "build/tests/net")
DEADLINE = 30
PLAIN = os.environ.get("NET_SANITIZE", "none") == "none"  # sanitizers have memory of their own


class Server:
    """One net_server process on a port of the kernel's choice."""

    def __init__(self, directory, files=None, **settings):
        args = [f"{k}={v}" for k, v in settings.items() if v is not None]
        wrapper = ["prlimit", f"--nofile={files}"] if files else []
        self.process = subprocess.Popen([*wrapper, f"{BIN}/net_server", str(directory), *args],
                                        stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        assert line.startswith("port "), line
        self.port = int(line.split()[1])

    def connect(self, context=None):
        s = socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return context.wrap_socket(s, server_hostname="localhost") if context else s

    def say(self, data, context=None):
        """Send all, read until the server closes."""
        with self.connect(context) as s:
            s.sendall(data)
            return read_all(s)

    def get(self, path, context=None):
        with self.connect(context) as s:
            s.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            return answers(read_all(s))[0]

    def rss(self):
        if not PLAIN:
            return 0
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as f:
            return next(int(l.split()[1]) for l in f if l.startswith("VmRSS:")) * 1024

    def stop(self):
        self.process.terminate()
        assert self.process.wait(DEADLINE) == 0
        self.process.stdout.close()


def read_all(s):
    data = bytearray()
    try:
        while piece := s.recv(65536):
            data += piece
    except (ConnectionResetError, ssl.SSLEOFError):
        pass
    return bytes(data)


def answers(data):
    """[(status, headers, body)] of answers with a Content-Length."""
    out = []
    while data:
        head, _, rest = data.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = {k.lower(): v for k, v in (l.split(": ", 1) for l in lines[1:])}
        n = int(headers.get("content-length", 0))
        out.append((int(lines[0].split()[1]), headers, rest[:n]))
        data = rest[n:]
    return out


def poll(fact):
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        value = fact()
        if value:
            return value
    raise AssertionError("the fact never came true")


@pytest.fixture
def start(tmp_path):
    servers = []

    def go(**settings):
        servers.append(Server(tmp_path, **settings))
        return servers[-1]
    yield go
    for s in servers:
        s.stop()


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    d = tmp_path_factory.mktemp("pki")
    out = subprocess.run([f"{BIN}/net_pki", d / "ca", "was1", "revoked"], check=True,
                         capture_output=True, text=True).stdout.split()
    subprocess.run([f"{BIN}/net_pki", d / "other", "was1"], check=True, capture_output=True)
    return d, out


def tls(pki, host=None, authority="ca", trust="ca"):
    context = ssl.create_default_context(cafile=pki[0] / trust / "ca.pem")
    if host:
        context.load_cert_chain(pki[0] / authority / f"{host}.pem", pki[0] / authority / f"{host}.key")
    return context


def tls_settings(pki):
    d = pki[0] / "ca"
    return {"cert": d / "server.pem", "key": d / "server.key", "client_ca": d / "ca.pem"}


HOST = b"Host: localhost\r\n"
MALFORMED = {
    "length twice": b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx",
    "length and chunked": b"POST /echo HTTP/1.1\r\n" + HOST
                          + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
    "bare line feeds": b"GET / HTTP/1.1\nHost: localhost\n\n",
    "space before colon": b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n",
    "folded": b"GET / HTTP/1.1\r\n" + HOST + b"X: 1\r\n 2\r\n\r\n",
    "nul": b"GET / HTTP/1.1\r\n" + HOST + b"X: \0\r\n\r\n",
    "other version": b"GET / HTTP/3.0\r\n" + HOST + b"\r\n",
    "absolute elsewhere": b"GET http://evil/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "chunk extension": b"POST /echo HTTP/1.1\r\n" + HOST
                       + b"Transfer-Encoding: chunked\r\n\r\n1;a=b\r\nx\r\n0\r\n\r\n",
    "trailer": b"POST /echo HTTP/1.1\r\n" + HOST
               + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX: y\r\n\r\n",
    "broken escape": b"GET /v1/things/%zz HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n",
    "escaped nul": b"GET /v1/things/a%00b HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n",
    "TLS on a plain port": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_is_answered_400_and_closed(start, name):
    server = start()
    hidden = b"GET /count HTTP/1.1\r\nHost: localhost\r\n\r\n"
    got = answers(server.say(MALFORMED[name] + hidden))
    assert [a[0] for a in got] == [400]
    assert json.loads(got[0][2])["error"]["code"] == "protocol"
    assert got[0][1]["connection"] == "close"
    assert server.get("/")[0] == 200


def test_too_large(start):
    server = start()
    big = b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"y" * 40000 + b"\r\n\r\n"
    assert answers(server.say(big))[0][0] == 431
    assert answers(server.say(b"GET /" + b"y" * 9000 + b" HTTP/1.1\r\n" + HOST + b"\r\n"))[0][0] == 414
    # refused by what it says, before a byte of it is read
    long = b"POST /small HTTP/1.1\r\n" + HOST + b"Content-Length: 999999999\r\n\r\n"
    assert answers(server.say(long))[0][0] == 413
    chunked = b"POST /small HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    assert answers(server.say(chunked + b"7d0\r\n" + b"x" * 2000 + b"\r\n0\r\n\r\n"))[0][0] == 413
    assert answers(server.say(b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello"))[0][0] == 413
    assert server.get("/")[0] == 200


def test_pipelining_answers_in_order(start):
    server = start()
    one = b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n%s"
    late = b"GET /later HTTP/1.1\r\n" + HOST + b"\r\n"
    chunked = b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
    last = b"GET / HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
    data = b"".join(one % (len(str(i)), str(i).encode()) for i in range(50)) + late + chunked + last
    got = answers(server.say(data))
    assert [json.loads(a[2])["body"] for a in got[:50]] == [str(i) for i in range(50)]
    assert got[50][2] == b"late"
    assert json.loads(got[51][2])["body"] == "ab"
    assert got[52][1]["connection"] == "close" and len(got) == 53


def test_a_request_cut_into_bytes(start):
    server = start()
    data = (b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
            b"3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n")
    with server.connect() as s:
        for i in range(len(data)):
            s.sendall(data[i:i + 1])
        assert json.loads(answers(read_all(s))[0][2])["body"] == "abcd"


def test_routes(start):
    server = start()
    assert json.loads(server.get("/v1/things/a%20b?q=c%2Bd+e")[2])["id"] == "a b"
    assert json.loads(server.get("/v1/things/a?q=c%2Bd+e")[2])["q"] == "c+d e"
    assert json.loads(server.get("/v1/things/a/more")[2])["id"] == "a"
    for path in ("/v1/things/", "/v1/things", "/v1/things/a/", "/v1/things/..", "/v1/things/%2e%2e",
                 "/v1/things/a%2Fb", "//", "/nope"):
        assert server.get(path)[0] == 404, path
    assert answers(server.say(b"DELETE / HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"))[0][0] == 405
    head = server.say(b"HEAD / HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ") and head.endswith(b"\r\n\r\n")
    status, headers, body = server.get("/fail")
    assert status == 409 and json.loads(body)["error"]["code"] == "lease"
    assert "set-cookie" not in headers and headers["x-evil"] == "a??Set-Cookie: b"


def test_http_1_0_closes(start):
    server = start()
    assert answers(server.say(b"GET / HTTP/1.0\r\n" + HOST + b"\r\n"))[0][0] == 200
    stream = server.say(b"GET /stream HTTP/1.0\r\n" + HOST + b"\r\n")
    assert stream.endswith(b"\r\n\r\ndata: 1\n\ndata: 2\n\n")


def test_a_peer_that_shuts_its_side_is_answered(start):
    server = start()
    with server.connect() as s:
        s.sendall(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
        s.shutdown(socket.SHUT_WR)
        assert answers(read_all(s))[0][0] == 200


def test_host_is_checked(start):
    server = start(host="localhost")
    assert server.get("/")[0] == 200
    for host, status in ((b"evil.example", 403), (b"localhost:1", 200), (b"LOCALHOST", 200),
                         (b"localhost.evil", 403), (b"[::1]", 200), (b"[::1]:80", 200), (b"[::2]", 403),
                         (b"127.0.0.1", 403)):
        got = answers(server.say(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n"))
        assert got[0][0] == status, host


def test_open_routes_are_authorized_too(start):
    server = start()
    for origin, status in ((b"http://localhost", 200), (b"http://evil.example", 403)):
        got = answers(server.say(b"GET / HTTP/1.1\r\n" + HOST + b"Connection: close\r\nOrigin: " + origin + b"\r\n\r\n"))
        assert got[0][0] == status


def test_authorization_comes_before_the_body(start):
    server = start()
    ask = b"POST /secret HTTP/1.1\r\n" + HOST + b"%sContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n"
    got = server.say(ask % b"")
    assert got.startswith(b"HTTP/1.1 401 ") and b"100 Continue" not in got
    assert server.say(ask % b"Authorization: Bearer low\r\n").startswith(b"HTTP/1.1 403 ")
    with server.connect() as s:
        s.sendall(ask % b"Authorization: Bearer good\r\nConnection: close\r\n")
        assert s.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        s.sendall(b"x" * 1000000)
        assert json.loads(answers(read_all(s))[0][2])["length"] == 1000000


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"POST /echo HTTP/1.1\r\n"])
def test_slow_heads_are_cut_off(start, sent):
    server = start(head_timeout=200)
    got = server.say(sent)
    assert (answers(got)[0][0] == 408) if sent else got == b""


def test_trickled_heads_are_cut_off(start):
    server = start(head_timeout=300)
    with server.connect() as s:
        s.settimeout(0.02)
        got = b""
        for i in range(10000):
            try:
                s.sendall(b"G" if i == 0 else b"E")
                got = s.recv(1000)
                break
            except socket.timeout:
                continue
            except OSError:
                break
        assert i < 9999 and (got == b"" or b" 408 " in got or b" 400 " in got)


def test_idle_connections_are_closed(start):
    server = start(idle_timeout=200)
    with server.connect() as s:
        s.sendall(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
        assert [a[0] for a in answers(read_all(s))] == [200]


def held(server):
    return json.loads(server.get("/count")[2])


@pytest.mark.parametrize("secure", [False, True])
def test_a_thousand_held_polls(start, pki, secure):
    settings = tls_settings(pki) if secure else {}
    context = tls(pki, "was1") if secure else None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    n = 1000
    server = start(**settings)
    server_get = lambda path: json.loads(server.get(path, context)[2])
    polls = []
    for _ in range(n):  # each asks at once: who says nothing for long is cut off
        polls.append(server.connect(context))
        polls[-1].sendall(b"GET /hold HTTP/1.1\r\n" + HOST + b"\r\n")
    poll(lambda: server_get("/count")["held"] == n)
    assert server.rss() < (160 << 20 if secure else 60 << 20)
    for s in polls[:100]:
        s.close()
    poll(lambda: server_get("/count")["left"] == 100)
    assert server_get("/wake")["woken"] == n - 100
    for s in polls[100:]:
        assert b"woken" in s.recv(1000)
        s.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_reset_and_shut_held_polls_are_seen(start):
    server = start()
    a, b = server.connect(), server.connect()
    for s in (a, b):
        s.sendall(b"GET /hold HTTP/1.1\r\n" + HOST + b"\r\n")
    poll(lambda: held(server)["held"] == 2)
    a.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    a.close()
    poll(lambda: held(server)["left"] == 1)
    b.shutdown(socket.SHUT_WR)
    poll(lambda: held(server)["left"] == 2)
    b.close()


def test_a_peer_that_leaves_in_its_body(start):
    """Sanitizers see what is left of it."""
    server = start()
    for _ in range(20):
        with server.connect() as s:
            s.sendall(b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 100\r\n\r\nhalf")
    assert server.get("/")[0] == 200


def test_an_answer_to_a_peer_that_left(start):
    server = start()
    for _ in range(20):
        with server.connect() as s:
            s.sendall(b"GET /later HTTP/1.1\r\n" + HOST + b"\r\n")
    assert server.get("/later")[2] == b"late"


@pytest.mark.parametrize("secure", [False, True])
def test_uploads_and_downloads(start, pki, tmp_path, secure):
    context = tls(pki) if secure else None
    server = start(**(tls_settings(pki) if secure else {}))
    part = os.urandom(8 << 20)
    with server.connect(context) as s:
        f = s.makefile("rb")
        for _ in range(6):
            s.sendall(b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % len(part))
            s.sendall(part)
            assert b" 200 " in f.readline()
            while f.readline() != b"\r\n":
                pass
            assert json.loads(f.read1(1000))["length"] == len(part)
        f.close()
    before = server.rss()
    (tmp_path / "big").write_bytes(part * 12)
    _, headers, body = server.get("/file/big", context)
    assert body == part * 12 and headers["accept-ranges"] == "bytes"
    assert server.rss() < before + (8 << 20)
    ask = b"GET /file/%s HTTP/1.1\r\n" + HOST + b"Range: bytes=%d-\r\nConnection: close\r\n\r\n"
    size = len(part) * 12
    status, headers, body = answers(server.say(ask % (b"big", size - 5), context))[0]
    assert (status, body) == (206, part[-5:])
    assert headers["content-range"] == f"bytes {size - 5}-{size - 1}/{size}"
    assert answers(server.say(ask % (b"big", size + 1), context))[0][0] == 416
    assert server.get("/file/none", context)[0] == 404
    assert server.get("/file/.", context)[0] == 404
    # keep-alive goes on after a file
    with server.connect(context) as s:
        s.sendall(b"GET /file/big HTTP/1.1\r\n" + HOST + b"\r\n"
                  b"GET / HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
        got = answers(read_all(s))
        assert [len(a[2]) for a in got][0] == size and got[1][0] == 200


def test_a_download_nobody_reads_is_left_alone(start, tmp_path):
    server = start()
    with open(tmp_path / "big", "wb") as f:
        f.truncate(100 << 20)
    before = server.rss()
    with server.connect() as s:
        s.sendall(b"GET /file/big HTTP/1.1\r\n" + HOST + b"\r\n")
        s.recv(1000)
        assert server.get("/")[0] == 200
        assert server.rss() < before + (8 << 20)
    assert server.get("/")[0] == 200


def test_streams(start):
    server = start()
    got = server.say(b"GET /stream HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
    assert got.endswith(b"\r\n\r\n9\r\ndata: 1\n\n\r\n9\r\ndata: 2\n\n\r\n0\r\n\r\n")
    with server.connect() as s:  # a reader that does not read
        s.sendall(b"GET /flood HTTP/1.1\r\n" + HOST + b"\r\n")
        poll(lambda: server.get("/")[0] == 200)


def test_certificates(start, pki):
    server = start(**tls_settings(pki))
    status, _, body = server.get("/agent", tls(pki, "was1"))
    assert status == 200
    assert (json.loads(body)["cn"], json.loads(body)["serial"]) == ("was1", pki[1][0])
    assert server.get("/agent", tls(pki))[0] == 401
    assert server.get("/", tls(pki))[0] == 200
    assert server.get("/agent", tls(pki, "revoked"))[0] == 403
    with pytest.raises((ssl.SSLError, ConnectionError, IndexError)):
        server.get("/agent", tls(pki, "was1", authority="other"))
    with pytest.raises(ssl.SSLCertVerificationError):
        server.get("/", tls(pki, trust="other"))
    old = tls(pki)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        server.get("/", old)
    assert b"200 OK" not in server.say(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
    assert server.get("/", tls(pki))[0] == 200


def test_sessions_resume_with_their_certificate(start, pki):
    server = start(**tls_settings(pki))
    context = tls(pki, "was1")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    ask = b"GET /agent HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
    with server.connect(context) as s:
        s.sendall(ask)
        assert answers(read_all(s))[0][0] == 200
        session = s.session
    raw = socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE)
    with context.wrap_socket(raw, server_hostname="localhost", session=session) as s:
        assert s.session_reused
        s.sendall(ask)
        assert json.loads(answers(read_all(s))[0][2])["cn"] == "was1"


def test_tls_reload(start, pki, tmp_path):
    cert, key = tmp_path / "s.pem", tmp_path / "s.key"
    for to, name in ((cert, "server.pem"), (key, "server.key")):
        to.write_bytes((pki[0] / "ca" / name).read_bytes())
    server = start(cert=cert, key=key)
    reload = b"POST /reload HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
    cert.write_bytes(b"broken")
    assert answers(server.say(reload, tls(pki)))[0][0] == 400
    assert server.get("/", tls(pki))[0] == 200
    for to, name in ((cert, "server.pem"), (key, "server.key")):
        to.write_bytes((pki[0] / "other" / name).read_bytes())
    assert answers(server.say(reload, tls(pki)))[0][0] == 204
    assert server.get("/", tls(pki, trust="other"))[0] == 200
    with pytest.raises(ssl.SSLCertVerificationError):
        server.get("/", tls(pki))


def test_strangers_make_way(start):
    server = start(max_connections=40)
    strangers = [server.connect() for _ in range(60)]
    assert server.get("/")[0] == 200
    known = server.connect()
    known.sendall(b"POST /secret HTTP/1.1\r\n" + HOST + b"Authorization: Bearer good\r\n"
                  b"Content-Length: 0\r\n\r\n")
    assert b" 200 " in known.recv(1000)
    strangers += [server.connect() for _ in range(60)]
    known.sendall(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
    assert b" 200 " in known.recv(1000)
    closed = 0
    for s in strangers:
        s.settimeout(0)
        try:
            closed += s.recv(1) == b""
        except BlockingIOError:
            pass
        except ConnectionResetError:
            closed += 1
        s.close()
    known.close()
    assert closed >= 110


def test_few_descriptors(start):
    """Strangers make way long before descriptors run out."""
    server = start(files=100)
    strangers = [server.connect() for _ in range(300)]
    assert server.get("/")[0] == 200
    for s in strangers:
        s.close()
    assert server.get("/file/none")[0] == 404


def test_buffered_bytes_are_capped(start):
    server = start(max_buffered=3 << 20)
    parts = [server.connect() for _ in range(4)]
    refused = 0
    for s in parts:
        s.sendall(b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 1000000\r\n\r\n")
        s.sendall(b"x" * 900000)
    for s in parts:
        try:
            s.sendall(b"x" * 100000)
            refused += b" 503 " in s.recv(1000)
        except ConnectionError:
            refused += 1
        s.close()
    assert 1 <= refused < 4
    poll(lambda: server.get("/")[0] == 200)
