// SPDX-License-Identifier: Apache-2.0

package nft

// Env is what the rest of the world says while commands are checked. A nil Env
// says nothing.
type Env struct {
	// IfIndex and IfName translate network interfaces: "iif lo" is bound to a
	// number when it is loaded.
	IfIndex func(name string) (uint32, bool)
	IfName  func(index uint32) (string, bool)
	// Live says whether a set has an element that only packets added.
	Live func(t *Table, s *Set, key string) bool
}
