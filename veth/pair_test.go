// SPDX-License-Identifier: Apache-2.0

package veth_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"sluice/packet"
	kt "sluice/test/kerneltest"
	"sluice/veth"
)

// netlinkAt looks at a namespace with other code than the package's own.
func netlinkAt(tb testing.TB, ns netns.NsHandle) *netlink.Handle {
	tb.Helper()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(h.Close)
	return h
}

func linkByName(tb testing.TB, h *netlink.Handle, name string) netlink.Link {
	tb.Helper()
	l, err := h.LinkByName(name)
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

func TestCreatePairConfiguresBothEnds(t *testing.T) {
	host := kt.NewNS(t)
	c := attach(t, host, 7, func(c *veth.PairConfig) {
		c.MTU = veth.MaxMTU
		c.HostMAC = packet.MAC{2, 0xff, 0, 0, 0, 7}
		c.TxQueueLen = 77
		c.Gateways = []netip.Addr{netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("fd09::1")}
		c.Routes = []veth.Route{
			{Dst: netip.MustParsePrefix("192.0.2.0/24")},
			{Dst: netip.MustParsePrefix("198.51.100.0/24"), Via: netip.MustParseAddr("203.0.113.1")},
			{Dst: netip.MustParsePrefix("2001:db8::/32"), Via: netip.MustParseAddr("fd77::1")},
		}
	})

	inside := netlinkAt(t, c.ns)
	eth0 := linkByName(t, inside, "eth0").Attrs()
	if eth0.MTU != veth.MaxMTU || eth0.HardwareAddr.String() != mac(7).String() || eth0.TxQLen != 77 {
		t.Errorf("eth0: MTU %d, MAC %s, queue %d", eth0.MTU, eth0.HardwareAddr, eth0.TxQLen)
	}
	want := []string{"10.9.0.7/24", "fd09::7/64", "fe80::ff:fe00:7/64"}
	if diff := cmp.Diff(want, addresses(t, inside)); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
	wantRoutes := []string{
		"0.0.0.0/0 via 10.9.0.1", "192.0.2.0/24 via <nil>", "198.51.100.0/24 via 203.0.113.1",
		"2001:db8::/32 via fd77::1", "::/0 via fd09::1",
	}
	got := routes(t, inside)
	for _, w := range wantRoutes {
		if !slices.Contains(got, w) {
			t.Errorf("no route %q in %q", w, got)
		}
	}

	ends, err := veth.HostEnds(host)
	if err != nil {
		t.Fatal(err)
	}
	for i := range ends {
		ends[i].Index = 0 // the kernel's choice
	}
	wantEnds := []veth.HostEnd{{
		Name: "slt-7", PeerIndex: eth0.Index, Alias: "sluice:7", MTU: veth.MaxMTU,
		MAC: packet.MAC{2, 0xff, 0, 0, 0, 7}, Up: true, PeerUp: true,
	}}
	if diff := cmp.Diff(wantEnds, ends); diff != "" {
		t.Errorf("host ends (-want +got):\n%s", diff)
	}
}

// addresses lists eth0's addresses; one that isn't usable yet says so.
func addresses(t *testing.T, h *netlink.Handle) []string {
	t.Helper()
	list, err := h.AddrList(linkByName(t, h, "eth0"), netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, a := range list {
		s := a.IPNet.String()
		if a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0 {
			s += " tentative"
		}
		out = append(out, s)
	}
	slices.Sort(out)
	return out
}

func routes(t *testing.T, h *netlink.Handle) []string {
	t.Helper()
	list, err := h.RouteList(linkByName(t, h, "eth0"), netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, r := range list {
		out = append(out, fmt.Sprintf("%s via %s", r.Dst, r.Gw))
	}
	return out
}

func TestAddressesAreUsableAtOnceWithoutSysctl(t *testing.T) {
	// The kernel would detect duplicates of its own link-local address if either
	// of two settings asks for it; one of them isn't the interface's.
	ns := kt.NewNS(t)
	kt.RunIn(t, ns, "sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/accept_dad")
	host := kt.NewNS(t)
	if err := veth.CreatePair(config(host, ns, 1)); err != nil {
		t.Fatal(err)
	}
	want := []string{"10.9.0.1/24", "fd09::1/64", "fe80::ff:fe00:1/64"}
	if diff := cmp.Diff(want, addresses(t, netlinkAt(t, ns))); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
}

func TestIPv6IsSwitchedOnWhenAsked(t *testing.T) {
	ns := kt.NewNS(t)
	kt.RunIn(t, ns, "sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6")
	if err := veth.CreatePair(config(kt.NewNS(t), ns, 1)); err != nil {
		t.Fatal(err)
	}
	if got := addresses(t, netlinkAt(t, ns)); !slices.Contains(got, "fd09::1/64") {
		t.Errorf("addresses: %q", got)
	}
}

func TestHostEndIsMute(t *testing.T) {
	host := kt.NewNS(t)
	c := attach(t, host, 1, nil)
	link := linkByName(t, netlinkAt(t, host), "slt-1").Attrs()
	if link.RawFlags&unix.IFF_NOARP == 0 {
		t.Error("ARP is on")
	}
	for name, want := range map[string]string{"disable_ipv6": "1", "addr_gen_mode": "1"} {
		if got := kt.RunIn(t, host, "cat", "/proc/sys/net/ipv6/conf/slt-1/"+name); strings.TrimSpace(got) != want {
			t.Errorf("%s = %q", name, got)
		}
	}
	for name, want := range map[string]bool{"generic-receive-offload": true, "rx-udp-gro-forwarding": true} {
		if got := features(t, host, "slt-1")[name]; got != want {
			t.Errorf("host end: %s = %v", name, got)
		}
	}
	inside := features(t, c.ns, "eth0")
	for name, want := range map[string]bool{
		"tx-tcp-segmentation": true, "tx-tcp6-segmentation": true, "tx-udp-segmentation": true,
		"tx-checksum-ip-generic": true, "generic-segmentation-offload": true, "tx-udp_tnl-segmentation": false,
		"tx-gre-segmentation": false, "tx-sctp-segmentation": false, "tx-checksum-sctp": false,
	} {
		if inside[name] != want {
			t.Errorf("container end: %s = %v", name, inside[name])
		}
	}
}

// features is what ethtool(8) shows.
func features(t *testing.T, ns netns.NsHandle, ifname string) map[string]bool {
	t.Helper()
	f := map[string]bool{}
	for line := range strings.Lines(kt.RunIn(t, ns, "ethtool", "-k", ifname)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ": "); ok {
			f[name] = strings.HasPrefix(value, "on")
		}
	}
	return f
}

// TestReadOnlySysctl runs other tests of this file again where /proc/sys can't be
// written, as in a container.
func TestReadOnlySysctl(t *testing.T) {
	needRoot(t)
	const tests = "^(TestCreatePairConfiguresBothEnds|TestHostKernelAnswersNothing|TestCreateNetNSAfterAKill)$"
	const script = `mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec "$0" -test.run "$1"`
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 6*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "sh", "-c", script, exe, tests)
	cmd.Env = append(os.Environ(), readOnly+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// readOnly is set in the environment of tests that can't write /proc/sys.
const readOnly = "SLT_READ_ONLY_SYSCTL"

func TestCreatePairRefuses(t *testing.T) {
	host, ns := kt.NewNS(t), kt.NewNS(t)
	if err := veth.CreatePair(config(host, ns, 1)); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name   string
		change func(*veth.PairConfig)
		want   error
		text   string
	}{
		{"a name taken in the container", func(c *veth.PairConfig) {}, veth.ErrExist, "eth0 in the container"},
		{"a name taken in the host namespace", func(c *veth.PairConfig) { c.Name, c.HostName = "eth1", "slt-1" }, veth.ErrExist, "slt-1 in the host"},
		{"no name", func(c *veth.PairConfig) { c.Name = "" }, veth.ErrConfig, `""`},
		{"a name of 16 bytes", func(c *veth.PairConfig) { c.HostName = "slt-567890123456" }, veth.ErrConfig, "slt-567890123456"},
		{"a pattern as name", func(c *veth.PairConfig) { c.Name = "eth%d" }, veth.ErrConfig, "eth%d"},
		{"a slash in the name", func(c *veth.PairConfig) { c.Name = "a/b" }, veth.ErrConfig, "a/b"},
		{"a group address", func(c *veth.PairConfig) { c.MAC[0] |= 1 }, veth.ErrConfig, "group"},
		{"an MTU below IPv6's", func(c *veth.PairConfig) { c.MTU = 1279 }, veth.ErrConfig, "1280..65535"},
		{"an MTU above 64 KB", func(c *veth.PairConfig) { c.MTU = 65536 }, veth.ErrConfig, "1280..65535"},
		{"an address without prefix", func(c *veth.PairConfig) { c.Addresses = []netip.Prefix{{}} }, veth.ErrConfig, "invalid Prefix"},
		{"an IPv4 address in IPv6's clothes", func(c *veth.PairConfig) {
			c.Addresses = []netip.Prefix{netip.MustParsePrefix("::ffff:10.9.0.2/120")}
		}, veth.ErrConfig, "::ffff:10.9.0.2"},
		{"no gateway", func(c *veth.PairConfig) { c.Gateways = []netip.Addr{{}} }, veth.ErrConfig, "gateway"},
		{"a next hop of the other family", func(c *veth.PairConfig) {
			c.Routes = []veth.Route{{Dst: netip.MustParsePrefix("192.0.2.0/24"), Via: netip.MustParseAddr("fd09::1")}}
		}, veth.ErrConfig, "192.0.2.0/24 via fd09::1"},
		{"an impossible address", func(c *veth.PairConfig) {
			c.Name, c.Addresses = "eth1", []netip.Prefix{netip.MustParsePrefix("ff02::1/64")}
		}, unix.EADDRNOTAVAIL, "ff02::1/64"},
		{"a route that exists", func(c *veth.PairConfig) {
			c.Name = "eth1"
			r := veth.Route{Dst: netip.MustParsePrefix("192.0.2.0/24")}
			c.Routes = []veth.Route{r, r}
		}, unix.EEXIST, "192.0.2.0/24"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := config(host, ns, 2)
			tc.change(&c)
			err := veth.CreatePair(c)
			if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("got %v, want %v about %s", err, tc.want, tc.text)
			}
			ends, err := veth.HostEnds(host)
			if err != nil || len(ends) != 1 || ends[0].Name != "slt-1" {
				t.Errorf("left behind: %+v, %v", ends, err)
			}
		})
	}
}

func TestOnlinkGateway(t *testing.T) {
	c := attach(t, kt.NewNS(t), 1, func(c *veth.PairConfig) {
		c.Addresses = []netip.Prefix{netip.MustParsePrefix("10.9.0.1/32"), netip.MustParsePrefix("fd09::1/128")}
		c.Gateways = []netip.Addr{netip.MustParseAddr("169.254.1.1"), netip.MustParseAddr("fe80::1")}
	})
	got := routes(t, netlinkAt(t, c.ns))
	for _, w := range []string{"0.0.0.0/0 via 169.254.1.1", "::/0 via fe80::1"} {
		if !slices.Contains(got, w) {
			t.Errorf("no route %q in %q", w, got)
		}
	}
}

func TestDeletePairs(t *testing.T) {
	host, ns := kt.NewNS(t), kt.NewNS(t)
	if err := veth.CreatePair(config(host, ns, 1)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := veth.DeletePairs(host, "slt-1"); err != nil {
			t.Errorf("DeletePairs: %v", err)
		}
	}
	if err := veth.DeletePairs(host, "lo"); !errors.Is(err, veth.ErrConfig) {
		t.Errorf("lo: %v", err)
	}
	h := netlinkAt(t, ns)
	if _, err := h.LinkByName("eth0"); err == nil {
		t.Error("the container's end is still there")
	}
}

// TestDeletePairsAtOnce: some of several, and none if one of them is not a pair's.
func TestDeletePairsAtOnce(t *testing.T) {
	host, ns := kt.NewNS(t), kt.NewNS(t)
	for i := 1; i <= 4; i++ {
		cfg := config(host, ns, i)
		cfg.Name = fmt.Sprintf("eth%d", i)
		if err := veth.CreatePair(cfg); err != nil {
			t.Fatal(err)
		}
	}
	left := func() (out []string) {
		ends, err := veth.HostEnds(host)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range ends {
			out = append(out, e.Name)
		}
		return out
	}
	if err := veth.DeletePairs(host, "slt-1", "lo", "slt-2"); !errors.Is(err, veth.ErrConfig) || len(left()) != 4 {
		t.Errorf("with lo: %v; left are %v", err, left())
	}
	if err := veth.DeletePairs(host, "slt-1", "slt-9", "slt-2", "slt-4"); err != nil {
		t.Error(err)
	}
	if got := left(); !slices.Equal(got, []string{"slt-3"}) {
		t.Errorf("left are %v", got)
	}
}

func TestDeletedContainerTakesItsPairAlong(t *testing.T) {
	host, ns := kt.NewNS(t), kt.NewNS(t)
	if err := veth.CreatePair(config(host, ns, 1)); err != nil {
		t.Fatal(err)
	}
	ns.Close()
	await(t, "the host end to go", func() bool {
		ends, err := veth.HostEnds(host)
		return err == nil && len(ends) == 0
	})
	if err := veth.DeletePairs(host, "slt-1"); err != nil {
		t.Error(err)
	}
}

// await repeats a look until it succeeds.
func await(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if ok() {
			return
		}
	}
	tb.Fatalf("waited in vain for %s", what)
}

func TestCreatePairFromManyGoroutines(t *testing.T) {
	host := kt.NewNS(t)
	const goroutines, each = 8, 4
	var wg sync.WaitGroup
	for g := range goroutines {
		ns := kt.NewNS(t)
		wg.Go(func() {
			for i := range each {
				c := config(host, ns, g*each+i+1)
				c.Name = fmt.Sprintf("eth%d", i)
				c.Routes = nil
				if err := veth.CreatePair(c); err != nil {
					t.Errorf("CreatePair: %v", err)
				}
				if _, err := veth.HostEnds(host); err != nil {
					t.Errorf("HostEnds: %v", err)
				}
			}
		})
	}
	wg.Wait()
	ends, err := veth.HostEnds(host)
	if err != nil || len(ends) != goroutines*each {
		t.Errorf("%d host ends, %v", len(ends), err)
	}
}

// entries counts a directory of /proc/self.
func entries(t *testing.T, dir string) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/" + dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestNothingLeaks(t *testing.T) {
	host, ns := kt.NewNS(t), kt.NewNS(t)
	cycle := func() {
		c := config(host, ns, 1)
		if err := veth.CreatePair(c); err != nil {
			t.Fatal(err)
		}
		f, err := veth.OpenSocket(host, c.HostName, veth.SocketOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := veth.Announce(ns, c.Name, c.MAC, []netip.Addr{c.Addresses[0].Addr()}); err != nil {
			t.Fatal(err)
		}
		if err := veth.DeletePairs(host, c.HostName); err != nil {
			t.Fatal(err)
		}
	}
	for range 10 { // lets the runtime start what threads it wants
		cycle()
	}
	fds, threads := entries(t, "fd"), entries(t, "task")
	for range 100 {
		cycle()
	}
	if n := entries(t, "fd"); n != fds {
		t.Errorf("%d fds before, %d after", fds, n)
	}
	// The runtime may start another thread at any time, but not one for each pair.
	if n := entries(t, "task"); n > threads+3 {
		t.Errorf("%d threads before, %d after", threads, n)
	}
}
