"""A laboratory: real baton processes, a real nginx and small apps, in one temporary directory and on
ports that no other laboratory has. close() ends every process that belongs to that directory.

    lab.nginx(); lab.config(); lab.up()
    assert lab.deploy("v1").returncode == 0
    with lab.load() as load:
        lab.deploy("v2")
    assert load.failed == 0, load.summary()
"""
import fcntl
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

from load import Load

HERE = pathlib.Path(__file__).resolve().parent
BUILD = pathlib.Path(os.environ.get("BATON_BUILD", HERE.parents[1] / "build")).resolve()
BATON = BUILD / "src/cli/baton"
PYTHON = "/usr/bin/python3"
SANITIZED = "asan" in BUILD.name
PATIENCE = 120  # seconds until a fact that should come true counts as a failure
BLOCK = 20                           # ports of one laboratory

ANY_CERTIFICATE = ssl._create_unverified_context()


class Failed(AssertionError):
    pass


def poll(what, fact, seconds=PATIENCE):
    """The first true value of fact(). There are no sleeps in tests, only facts with a deadline."""
    began = time.monotonic()
    while True:
        value = fact()
        if value:
            return value
        waited = time.monotonic() - began
        if waited > seconds:
            raise Failed(f"{what}: not within {seconds} s")
        time.sleep(0.02 if waited < 1 else 0.06)  # others run beside it


class Ports:
    """A block of free ports, held by a lock that ends with the process."""

    def __init__(self):
        first, last = map(int, os.environ.get("BATON_TEST_PORTS", "24000-25999").split("-"))
        where = pathlib.Path(tempfile.gettempdir()) / "baton-test-ports"
        where.mkdir(exist_ok=True)
        self.lock = None
        poll(f"a free block of ports in {first}-{last}", lambda: self._take(first, last, where))

    def _take(self, first, last, where):
        for base in range(first, last - BLOCK + 2, BLOCK):
            lock = open(where / str(base), "w", encoding="ascii")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._check(base)
            except OSError:
                lock.close()
                continue
            self.lock, self.base, self.left = lock, base, list(range(base, base + BLOCK))
            return True
        return False

    @staticmethod
    def _check(base):
        for port in range(base, base + BLOCK):
            with socket.socket() as s:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                s.bind(("0.0.0.0", port))

    def take(self):
        return self.left.pop(0)

    def close(self):
        self.lock.close()


class Lab:
    def __init__(self, prefix="baton-lab-"):
        # short: unix sockets live below it
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
        self.ports_ = Ports()
        self.named_ports = {}
        self.children = {}   # name: Popen
        self.loads = []
        self.machines = []   # hosts with a network of their own; see farhost.py
        self.networks = []   # what lies between them; see l4lab.py
        self.url = self.token = self.page = None
        self.services = {}   # name: config

    def port(self, name):
        if name not in self.named_ports:
            self.named_ports[name] = self.ports_.take()
        return self.named_ports[name]

    # ---- processes ----

    def env(self, **more):
        keep = {k: v for k, v in os.environ.items() if not k.startswith("BATON_") and k != "NO_COLOR"}
        out = {**keep, "HOME": str(self.dir), "BATON_DIR": str(self.dir / "none")}
        if self.url:
            out.update(BATON_SERVER=self.url, BATON_TOKEN=self.token or "none")
        if (self.dir / "ca.pem").exists():
            out["BATON_CACERT"] = str(self.dir / "ca.pem")
        return {**out, **more}

    def log(self, name):
        path = self.dir / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self, name, *args, wrap=(), **env):
        """A baton process in the background; what it says is in lab.log(name). wrap: a program before it."""
        with open(self.dir / f"{name}.log", "a", encoding="utf-8") as log:
            self.children[name] = subprocess.Popen(
                [*wrap, BATON, *map(str, args)], cwd=self.dir, env=self.env(**env), stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        return self.children[name]

    def kill(self, name, number=signal.SIGKILL):
        """Signals one process of ours by its pid and waits for its end."""
        child = self.children.pop(name)
        child.send_signal(number)
        return child.wait(PATIENCE)

    def alive(self, name):
        if self.children[name].poll() is not None:
            raise Failed(f"{name} ended with exit code {self.children[name].returncode}:\n{self.log(name)[-4000:]}")
        return True

    def baton(self, *args, timeout=300, **env):
        """Runs the client to its end: CompletedProcess with text."""
        return subprocess.run([BATON, *map(str, args)], cwd=self.dir, env=self.env(**env), text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=timeout)

    def start_baton(self, *args, **env):
        """The client in the background, with its output in pipes."""
        child = subprocess.Popen([BATON, *map(str, args)], cwd=self.dir, env=self.env(**env), text=True,
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.children[f"client {child.pid}"] = child
        return child

    # ---- baton up, or server and agents ----

    def up(self, *args, wait=True, wrap=(), **env):
        self.url = f"http://127.0.0.1:{self.port('api')}"
        self.start("up", "up", "--dir", self.dir / "state", "--listen", f"127.0.0.1:{self.port('api')}",
                   "--agent-listen", f"127.0.0.1:{self.port('agents')}", *args, wrap=wrap, **env)
        if wait:
            self.wait_up()

    def wait_up(self):
        # as that process sees it: its state may lie on a file system of its own
        client = pathlib.Path(f"/proc/{self.children['up'].pid}/root{self.dir}/state/client.json")
        poll("baton up writes client.json", lambda: self.alive("up") and client.exists())
        self.token = json.loads(client.read_text())["token"]
        poll("the local agent connects", lambda: self.alive("up") and self.connected("local"))

    def server(self, *args, wait=True, **env):
        """`baton server`: set up on the first call, run on each."""
        state = self.dir / "server"
        self.url = f"http://127.0.0.1:{self.port('api')}"
        if not self.token:
            names = [a for m in self.machines for a in ("--name", m.gateway)]
            done = self.baton("server", "init", "--dir", state, "--name", "localhost", *names)
            assert done.returncode == 0, done.stderr
            self.token = done.stdout.split()[-1]
        self.start("server", "server", "run", "--dir", state, "--listen", f"127.0.0.1:{self.port('api')}",
                   "--agent-listen", f"{'0.0.0.0' if self.machines else '127.0.0.1'}:{self.port('agents')}", *args, **env)
        if wait:
            poll("the server answers", lambda: self.alive("server") and self.healthy())

    def join_token(self, host, *args):
        done = self.baton("join-token", host, *args)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()[-1]

    def join(self, host, token, *args, address="127.0.0.1"):
        return self.baton("agent", "join", f"https://127.0.0.1:{self.port('agents')}", "--token", token, "--dir",
                          self.dir / f"agent-{host}", "--host", host, "--address", address, *args)

    def agent(self, host, wait=True, wrap=(), machine=None, address="127.0.0.1", args=(), **env):
        """`baton agent`: joined on the first call, run on each. Its process is called agent-HOST.
        machine: where it runs; address: how others reach it; args: more of its options."""
        server = "127.0.0.1"
        if machine:
            wrap, server, address = machine.wrap(), machine.gateway, machine.address
        if wrap:  # a file system of its own: it is joined there, by the same shell
            join = [BATON, "agent", "join", f"https://{server}:{self.port('agents')}", "--dir",
                    self.dir / f"agent-{host}", "--host", host, "--address", address]
            joined = f"[ -e {self.dir}/agent-{host}/agent.json ] || " + " ".join(map(str, join))
            wrap = [*wrap, "sh", "-c", "{ " + joined + '; } && exec "$@"', "sh"]
            env["BATON_JOIN_TOKEN"] = self.join_token(host)
        elif not (self.dir / f"agent-{host}/agent.json").exists():
            done = self.join(host, self.join_token(host), address=address)
            assert done.returncode == 0, done.stderr
        self.start(f"agent-{host}", "agent", "run", "--dir", self.dir / f"agent-{host}", "--own-machine",
                   *args, wrap=wrap, **env)
        if wait:
            poll(f"agent {host} connects", lambda: self.alive(f"agent-{host}") and self.connected(host))

    # ---- the API ----

    def api(self, method, path, body=None, token=None, headers=None, timeout=30):
        """(status, decoded JSON or text); status 0 when nobody answers."""
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method)
        request.add_header("Content-Type", "application/json")
        request.add_header("Authorization", f"Bearer {token or self.token}")
        for name, value in (headers or {}).items():
            request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                status, text, kind = answer.status, answer.read(), answer.headers.get("Content-Type", "")
        except urllib.error.HTTPError as e:
            status, text, kind = e.code, e.read(), e.headers.get("Content-Type", "")
        except OSError:
            return 0, None
        return status, json.loads(text) if "json" in kind and text else text.decode(errors="replace")

    def healthy(self):
        return self.api("GET", "/v1/health")[0] == 200

    def connected(self, host):
        status, answer = self.api("GET", "/v1/hosts")
        return status == 200 and any(h["name"] == host and h.get("connected") for h in answer["hosts"])

    def service(self, name="shop"):
        return self.api("GET", f"/v1/services/{name}")[1]

    def deployments(self, name="shop"):
        """The newest first."""
        return self.api("GET", f"/v1/deployments?service={name}")[1]["deployments"]

    def deployment(self, number):
        return self.api("GET", f"/v1/deployments/{number}")[1]

    # ---- services ----

    def config(self, name="shop", host="local", slots=("blue", "green"), nginx=True, **groups):
        """Writes baton.yaml (JSON is YAML). Groups are merged key by key: deploy={"bake": "0s"}."""
        config = {
            "service": name, "hosts": [host],
            "run": {"as": "process", "command": f"{PYTHON} {{artifact}} --port {{port}} --slot {{slot}}",
                    "slots": {s: self.port(f"{name}-{s}") for s in slots},
                    "stop": {"signal": "TERM", "grace": "20s"}},
            "health": {"http": "/actuator/health", "expect": {"json": {"status": "UP"}}, "every": "100ms",
                       "within": "30s"},
            "deploy": {"strategy": "blue-green", "drain": "10s", "bake": "300ms"}}
        if nginx:
            config["traffic"] = {"nginx": {"on": host, "adopt": self.adopt(name), "url": self.page}}
            config["identity"] = {"path": "/profile"}
        for key, value in groups.items():
            if isinstance(value, dict) and isinstance(config.get(key), dict):
                config[key].update(value)
            elif value is None:
                config.pop(key, None)
            else:
                config[key] = value
        self.services[name] = config
        self.write()
        return config

    def write(self):
        """baton.yaml from self.services, which a test may have changed."""
        config = next(iter(self.services.values()))
        text = json.dumps(config if len(self.services) == 1 else
                          {"services": {n: {k: v for k, v in c.items() if k != "service"}
                                        for n, c in self.services.items()}}, indent=1)
        (self.dir / "baton.yaml").write_text(text)

    def artifact(self, version, **settings):
        """A file that is the app with these settings; see app.py for what they are."""
        path = self.dir / f"app-{version}.py"
        path.write_text(f"SETTINGS = {dict(settings, version=version)!r}\n" + (HERE / "app.py").read_text())
        return path

    def deploy(self, version, *args, service="shop", env=None, **settings):
        """Deploys the app with these settings, waits for the end: CompletedProcess."""
        return self.baton("deploy", service, "--artifact", self.artifact(version, **settings), "--version", version,
                          *args, **(env or {}))

    def start_deploy(self, version, *args, service="shop", env=None, **settings):
        return self.start_baton("deploy", service, "--artifact", self.artifact(version, **settings), "--version",
                                version, *args, **(env or {}))

    # ---- nginx, as a user runs his own ----

    def adopt(self, name="shop"):
        return {"config": str(self.dir / "nginx.conf"), "prefix": str(self.dir),
                "include": str(self.dir / f"{name}.conf")}

    def nginx(self, name="shop", conf=None, extra=""):
        """Starts nginx with an upstream that baton will own. conf: the whole configuration, else ours."""
        first = self.port(f"{name}-blue")
        self.page = f"http://127.0.0.1:{self.port('page')}"
        (self.dir / "tmp").mkdir(exist_ok=True)
        (self.dir / f"{name}.conf").write_text(f"upstream {name} {{ server 127.0.0.1:{first}; }}\n")
        (self.dir / "nginx.conf").write_text(conf or f"""\
worker_processes 2;
pid {self.dir}/nginx.pid;
error_log {self.dir}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log {self.dir}/access.log;
    client_body_temp_path {self.dir}/tmp;
    proxy_temp_path {self.dir}/tmp;
    fastcgi_temp_path {self.dir}/tmp;
    uwsgi_temp_path {self.dir}/tmp;
    scgi_temp_path {self.dir}/tmp;
    include {self.dir}/{name}.conf;
    {extra}
    server {{
        listen 127.0.0.1:{self.port('page')} backlog=1024;
        location / {{
            proxy_pass http://{name};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
        }}
    }}
}}
""")
        self.start_nginx()

    def start_nginx(self):
        binary = shutil.which("nginx") or "/usr/sbin/nginx"
        subprocess.run([binary, "-p", self.dir, "-c", self.dir / "nginx.conf", "-e", self.dir / "error.log"],
                       check=True, cwd=self.dir, stdin=subprocess.DEVNULL)
        poll("nginx listens", lambda: (self.dir / "nginx.pid").exists() and self.ask("/") is not None)

    def nginx_pid(self):
        return int((self.dir / "nginx.pid").read_text())

    def ask(self, path="/version", url=None):
        """Body of an answer through nginx with status 200, else the status; None when nobody answers."""
        try:
            with urllib.request.urlopen((url or self.page) + path, timeout=30, context=ANY_CERTIFICATE) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as e:
            return e.code
        except OSError:
            return None

    def load(self, **options):
        self.loads.append(Load(self.page, **options))
        return self.loads[-1]

    # ---- the end ----

    def belongs(self, pid):
        """Only what has our own directory in its arguments or as its working directory."""
        try:
            if os.stat(f"/proc/{pid}").st_uid != os.getuid():
                return False
            words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
            where = os.readlink(f"/proc/{pid}/cwd")
        except OSError:
            return False
        place = str(self.dir)
        named = re.search(re.escape(place) + r"(?!\w)", words)  # also in nginx's "-p DIR -c …"
        return bool(named) or where == place or where.startswith(place + "/")

    def processes(self):
        return [int(p) for p in os.listdir("/proc") if p.isdigit() and int(p) != os.getpid() and self.belongs(p)]

    def close(self):
        for load in self.loads:
            load.stop()
        # What watches ends first, then what is watched; whatever stays is killed.
        for child in self.children.values():
            if child.poll() is None:
                child.terminate()
        for number, patience in ((signal.SIGTERM, 4), (signal.SIGKILL, 10)):
            deadline, told = time.monotonic() + patience, set()
            while time.monotonic() < deadline and (left := self.processes()):
                for pid in left:
                    if pid not in told:
                        told.add(pid)
                        try:
                            os.kill(pid, number)
                        except ProcessLookupError:
                            pass
                for child in self.children.values():
                    child.poll()
                time.sleep(0.02)
        for child in self.children.values():
            child.wait(10)
            if child.stdout:
                child.stdout.close()
        for part in (*self.networks, *self.machines):
            part.close()
        self.ports_.close()
        complaints = self.complaints()
        shutil.rmtree(self.dir, ignore_errors=True)
        if complaints:
            raise Failed("a sanitizer complained:\n" + "\n".join(complaints))

    def complaints(self):
        """What sanitizers wrote into the logs of processes that ended. Leaks are the unit tests' matter:
        a process that is stopped in the middle of things still has them in its hands."""
        out = []
        for path in self.dir.glob("*.log"):
            text = path.read_text(errors="replace")
            at = re.search(r"==\d+==ERROR: (?!LeakSanitizer)|runtime error: |WARNING: ThreadSanitizer", text)
            if at:
                out.append(f"{path.name}: {text[at.start():at.start() + 4000]}")
        return out

    def report(self, out=sys.stderr):
        """What is worth reading after a failure."""
        for path in sorted(self.dir.glob("*.log")):
            tail = path.read_text(errors="replace").splitlines()[-25:]
            print(f"---- {path.name}", *tail, sep="\n", file=out)
