#!/bin/sh
# deps.sh GROUP…: installs the Debian packages of the groups that are missing, and nothing else.
# Groups: build (compile baton), demo (what `make demo` runs), demo-flow (what `make demo FLOW=…` runs),
# test (what `make test` runs), bench (what `make bench` runs).
set -eu
build="build-essential meson ninja-build pkg-config libevent-dev libcurl4-openssl-dev libssl-dev
	libjansson-dev libyaml-dev libsqlite3-dev libarchive-dev libzstd-dev libncurses-dev libmnl-dev"
demo="nginx openjdk-17-jdk-headless libtomcat10-embed-java libtomcat10-java python3"
demo_flow="openjdk-17-jdk-headless python3 tomcat10 nftables haproxy iproute2 curl procps"
test="$build $demo libcmocka-dev clang clang-format binutils python3-pytest python3-pytest-xdist
	python3-yaml python3-pyte cppcheck curl openssl procps iproute2 strace zstd zip
	python3-selenium chromium chromium-driver fonts-noto-cjk man-db groff prometheus systemd-container systemd-sysv dbus
	haproxy nftables conntrack tomcat10 tomcat10-examples user-mode-linux kmod ipvsadm keepalived groovy"
bench="$demo_flow wrk hey lsof"

wanted=
for group in "$@"; do
	case $group in
	build) wanted="$wanted $build" ;;
	demo) wanted="$wanted $build $demo" ;;
	demo-flow) wanted="$wanted $build $demo_flow" ;;
	test) wanted="$wanted $test" ;;
	bench) wanted="$wanted $build $demo $bench" ;;
	*) echo "deps.sh: unknown group '$group' (build, demo, demo-flow, test, bench)" >&2; exit 2 ;;
	esac
done

missing=
for package in $wanted; do
	status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
	[ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

command -v apt-get >/dev/null || {
	echo "deps.sh: this is not a Debian system; install by hand:$missing" >&2
	exit 1
}
sudo=
if [ "$(id -u)" != 0 ]; then
	command -v sudo >/dev/null || {
		echo "deps.sh: sudo is missing; as root: apt-get install$missing" >&2
		exit 1
	}
	sudo=sudo
fi
echo "installing:$missing"
apt="$sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# The lists may be absent on a fresh machine, or so old that their packages are gone.
# shellcheck disable=SC2086
$apt install -y --no-install-recommends $missing </dev/null >"$log" 2>&1 || {
	$apt update </dev/null
	$apt install -y --no-install-recommends $missing </dev/null
}
