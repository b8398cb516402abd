#!/usr/bin/env bash
set -e
source "$(dirname "$(readlink -f "$0")")/profile.sh"

stop_app "$(port_of "$(find_idle_profile)")"
