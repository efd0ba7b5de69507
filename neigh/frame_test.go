// SPDX-License-Identifier: Apache-2.0

package neigh

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

// The world of these tests: one device with an address of each kind, and
// neighbours by number, each with two MACs, a and b.
const dev = 10

var (
	ownMAC  = packet.MAC{2, 0xff, 0, 0, 0, 1}
	own4    = pt.IP("10.9.0.1")
	own6    = pt.IP("fd09::1")
	ownLink = pt.IP("fe80::1")
	someone = packet.MAC{2, 0xee, 0, 0, 0, 1} // another host
)

func theDevice() Device {
	return Device{Index: dev, MAC: ownMAC, Addrs: []netip.Prefix{
		netip.MustParsePrefix("10.9.0.1/24"), netip.MustParsePrefix("fd09::1/64"), netip.MustParsePrefix("fe80::1/64"),
	}}
}

func own(a netip.Addr) bool { return a == own4 || a == own6 || a == ownLink }

func ip4(n int) netip.Addr   { return netip.AddrFrom4([4]byte{10, 9, 0, byte(10 + n)}) }
func ip6(n int) netip.Addr   { return netip.AddrFrom16([16]byte{0: 0xfd, 1: 9, 15: byte(10 + n)}) }
func macA(n int) packet.MAC  { return packet.MAC{2, 0xaa, 0, 0, 0, byte(n)} }
func macB(n int) packet.MAC  { return packet.MAC{2, 0xbb, 0, 0, 0, byte(n)} }
func link6(n int) netip.Addr { return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 15: byte(10 + n)}) }

// tape notes what a table sends and gives up.
type tape struct {
	sent   []sentFrame
	failed []Failure
}

type sentFrame struct {
	dev   uint16
	vnet  packet.Vnet
	label packet.Label
	frame []byte
}

func (x *tape) Emit(d uint16, v packet.Vnet, l packet.Label, b []byte) {
	x.sent = append(x.sent, sentFrame{d, v, l, slices.Clone(b)})
}

func (x *tape) fail(f Failure) { x.failed = append(x.failed, f) }

// take empties the tape.
func (x *tape) take() (sent []sentFrame, failed []Failure) {
	sent, failed = x.sent, x.failed
	*x = tape{}
	return sent, failed
}

// words says what frames are, in words: "who-has n", "ask n", or "to MAC".
func words(sent []sentFrame) []string {
	var all []string
	for _, s := range sent {
		f := pt.Frame(s.frame)
		cast := "to " + f.DstMAC().String()
		if f.DstMAC().IsMulticast() {
			cast = "to all"
		}
		switch m, isND := f.View.ND(f.Bytes()); {
		case f.View.Is(packet.ViewARP):
			cast = fmt.Sprintf("who-has %v tell %v %s", f.View.DstAddr(f.Bytes()), f.View.SrcAddr(f.Bytes()), cast)
		case isND:
			cast = fmt.Sprintf("ask %v tell %v %s", m.Target, f.View.SrcAddr(f.Bytes()), cast)
		}
		all = append(all, cast)
	}
	return all
}

// newWorld is a table with the device.
func newWorld(l Limits, static ...Static) *Table {
	t := newTable(l, 1)
	t.Prepare(Config{Devices: []Device{theDevice()}, Static: static}).Commit()
	return t
}

// ping is a packet for n of either family by a port, with its number in it.
func ping(port uint16, number int) Held {
	return Held{Port: port, Frame: pt.Ping4(pt.Packet{ID: uint16(number)})}
}

// parsed is a frame that came by a port.
func parsed(b []byte, port uint16) *packet.Frame {
	f := pt.Frame(b)
	f.InPort = port
	return f
}

// arp is an ARP message of n at a MAC.
func arp(op uint16, n int, sha packet.MAC, target netip.Addr, tha, to packet.MAC) []byte {
	return pt.Build(pt.EtherHdr{Src: sha, Dst: to},
		pt.ARPMsg{Op: op, SenderMAC: sha, SenderIP: ip4(n), TargetMAC: tha, TargetIP: target})
}

// nd6 is a message of neighbour discovery; target and link may be zero: none.
type nd6 struct {
	typ      uint8
	src, dst netip.Addr
	flags    uint8
	target   netip.Addr
	opt      uint8
	link     packet.MAC
	to       packet.MAC
	hops     uint8
	code     uint8
	sum      *uint16
	head     int // bytes before the options, besides the target
}

func (m nd6) build() []byte {
	if m.hops == 0 {
		m.hops = 255
	}
	body := make([]byte, m.head)
	if m.target.IsValid() {
		body = append(body, m.target.AsSlice()...)
	}
	if m.opt != 0 {
		body = append(append(body, m.opt, 1), m.link[:]...)
	}
	return pt.Build(pt.EtherHdr{Src: someone, Dst: m.to},
		pt.IPv6Hdr{Src: m.src, Dst: m.dst, HopLimit: m.hops},
		pt.ICMPHdr{V6: true, Type: m.typ, Code: m.code, ID: uint16(m.flags) << 8, Checksum: m.sum}, pt.Payload(body))
}

var (
	allNodes    = pt.IP("ff02::1")
	allRouters  = pt.IP("ff02::2")
	allNodesMAC = packet.MAC{0x33, 0x33, 0, 0, 0, 1}
)

// advert is an advertisement of n with the flags: to us if it is solicited, else to
// all. A zero MAC is no option.
func advert(n int, flags uint8, mac packet.MAC) nd6 {
	m := nd6{typ: packet.NDNeighbourAdvert, src: ip6(n), dst: own6, to: ownMAC, flags: flags, target: ip6(n), link: mac}
	if flags&packet.NAFlagSolicited == 0 {
		m.dst, m.to = allNodes, allNodesMAC
	}
	if !mac.IsZero() {
		m.opt = packet.NDTargetLink
	}
	return m
}

// solicit is a question of n for target.
func solicit(n int, target netip.Addr, mac packet.MAC) nd6 {
	a := target.As16()
	m := nd6{
		typ: packet.NDNeighbourSol, src: ip6(n), target: target, link: mac,
		dst: netip.AddrFrom16([16]byte{0: 0xff, 1: 2, 11: 1, 12: 0xff, 13: a[13], 14: a[14], 15: a[15]}),
		to:  packet.MAC{0x33, 0x33, 0xff, a[13], a[14], a[15]},
	}
	if !mac.IsZero() {
		m.opt = packet.NDSourceLink
	}
	return m
}

// entryOf is the entry of an address; the zero Entry if there is none.
func entryOf(t *Table, a netip.Addr, now Tick) Entry {
	for _, e := range t.Entries(nil, now) {
		if e.Addr == a {
			return e
		}
	}
	return Entry{}
}

// checkBooks compares what a table at rest has with what it has booked.
//
// +checklocksignore: the analysis does not know a deferred unlock after a closure.
func checkBooks(t *testing.T, x *Table) {
	t.Helper()
	x.mu.Lock()
	defer x.mu.Unlock()
	want := map[uint16]*account{}
	of := func(port uint16) *account {
		if want[port] == nil {
			want[port] = new(account)
		}
		return want[port]
	}
	held := 0
	for i, e := range x.all {
		if e.index != i || x.index.find(e.key) != e {
			t.Errorf("%v: place %d, is at %d", e.key.ip(), e.index, i)
		}
		if e.debt.kind != settled {
			of(e.debt.port).owed[e.debt.kind]++
		}
		if e.debt.kind == unresolved && e.state() == Failed {
			of(e.debt.port).dead++
		}
		sum := 0
		for _, h := range e.queue.held {
			of(h.Port).bytes += h.cost()
			sum += h.cost()
		}
		held += sum
		if sum != e.queue.bytes || sum > x.limits.QueueBytes || sum > 0 && e.state() != Incomplete {
			t.Errorf("%v %v: %d bytes held, %d booked", e.state(), e.key.ip(), sum, e.queue.bytes)
		}
		if e.state() == None {
			t.Errorf("%v: is None", e.key.ip())
		}
	}
	for port, a := range want {
		if x.accounts[port] == nil || *x.accounts[port] != *a {
			t.Errorf("port %d: booked %+v, want %+v", port, x.accounts[port], *a)
		}
		if a.owed[unresolved] > x.limits.UnresolvedPerPort || a.owed[learned] > x.limits.LearnedPerPort ||
			a.owed[answered] > x.limits.AnsweredPerPort ||
			a.bytes > x.limits.QueueBytesPerPort {
			t.Errorf("port %d is over its limits: %+v", port, *a)
		}
	}
	if len(x.accounts) != len(want) || held != x.stats.HeldBytes || len(x.all) > x.limits.Entries {
		t.Errorf("%d accounts, want %d; %d bytes held, %d booked; %d entries", len(x.accounts), len(want), held, x.stats.HeldBytes, len(x.all))
	}
}
