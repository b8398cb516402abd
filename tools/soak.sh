#!/bin/bash
# soak.sh [WORDS]: the flow's tests (tests/integration/test_flow_lab.py) SOAK times each, ten unless said
# otherwise: by NAT, direct server return and HAProxy, and behind each of them with either agent and with the
# server killed in the middle. Then, once, the files with what is too long for `make test` (SOAKED in
# tests/integration/conftest.py).
# WORDS as pytest's -k choose among them. It goes on after a failure, ends by itself after SOAK_LIMIT
# seconds at the latest (three hours), and closes with how many of each passed. Exit code 1 when one did not.
set -u -o pipefail
cd "$(dirname "$0")/.." || exit 1
export SOAK=${SOAK:-10}
limit=${SOAK_LIMIT:-10800}
build=$(realpath "${BUILD:-build}")
report=$(mktemp)
trap 'rm -f "$report"' EXIT
began=$SECONDS

# INT first: pytest then cleans up what it has begun.
BATON_BUILD=$build timeout --signal=INT --kill-after=120 "$limit" /usr/bin/python3 -m pytest -q -rf \
	-p no:cacheprovider --junitxml="$report" -k "${*:-test}" \
	tests/integration/test_{flow_lab,install_crash,ipvs,nft}.py
status=$?
[ "$status" != 124 ] || echo "soak: stopped after $limit s"

/usr/bin/python3 - "$report" $((SECONDS - began)) <<'END' || status=1
import collections
import re
import sys
import xml.etree.ElementTree as tree

try:
    cases = list(tree.parse(sys.argv[1]).getroot().iter("testcase"))
except tree.ParseError:
    sys.exit("soak: no report was written")
good, bad = collections.Counter(), collections.Counter()
for case in cases:
    what = re.sub(r"-?\b\d+\]$", "]", case.get("name")).replace("[]", "")
    failed = any(case.find(kind) is not None for kind in ("failure", "error"))
    if case.find("skipped") is None:
        (bad if failed else good)[what] += 1
print()
for what in sorted({*good, *bad}):
    print(f"soak: {what}: {good[what]} of {good[what] + bad[what]} passed")
print(f"soak: {sum(good.values())} passed, {sum(bad.values())} failed, in {sys.argv[2]} s")
sys.exit(0 if good and not bad else 1)
END
[ "$status" = 0 ]
