# Prints the relation locks that each statement holds at its end. A backend holds up to 16 in its fast path.
. ./env.sh
first=190000
for schema in whole day week; do
  kind=partitioned; [ $schema = whole ] && kind=whole
  for script in get list webhook_$kind webhook_unpruned start_$kind due; do
    [ $schema$script = wholewebhook_unpruned ] && continue
    for mode in auto force_generic_plan; do
      [ $script$mode = dueforce_generic_plan ] && continue
      first=$((first + 20))
      python3 locks.py $script $schema $mode $first | psql -XAtq 2>&1 | sed "s/^/$schema $script $mode: /"
    done
  done
done | tee "$OUT/locks"
