#!/usr/bin/env bash
set -e
source "$(dirname "$(readlink -f "$0")")/profile.sh"

wait_for "$(port_of "$(find_idle_profile)")"
