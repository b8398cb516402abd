#!/usr/bin/env bash
here=$(dirname "$(readlink -f "$0")")
. "$here/profile.sh"
port=$(find_idle_port)
pid=$(lsof -ti "tcp:$port" -s tcp:listen)
if [ -z "$pid" ]; then
	say "nothing runs on $port"
else
	kill -15 $pid
	say "stopped $pid on $port"
	sleep 5
fi
