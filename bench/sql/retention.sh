# Measures retention: batches of deletes with vacuum, and the drop of partitions with its locks.
. ./env.sh; . ./measure.sh
mkdir -p "$OUT"
POSTMASTER=$(head -1 "$DATA/postmaster.pid")
# run LABEL SCHEMA COMMAND...: CPU time and WAL of a session of psql.
run() {
  local label=$1 schema=$2; shift 2
  local w w2 before after
  w=$(wal); before=$(cpu)
  PGOPTIONS="-c search_path=$schema,public -c synchronous_commit=off" psql -Xq "$@" 2>&1 | head -20
  sleep 0.2
  after=$(cpu); w2=$(wal)
  echo "$label $schema $(( (after - before) * 10 )) $w $w2" | awk '{
    printf "%s\t%s\t%d ms\t%d WAL bytes\t%d fpi\n", $1, $2, $3, $6-$4, $7-$5}' | tee -a "$OUT/results"
}
sessions() { psql -XAtqc "select count(*) from whole.sessions"; }
psql -Xqc checkpoint
run idle_connection whole -c "select 1" -o /dev/null
run vacuum_before whole -c "vacuum sessions" -c "vacuum session_events"
echo "sessions $(sessions)"
run delete_one_day whole -v days=$((${KEEP:-30} - 1)) -f retention_batches.sql
echo "sessions $(sessions)"
run vacuum_one_day whole -c "vacuum sessions" -c "vacuum session_events"
run delete_five_days whole -v days=$((${KEEP:-30} - 6)) -f retention_batches.sql
echo "sessions $(sessions)"
run vacuum_five_days whole -c "vacuum sessions" -c "vacuum session_events"
run search_finds_none whole -v days=40 -f retention_search.sql
# New sessions reuse the space of deleted ones, so the ranges of the BRIN index grow.
PGOPTIONS="-c search_path=whole,public -c synchronous_commit=off" \
  pgbench -n -c 1 -M prepared -t 25000 -D n="${REUSE:-150000}" -f start_whole.sql >/dev/null 2>&1
run search_finds_none_after_reuse whole -v days=40 -f retention_search.sql
run search_30_days_after_reuse whole -v days=30 -f retention_search.sql
for i in 1 2 3; do measure keys_by_brin_after_reuse whole keys_by_time.sql prepared 50; done
