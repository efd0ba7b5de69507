// SPDX-License-Identifier: Apache-2.0

package flow

import "unsafe"

// A Key has no gaps and fills its cache line; this does not compile otherwise.
var _ [KeySize]byte = [unsafe.Sizeof(Key{})]byte{}

// bytes is the key as its memory. It has no gaps, so that equal keys are equal
// bytes.
func (k *Key) bytes() *[KeySize]byte {
	return (*[KeySize]byte)(unsafe.Pointer(k))
}
