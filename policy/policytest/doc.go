// SPDX-License-Identifier: Apache-2.0

// Package policytest makes random rulesets, and asks the kernel's nft(8) about them:
// what the tests of the engine and of the whole path share. Only tests import it.
package policytest
