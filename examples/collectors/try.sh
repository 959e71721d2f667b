#!/usr/bin/env bash
# Sends 100 rating events with each collector to a claw-edge, and prints what it answered.
#
# usage: examples/collectors/try.sh URL [TOKEN [ROUTE]]
set -euo pipefail
cd "$(dirname "$0")"

node javascript/try.js "$@"
cd go
go run ./try "$@"
