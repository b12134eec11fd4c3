# Measures webhooks again after the partitioned events lost their foreign key. Run it last.
. ./env.sh; . ./measure.sh
mkdir -p "$OUT"
POSTMASTER=$(head -1 "$DATA/postmaster.pid")
for s in day week; do
  psql -Xqc "alter table $s.session_events drop constraint if exists session_events_organization_id_session_id_fkey"
done
for round in 1 2 3; do
  measure webhook_again whole webhook_whole.sql prepared "${COUNT:-7000}"
  for s in day week; do
    measure webhook_no_fk $s webhook_partitioned.sql prepared "${COUNT:-7000}"
    measure webhook_no_fk_generic $s webhook_partitioned.sql prepared "${COUNT:-7000}" -c plan_cache_mode=force_generic_plan
  done
done
