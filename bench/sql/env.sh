# Settings of the other scripts. The cluster is a new one in $WORK; initdb refuses root, so root runs it as `postgres`.
PATH=${PGBIN:-$(pg_config --bindir)}:$PATH
export PATH WORK=${WORK:-/tmp/greenroom-partitions} SESSIONS=${SESSIONS:-600000} COUNT=${COUNT:-7000}
export DATA=$WORK/data OUT=$WORK/out PGHOST=$WORK/socket PGPORT=${PGPORT:-5677} PGUSER=postgres PGDATABASE=bench
as_postgres() { if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi; }
