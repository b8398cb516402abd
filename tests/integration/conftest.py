import pytest

from lab import Lab


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
