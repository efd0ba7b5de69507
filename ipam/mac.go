// SPDX-License-Identifier: Apache-2.0

package ipam

import (
	"crypto/sha256"
	"fmt"
)

// Bits of the first octet of a MAC address, IEEE 802-2014 §8.2.
const (
	groupBit = 0x01
	localBit = 0x02
)

// macAttempts bounds the search for a free MAC. With n stations in a network one
// attempt fails with probability n/2^46.
const macAttempts = 32

// MAC returns a unicast, locally administered address for an attachment. The
// same network and identifier give the same address, unless taken says that
// another station of the network has it; then the next of a fixed sequence.
// Its error is ErrExhausted, which only a taken that lies brings about.
func MAC(network, id string, taken func([6]byte) bool) ([6]byte, error) {
	for attempt := range macAttempts {
		// The lengths keep ("ab","c") and ("a","bc") apart.
		sum := sha256.Sum256(fmt.Appendf(nil, "%d:%s %d:%s %d", len(network), network, len(id), id, attempt))
		mac := [6]byte(sum[:6])
		mac[0] = mac[0]&^groupBit | localBit
		if !taken(mac) {
			return mac, nil
		}
	}
	return [6]byte{}, refuse(ErrExhausted, "no free MAC address in network %s", network)
}
