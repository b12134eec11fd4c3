# Runs a command and ends it when standard input does, so that nothing outlives a parent that was killed.
# Arguments: the signal that stops the command, the tenths of a second it then has before SIGKILL, a directory to
# remove once it was stopped (or nothing), the command. Every line on standard input is a signal to send to it.
stop=$1 patience=$2 home=$3
shift 3
# When a group loses its parent while one of its processes hangs (STOP), the system sends it SIGHUP: that is for us to
# survive, or nobody would stop the command.
trap '' HUP
exec 3<&0 </dev/null
"$@" 3<&- &
child=$!
{
    while read -r signal; do
        kill -s "$signal" "$child"
        echo "[sent $signal]"
    done <&3
    [ -z "$home" ] || : >"$home/.stopped"
    kill -s "$stop" "$child"
    # One that was made to hang has to go on to notice, with what it has started.
    kill -s CONT "$child"
    pkill -CONT -P "$child"
    while [ "$patience" -gt 0 ]; do
        sleep 0.1
        patience=$((patience - 1))
    done
    kill -s KILL "$child"
} 2>/dev/null &
exec 3<&-
wait "$child"
echo "[ended with status $?]"
# Only what was stopped is cleared away: what ended by itself leaves its log to be read.
[ -z "$home" ] || [ ! -e "$home/.stopped" ] || rm -rf "$home"
# The whole process group: what the command left behind, the loop above, and this shell.
kill -s KILL 0
