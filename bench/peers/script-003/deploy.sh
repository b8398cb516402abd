#!/usr/bin/env bash
# The three steps that CodeDeploy's hooks call one after another.
here=$(dirname "$(readlink -f "$0")")
"$here/stop.sh" && "$here/start.sh" && "$here/health.sh"
