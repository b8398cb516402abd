"""Completion in a real bash, manual pages under real groff, and both where `make install` puts them."""
import os
import pathlib
import re
import shlex
import socket
import subprocess
import time

import pytest

from lab import BATON, BUILD
from terminal import Terminal

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def shop(lab):
    lab.nginx()
    lab.config()
    lab.up()
    assert lab.deploy("v1.0").returncode == 0
    assert lab.deploy("v1.1").returncode == 0
    return lab


def complete(lab, line, **env):
    """What bash's own completion function finds at the end of the line."""
    words = [w for word in shlex.split(line) for w in re.split(r"(=)", word) if w] + [""] * line.endswith(" ")
    script = (f'source <({BATON} help --completion bash); COMP_WORDS=({" ".join(map(shlex.quote, words))}); '
              f"COMP_CWORD={len(words) - 1}; _baton {BATON}; "
              'printf "%s\\n" "${COMPREPLY[@]}"')
    run = subprocess.run(["bash", "-c", script], cwd=lab.dir, env=lab.env(**env), text=True, check=True,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert run.stderr == ""
    return run.stdout.split()


def test_bash_completes_from_the_table_and_the_server(shop):
    commands = re.findall(r"^## baton (\S+)", (ROOT / "docs/cli.md").read_text(), re.M)
    assert sorted(complete(shop, "baton ")) == sorted(set(commands))
    assert complete(shop, "baton depl") == ["deploy"]
    assert set(complete(shop, "baton server ")) == {"init", "run"}
    assert complete(shop, "baton deploy --ver") == ["--version"]
    assert {"--follow", "--server"} <= set(complete(shop, "baton logs --"))
    assert complete(shop, "baton status s") == ["shop"]
    assert complete(shop, "baton logs shop --slot gr") == ["green"]
    assert complete(shop, "baton logs shop --slot=gr") == ["green"]
    assert complete(shop, "baton logs shop --slot=") == complete(shop, "baton logs shop --slot ") != []
    assert complete(shop, "baton rollback shop --to v1.") == ["v1.1", "v1.0"]
    assert complete(shop, "baton logs --host l") == ["local"]
    assert set(complete(shop, "baton show ")) == {"2", "1", "shop"}
    assert complete(shop, "baton help depl") == ["deploy"]
    assert complete(shop, "baton nothing ") == [] and complete(shop, "baton deploy a b c ") == []
    # a service that only the file knows
    shop.config("other", slots=("a", "b"), nginx=False)
    assert set(complete(shop, "baton deploy ")) == {"shop", "other"}


def test_completion_is_silent_and_quick_without_a_server(lab):
    with socket.socket() as mute:  # takes connections and never answers
        mute.bind(("127.0.0.1", 0))
        mute.listen(8)
        lab.url, lab.token = f"http://127.0.0.1:{mute.getsockname()[1]}", "x"
        begun = time.monotonic()
        assert complete(lab, "baton status ") == []
        assert time.monotonic() - begun < 20, "it gives up by itself"
    assert complete(lab, "baton status ") == []
    assert complete(lab, "baton status ", BATON_SERVER="", BATON_TOKEN="") == []
    assert complete(lab, "baton stat") == ["status"]


def test_an_interactive_bash_types_it_out(shop):
    rc = shop.dir / "bashrc"
    rc.write_text(f"PS1='ready> '\nPATH={BATON.parent}:$PATH\nsource <(baton help --completion bash)\n"
                  "bind 'set bell-style none'\n")
    terminal = Terminal(["bash", "--noprofile", "--rcfile", rc, "-i"], shop.env(), shop.dir)
    try:
        terminal.wait_for("ready>")
        terminal.type("baton stat\t")
        terminal.wait_for("ready> baton status")
        terminal.type("sh\t")
        terminal.wait_for("ready> baton status shop")
        terminal.type("\x15baton lint bat\t")  # a file of this directory
        terminal.wait_for("baton lint baton.yaml")
        terminal.type("\x15exit\n")
        terminal.end()
    finally:
        terminal.close()


# ---- manual pages ----


@pytest.mark.parametrize("page", ["baton.1", "baton.yaml.5"])
def test_manual_pages_are_clean_and_whole(page, tmp_path):
    text = subprocess.run([BATON, "help", "--man", page], check=True, stdout=subprocess.PIPE).stdout
    path = tmp_path / page
    path.write_bytes(text)
    env = {**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "80", "MANROFFSEQ": ""}
    shown = subprocess.run(["man", "-l", "--warnings", path], env=env, text=True, check=True, stdin=subprocess.DEVNULL,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert shown.stderr == ""
    roff = subprocess.run(["groff", "-ww", "-man", "-Tutf8", "-Kutf8", path], text=True, check=True,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert roff.stderr == ""
    plain = re.sub(r".\x08", "", shown.stdout)
    if page == "baton.1":
        commands = re.findall(r"^## (baton .*)$", (ROOT / "docs/cli.md").read_text(), re.M)
        for command in commands:
            assert re.search(rf"^ +{command}( |$)", plain, re.M), command
        examples = subprocess.run([BATON, "help", "deploy"], text=True, check=True, stdout=subprocess.PIPE).stdout
        for example in examples.split("examples:\n")[1].splitlines():
            assert example.strip() in plain
    else:
        keys = re.findall(r"^\| `([a-z_.]+)` \|", (ROOT / "docs/config.md").read_text().split("| key | type |")[1], re.M)
        assert len(keys) > 40
        for key in keys:
            assert re.search(rf"^ +{re.escape(key)}( \(|$)", plain, re.M), key


def test_installed_where_shells_and_man_look(tmp_path):
    run = subprocess.run(["meson", "install", "-C", BUILD, "--no-rebuild", "--quiet", "--destdir", tmp_path], text=True,
                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert run.returncode == 0, run.stdout
    for path in ("share/bash-completion/completions/baton", "share/man/man1/baton.1", "share/man/man5/baton.yaml.5"):
        found = list(tmp_path.glob(f"**/{path}"))
        assert len(found) == 1 and found[0].stat().st_size > 300, path
