"""A user's nginx that does not do what it should: nothing is changed, and the line says where it hurts."""
import os
import signal

from lab import poll
from steps import idle_is_empty, include, says, shop, state, unharmed, works_again


def test_a_mistake_in_the_users_own_file(lab):
    shop(lab)
    path = lab.dir / "nginx.conf"
    good = path.read_text()
    with unharmed(lab):
        path.write_text(good.replace("worker_processes 2;", "worker_processes 2;\nnonsense on;"))
        says(lab.deploy("v2"), 1, f"{path}:2", "nonsense")
        idle_is_empty(lab)
    path.write_text(good)
    works_again(lab)


def test_nginx_does_not_run(lab):
    shop(lab)
    before = state(lab)
    os.kill(lab.nginx_pid(), signal.SIGQUIT)
    poll("nginx is gone", lambda: not (lab.dir / "nginx.pid").exists())
    says(lab.deploy("v2"), 1, "nginx", "not running")
    assert include(lab) == before[0]
    lab.start_nginx()
    assert state(lab) == before
    works_again(lab)


def test_an_include_in_a_missing_directory(lab):
    lab.nginx()
    adopt = {**lab.adopt(), "include": str(lab.dir / "missing/shop.conf")}
    lab.config(traffic={"nginx": {"on": "local", "adopt": adopt, "url": lab.page}})
    lab.up()
    before = include(lab)
    says(lab.deploy("v1"), 1, "missing", "shop.conf")
    assert include(lab) == before and not (lab.dir / "missing").exists()
