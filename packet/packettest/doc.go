// SPDX-License-Identifier: Apache-2.0

// Package packettest is the vocabulary in which tests speak of packets: build
// one in words, say in words what one must be, make a thousand that nobody
// would send. Only _test files and test/ import it.
//
// Build. The short words make a whole frame with right lengths and checksums;
// what isn't said takes a default:
//
//	b := packettest.TCP4(packettest.Packet{DstPort: 80, Flags: packettest.SYN})
//
// Build puts layers together for everything else. Each layer fills in what
// follows from its neighbours, and has a knob for each such field to be wrong:
//
//	b := packettest.Build(
//		packettest.EtherHdr{},
//		packettest.VLANTag{TCI: 7},
//		packettest.IPv4Hdr{TTL: 1, TotalLen: new(uint16(9999))},
//		packettest.UDPHdr{DstPort: 53},
//		packettest.Payload("hello"))
//
// Frame, Partial and GSO put such bytes into a packet.Frame, as received.
//
// Check. One statement says what the frame must be; a failure names the field:
//
//	packettest.Check(t, b,
//		packettest.EtherDst(mac), packettest.VLAN(7),
//		packettest.IPv4(packettest.Src("10.0.0.1"), packettest.TTL(64)),
//		packettest.UDP(packettest.DstPort(53)),
//		packettest.Data("hello"))
//
// A check of a protocol also wants its lengths and checksums right, so that a
// test asks for them without saying so.
//
// Random and Mutate make frames for fuzzing and for hostile senders.
package packettest
