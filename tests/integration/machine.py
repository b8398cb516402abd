"""A machine of its own for a test: systemd as process 1 in a container, on a copy-on-write view of this
machine's files, with a network of its own. baton is installed in it by `meson install`, with its units.

    machine.boot(); machine.run("systemctl", "start", "baton-agent")
    machine.power_off()      # at once, as if the plug was pulled
    machine.boot()
"""
import ctypes
import os
import pathlib
import shutil
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request

from lab import BUILD, PATIENCE, Failed, poll

CLONE_NEWNET = 0x40000000


class Machine:
    def __init__(self, lab):
        self.lab = lab
        self.name = lab.dir.name[-8:].replace("_", "x")
        self.root = lab.dir / "machine"
        self.net = pathlib.Path(f"/run/netns/bt-{self.name}")
        self.container = None
        self.leader = 0
        for part in ("upper", "work", "machine"):
            (lab.dir / part).mkdir()
        subprocess.run(["mount", "-t", "overlay", "baton-test", "-o",
                        f"lowerdir=/,upperdir={lab.dir}/upper,workdir={lab.dir}/work", self.root], check=True)
        subprocess.run(["ip", "netns", "add", self.net.name], check=True)
        subprocess.run(["ip", "-n", self.net.name, "link", "set", "lo", "up"], check=True)
        subprocess.run(["meson", "install", "-C", BUILD, "--no-rebuild", "--quiet", "--destdir", self.root],
                       check=True, stdout=subprocess.DEVNULL)
        # Nothing of this machine's own services: only what the test wants comes with the target.
        self.write("/etc/systemd/system/baton-test.target", "[Unit]\nRequires=basic.target\nAfter=basic.target\n"
                   "AllowIsolate=yes\n")
        shutil.rmtree(self.root / "etc/systemd/system/multi-user.target.wants", ignore_errors=True)
        shutil.rmtree(self.root / "etc/systemd/system/timers.target.wants", ignore_errors=True)
        shutil.rmtree(self.root / "var/lib/baton", ignore_errors=True)
        shutil.rmtree(self.root / "var/lib/baton-agent", ignore_errors=True)

    def path(self, path):
        return self.root / str(path).lstrip("/")

    def write(self, path, text, mode=0o644):
        there = self.path(path)
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_text(text)
        there.chmod(mode)

    def enable(self, *units):
        """Started at each boot from now on, as `systemctl enable` does for the usual target."""
        wants = self.path("/etc/systemd/system/baton-test.target.wants")
        wants.mkdir(parents=True, exist_ok=True)
        for unit in units:
            for place in ("/etc/systemd/system", "/usr/local/lib/systemd/system", "/lib/systemd/system"):
                if self.path(f"{place}/{unit}").exists():
                    (wants / unit).symlink_to(f"{place}/{unit}")
                    break
            else:
                raise Failed(f"no unit {unit}")

    def boot(self, wait=True):
        log = open(self.lab.dir / "machine.log", "a", encoding="utf-8")
        self.container = subprocess.Popen(
            ["systemd-nspawn", "-q", "-D", self.root, "-b", f"--machine={self.net.name}", "--register=no", "--keep-unit", "--link-journal=no",
             f"--network-namespace-path={self.net}", "--console=pipe", "--", "--unit=baton-test.target"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        log.close()
        self.leader = poll("process 1 is there", self.find_leader)
        if wait:
            poll("systemd has booted", lambda: self.run("systemctl", "is-system-running", check=False).stdout.strip()
                 in ("running", "degraded"))

    def find_leader(self):
        if self.container.poll() is not None:
            raise Failed("systemd-nspawn ended:\n" + self.lab.log("machine")[-3000:])
        for pid in os.listdir("/proc"):
            try:
                if pid.isdigit() and int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1]) \
                        == self.container.pid and "systemd" in os.readlink(f"/proc/{pid}/exe"):
                    words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
                    if b"nspawn" not in words:
                        return int(pid)
            except (OSError, IndexError):
                pass
        return 0

    def run(self, *argv, check=True, timeout=60, **env):
        done = subprocess.run(
            ["nsenter", "-t", str(self.leader), "-m", "-u", "-i", "-n", "-p", "--", "env", "-i",
             "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8",
             *(f"{k}={v}" for k, v in env.items()), *map(str, argv)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=timeout)
        if check and done.returncode != 0:
            raise Failed(f"{argv}: {done.returncode}\n{done.stdout}{done.stderr}\n{self.journal()}")
        return done

    def journal(self):
        if not self.leader:
            return ""
        return self.run("journalctl", "-b", "-n", "60", "--no-pager", "-u", "baton-agent", "-u", "baton-server",
                        "-u", "nginx", check=False).stdout

    def power_off(self):
        """Pulls the plug: process 1 is killed, and the kernel kills all others with it."""
        os.kill(self.leader, signal.SIGKILL)
        self.container.wait(PATIENCE)
        self.leader = 0

    def enter_net(self):
        """This thread's sockets are the machine's from now on."""
        libc = ctypes.CDLL(None, use_errno=True)
        fd = os.open(self.net, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if libc.setns(fd, CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
        finally:
            os.close(fd)

    def close(self):
        if self.leader:
            self.power_off()
        for command in (["umount", "-l", self.root], ["ip", "netns", "del", self.net.name]):
            subprocess.run(command, check=False, stderr=subprocess.DEVNULL)
        left = pathlib.Path("/run/systemd/nspawn/propagate") / self.net.name
        if left.exists():
            left.rmdir()


class Requests:
    """One request after the other from inside the machine's network, whatever happens to the machine."""

    def __init__(self, machine, url):
        self.machine, self.url = machine, url
        self.seen = []  # (time, status or None, body)
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join(60)

    def _run(self):
        self.machine.enter_net()
        while not self.ended.wait(0.005):
            try:
                with urllib.request.urlopen(self.url, timeout=5) as answer:
                    self.seen.append((time.monotonic(), answer.status, answer.read().decode()))
            except urllib.error.HTTPError as e:
                self.seen.append((time.monotonic(), e.code, ""))
            except OSError:
                self.seen.append((time.monotonic(), None, ""))

    def bodies(self):
        return {body for _, status, body in self.seen if status == 200}

    def since(self, moment):
        return [s for s in self.seen if s[0] >= moment]
