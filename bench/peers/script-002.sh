#!/usr/bin/env bash
# Blue/green on one host with fixed waits: find the idle profile, stop it, start the new jar there,
# wait, ask for its health up to ten times, then switch nginx by its port variable.
set -u
say() { echo "$(date +%T) $*"; }

current=$(curl -s --max-time 5 "$ENTRY/profile")
if [ "$current" = blue ]; then profile=green port=$GREEN; else profile=blue port=$BLUE; fi
say "serving: ${current:-nothing}; deploying to $profile on $port"

pidfile="$BASE/$profile.pid"
ln -fs "$JAR" "$BASE/$profile-app.jar"
if [ -s "$pidfile" ] && kill -0 "$(cat "$pidfile")" 2>/dev/null; then
	kill -15 "$(cat "$pidfile")"
	say "stopped the idle $profile"
	sleep 5
fi

# shellcheck disable=SC2086
PORT=$port SLOT=$profile nohup ${JAVA} "$BASE/$profile-app.jar" --server.port="$port" \
	--spring.profiles.active="$profile" >>"$BASE/$profile.log" 2>&1 </dev/null &
echo $! >"$pidfile"

say "health check in 10 s"
sleep 10
for try in $(seq 10); do
	if curl -s --max-time 5 "http://127.0.0.1:$port/actuator/health" | grep -q UP; then
		say "healthy"
		break
	fi
	[ "$try" = 10 ] && { say "never healthy, nginx left as it is"; exit 1; }
	say "try $try of 10 failed"
	sleep 10
done

sleep 3
echo "set \$service_port $port;" >"$INC"
$RELOAD
say "nginx sends to $port"
