"""What the shell of a device runs to start a program that outlives the connection, and to look after it."""

# $1: folder of the state, $2: working directory, $3...: the program. mkdir is the lock: of two calls, or of one that
# is tried twice, a single one starts the program.
START = """
mkdir "$1" 2>/dev/null || exit 0
setsid sh -c '
  state=$1 folder=$2; shift 2
  echo $$ >"$state/pid" || exit
  cd "$folder" && "$@" >"$state/stdout" 2>"$state/stderr"
  echo $? >"$state/code.part"; mv "$state/code.part" "$state/code"
' sh "$@" </dev/null >/dev/null 2>&1 &
"""
# The process before its exit code: one that ends in between is then seen as running or with its code, never as gone.
LOOK = """
cd "$1" || exit
pid=$(cat pid 2>/dev/null)
[ -n "$pid" ] && kill -0 "$pid" 2>/dev/null && alive=1
if [ -e code ]; then cat code; elif [ -n "$alive" ]; then echo running; else echo "gone $pid"; fi
"""
