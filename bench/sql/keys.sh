# Measures the release of keys: today's walk over all keys, the walk with expired keys, a search by time with the
# BRIN index and with a B-tree index, and the cost of a start with each index.
. ./env.sh; . ./measure.sh
mkdir -p "$OUT"
POSTMASTER=$(head -1 "$DATA/postmaster.pid")
FIRST="-D org=00000000-0000-0000-0000-000000000000 -D key=\\x"
pass() { # LABEL SCRIPT BATCHES
  local w w2 before after keys
  keys=$(psql -XAtqc "select count(*) from whole.sessions where idempotency_key is not null")
  w=$(wal); before=$(cpu)
  PGOPTIONS="-c search_path=whole,public -c synchronous_commit=off" \
    pgbench -n -c 1 -M prepared -t "$3" $FIRST -f "$2" 2>&1 | grep -E 'ERROR|aborted'
  sleep 0.2; after=$(cpu); w2=$(wal)
  echo "$1 $3 $(( (after - before) * 10 )) $keys $(psql -XAtqc "select count(*) from whole.sessions where idempotency_key is not null") $w $w2" | awk '{
    printf "%s\t%d batches of 1,000\t%d ms\t%d keys released\t%d WAL bytes\n", $1, $2, $3, $4-$5, $8-$6}' | tee -a "$OUT/results"
}
keys=$(psql -XAtqc "select count(*) from whole.sessions where idempotency_key is not null")
for i in 1 2 3; do pass keys_walk keys_walk.sql $((keys / 1000)); done
psql -Xqc "vacuum whole.sessions"
pass keys_release keys_release.sql $((keys / 1000))
before=$(cpu); psql -Xqc "vacuum whole.sessions"; sleep 0.2; after=$(cpu)
echo "keys_vacuum $(( (after - before) * 10 )) ms" | tee -a "$OUT/results"
for i in 1 2 3; do measure keys_by_brin whole keys_by_time.sql prepared 100; done
psql -Xqc "create index sessions_key_age on whole.sessions (created_at) where idempotency_key is not null"
for i in 1 2 3; do measure keys_by_btree whole keys_by_time.sql prepared 100; done
psql -Xqc "drop index whole.sessions_key_age"
for i in 1 2 3; do
  export START=$((${FIRST_NEW:-40000} + i * 14000))
  measure start_brin_only whole start_whole.sql prepared 7000
  psql -Xqc "create index sessions_key_age on whole.sessions (created_at) where idempotency_key is not null"
  START=$((START + 7000)) measure start_key_age whole start_whole.sql prepared 7000
  psql -Xqc "drop index whole.sessions_key_age"
done
psql -Xc "select schemaname, indexrelname, pg_size_pretty(pg_relation_size(indexrelid)) from pg_stat_user_indexes
  where indexrelname in ('sessions_idempotency_key', 'sessions_created') and schemaname in ('whole', 'kept')"
