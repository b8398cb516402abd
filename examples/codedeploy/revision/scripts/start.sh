#!/usr/bin/env bash
set -e
source "$(dirname "$(readlink -f "$0")")/profile.sh"

IDLE=$(find_idle_profile)
copy_to "$IDLE"
start_app "$IDLE"
