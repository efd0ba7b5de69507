// SPDX-License-Identifier: Apache-2.0

package veth

import (
	"golang.org/x/sys/unix"

	"sluice/packet"
	"sluice/trace"
)

// maxInterrupts bounds how often one Flush repeats an interrupted call.
const maxInterrupts = 8

// Sender is a worker's send list: up to n frames that leave by one port with one
// sendmmsg. It serves any number of ports, one after the other, and is not safe
// for concurrent use.
type Sender struct {
	ring txRing
	n    int
}

// SendResult says what became of the frames of one Flush.
type SendResult struct {
	Sent  int // messages that the kernel took (a segmentation-offload frame is one)
	Bytes int // their bytes, Ethernet header included, virtio-net header not
	Lost  int // messages that it didn't take: the sum of Dropped
	// Dropped counts the lost messages by reason. It is all zero if Lost is zero.
	Dropped [trace.NumReasons]uint32
}

// NewSender makes a list for n frames, 1 <= n <= MaxBatch (others are brought
// into that range). The error is always nil; it stands here so that a Sender may
// come to need memory of its own, as a Batch does.
func NewSender(n int) (*Sender, error) {
	return &Sender{ring: newTxRing(min(max(n, 1), MaxBatch))}, nil
}

// Len is the number of frames that wait for Flush.
func (s *Sender) Len() int { return s.n }

// Append puts a frame on the list; false if the list is full or the frame empty.
// It holds on to the frame's buffer, which must not be changed or given back
// until Flush. The virtio-net header is encoded now, from f.Vnet; so a frame that
// goes to several ports may stand on the list of each.
func (s *Sender) Append(f *packet.Frame) bool {
	if s.n == len(s.ring.msgs) || f.Len() == 0 {
		return false
	}
	s.ring.set(s.n, f.Wire())
	s.n++
	return true
}

// AppendWith is Append for a frame whose beginning is another one: head, which has
// the vnet header, stands for the vnet header and the first skip bytes of f. It is
// held on to as the buffer is.
func (s *Sender) AppendWith(head []byte, f *packet.Frame, skip int) bool {
	if s.n == len(s.ring.msgs) || len(head) < packet.VnetLen || skip >= f.Len() {
		return false
	}
	s.ring.set2(s.n, head, f.Bytes()[skip:])
	s.n++
	return true
}

// Flush sends the list by a port without waiting, writes what became of it into
// res, and leaves the list empty. The buffers are the caller's again.
//
// A frame that the kernel refuses is counted and skipped; when the port itself
// can take nothing more (buffer full, interface down) the rest is counted and
// dropped. Nothing is tried twice, so the number of calls is bounded by the
// number of frames.
func (s *Sender) Flush(fd int, res *SendResult) {
	if res.Lost != 0 {
		res.Dropped = [trace.NumReasons]uint32{}
	}
	res.Sent, res.Bytes, res.Lost = 0, 0, 0
	interrupts := 0
	for i := 0; i < s.n; {
		sent, errno := s.ring.send(fd, i, s.n)
		if errno == unix.EINTR && interrupts < maxInterrupts {
			interrupts++
			continue
		}
		if errno == 0 {
			i += s.count(res, i, sent)
			continue
		}
		reason, rest := lossReason(errno)
		lost := 1
		if rest {
			lost = s.n - i
		}
		res.Dropped[reason] += uint32(lost)
		res.Lost += lost
		i += lost
	}
	s.n = 0
}

// count adds messages [i, i+sent) to res. A kernel that takes nothing and names
// no error doesn't exist; were there one, it would not be asked again.
func (s *Sender) count(res *SendResult, i, sent int) int {
	if sent == 0 {
		res.Dropped[trace.TxError]++
		res.Lost++
		return 1
	}
	for k := i; k < i+sent; k++ {
		res.Bytes += s.ring.size(k) - packet.VnetLen
	}
	res.Sent += sent
	return sent
}

// lossReason translates an errno of sendmmsg(2) on a packet socket. rest says
// that the following frames would fare alike.
func lossReason(errno unix.Errno) (reason trace.Reason, rest bool) {
	switch errno {
	case unix.EAGAIN, unix.EINTR:
		return trace.TxFull, true
	case unix.ENOBUFS, unix.ENOMEM:
		// The other end did not take it: its queue is full or it is down.
		return trace.TxNoBuffer, false
	case unix.ENETDOWN, unix.ENXIO, unix.ENODEV, unix.EPIPE, unix.ECONNREFUSED, unix.ECONNRESET, unix.ENOTCONN:
		return trace.TxDown, true
	case unix.EMSGSIZE:
		return trace.TooBig, false
	case unix.EBADF, unix.ENOTSOCK:
		return trace.TxError, true
	default:
		return trace.TxError, false
	}
}
