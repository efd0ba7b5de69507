// SPDX-License-Identifier: Apache-2.0

package trace

// Reason is why a frame was dropped. Its number is the place of its counter in
// the shared file, so a new reason is added at the end and none is ever
// renumbered. Zero is None: the frame was not dropped.
type Reason uint8

// The reasons, in the order in which a frame can meet them. The second column
// of reasonTable says what each means to an operator.
const (
	None Reason = iota
	MalformedEthernet
	MalformedVLAN
	MalformedARP
	MalformedIPv4
	MalformedIPv6
	MalformedExtHdr
	MalformedL4
	BadOffload
	Truncated
	SourceMulticast
	SourceOwnMAC
	ReservedMulticast
	SamePort
	NoPort
	TooBig
	TxFull
	TxNoBuffer
	TxDown
	TxError
	NotSegmentable
	LocalFull
	LocalChecksum
	NoNamespace
	PortRemoved
	RxOverrun
	LocalProtocol
	OutputBudget
	LocalRate
	LocalQuota
	LocalSocket
	VLANIngress
	VLANEgress
	Isolated
	FloodOff
	Storm
	Locked
	BPDU
	NoMember
	MalformedGroup
	Suppressed
	GuardMAC
	GuardIP
	GuardARP
	GuardND
	GuardRA
	GuardDHCP
	GuardDHCP6
	GuardQuery
	FragOverlap
	FragLimit
	FragMalformed
	NeighFull
	NeighQueue
	NeighFailed
	NoRoute
	Blackhole
	Unreachable
	Prohibit
	MartianSource
	MartianDestination
	ReversePath
	LinkScope
	TTLExceeded
	NoForward
	FragNeeded
	SourceRoute
	MalformedOption
	IPChecksum
	ConfMalformed
	ConfRefused
	LinkLoop
	CTFull
	CTQuota
	CTChain
	CTClash
	CTInvalid
	NATExhausted
	NATAddress
	NATBackend
	NATUntranslatable
	UplinkConns
	UplinkDials
	UplinkFlows
	UplinkFull
	UplinkDown
	QdiscFull
	QdiscMemory
	QdiscAQM
	QdiscTooBig
	QdiscLoss
	QdiscPoliced
	QdiscFiltered
	QdiscUnclassified
	QdiscHorizon
	QdiscRemoved
	NFTDrop
	NFTReject
	NFTFault

	numReasons // one past the last
)

// NumReasons is the number of reasons, None included: the length of a table
// that is indexed by Reason.
const NumReasons = int(numReasons)

// reasonText is one reason in words.
type reasonText struct{ name, help string }

// reasonTable is constant; an array so that a missing row is an empty name,
// which a test refuses.
var reasonTable = [NumReasons]reasonText{
	None:               {"none", "not dropped"},
	MalformedEthernet:  {"malformed_ethernet", "shorter than an Ethernet header"},
	MalformedVLAN:      {"malformed_vlan", "VLAN tag cut short, or more than two tags"},
	MalformedARP:       {"malformed_arp", "ARP packet cut short or with impossible lengths (RFC 826)"},
	MalformedIPv4:      {"malformed_ipv4", "IPv4 header cut short or contradicting the frame's length (RFC 791)"},
	MalformedIPv6:      {"malformed_ipv6", "IPv6 header cut short or contradicting the frame's length (RFC 8200)"},
	MalformedExtHdr:    {"malformed_ext_hdr", "IPv6 extension header cut short, or too many of them (RFC 8200 section 4)"},
	MalformedL4:        {"malformed_l4", "TCP, UDP, SCTP or ICMP header cut short or with impossible lengths"},
	BadOffload:         {"bad_offload", "virtio-net header contradicts the frame (checksum place or segment size), or asks for too many segments"},
	Truncated:          {"truncated", "larger than a receive buffer"},
	SourceMulticast:    {"source_multicast", "source MAC is a group address or zero"},
	SourceOwnMAC:       {"source_own_mac", "source MAC is the bridge's own, in any VLAN, but came from another port"},
	ReservedMulticast:  {"reserved_multicast", "sent to 01-80-C2-00-00-0X, which a bridge never forwards (802.1D section 7.12.6)"},
	SamePort:           {"same_port", "destination is behind the port it came from"},
	NoPort:             {"no_port", "to be flooded, but there is no other port"},
	TooBig:             {"too_big", "larger than the MTU of an output port; counted at the input port, once for each such output port (at the output port if its kernel says so)"},
	TxFull:             {"tx_full", "send buffer of the output port is full (EAGAIN)"},
	TxNoBuffer:         {"tx_no_buffer", "kernel had no buffer for the output port (ENOBUFS)"},
	TxDown:             {"tx_down", "output port is down or gone (ENETDOWN, ENXIO)"},
	TxError:            {"tx_error", "output port refused the frame with another error"},
	NotSegmentable:     {"not_segmentable", "offload frame for a port without offloads, of a kind that cannot be segmented"},
	LocalFull:          {"local_full", "the namespace's host stack sent more than its worker had taken up; counted at the local port"},
	LocalChecksum:      {"local_checksum", "wrong checksum in a frame for the namespace's host stack"},
	NoNamespace:        {"no_namespace", "port belongs to no namespace"},
	PortRemoved:        {"port_removed", "input or output port was removed while the frame was on its way"},
	RxOverrun:          {"rx_overrun", "kernel dropped it before it was read, receive buffer full (PACKET_STATISTICS)"},
	LocalProtocol:      {"local_protocol", "for the namespace's host stack, which takes only ARP and IP without a VLAN"},
	OutputBudget:       {"output_budget", "one turn of the input port made more work than it may (segments and bytes, times output ports)"},
	LocalRate:          {"local_rate", "input port sent more to the namespace's host stack than its rate allows"},
	LocalQuota:         {"local_quota", "input port has its share of the host stack's TCP connections: a new one was refused"},
	LocalSocket:        {"local_socket", "the host stack's UDP socket has too many datagrams that nobody has read"},
	VLANIngress:        {"vlan_ingress", "the input port takes no frame of that VLAN, or none without a tag"},
	VLANEgress:         {"vlan_egress", "no output port is in the frame's VLAN, or a third tag would be needed"},
	Isolated:           {"isolated", "input and output port are both isolated"},
	FloodOff:           {"flood_off", "to be flooded, but no other port takes floods of that kind"},
	Storm:              {"storm", "beyond the input port's limit for broadcast, multicast or unknown unicast"},
	Locked:             {"locked", "source MAC is not one that the locked input port was given"},
	BPDU:               {"bpdu", "spanning tree message from a port that must not send any"},
	NoMember:           {"no_member", "multicast of a group that nobody has joined, IGMP and MLD snooping"},
	MalformedGroup:     {"malformed_group", "IGMP or MLD message cut short, with a wrong checksum or a wrong address"},
	Suppressed:         {"suppressed", "ARP request or neighbour solicitation that the bridge answered itself"},
	GuardMAC:           {"guard_mac", "source MAC is not the container's"},
	GuardIP:            {"guard_ip", "source address is not the container's"},
	GuardARP:           {"guard_arp", "ARP sender is not the container, or it probes for another's address"},
	GuardND:            {"guard_nd", "neighbour discovery speaks for another's address or MAC, redirects, or is fragmented"},
	GuardRA:            {"guard_ra", "router advertisement of a container"},
	GuardDHCP:          {"guard_dhcp", "DHCP server's message of a container"},
	GuardDHCP6:         {"guard_dhcp6", "DHCPv6 server's message of a container"},
	GuardQuery:         {"guard_query", "IGMP or MLD query, PIM or multicast router advertisement of a container"},
	FragOverlap:        {"frag_overlap", "fragment overlaps or repeats another of its datagram, or contradicts its length (RFC 5722)"},
	FragLimit:          {"frag_limit", "fragment beyond what may wait for the first of its datagram, or that waited in vain"},
	FragMalformed:      {"frag_malformed", "fragment of an impossible length"},
	NeighFull:          {"neigh_full", "no room for another neighbour, or the input port waits for as many as it may"},
	NeighQueue:         {"neigh_queue", "gave way to newer packets while its next hop was being resolved"},
	NeighFailed:        {"neigh_failed", "its next hop did not answer ARP or neighbour discovery"},
	NoRoute:            {"no_route", "no rule and no table has a way to the destination (network unreachable), or an unreachable rule"},
	Blackhole:          {"blackhole", "a blackhole route or rule"},
	Unreachable:        {"unreachable", "an unreachable route"},
	Prohibit:           {"prohibit", "a prohibit route or rule"},
	MartianSource:      {"martian_source", "source address that no host can have there (RFC 1812 section 5.3.7), or an own one"},
	MartianDestination: {"martian_destination", "destination address that no packet on a link can have (RFC 1812 section 5.3.7)"},
	ReversePath:        {"rp_filter", "the route back to the source leads elsewhere (RFC 3704), or there is none"},
	LinkScope:          {"link_scope", "link-local address in a packet that would leave its link"},
	TTLExceeded:        {"ttl_exceeded", "hop limit used up"},
	NoForward:          {"no_forward", "not for the namespace itself, and its device does not forward, or it was sent to everybody on the link"},
	FragNeeded:         {"frag_needed", "larger than the MTU of the way on, and not to be fragmented"},
	SourceRoute:        {"source_route", "source route of IPv4, which is never followed"},
	MalformedOption:    {"malformed_option", "IPv4 or hop-by-hop option that is cut short, misplaced or must be known"},
	IPChecksum:         {"ip_checksum", "wrong checksum of an IPv4 header in a packet to be routed"},
	ConfMalformed:      {"conf_malformed", "router solicitation, DHCP or DHCPv6 message to the gateway that is malformed or has a wrong checksum"},
	ConfRefused:        {"conf_refused", "DHCP or DHCPv6 message that is not the container's own (MAC, relay), or of one that has no address to be given"},
	LinkLoop:           {"link_loop", "passed more links between namespaces than a packet may, or the other end is gone"},
	CTFull:             {"conntrack_full", "no room for another connection, and none that may give way"},
	CTQuota:            {"conntrack_quota", "the input port has as many connections as it may, and none that may give way"},
	CTChain:            {"conntrack_chain", "too many connections with one hash"},
	CTClash:            {"conntrack_clash", "answers would be taken for those of another connection"},
	CTInvalid:          {"conntrack_invalid", "of no connection though it should be of one, or not in its window"},
	NATExhausted:       {"nat_exhausted", "no port or identifier is left for another connection in the range that it is translated to"},
	NATAddress:         {"nat_address", "to be masqueraded or redirected, but the device has no address of the packet's family"},
	NATBackend:         {"nat_backend", "to a service that has no backend"},
	NATUntranslatable:  {"nat_untranslatable", "packet of a translated connection that can't be translated, or an ICMP error with a wrong checksum"},
	UplinkConns:        {"uplink_conns", "the input port has as many TCP connections by a socket uplink as it may"},
	UplinkDials:        {"uplink_dials", "the input port has as many connections by a socket uplink that are still being made as it may"},
	UplinkFlows:        {"uplink_flows", "the input port has, or has begun in this second, as many flows of UDP and pings by a socket uplink as it may"},
	UplinkFull:         {"uplink_full", "datagram that the host's socket of its flow did not take, or an ICMP error about one, beyond what is due in a second"},
	UplinkDown:         {"uplink_down", "the agent could not make a socket for it, or there was none"},
	QdiscFull:          {"qdisc_full", "the queueing discipline's limit of frames or bytes is reached"},
	QdiscMemory:        {"qdisc_memory", "packets that wait in queueing disciplines have all the memory that they may"},
	QdiscAQM:           {"qdisc_aqm", "CoDel's control law: packets waited for too long for too long (RFC 8289)"},
	QdiscTooBig:        {"qdisc_too_big", "larger than the token bucket's burst, or its mtu beside a peak rate"},
	QdiscLoss:          {"qdisc_loss", "netem was told to lose it"},
	QdiscPoliced:       {"qdisc_policed", "beyond the rate of a policer"},
	QdiscFiltered:      {"qdisc_filtered", "a filter of a queueing discipline says drop"},
	QdiscUnclassified:  {"qdisc_unclassified", "of no class, in a discipline that has no default, or its class was deleted"},
	QdiscHorizon:       {"qdisc_horizon", "due later than fq's horizon"},
	QdiscRemoved:       {"qdisc_removed", "waited in a discipline that was deleted, or at a port that was removed"},
	NFTDrop:            {"nft_drop", "a rule of the namespace's ruleset says drop, or the policy of a chain"},
	NFTReject:          {"nft_reject", "a rule of the namespace's ruleset says reject: its sender was told"},
	NFTFault:           {"nft_fault", "a rule of the namespace's ruleset rewrote it so that no packet was left"},
}

// String is the reason's word in snake_case: metric label and command-line
// word. A number that is no reason gives "unknown".
func (r Reason) String() string {
	if int(r) >= NumReasons {
		return "unknown"
	}
	return reasonTable[r].name
}

// Help is one line for an operator, lower case, without a full stop.
func (r Reason) Help() string {
	if int(r) >= NumReasons {
		return "reason of a newer version"
	}
	return reasonTable[r].help
}

// ParseReason is the inverse of String. It reports false for a word that is no
// reason.
func ParseReason(s string) (Reason, bool) {
	for i := range reasonTable {
		if reasonTable[i].name == s {
			return Reason(i), true
		}
	}
	return None, false
}

// Reasons returns every reason but None, in the order of their numbers.
func Reasons() [NumReasons - 1]Reason {
	var all [NumReasons - 1]Reason
	for i := range all {
		all[i] = Reason(i + 1)
	}
	return all
}
