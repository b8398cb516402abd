"""The laboratory of the deployment-tool document: client, L4, was1 and was2, each a network of its own, a real
Tomcat on both servers, and in front of them one of the balancers by its name."""
import socket

import wars
from l4lab import L4Lab
from lab import poll

FLOW = "deployAndTomcatRestartWithL4Control"
PORT = 8080


def nat(net):
    net.l4.hold(net.vip)
    net.l4.forward()
    return {"nftables": {"on": "l4", "vip": net.vip, "port": PORT, "mode": "nat"}}


def dsr(net):
    net.l4.hold(net.vip)
    return {"nftables": {"on": "l4", "vip": net.vip, "port": PORT, "mode": "dsr", "interface": "lan"}}


def ipvs(net):
    """Where the kernel has it: in user-mode Linux (ipvs_guest.py)."""
    net.l4.hold(net.vip)
    for name in ("expire_nodest_conn", "expire_quiescent_template"):
        net.l4.set(f"net.ipv4.vs.{name}", 1)
    return {"ipvs": {"on": "l4", "vip": net.vip, "port": PORT, "mode": "dr"}}


def down(path):
    """The servers of the backend that haproxy finds down."""
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(str(path))
        s.sendall(b"show stat\n")
        rows = [row.split(",") for row in s.makefile().read().splitlines()]
    return {row[1] for row in rows if row[0] == "shop" and row[1] != "BACKEND" and row[17] == "DOWN"}


def haproxy(net, known=("was1", "was2")):
    """Servers by their addresses, checked by HTTP, behind the VIP on the l4 host."""
    lab, conf = net.lab, net.lab.dir / "haproxy.cfg"
    net.l4.hold(net.vip)
    servers = "\n".join(f"    server {n} {net.hosts[n].address}:{PORT} check inter 200ms fall 2 rise 1"
                        for n in known)
    conf.write_text(f"""global
    stats socket {lab.dir}/haproxy.sock mode 660 level admin expose-fd listeners
    pidfile {lab.dir}/haproxy.pid
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend web
    bind {net.vip}:{PORT}
    default_backend shop
backend shop
    option httpchk GET /health
    option http-server-close
{servers}
""")
    net.l4.run("/usr/sbin/haproxy", "-D", "-f", conf)
    # It takes a server for up until a second check has failed: a plan of that moment takes it for one that serves.
    poll("haproxy has found out that nobody is there", lambda: down(lab.dir / "haproxy.sock") == set(known))
    return {"haproxy": {"on": "l4", "socket": str(lab.dir / "haproxy.sock"), "backend": "shop", "server": "{host}"}}


BALANCERS = {"nat": nat, "dsr": dsr, "nat6": nat, "dsr6": dsr, "haproxy": haproxy, "ipvs": ipvs}


class FlowLab(L4Lab):
    def __init__(self, lab, balancer, **groups):
        super().__init__(lab, six=balancer.endswith("6"))
        self.balancer = balancer
        bases = lab.dir / "tomcat"
        bases.mkdir()
        for name in ("was1", "was2"):
            self.hosts[name].own(bases)
        self.agents()
        config = self.config(traffic=BALANCERS[balancer](self))
        config["run"] = {"as": "tomcat", "slots": {"a": {"port": PORT, "shutdown": 8005}},
                         "stop": {"signal": "TERM", "grace": "20s"},
                         "tomcat": {"base": f"{bases}/{{service}}-{{slot}}", **wars.FAST}}
        config["health"] = {"http": "/health", "expect": {"json": {"status": "UP"}}, "every": "50ms", "within": "60s"}
        config["deploy"] = {"strategy": "rolling", "drain": "15s", "bake": "0s"}
        for key, value in groups.items():
            config[key] = {**config.get(key, {}), **value} if isinstance(value, dict) else value
        lab.write()

    def deploy(self, version, **settings):
        return wars.deploy(self.lab, wars.build(self.lab.dir, version, **settings), version)

    def run_flow(self, version, *args, flow=FLOW, **settings):
        """As Jenkins calls the client: the template and the servers."""
        return self.lab.baton("run", flow, "--service", "shop", "--hosts", "was1,was2", "--artifact",
                              wars.build(self.lab.dir, version, **settings), "--version", version, *args)

    def start_flow(self, version, *args, flow=FLOW, **settings):
        return self.lab.start_baton("run", flow, "--service", "shop", "--hosts", "was1,was2", "--artifact",
                                    wars.build(self.lab.dir, version, **settings), "--version", version, *args)

    def load_shop(self, **options):
        return self.load(PORT, path="/version", **{"rate": 60, "keepers": 4, **options})

    def versions(self):
        """What the client gets now, from whichever server: a set."""
        return {self.ask("/version", PORT) for _ in range(6)}
