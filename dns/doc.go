// SPDX-License-Identifier: Apache-2.0

// Package dns answers the questions of a namespace's containers: about each other,
// and, by asking resolvers elsewhere, about everything else.
//
// # Theory of operation
//
// A Server is given queries as bytes and returns answers as bytes; sockets are not its
// own. A query is read within bounds (query.go), and then the first of these answers
// that can:
//
//	names    the namespace's own, and the reverse ones of its subnets  (names.go)
//	dns64    what is made of another answer, RFC 6147                  (dns64.go)
//	cache    what an upstream said a while ago                         (cache.go)
//	forward  an upstream, by a Transport                               (forward.go)
//
// The first three take microseconds and no goroutine of their own. What has to be
// forwarded is a Pending: the caller waits for it where it likes. Equal questions wait
// for one answer.
//
// # Whom it believes
//
// Containers nothing: what one sends is bounded in length and in its number of
// records, and how many queries it may send, and have open, is limited (limit.go).
// Of an upstream's answer only what the question asked for is kept, so that it can't
// say anything of other names; and it has to have the identifier, and the spelling of
// the name, that were made up for it, so that nobody beside the way can (RFC 5452).
//
// There is no validation (RFC 4035 §5): the signatures, and what upstreams say of
// them, are passed on to those who ask for them.
//
// # Time
//
// It is passed in, as the time since some beginning, but for the wait for an upstream,
// which ends with a context.
package dns
