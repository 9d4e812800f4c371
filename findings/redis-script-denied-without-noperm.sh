#!/usr/bin/env bash
# Redis: what the ACL refuses inside of a script is not NOPERM, and does not say which command.
#
# Version:   Redis 7.0.15 (Debian 12).
# Expected:  a user without the right to a command gets the error code NOPERM with the command's name,
#            wherever the command comes from; likewise for a key.
# Seen:      sent by itself, a forbidden SET is "NOPERM this user has no permissions to run the 'set'
#            command". Inside of EVAL it is "ERR The user executing the script can't run this command or
#            subcommand", of a script that may have ten commands. A forbidden key is NOPERM if it was
#            declared in KEYS, and ERR if the script names it by itself.
# Matters:   ERR is the code of everything, also of a script's own mistakes, so a client that sorts errors
#            by code (retry, tell the operator, give up) does not see a missing permission. A store that
#            works by scripts has to know the sentence, or to ask ACL DRYRUN when it starts.
# Source:    Redis's tests expect just that text (tests/unit/moduleapi/usercall.tcl).
set -euo pipefail

for program in redis-server redis-cli; do
    command -v $program >/dev/null || { echo "$program is missing: apt-get install redis-server"; exit 2; }
done
T=$(mktemp -d)
P=()
trap 'kill "${P[@]}" 2>/dev/null || true; wait; rm -rf "$T"' EXIT
redis-server --version

redis-server --port 0 --unixsocket "$T/socket" --save "" --dir "$T" >"$T/log" &
P+=($!)
admin() { redis-cli -s "$T/socket" "$@"; }
user() { redis-cli -s "$T/socket" --user app --pass secret --no-auth-warning "$@"; }
for _ in $(seq 100); do admin ping >/dev/null 2>&1 && break || sleep 0.05; done
admin ACL SETUSER app on '>secret' '~mine:*' +get +eval >/dev/null

failed=0
check() { # what it is, how the answer has to begin, and what must not be in it; then the command
    local what=$1 begin=$2 without=$3 answer
    shift 3
    answer=$(user "$@" 2>&1 | head -1)
    printf '%-34s %s\n' "$what" "$answer"
    [[ $answer == "$begin"* ]] || failed=1
    [[ -z $without || ${answer,,} != *"$without"* ]] || failed=1
}
check "SET, sent by itself:" "NOPERM this user has no permissions to run the 'set' command" "" \
    SET mine:1 x
check "SET in a script:" "ERR The user executing the script can't run this command" "'set'" \
    EVAL "return redis.call('set', KEYS[1], 'x')" 1 mine:1
check "the same, caught by pcall:" "ERR The user executing the script can't run this command" "'set'" \
    EVAL "return redis.pcall('set', KEYS[1], 'x')['err']" 1 mine:1
check "GET of another's key:" "NOPERM" "" GET yours:1
check "in a script, declared in KEYS:" "NOPERM" "" EVAL "return redis.call('get', KEYS[1])" 1 yours:1
check "in a script, not declared:" "ERR The user executing the script can't access" "yours:1" \
    EVAL "return redis.call('get', 'yours:1')" 0

if [ $failed = 0 ]; then
    echo "as described: the same refusal has two codes"
else
    echo "CHANGED: it no longer behaves as described"
    exit 1
fi
