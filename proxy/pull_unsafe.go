// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"unsafe"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// Theory of operation.
//
// The stack reads a segment's bytes into a buffer of its own, from whatever it is given,
// and sends the segment before it comes back. With a system call and an acknowledgement
// to the outside for each segment, that is most of what a byte costs. So the steps of a
// write are taken apart here: several segments are queued whose reader only notes where
// their bytes belong, one readv(2) puts all of them there, and then they are sent.
//
// The endpoint is the caller's from the first step to the last (Endpoint.LockUser): what
// is queued and not read yet is seen by nobody. There must be as much to read as was
// promised, which FIONREAD (TIOCINQ) said and which only grows meanwhile. Were it not so,
// the connection is reset, and none of the segments leaves.
//
// The functions are gVisor's, but not exported: see inline_unsafe.go.

//go:linkname queueSegment gvisor.dev/gvisor/pkg/tcpip/transport/tcp.(*Endpoint).queueSegment
func queueSegment(ep *tcp.Endpoint, p tcpip.Payloader, opts tcpip.WriteOptions) (segment unsafe.Pointer, n int, err tcpip.Error)

//go:linkname sendData gvisor.dev/gvisor/pkg/tcpip/transport/tcp.(*Endpoint).sendData
func sendData(ep *tcp.Endpoint, next unsafe.Pointer)

// pieces are where bytes belong that were promised.
type pieces struct {
	iov  [maxSlices]unix.Iovec
	n    int
	want int // of the next segment
}

var _ tcpip.Payloader = (*pieces)(nil)

// Len implements tcpip.Payloader.
func (p *pieces) Len() int { return p.want }

// Read implements io.Reader: it promises to fill b.
func (p *pieces) Read(b []byte) (int, error) {
	if len(b) == 0 { // the question whether there is an end
		return 0, nil
	}
	p.iov[p.n].Base = &b[0]
	p.iov[p.n].SetLen(len(b))
	p.n++
	return len(b), nil
}

// pull moves up to n bytes from the socket to the stack, as much as that has room for.
// There must be n.
//
// +checklocks:c.mu
func (c *conn) pull(n int) (done int, err tcpip.Error) {
	ep, ok := c.ep.(*tcp.Endpoint)
	if !ok {
		return 0, &tcpip.ErrNotSupported{}
	}
	p := c.proxy.pieces.Get().(*pieces) //nolint:forcetypeassert // it is our pool
	defer c.proxy.pieces.Put(p)
	ep.LockUser()
	defer ep.UnlockUser()
	first, done, err := p.promise(ep, n)
	if done == 0 {
		return 0, err
	}
	if !p.fill(c.fd, done) {
		resetConnection(ep, &tcpip.ErrConnectionAborted{})
		return 0, &tcpip.ErrConnectionAborted{}
	}
	sendData(ep, first)
	c.owes.Store(false)
	return done, nil
}

// promise queues segments for up to n bytes. The error is why there are none.
// Preconditions: the caller is the endpoint's user.
func (p *pieces) promise(ep *tcp.Endpoint, n int) (first unsafe.Pointer, done int, err tcpip.Error) {
	p.n = 0
	for done < n && p.n < len(p.iov) {
		p.want = min(n-done, maxRead)
		segment, k, e := queueSegment(ep, p, tcpip.WriteOptions{Atomic: true})
		if k == 0 || e != nil {
			return first, done, e
		}
		if first == nil {
			first = segment
		}
		done += k
	}
	return first, done, nil
}

// fill keeps the promise, and lets go of the buffers.
func (p *pieces) fill(fd, left int) bool {
	iov := p.iov[:p.n]
	defer clear(iov)
	for left > 0 {
		n, _, errno := unix.Syscall(unix.SYS_READV, uintptr(fd), uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov)))
		switch {
		case errno == unix.EINTR:
			continue
		case errno != 0 || n == 0:
			return false
		}
		left -= int(n)
		iov = advance(iov, int(n))
	}
	return true
}

// advance leaves out the first n bytes.
func advance(iov []unix.Iovec, n int) []unix.Iovec {
	for len(iov) > 0 && n >= int(iov[0].Len) {
		n -= int(iov[0].Len)
		iov = iov[1:]
	}
	if n > 0 {
		iov[0].Base = (*byte)(unsafe.Add(unsafe.Pointer(iov[0].Base), n))
		iov[0].SetLen(int(iov[0].Len) - n)
	}
	return iov
}
