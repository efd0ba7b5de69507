// SPDX-License-Identifier: Apache-2.0

// Package bridge decides where a frame goes by its MAC addresses: a learning
// bridge (IEEE 802.1D-2004 §7.7 to §7.9) with the behaviour of the Linux one,
// and nothing else. It moves no bytes.
//
// Bridge.Input is the decision for one frame: it learns the source, looks up
// the destination and returns a Verdict. Any number of workers call it at the
// same time; looking up and refreshing a known station takes no lock.
//
// Bounds. The table of learned stations has a fixed number of entries and each
// port a quota (Options). A station beyond either is not learned: its frames are
// still forwarded, what is sent to it is flooded, and Stats counts it. A station
// that was not heard for the ageing time is forgotten and relearned from its
// next frame; one that is heard on another port moves there at once.
//
// Where it differs from Linux (net/bridge), on purpose:
//
//   - 01-80-C2-00-00-00 is dropped like the other reserved addresses; Linux
//     forwards it when STP is off. They are dropped from the local port too,
//     where Linux sends them out, and nothing is learned from them.
//   - A frame that claims the bridge's own MAC is dropped; Linux warns and
//     forwards it.
//   - A static entry never moves; in Linux that takes `static sticky`.
//   - The key has the VLAN of the outer 802.1Q tag, so that a station is learned
//     once in each VLAN.
package bridge
