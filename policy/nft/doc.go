// SPDX-License-Identifier: Apache-2.0

// Package nft is the language of nft(8): it reads rulesets as text and as
// libnftables-json, checks them as nft and the kernel do, keeps them as a value
// that transactions turn into the next one, and lists them as nft does.
//
// A text is parsed into commands (Parse, ParseJSON); Ruleset.Apply checks each
// against the ruleset as it is at that point of the transaction. What has
// passed is immutable and shared between rulesets, so that the address of a
// rule, a statement or an object stands for the same thing in all of them.
package nft
