#!/bin/sh
# Becomes the server, with a configuration file of its own that it may write to: what
# CONFIG REWRITE, which Sentinel does too, puts there holds after a restart. The file is
# made once, of a template and the line that loads the module.
#
# usage: scripts/serve.sh SERVER TEMPLATE DIR MODULE [DIRECTIVE..]
#
# DIR has the file, redis.conf, and the data. DIRECTIVEs, such as --port 7000, override
# the file.
set -eu

fail() {
    echo "serve.sh: $*" >&2
    exit 1
}
[ $# -ge 4 ] || fail "usage: serve.sh SERVER TEMPLATE DIR MODULE [DIRECTIVE..]"
server=$1 template=$2 dir=$3 module=$4
shift 4
config=$dir/redis.conf
load="loadmodule $module"
mark="# Made of a template with the checksum $(cksum <"$template")"

if [ ! -e "$config" ]; then
    # In one step, so that a start that is cut off leaves no half of it.
    { cat "$template" && printf '\n%s\n%s\n' "$mark" "$load"; } >"$config.new"
    mv "$config.new" "$config"
elif ! grep -qxF "$mark" "$config"; then
    echo "serve.sh: $template has changed; $config stays as it is: remove it to begin anew" >&2
fi
grep '^loadmodule ' "$config" | grep -qF " $module" ||
    fail "$config does not say '$load': change that line, or remove the file to begin anew"
exec "$server" "$config" --dir "$dir" "$@"
