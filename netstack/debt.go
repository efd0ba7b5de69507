// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"sluice/proxy"
)

// Theory of operation.
//
// A proxy may owe acknowledgements, which the answers that it waits for would carry. The
// worker that it owes them by has it pay after a moment. A timer of the worker's own, in its
// epoll set, says when: it is set once for all that is owed in that time. A limit to each
// of its sleeps would do as well, but to set a timer that is the next of its processor, and to
// take it back, costs more than such an acknowledgement in a virtual machine.

// debtTime is how long something is owed.
const debtTime = time.Millisecond

// debtIndex marks the epoll event of the worker's timer.
const debtIndex = diallerIndex + 1

// debt is what a worker knows of such proxies.
type debt struct {
	timer int          // timerfd_create(2)
	proxy *proxy.Proxy // nil: the timer is not set
}

func (d *debt) open(p *poller) error {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return os.NewSyscallError("timerfd_create", err)
	}
	d.timer = fd
	// As an edge it need not be read.
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET&0xffffffff, Fd: debtIndex}
	if err := unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return fmt.Errorf("watch timer: %w", err)
	}
	return nil
}

func (d *debt) close() { _ = unix.Close(d.timer) }

// take takes note of a proxy that owes something. There is one of them mostly: who was
// there before pays.
func (d *debt) take(p *proxy.Proxy) {
	switch {
	case d.proxy == p:
		return
	case d.proxy != nil:
		d.proxy.Pay()
		d.proxy = p
	case setTimer(d.timer, debtTime):
		d.proxy = p
	default:
		p.Pay()
	}
}

// due is called when the timer has expired.
func (d *debt) due() {
	if p := d.proxy; p != nil {
		d.proxy = nil
		p.Pay()
	}
}
