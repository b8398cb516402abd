import os
import re

import pytest

from lab import SANITIZED, Lab

# Minutes of one more address family, kernel boot or row of kills: `make soak` runs them, all others `make test`, too.
SOAKED = {
    "test_flow_lab": r"loses_nothing\[(nat|dsr)6-",
    "test_install_crash": r"each_call\[(removing|making|permitting|syncing)",
    "test_ipvs": r"test_(direct_routing|adopted|ipv6)\]",
    "test_nft": r"(agent_is_killed|flushes_the_rules|off_and_on_again|half_open_connections)\[(nat|dsr)6|"
                r"no_masquerade\[(two_segments-nat6|one_segment-nat\])",
}

# What these add to the others is Java, a browser, another kernel or a shell, and the time that those take; the code of
# ours behind them is run under the sanitizers by the rest, and by the unit tests. Named tests run all the same.
PLAIN_ONLY = {
    "test_examples": (), "test_flow_faults": (), "test_ipvs": (), "test_jenkins": (), "test_page": (), "test_shell": (),
    "test_install_crash": ("test_killed_before_each_call[copying]", "test_killed_and_then_it_cannot_go_on"),
    "test_flow_lab": ("test_flow_loses_nothing[dsr-0]",),
    "test_tomcat": ("test_recreate_there_and_back", "test_a_war_that_is_not_a_zip",
                    "test_the_agent_is_killed_in_the_middle_of_a_stop"),
}


def pytest_collection_modifyitems(items):
    for item in items:
        if "SOAK" not in os.environ and re.search(SOAKED.get(item.module.__name__, "^$"), item.name):
            item.add_marker(pytest.mark.skip(reason="in make soak"))
        kept = PLAIN_ONLY.get(item.module.__name__)
        if SANITIZED and kept is not None and item.name not in kept:
            item.add_marker(pytest.mark.skip(reason="with the plain build only"))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.when == "call":
        item.failed_call = report.failed


@pytest.fixture
def lab(request):
    """A laboratory of its own for one test; its logs are shown when the test fails."""
    it = Lab()
    try:
        yield it
        if getattr(request.node, "failed_call", False):
            it.report()
    finally:
        it.close()
