#!/usr/bin/env bash
# Makes a TypeScript client from an OpenAPI document and compiles the walk that uses it:
#
#   ./generate.sh DOCUMENT OUT_DIR && DOORWARD_URL=http://127.0.0.1:8080 node OUT_DIR/walk.js
#
# What package.json lists is taken from $NODE_MODULES, or from node_modules beside this script. Nothing
# is fetched, and nothing is written outside of OUT_DIR.
set -euo pipefail

fail() {
    printf 'generate.sh: %s\n' "$1" >&2
    exit 1
}

[ "$#" -eq 2 ] || fail 'give the document and the folder for the client'
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
modules="${NODE_MODULES:-$here/node_modules}"
[ -f "$1" ] || fail "there is no document $1"
[ -d "$modules" ] || fail "there is no $modules: run npm install, or set NODE_MODULES"

document="$(cd "$(dirname "$1")" && pwd)/$(basename "$1")"
modules="$(cd "$modules" && pwd)"
mkdir -p "$2"
out="$(cd "$2" && pwd)"

# package.json says that what is compiled are CommonJS modules, which Node takes from any folder.
rm -rf "$out/source"
mkdir "$out/source"
cp "$here/package.json" "$out/"
cp "$here/tsconfig.json" "$here/walk.ts" "$out/source/"

# The generator reads settings from where it runs, and would ask questions at a terminal.
cd "$out/source"
node "$modules/@hey-api/openapi-ts/bin/index.cjs" --input "$document" --output client \
    --plugins @hey-api/client-fetch @hey-api/typescript @hey-api/sdk --silent --no-log-file </dev/null
node "$modules/typescript/bin/tsc" --outDir "$out"
