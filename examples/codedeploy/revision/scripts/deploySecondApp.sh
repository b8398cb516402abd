#!/usr/bin/env bash
# What served until a moment ago is idle now, and gets the new version, too.
set -e
source "$(dirname "$(readlink -f "$0")")/profile.sh"

IDLE=$(find_idle_profile)
stop_app "$(port_of "$IDLE")"
copy_to "$IDLE"
start_app "$IDLE"
wait_for "$(port_of "$IDLE")"
