# Drops partitions while a transaction that read another partition stays open for four seconds.
. ./env.sh
log() { echo "$(date +%T.%3N) $*"; }
age=${AGE:-30} # days of the oldest partition
first=$(date -u -d "-$age days" +%Y%m%d); second=$(date -u -d "-$((age - 1)) days" +%Y%m%d); third=$(date -u -d "-$((age - 2)) days" +%Y%m%d)
fourth=$(date -u -d "-$((age - 3)) days" +%Y%m%d); fifth=$(date -u -d "-$((age - 4)) days" +%Y%m%d)
try() { # LABEL SQL-FILE: one transaction reads, another drops, a third starts a session
  PGOPTIONS="-c search_path=day,public" psql -Xqo /dev/null <<'S' &
select bench_first_id(now()) as id \gset
begin; select id from sessions where organization_id = md5('organization 1')::uuid and id = :'id'; select pg_sleep(4); commit;
S
  sleep 0.7
  (PGOPTIONS="-c search_path=day,public" psql -Xq -f "$2" 2>&1; log "$1: dropped") &
  sleep 0.7
  PGOPTIONS="-c search_path=day,public" psql -XAtqc "select '  ' || c.relname || ' ' || mode || ' ' || granted from pg_locks
    join pg_class c on c.oid = relation join pg_stat_activity using (pid) where mode in ('AccessExclusiveLock', 'ShareUpdateExclusiveLock')
    and c.relkind in ('r', 'p') order by 1"
  log "$1: start begins"
  PGOPTIONS="-c search_path=day,public" pgbench -n -c 1 -M prepared -t 1 -D n=$3 -f start_partitioned.sql 2>&1 | grep -E 'ERROR|aborted'
  log "$1: start done"
  wait
}
printf 'begin; lock table session_templates, sessions, session_events; drop table session_events_%s; alter table sessions detach partition sessions_%s; drop table sessions_%s; commit;\n' $fourth $fourth $fourth > "$OUT/drop0.sql"
printf 'begin; drop table session_events_%s; alter table sessions detach partition sessions_%s; drop table sessions_%s; commit;\n' $first $first $first > "$OUT/drop1.sql"
printf 'alter table session_events detach partition session_events_%s concurrently;\ndrop table session_events_%s;\nalter table sessions detach partition sessions_%s concurrently;\ndrop table sessions_%s;\n' $second $second $second $second > "$OUT/drop2.sql"
try locks_in_order "$OUT/drop0.sql" $((${N:-140000} + 2))
try plain "$OUT/drop1.sql" ${N:-140000}
try concurrently "$OUT/drop2.sql" $((${N:-140000} + 1))
log 'without another transaction'
printf '\\timing on\nbegin; drop table session_events_%s; alter table sessions detach partition sessions_%s; drop table sessions_%s; commit;\n' $third $third $third > "$OUT/drop3.sql"
before=$(awk '{print $16+$17}' /proc/$(head -1 $DATA/postmaster.pid)/stat)
PGOPTIONS="-c search_path=day,public" psql -Xq -f "$OUT/drop3.sql"
sleep 0.2; after=$(awk '{print $16+$17}' /proc/$(head -1 $DATA/postmaster.pid)/stat)
log "CPU $(( (after-before)*10 )) ms"
log 'without another transaction, without the foreign key of the events'
# A failed attempt above may have left a detached partition.
psql -Xqc "drop table if exists day.session_events_$second" \
  -c 'alter table day.session_events drop constraint if exists session_events_organization_id_session_id_fkey'
printf '\\timing on\nbegin; drop table session_events_%s; drop table sessions_%s; commit;\n' $fifth $fifth > "$OUT/drop4.sql"
before=$(awk '{print $16+$17}' /proc/$(head -1 $DATA/postmaster.pid)/stat)
PGOPTIONS="-c search_path=day,public" psql -Xq -f "$OUT/drop4.sql"
sleep 0.2; after=$(awk '{print $16+$17}' /proc/$(head -1 $DATA/postmaster.pid)/stat)
log "CPU $(( (after-before)*10 )) ms"
