# measure LABEL SCHEMA SCRIPT MODE COUNT [GUC...]: prints the CPU time of the session's backend, WAL, full
# pages and buffers per transaction.
# The backend is the only child of the postmaster that exits meanwhile (autovacuum is off), so the postmaster's
# cutime + cstime grows by the CPU time of the backend.
cpu() { awk '{print $16 + $17}' "/proc/$POSTMASTER/stat"; }
wal() { PGOPTIONS= psql -XAtq -F' ' -c "select wal_bytes, wal_fpi from pg_stat_wal"; }
buffers() { PGOPTIONS= psql -XAtq -c "select blks_hit + blks_read from pg_stat_database where datname = current_database()"; }
measure() {
  local label=$1 schema=$2 script=$3 mode=$4 count=$5; shift 5
  local w b before after w2 b2
  w=$(wal); b=$(buffers); before=$(cpu)
  PGOPTIONS="-c search_path=$schema,public -c synchronous_commit=off $*" \
    pgbench -n -c 1 -M "$mode" -t "$count" -D n="${START:-0}" -D sessions="$SESSIONS" -D rooms=$((SESSIONS / 30 - 100)) -f "$script" >/dev/null 2>"$OUT/errors"
  [ -s "$OUT/errors" ] && grep -v "^$" "$OUT/errors" | head -3 >&2
  sleep 0.2
  after=$(cpu); b2=$(buffers); w2=$(wal)
  echo "$label $schema $count $(( (after - before) * 10000 )) $w $w2 $((b2 - b))" | awk '{
    printf "%s\t%s\t%.1f us\t%.0f WAL bytes\t%.3f fpi\t%.1f buffers\n", $1, $2, $4/$3, ($7-$5)/$3, ($8-$6)/$3, $9/$3}' | tee -a "$OUT/results"
}
