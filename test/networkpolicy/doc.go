// SPDX-License-Identifier: Apache-2.0

// Package networkpolicy compares the rulesets that policy/networkpolicy compiles with
// the verdicts of cyclonus, a generator and simulator of NetworkPolicies by others, as
// `make oracle-netpol` runs it. No cluster is needed.
//
// It is a module of its own, since cyclonus brings the client of Kubernetes, which
// nothing else here needs.
package networkpolicy
