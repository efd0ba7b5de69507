// SPDX-License-Identifier: Apache-2.0

package nft

// field is a field of a header: where it begins and how wide it is, in bits.
type field struct {
	name   string
	offset int
	bits   uint16
	typ    Type
}

// header is a header with its fields. Of an extension header or an option,
// number is its number.
type header struct {
	name   string
	base   Base
	number uint8
	fields []field
}

// find is the field of that name.
func (h *header) find(name string) (field, bool) {
	for _, f := range h.fields {
		if f.name == name {
			return f, true
		}
	}
	return field{}, false
}

// headerTable are the headers that a payload expression reads.
var headerTable = map[string]*header{
	"ether": {name: "ether", base: BaseLink, fields: []field{
		{"daddr", 0, 48, TypeEtherAddr},
		{"saddr", 48, 48, TypeEtherAddr},
		{"type", 96, 16, TypeEtherType},
	}},
	"vlan": {name: "vlan", base: BaseLink, fields: []field{
		{"pcp", 112, 3, TypeInteger},
		{"dei", 115, 1, TypeInteger},
		{"cfi", 115, 1, TypeInteger},
		{"id", 116, 12, TypeInteger},
		{"type", 128, 16, TypeEtherType},
	}},
	"arp": {name: "arp", base: BaseNetwork, fields: []field{
		{"htype", 0, 16, TypeInteger},
		{"ptype", 16, 16, TypeEtherType},
		{"hlen", 32, 8, TypeInteger},
		{"plen", 40, 8, TypeInteger},
		{"operation", 48, 16, TypeARPOp},
		{"saddr ether", 64, 48, TypeEtherAddr},
		{"saddr ip", 112, 32, TypeIPv4Addr},
		{"daddr ether", 144, 48, TypeEtherAddr},
		{"daddr ip", 192, 32, TypeIPv4Addr},
	}},
	"ip": {name: "ip", base: BaseNetwork, fields: []field{
		{"version", 0, 4, TypeInteger},
		{"hdrlength", 4, 4, TypeInteger},
		{"dscp", 8, 6, TypeDSCP},
		{"ecn", 14, 2, TypeECN},
		{"length", 16, 16, TypeInteger},
		{"id", 32, 16, TypeInteger},
		{"frag-off", 48, 16, TypeInteger},
		{"ttl", 64, 8, TypeInteger},
		{"protocol", 72, 8, TypeInetProto},
		{"checksum", 80, 16, TypeInteger},
		{"saddr", 96, 32, TypeIPv4Addr},
		{"daddr", 128, 32, TypeIPv4Addr},
	}},
	"ip6": {name: "ip6", base: BaseNetwork, fields: []field{
		{"version", 0, 4, TypeInteger},
		{"dscp", 4, 6, TypeDSCP},
		{"ecn", 10, 2, TypeECN},
		{"flowlabel", 12, 20, TypeInteger},
		{"length", 32, 16, TypeInteger},
		{"nexthdr", 48, 8, TypeInetProto},
		{"hoplimit", 56, 8, TypeInteger},
		{"saddr", 64, 128, TypeIPv6Addr},
		{"daddr", 192, 128, TypeIPv6Addr},
	}},
	"icmp": {name: "icmp", base: BaseTransport, fields: []field{
		{"type", 0, 8, TypeICMPType},
		{"code", 8, 8, TypeICMPCode},
		{"checksum", 16, 16, TypeInteger},
		{"id", 32, 16, TypeInteger},
		{"sequence", 48, 16, TypeInteger},
		{"gateway", 32, 32, TypeInteger},
		{"mtu", 48, 16, TypeInteger},
	}},
	"igmp": {name: "igmp", base: BaseTransport, fields: []field{
		{"type", 0, 8, TypeIGMPType},
		{"mrt", 8, 8, TypeInteger},
		{"checksum", 16, 16, TypeInteger},
		{"group", 32, 32, TypeInteger},
	}},
	"icmpv6": {name: "icmpv6", base: BaseTransport, fields: []field{
		{"type", 0, 8, TypeICMPv6Type},
		{"code", 8, 8, TypeICMPv6Code},
		{"checksum", 16, 16, TypeInteger},
		{"parameter-problem", 32, 32, TypeInteger},
		{"mtu", 32, 32, TypeInteger},
		{"id", 32, 16, TypeInteger},
		{"sequence", 48, 16, TypeInteger},
		{"max-delay", 32, 16, TypeInteger},
	}},
	"tcp": {name: "tcp", base: BaseTransport, fields: []field{
		{"sport", 0, 16, TypeInetService},
		{"dport", 16, 16, TypeInetService},
		{"sequence", 32, 32, TypeInteger},
		{"ackseq", 64, 32, TypeInteger},
		{"doff", 96, 4, TypeInteger},
		{"reserved", 100, 4, TypeInteger},
		{"flags", 104, 8, TypeTCPFlag},
		{"window", 112, 16, TypeInteger},
		{"checksum", 128, 16, TypeInteger},
		{"urgptr", 144, 16, TypeInteger},
	}},
	"udp": {name: "udp", base: BaseTransport, fields: []field{
		{"sport", 0, 16, TypeInetService},
		{"dport", 16, 16, TypeInetService},
		{"length", 32, 16, TypeInteger},
		{"checksum", 48, 16, TypeInteger},
	}},
	"udplite": {name: "udplite", base: BaseTransport, fields: []field{
		{"sport", 0, 16, TypeInetService},
		{"dport", 16, 16, TypeInetService},
		{"csumcov", 32, 16, TypeInteger},
		{"checksum", 48, 16, TypeInteger},
	}},
	"sctp": {name: "sctp", base: BaseTransport, fields: []field{
		{"sport", 0, 16, TypeInetService},
		{"dport", 16, 16, TypeInetService},
		{"vtag", 32, 32, TypeInteger},
		{"checksum", 64, 32, TypeInteger},
	}},
	"dccp": {name: "dccp", base: BaseTransport, fields: []field{
		{"sport", 0, 16, TypeInetService},
		{"dport", 16, 16, TypeInetService},
		{"type", 67, 4, TypeDCCPPktType},
	}},
	"ah": {name: "ah", base: BaseTransport, fields: []field{
		{"nexthdr", 0, 8, TypeInetProto},
		{"hdrlength", 8, 8, TypeInteger},
		{"reserved", 16, 16, TypeInteger},
		{"spi", 32, 32, TypeInteger},
		{"sequence", 64, 32, TypeInteger},
	}},
	"esp": {name: "esp", base: BaseTransport, fields: []field{
		{"spi", 0, 32, TypeInteger},
		{"sequence", 32, 32, TypeInteger},
	}},
	"comp": {name: "comp", base: BaseTransport, fields: []field{
		{"nexthdr", 0, 8, TypeInetProto},
		{"flags", 8, 8, TypeBitmask},
		{"cpi", 16, 16, TypeInteger},
	}},
	"th": {name: "th", base: BaseTransport, fields: []field{
		{"sport", 0, 16, TypeInetService},
		{"dport", 16, 16, TypeInetService},
	}},
}

// extensionTable are the extension headers of IPv6.
var extensionTable = map[string]*header{
	"hbh": {name: "hbh", number: 0, fields: []field{
		{"nexthdr", 0, 8, TypeInetProto},
		{"hdrlength", 8, 8, TypeInteger},
	}},
	"rt": {name: "rt", number: 43, fields: []field{
		{"nexthdr", 0, 8, TypeInetProto},
		{"hdrlength", 8, 8, TypeInteger},
		{"type", 16, 8, TypeInteger},
		{"seg-left", 24, 8, TypeInteger},
	}},
	"rt0": {name: "rt0", number: 43, fields: []field{
		{"addr[1]", 64, 128, TypeIPv6Addr},
	}},
	"rt2": {name: "rt2", number: 43, fields: []field{
		{"addr", 64, 128, TypeIPv6Addr},
	}},
	"srh": {name: "srh", number: 43, fields: []field{
		{"last-entry", 32, 8, TypeInteger},
		{"flags", 40, 8, TypeInteger},
		{"tag", 48, 16, TypeInteger},
		{"sid[1]", 64, 128, TypeIPv6Addr},
	}},
	"frag": {name: "frag", number: 44, fields: []field{
		{"nexthdr", 0, 8, TypeInetProto},
		{"reserved", 8, 8, TypeInteger},
		{"frag-off", 16, 13, TypeInteger},
		{"reserved2", 29, 2, TypeInteger},
		{"more-fragments", 31, 1, TypeInteger},
		{"id", 32, 32, TypeInteger},
	}},
	"dst": {name: "dst", number: 60, fields: []field{
		{"nexthdr", 0, 8, TypeInetProto},
		{"hdrlength", 8, 8, TypeInteger},
	}},
	"mh": {name: "mh", number: 135, fields: []field{
		{"nexthdr", 0, 8, TypeInetProto},
		{"hdrlength", 8, 8, TypeInteger},
		{"type", 16, 8, TypeMHType},
		{"reserved", 24, 8, TypeInteger},
		{"checksum", 32, 16, TypeInteger},
	}},
}

// tcpOptionTable are the options of TCP.
var tcpOptionTable = map[string]*header{
	"eol": {name: "eol", number: 0, fields: []field{
		{"kind", 0, 8, TypeInteger},
	}},
	"nop": {name: "nop", number: 1, fields: []field{
		{"kind", 0, 8, TypeInteger},
	}},
	"maxseg": {name: "maxseg", number: 2, fields: []field{
		{"kind", 0, 8, TypeInteger},
		{"length", 8, 8, TypeInteger},
		{"size", 16, 16, TypeInteger},
	}},
	"window": {name: "window", number: 3, fields: []field{
		{"kind", 0, 8, TypeInteger},
		{"length", 8, 8, TypeInteger},
		{"count", 16, 8, TypeInteger},
	}},
	"sack-perm": {name: "sack-perm", number: 4, fields: []field{
		{"kind", 0, 8, TypeInteger},
		{"length", 8, 8, TypeInteger},
	}},
	"sack": {name: "sack", number: 5, fields: []field{
		{"kind", 0, 8, TypeInteger},
		{"length", 8, 8, TypeInteger},
		{"left", 16, 32, TypeInteger},
		{"right", 48, 32, TypeInteger},
	}},
	"sack0": {name: "sack0", number: 5, fields: []field{
		{"kind", 0, 8, TypeInteger},
		{"length", 8, 8, TypeInteger},
		{"left", 16, 32, TypeInteger},
		{"right", 48, 32, TypeInteger},
	}},
	"sack1": {name: "sack1", number: 5, fields: []field{
		{"kind", 0, 8, TypeInteger},
		{"length", 8, 8, TypeInteger},
		{"left", 80, 32, TypeInteger},
		{"right", 112, 32, TypeInteger},
	}},
	"sack2": {name: "sack2", number: 5, fields: []field{
		{"kind", 0, 8, TypeInteger},
		{"length", 8, 8, TypeInteger},
		{"left", 144, 32, TypeInteger},
		{"right", 176, 32, TypeInteger},
	}},
	"sack3": {name: "sack3", number: 5, fields: []field{
		{"kind", 0, 8, TypeInteger},
		{"length", 8, 8, TypeInteger},
		{"left", 208, 32, TypeInteger},
		{"right", 240, 32, TypeInteger},
	}},
	"timestamp": {name: "timestamp", number: 8, fields: []field{
		{"kind", 0, 8, TypeInteger},
		{"length", 8, 8, TypeInteger},
		{"tsval", 16, 32, TypeInteger},
		{"tsecr", 48, 32, TypeInteger},
	}},
	"md5sig": {name: "md5sig", number: 19, fields: []field{
		{"kind", 0, 8, TypeInteger},
		{"length", 8, 8, TypeInteger},
	}},
	"mptcp": {name: "mptcp", number: 30, fields: []field{
		{"kind", 0, 8, TypeInteger},
		{"length", 8, 8, TypeInteger},
		{"subtype", 16, 4, TypeInteger},
	}},
	"fastopen": {name: "fastopen", number: 34, fields: []field{
		{"kind", 0, 8, TypeInteger},
		{"length", 8, 8, TypeInteger},
	}},
}

// ipOptionTable are the options of IPv4.
var ipOptionTable = map[string]*header{
	"lsrr": {name: "lsrr", number: 131, fields: []field{
		{"type", 0, 8, TypeInteger},
		{"length", 8, 8, TypeInteger},
		{"ptr", 16, 8, TypeInteger},
		{"addr", 24, 32, TypeInteger},
	}},
	"ra": {name: "ra", number: 148, fields: []field{
		{"type", 0, 8, TypeInteger},
		{"length", 8, 8, TypeInteger},
		{"value", 16, 16, TypeInteger},
	}},
	"rr": {name: "rr", number: 7, fields: []field{
		{"type", 0, 8, TypeInteger},
		{"length", 8, 8, TypeInteger},
		{"ptr", 16, 8, TypeInteger},
		{"addr", 24, 32, TypeInteger},
	}},
	"ssrr": {name: "ssrr", number: 137, fields: []field{
		{"type", 0, 8, TypeInteger},
		{"length", 8, 8, TypeInteger},
		{"ptr", 16, 8, TypeInteger},
		{"addr", 24, 32, TypeInteger},
	}},
}
