#!/usr/bin/env bash
# Sourced by health.sh: nginx sends to the port from now on.
switch_proxy() {
	echo "set \$service_url http://127.0.0.1:$1;" >"$INC"
	$RELOAD
	say "nginx sends to $1"
}
