#!/usr/bin/env bash
set -e
source "$(dirname "$(readlink -f "$0")")/profile.sh"

IDLE=$(find_idle_profile)
echo "set \$service_url http://127.0.0.1:$(port_of "$IDLE");" > "$HOME_DIR/service-url.inc"
nginx -p "$HOME_DIR" -c nginx.conf -s reload
for _ in $(seq 1 100); do
  if [ "$(curl -s "$PAGE/profile")" = "$IDLE" ]; then
    echo "> nginx sends to $IDLE"
    exit 0
  fi
  sleep 0.1
done
echo "> nginx does not send to $IDLE"
exit 1
