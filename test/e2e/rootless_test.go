// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"sluice/test/lab"
)

// rootless is what a user types who is not root: a user namespace with a mount
// namespace of its own, a container in it, and the daemon in the network namespace
// that the user has always been in.
const rootless = `
cd %[1]s
cat >net.yaml <<'END'
namespaces: [{name: shop}]
networks: [{name: web, namespace: shop, subnets: [10.44.0.0/24, "fd44::/64"]}]
uplinks: [{name: out, type: socket}]
END
./sluiced run --run-dir run --state-dir state --config net.yaml >log 2>&1 &
unshare -n sleep 60 & c=$!
s="./sluice --socket run/sluiced.sock"
for i in $(seq 100); do $s status >/dev/null 2>&1 && break; sleep 0.1; done
until [ "$(readlink /proc/$c/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.1; done
$s attach /proc/$c/ns/net --name box || cat log
nsenter -n -t $c ip link set lo up # a server listens in IPv6, too
nsenter -n -t $c ./traffic serve & v=$!
$s -n shop publish add tcp 80 to box:7000 2>&1
$s -n shop publish add tcp 7700 to box:7000
for to in %[2]s; do nsenter -n -t $c ./traffic send -to $to -bytes 4000000; done
nsenter -n -t $c ./traffic udp -to %[3]s -bytes 200000 -size 1000
for to in 127.0.0.1:7700 [::1]:7700; do ./traffic send -to $to -bytes 4000000 && echo by $to; done
d=$($s status | awk '/^dataplane/ {print $4}')
kill -9 $d
for i in $(seq 100); do $s status | grep -q "dataplane running pid" && ! $s status | grep -q "pid $d " && break; sleep 0.1; done
nsenter -n -t $c ./traffic send -to %[3]s -bytes 4000000 && echo all is well
id -u; cut -d' ' -f1 /proc/self/uid_map
kill $v $c
./sluiced stop --run-dir run --state-dir state
`

// TestSocketUplinkRootless runs the daemon as an ordinary user, who has no privilege on
// the host and changes nothing there.
func TestSocketUplinkRootless(t *testing.T) {
	l := lab.New(t)
	home, world := l.NS("home"), l.NS("world")
	l.Cable(home, world, "wan", 1500, "192.0.2.0/24", "2001:db8::/64")
	home.Run("ip", "link", "set", "lo", "up")
	home.Ping(world.IP(lab.V4))
	world.Serve()
	dir, err := os.MkdirTemp("/tmp", "slt-rootless-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for _, program := range []string{"sluiced", "sluice", "traffic"} {
		b, err := os.ReadFile(filepath.Join("..", "..", "bin", program))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, program), b, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	const nobody = 65534
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf(rootless, dir, world.At(lab.V4)+" "+world.At(lab.V6), world.At(lab.V4))
	home.Try("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--no-new-privs",
		"unshare", "-Urm", "sh", "-c", script).Expect(0, "all is well", "\n0\n", `"lost":0`,
		"by 127.0.0.1:7700", "by [::1]:7700", "port tcp 80: tcp *:80: permission denied: ports below sysctl net.ipv4.ip_unprivileged_port_start")
}
