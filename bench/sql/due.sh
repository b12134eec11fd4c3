# Measures the keeper's search, interleaved, while no session is due. Run it before the starts, or this update hides them.
. ./env.sh; . ./measure.sh
mkdir -p "$OUT"
POSTMASTER=$(head -1 "$DATA/postmaster.pid")
for s in whole day week; do
  PGOPTIONS="-c search_path=$s,public" psql -Xqc "update sessions set next_check_at = now() + interval '1 day' where status = 'pending'" \
    -c "vacuum sessions"
done
for round in 1 2 3; do
  for s in whole day week; do measure due_idle $s due.sql extended "${COUNT_DUE:-1000}"; done
done
