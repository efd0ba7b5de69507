// SPDX-License-Identifier: Apache-2.0

// Package netstack is the heart of Sluice: namespaces, and the workers that
// carry frames between their ports.
//
// A namespace is one bridge, its ports, and one gVisor stack that owns the
// gateway addresses. A Netstack holds many of them and is configured by one
// Snapshot at a time, as a transaction (Apply).
//
// # The packet's way
//
// The files stand in the order in which a frame meets them:
//
//  1. poll.go, worker.go: a worker finds a port that has frames (epoll).
//  2. turn.go, intake.go: one turn takes up to a budget of frames from it
//     (recvmmsg); work.go bounds what they may cost.
//  3. judge.go: each frame is parsed once; the flow cache replays what was
//     decided before, or the slow path decides; mirror.go and snooping.go send what
//     a bridge has to say itself.
//  4. output.go: the frames of the whole turn are sorted by output port and
//     leave with one sendmmsg each, cut and summed first if the port asks.
//     What is for a router goes by route.go, and in a namespace that tracks
//     connections by the hooks of track.go before and after it.
//  5. inject.go, hostlink.go, stack.go: frames to and from the gVisor stack.
//     What containers may take of it, ration.go, census.go, conn.go and
//     datagram.go say.
//
// A frame is run to completion by the one worker that received it. No
// goroutine, channel or allocation is spent on it.
//
// # Who may change what, and when
//
// What a worker uses is either its own (batch, sender, flow cache, lists), or
// immutable (the view, which is a compiled Snapshot), or made for many readers
// (bridge.Bridge, trace counters, the table of connections, the stack). A worker holds its turn lock
// while it works and lets go of it before it blocks. Apply prepares all that
// can fail, then takes every turn lock, swaps the view together with the
// bridges' tables and lets go: no frame is judged by a mixture of two
// snapshots, a worker that is asleep need not be woken, and nobody can still
// use what the old view alone referred to. Where a queueing discipline goes, there is a
// second such moment, see release.go.
//
// Lock order: Netstack.mu, then the turn locks by worker number, then
// whatever lock a bridge or a stack takes inside. The locks of a mailbox, a host
// link, a census and the inboxes are leaves; that of orphans is taken outside
// those of the stack.
package netstack
