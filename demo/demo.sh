#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Three containers on one network, and what can be seen of it; beside a kernel
# bridge between the same containers, in the same run. Then a fourth one on another
# network, to which is routed.
#
#      demo-red      demo-green      demo-blue      demo-orange     network namespaces
#     eth0  kern0    eth0  kern0       eth0            eth0
#      |      |       |      |          |               |
#      |      +-------|--kernel bridge--|---            |           in demo-bridge
#      |              |                 |               |
#      +-----------sluiced--------------+----router-----+
#            10.44.0.0/24, fd44::/64          10.46.0.0/24, fd46::/64
#
# It belongs to nobody else: namespaces named demo-*, and one directory under
# /run/sluice-demo. A daemon in use is not touched. What an interrupted run left
# behind is cleaned up at the next start.
set -euo pipefail

cd "$(dirname "$0")/.."
bin=$PWD/bin
base=/run/sluice-demo
containers=(demo-red demo-green demo-blue)
size=1073741824 # 1 GiB
seconds=3       # of each throughput run
dir=

die() { echo "demo: $*" >&2; exit 1; }
title() { printf '\n== %s\n' "$*"; }
show() { printf '$ %s\n' "${*//$dir\//}"; "$@"; }
sluice() { "$bin/sluice" --socket "$dir/run/sluiced.sock" "$@"; }

# --- processes: only those that were recorded, and only if they still are the same

# identity prints what tells a process from a later one with its number: the
# program's inode and the time at which it was started.
identity() { # PID
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  stat=${stat##*) } # the name before it may hold anything
  set -- "$1" $stat
  echo "$(stat -L -c %d:%i "/proc/$1/exe" 2>/dev/null) ${21}"
}

record() { # PID
  local id
  id=$(identity "$1") && echo "$1 $id" >> "$dir/pids"
}

# stop_recorded ends what a run recorded, and waits until it is gone.
stop_recorded() { # DIRECTORY
  local pid id signal
  [ -e "$1/pids" ] || return 0
  for signal in TERM KILL; do
    while read -r pid id; do
      if [ "$(identity "$pid")" = "$id" ]; then kill -"$signal" "$pid" 2>/dev/null || true; fi
    done < "$1/pids"
    while read -r pid id; do
      for _ in $(seq 30); do
        [ "$(identity "$pid")" = "$id" ] || break
        sleep 0.1
      done
    done < "$1/pids"
  done
}

# --- cleaning up: the same for this run and for what an earlier one left

remove_run() { # DIRECTORY
  local ns mount
  # Ends a daemon of these directories and its dataplane, also without a daemon.
  timeout 10 "$bin/sluiced" stop --run-dir "$1/run" --state-dir "$1/state" >/dev/null 2>&1 || true
  stop_recorded "$1"
  [ ! -e "$1/netns" ] || while read -r ns; do
    if [ -e "/run/netns/$ns" ]; then ip netns delete "$ns" || true; fi
  done < "$1/netns"
  for mount in $(awk -v d="$1/" 'index($5, d) == 1 { print $5 }' /proc/self/mountinfo); do
    umount -l "$mount" || true
  done
  rm -rf "$1"
}

cleanup() {
  local code=$?
  trap - EXIT INT TERM
  if [ "$code" -ne 0 ] && [ "$code" -lt 128 ] && [ -s "$dir/sluiced.log" ]; then
    echo "demo: failed; the end of the daemon's log:" >&2
    tail -n 20 "$dir/sluiced.log" >&2
  fi
  remove_run "$dir"
  rmdir "$base" 2>/dev/null || true
  exit "$code"
}

prepare() {
  [ "$(id -u)" = 0 ] || die "must be root: it makes network namespaces"
  local program old
  for program in sluiced sluice traffic; do
    [ -x "$bin/$program" ] || die "bin/$program is missing: run make build"
  done
  for program in ip iperf3 ping jq awk flock; do
    command -v "$program" >/dev/null || die "$program is missing: run make setup"
  done
  mkdir -p -m 0700 "$base"
  exec 9< "$base"
  # What a killed run left in the foreground holds the lock for seconds yet.
  flock -w 15 9 || die "another demo is running"
  for old in "$base"/*/; do
    if [ -d "$old" ]; then
      echo "demo: cleaning up after an interrupted run"
      remove_run "${old%/}"
    fi
  done
  dir=$(mktemp -d "$base/XXXXXX")
  trap cleanup EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
}

# --- the scene

# add_netns makes a namespace that cleaning up will delete; one that somebody
# else made stays.
add_netns() { # NAME
  [ ! -e "/run/netns/$1" ] || die "there is a network namespace $1 that this demo didn't make"
  echo "$1" >> "$dir/netns"
  show ip netns add "$1"
}

start_daemon() {
  title "the daemon, in directories of its own"
  "$bin/sluiced" run --run-dir "$dir/run" --state-dir "$dir/state" > "$dir/sluiced.log" 2>&1 9>&- &
  record $!
  local agent=$!
  for _ in $(seq 100); do
    if sluice status >/dev/null 2>&1; then break; fi
    kill -0 "$agent" 2>/dev/null || die "sluiced ended at once"
    sleep 0.1
  done
  show sluice status
  record "$(sluice -j status | jq .dataplane.pid)"
}

make_containers() {
  title "two networks, and three containers on one of them"
  cat > "$dir/sluice.yaml" <<'END'
namespaces:
  - name: shop
networks:
  - {name: front, namespace: shop, subnets: [10.44.0.0/24, "fd44::/64"], echo: true}
  - {name: back, namespace: shop, subnets: [10.46.0.0/24, "fd46::/64"]}
END
  show cat "$dir/sluice.yaml"
  show sluice apply -f "$dir/sluice.yaml"
  local i ns
  for i in 0 1 2; do
    ns=${containers[$i]}
    add_netns "$ns"
    ip -n "$ns" link set lo up
    show sluice attach "$ns" --network front --ip "10.44.0.$((i + 11))" --ip6 "fd44::$((i + 11))"
  done
}

# make_bridge connects red and green a second time, by the kernel.
make_bridge() {
  local i ns
  add_netns demo-bridge
  ip -n demo-bridge link add br0 type bridge
  ip -n demo-bridge link set br0 up
  for i in 0 1; do
    ns=${containers[$i]}
    ip -n demo-bridge link add "port$i" type veth peer name kern0 netns "$ns"
    ip -n demo-bridge link set "port$i" master br0 up
    ip -n "$ns" addr add "10.45.0.$((i + 11))/24" dev kern0
    ip -n "$ns" link set kern0 up
  done
}

pings() {
  title "ping: between containers and to the gateway, IPv4 and IPv6"
  show ip netns exec demo-red ping -n -q -c 3 -i 0.2 -W 2 10.44.0.12
  show ip netns exec demo-red ping -n -q -c 3 -i 0.2 -W 2 fd44::13
  show ip netns exec demo-blue ping -n -q -c 3 -i 0.2 -W 2 10.44.0.1
  show ip netns exec demo-blue ping -n -q -c 3 -i 0.2 -W 2 fd44::1
}

# background starts a server inside a container and waits for its port.
background() { # NETNS PORT COMMAND...
  local ns=$1 port=$2
  shift 2
  ip netns exec "$ns" "$@" > "$dir/server.$port.log" 2>&1 9>&- &
  local pid=$!
  for _ in $(seq 50); do
    if [ -n "$(ip netns exec "$ns" ss -Htln "sport = :$port")" ]; then
      record "$pid" # only now it has become the server
      return 0
    fi
    sleep 0.1
  done
  cat "$dir/server.$port.log" >&2
  die "no server on port $port in $ns"
}

transfer() {
  title "1 GB of TCP, its hash taken on both ends"
  background demo-green 7000 "$bin/traffic" serve --port 7000
  show ip netns exec demo-red "$bin/traffic" send --to 10.44.0.12:7000 --bytes "$size" | tee "$dir/transfer"
  [ "$(grep '^{' "$dir/transfer" | jq .ok)" = true ] || die "the hashes differ"
}

# gbits runs iperf3 from red to an address of green and prints 10^9 bit/s.
gbits() { # ADDRESS
  ip netns exec demo-red iperf3 -J -t "$seconds" -c "$1" |
    jq '.end.sum_received.bits_per_second / 1e9 * 100 | round / 100'
}

throughput() {
  title "throughput, one TCP stream, beside a kernel bridge between the same containers"
  make_bridge
  background demo-green 5201 iperf3 -s
  local round kernel=() ours=()
  for round in 1 2; do
    kernel+=("$(gbits 10.45.0.12)")
    ours+=("$(gbits 10.44.0.12)")
    echo "run $round: kernel bridge ${kernel[-1]} Gbit/s, Sluice ${ours[-1]} Gbit/s"
  done
  jq -nr --argjson k "$(printf '%s\n' "${kernel[@]}" | jq -s add)" \
    --argjson o "$(printf '%s\n' "${ours[@]}" | jq -s add)" \
    '"ratio:  \($o / $k * 100 | round / 100) of the kernel bridge"'
}

tables() {
  title "counters and tables"
  show sluice -s link
  show sluice fdb
  show sluice neigh
  title "a connection to the echo service of the gateway, and its sockets"
  ip netns exec demo-red "$bin/traffic" echo --to 10.44.0.1:7
  # Held open for as long as ss looks at it, three seconds at most.
  ip netns exec demo-red bash -c 'exec 3<>/dev/tcp/10.44.0.1/7; echo hello >&3; read -r line <&3
    echo "the gateway says: $line"; touch "$0"
    for _ in {1..30}; do if [ -e "$0" ]; then sleep 0.1; fi; done' "$dir/held" 9>&- &
  local held=$!
  for _ in $(seq 30); do
    [ ! -e "$dir/held" ] || break
    sleep 0.1
  done
  show sluice ss
  rm -f "$dir/held"
  wait "$held"
}

routing() {
  title "a container on the other network: the way there"
  add_netns demo-orange
  ip -n demo-orange link set lo up
  show sluice attach demo-orange --network back --ip 10.46.0.11 --ip6 fd46::11
  show sluice route
  show sluice route get 10.46.0.11 from 10.44.0.11 iif demo-red
  show ip netns exec demo-red ping -n -q -c 3 -i 0.2 -W 2 10.46.0.11
  show ip netns exec demo-red ping -n -q -c 3 -i 0.2 -W 2 fd46::11
  title "what is behind it, in a batch, and who may go there"
  ip -n demo-orange addr add 192.0.2.1/32 dev lo
  cat > "$dir/batch" <<'END'
link set demo-orange guard_allow 192.0.2.0/24
route add 192.0.2.0/24 via 10.46.0.11
rule add iif demo-blue to 192.0.2.0/24 prohibit
END
  show cat "$dir/batch"
  show sluice -batch "$dir/batch"
  show ip netns exec demo-red ping -n -q -c 3 -i 0.2 -W 2 192.0.2.1
  show ip netns exec demo-blue ping -n -c 1 -W 2 192.0.2.1 || true
}

main() {
  local begin=$SECONDS
  prepare
  start_daemon
  make_containers
  pings
  transfer
  throughput
  tables
  routing
  title "cleaning up"
  local ns
  for ns in "${containers[@]}" demo-orange; do show sluice detach "$ns"; done
  echo "done in $((SECONDS - begin)) s"
}

main
