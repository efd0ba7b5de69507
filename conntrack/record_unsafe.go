// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"sync/atomic"
	"unsafe"
)

// A record in memory is a record in the file; this does not compile otherwise.
var _ [recordSize]byte = [unsafe.Sizeof(record{})]byte{}

// recordsOf views mapped memory as its records.
//
// Preconditions: mem is page aligned and fileSize(n) long; it is unmapped only
// after the last use. Any bytes are a record: none of its fields is a pointer.
func recordsOf(mem []byte, n int) []record {
	return unsafe.Slice((*record)(unsafe.Pointer(&mem[headerSize])), n)
}

// wordsOf views mapped memory as words.
//
// Preconditions: mem is page aligned and 8*n long; it is unmapped only after the
// last use.
func wordsOf(mem []byte, n int) []atomic.Uint64 {
	return unsafe.Slice((*atomic.Uint64)(unsafe.Pointer(&mem[0])), n)
}
