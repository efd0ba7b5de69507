// SPDX-License-Identifier: Apache-2.0

package conntrack

import "math/bits"

// hashKey is the secret of a table's hash. It stands in the header of the file,
// since the records keep their hashes across processes.
type hashKey [2]uint64

// hash is SipHash-1-3 (Aumasson and Bernstein, 2012) of the five words of k,
// folded to 32 bits: whoever does not know the secret cannot choose tuples that
// meet in one chain.
func (h hashKey) hash(k *key) uint32 {
	v0 := h[0] ^ 0x736f6d6570736575
	v1 := h[1] ^ 0x646f72616e646f6d
	v2 := h[0] ^ 0x6c7967656e657261
	v3 := h[1] ^ 0x7465646279746573
	for _, m := range k {
		v3 ^= m
		v0, v1, v2, v3 = sipRound(v0, v1, v2, v3)
		v0 ^= m
	}
	const length = uint64(len(k)*8) << 56
	v3 ^= length
	v0, v1, v2, v3 = sipRound(v0, v1, v2, v3)
	v0 ^= length
	v2 ^= 0xff
	for range 3 {
		v0, v1, v2, v3 = sipRound(v0, v1, v2, v3)
	}
	sum := v0 ^ v1 ^ v2 ^ v3
	return uint32(sum) ^ uint32(sum>>32)
}

func sipRound(v0, v1, v2, v3 uint64) (uint64, uint64, uint64, uint64) {
	v0 += v1
	v2 += v3
	v1 = bits.RotateLeft64(v1, 13) ^ v0
	v3 = bits.RotateLeft64(v3, 16) ^ v2
	v0 = bits.RotateLeft64(v0, 32)
	v2 += v1
	v0 += v3
	v1 = bits.RotateLeft64(v1, 17) ^ v2
	v3 = bits.RotateLeft64(v3, 21) ^ v0
	v2 = bits.RotateLeft64(v2, 32)
	return v0, v1, v2, v3
}
