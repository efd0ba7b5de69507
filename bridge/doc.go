// SPDX-License-Identifier: Apache-2.0

// Package bridge decides where a frame goes by its MAC addresses and its VLAN: a
// learning, VLAN-aware bridge (IEEE 802.1D-2004 §7.7 to §7.9, 802.1Q-2018 §8)
// with the behaviour of the Linux one, and nothing else. It moves no bytes.
//
// Bridge.Input is the decision for one frame: it learns the source, looks up
// the destination and returns a Verdict. Any number of workers call it at the
// same time; looking up and refreshing a known station takes no lock.
//
//	member?          ports.go     port_removed
//	addresses        input.go     source_multicast, bpdu, reserved_multicast
//	VLAN             vlan.go      vlan_ingress
//	guards           guard        guard_mac, guard_ip, …
//	storm limit      storm.go     storm (groups; unknown unicast when it is found out)
//	source           input.go     source_own_mac, locked; learn
//	group            input.go     suppressed (suppress.go), malformed_group (snoop)
//	destination      input.go     same_port, port_removed
//	each output      flood.go     same_port, isolated, vlan_egress, flood_off, no_member, no_port
//
// What a port does beyond that is in its PortConfig; zero there is an ordinary
// port, and a bridge of such ports pays nothing for the rest. The frames that the
// bridge wants to be sent itself are handed out: multicast queries by Poll, and
// answers for neighbours by Verdict.AppendAnswer.
//
// Bounds. The table of learned stations has a fixed number of entries and each
// port a quota (Options). A station beyond either is not learned: its frames are
// still forwarded, what is sent to it is flooded, and Stats counts it. A station
// that was not heard for the ageing time is forgotten and relearned from its
// next frame; one that is heard on another port moves there at once. Those of
// snooping are in package snoop.
//
// Where it differs from Linux (net/bridge), on purpose:
//
//   - 01-80-C2-00-00-00 is dropped like the other reserved addresses; Linux
//     forwards it when STP is off. They are dropped from the local port too,
//     where Linux sends them out, and nothing is learned from them.
//   - A frame that claims the bridge's own MAC is dropped; Linux warns and
//     forwards it.
//   - A static entry never moves; in Linux that takes `static sticky`.
//   - VLAN filtering is a port's setting, not the bridge's, as is 802.1ad: see
//     vlan.go. Even an unaware port's stations are learned in the VLAN of the
//     outer 802.1Q tag, so that one is learned once in each VLAN.
//   - Storm limits are the bridge's; Linux has tc(8) for them.
//   - An ARP request or solicitation is answered if it comes from a port with
//     Suppress (Linux: proxy_arp of the port), and then flooded to nobody.
//   - What snooping differs in, package snoop says.
package bridge
