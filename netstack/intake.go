// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"fmt"

	"golang.org/x/sys/unix"

	"sluice/packet"
	"sluice/veth"
)

const (
	// budget is the number of frames that a port's turn may take, as the weight
	// of a NAPI poll (netdev_max_backlog's neighbour dev_weight, 64).
	budget = 64
	// slice is the number of frames that one recvmmsg may bring. Only the frames
	// themselves tell how large they are, and what they cost, and the sender chooses
	// that, so a turn carries what it got before it asks for more.
	slice = 16
	// enough is the number of bytes after which a turn asks for no more: with one
	// slice of 64 KB frames on top, 1.3 MB go through the cache from recvmmsg to
	// sendmmsg.
	enough = 256 << 10
)

// intake receives the frames of one turn, in slices.
type intake struct {
	slices [budget / slice]*veth.Batch // own the buffers
	frames [budget]packet.Frame        // copies of their frames, in a row

	// Of the turn.

	n       int // frames
	refused int // frames that the kernel could not describe
	used    int // slices
	memory  int // bytes of frames
	errno   unix.Errno
}

func (k *intake) open() (err error) {
	for i := range k.slices {
		if k.slices[i], err = veth.NewBatch(slice); err != nil {
			return fmt.Errorf("receive buffers: %w", err)
		}
	}
	return nil
}

// begin prepares for a turn.
func (k *intake) begin() { k.n, k.refused, k.used, k.memory, k.errno = 0, 0, 0, 0, 0 }

// more receives a slice from a port, and reports whether to ask for another: the port
// may have more, the budget is not used up, and the frames are not large and enough.
// The errno is that of the last call, which may have one though frames came before.
func (k *intake) more(fd int) bool {
	b := k.slices[k.used]
	k.used++
	var got int
	got, k.errno = b.Recv(fd, slice)
	k.refused += b.Refused
	for i := range got {
		k.memory += b.Frames[i].Len()
	}
	k.n += copy(k.frames[k.n:], b.Frames[:got])
	return got == slice && k.memory <= enough && k.used < len(k.slices)
}

func (k *intake) close() {
	for _, b := range k.slices {
		if b != nil {
			_ = b.Close()
		}
	}
}
