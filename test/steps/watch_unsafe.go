// SPDX-License-Identifier: Apache-2.0

package steps

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Watcher is told of a process's calls, and of its descendants'.
type Watcher struct {
	pid int
	fd  int

	mu sync.Mutex
	// +checklocks:mu
	left int
	// +checklocks:mu
	act func()
	// +checklocks:mu
	seen int
}

// Watch begins to watch a process that was started by Wrap, of which it reads the first
// line on stdout. All calls go on until the last of the processes has ended.
func Watch(pid int, stdout *bufio.Reader) (*Watcher, error) {
	line, err := stdout.ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("the watched process: %w", err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		return nil, fmt.Errorf("the watched process says %q", line)
	}
	p, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(p)
	fd, err := unix.PidfdGetfd(p, n, 0)
	if err != nil {
		return nil, err
	}
	w := &Watcher{pid: pid, fd: fd}
	go w.serve()
	return w, nil
}

// At has act be called at the n-th call from now of the process itself, 1 or more, before
// that call is made. The process stands still meanwhile.
func (w *Watcher) At(n int, act func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.left, w.act, w.seen = n, act, 0
}

// Seen is how many calls there were since the last At, which it takes back.
func (w *Watcher) Seen() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.act = nil
	return w.seen
}

// notification is seccomp_notif of linux/seccomp.h.
type notification struct {
	id         uint64
	pid, flags uint32
	nr         int32
	arch       uint32
	ip         uint64
	args       [6]uint64
}

// response is seccomp_notif_resp.
type response struct {
	id           uint64
	val          int64
	error, flags uint32
}

// The requests of linux/seccomp.h, and the flag that lets a call go on.
const (
	notifRecv     = 0xc0502100
	notifSend     = 0xc0182101
	flagContinues = 1
)

func (w *Watcher) serve() {
	defer unix.Close(w.fd)
	for {
		poll := []unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(poll, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		if poll[0].Revents&unix.POLLIN == 0 {
			if poll[0].Revents != 0 {
				return // nobody is left
			}
			continue
		}
		var n notification
		if ioctl(w.fd, notifRecv, unsafe.Pointer(&n)) != 0 {
			continue // it was killed meanwhile
		}
		w.step(int(n.pid))
		ioctl(w.fd, notifSend, unsafe.Pointer(&response{id: n.id, flags: flagContinues}))
	}
}

func ioctl(fd int, request uintptr, arg unsafe.Pointer) unix.Errno {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
	return errno
}

// step counts a call of a thread, and acts if its time has come.
func (w *Watcher) step(tid int) {
	if _, err := os.Stat(fmt.Sprintf("/proc/%d/task/%d", w.pid, tid)); err != nil {
		return // a descendant's
	}
	w.mu.Lock()
	w.seen++
	act := w.act
	if w.left--; w.left != 0 || act == nil {
		act = nil
	}
	w.mu.Unlock()
	if act != nil {
		act()
	}
}
