#!/usr/bin/env bash
# An adaptive limit in a minute: in the shadow, on, and off again, by events of a backend that is
# well and then slow.
#
# usage: deploy/walkthrough.sh ROUTE
#
#   docker compose --file deploy/compose/compose.yaml --file deploy/compose/adaptive.yaml \
#       exec -T edge-us bash -s walkthrough <deploy/walkthrough.sh
#   kubectl --namespace claw exec -i deployment/claw-edge -- bash -s walkthrough <deploy/walkthrough.sh
#
# It runs beside the one claw-edge that decides, and is told where that is as that itself is: HTTP_ADDR, OPS_ADDR, and
# ADMIN_TOKEN, which it needs, and API_TOKEN, or files of them. Its events are made up: ROUTE should be an adaptive limit
# of the profile `off_path` that no real request falls under. At the end its mode is that of
# the settings.
set -euo pipefail
# A decimal point, whoever runs it.
export LC_ALL=C

route=${1:?usage: walkthrough.sh ROUTE}
patience=30

# Where it can be asked from here.
near() {
    local address=${1/#0.0.0.0:/127.0.0.1:}
    printf '%s' "${address/#\[::\]:/127.0.0.1:}"
}
http=$(near "${HTTP_ADDR:-127.0.0.1:8080}")
ops=$(near "${OPS_ADDR:-127.0.0.1:9102}")

# A token, or the first of a file.
token() {
    if [ -n "$1" ]; then printf '%s' "$1"; elif [ -n "$2" ]; then head -n 1 "$2"; fi
}
api_token=$(token "${API_TOKEN:-}" "${API_TOKEN_FILE:-}")
admin_token=$(token "${ADMIN_TOKEN:-}" "${ADMIN_TOKEN_FILE:-}")

fail() {
    printf 'walkthrough.sh: %s\n' "$*" >&2
    exit 1
}
[ -n "$admin_token" ] || fail "who switches has to show a token: give claw-edge an ADMIN_TOKEN"

# ask ADDRESS TOKEN PATH [BODY]: the answer's body.
ask() {
    local address=$1 token=$2 path=$3 body=${4:-} method=GET answer
    [ -z "$body" ] || method=POST
    exec 3<>"/dev/tcp/${address%:*}/${address##*:}" || fail "nobody listens on $address"
    {
        printf '%s %s HTTP/1.0\r\nHost: %s\r\nContent-Length: %d\r\n' "$method" "$path" "$address" "${#body}"
        [ -z "$token" ] || printf 'Authorization: Bearer %s\r\n' "$token"
        case $path in
        */event) printf 'Content-Type: application/x-ndjson\r\n' ;;
        *) printf 'Content-Type: application/json\r\n' ;;
        esac
        printf '\r\n%s' "$body"
    } >&3
    answer=$(timeout 10 tr -d '\r' <&3) || fail "$path: no answer within 10 s"
    exec 3>&-
    [[ $answer == HTTP/1.?\ 2* ]] || fail "$path: $answer"
    printf '%s' "${answer#*$'\n\n'}"
}

switch() {
    printf '\n$ POST /admin/adaptive {"route": "%s", "mode": "%s"}\n' "$route" "$1"
    ask "$ops" "$admin_token" /admin/adaptive "{\"route\": \"$route\", \"mode\": \"$1\"}"
    printf '\n'
}

# metric NAME LABELS: the number that has these labels among others.
metric() { ask "$ops" "" /metrics | sed -n "s/^$1{[^}]*$2[^}]*} //p"; }
in_force() { metric rl_policy_refill_rate "route=\"$route\""; }
decided() { metric rl_shadow_refill_rate "route=\"$route\",of=\"loop\""; }

sent=0
# A tenth of a second's events, of requests that took so many milliseconds.
events() {
    local lines="" now
    now=$(date +%s%3N)
    for n in 1 2 3 4 5 6 7 8 9 10; do
        lines+="{\"userId\": \"w$$-$sent-$n\", \"itemId\": \"walkthrough\", \"score\": 5, \"timestamp\": $now, \"latencyMs\": $1, \"status\": 200, \"route\": \"$route\"}"$'\n'
    done
    sent=$((sent + 1))
    answer=$(ask "$http" "$api_token" /api/v1/event "$lines")
    sleep 0.1
}

# below SHARE ONE OTHER: whether one is a number below that share of the other.
below() { awk -v one="$2" -v other="$3" -v share="$1" 'BEGIN { exit !(one != "" && one + 0 < share * other) }'; }

# until_so WHAT COMMAND..: sends events of `latency` until the command says yes.
until_so() {
    local what=$1 end=$((SECONDS + patience))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || fail "waited $patience s in vain for: $what"
        events "$latency"
    done
    printf '%s: %s/s are in force, the loop would set %s/s\n' "$what" "$(in_force)" "$(decided)"
}

is_like_own() { [ "$(in_force)" = "$own" ]; }
is_decided() { [ -n "$(decided)" ] && ! below 0.5 "$(decided)" "$own"; }
is_decided_low() { below 0.5 "$(decided)" "$own"; }
is_low() { below 0.5 "$(in_force)" "$own"; }

[ -n "$(metric rl_policy_info "route=\"$route\",profile=\"off_path\"")" ] ||
    fail "there is no adaptive limit '$route' of the profile off_path here"
trap 'switch settings' EXIT
switch shadow
sleep 0.5
own=$(in_force)
[ -n "$own" ] || fail "what is in force is not among the metrics"
echo "Your own limit is in force: $own/s."

latency=30
until_so "The backend takes $latency ms" is_decided
latency=900
until_so "The backend takes $latency ms" is_decided_low
is_like_own || fail "in the shadow $(in_force)/s are in force, not $own/s"

switch on
until_so "What the loop decides is in force" is_low
events $latency
echo "An event is answered with $answer"

switch off
until_so "Your own limit is in force again" is_like_own
