// SPDX-License-Identifier: Apache-2.0

// Package qdisc is what tc(8) gives a device: queueing disciplines, classes and
// filters, as a function of packets and of time. It holds packets back, lets them
// go when their time has come, marks them or drops them; it reads no clock and
// has no thread.
//
//	Enqueue(frame, meta, now) -> [filters] -> root discipline -> classes -> leaves
//	Dequeue(now)              <- root discipline: the next packet, or none before NextTime
//
// What the disciplines are, and after whom:
//
//	pfifo, bfifo, pfifo_fast   first in, first out; three bands by priority
//	prio                       strict bands
//	tbf                        token bucket, with a second one for the peak rate
//	htb                        classes that borrow from each other (M. Devera, HTB 3)
//	codel, fq_codel            RFC 8289, RFC 8290
//	fq                         fair queueing with pacing for each flow
//	sfq, drr                   stochastic fairness; deficit round robin over classes
//	netem                      delay, loss, duplicates, corruption, reordering, rate
//	ingress                    no queue: filters and policers only
//
// A packet is a number (Ref) in a Pool, and so are lists of packets: nothing is
// allocated for one, and the collector has nothing to look at. Its bytes are lent
// by the caller as long as it may leave within the caller's turn, and are copied
// into the pool only when it has to wait. Bytes count as they are on the wire: a
// frame that stands for several segments has all their headers, and is cut into
// them where it would break a burst, or keep the line busy for over a millisecond.
//
// A Tree is the disciplines of one direction of one port. It belongs to one
// worker, and isn't safe for concurrent use; Handover takes frames to it from
// another worker. The trees of several ports may hang below the classes of one more,
// see Tree.Under.
package qdisc
