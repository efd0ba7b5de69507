// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"bytes"
	"slices"
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"sluice/bridge"
	"sluice/fragment"
	"sluice/packet"
	"sluice/proxy"
	"sluice/trace"
)

// kind is what a packet of a host stack is to the ring.
type kind uint8

const (
	kindTCP      kind = iota // of a connection
	kindDatagram             // of a UDP socket
	kindReply                // made on the spot: ARP, ND, echo replies, ICMP errors
	kindReset                // TCP for nobody, made on the spot too
	kindFrame                // not the stack's: a frame of the router or of the bridge
	numKinds
)

// room is the number of packets of a kind that may wait for their worker. Each
// kind has its own, so that what a container can ask for at will, such as answers
// to its pings, takes nothing from connections. For TCP it is a millisecond of
// 64 KB packets at 250 Gbit/s, and more than a sender's whole window of 6 MB; for
// replies it is what eight ports that flood are due in 15 ms, should the worker
// have to wait that long for a CPU.
func (k kind) room() int {
	switch k {
	case kindReply, kindFrame:
		return 1024
	case kindReset:
		return 128
	default:
		return 512
	}
}

// ringSize has a place for all of them.
const ringSize = 512 + 512 + 1024 + 128 + 1024

// Frames of the router are bounded by their bytes too: one takes a place for each
// frameBytes that it has begun. The ports that caused them share the places, so that
// one that floods cannot keep back what the router has to say to others.
const (
	framePlaces = 1024
	frameBytes  = 4 << 10
)

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
	nic      tcpip.NICID
	host     *host
	worker   *worker  // that serves it
	mail     *mailbox // of that worker
	counters *trace.PortCounters
	culprits culprits // rules that have dropped its frames
	mac      tcpip.LinkAddress
	mtu      atomic.Uint32
	attached atomic.Bool
	proxy    *proxy.Proxy // of an uplink's stack: host is nil
	asking   atomic.Bool  // the worker is to send queries, see ask
	// near is the mailbox of the worker that had to do with an uplink's stack last. What
	// comes of that is for it, and wakes no other.
	near     atomic.Pointer[mailbox]
	released bucket // of a link, its worker's: what host stacks take of what the router sends by it

	// The stack's entrances, set before the first frame and never changed.
	arp  stack.NetworkEndpoint
	ipv4 stack.NetworkEndpoint
	ipv6 stack.NetworkEndpoint

	broadcasts atomic.Pointer[[]tcpip.Address]

	mu sync.Mutex
	// +checklocks:mu
	ring [ringSize]waiting
	// +checklocks:mu
	kinds [numKinds]int // packets in the ring, by kind
	// +checklocks:mu
	frames shares // of the places for frames
	// +checklocks:mu
	head int // the packets are ring[head], ring[head+1]…, modulo its size
	// +checklocks:mu
	n int // their number
	// +checklocks:mu
	posted bool // in the mailbox, or in its worker's hands
	// +checklocks:mu
	closed bool
}

// waiting is a packet in the ring: one of the stack's, or a frame.
type waiting struct {
	pkt   *stack.PacketBuffer // with a reference; nil for a frame
	frame []byte              // the ring's own copy, from the Ethernet header on
	vnet  packet.Vnet
	label packet.Label
	to    destination
	port  uint16         // of toPort and toRouter
	ports fragment.Ports // of toRouter
	tag   bridge.Tag     // of toPort: what is done to the frame's tag
	kind  kind
	from  uint16 // the port that caused a frame; 0: none
	about *about // of toHooks: what a frame is about; nil: not known
}

// destination is where a frame of the ring goes.
type destination uint8

const (
	toBridge destination = iota // as if the host stack had sent it
	toStack                     // to the host stack itself
	toPort                      // to one port of the bridge
	toRouter                    // to the router, as what came from a port: a fragment
	toHooks                     // to the router, as if the host stack had sent it
)

// places is the number that a frame takes.
func (w *waiting) places() int { return 1 + len(w.frame)/frameBytes }

// release gives up the packet.
func (w *waiting) release() {
	if w.pkt != nil {
		w.pkt.DecRef()
	}
}

var (
	_ stack.LinkEndpoint = (*hostLink)(nil)
	_ stack.GSOEndpoint  = (*hostLink)(nil)
)

func newHostLink(h *host, b *BridgeSpec, w *worker, c *trace.PortCounters) *hostLink {
	l := &hostLink{index: b.Index, host: h, worker: w, mail: &w.mail, counters: c, mac: tcpip.LinkAddress(b.MAC[:])}
	l.released.tokens = localBurst
	l.mtu.Store(uint32(b.MTU))
	l.broadcasts.Store(new([]tcpip.Address))
	l.mu.Lock()
	defer l.mu.Unlock()
	l.frames = newShares(framePlaces)
	return l
}

// WritePackets implements stack.LinkWriter. It takes a reference to each packet
// that it queues, and returns their number. A link that is shut counts nothing:
// its counters may be another's.
func (l *hostLink) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	n, closed := l.push(pkts.AsSlice())
	if n == pkts.Len() {
		return n, nil
	}
	if !closed {
		l.counters.Drop(trace.LocalFull, uint64(pkts.Len()-n))
	}
	return n, &tcpip.ErrNoBufferSpace{}
}

// push queues the packets that there is room for, and tells the worker.
func (l *hostLink) push(pkts []*stack.PacketBuffer) (n int, closed bool) {
	l.mu.Lock()
	for _, pkt := range pkts {
		if k := kindOf(pkt); l.kinds[k] < k.room() && !l.closed {
			l.put(waiting{pkt: pkt.IncRef(), kind: k})
			n++
		}
	}
	closed = l.closed
	l.unlockAndPost()
	return n, closed
}

// emit queues a copy of a frame for the link's worker. It may be called from any
// goroutine, a worker's included, without a lock of the stack. It reports false if
// there is no room: the frame is to be counted as dropped.
func (l *hostLink) emit(w waiting) bool {
	w.kind = kindFrame
	l.mu.Lock()
	closed := l.closed
	room := !closed && l.frames.takeMany(w.from, w.places())
	if room {
		w.frame = bytes.Clone(w.frame)
		l.put(w)
	}
	l.unlockAndPost()
	return room || closed
}

// put appends to the ring. Preconditions: there is room.
//
// +checklocks:l.mu
func (l *hostLink) put(w waiting) {
	l.ring[(l.head+l.n)%ringSize] = w
	l.kinds[w.kind]++
	l.n++
}

// unlockAndPost ends a change of the ring: the worker is told of what waits.
//
// +checklocksrelease:l.mu
func (l *hostLink) unlockAndPost() {
	post := l.n > 0 && !l.posted
	l.posted = l.posted || post
	l.mu.Unlock()
	if post {
		l.post()
	}
}

// post puts the link into a mailbox. Preconditions: it is in none, and its caller has
// noted that it is.
func (l *hostLink) post() {
	if m := l.near.Load(); m != nil {
		m.post(l)
		return
	}
	l.mail.post(l)
}

// approach says that the worker with that mailbox has to do with an uplink's stack.
func (l *hostLink) approach(m *mailbox) {
	if l.near.Load() != m {
		l.near.Store(m)
	}
}

// kindOf tells a packet's kind by its headers, which the stack has just made.
func kindOf(pkt *stack.PacketBuffer) kind {
	switch pkt.TransportProtocolNumber {
	case header.TCPProtocolNumber:
		h := header.TCP(pkt.TransportHeader().Slice())
		if len(h) >= header.TCPMinimumSize && h.Flags().Contains(header.TCPFlagRst) {
			return kindReset
		}
		return kindTCP
	case header.UDPProtocolNumber:
		return kindDatagram
	}
	return kindReply
}

// take moves up to len(dst) packets into dst, with their references.
func (l *hostLink) take(dst []waiting) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for n < len(dst) && l.n > 0 {
		dst[n] = l.pop()
		n++
	}
	return n
}

// pop takes the first packet out of the ring. Preconditions: there is one.
//
// +checklocks:l.mu
func (l *hostLink) pop() waiting {
	first := l.ring[l.head]
	l.ring[l.head] = waiting{}
	l.head = (l.head + 1) % ringSize
	l.kinds[first.kind]--
	if first.kind == kindFrame {
		l.frames.putMany(first.from, first.places())
	}
	l.n--
	return first
}

// queued is the number of packets in the ring.
func (l *hostLink) queued() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.n
}

// rest ends a turn of the link: with packets left, or new ones, it goes back into
// the mailbox.
func (l *hostLink) rest() {
	l.mu.Lock()
	l.posted = l.n > 0 || l.asking.Load()
	post := l.posted
	l.mu.Unlock()
	if post {
		l.post()
	}
}

// shut drops what is queued and refuses everything after it.
func (l *hostLink) shut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for l.n > 0 {
		w := l.pop()
		w.release()
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

// Capabilities implements stack.NetworkLinkEndpoint. Nobody's link address is to
// be resolved: the router does that.
func (*hostLink) Capabilities() stack.LinkEndpointCapabilities { return stack.CapabilityNone }

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
		DstAddr: l.linkAddress(&pkt.EgressRoute),
		Type:    pkt.NetworkProtocolNumber,
	})
}

// linkAddress is where a packet goes: to whom asked, to a group, or to the
// router, which has the link's own address.
func (l *hostLink) linkAddress(r *stack.RouteInfo) tcpip.LinkAddress {
	switch to := r.RemoteAddress; {
	case r.RemoteLinkAddress != "":
		return r.RemoteLinkAddress
	case header.IsV4MulticastAddress(to):
		return header.EthernetAddressFromMulticastIPv4Address(to)
	case header.IsV6MulticastAddress(to):
		return header.EthernetAddressFromMulticastIPv6Address(to)
	case slices.Contains(*l.broadcasts.Load(), to):
		return header.EthernetBroadcastAddress
	}
	return l.mac
}

// ParseHeader implements stack.NetworkLinkEndpoint.
func (*hostLink) ParseHeader(pkt *stack.PacketBuffer) bool {
	_, ok := pkt.LinkHeader().Consume(header.EthernetMinimumSize)
	return ok
}
