// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"sluice/dial"
)

// diallerIndex marks the epoll event of the channel by which a worker asks for sockets;
// those of ports and uplinks are less.
const diallerIndex = 1 << 17

// DialBy gives the workers channels (package dial) by which each asks for the sockets of
// its containers' connections, instead of by Options.Dialer. It takes them over. A worker
// for which there is none does without; those that the workers had end.
func (n *Netstack) DialBy(fds []int) (err error) {
	for i, fd := range fds {
		if i >= len(n.workers) {
			_ = unix.Close(fd)
			continue
		}
		err = errors.Join(err, n.workers[i].dialBy(fd))
	}
	return err
}

// dialBy has the answers of a channel come to the worker. It takes the descriptor over.
func (w *worker) dialBy(fd int) error {
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: diallerIndex}
	if err := unix.EpollCtl(w.poll.fd, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		_ = unix.Close(fd)
		return os.NewSyscallError("epoll_ctl", err)
	}
	w.dial.Attach(fd)
	return nil
}

// asking asks by the channel of the worker that has the container's port, whose thread
// then need not be woken by another one.
type asking struct{ net *Netstack }

// Dial implements proxy.Dialer.
func (a asking) Dial(t dial.Target, done func(dial.Socket)) {
	if t.Port != 0 && a.net.worker(t.Port).dial.Dial(t, done) {
		return
	}
	a.net.opts.Dialer.Dial(t, done)
}

// reuse takes the socket of a connection that has ended, which is in the worker's epoll set,
// for another one (dial.Polled.Reuse). It fails if the port has another worker since, and the
// socket is in that one's set.
func (w *worker) reuse(fd int, ipv6 bool) bool {
	return unix.EpollCtl(w.poll.fd, unix.EPOLL_CTL_DEL, fd, nil) == nil && w.dial.Reuse(fd, ipv6)
}
