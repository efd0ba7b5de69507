// SPDX-License-Identifier: Apache-2.0

package router

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"

	"sluice/packet"
	pt "sluice/packet/packettest"
	"sluice/trace"
)

// recorder is a Sink that writes down what it gets, and answers for everybody who
// is asked for, when it is told to.
type recorder struct {
	r      *Router
	events []string // with all bytes
	said   []string // in short
	asked  [][]byte
	devs   []uint16
}

// answering is who answers for all on the link that is no gateway.
func answering(dev uint16) packet.MAC { return packet.MAC{2, 0, 0, 0xaa, 0, byte(dev)} }

func (s *recorder) Emit(dev uint16, vnet packet.Vnet, label packet.Label, b []byte) {
	f := pt.Frame(b)
	said := fmt.Sprintf("%d %v: %s", dev, f.DstMAC(), short(b))
	if label != (packet.Label{}) {
		said += fmt.Sprintf(" mark %d priority %#x", label.Mark, label.Priority)
	}
	s.said = append(s.said, said)
	if f.View.Is(packet.ViewARP) || f.View.IsND() && f.View.SrcPort>>8 == packet.NDNeighbourSol {
		s.asked, s.devs = append(s.asked, slices.Clone(b)), append(s.devs, dev)
		return
	}
	if vnet != (packet.Vnet{}) {
		s.events = append(s.events, fmt.Sprint("vnet ", vnet))
	}
	s.events = append(s.events, event(dev, b, answering(dev)))
}

func (s *recorder) Local(dev uint16, _ packet.Vnet, b []byte) {
	s.said = append(s.said, fmt.Sprintf("local %d: %s", dev, short(b)))
	s.events = append(s.events, "local "+event(dev, b, packet.MAC{}))
}

func (s *recorder) Say(uint16, Hooks, []byte) bool { return false }

func (s *recorder) Drop(port uint16, r trace.Reason, n int) {
	lost := fmt.Sprintf("lost %d of %d: %v", n, port, r)
	s.said, s.events = append(s.said, lost), append(s.events, lost)
}

// take returns what was said since.
func (s *recorder) take() []string {
	said := s.said
	s.said, s.events = nil, nil
	return said
}

// answer answers what was asked, which makes the router send what waits for it.
func (s *recorder) answer() {
	for len(s.asked) > 0 {
		f, dev := pt.Frame(s.asked[0]), s.devs[0]
		s.asked, s.devs = s.asked[1:], s.devs[1:]
		b := packet.ARPReply(nil, f, answering(dev))
		b = packet.NeighbourAdvert(b, f, answering(dev), false)
		s.r.Hear(dev, pt.Frame(b), 1, s)
	}
}

// short is a frame in a line, with its hop limit, and of an ICMP error what it says
// beyond its code.
func short(b []byte) string {
	f := pt.Frame(b)
	v, s := &f.View, pt.Describe(b)
	if v.Is(packet.ViewIP) {
		s += fmt.Sprintf(" ttl %d", f.HopLimit())
	}
	if fr, ok := v.Fragment(b); ok {
		s += fmt.Sprintf(" fragment %d+%d", fr.Offset, fr.Len)
	}
	if v.Is(packet.ViewHasL4) && (v.Proto == packet.ProtoICMP || v.Proto == packet.ProtoICMPv6) {
		if info := binary.BigEndian.Uint32(b[v.L4+4:]); info != 0 {
			s += fmt.Sprintf(" info %#x", info)
		}
	}
	return s
}

// event is a frame that left: by which device, to whom (a gateway's number, or
// somebody on the link), and the packet without what is anybody's choice.
func event(dev uint16, b []byte, somebody packet.MAC) string {
	f := pt.Frame(b)
	to := f.DstMAC().String()
	if f.DstMAC() == somebody {
		to = "somebody"
	}
	p := slices.Clone(b[f.View.L3:f.View.End])
	if f.View.Is(packet.ViewIPv4) {
		if f.View.Proto == packet.ProtoICMP && p[1]&0xc0 == 0xc0 { // ours to choose: identification
			copy(p[4:6], "\x00\x00")
			copy(p[10:12], "\x00\x00")
		}
	} else {
		p[1] &= 0xf0 // flow label
		copy(p[2:4], "\x00\x00")
	}
	if f.View.Proto == packet.ProtoICMPv6 && len(p) > 80 && p[40] == packet.NDRedirect {
		p = p[:80] // what follows tells the MAC, which is not the same
		copy(p[4:6], "\x00\x00")
		copy(p[42:44], "\x00\x00")
	}
	return fmt.Sprintf("dev %d to %s: %s\n%s", dev, to, pt.Describe(b), hex.Dump(p[:min(len(p), 128)]))
}
