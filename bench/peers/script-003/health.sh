#!/usr/bin/env bash
here=$(dirname "$(readlink -f "$0")")
. "$here/profile.sh"
. "$here/switch.sh"
port=$(find_idle_port)
say "health check of $port in 10 s"
sleep 10
for try in $(seq 10); do
	if curl -s --max-time 5 "http://127.0.0.1:$port/profile" | grep -qE 'blue|green'; then
		say "healthy"
		switch_proxy "$port"
		exit 0
	fi
	[ "$try" = 10 ] && { say "never healthy, nginx left as it is"; exit 1; }
	say "try $try of 10 failed"
	sleep 10
done
