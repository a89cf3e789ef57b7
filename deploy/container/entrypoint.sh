#!/bin/sh
# nptwatch, with the database's password from a file: libpq asks the environment for it, and refuses
# a ~/.pgpass that others could read, as the files of a composition's secrets are.
set -eu
if [ -n "${NPTWATCH_SECRET_PGPASSWORD_FILE:-}" ]; then
    PGPASSWORD=$(cat "$NPTWATCH_SECRET_PGPASSWORD_FILE")
    export PGPASSWORD
fi
exec nptwatch "$@"
