// SPDX-License-Identifier: Apache-2.0

// Package natspec reads the words in which users speak of connections: statements
// of nft(8) about address translation, published ports, and the options of
// conntrack(8).
//
// It knows words and no state: devices and attachments have names here, and
// whoever knows their numbers and addresses makes rules of them. What it returns
// is in one spelling, so that equal things are equal text; the state file has that
// text.
package natspec
