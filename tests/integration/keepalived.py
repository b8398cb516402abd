"""The real keepalived on the balancer's host: it makes virtual services, checks their real servers, and takes
them away and puts them back as it finds them, whatever others have done there.

    ka = Keepalived(net, [virtual_server("192.0.2.10", 80, servers, "TCP_CHECK { connect_timeout 2 }")])
    ka.heard()            # ["down 192.0.2.11:80", "up 192.0.2.11:80"]: what it has found
    ka.reload([…])        # another configuration, as SIGHUP does it
"""
import signal
import subprocess

from lab import poll

PROGRAM = "/usr/sbin/keepalived"


def virtual_server(vip, port, servers, check, weight=1, each=""):
    """One virtual_server block; servers are addresses. each: a line of every real server."""
    reals = "\n".join(f"""    real_server {s} {port} {{
        weight {weight}
        notify_up "NOTIFY up {s}:{port}"
        notify_down "NOTIFY down {s}:{port}"
        {each}
        {check}
    }}""" for s in servers)
    return f"""virtual_server {vip} {port} {{
    delay_loop 1
    lb_algo wlc
    lb_kind DR
    protocol TCP
{reals}
}}
"""


class Keepalived:
    def __init__(self, net, services):
        self.net, self.dir = net, net.lab.dir
        self.conf, self.said = self.dir / "keepalived.conf", self.dir / "keepalived.said"
        self.child = None
        notify = self.dir / "notify.sh"
        notify.write_text(f'#!/bin/sh\necho "$1 $2" >>{self.said}\n')
        notify.chmod(0o755)
        self.said.touch()
        self._write(services)
        self.start()

    def _write(self, services):
        head = "global_defs {\n    script_user root\n}\n"
        self.conf.write_text(head + "".join(services).replace("NOTIFY", str(self.dir / "notify.sh")))

    def start(self):
        with open(self.dir / "keepalived.log", "a", encoding="utf-8") as log:
            self.child = subprocess.Popen(
                [*self.net.l4.wrap(), PROGRAM, "-n", "-l", "-D", "-C", "-f", self.conf, "-p", self.dir / "keepalived.pid",
                 "-c", self.dir / "checkers.pid"], cwd=self.dir, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True)
        self.net.lab.children["keepalived"] = self.child
        poll("keepalived checks", lambda: self.alive() and (self.dir / "checkers.pid").exists())

    def alive(self):
        assert self.child.poll() is None, (self.dir / "keepalived.log").read_text()[-4000:]
        return True

    def stop(self):
        self.net.lab.kill("keepalived", signal.SIGTERM)

    def reload(self, services):
        self._write(services)
        self.child.send_signal(signal.SIGHUP)

    def heard(self):
        return self.said.read_text().splitlines()
