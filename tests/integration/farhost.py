"""Another host: a network and mounts of its own on this machine, so that two agents have the same ports
and the same paths, as two real hosts do. Needs root, as every test that makes a host does.

    web2 = FarHost(lab)                     # web2.address is how we reach it, web2.gateway how it reaches us
    web2.own(lab.dir / "etc")               # there, this directory is another one (its own copy)
    lab.agent("web2", machine=web2)
"""
import os
import shutil
import subprocess
import unittest


def ip(*args):
    subprocess.run(["ip", *map(str, args)], check=True, stdin=subprocess.DEVNULL)


class FarHost:
    def __init__(self, lab):
        if os.geteuid() != 0:
            raise unittest.SkipTest("a host of its own needs root")  # the demo and the bench have no pytest
        n = len(lab.machines)
        block = lab.ports_.base // 20 * 4 + n  # unique as long as the laboratory's ports are
        self.lab, self.name, self.mounts = lab, f"bt{lab.ports_.base}-{n}", []
        self.net = f"10.{200 + block // 64 % 50}.{block % 64 * 4}"
        self.gateway, self.address = f"{self.net}.1", f"{self.net}.2"
        self.remove()  # of a test that was killed: nobody else has this name
        ip("netns", "add", self.name)
        lab.machines.append(self)
        ip("link", "add", self.name, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        ip("addr", "add", f"{self.gateway}/30", "dev", self.name)
        ip("link", "set", self.name, "up")
        ip("-n", self.name, "addr", "add", f"{self.address}/30", "dev", "eth0")
        ip("-n", self.name, "link", "set", "eth0", "up")
        ip("-n", self.name, "link", "set", "lo", "up")

    def own(self, path):
        """There, the directory is a copy of what it is here now. Returns where that copy lies."""
        copy = self.lab.dir / f"{self.name}-{len(self.mounts)}"
        shutil.copytree(path, copy, symlinks=True)
        self.mounts.append((copy, path))
        return copy

    def wrap(self):
        """What comes before a program that shall run there."""
        bind = "".join(f"mount --bind '{a}' '{b}' && " for a, b in self.mounts)
        return ["ip", "netns", "exec", self.name, "sh", "-c", bind + 'exec "$@"', "sh"]

    def remove(self):
        for kind in ("netns", "link"):
            subprocess.run(["ip", kind, "del", self.name], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                           check=False)

    def close(self):
        self.remove()
