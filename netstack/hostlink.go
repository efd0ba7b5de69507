// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"sluice/packet"
	"sluice/trace"
)

// ringSize is the number of packets of a host stack that may wait for its
// worker: a millisecond of 64 KB packets at 50 Gbit/s, and more than a TCP
// sender's whole window of 6 MB.
const ringSize = 256

// hostLink is the wire between a bridge's local port and the namespace's host
// stack: a gVisor link endpoint. It does not own a goroutine.
//
// Out of the stack: WritePackets is called with locks of endpoints held, from
// any goroutine, a worker's included. So it only puts the packet into a bounded
// ring and never blocks; ErrNoBufferSpace is the one error that all of gVisor
// takes well. The worker that owns the link empties the ring in turns of its
// own.
//
// Into the stack: see deliver. A worker calls it while it holds its turn lock
// and no lock of the stack.
//
// Checksums. CapabilityTXChecksumOffload is off: with it, packets that are not
// GSO leave with a sum of 0 and no mark. TCP that is GSO leaves with a partial
// sum in either case, so bulk data is never summed here.
// CapabilityRXChecksumOffload is off too, since it holds for a whole NIC: the
// stack believes only those packets whose sum deliver has vouched for.
type hostLink struct {
	index    uint16 // of the local port
	mail     *mailbox
	counters *trace.PortCounters
	mac      tcpip.LinkAddress
	mtu      atomic.Uint32
	attached atomic.Bool

	// The stack's entrances, set before the first frame and never changed.
	arp  stack.NetworkEndpoint
	ipv4 stack.NetworkEndpoint
	ipv6 stack.NetworkEndpoint

	mu sync.Mutex
	// +checklocks:mu
	ring [ringSize]*stack.PacketBuffer
	// +checklocks:mu
	head int // the packets are ring[head], ring[head+1]…, modulo its size
	// +checklocks:mu
	n int // their number
	// +checklocks:mu
	posted bool // in the mailbox, or in its worker's hands
	// +checklocks:mu
	closed bool
}

var (
	_ stack.LinkEndpoint = (*hostLink)(nil)
	_ stack.GSOEndpoint  = (*hostLink)(nil)
)

func newHostLink(index uint16, mac packet.MAC, mtu int, m *mailbox, c *trace.PortCounters) *hostLink {
	l := &hostLink{index: index, mail: m, counters: c, mac: tcpip.LinkAddress(mac[:])}
	l.mtu.Store(uint32(mtu))
	return l
}

// WritePackets implements stack.LinkWriter. It takes a reference to each packet
// that it queues, and returns their number.
func (l *hostLink) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	n := l.push(pkts.AsSlice())
	if n < pkts.Len() {
		l.counters.Drop(trace.LocalFull, uint64(pkts.Len()-n))
		return n, &tcpip.ErrNoBufferSpace{}
	}
	return n, nil
}

// push queues as many of the packets as there is room for, and tells the worker.
func (l *hostLink) push(pkts []*stack.PacketBuffer) (n int) {
	l.mu.Lock()
	for _, pkt := range pkts {
		if l.n == ringSize || l.closed {
			break
		}
		l.ring[(l.head+l.n)%ringSize] = pkt.IncRef()
		l.n++
		n++
	}
	post := l.n > 0 && !l.posted && !l.closed
	l.posted = l.posted || post
	l.mu.Unlock()
	if post {
		l.mail.post(l)
	}
	return n
}

// take moves up to len(dst) packets into dst, with their references. If it
// leaves some, the link goes back into the mailbox.
func (l *hostLink) take(dst []*stack.PacketBuffer) (n int) {
	l.mu.Lock()
	for n < len(dst) && l.n > 0 {
		dst[n] = l.ring[l.head]
		l.ring[l.head] = nil
		l.head = (l.head + 1) % ringSize
		l.n--
		n++
	}
	l.posted = l.n > 0
	post := l.posted
	l.mu.Unlock()
	if post {
		l.mail.post(l)
	}
	return n
}

// shut drops what is queued and refuses everything after it.
func (l *hostLink) shut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for ; l.n > 0; l.n-- {
		l.ring[l.head].DecRef()
		l.ring[l.head] = nil
		l.head = (l.head + 1) % ringSize
	}
}

// MTU implements stack.NetworkLinkEndpoint: bytes of IP packet.
func (l *hostLink) MTU() uint32 { return l.mtu.Load() }

// SetMTU implements stack.NetworkLinkEndpoint.
func (l *hostLink) SetMTU(mtu uint32) { l.mtu.Store(mtu) }

// MaxHeaderLength implements stack.NetworkLinkEndpoint.
func (*hostLink) MaxHeaderLength() uint16 { return header.EthernetMinimumSize }

// LinkAddress implements stack.NetworkLinkEndpoint.
func (l *hostLink) LinkAddress() tcpip.LinkAddress { return l.mac }

// SetLinkAddress implements stack.NetworkLinkEndpoint. The address is that of
// the bridge, which the stack does not choose: it stays.
func (*hostLink) SetLinkAddress(tcpip.LinkAddress) {}

// Capabilities implements stack.NetworkLinkEndpoint.
func (*hostLink) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityResolutionRequired
}

// GSOMaxSize implements stack.GSOEndpoint: the largest IP packet.
func (*hostLink) GSOMaxSize() uint32 { return 65535 }

// SupportedGSO implements stack.GSOEndpoint.
func (*hostLink) SupportedGSO() stack.SupportedGSO { return stack.HostGSOSupported }

// Attach implements stack.NetworkLinkEndpoint. It returns at once, also with
// nil: the stack calls it with its own lock held. The dispatcher is not needed,
// see deliver.
func (l *hostLink) Attach(d stack.NetworkDispatcher) { l.attached.Store(d != nil) }

// IsAttached implements stack.NetworkLinkEndpoint.
func (l *hostLink) IsAttached() bool { return l.attached.Load() }

// Wait implements stack.NetworkLinkEndpoint: there is no goroutine to wait for.
func (*hostLink) Wait() {}

// Close implements stack.NetworkLinkEndpoint.
func (l *hostLink) Close() { l.shut() }

// SetOnCloseAction implements stack.NetworkLinkEndpoint; nothing hangs on it.
func (*hostLink) SetOnCloseAction(func()) {}

// ARPHardwareType implements stack.NetworkLinkEndpoint.
func (*hostLink) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareEther }

// AddHeader implements stack.NetworkLinkEndpoint.
func (l *hostLink) AddHeader(pkt *stack.PacketBuffer) {
	header.Ethernet(pkt.LinkHeader().Push(header.EthernetMinimumSize)).Encode(&header.EthernetFields{
		SrcAddr: l.mac,
		DstAddr: pkt.EgressRoute.RemoteLinkAddress,
		Type:    pkt.NetworkProtocolNumber,
	})
}

// ParseHeader implements stack.NetworkLinkEndpoint.
func (*hostLink) ParseHeader(pkt *stack.PacketBuffer) bool {
	_, ok := pkt.LinkHeader().Consume(header.EthernetMinimumSize)
	return ok
}
