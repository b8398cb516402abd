"""What the benches share: results, a place of their own, nginx, load generators, a poller.

Everything runs on 127.0.0.1 in one temporary directory and ends by itself; only processes that
were started here are signalled, by their pid."""
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.join(ROOT, os.environ.get("BUILD", "build"))
BATON = os.path.join(BUILD, "src/cli/baton")
QUICK = os.environ.get("QUICK") == "1"
RESULTS = os.path.join(ROOT, "build", "bench", "results.jsonl")


class Results:
    """Prints a table and appends a JSON line a figure."""

    def __init__(self):
        os.makedirs(os.path.dirname(RESULTS), exist_ok=True)
        self.file = open(RESULTS, "a", encoding="utf-8")
        self.rows = []

    def add(self, bench, subject, metric, value, unit, **more):
        row = {"bench": bench, "subject": subject, "metric": metric, "value": value, "unit": unit}
        row.update(more)
        self.rows.append(row)
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()
        print(line_of(row), flush=True)

    def table(self):
        print("\n%-10s %-14s %-24s %14s  %-12s %s" % (
            "bench", "subject", "metric", "value", "unit", "more"))
        for row in self.rows:
            print(line_of(row))


def line_of(row):
    more = " ".join("%s=%s" % (k, v) for k, v in row.items()
                    if k not in ("bench", "subject", "metric", "value", "unit"))
    value = "%.3f" % row["value"] if isinstance(row["value"], float) else str(row["value"])
    return "%-10s %-14s %-24s %14s  %-12s %s" % (
        row["bench"], row["subject"], row["metric"], value, row["unit"], more)


def say(text):
    print("  … " + text, file=sys.stderr, flush=True)


def free_ports(n):
    """n ports that are free now; held open together so that they differ."""
    sockets = []
    for _ in range(n):
        s = socket.socket()
        s.bind(("127.0.0.1", 0))
        sockets.append(s)
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def get(url, timeout=2.0):
    """Status and body, or None where nothing answered."""
    request = urllib.request.Request(url, headers={"Connection": "close"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode(errors="replace")
    except OSError:
        return None


def wait_for(what, fact, seconds=60, every=0.02):
    """Polls the fact until it is true; names what was waited for when it never was."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = fact()
        if value:
            return value
        time.sleep(every)
    raise TimeoutError("waited %d s for %s" % (seconds, what))


class Place:
    """A temporary directory and the processes started in it; everything ends with it."""

    def __init__(self, name):
        self.dir = tempfile.mkdtemp(prefix="baton-bench-%s-" % name)
        self.processes = []
        self.undo = []

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for undo in reversed(self.undo):
            with contextlib.suppress(Exception):
                undo()
        for p in reversed(self.processes):
            stop(p)
        shutil.rmtree(self.dir, ignore_errors=True)

    def path(self, *parts):
        return os.path.join(self.dir, *parts)

    def write(self, name, text):
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        return path

    def start(self, argv, log, **kwargs):
        out = open(self.path(log), "ab")
        p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                             start_new_session=True, **kwargs)
        out.close()
        self.processes.append(p)
        return p


def stop(p, grace=10):
    if p.poll() is None:
        p.terminate()
        try:
            p.wait(grace)
        except subprocess.TimeoutExpired:
            p.kill()
            p.wait()


NGINX_CONF = """\
worker_processes 2;
pid {dir}/nginx.pid;
error_log {dir}/error.log warn;
daemon off;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2;
    fastcgi_temp_path {dir}/t3; uwsgi_temp_path {dir}/t4; scgi_temp_path {dir}/t5;
    server {{
        listen 127.0.0.1:{port};
        include {inc};
        location / {{
            proxy_pass {target};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
        }}
    }}
    {outside}
}}
"""


class Nginx:
    """A real nginx with one included file, in the form that a document uses."""

    def __init__(self, place, name, target, first, outside=False):
        self.dir = place.path(name)
        os.makedirs(self.dir)
        (self.port,) = free_ports(1)
        self.inc = os.path.join(self.dir, "service-url.inc")
        with open(self.inc, "w", encoding="utf-8") as f:
            f.write(first)
        self.conf = place.write(name + "/nginx.conf", NGINX_CONF.format(
            dir=self.dir, port=self.port, target=target,
            inc="/dev/null" if outside else self.inc,
            outside="include %s;" % self.inc if outside else ""))
        self.process = place.start(["nginx", "-p", self.dir, "-c", self.conf], name + "/out.log")
        self.url = "http://127.0.0.1:%d" % self.port
        wait_for("nginx", lambda: os.path.exists(self.dir + "/nginx.pid") and get(self.url + "/"))

    def reload_command(self):
        return "nginx -p %s -c %s -s reload" % (self.dir, self.conf)


def listener(port):
    """Pid of the process that listens on the port, or None."""
    out = subprocess.run(["lsof", "-ti", "tcp:%d" % port, "-s", "tcp:listen"],
                         capture_output=True, text=True, check=False).stdout.split()
    return int(out[0]) if out else None


def process_start(pid):
    """CLOCK_MONOTONIC time at which the process was started."""
    with open("/proc/%d/stat" % pid, encoding="utf-8") as f:
        ticks = int(f.read().rsplit(")", 1)[1].split()[19])
    offset = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
    return ticks / os.sysconf("SC_CLK_TCK") - offset


class BootPoll(threading.Thread):
    """An independent look every 10 ms at the health of whoever comes next on a port: when did it first
    answer 200? Who is there already is left alone: an app that stops waits for its last request."""

    def __init__(self, ports, path):
        super().__init__(daemon=True)
        self.old = {port: listener(port) for port in ports}
        self.urls = {port: "http://127.0.0.1:%d%s" % (port, path) for port in ports}
        self.first = {}
        self.done = threading.Event()
        self.start()

    def run(self):
        while not self.done.is_set():
            for port, url in self.urls.items():
                if port in self.first or (self.old[port] and os.path.exists("/proc/%d" % self.old[port])):
                    continue
                answer = get(url, 1.0)
                if answer and answer[0] == 200:
                    self.first[port] = time.monotonic()
            time.sleep(0.01)

    def boot(self):
        """Seconds from the start of the new process to its first good answer; exactly one is new."""
        self.done.set()
        self.join()
        (port,) = self.first
        return self.first[port] - process_start(listener(port))


def memory(pid):
    """Resident and private MiB of a process."""
    values = {}
    with open("/proc/%d/smaps_rollup" % pid, encoding="utf-8") as f:
        for line in f:
            m = re.match(r"(\w+):\s+(\d+) kB", line)
            if m:
                values[m.group(1)] = int(m.group(2)) / 1024
    return values["Rss"], values["Private_Clean"] + values["Private_Dirty"]


class Load:
    """A load generator of somebody else's: hey or wrk. It is ended by SIGINT and prints its sums."""

    def __init__(self, place, kind, url, seconds):
        argv = {
            "close": ["hey", "-z", "%ds" % seconds, "-c", "20", "-q", "25", "-t", "30",
                      "-disable-keepalive", url],
            "hey": ["hey", "-z", "%ds" % seconds, "-c", "20", "-q", "25", "-t", "30", url],
            "wrk": ["wrk", "-t1", "-c20", "-d%ds" % seconds, "--timeout", "30s", url],
        }[kind]
        self.kind = kind
        self.log = place.path("load-%s-%d.txt" % (kind, time.monotonic_ns()))
        with open(self.log, "wb") as out:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        place.processes.append(self.process)

    def finish(self):
        """(requests, failed)"""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)
        with open(self.log, encoding="utf-8") as f:
            text = f.read()
        return wrk_sums(text) if self.kind == "wrk" else hey_sums(text)


def hey_sums(text):
    good = bad = 0
    for status, n in re.findall(r"\[(\d{3})\]\s+(\d+) responses", text):
        if status == "200":
            good += int(n)
        else:
            bad += int(n)
    errors = text.split("Error distribution:")[1] if "Error distribution:" in text else ""
    bad += sum(int(n) for n in re.findall(r"^\s*\[(\d+)\]\s", errors, re.M))
    if good + bad == 0:
        raise RuntimeError("hey said nothing that can be read:\n" + text)
    return good + bad, bad


def wrk_sums(text):
    m = re.search(r"(\d+) requests in", text)
    if not m:
        raise RuntimeError("wrk said nothing that can be read:\n" + text)
    bad = 0
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    if errors:
        bad += sum(int(n) for n in errors.groups())
    non = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    if non:
        bad += int(non.group(1))
    return int(m.group(1)), bad
