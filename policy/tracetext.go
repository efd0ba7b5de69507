// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/binary"
	"fmt"
	"strings"

	"sluice/packet"
	"sluice/policy/nft"
)

// TraceText is the event as `nft monitor trace` prints it, without the newline. Of a
// packet it has the headers, and not what nft adds of the bytes behind them.
func TraceText(ev *TraceEvent, o *nft.ListOptions) string {
	var b strings.Builder
	fmt.Fprintf(&b, "trace id %08x %s %s %s ", ev.ID, familyName(ev.Why.Table.Family), ev.Why.Table.Name, ev.Why.Chain.Name)
	switch ev.Kind {
	case TracePacket:
		b.WriteString("packet: ")
		ev.devices(&b)
		ev.headers(&b)
	case TraceRule:
		rule := ""
		if ev.Why.Rule != nil {
			rule = nft.RuleText(ev.Why.Table.Family, ev.Why.Rule, o)
		}
		fmt.Fprintf(&b, "rule %s (verdict %s)", rule, ev.VerdictText())
	case TracePolicy:
		fmt.Fprintf(&b, "policy %s ", ev.VerdictText())
		if ev.Mark != 0 {
			fmt.Fprintf(&b, "meta mark 0x%08x ", ev.Mark)
		}
	}
	return b.String()
}

// familyName is nft's word for a family.
func familyName(f nft.Family) string {
	switch f {
	case nft.FamilyInet:
		return "inet"
	case nft.FamilyIP:
		return "ip"
	case nft.FamilyIP6:
		return "ip6"
	case nft.FamilyARP:
		return "arp"
	case nft.FamilyBridge:
		return "bridge"
	case nft.FamilyNetdev:
		return "netdev"
	case nft.FamilyNone:
	}
	return "unknown"
}

// VerdictText is the verdict as nft has it.
func (ev *TraceEvent) VerdictText() string {
	switch ev.Verdict {
	case nft.Accept:
		return "accept"
	case nft.Drop:
		return "drop"
	case nft.Continue:
		return "continue"
	case nft.Return:
		return "return"
	case nft.Jump:
		return "jump " + ev.Target
	case nft.Goto:
		return "goto " + ev.Target
	case nft.QueueVerdict:
		return "queue"
	}
	return "unknown"
}

func (ev *TraceEvent) devices(b *strings.Builder) {
	if ev.In != nil {
		fmt.Fprintf(b, "iif %q ", ev.In)
	}
	if ev.Out != nil {
		fmt.Fprintf(b, "oif %q ", ev.Out)
	}
}

// headers are those of the packet, as far as they are within what was kept of it.
func (ev *TraceEvent) headers(b *strings.Builder) {
	v, f := &ev.View, ev.Frame
	if len(f) >= packet.EthernetLen && ev.In != nil {
		fmt.Fprintf(b, "ether saddr %v ether daddr %v ", packet.MAC(f[6:12]), packet.MAC(f[0:6]))
	}
	if vid := v.VID(); vid != 0 {
		fmt.Fprintf(b, "vlan id %d ", vid)
	}
	switch {
	case v.Is(packet.ViewIPv4) && len(f) >= v.L3+packet.IPv4MinLen:
		ev.ip4(b, f[v.L3:])
	case v.Is(packet.ViewIPv6) && len(f) >= v.L3+packet.IPv6Len:
		ev.ip6(b, f[v.L3:])
	default:
		return
	}
	if v.Is(packet.ViewHasL4) && len(f) >= v.L4+packet.UDPLen {
		transport(b, v, f[v.L4:])
	}
}

func (ev *TraceEvent) ip4(b *strings.Builder, h []byte) {
	src := addrText(h[12:16])
	dst := addrText(h[16:20])
	fmt.Fprintf(b, "ip saddr %s ip daddr %s ip dscp %s ip ecn %s ip ttl %d ip id %d ", src, dst,
		dscpName(h[1]>>2), ecnName(h[1]&3), h[8], binary.BigEndian.Uint16(h[4:]))
	if ev.Why.Table.Family != nft.FamilyIP || !ev.View.Is(packet.ViewHasL4) { // else what follows says it
		fmt.Fprintf(b, "ip protocol %s ", protoName(h[9]))
	}
	fmt.Fprintf(b, "ip length %d ", binary.BigEndian.Uint16(h[2:]))
}

func (ev *TraceEvent) ip6(b *strings.Builder, h []byte) {
	src := addrText(h[8:24])
	dst := addrText(h[24:40])
	first := binary.BigEndian.Uint32(h)
	fmt.Fprintf(b, "ip6 saddr %s ip6 daddr %s ip6 dscp %s ip6 ecn %s ip6 hoplimit %d ip6 flowlabel %d ", src, dst,
		dscpName(uint8(first>>22&0x3f)), ecnName(uint8(first>>20&3)), h[7], first&0xfffff)
	if ev.Why.Table.Family != nft.FamilyIP6 || !ev.View.Is(packet.ViewHasL4) {
		fmt.Fprintf(b, "ip6 nexthdr %s ", protoName(h[6]))
	}
	fmt.Fprintf(b, "ip6 length %d ", binary.BigEndian.Uint16(h[4:]))
}

// addrText is the address in bytes, as text.
func addrText(b []byte) string { return addrOf(number(b), len(b) == 16).String() }

func transport(b *strings.Builder, v *packet.View, h []byte) {
	be := binary.BigEndian
	switch v.Proto {
	case packet.ProtoTCP:
		fmt.Fprintf(b, "tcp sport %d tcp dport %d ", v.SrcPort, v.DstPort)
		if len(h) >= packet.TCPMinLen {
			fmt.Fprintf(b, "tcp flags == %s tcp window %d ", tcpFlags(h[13]), be.Uint16(h[14:]))
		}
	case packet.ProtoUDP:
		fmt.Fprintf(b, "udp sport %d udp dport %d udp length %d ", v.SrcPort, v.DstPort, be.Uint16(h[4:]))
	case packet.ProtoSCTP:
		fmt.Fprintf(b, "sctp sport %d sctp dport %d sctp vtag %d ", v.SrcPort, v.DstPort, be.Uint32(h[4:]))
	case packet.ProtoICMP:
		fmt.Fprintf(b, "icmp type %d icmp code %d icmp id %d icmp sequence %d ", h[0], h[1], be.Uint16(h[4:]), be.Uint16(h[6:]))
	case packet.ProtoICMPv6:
		fmt.Fprintf(b, "icmpv6 type %d icmpv6 code %d icmpv6 id %d icmpv6 sequence %d ", h[0], h[1], be.Uint16(h[4:]), be.Uint16(h[6:]))
	}
}

// tcpFlags is a single flag by its name, and several as a number, as nft has it.
func tcpFlags(x byte) string {
	for i, name := range []string{"fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr"} {
		if x == 1<<i {
			return name
		}
	}
	return fmt.Sprintf("0x%x", x)
}

func ecnName(x uint8) string {
	return [...]string{"not-ect", "ect1", "ect0", "ce"}[x&3] //nolint:misspell // RFC 3168 calls it so
}

func dscpName(x uint8) string {
	switch {
	case x&7 == 0:
		return fmt.Sprintf("cs%d", x>>3)
	case x == 46:
		return "ef"
	case x&1 == 0 && x>>3 >= 1 && x>>3 <= 4:
		return fmt.Sprintf("af%d%d", x>>3, x>>1&3)
	}
	return fmt.Sprintf("0x%02x", x)
}

func protoName(x uint8) string {
	switch x {
	case packet.ProtoICMP:
		return "icmp"
	case packet.ProtoTCP:
		return "tcp"
	case packet.ProtoUDP:
		return "udp"
	case packet.ProtoICMPv6:
		return "ipv6-icmp"
	case packet.ProtoSCTP:
		return "sctp"
	case packet.ProtoESP:
		return "esp"
	case packet.ProtoAH:
		return "ah"
	}
	return fmt.Sprint(x)
}
