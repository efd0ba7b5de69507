// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"net"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	pt "sluice/packet/packettest"
	"sluice/trace"
)

// sink is a socket of the world, and what packets for it look like.
type sink struct {
	*net.UDPConn
	to netip.AddrPort
}

func (l *lab) sink() *sink {
	l.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { c.Close() })
	_ = c.SetReadBuffer(1 << 20)
	_ = c.SetDeadline(time.Now().Add(patience))
	port := netip.MustParseAddrPort(c.LocalAddr().String()).Port()
	return &sink{c, netip.AddrPortFrom(netip.MustParseAddr("192.0.2.2"), port)}
}

// deliver brings a container's datagram, or a train of them, to the uplink stack.
func (l *lab) deliver(to stack.NetworkEndpoint, frame []byte, train uint16) {
	const link = 14
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithView(buffer.NewViewWithData(frame[link:]))})
	pkt.NetworkProtocolNumber, pkt.RXChecksumValidated = ipv4.ProtocolNumber, true
	pkt.Hash = Mark(1, train)
	to.HandlePacket(pkt)
	pkt.DecRef()
}

func (l *lab) ipv4() stack.NetworkEndpoint {
	l.Helper()
	to, err := l.proxy.Stack.GetNetworkEndpoint(1, ipv4.ProtocolNumber)
	if err != nil {
		l.Fatal(err)
	}
	return to
}

// TestKnownFlowAllocatesNothing: datagrams of a flow that has its socket go from the
// packet to the socket without garbage, one by one or as a train, and arrive as they were.
func TestKnownFlowAllocatesNothing(t *testing.T) {
	l := newLab(t)
	s, to := l.sink(), l.ipv4()
	p := pt.Packet{Src: netip.MustParseAddr("10.44.0.2"), Dst: s.to.Addr(), SrcPort: 4000, DstPort: s.to.Port()}
	for _, tc := range []struct {
		payload []byte
		train   uint16
		want    int // datagrams
	}{{pt.Bytes(64), 0, 1}, {pt.Bytes(64 * 20), 64, 20}, {pt.Bytes(64*20 + 7), 64, 21}} {
		p.Payload = tc.payload
		frame := pt.UDP4(p)
		l.deliver(to, frame, tc.train)
		got, b := []byte(nil), make([]byte, 1<<16)
		for range tc.want {
			n, err := s.Read(b)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, b[:n]...)
		}
		if !bytes.Equal(got, tc.payload) {
			t.Errorf("%d bytes in trains of %d: got %d others", len(tc.payload), tc.train, len(got))
		}
		if raceEnabled {
			continue // whose pools forget
		}
		if allocs := testing.AllocsPerRun(200, func() { l.deliver(to, frame, tc.train) }); allocs >= 1 {
			t.Errorf("%d bytes in trains of %d: %v allocations", len(tc.payload), tc.train, allocs)
		}
		for end := time.Now().Add(50 * time.Millisecond); time.Now().Before(end); { // what the runs have sent
			if _, errno := receive(fdOf(t, s), b); errno == unix.EAGAIN {
				break
			}
		}
	}
}

func fdOf(t *testing.T, s *sink) (fd int) {
	t.Helper()
	raw, err := s.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(n uintptr) { fd = int(n) })
	return fd
}

// TestFlowsOfASecond: flows that fail at once, and so leave their place to the next, are
// bounded by what a port may begin in a second.
func TestFlowsOfASecond(t *testing.T) {
	l := newLab(t)
	l.errno = unix.ENETUNREACH
	for second := range uint32(2) {
		l.proxy.Tick(second)
		for i := range 10 {
			l.datagram("192.0.2.2:" + strconv.Itoa(int(second)*10+i+1))
		}
		want := 6 * (int(second) + 1)
		l.eventually("flows are refused", func() bool { return l.dropped(trace.UplinkFlows) == want })
	}
}
