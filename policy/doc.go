// SPDX-License-Identifier: Apache-2.0

// Package policy evaluates rulesets of nft(8), with the kernel's results.
//
// An Engine takes a checked tree of package policy/nft with Commit, and compiles what
// is new in it: each chain to a flat program of small instructions, each set to a hash
// table or a tree of ranges. A worker has an Evaluator, pins the present ruleset for a
// round (Pin), and shows each packet to the base chains of a hook (Hook, NAT). The
// Verdict carries its evidence, the rule or the policy that gave it.
//
// What a rule, an object or an element remembers (counters, quotas, limits) outlives
// the programs: it is known by its node in the tree. Export and Import take it over a
// restart.
//
// While a packet is evaluated, a Record notes what the flow's next packet needs: by
// nothing but a few actions (count, mark, write), if nothing that was asked may be
// different then. So an established flow pays for the counters that it meets, and not
// for the rules.
//
// The theory of who sees what, and when memory is used again, is in epoch.go; the
// oracle, a plain interpreter of the same trees, is package policy/interp.
package policy
