"""IPVS for real: this machine's kernel need not have it, so user-mode Linux does, and the tests of
ipvs_guest.py run in there (uml.py)."""
import os
import pathlib
import re

import pytest

import uml
import wars

MODULES = ("ip_vs", "ip_vs_rr", "ip_vs_wrr", "ip_vs_wlc", "veth", "bridge")
GOLDEN = uml.SOURCE / "tests/golden/ipvs/kernel-6.1.hex"


def messages(text):
    """{case: [lines]} of what ipvs-probe writes."""
    cases, name = {}, None
    for line in text.splitlines():
        if line.startswith("case "):
            name = line[5:]
            cases[name] = []
        elif re.match(r"[<>] [0-9a-f]+$", line):
            cases[name].append(line)
    return cases


def test_kernel_speaks_as_recorded():
    """Encoder and decoder against the kernel; BATON_GOLDEN_UPDATE=1 records what it said."""
    done = uml.run(["/run/build/tests/integration/ipvs-probe"], MODULES[:3], memory="256M")
    assert done.returncode == 0, done.stdout
    said = messages(done.stdout)
    if os.environ.get("BATON_GOLDEN_UPDATE"):
        GOLDEN.write_text("".join(f"case {n}\n" + "".join(f"{line}\n" for line in lines) for n, lines in said.items()))
    recorded = messages(GOLDEN.read_text())
    assert list(said) == list(recorded)
    for name, lines in said.items():
        assert [line[0] for line in lines] == [line[0] for line in recorded[name]], name
        assert [len(line) for line in lines] == [len(line) for line in recorded[name]], name


@pytest.mark.skipif(os.path.exists("/proc/net/ip_vs"), reason="this machine's kernel has IPVS")
def test_kernel_without_ipvs(lab):
    """Refused by the plan, with what to do: nothing was begun."""
    lab.up()
    lab.config(nginx=False, slots=("main",), deploy={"strategy": "rolling"},
               traffic={"ipvs": {"vip": "192.0.2.10", "port": 80}})
    done = lab.deploy("v1")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "modprobe ip_vs" in done.stderr, done.stderr
    assert lab.deployments() == []


@pytest.mark.xdist_group("uml")  # one at a time: each keeps a processor busy
@pytest.mark.parametrize("name", ["test_direct_routing", "test_nat", "test_adopted", "test_tomcats", "test_ipv6", "test_keepalived"])
def test_in_user_mode_linux(name):
    """Each boots a kernel of its own: what one leaves is nothing to the next, and they run beside each other."""
    where = pathlib.Path("/run/source/tests/integration")
    wars.classes()  # the build cannot be written to in there
    done = uml.run(["/usr/bin/python3", "-B", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--color=no",
                    f"{where}/ipvs_guest.py", "-k", name], MODULES, memory="1G")
    assert done.returncode == 0, done.stdout[-20000:]
    assert re.search(r"^1 passed", done.stdout, re.M), done.stdout[-4000:]
