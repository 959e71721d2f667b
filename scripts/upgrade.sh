#!/usr/bin/env bash
# Says which way a running server can go to another build of the module, and goes it
# where the server need not be restarted: every claw.* value and every bucket stays.
# See docs/upgrading.md.
#
# usage: scripts/upgrade.sh [--dry-run] MODULE [OPTION..]
#
# MODULE is the new module file as the server sees it, an absolute path. OPTIONs are
# redis-cli's: -h, -p, -s, --user, --tls, ..; a password is read from REDISCLI_AUTH.
# With --dry-run nothing is changed.
#
# Exit status: 0 the new build is loaded, or could be; 1 that failed, or is refused; 3 it
# takes a failover or a restart, which is said. Environment: REDIS_CLI, the client.
set -euo pipefail

dry_run=
if [ "${1:-}" = --dry-run ]; then
    dry_run=yes
    shift
fi
say() { echo "upgrade.sh: $*"; }
fail() {
    say "$*" >&2
    exit 1
}
[ $# -gt 0 ] || fail "which module file?"
module=$1
shift
[ "${module#/}" != "$module" ] || fail "$module is not an absolute path"
client=${REDIS_CLI:-$(command -v redis-cli || command -v valkey-cli)} ||
    fail "redis-cli is missing"
options=("$@")
# An error reply is an error here.
cli() { "$client" ${options[@]+"${options[@]}"} -e "$@"; }

# The value of one parameter; nothing where there is none of that name.
value() { cli CONFIG GET "$1" | sed -n 2p; }
field() { cli INFO "$1" | tr -d '\r' | sed -n "s/^$2://p"; }
# The file of the module that is loaded, out of names and values in turn.
loaded() {
    cli MODULE LIST | awk '
        before == "name" { ours = ($0 == "claw") }
        before == "path" && ours { print; exit }
        { before = $0 }'
}

parameters=$(cli CONFIG GET 'claw.*') || fail "the server does not answer CONFIG GET"
old=$(loaded) || fail "the server does not answer MODULE LIST"
[ -n "$old" ] || fail "the server has no module claw to upgrade"
case $(value claw.peers) in
*:\*\*\*@*)
    fail "claw.peers has a password, which CONFIG GET does not show: put it into a file," \
        "name that by claw.peers-password-file, and take it out of claw.peers"
    ;;
esac

# What is in the way of unloading the module.
obstacle=
users=$(cli ACL LIST) || fail "the server does not answer ACL LIST"
rule=$(echo "$users" | grep -iEo '^user [^ ]+|[ (][-+]cl\.[^ )]*' |
    awk '/^user /{ user = $2; next } !rule { rule = user " " $1 } END { print rule }' | tr -d '(')
if [ -n "$rule" ]; then
    obstacle="the ACL user ${rule% *} has the rule ${rule#* }"
elif [ "$(value enable-module-command)" = no ]; then
    obstacle="enable-module-command is no"
fi
if [ -n "$obstacle" ]; then
    if [ "$(field replication role)" = master ] && [ "$(field replication connected_slaves)" != 0 ]; then
        way="a failover: upgrade the replicas by a restart each, promote one, then restart this server"
    else
        way="a restart: put the new file in the place of $old, or change the loadmodule line, and restart"
    fi
    say "not in place, since $obstacle. It takes $way"
    say "Before, CONFIG REWRITE writes down what CONFIG SET has changed."
    exit 3
fi
if [ -n "$dry_run" ]; then
    say "in place: $old would be unloaded, and $module loaded with the same parameters"
    exit 0
fi

quote() {
    local text=${1//\\/\\\\}
    printf '"%s"' "${text//\"/\\\"}"
}
# The command that loads a file with the parameters as they are.
load() {
    printf 'MODULE LOADEX %s' "$(quote "$1")"
    while IFS= read -r name && IFS= read -r text; do
        printf ' CONFIG %s %s' "$name" "$(quote "$text")"
    done <<<"$parameters"
    echo
}
# On one connection, so that the commands are away no longer than it takes to load them.
exchange() { { echo "MODULE UNLOAD claw" && load "$module"; } | cli; }

version=$(field claw claw_version)
# A thread of region sync may wait for the network for a while.
for attempt in 1 2 3 4 5; do
    answers=$(exchange) || true
    case $answers in OK*) break ;; esac # it was unloaded, at least
    [ "$attempt" = 5 ] || sleep 1
done
if [ "$answers" != $'OK\nOK' ]; then
    if [ -z "$(loaded)" ]; then
        load "$old" | cli >/dev/null || fail "$module cannot be loaded, nor $old again"
    fi
    fail "$module is not loaded, $old is; the server's log says why"
fi
changed=$(diff <(echo "$parameters" | paste - - | sort) <(cli CONFIG GET 'claw.*' | paste - - | sort) |
    grep '^<' || true)
[ -z "$changed" ] || fail "$module is loaded, and these parameters are not as they were: $changed"
say "$old ($version) was unloaded, and $module ($(field claw claw_version)) loaded, with all parameters"

# So that the next start loads it too.
if [ -z "$(field server config_file)" ]; then
    say "the server has no configuration file: start it with the new one the next time"
elif ! cli CONFIG REWRITE >/dev/null; then
    say "the server cannot write its configuration file: change its loadmodule line to $module"
fi
