"""A secret is in the app's environment, and nowhere else."""
import contextlib
import json
import pathlib
import stat

from steps import one_line, says, text

SENTINEL = "hunter2-sentinel-4711"


def test_a_secret_is_nowhere(lab):
    lab.nginx()
    lab.config(run={"secrets": ["DB_PASSWORD"]}, health={"within": "2s"})
    lab.up()
    seen = []
    one_line(lab.deploy("v1"), 2, "DB_PASSWORD")
    done = lab.deploy("v1", env={"DB_PASSWORD": SENTINEL})
    assert done.returncode == 0, text(done)
    assert lab.ask("/env?name=DB_PASSWORD") == SENTINEL
    bad = lab.deploy("v2", env={"DB_PASSWORD": SENTINEL}, print_env="DB_PASSWORD", exit_at_once=1)
    assert bad.returncode == 1
    says(bad, 1, "app: cannot work")
    for number in (1, 2):
        seen += [text(lab.baton("show", number)), text(lab.baton("show", number, "--json")),
                 json.dumps(lab.deployment(number))]
    seen += [text(done), text(bad), text(lab.baton("plan", "--artifact", lab.artifact("v3"), DB_PASSWORD=SENTINEL)),
             text(lab.baton("logs", "shop")), json.dumps(lab.service()), lab.log("up"), lab.log("error"),
             json.dumps(lab.api("GET", "/v1/services/shop/releases")[1])]
    for what in seen:
        assert SENTINEL not in what, what
    for pid in lab.processes():
        with contextlib.suppress(OSError):
            assert SENTINEL.encode() not in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    for path in files_with(lab.dir, SENTINEL):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, f"{path} is readable by others"
        assert "journal" not in path.name and ".db" not in path.name, path


def files_with(root, words):
    return [p for p in root.rglob("*") if p.is_file() and not p.is_symlink() and words.encode() in p.read_bytes()]
