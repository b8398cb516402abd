#!/usr/bin/env bash
here=$(dirname "$(readlink -f "$0")")
. "$here/profile.sh"
profile=$(find_idle_profile)
port=$(find_idle_port)
cp "$JAR" "$BASE/$profile-app.jar"
say "starting $profile on $port"
# shellcheck disable=SC2086
PORT=$port SLOT=$profile nohup ${JAVA} "$BASE/$profile-app.jar" --server.port="$port" \
	--spring.profiles.active="$profile" >>"$BASE/$profile.log" 2>&1 </dev/null &
echo $! >"$BASE/$profile.pid"
