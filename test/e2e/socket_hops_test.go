// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"strings"
	"testing"

	"sluice/test/lab"
)

// beyond is more of the world: two routers, and a narrow link to the far end.
//
//	red ---- web === out === host ---- world ---- mid --(1320)-- far
type beyond struct {
	*way
	mid, far *lab.NS
}

func newBeyond(t *testing.T, mtu int) *beyond {
	t.Helper()
	b := &beyond{way: newWay(t, mtu, socketUplink)}
	b.mid, b.far = b.NS("mid"), b.NS("far")
	b.Cable(b.world, b.mid, "mid", 1500, "203.0.113.0/24", "2001:db8:1::/64")
	b.Cable(b.mid, b.far, "far", 1320, "198.51.100.0/24", "2001:db8:2::/64")
	for _, n := range []*lab.NS{b.world, b.mid, b.far} {
		n.Run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")
	}
	for _, r := range []struct {
		at       *lab.NS
		to4, to6 string
	}{
		{b.host, "default via 192.0.2.2", "default via 2001:db8::2"},
		{b.world, "198.51.100.0/24 via 203.0.113.2", "2001:db8:2::/64 via 2001:db8:1::2"},
		{b.mid, "default via 203.0.113.1", "default via 2001:db8:1::1"},
		{b.far, "default via 198.51.100.1", "default via 2001:db8:2::1"},
	} {
		r.at.Run(append([]string{"ip", "route", "add"}, strings.Fields(r.to4)...)...)
		r.at.Run(append([]string{"ip", "-6", "route", "add"}, strings.Fields(r.to6)...)...)
	}
	for _, f := range both() { // the neighbours know each other then
		b.host.Ping(b.far.IP(f))
	}
	return b
}

// hops are what a traceroute to the far end has to show.
func (b *beyond) hops(f lab.Family) []string {
	if f == lab.V4 {
		return []string{" 1  10.44.0.1 ", " 2  192.0.2.2 ", " 3  203.0.113.2 ", " 4  198.51.100.2 "}
	}
	return []string{" 1  fd44::1 ", " 2  2001:db8::2 ", " 3  2001:db8:1::2 ", " 4  2001:db8:2::2 "}
}

// found calls the tools of who looks for a way.
func (b *beyond) found(f lab.Family) {
	to := b.far.IP(f).String()
	b.red.Try("traceroute", "-n", "-q", "1", "-w", "3", to).Expect(0, b.hops(f)...)
	b.red.Try("traceroute", "-n", "-q", "1", "-w", "3", "-I", to).Expect(0, b.hops(f)...)
	b.red.Try("ping", "-n", "-c", "2", "-i", "0.2", "-t", "3", to).Expect(1, "exceeded")
	b.red.PingBy(2, b.far.IP(f), "-i", "0.2", "-t", "4")
}

// TestSocketUplinkHops: a container finds the routers of the world one by one, and how
// narrow its paths are, through sockets; also as one of a translated address.
func TestSocketUplinkHops(t *testing.T) {
	b := newBeyond(t, 1500)
	for _, f := range both() {
		to := b.far.IP(f).String()
		b.red.Try("ping", "-n", "-c", "2", "-i", "0.2", "-M", "do", "-s", "1400", to).Expect(1, "1320")
		b.red.Try("tracepath", "-n", to).Expect(0, "pmtu 1320", "reached", "hops 4 back 4")
		lab.UDPTo(b.green, b.far, f, lab.Datagrams{Bytes: 256 << 10, Size: 1250})
		lab.UDPTo(b.green, b.far, f, lab.Datagrams{Bytes: 256 << 10, Size: 4000}) // in fragments
	}
	for _, group := range []string{"0 2147483647", "1 0"} { // ping sockets, raw ones
		b.host.Run("sysctl", "-qw", "net.ipv4.ping_group_range="+group)
		b.found(lab.V4)
		b.found(lab.V6)
	}
	translated := func(how string) {
		b.d.Apply(strings.Replace(shopYAML(socketUplink), "{name: shop}", "{name: shop, "+how+"}", 1))
	}
	translated("nat: [postrouting oifname out snat to 100.64.0.1]")
	b.found(lab.V4)
	b.red.Try("tracepath", "-n", b.far.IP(lab.V4).String()).Expect(0, "reached", "hops 4 back 4")
	translated("nat64: {masquerade: out}")
	for _, how := range []string{"-U", "-I"} {
		b.red.Try("traceroute", "-6", "-n", "-q", "1", "-w", "3", how, "64:ff9b::198.51.100.2").Expect(0,
			" 1  fd44::1 ", " 2  64:ff9b::c000:202 ", " 3  64:ff9b::cb00:7102 ", " 4  64:ff9b::c633:6402 ")
	}
	b.red.Try("tracepath", "-6", "-n", "64:ff9b::198.51.100.2").Expect(0, "pmtu 1340", "reached")
}

// TestSocketUplinkNarrow: the host's own link is narrower than the uplink says.
func TestSocketUplinkNarrow(t *testing.T) {
	w := newWay(t, 1400, socketUplink)
	for _, f := range both() {
		w.red.Try("tracepath", "-n", w.world.IP(f).String()).Expect(0, "pmtu 1400", "reached")
		w.green.Try("ping", "-n", "-c", "2", "-i", "0.2", "-M", "do", "-s", "1390", w.world.IP(f).String()).Expect(1, "1400")
		lab.UDPTo(w.green, w.world, f, lab.Datagrams{Bytes: 256 << 10, Size: 4000})
		lab.UDPTo(w.green, w.world, f, lab.Datagrams{Bytes: 256 << 10, GSO: true, Size: 1200})
	}
}
