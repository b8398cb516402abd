"""User-mode Linux: a kernel as a process, with what this machine's own kernel may lack. Its root is this
machine's files, read-only, so that programs, Python and the build are there; /tmp and /run are its own.

    done = uml.run(["modprobe", "ip_vs"], …)      # done.returncode, done.stdout: all that it said

It is slow (every system call of its processes is traced) and has one processor: a test boots it once and
does all it has to do in it.
"""
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import tempfile

import pytest

from lab import BUILD, HERE, SANITIZED

SOURCE = HERE.parents[1]
KERNEL = "linux.uml"
MODULES = pathlib.Path("/usr/lib/uml/modules")
ENDED = "guest-ended-with"  # and the exit code: the last line of the console

# /run and /tmp cover this machine's, so what lies there is bound to another place first.
INIT = """#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/run LC_ALL=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sysfs /sys
echo guest >/proc/sys/kernel/hostname
mount -t tmpfs -o mode=755 run /run
mkdir -p /run/build /run/source /run/lib/lib/modules /run/netns
mount --bind {build} /run/build
mount --bind {source} /run/source
mount -t tmpfs tmp /tmp
ln -s {modules}/$(uname -r) /run/lib/lib/modules/$(uname -r)
ip link set lo up
for m in {names}; do modprobe -d /run/lib "$m" || exit 1; done
cd /run
BATON_BUILD=/run/build {command} </dev/null
echo {ended} $?
echo o >/proc/sysrq-trigger
while :; do read -r _ </proc/self/stat; done
"""


def need():
    """Skips where it cannot be: with a reason for a person."""
    if not shutil.which(KERNEL):
        pytest.skip("linux.uml is not installed: tools/deps.sh test installs user-mode-linux")
    if SANITIZED:
        pytest.skip("programs with sanitizers abort in user-mode Linux: the plain build runs this test")


class Done:
    def __init__(self, returncode, stdout):
        self.returncode, self.stdout = returncode, stdout


def environment(where):
    """Its memory is a file that is written as it is used: on a tmpfs where that has room, else on the disk."""
    room = os.statvfs("/dev/shm") if os.path.isdir("/dev/shm") else None
    small = room is None or room.f_bavail * room.f_frsize < 1 << 30
    return {**os.environ, "TMPDIR": where if small else "/dev/shm"}


def run(command, modules=(), memory="512M", seconds=600):
    """Boots it, runs one command as root, and turns it off. What lies in the build and in the sources is at
    /run/build and /run/source there. returncode is the command's; -1: it did not come to its end in time."""
    need()
    with tempfile.TemporaryDirectory(prefix="baton-uml-", dir="/tmp") as where:
        init = pathlib.Path(where) / "init.sh"
        init.write_text(INIT.format(build=shlex.quote(str(BUILD)), source=shlex.quote(str(SOURCE)), modules=MODULES,
                                    names=" ".join(modules), command=shlex.join(map(str, command)), ended=ENDED))
        init.chmod(0o755)
        child = subprocess.Popen(
            [KERNEL, f"mem={memory}", "rootfstype=hostfs", "rootflags=/", "ro", "quiet", f"init={init}", "con=null",
             "con0=null,fd:1", "umid=guest", f"uml_dir={where}/"], cwd=where, env=environment(where),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            start_new_session=True)
        try:
            said, _ = child.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)  # the kernel and its processes are one group
            said, _ = child.communicate()
        finally:
            try:
                os.killpg(child.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
    lines = [line.rstrip("\r") for line in said.split("\n")]
    ends = [line.split()[-1] for line in lines if line.startswith(ENDED + " ")]
    return Done(int(ends[0]) if ends else -1, "\n".join(lines))
