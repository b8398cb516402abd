import os
import re

import pytest

from lab import SANITIZED, Lab

# Minutes of one more address family, kernel boot or row of kills: `make soak` runs them, all others `make test`, too.
SOAKED = {
    "test_flow_lab": r"loses_nothing\[(nat|dsr)6-",
    "test_install_crash": r"each_call\[(removing|making|permitting|syncing)",
    "test_ipvs": r"test_(direct_routing|nat|adopted|ipv6)\]",
    "test_nft": r"(agent_is_killed|flushes_the_rules|off_and_on_again|half_open_connections)\[(nat|dsr)6|"
                r"no_masquerade\[(two_segments-nat6|one_segment-nat\])|rolling_under_load\[dsr6|"
                r"drain_waits_for_connections\[nat6",
}

# What these add to the others is Java, a browser, another kernel, a shell, or one more kill; and the time that those
# take. The code of ours behind them is run under the sanitizers by the rest, by those that match, and by the unit tests.
PLAIN_ONLY = {
    "test_backup": r"what_is_in_it|bad_input|HealthCheck",
    "test_clocks": r"in_mid_run\[agent\]",
    "test_codedeploy": r"archives_and|scripts_that_fail|not_valid|files_of_others|blue_green|another_file_system|packing",
    "test_crash": r"killed_changes_nothing|follower|before_the_switch",
    "test_examples": r"^$",
    "test_flow_faults": r"^$",
    "test_flow_lab": r"loses_nothing\[dsr-0\]",
    "test_install_crash": r"\[copying\]",
    "test_ipvs": r"^$",
    "test_jenkins": r"^$",
    "test_nft": r"rolling_under_load\[(dsr|nat6)\]|drain_waits_for_connections\[(nat|dsr6)\]|silent|speaks_from|forwarding",
    "test_page": r"^$",
    "test_reboot": r"^$",
    "test_shell": r"^$",
    "test_tomcat": r"recreate_there|not_a_zip|middle_of_a_stop",
}


def pytest_collection_modifyitems(items):
    for item in items:
        if "SOAK" not in os.environ and re.search(SOAKED.get(item.module.__name__, "^$"), item.name):
            item.add_marker(pytest.mark.skip(reason="in make soak"))
        kept = PLAIN_ONLY.get(item.module.__name__)
        if SANITIZED and kept is not None and not re.search(kept, item.name):
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
