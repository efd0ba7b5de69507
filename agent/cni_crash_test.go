// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"sluice/api"
	"sluice/veth"
)

// podsText declares what a configuration of the plugin does.
const podsText = `networks: [{name: pods, subnets: [10.85.0.0/24, "fd85::/64"]}]
uplinks: [{name: up-pods, namespace: pods, type: host, masquerade: true}]
`

// addRequest asks for a container's interface, with a published port for each other one.
func addRequest(netns string, i int) *api.CNIAddRequest {
	r := &api.CNIAddRequest{
		CNIKey: api.CNIKey{Config: "pods", Container: fmt.Sprintf("c%d", i), IfName: "eth0"},
		Netns:  "/run/netns/" + netns, Network: "pods", Declare: podsText, DefaultRoute: true,
		Labels: map[string]string{"K8S_POD_NAME": fmt.Sprintf("pod%d", i)},
	}
	if i%2 == 0 {
		r.Publish = []api.CNIPort{{Proto: "tcp", Host: uint16(8000 + i), To: 80}, {Proto: "udp", Host: uint16(8000 + i), To: 53}}
	}
	return r
}

// TestKillAmongCNI kills the agent with kill -9 while a runtime adds, removes, and
// removes the network that its configuration declares, now and then the dataplane too.
// After each start nothing may be half there.
func TestKillAmongCNI(t *testing.T) {
	l := newHostedLab(t)
	var all []string
	for range 4 {
		all = append(all, l.netns())
	}
	l.kills(l.process(), 12, 150*time.Millisecond, len(all), func(ctx context.Context, rnd *rand.Rand, i int) {
		switch r := addRequest(all[i], i); rnd.IntN(9) {
		case 0: // refused if somebody is there
			_, _ = l.api.DeleteNetwork(ctx, &api.DeleteNetworkRequest{Name: "pods"})
		case 1, 2, 3, 4:
			_ = l.api.CNIDel(ctx, &api.CNIDelRequest{CNIKey: r.CNIKey})
		default:
			_, _ = l.api.CNIAdd(ctx, r)
		}
	}, func() { l.podsWhole(all) })
	l.nothingLeft(all)
}

// podsWhole checks the invariants from outside.
func (l *lab) podsWhole(all []string) {
	l.t.Helper()
	ctx := l.t.Context()
	l.eventually("an agent that has mended everything", func() bool {
		s := l.status()
		return s.Dataplane.State == "running"
	})
	l.consistentPods()
	links := l.links()
	leases, err := l.api.Addresses(ctx, "pods")
	if err != nil {
		leases = nil // there is no such network
	}
	if want := 2 + 2*len(links); len(leases) != want && len(leases)+len(links) != 0 {
		l.t.Errorf("%d addresses are taken, want %d", len(leases), want)
	}
	var published []string
	for i, netns := range all {
		attached := slices.ContainsFunc(links, func(k api.Link) bool { return k.Netns == "/run/netns/"+netns })
		there := strings.Contains(l.sh("ip", "-n", netns, "-br", "link"), "eth0")
		if attached != there {
			l.t.Errorf("%s: attached %t, but has eth0 %t", netns, attached, there)
		}
		if attached && there {
			l.pings(netns, "10.85.0.1")
		}
		if attached && i%2 == 0 {
			published = append(published, fmt.Sprintf("tcp %d", 8000+i), fmt.Sprintf("udp %d", 8000+i))
		}
	}
	l.publishes(published)
	if l.t.Failed() {
		l.t.FailNow()
	}
}

// consistentPods is consistent, but for the pair of the uplink, which is no link.
func (l *lab) consistentPods() {
	l.t.Helper()
	ends := l.hostEnds()
	for _, link := range l.links() {
		if end, there := ends[link.HostIfName]; !there || end.Alias != link.ID || link.State != api.StateReady {
			l.t.Errorf("%s is recorded in state %s, its pair is %+v", link.Name, link.State, end)
		}
		delete(ends, link.HostIfName)
	}
	if up := len(l.uplinks()); len(ends) != up {
		l.t.Errorf("pairs without a record: %v, of which %d are of uplinks", ends, up)
	}
}

// publishes checks which ports are published, and held on the host.
func (l *lab) publishes(want []string) {
	l.t.Helper()
	all, err := l.api.Published(l.t.Context(), api.ShowQuery{Namespace: "pods"})
	if _, none := errors.AsType[*api.Error](err); err != nil && !none {
		l.t.Fatal(err)
	}
	var got []string
	for _, p := range all {
		got = append(got, fmt.Sprintf("%s %d", p.Proto, p.Port))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		l.t.Errorf("published are %q, want %q", got, want)
	}
	ns, err := veth.OpenNetNS(l.inside)
	if err != nil {
		l.t.Fatal(err)
	}
	defer ns.Close()
	for i := range 200 {
		if at, is := held(l.t, ns, 8000+i), slices.Contains(want, fmt.Sprintf("tcp %d", 8000+i)); at != is {
			l.t.Errorf("port %d is held: %t, want %t", 8000+i, at, is)
		}
	}
}

// held says whether somebody in a namespace has a port of TCP or of UDP. One that holds
// it need not listen.
func held(t *testing.T, ns netns.NsHandle, port int) (held bool) {
	t.Helper()
	err := veth.Do(ns, func() error {
		l, tcp := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if tcp == nil {
			_ = l.Close()
		}
		c, udp := net.ListenPacket("udp", fmt.Sprintf(":%d", port))
		if udp == nil {
			_ = c.Close()
		}
		if held = tcp != nil; held != (udp != nil) {
			return fmt.Errorf("port %d: tcp %w, udp %w", port, tcp, udp)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return held
}

// nothingLeft has the runtime's list be empty, removes the network, and looks for remains.
func (l *lab) nothingLeft(all []string) {
	l.t.Helper()
	ctx := l.t.Context()
	if _, err := l.api.CNIGC(ctx, &api.CNIGCRequest{Config: "pods"}); err != nil {
		l.t.Fatal(err)
	}
	l.podsWhole(all)
	_, err := l.api.DeleteNetwork(ctx, &api.DeleteNetworkRequest{Name: "pods"})
	if e, refused := errors.AsType[*api.Error](err); err != nil && (!refused || e.Code != api.CodeNotFound) {
		l.t.Fatal(err)
	}
	l.eventually("a host without an uplink", func() bool { return len(l.uplinks()) == 0 && len(l.hostEnds()) == 0 })
	links, routes, tables := l.hostHas()
	fdb, _ := l.api.FDB(ctx, "")
	networks, _ := l.api.Networks(ctx, false)
	if n := len(links) + len(routes) + len(tables) + len(fdb) + len(networks); n > 0 {
		l.t.Errorf("left over: interfaces %v, routes %v, tables %v, stations %v, networks %v", links, routes, tables, fdb, networks)
	}
}

// TestManyAtOnce: 50 containers (200 with SLUICE_LONG) come and go at once, half of them twice, some of whose
// namespaces are deleted under way. No two ever have an address at the same time.
func TestManyAtOnce(t *testing.T) {
	n := 50
	if os.Getenv("SLUICE_LONG") != "" {
		n = 200
	}
	l := newHostedLab(t)
	_ = l.process()
	var all []string
	for range n {
		all = append(all, l.netns())
	}
	var mu sync.Mutex
	holder := make(map[netip.Prefix]string)
	var wg sync.WaitGroup
	for i, netns := range all {
		for range 1 + i%2 { // two ADDs for one container
			wg.Go(func() {
				reply, err := l.api.CNIAdd(t.Context(), addRequest(netns, i))
				if err != nil {
					if i%10 != 7 {
						t.Errorf("ADD %d: %v", i, err)
					}
					return
				}
				mu.Lock()
				defer mu.Unlock()
				for _, p := range reply.Addresses {
					if was := holder[p]; was != "" && was != netns && i%10 != 7 {
						t.Errorf("%s was given to %s and to %s", p, was, netns)
					}
					if i%10 != 7 {
						holder[p] = netns
					}
				}
			})
		}
		if i%10 == 7 {
			wg.Go(func() { _ = exec.Command("ip", "netns", "del", netns).Run() })
		}
	}
	wg.Wait()
	for i, netns := range all {
		wg.Go(func() {
			if err := l.api.CNIDel(t.Context(), &api.CNIDelRequest{CNIKey: addRequest(netns, i).CNIKey}); err != nil {
				t.Errorf("DEL %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	l.nothingLeft(nil)
}

// TestFullDisk: with no room for the state, an ADD fails and leaves nothing; DEL and ADD
// work when there is room again.
func TestFullDisk(t *testing.T) {
	l := newHostedLab(t)
	dir := filepath.Join(l.dir, "state")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m,mode=700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	agent := l.process()
	one, two := l.netns(), l.netns()
	all := []string{one, two}
	if _, err := l.api.CNIAdd(t.Context(), addRequest(one, 0)); err != nil {
		t.Fatal(err)
	}
	full := filepath.Join(dir, "full")
	fill(t, full)
	refused := 0
	for range 100 { // the file has some room of its own
		if _, err := l.api.CNIAdd(t.Context(), addRequest(two, 1)); err != nil {
			refused++
			break
		}
		if err := l.api.CNIDel(t.Context(), &api.CNIDelRequest{CNIKey: addRequest(two, 1).CNIKey}); err != nil {
			refused++
			break
		}
	}
	t.Logf("%d refused", refused)
	if err := os.Remove(full); err != nil {
		t.Fatal(err)
	}
	kill(agent)
	l.process()
	l.podsWhole(all)
	if _, err := l.api.CNIAdd(t.Context(), addRequest(two, 1)); err != nil {
		t.Error(err)
	}
	l.podsWhole(all)
	l.nothingLeft(all)
}

// fill writes a file until there is no room.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 16; size > 0; size /= 2 {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
}
