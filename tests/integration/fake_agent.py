"""A fake agent, for tests of the server alone: it speaks the agents' half of docs/wire.md over mutual
TLS, keeps a small world of slots and a pool in memory, and says what a test wants it to say. It is
not baton's agent: nothing runs, nothing listens."""
import http.client
import json
import ssl
import subprocess
import threading


def openssl(*args):
    done = subprocess.run(["openssl", *args], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


class FakeAgent:
    def __init__(self, lab, host, token=None):
        self.lab, self.host = lab, host
        self.dir = lab.dir / f"fake-{host}"
        self.dir.mkdir(exist_ok=True)
        self.key, self.cert = str(self.dir / "key.pem"), str(self.dir / "cert.pem")
        self.slots = {}        # (service, slot): release
        self.pools = {}        # balancer: {"generation", "members"}
        self.releases = {}     # service: set of ids
        self.done = {}         # key text: result, as a ledger would have it
        self.runs = []         # key texts in the order in which they were really done
        self.seen = []         # every command that was answered, repeats too
        self.seen_all = []     # every command that came
        self.refuse = {}       # task kind: detail of a failure
        self.hold = set()      # task kinds that are not done until the test lets them
        self.cursor, self.store = 0, None
        self.thread, self.stop_ = None, threading.Event()
        self.paused = threading.Event()
        self.answers = True    # to asks
        self.services = {}     # name: config, from questions
        if token:
            self.join(token)

    # ---- the wire ----

    def csr(self):
        out = str(self.dir / "agent.csr")
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", self.key + ".new",
                "-out", out, "-subj", f"/CN={self.host}")
        with open(out, encoding="ascii") as f:
            return f.read()

    def take(self, certificate):
        (self.dir / "key.pem").write_bytes((self.dir / "key.pem.new").read_bytes())
        (self.dir / "cert.pem").write_text(certificate)

    def join(self, token, host=None):
        status, answer, _ = self.call("POST", "/v1/join", {"token": token, "csr": self.csr(), "host": host or self.host},
                                      anonymous=True)
        if status == 200:
            self.take(answer["certificate"])
        return status, answer

    def call(self, method, path, body=None, anonymous=False, headers=None, timeout=40):
        """(status, JSON or bytes, headers); status 0 when nobody answers."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if not anonymous:
            context.load_cert_chain(self.cert, self.key)
        connection = http.client.HTTPSConnection("127.0.0.1", self.lab.port("agents"), context=context, timeout=timeout)
        try:
            connection.request(method, path, None if body is None else json.dumps(body),
                               {"Content-Type": "application/json", **(headers or {})})
            answer = connection.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException):
            return 0, None, {}
        finally:
            connection.close()
        kind = answer.getheader("Content-Type") or ""
        return answer.status, json.loads(data) if "json" in kind and data else data, answer.headers

    def hello(self, **more):
        status, answer, _ = self.call("POST", "/v1/agent/hello", {
            "wire": 1, "version": "fake", "host": self.host, "address": "127.0.0.1", "boot_id": "fake",
            "store": self.store, "cursor": self.cursor, "tokens": {}, "generations": {}, **more})
        if status == 200:
            self.store, self.cursor = answer["store"], answer["cursor"]
        return status, answer

    def poll(self, wait="1s"):
        return self.call("GET", f"/v1/agent/commands?store={self.store}&after={self.cursor}&wait={wait}")

    # ---- the world ----

    def seen_host(self, service):
        name = service["service"]
        self.services[name] = service
        instances = [{"slot": slot, "port": port, "state": "running" if self.slots.get((name, slot)) else "absent",
                      "release": self.slots.get((name, slot), 0), "pid": 1 if self.slots.get((name, slot)) else 0,
                      "since_wall_ms": 0, "restarts": 0} for slot, port in service["run"]["slots"].items()
                     ] if self.host in service["hosts"] else []
        balancers = []
        nginx = service.get("traffic", {}).get("nginx")
        if nginx and nginx["on"] == self.host:
            pool = self.pools.get(f"nginx/{name}", {"generation": 0, "members": []})
            balancers = [{"name": f"nginx/{name}", "generation": pool["generation"], "running": True, "old_workers": 0,
                          "members": [{"address": m["address"], "port": m["port"], "in": m["in"]}
                                      for m in pool["members"]]}]
        return {"host": self.host, "address": "127.0.0.1", "agent_version": "fake", "free_bytes": 1 << 40,
                "can_bind_low": False, "instances": instances, "balancers": balancers,
                "releases": sorted(self.releases.get(name, ()))}

    def effect(self, command):
        """(outcome, prior, more members of the result)"""
        name, kind, params = command["service"], command["task"], command["params"]
        undo = command["key"]["verb"] == "undo"
        slot = (name, params.get("slot"))
        prior = {"known": True, "release": self.slots.get(slot, 0), "running": bool(self.slots.get(slot)),
                 "present": params.get("release") in self.releases.get(name, ()), "generation": 0}
        if kind in self.refuse and not undo:
            return "failed", prior, {"detail": self.refuse[kind], "log": f"log of {kind}\n"}
        if kind == "Observe":
            return "done", prior, {"observation": self.seen_host(params["service"])}
        if kind == "ComponentDeploy":
            (self.releases.setdefault(name, set()).discard if undo else
             self.releases.setdefault(name, set()).add)(params["release"])
        elif kind in ("InstanceStart", "InstanceStop"):
            before = command.get("prior", {})
            wanted = ((before.get("release", 0) if before.get("running") else 0) if undo else
                      params["release"] if kind == "InstanceStart" else 0)
            self.slots[slot] = wanted
        elif kind == "Switch":
            pool = self.pools.get(params["balancer"], {"generation": 0})
            prior["generation"] = pool["generation"]
            assert params["generation"] > pool["generation"], "a generation came twice"
            self.pools[params["balancer"]] = {"generation": params["generation"], "members": params["members"]}
        return "done", prior, {"drained": True, "detail": "fake", "log": f"log of {kind}\n"}

    def run(self, command):
        text = json.dumps(command["key"], sort_keys=True)
        self.seen.append(command)
        if text not in self.done:
            outcome, prior, more = self.effect(command)
            self.runs.append(text)
            self.done[text] = {"key": command["key"], "outcome": outcome, "prior": prior, **more}
        return {**self.done[text], "token": command["token"]}

    def post(self, results):
        return self.call("POST", "/v1/agent/results", {"results": results})

    def observe(self):
        parts = {name: {k: v for k, v in self.seen_host(service).items() if k in ("instances", "balancers", "releases")}
                 for name, service in self.services.items()}
        return self.call("POST", "/v1/agent/observation", {"host": self.host, "address": "127.0.0.1",
                         "agent_version": "fake", "free_bytes": 1 << 40, "services": parts})

    def answer(self, ask):
        if not self.answers or ask["kind"] == "stop":
            return
        body = ({"observation": self.seen_host(ask["service"]), "end": True} if ask["kind"] == "observe" else
                {"lines": [f"{ask['slot']} line {n}" for n in range(ask["lines"])], "end": True})
        self.call("POST", f"/v1/agent/stream/{ask['ask']}", body)

    # ---- a thread of its own ----

    def once(self, wait="1s"):
        """One hello if need be, one poll, and what it brought; True when the server answered."""
        if self.store is None and self.hello()[0] != 200:
            return False
        status, answer, _ = self.poll(wait)
        if status != 200:
            return False
        if answer["store"] != self.store:
            return self.hello()[0] == 200
        for ask in answer["asks"]:
            self.answer(ask)
        for command in answer["commands"]:
            self.cursor = command["seq"]
            self.seen_all.append(command)
            if command["task"] in self.hold:
                continue
            result = self.run(command)
            while not self.stop_.is_set():
                if self.paused.is_set():
                    self.stop_.wait(0.01)
                    continue
                status, acked, _ = self.post([result])
                if status == 200 and result["key"] in acked["acked"]:
                    break
                if status == 403:
                    break
                self.stop_.wait(0.05)
            self.observe()
        return True

    def loop(self):
        while not self.stop_.is_set():
            if not self.once():
                self.stop_.wait(0.05)

    def start(self):
        self.thread = threading.Thread(target=self.loop, daemon=True)
        self.thread.start()
        return self

    def stop(self):
        self.stop_.set()
        if self.thread:
            self.thread.join(60)
