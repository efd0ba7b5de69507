// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// maxEvents is how many ready ports one look at the epoll set brings. The
// kernel hands out the others first next time, so none of them starves.
const maxEvents = 64

// wakeIndex is the epoll event of the worker's own eventfd: no port has index 0.
const wakeIndex = 0

// poller is a worker's epoll set: its ports and the eventfd of its mailbox, all
// level-triggered, so that a port that still has frames is reported again.
type poller struct {
	fd     int
	events [maxEvents]unix.EpollEvent
}

func (p *poller) open(wake int) error {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("epoll_create1: %w", err)
	}
	p.fd = fd
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: wakeIndex}
	if err := unix.EpollCtl(fd, unix.EPOLL_CTL_ADD, wake, &ev); err != nil {
		_ = unix.Close(fd)
		return fmt.Errorf("watch eventfd: %w", err)
	}
	return nil
}

// block waits for events. It goes through the scheduler, which gives the CPU to
// others meanwhile. A signal ends it without an event.
func (p *poller) block() int {
	n, err := unix.EpollWait(p.fd, p.events[:], -1)
	if err != nil {
		return 0
	}
	return n
}

// punctual makes the sleeps of the calling thread end when they are to, and not up to
// 50 us later, prctl(2): a queue that is shaped waits for it. Where that is not allowed
// they end later.
func punctual() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) }

func (p *poller) close() { _ = unix.Close(p.fd) }

// mailbox is how other goroutines reach a worker: host links that have packets
// for it, and the order to stop. It costs a system call only if the worker
// sleeps.
//
// The worker announces its sleep and then looks once more; a sender leaves its
// word and then looks whether the worker sleeps. Both are sequentially
// consistent atomics, so at least one of them sees the other.
type mailbox struct {
	efd      int
	sleeping atomic.Bool
	stopped  atomic.Bool
	waiting  atomic.Int32 // len(links)
	poked    atomic.Bool  // a queue was given something to do

	mu sync.Mutex
	// +checklocks:mu
	links []*hostLink
}

func (m *mailbox) open() error {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	m.efd = fd
	return nil
}

func (m *mailbox) close() { _ = unix.Close(m.efd) }

// post says that l has packets. Preconditions: l is not in the mailbox.
func (m *mailbox) post(l *hostLink) {
	m.mu.Lock()
	m.links = append(m.links, l)
	m.mu.Unlock()
	m.waiting.Add(1)
	if m.sleeping.CompareAndSwap(true, false) {
		m.wake()
	}
}

// take returns the link that waits longest, nil if none does.
func (m *mailbox) take() *hostLink {
	if m.waiting.Load() == 0 {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.links) == 0 {
		return nil
	}
	l := m.links[0]
	m.links = append(m.links[:0], m.links[1:]...) // few: one for each namespace at most
	m.waiting.Add(-1)
	return l
}

// quiet reports whether the worker may sleep.
func (m *mailbox) quiet() bool {
	return m.waiting.Load() == 0 && !m.stopped.Load() && !m.poked.Load()
}

// poke makes the worker look at its queues.
func (m *mailbox) poke() {
	m.poked.Store(true)
	if m.sleeping.CompareAndSwap(true, false) {
		m.wake()
	}
}

func (m *mailbox) stop() {
	m.stopped.Store(true)
	m.wake()
}

// wake cannot fail in a way that matters: EAGAIN says that it is awake already.
func (m *mailbox) wake() {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	_, _ = unix.Write(m.efd, one[:])
}

// drain takes the eventfd back to zero, so that it is not reported again.
func (m *mailbox) drain() {
	var count [8]byte
	_, _ = unix.Read(m.efd, count[:])
}
