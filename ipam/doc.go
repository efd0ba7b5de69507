// SPDX-License-Identifier: Apache-2.0

// Package ipam decides which address and which MAC an attachment gets.
//
// It is pure: no state, no clock, no I/O. Who holds what is asked of a function
// that the caller gives, and remembering the answer is the caller's job (the
// agent keeps leases beside its attachments, so that a lease can't outlive one).
//
// The policy is next-free, round the subnet: the lowest free address above the
// one that was given out last, then from the start again. An address that was
// just released is thus the last to be given out again, so that a peer's stale
// ARP entry or connection meets nobody instead of somebody else.
//
// Never given out: the gateway; in IPv4 the network and the broadcast address;
// in IPv6 the subnet-router anycast address (RFC 4291 §2.6.1).
//
// The cost of a choice is the number of addresses in use, not the size of the
// subnet: a /64 is never scanned.
package ipam
