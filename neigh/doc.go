// SPDX-License-Identifier: Apache-2.0

// Package neigh knows the MAC addresses of a namespace's neighbours: ARP (RFC 826)
// and the neighbour unreachability detection of RFC 4861 §7, with the states, the
// timers and the bounds of Linux (ip-neighbour(8), ip-sysctl). It moves no bytes
// but those of packets that wait for an answer; frames go out by a Sink.
//
//	             Resolve              no answer to 3 questions
//	None, Failed --------> Incomplete ------------------------> Failed
//	   |                     |                                    ^
//	   | heard               | heard: Stale, answered: Reachable  | no answer to 3
//	   v       used          v         5 s                        | unicast ones
//	 Stale ---------------> Delay ------------------------------> Probe
//	   ^                       ^                                    |
//	   | 15 to 45 s, unused    | the same, in use          answered |
//	   +----------------- Reachable <-------------------------------+
//
// Lookup is what a packet needs: by device and address to a MAC and a Ref, which a
// flow cache keeps; no lock, no allocation. Resolve is for what it doesn't find,
// Input for what is heard, Tick for what time does. A permanent entry, which
// Prepare and Commit set, never changes by itself, and is found before the others.
//
// Theory of operation. An entry has one word of its state and its MAC, and keeps
// its memory for one key, so that one load says all that a reader needs, and a Ref
// is a pointer and the MAC that the word must still have. The word is written under
// Table.mu, except that whoever uses a stale entry makes it Delay by compare and
// swap: a hit that found it stale must not be a miss. See index.go for how entries
// are found, and queue.go for what they hold.
//
// Bounds (Limits). The number of dynamic entries, and of each ingress port's: those
// that its packets wait for or that failed, and those that exist because somebody
// behind it spoke first. A port that has reached the first loses its own failed
// entries, and then is refused; it never takes another's. The bytes of packets that
// one entry holds, and that came by one port. In an entry it is a packet of the port
// with most bytes in it, its oldest, that gives way; so with one sender it is the
// oldest, as in Linux. When the table is full, entries go that nobody has used for
// some seconds, an eighth of all at once and once a second.
//
// Where it differs from Linux (net/core/neighbour.c, net/ipv4/arp.c,
// net/ipv6/ndisc.c), on purpose:
//
//   - Time has whole seconds. ARP's lock time of one second lasts up to two.
//   - One table for both families, with one bound; no gc_thresh2; the collection
//     runs each second. Failed entries go after a minute in any case.
//   - No entry gets a group's MAC, zero or the device's own.
//   - A solicited advertisement with another MAC that must not override is no sign
//     of life of the old one in Delay either, as RFC 4861 §7.2.5 says.
//   - A message with two different link-layer addresses says nothing.
//   - ARP asks from an address of the device itself; Linux takes any local one that
//     the packet has (arp_announce 0).
//   - A redirect says nothing, as in Linux when it forwards.
//   - No proxies, no managed or externally learned entries, no confirmation by
//     upper layers.
package neigh
