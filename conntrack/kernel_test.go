// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"sluice/conntrack/conntracktest"
	"sluice/packet"
	kt "sluice/test/kerneltest"
)

// kernelTracker is a router of the kernel that tracks what it forwards between
// two links, and writes what it takes each packet for into the packet's DSCP.
type kernelTracker struct {
	sides [2]kt.Side // by the direction whose packets begin there
	nl    *conntracktest.Netlink
}

// ends are the addresses of both ends, by family.
func ends(v6 bool) [2]netip.Addr {
	if v6 {
		return [2]netip.Addr{netip.MustParseAddr("fd71:1::2"), netip.MustParseAddr("fd71:2::2")}
	}
	return [2]netip.Addr{netip.MustParseAddr("10.71.1.2"), netip.MustParseAddr("10.71.2.2")}
}

// marking are the rules that show a packet's state.
const marking = `
table inet t {
	chain show {
		type filter hook forward priority 0;
		meta nfproto ipv4 ct state invalid ip dscp set 1
		meta nfproto ipv4 ct state untracked ip dscp set 2
		meta nfproto ipv4 ct state new ip dscp set 3
		meta nfproto ipv4 ct state established ip dscp set 4
		meta nfproto ipv4 ct state related ip dscp set 5
		meta nfproto ipv6 ct state invalid ip6 dscp set 1
		meta nfproto ipv6 ct state untracked ip6 dscp set 2
		meta nfproto ipv6 ct state new ip6 dscp set 3
		meta nfproto ipv6 ct state established ip6 dscp set 4
		meta nfproto ipv6 ct state related ip6 dscp set 5
	}
}
`

// newKernelTracker is skipped by a kernel without conntrack.
func newKernelTracker(t *testing.T) *kernelTracker {
	t.Helper()
	kt.Enter(t, "ip", "nft")
	kt.Sysctl(t, "ipv4/conf/all/send_redirects=0")
	k := &kernelTracker{sides: kt.Router(t, 1500, 2)}
	kt.NFT(t, marking)
	kt.Sysctl(t, "netfilter/nf_conntrack_acct=1")
	k.nl = conntracktest.Open(t)
	return k
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// send lets the router forward a frame that comes from one of the ends, and
// returns what it took it for; Gone if it did not come through.
func (k *kernelTracker) send(from Dir, frame []byte) State {
	b := bytes.Clone(frame)
	copy(b, k.sides[from].Router[:])
	k.sides[from].Send(b)
	for {
		got := k.sides[from.Other()].Receive(500 * time.Millisecond)
		if got == nil {
			return Gone
		}
		if state, ok := shown(got, b); ok {
			return state
		}
	}
}

// shown reads the state from what became of the frame sent.
func shown(got, sent []byte) (State, bool) {
	var v, w packet.View
	if v.Parse(got) != packet.FaultNone || w.Parse(sent) != packet.FaultNone || v.Proto != w.Proto ||
		v.SrcAddr(got) != w.SrcAddr(sent) || v.SrcPort != w.SrcPort {
		return 0, false
	}
	dscp := got[v.L3+1] >> 2
	if v.Is(packet.ViewIPv6) {
		dscp = uint8(binary.BigEndian.Uint16(got[v.L3:]) >> 6 & 0x3f)
	}
	if dscp < 1 || dscp > 5 {
		return 0, false
	}
	return State(dscp - 1), true
}

// entry is what both trackers say of a connection.
type entry struct {
	src            netip.Addr // of the original direction
	status         Status
	state          uint32
	timeout        uint32
	packets, bytes [2]uint64
}

// compared are the bits that both have.
const compared = SeenReply | Assured | Confirmed

// get is the kernel's entry for a tuple, in either direction; nil if it has none.
func (k *kernelTracker) get(tu Tuple) *entry {
	e, ok := k.nl.Get(conntracktest.Tuple(tu))
	if !ok {
		return nil
	}
	return &entry{
		src: e.Original.Src, status: Status(e.Status) & compared, state: e.State, timeout: e.Timeout,
		packets: e.Packets, bytes: e.Bytes,
	}
}

// ours is the table's entry for a tuple; nil if it has none.
func ours(tab *Table, tu Tuple, now uint32) *entry {
	c, _ := tab.Find(0, tu)
	var e Entry
	if !c.Entry(&e, now) || c.record().over(now) {
		return nil
	}
	return &entry{
		src: e.Original.Src, status: e.Status & compared, state: c.record().state.Load(), timeout: e.Timeout,
		packets: e.Packets, bytes: e.Bytes,
	}
}

// differ says what two entries differ in. The kernel's clock goes on.
func differ(kernel, own *entry) string {
	switch {
	case kernel == nil && own == nil:
		return ""
	case kernel == nil:
		return fmt.Sprintf("the kernel has none, we have %+v", *own)
	case own == nil:
		return fmt.Sprintf("the kernel has %+v, we have none", *kernel)
	}
	a, b := *kernel, *own
	if a.timeout <= b.timeout && b.timeout-a.timeout <= 2 {
		a.timeout = b.timeout
	}
	if a != b {
		return fmt.Sprintf("\nkernel %+v\n   own %+v", *kernel, *own)
	}
	return ""
}

// create enters a TCP connection into the kernel's table, in some state.
func (k *kernelTracker) create(tu Tuple, state uint8, status Status, flags [2]uint8, timeout uint32) {
	inv, _ := tu.Inverse()
	k.nl.CreateTCP(conntracktest.Tuple(tu), conntracktest.Tuple(inv), state, uint32(status), flags, timeout)
}

func (k *kernelTracker) remove(tu Tuple) { k.nl.Delete(conntracktest.Tuple(tu)) }
