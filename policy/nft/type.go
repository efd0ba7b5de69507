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
