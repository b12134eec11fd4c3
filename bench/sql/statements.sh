# Measures the statements in three rounds, with the variants interleaved.
. ./env.sh; . ./measure.sh
mkdir -p "$OUT"
POSTMASTER=$(head -1 "$DATA/postmaster.pid")
G="-c plan_cache_mode=force_generic_plan"
psql -Xqc checkpoint
for round in 1 2 3; do
  measure lookup_session whole lookup_session.sql prepared $COUNT
  for s in whole day week; do measure get $s get.sql prepared $COUNT; done
  for s in day week; do measure get_generic $s get.sql prepared $COUNT $G; done
  for s in whole day week; do measure list $s list.sql prepared $COUNT; done
  measure lookup_room whole lookup_room.sql prepared $COUNT
  measure webhook whole webhook_whole.sql prepared $COUNT
  for s in day week; do measure webhook $s webhook_partitioned.sql prepared $COUNT; done
  for s in day week; do measure webhook_generic $s webhook_partitioned.sql prepared $COUNT $G; done
  for s in day week; do measure webhook_unpruned $s webhook_unpruned.sql prepared 2000; done
  export START=$((round * COUNT))
  measure lookup_new whole lookup_new.sql prepared $COUNT
  measure start whole start_whole.sql prepared $COUNT
  for s in day week; do measure start $s start_partitioned.sql prepared $COUNT; done
  measure start kept start_whole.sql prepared $COUNT
done
echo finished
