#!/usr/bin/env bash
set -e
source "$(dirname "$(readlink -f "$0")")/profile.sh"

mkdir -p "$HOME_DIR"
echo "> $APPLICATION_NAME, deployment $DEPLOYMENT_ID to $DEPLOYMENT_GROUP_NAME: $LIFECYCLE_EVENT"
