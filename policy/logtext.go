// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"sluice/packet"
	"sluice/policy/nft"
)

// LogLine is a packet that a log statement has seen. It refers to nothing that lasts no
// longer than the packet.
type LogLine struct {
	Log     *nft.Log
	In, Out *Device
	Mark    uint32
	View    packet.View
	Frame   []byte // the first LogBytes of it at most
}

// LogBytes is how much of a frame a line tells of: all headers, and those that an ICMP
// error quotes.
const LogBytes = 192

// The flags of a log statement: NF_LOG_* of Linux.
const (
	logTCPSeq    = 1
	logTCPOption = 2
	logIPOption  = 4
	logMACs      = 32
)

// Text is the line as the kernel writes it (nf_log_syslog), without its level.
func (l *LogLine) Text() string {
	w := logWriter{l: l}
	fmt.Fprintf(&w, "%sIN=%s OUT=%s ", l.Log.Prefix, l.In, l.Out)
	if l.In != nil && (!l.View.Is(packet.ViewARP) || w.has(logMACs)) {
		w.macs()
	}
	switch f := l.Frame; {
	case l.View.Is(packet.ViewARP):
		w.arp(f[min(l.View.L3, len(f)):])
	case l.View.Is(packet.ViewIPv4):
		w.ip4(f[min(l.View.L3, len(f)):], false)
	case l.View.Is(packet.ViewIPv6):
		w.ip6(f[min(l.View.L3, len(f)):], l.View.L4-l.View.L3, l.View.Proto)
	default:
		fmt.Fprintf(&w, "MACPROTO=%04x ", l.View.EtherType)
	}
	return strings.TrimRight(w.String(), " ")
}

// logWriter writes one.
type logWriter struct {
	strings.Builder
	l *LogLine
}

func (w *logWriter) has(flag uint32) bool { return w.l.Log.Flags&flag != 0 }

func (w *logWriter) macs() {
	f := w.l.Frame
	if len(f) < packet.EthernetLen {
		return
	}
	if w.has(logMACs) {
		fmt.Fprintf(w, "MACSRC=%v MACDST=%v MACPROTO=%04x ", packet.MAC(f[6:12]), packet.MAC(f[:6]), w.l.View.EtherType)
		return
	}
	fmt.Fprintf(w, "MAC=%v:%v:%02x:%02x ", packet.MAC(f[:6]), packet.MAC(f[6:12]), w.l.View.EtherType>>8, w.l.View.EtherType&0xff)
}

// arp writes a message of ARP.
func (w *logWriter) arp(h []byte) {
	if len(h) < packet.ARPLen {
		w.WriteString("TRUNCATED")
		return
	}
	be := binary.BigEndian
	fmt.Fprintf(w, "ARP HTYPE=%d PTYPE=0x%04x OPCODE=%d MACSRC=%v IPSRC=%s MACDST=%v IPDST=%s", be.Uint16(h), be.Uint16(h[2:]), be.Uint16(h[6:]),
		packet.MAC(h[8:14]), addrText(h[14:18]), packet.MAC(h[18:24]), addrText(h[24:28]))
}

// options writes bytes in hexadecimal.
func (w *logWriter) options(flag uint32, b []byte) {
	if w.has(flag) && len(b) > 0 {
		fmt.Fprintf(w, "OPT (%X) ", b)
	}
}

// ip4 writes an IPv4 packet; quoted says that it is in an ICMP error.
func (w *logWriter) ip4(h []byte, quoted bool) {
	if len(h) < packet.IPv4MinLen {
		w.WriteString("TRUNCATED")
		return
	}
	be := binary.BigEndian
	fmt.Fprintf(w, "SRC=%s DST=%s LEN=%d TOS=0x%02X PREC=0x%02X TTL=%d ID=%d ", addrText(h[12:16]), addrText(h[16:20]),
		be.Uint16(h[2:]), h[1]&0x1e, h[1]&0xe0, h[8], be.Uint16(h[4:]))
	frag := be.Uint16(h[6:])
	for i, name := range []string{"CE ", "DF ", "MF "} {
		if frag&(0x8000>>i) != 0 {
			w.WriteString(name)
		}
	}
	if frag&0x1fff != 0 {
		fmt.Fprintf(w, "FRAG:%d ", frag&0x1fff)
	}
	size := min(max(int(h[0]&15)*4, packet.IPv4MinLen), len(h))
	w.options(logIPOption, h[packet.IPv4MinLen:size])
	w.transport(h[9], h[size:], frag&0x1fff != 0, quoted)
}

// ip6 writes an IPv6 packet, whose upper-layer header is at that offset.
func (w *logWriter) ip6(h []byte, upper int, proto uint8) {
	if len(h) < packet.IPv6Len {
		w.WriteString("TRUNCATED")
		return
	}
	first := binary.BigEndian.Uint32(h)
	fmt.Fprintf(w, "SRC=%s DST=%s LEN=%d TC=%d HOPLIMIT=%d FLOWLBL=%d ", whole(h[8:24]), whole(h[24:40]),
		int(binary.BigEndian.Uint16(h[4:]))+packet.IPv6Len, first>>20&0xff, h[7], first&0xfffff)
	if w.l.View.Is(packet.ViewFrag) {
		w.WriteString("FRAG ")
	}
	upper = min(max(upper, packet.IPv6Len), len(h))
	w.options(logIPOption, h[packet.IPv6Len:upper])
	w.transport(proto, h[upper:], w.l.View.Is(packet.ViewFragLater), false)
}

// whole is an IPv6 address with all its digits.
func whole(b []byte) string { return netip.AddrFrom16([16]byte(b)).StringExpanded() }

// transport writes what is behind the IP header; later says that this is a fragment
// without one.
func (w *logWriter) transport(proto uint8, h []byte, later, quoted bool) {
	name := map[uint8]string{
		packet.ProtoTCP: "TCP", packet.ProtoUDP: "UDP", packet.ProtoICMP: "ICMP", packet.ProtoICMPv6: "ICMPv6",
		packet.ProtoAH: "AH", packet.ProtoESP: "ESP", 136: "UDPLITE",
	}[proto]
	if name == "" {
		name = fmt.Sprint(proto)
	}
	fmt.Fprintf(w, "PROTO=%s ", name)
	if !later {
		w.upper(proto, h, quoted)
	}
	if w.l.Mark != 0 && !quoted {
		fmt.Fprintf(w, "MARK=0x%x ", w.l.Mark)
	}
}

func (w *logWriter) upper(proto uint8, h []byte, quoted bool) {
	be := binary.BigEndian
	enough := func(n int) bool {
		if len(h) < n {
			fmt.Fprintf(w, "INCOMPLETE [%d bytes] ", len(h))
		}
		return len(h) >= n
	}
	switch proto {
	case packet.ProtoTCP:
		if enough(packet.TCPMinLen) {
			w.tcp(h)
		}
	case packet.ProtoUDP, 136:
		if enough(packet.UDPLen) {
			fmt.Fprintf(w, "SPT=%d DPT=%d LEN=%d ", be.Uint16(h), be.Uint16(h[2:]), be.Uint16(h[4:]))
		}
	case packet.ProtoICMP, packet.ProtoICMPv6:
		if enough(8) {
			w.icmp(proto, h, quoted)
		}
	case packet.ProtoAH:
		if enough(12) {
			fmt.Fprintf(w, "SPI=0x%x ", be.Uint32(h[4:]))
		}
	case packet.ProtoESP:
		if enough(8) {
			fmt.Fprintf(w, "SPI=0x%x ", be.Uint32(h))
		}
	}
}

func (w *logWriter) tcp(h []byte) {
	be := binary.BigEndian
	fmt.Fprintf(w, "SPT=%d DPT=%d ", be.Uint16(h), be.Uint16(h[2:]))
	if w.has(logTCPSeq) {
		fmt.Fprintf(w, "SEQ=%d ACK=%d ", be.Uint32(h[4:]), be.Uint32(h[8:]))
	}
	fmt.Fprintf(w, "WINDOW=%d RES=0x%02x ", be.Uint16(h[14:]), h[12]&0x0f<<2)
	for i, name := range []string{"CWR", "ECE", "URG", "ACK", "PSH", "RST", "SYN", "FIN"} {
		if h[13]&(0x80>>i) != 0 {
			w.WriteString(name + " ")
		}
	}
	fmt.Fprintf(w, "URGP=%d ", be.Uint16(h[18:]))
	if size := min(int(h[12]>>4)*4, len(h)); size > packet.TCPMinLen {
		w.options(logTCPOption, h[packet.TCPMinLen:size])
	}
}

func (w *logWriter) icmp(proto uint8, h []byte, quoted bool) {
	be := binary.BigEndian
	fmt.Fprintf(w, "TYPE=%d CODE=%d ", h[0], h[1])
	if proto == packet.ProtoICMPv6 {
		switch h[0] {
		case 128, 129:
			fmt.Fprintf(w, "ID=%d SEQ=%d ", be.Uint16(h[4:]), be.Uint16(h[6:]))
		case 2:
			fmt.Fprintf(w, "MTU=%d ", be.Uint32(h[4:]))
		}
		return
	}
	switch h[0] {
	case 0, 8:
		fmt.Fprintf(w, "ID=%d SEQ=%d ", be.Uint16(h[4:]), be.Uint16(h[6:]))
	case 5:
		fmt.Fprintf(w, "GATEWAY=%s ", addrText(h[4:8]))
	}
	if (h[0] == 3 || h[0] == 4 || h[0] == 5 || h[0] == 11) && !quoted {
		w.WriteString("[")
		w.ip4(h[8:], true)
		w.WriteString("] ")
		if h[0] == 3 && h[1] == 4 {
			fmt.Fprintf(w, "MTU=%d ", be.Uint16(h[6:]))
		}
	}
}
