// SPDX-License-Identifier: Apache-2.0

// Package networkpolicy compiles Kubernetes NetworkPolicy v1 to a ruleset of
// nft(8): one table, in which maps lead from a pod's address to the policies that
// select it, and sets have the addresses of peers. The ruleset is as large as what
// the policies select, and a Change costs as many commands as it changes elements,
// rules and chains.
//
// Cluster.Check answers the same question without a ruleset, by what the API says,
// and tells which rules made the answer. It is how people ask, and what the tests
// hold the compiled ruleset against.
//
// docs/networkpolicy.md says what is meant where the API leaves it open.
package networkpolicy
