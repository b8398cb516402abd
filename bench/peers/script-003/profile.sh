#!/usr/bin/env bash
# Which of the two profiles is idle, and its port: by asking nginx who serves.
say() { echo "$(date +%T) $*"; }
find_idle_profile() {
	local code current
	code=$(curl -s -o /dev/null -w '%{http_code}' --max-time 5 "$ENTRY/profile")
	if [ "$code" -ge 400 ] || [ "$code" = 000 ]; then
		current=green
	else
		current=$(curl -s --max-time 5 "$ENTRY/profile")
	fi
	if [ "$current" = blue ]; then echo green; else echo blue; fi
}
find_idle_port() {
	if [ "$(find_idle_profile)" = blue ]; then echo "$BLUE"; else echo "$GREEN"; fi
}
