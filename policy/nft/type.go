// SPDX-License-Identifier: Apache-2.0

package nft

// Type is a data type of nft: what values of an expression mean and how they
// are written.
type Type uint8

// The types, by the names that a set is declared with.
const (
	TypeInvalid     Type = iota
	TypeVerdict          // verdict
	TypeNFProto          // nf_proto
	TypeBitmask          // bitmask
	TypeInteger          // integer
	TypeString           // string
	TypeLLAddr           // ll_addr
	TypeIPv4Addr         // ipv4_addr
	TypeIPv6Addr         // ipv6_addr
	TypeEtherAddr        // ether_addr
	TypeEtherType        // ether_type
	TypeARPOp            // arp_op
	TypeInetProto        // inet_proto
	TypeInetService      // inet_service
	TypeICMPType         // icmp_type
	TypeTCPFlag          // tcp_flag
	TypeDCCPPktType      // dccp_pkttype
	TypeMHType           // mh_type
	TypeTime             // time
	TypeMark             // mark
	TypeIfIndex          // iface_index
	TypeARPHrd           // iface_type
	TypeRealm            // realm
	TypeClassID          // classid
	TypeUID              // uid
	TypeGID              // gid
	TypeCTState          // ct_state
	TypeCTDir            // ct_dir
	TypeCTStatus         // ct_status
	TypeICMPv6Type       // icmpv6_type
	TypeCTLabel          // ct_label
	TypePktType          // pkt_type
	TypeICMPCode         // icmp_code
	TypeICMPv6Code       // icmpv6_code
	TypeICMPXCode        // icmpx_code
	TypeDevGroup         // devgroup
	TypeDSCP             // dscp
	TypeECN              // ecn
	TypeFIBAddr          // fib_addrtype
	TypeBoolean          // boolean
	TypeCTEvent          // ct_event
	TypeIfName           // ifname
	TypeIGMPType         // igmp_type
	TypeTimeDate         // time (of day 1 January 1970, seconds)
	TypeTimeHour         // hour
	TypeTimeDay          // day
	TypeCgroupV2         // cgroupsv2
	numTypes
)

// typeInfo is what there is to know of a type besides its symbols.
type typeInfo struct {
	name string
	desc string // for errors
	bits uint16 // of a set of it; 0: it can't be one
	host bool   // in the machine's byte order in the kernel
	hex  int    // digits of a number in hexadecimal; 0 decimal, -1 as many as it takes
	flag bool   // a bit mask
}

var typeInfoTable = [numTypes]typeInfo{
	TypeInvalid:     {name: "invalid", desc: "invalid"},
	TypeVerdict:     {name: "verdict", desc: "netfilter verdict"},
	TypeNFProto:     {name: "nf_proto", desc: "netfilter protocol", bits: 8},
	TypeBitmask:     {name: "bitmask", desc: "bitmask", hex: -1},
	TypeInteger:     {name: "integer", desc: "integer"},
	TypeString:      {name: "string", desc: "string", host: true},
	TypeLLAddr:      {name: "ll_addr", desc: "link layer address"},
	TypeIPv4Addr:    {name: "ipv4_addr", desc: "IPv4 address", bits: 32},
	TypeIPv6Addr:    {name: "ipv6_addr", desc: "IPv6 address", bits: 128},
	TypeEtherAddr:   {name: "ether_addr", desc: "Ethernet address", bits: 48},
	TypeEtherType:   {name: "ether_type", desc: "Ethernet protocol", bits: 16, hex: 4},
	TypeARPOp:       {name: "arp_op", desc: "ARP operation", bits: 16},
	TypeInetProto:   {name: "inet_proto", desc: "Internet protocol", bits: 8},
	TypeInetService: {name: "inet_service", desc: "internet network service", bits: 16},
	TypeICMPType:    {name: "icmp_type", desc: "ICMP type", bits: 8},
	TypeTCPFlag:     {name: "tcp_flag", desc: "TCP flag", bits: 8, hex: -1, flag: true},
	TypeDCCPPktType: {name: "dccp_pkttype", desc: "DCCP packet type", bits: 4},
	TypeMHType:      {name: "mh_type", desc: "Mobility Header Type", bits: 8},
	TypeTime:        {name: "time", desc: "relative time", bits: 64, host: true},
	TypeMark:        {name: "mark", desc: "packet mark", bits: 32, host: true, hex: 8},
	TypeIfIndex:     {name: "iface_index", desc: "network interface index", bits: 32, host: true},
	TypeARPHrd:      {name: "iface_type", desc: "network interface type", bits: 16, host: true},
	TypeRealm:       {name: "realm", desc: "routing realm", bits: 32, host: true},
	TypeClassID:     {name: "classid", desc: "TC classid", bits: 32, host: true},
	TypeUID:         {name: "uid", desc: "user ID", bits: 32, host: true},
	TypeGID:         {name: "gid", desc: "group ID", bits: 32, host: true},
	TypeCTState:     {name: "ct_state", desc: "conntrack state", bits: 32, host: true, hex: -1, flag: true},
	TypeCTDir:       {name: "ct_dir", desc: "conntrack direction", bits: 8},
	TypeCTStatus:    {name: "ct_status", desc: "conntrack status", bits: 32, host: true, hex: -1, flag: true},
	TypeICMPv6Type:  {name: "icmpv6_type", desc: "ICMPv6 type", bits: 8},
	TypeCTLabel:     {name: "ct_label", desc: "conntrack label", bits: 128, host: true, hex: -1, flag: true},
	TypePktType:     {name: "pkt_type", desc: "packet type", bits: 8},
	TypeICMPCode:    {name: "icmp_code", desc: "icmp code", bits: 8},
	TypeICMPv6Code:  {name: "icmpv6_code", desc: "icmpv6 code", bits: 8},
	TypeICMPXCode:   {name: "icmpx_code", desc: "icmpx code", bits: 8},
	TypeDevGroup:    {name: "devgroup", desc: "devgroup name", bits: 32, host: true},
	TypeDSCP:        {name: "dscp", desc: "Differentiated Services Code Point", bits: 6, hex: 2},
	TypeECN:         {name: "ecn", desc: "Explicit Congestion Notification", bits: 2, hex: -1},
	TypeFIBAddr:     {name: "fib_addrtype", desc: "fib address type", bits: 32, host: true},
	TypeBoolean:     {name: "boolean", desc: "boolean type", bits: 8},
	TypeCTEvent:     {name: "ct_event", desc: "conntrack event bits", bits: 32, host: true, hex: -1, flag: true},
	TypeIfName:      {name: "ifname", desc: "network interface name", bits: 128, host: true},
	TypeIGMPType:    {name: "igmp_type", desc: "IGMP type", bits: 8},
	TypeTimeDate:    {name: "time", desc: "Relative time of packet reception", bits: 64, host: true},
	TypeTimeHour:    {name: "hour", desc: "Hour of day of packet reception", bits: 32, host: true},
	TypeTimeDay:     {name: "day", desc: "Day of week of packet reception", bits: 8},
	TypeCgroupV2:    {name: "cgroupsv2", desc: "cgroupsv2 path", bits: 64, host: true},
}

// String is the name that a set of the type is declared with.
func (t Type) String() string { return typeInfoTable[t].name }

func (t Type) info() *typeInfo { return &typeInfoTable[t] }

// stringy says that values are text and not numbers.
func (t Type) stringy() bool { return t == TypeString || t == TypeIfName }

// typeNamed finds a type that a set can be declared with.
func typeNamed(name string) (Spec, bool) {
	for t := range typeInfoTable {
		info := &typeInfoTable[t]
		if info.name == name && (info.bits > 0 || Type(t) == TypeVerdict) {
			return Spec{Type: Type(t), Bits: info.bits, Host: info.host}, true
		}
	}
	return Spec{}, false
}
