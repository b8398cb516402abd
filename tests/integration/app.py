"""A small web application to deploy, with every way of misbehaving. Lab.artifact() puts its settings
in front of it, so that each version is a file of its own; run as: python3 FILE --port N --slot S
/file?name= is a file of its working directory, /env?name= a variable, /client who asks.

version        what /version says                start_delay    seconds before it listens
healthy        False: health stays 503           exit_at_once   exit code, before it listens
answer_500     every page but health is 500      die_after      seconds until it exits with code 3
ignore_term    SIGTERM changes nothing           health_fails_after  seconds until health turns 503
healthy_slots  the only slots where it is healthy
print_env      a variable it prints as it begins       reuse_port     others may listen on its port too
warm_up        seconds after it listens in which it is not healthy and every page says NOT READY
start_when     a file that it waits for before it listens
listen         its address, 127.0.0.1 if not given; "::" is all of IPv6 and IPv4
"""
import argparse
import contextlib
import http.server
import json
import os
import signal
import socket
import sys
import threading
import time
import urllib.parse

SETTINGS = globals().get("SETTINGS", {})
parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--slot", default="-")
parser.add_argument("--management", type=int, help="a port of its own for /actuator/health")
parser.add_argument("--host", default="-")
ARGS = parser.parse_args()
BEGUN = time.monotonic()


def setting(name, default=None):
    return SETTINGS.get(name, default)


class App(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, address, *args):
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self.allow_reuse_port = bool(setting("reuse_port"))
        self.lock = threading.Lock()
        self.busy, self.idle, self.stopping, self.held = 0, set(), False, 0
        super().__init__(address, *args)

    def server_bind(self):
        if self.allow_reuse_port:  # http.server knows it since Python 3.11 only
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        super().server_bind()

    def handle_error(self, request, client_address):
        pass

    def begin(self, connection):
        with self.lock:
            self.idle.discard(connection)
            self.busy += 1

    def end(self, connection):
        with self.lock:
            self.busy -= 1
            self.idle.add(connection)

    @contextlib.contextmanager
    def holding(self):
        with self.lock:
            self.held += 1
        try:
            yield
        finally:
            with self.lock:
                self.held -= 1

    def stop(self):
        """Graceful: takes what is queued, finishes what is in flight, closes what is idle."""
        self.stopping = True
        self.shutdown()
        self.socket.setblocking(False)
        while True:
            try:
                connection, address = self.socket.accept()
            except OSError:
                break
            connection.setblocking(True)
            self.process_request(connection, address)
        self.socket.close()
        while True:
            with self.lock:
                for connection in list(self.idle):
                    try:
                        connection.shutdown(socket.SHUT_RD)
                    except OSError:
                        pass
                if self.busy == 0:
                    return
            time.sleep(0.005)


class Page(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.server.begin(self.connection)

    def finish(self):
        super().finish()
        with self.server.lock:
            self.server.busy -= not getattr(self, "waiting", False)
            self.server.idle.discard(self.connection)

    def handle_one_request(self):
        if getattr(self, "served", False):
            self.waiting = True
            self.server.end(self.connection)
        else:
            self.waiting = False
        self.served = True
        super().handle_one_request()

    def parse_request(self):
        if self.waiting:  # a further request of a kept connection
            self.waiting = False
            self.server.begin(self.connection)
        return super().parse_request()

    def log_message(self, *args):
        pass

    def answer(self, status, body, kind="text/plain"):
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Version", str(setting("version", "?")))
        self.send_header("X-Slot", ARGS.slot)
        if self.server.stopping:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def warm(self):
        return time.monotonic() - BEGUN >= setting("start_delay", 0) + setting("warm_up", 0)

    def healthy(self):
        after = setting("health_fails_after")
        if not self.warm():
            return False
        return setting("healthy", True) and ARGS.slot in setting("healthy_slots", [ARGS.slot]) and (after is None or time.monotonic() - BEGUN < after)

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        length = int(self.headers.get("Content-Length", 0))
        if length:
            self.rfile.read(length)
        if url.path == "/actuator/health" and ARGS.management not in (None, self.server.server_port):
            self.answer(404, "not here\n")
        elif url.path == "/actuator/health":
            good = self.healthy()
            self.answer(200 if good else 503, json.dumps({"status": "UP" if good else "DOWN"}), "application/json")
        elif not self.warm():
            self.answer(200, "NOT READY")
        elif setting("answer_500"):
            self.answer(500, "out of order\n")
        elif url.path == "/held":  # how many slow requests are under way
            self.answer(200, str(self.server.held))
        elif url.path == "/profile":
            self.answer(200, ARGS.slot)
        elif url.path.endswith("/where"):
            self.answer(200, f"{ARGS.host}/{ARGS.slot} {setting('version', '?')}")
        elif url.path.endswith("/who"):
            self.answer(200, f"{ARGS.slot} {setting('version', '?')}")
        elif url.path == "/client":
            self.answer(200, self.client_address[0])
        elif url.path == "/env":
            self.answer(200, os.environ.get(query.get("name", ""), ""))
        elif url.path == "/file":
            try:
                with open(query.get("name", ""), encoding="utf-8") as f:
                    self.answer(200, f.read())
            except OSError as e:
                self.answer(404, str(e))
        else:
            if url.path == "/slow":
                with self.server.holding():
                    hold(query)
            self.answer(200, str(setting("version", "?")))

    do_POST = do_HEAD = do_PUT = do_GET


def hold(query):
    """For s seconds, or until a file of that name is there."""
    if "until" not in query:
        time.sleep(float(query.get("s", "1")))
    while "until" in query and not os.path.exists(query["until"]):
        time.sleep(0.02)


def later(seconds, what):
    timer = threading.Timer(seconds, what)
    timer.daemon = True
    timer.start()


def main():
    print(f"app {setting('version')} begins in slot {ARGS.slot}", flush=True)
    if setting("print_env"):
        print(f"app: {setting('print_env')} is {os.environ.get(setting('print_env'))}", flush=True)
    if setting("exit_at_once") is not None:
        print("app: cannot work: the settings say so", file=sys.stderr, flush=True)
        sys.exit(setting("exit_at_once"))
    time.sleep(setting("start_delay", 0))
    hold({"until": setting("start_when", "/")})
    app = App((setting("listen", "127.0.0.1"), ARGS.port), Page)
    if ARGS.management:
        threading.Thread(target=App(("127.0.0.1", ARGS.management), Page).serve_forever, args=(0.02,), daemon=True).start()
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: setting("ignore_term") or ended.set())
    if setting("die_after") is not None:
        later(setting("die_after"), lambda: os._exit(3))
    threading.Thread(target=app.serve_forever, args=(0.02,), daemon=True).start()
    print(f"app {setting('version')} listens on port {ARGS.port}", flush=True)
    ended.wait()
    app.stop()
    print(f"app {setting('version')} ends", flush=True)


main()
