#!/usr/bin/env bash
# Hosts behind an L4 by direct commands: out of the L4, a fixed wait for connections, Tomcat's stop, the new WAR,
# Tomcat's start, health, back into the L4; one host after the other.
#   script-000.sh in            all hosts into the L4
#   script-000.sh deploy WAR
set -eu
say() { echo "$(date +%T) $*"; }
of() { local name=$1_$2; echo "${!name}"; }

# shellcheck disable=SC2086
on() { local host=$1; shift; $(of ON "$host") "$@"; }

l4_sends_to() { # hosts …
	local n=0 map="" host
	for host in "$@"; do
		map="$map${map:+, }$n : $(of AT "$host")"
		n=$((n + 1))
	done
	on l4 nft -f - <<-END
		table ip shop
		delete table ip shop
		table ip shop {
			chain pre {
				type nat hook prerouting priority dstnat
				ip daddr $VIP tcp dport $PORT dnat to numgen inc mod $n map { $map }
			}
			chain post {
				type nat hook postrouting priority srcnat
				ct status dnat masquerade
			}
		}
	END
}

catalina() { # host, arguments of catalina.sh …
	local base
	base=$(of BASE "$1")
	CATALINA_BASE=$base CATALINA_PID=$base/pid on "$1" "$CATALINA_HOME/bin/catalina.sh" "${@:2}"
}

deploy() { # host, WAR
	local base others=() host
	base=$(of BASE "$1")
	for host in $HOSTS; do [ "$host" = "$1" ] || others+=("$host"); done
	l4_sends_to "${others[@]}"
	say "$1 is out of the L4; its connections get 10 s"
	sleep 10
	catalina "$1" stop 30 -force
	rm -rf "$base/webapps/ROOT" "$base/work/Catalina"
	cp "$2" "$base/webapps/ROOT.war"
	catalina "$1" start
	for try in $(seq 60); do
		on "$1" curl -s --max-time 5 "http://127.0.0.1:$PORT/health" | grep -q UP && break
		[ "$try" = 60 ] && { say "$1 never healthy, left out of the L4"; exit 1; }
		sleep 1
	done
	# shellcheck disable=SC2086
	l4_sends_to $HOSTS
	say "$1 is back in the L4"
}

case $1 in
# shellcheck disable=SC2086
in) l4_sends_to $HOSTS ;;
deploy) for host in $HOSTS; do deploy "$host" "$2"; done ;;
esac
