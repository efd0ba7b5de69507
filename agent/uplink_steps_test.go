// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"

	"sluice/api"
)

// TestUplinkKilledAtEachStep kills the agent before each of its system calls in a
// declaration that makes an uplink, one that makes another pair for it, and one that
// removes it: before some of them, unless SLUICE_LONG is set. The next start completes
// what was declared, or finds it as it was before, and either works.
func TestUplinkKilledAtEachStep(t *testing.T) {
	stride := 24
	if os.Getenv("SLUICE_LONG") != "" {
		stride = 1
	}
	l := newHostedLab(t)
	l.sh("ip", "-n", l.inside, "link", "add", "dmz", "type", "veth", "peer", "name", "far")
	l.sh("ip", "-n", l.inside, "link", "set", "far", "up")
	files := []string{
		site(),
		site("{name: out, namespace: shop}"),
		site("{name: out, namespace: shop, mtu: 1400, masquerade: true}", "{name: nic, namespace: alone, type: nic, ifname: dmz, addresses: [198.51.100.1/24]}"),
	}
	agent, w := l.watched()
	web := l.netns()
	l.apply(files[0])
	l.attach(api.AttachRequest{Netns: web, Network: "web"})
	kills := 0
	for i := range files {
		to := files[(i+1)%len(files)]
		for n := 1 + rand.IntN(stride); ; n += stride {
			l.apply(files[i])
			pid := agent.Process.Pid
			w.At(n, func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
			_, err := l.api.Apply(t.Context(), &api.ApplyRequest{YAML: to})
			if w.Seen() < n {
				if err != nil {
					t.Fatal(err)
				}
				break
			}
			kills++
			_ = agent.Wait()
			agent, w = l.watched()
			l.uplinksWork(web)
			if t.Failed() {
				t.Fatalf("killed at step %d on the way from\n%s to\n%s", n, files[i], to)
			}
		}
	}
	t.Logf("%d kills", kills)
}

// uplinksWork checks that each uplink is whole and nothing else is there, that a container
// of the namespace shop reaches the host, and that what the host has given is its own again
// without an uplink.
func (l *lab) uplinksWork(web string) {
	l.t.Helper()
	ends := l.hostEnds()
	for _, u := range l.uplinks() {
		end := ends[u.HostIfName]
		if u.State != api.StateReady || u.Fault != "" || !end.Up || !end.PeerUp || end.MTU != u.MTU {
			l.t.Errorf("uplink is %+v, its end %+v", u, end)
		}
		if u.Type == "host" {
			l.pings(web, u.Peers[0].String())
		} else if end.MAC.String() != u.MAC {
			l.t.Errorf("uplink is %+v, its end %+v", u, end)
		}
		delete(ends, u.HostIfName)
	}
	if len(ends) != 1 { // the container's
		l.t.Errorf("left: %v", ends)
	}
	if here := l.onHost("ip", "-br", "link"); len(l.uplinks()) == 0 && !strings.Contains(here, "dmz") {
		l.t.Errorf("the host has:\n%s", here)
	}
}
