#!/usr/bin/env bash
# Logs in, asks who that is, refreshes and logs out, with nothing but curl:
#
#   DOORWARD_URL=http://127.0.0.1:8080 DOORWARD_EMAIL=ann@example.org DOORWARD_PASSWORD=… ./walk.sh
#
# Prints a line for each step and stops at the first that is not answered as it should be.
set -euo pipefail

fail() {
    printf 'walk.sh: %s\n' "$1" >&2
    exit 1
}

# A text as a JSON string.
json() {
    local text=${1//\\/\\\\}
    printf '"%s"' "${text//\"/\\\"}"
}

# send SECRET ARGUMENT…: sets `status` and `body`. Arguments of a program are there for everybody on the
# machine to read, so curl gets what is secret from standard input.
send() {
    local answer
    answer=$(printf '%s' "$1" | curl --silent --show-error --max-time 10 --write-out '\n%{http_code}' "${@:2}")
    status=${answer##*$'\n'}
    body=${answer%$'\n'*}
}

post() {
    send "$2" --data @- --header 'Content-Type: application/json' "$url$1"
}

with_token() {
    send "Authorization: Bearer $2" --header @- "${@:3}" "$url$1"
}

# The text of a field of `body`, which is JSON on one line.
field() {
    printf '%s\n' "$body" | sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"
}

expect() {
    [ "$status" = "$1" ] || fail "$2: expected $1, got $status $(field code)"
}

url=${DOORWARD_URL:?is the address of Doorward}
url=${url%/}
email=${DOORWARD_EMAIL:?is who logs in}
password=${DOORWARD_PASSWORD:?is the password}

post /v1/auth/login "{\"email\":$(json "$email"),\"password\":$(json "$password"),\"device_name\":\"walk.sh\"}"
expect 200 'log in'
access=$(field access_token)
refresh=$(field refresh_token)
[ -n "$access" ] && [ -n "$refresh" ] || fail 'log in: the answer holds no tokens'
echo 'logged in'

with_token /v1/auth/me "$access"
expect 200 'who am I'
echo "am $(field email)"

post /v1/auth/refresh "{\"refresh_token\":$(json "$refresh")}"
expect 200 'refresh'
renewed=$(field access_token)
[ -n "$renewed" ] && [ "$renewed" != "$access" ] || fail 'refresh: the answer holds no new access token'
with_token /v1/auth/me "$renewed"
expect 200 'who am I, with the new access token'
echo 'refreshed, and the new access token is good'

with_token /v1/auth/logout "$renewed" --request POST
expect 204 'log out'
echo 'logged out'

# Neither token has expired.
for token in "$access" "$renewed"; do
    with_token /v1/auth/me "$token"
    expect 401 'who am I, logged out'
    [ "$(field code)" = logged_out ] || fail "who am I, logged out: expected logged_out, got $(field code)"
done
echo 'refused: 401 logged_out'
