#!/usr/bin/env bash
# Sourced by the others: the two apps, and which of them is idle.

HOME_DIR=/srv/guestbook
PAGE=http://127.0.0.1:8080
PORT1=8081
PORT2=8082

# The app that nginx does not send / to.
function find_idle_profile()
{
  if grep -q ":$PORT1;" "$HOME_DIR/service-url.inc"; then echo real2; else echo real1; fi
}

function port_of()
{
  if [ "$1" = real1 ]; then echo "$PORT1"; else echo "$PORT2"; fi
}

function pid_on()
{
  ss -Hltnp "sport = :$1" | sed -n 's/.*pid=\([0-9]*\).*/\1/p' | head -n 1
}

function stop_app()
{
  local pid tries
  pid=$(pid_on "$1")
  if [ -z "$pid" ]; then
    echo "> nothing listens on port $1"
    return 0
  fi
  echo "> kill -15 $pid"
  kill -15 "$pid"
  for tries in $(seq 1 100); do
    kill -0 "$pid" 2> /dev/null || return 0
    sleep 0.1
  done
  echo "> $pid does not end"
  return 1
}

function start_app()
{
  local port
  port=$(port_of "$1")
  echo "> $1 starts on port $port"
  nohup /usr/bin/python3 "$HOME_DIR/$1/guestbook.py" "$port" "$1" > "$HOME_DIR/$1/nohup.out" 2>&1 &
}

function wait_for()
{
  local tries
  for tries in $(seq 1 100); do
    if [ "$(curl -s "http://127.0.0.1:$1/health")" = UP ]; then
      echo "> port $1 is healthy"
      return 0
    fi
    sleep 0.1
  done
  echo "> port $1 is not healthy"
  return 1
}

function copy_to()
{
  mkdir -p "$HOME_DIR/$1"
  cp "$HOME_DIR/new/"* "$HOME_DIR/$1/"
}
