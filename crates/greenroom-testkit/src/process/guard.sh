# Runs a command, and stops it when standard input is closed. The command therefore also stops if the parent is killed.
# Arguments: the signal that stops the command; the tenths of a second until SIGKILL follows; a directory to remove
# after the command was stopped (or an empty string); the command.
# Each line on standard input is the name of a signal to send to the command.
stop_signal=$1 grace_tenths=$2 temp_dir=$3
shift 3
# The kernel sends SIGHUP to a process group that becomes orphaned while one of its processes is stopped (STOP). The
# guard must survive it to stop the command.
trap '' HUP
exec 3<&0 </dev/null
"$@" 3<&- &
child=$!
{
    while read -r signal; do
        kill -s "$signal" "$child"
        echo "[sent $signal]"
    done <&3
    [ -z "$temp_dir" ] || : >"$temp_dir/.stopped"
    kill -s "$stop_signal" "$child"
    # A stopped (STOP) command and its children handle the signal only after they continue.
    kill -s CONT "$child"
    pkill -CONT -P "$child"
    while [ "$grace_tenths" -gt 0 ]; do
        sleep 0.1
        grace_tenths=$((grace_tenths - 1))
    done
    kill -s KILL "$child"
} 2>/dev/null &
exec 3<&-
wait "$child"
echo "[exited with status $?]"
# Remove the directory only if the guard stopped the command. A command that exited by itself leaves its log.
[ -z "$temp_dir" ] || [ ! -e "$temp_dir/.stopped" ] || rm -rf "$temp_dir"
# Kill the whole process group: remaining children of the command, the loop above, and this shell.
kill -s KILL 0
