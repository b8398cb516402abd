#!/bin/bash
# Every test, the quick ones first. Ends with the runners' own closing lines, and with exit code 1
# when one of them failed. The quick parts all run, so that one run shows everything of them; the
# minutes of integration tests come only after all of those have passed.
#   tools/test.sh [compile|lint|unit|asan|sim|integration …]   only these parts
set -u -o pipefail
cd "$(dirname "$0")/.." || exit 1
build=${BUILD:-build}
jobs=$(nproc)
parts=${*:-compile lint unit asan sim integration}
declare -a closing
failed=0

# A directory that was set up where cmocka was missing has no unit tests: it is set up anew, and without
# cmocka that fails rather than passes with nothing tested.
setup() { # directory, meson options …
	local dir=$1
	shift
	if [ ! -f "$dir/build.ninja" ]; then
		set -- "$dir" -Dtests=enabled "$@"
	elif ! grep -q tests/unit/test_base "$dir/build.ninja"; then
		set -- --reconfigure "$dir" -Dtests=enabled "$@"
	else
		return
	fi
	meson setup "$@" >"$dir.log" 2>&1 || {
		cat "$dir.log"
		exit 1
	}
	rm -f "$dir.log"
}

say() { printf '\n== %s\n' "$*"; }

part() { # title, command …: runs it, shows it, keeps its closing lines
	local title=$1 out status
	shift
	say "$title"
	out=$(mktemp)
	"$@" 2>&1 | tee "$out"
	status=${PIPESTATUS[0]}
	closing+=("$title: $(grep -E '^(Ok|Fail|Timeout|Unexpected Pass|Skipped|Expected Fail):|passed|failed|error|^sim:|No suitable|no tests ran' "$out" |
		tail -8 | grep -vE '^[A-Z].*: +0 *$' | sed -E 's/ +/ /g' | paste -sd ' ')  [exit $status]")
	rm -f "$out"
	[ "$status" = 0 ] || failed=1
}

# What compiles goes on beside the tests that mostly wait: `beside NAME command …` begins it, `ended NAME` waits for
# it, and `said NAME` shows what it wrote and has its exit code.
aside=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$aside"' EXIT
beside() { # name, command …
	local name=$1
	shift
	nice "$@" >"$aside/$name" 2>&1 &
	echo $! >"$aside/$name.pid"
}

ended() { # name; not in a pipeline, whose shell would have no such child
	wait "$(<"$aside/$1.pid")"
	echo $? >"$aside/$1.status"
}

said() { # name
	cat "$aside/$1"
	return "$(<"$aside/$1.status")"
}

meson_suite() { # build directory, suite, more arguments …
	local dir=$1 suite=$2
	shift 2
	meson test -C "$dir" --no-rebuild --print-errorlogs --num-processes "$jobs" --suite "$suite" "$@"
}

has() { [[ " $parts " == *" $1 "* ]]; }

setup "$build" -Dwerror=true
say "gcc build"
ninja -C "$build" --quiet || exit 1

if has lint; then part "lint" meson_suite "$build" lint; fi
if has asan; then
	export ASAN_OPTIONS=abort_on_error=0:detect_leaks=1:strict_string_checks=1
	export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
	setup build-asan -Dwerror=true -Db_sanitize=address,undefined
	beside asan ninja -C build-asan --quiet
fi
if has unit; then part "unit (gcc)" meson_suite "$build" unit; fi
if has asan; then
	say "ASan+UBSan build"
	ended asan
	said asan || exit 1
fi
if has compile; then
	CC=clang setup build-clang -Dwerror=true -Dbuildtype=debug
	beside clang ninja -C build-clang --quiet
fi
if has asan; then
	part "unit (ASan+UBSan)" meson_suite build-asan unit --timeout-multiplier 4
fi
if has compile; then
	ended clang
	part "clang build" said clang
fi
if has asan; then
	part "simulation (ASan+UBSan)" build-asan/tests/sim/sim --seeds "${SIM_SEEDS_ASAN:-2000}" --from 1
fi
if has sim; then part "simulation" meson_suite "$build" sim --timeout-multiplier 4; fi
# Half of an integration test is waiting, so there is one more of them than processors; each has its own
# ports and directories.
integration() { # build directory, more arguments
	local dir=$1
	shift
	BATON_BUILD=$(realpath "$dir") /usr/bin/python3 -m pytest -q -n $((jobs + 1)) --dist loadgroup \
		-p no:cacheprovider --durations=5 tests/integration "$@"
}
if has integration; then
	if [ "$failed" = 0 ]; then
		part "integration" integration "$build"
		if has asan; then part "integration (ASan+UBSan)" integration build-asan; fi
	else
		say "the integration tests wait for the quick ones to pass"
		closing+=("integration: not run, since a quick test failed")
	fi
fi

say "summary"
printf '%s\n' "${closing[@]}"
exit $failed
