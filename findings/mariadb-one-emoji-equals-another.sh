#!/usr/bin/env bash
# MariaDB: with the collation that `utf8mb4` has by default, all emoji are the same letter.
#
# Version:   MariaDB 10.11.19 (Debian 12), whose default for utf8mb4 is utf8mb4_general_ci.
# Expected:  that names are compared without regard to case and to accents is known, and can be lived with. Two texts
#            that have nothing in common are two.
# Seen:      each character beyond U+FFFF, emoji, old scripts and a part of the Chinese ones, has the same weight: "ann 🍎"
#            and "ann 🍌" are equal, as are "𠮷" and "😀". A unique key takes one of them; INSERT … ON DUPLICATE KEY UPDATE
#            of the one overwrites the row of the other; WHERE finds both. A count of users by name counts one.
#            utf8mb4_unicode_ci does the same, and utf8mb4_uca1400_ai_ci (the default from 11.6 on) tells them apart.
# Matters:   the sessions of a user, found by a name in a column of text, are those of other users as well, and a
#            "log out everywhere" of the one is a logout of the others. What tells users apart is to be VARBINARY, or to
#            have `COLLATE utf8mb4_bin`.
# Source:    https://mariadb.com/kb/en/supported-character-sets-and-collations/ does not mention it;
#            https://dev.mysql.com/doc/refman/8.4/en/charset-unicode-sets.html does: those
#            collations give supplementary characters the weight of the replacement character, U+FFFD.
set -euo pipefail

server=$(PATH=$PATH:/usr/sbin command -v mariadbd) || { echo "mariadbd is missing: apt-get install mariadb-server"; exit 2; }
T=$(mktemp -d)
P=()
trap 'kill "${P[@]}" 2>/dev/null || true; wait; rm -rf "$T"' EXIT
"$server" --version

as=()
mkdir "$T/db"
# It does not run as root.
[ "$(id -u)" != 0 ] || {
    chmod 755 "$T"
    chown nobody "$T/db"
    as=(setpriv --reuid=nobody --regid=nogroup --clear-groups)
}
cd "$T/db"
"${as[@]}" mariadb-install-db --no-defaults --datadir="$T/db" --auth-root-authentication-method=normal >/dev/null 2>&1
"${as[@]}" "$server" --no-defaults --datadir="$T/db" --skip-networking --socket="$T/db/socket" \
    --pid-file="$T/db/pid" >"$T/log" 2>&1 &
P+=($!)
ask() {
    mariadb --no-defaults --default-character-set=utf8mb4 --socket="$T/db/socket" --user=root --skip-column-names \
        --batch "$@" 2>&1
}
for _ in $(seq 200); do ask -e "SELECT 1" >/dev/null 2>&1 && break || sleep 0.1; done
ask -e "CREATE DATABASE finding CHARACTER SET utf8mb4"

seen=()
note() { # what, and what was answered
    printf '%s: %s\n' "$1" "$2"
    seen+=("$2")
}
note "the default collation" "$(ask finding -e "SELECT @@collation_database")"
note "SELECT 'ann 🍎' = 'ann 🍌', '𠮷' = '😀', 'ann' = 'bob'" \
    "$(ask finding -e "SELECT 'ann 🍎' = 'ann 🍌', '𠮷' = '😀', 'ann' = 'bob'" | tr '\t' ' ')"
ask finding -e "CREATE TABLE session (user VARCHAR(100) UNIQUE, cart VARCHAR(100))"
note "INSERT ('ann 🍎', 'a book')" "$(ask finding -e "INSERT INTO session VALUES ('ann 🍎', 'a book')")"
answer=$(ask finding -e "INSERT INTO session VALUES ('ann 🍌', 'a lamp')") || true
note "INSERT ('ann 🍌', 'a lamp')" "$(grep -o 'ERROR 1062' <<<"$answer")"
ask finding -e "INSERT INTO session VALUES ('ann 🍌', 'a lamp') ON DUPLICATE KEY UPDATE cart = VALUES(cart)"
note "the same … ON DUPLICATE KEY UPDATE; all rows" "$(ask finding -e "SELECT * FROM session" | tr '\t' ' ')"
for collation in utf8mb4_general_ci utf8mb4_unicode_ci utf8mb4_uca1400_ai_ci utf8mb4_bin; do
    equal=$(ask finding -e "SET NAMES utf8mb4 COLLATE $collation; SELECT '🍎' = '🍌'")
    note "SELECT '🍎' = '🍌' with $collation" "$equal"
done

words=$(IFS="|"; echo "${seen[*]}")
if [ "$words" = "utf8mb4_general_ci|1 1 0||ERROR 1062|ann 🍎 a lamp|1|1|0|0" ]; then
    echo "as described: they are the same letter"
else
    echo "CHANGED: it no longer behaves as described: $words"
    exit 1
fi
