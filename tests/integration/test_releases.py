"""What a release is made of besides its artifact: ports by name, files, configuration; and what becomes of
it: stored, compared, restarted, marked, removed."""
import socket

from lab import PYTHON


def good(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def refused(done, code, *words):
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    for word in words:
        assert word in said, said
    assert "Traceback" not in said


# ---- several ports a slot ----

def two_ports(lab, within="30s"):
    lab.config(run={"command": f"{PYTHON} {{artifact}} --port {{port}} --slot {{slot}} --management {{port.management}}",
                    "slots": {s: {"port": lab.port(f"shop-{s}"), "management": lab.port(f"shop-{s}-management")}
                              for s in ("blue", "green")}},
               health={"port": "management", "within": within})


def test_an_actuator_on_a_port_of_its_own(lab):
    """The app answers health on its management port only, in either slot."""
    lab.nginx()
    two_ports(lab)
    lab.up()
    good(lab.deploy("v1"))
    with lab.load() as load:
        good(lab.deploy("v2"))
        good(lab.deploy("v3"))
        assert lab.ask() == "v3"
    assert load.failed == 0, load.summary()
    assert lab.ask("/actuator/health") == 404
    # the other slot's ports are free again, both of them
    slots = lab.services["shop"]["run"]["slots"]
    idle = slots["green" if lab.ask("/profile") == "blue" else "blue"]
    for port in idle.values():
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(("127.0.0.1", port))
    # unhealthy there is unhealthy: nothing changes
    two_ports(lab, within="1s")
    refused(lab.deploy("v4", healthy=False), 1, str(idle["management"]), "503")
    assert lab.ask() == "v3"


def test_a_stranger_on_the_other_port(lab):
    lab.nginx()
    two_ports(lab)
    lab.up()
    good(lab.deploy("v1"))
    idle = "green" if lab.ask("/profile") == "blue" else "blue"
    port = lab.port(f"shop-{idle}-management")
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", port))
        s.listen()
        refused(lab.deploy("v2"), 1, str(port), "python3")
        assert lab.ask() == "v1"
    good(lab.deploy("v2"))
