#!/usr/bin/env bash
# Compares whole tables with tables that are partitioned by ranges of the id: CPU time of the backend, WAL, buffers and
# locks of each statement. About 30 minutes and 10 GB; SESSIONS=6000 COUNT=200 is a quick test.
# Linux only (/proc). Needs PostgreSQL 15 with pgbench, and Python 3 for the locks.
set -eu
cd "$(dirname "$0")"
. ./env.sh
MIGRATIONS=${MIGRATIONS:-../../migrations}
mkdir -p "$WORK" "$OUT" "$PGHOST"
[ "$(id -u)" != 0 ] || chown postgres "$WORK" "$PGHOST"
as_postgres "$(command -v initdb)" -D "$DATA" -U postgres -A trust >"$OUT/initdb.log"
cat >>"$DATA/postgresql.conf" <<C
listen_addresses = ''
port = $PGPORT
unix_socket_directories = '$PGHOST'
shared_buffers = 4GB
fsync = on
autovacuum = off
max_wal_size = 16GB
checkpoint_timeout = 1h
C
as_postgres "$(command -v pg_ctl)" -D "$DATA" -l "$WORK/log" -w start >/dev/null
trap 'as_postgres "$(command -v pg_ctl)" -D "$DATA" -m fast stop >/dev/null' EXIT
in_schema() { # SCHEMA ARGUMENT...
  local schema=$1; shift
  PGOPTIONS="-c search_path=$schema,public -c client_min_messages=warning -c synchronous_commit=off" \
    psql -Xq -v ON_ERROR_STOP=1 "$@"
}
psql -Xqd postgres -c 'create database bench'
in_schema public -f functions.sql
for schema in whole day week kept; do
  in_schema public -c "create schema $schema"
  cat "$MIGRATIONS"/*/up.sql organizations.sql | in_schema $schema
done
in_schema whole -v sessions="$SESSIONS" -f fill.sql
in_schema public -f samples.sql
in_schema day -v step='1 day' -v lag=30 -v parts=32 -f partitioned.sql
in_schema week -v step='7 days' -v lag=35 -v parts=6 -f partitioned.sql
in_schema kept -f kept.sql
# The order matters: the later scripts insert sessions, then delete sessions and drop partitions.
for script in locks statements due keys drop retention without_fk; do
  echo "== $script"
  bash "$script.sh"
done
