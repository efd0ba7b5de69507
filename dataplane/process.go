// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// killTimeout bounds the wait for a killed process to be gone. It takes longer
// only in an uninterruptible system call.
const killTimeout = 5 * time.Second

// process is a dataplane's process, named by a pidfd (pidfd_open(2)): its number
// may be another's as soon as it is gone, the pidfd never is.
type process struct {
	pid   int
	child bool
	pidfd *os.File
	// gone is closed once the process is dead and, if it is a child, reaped.
	gone chan struct{}
	// status is how a child ended; to be read when gone is closed.
	status unix.WaitStatus
}

// newProcess takes ownership of pidfd and starts to watch the process. A child
// is watched, and reaped, until it is dead; another until release.
func newProcess(pid, pidfd int, child bool) (*process, error) {
	// A non-blocking pidfd is watched by the runtime's poller: no thread waits.
	if err := unix.SetNonblock(pidfd, true); err != nil {
		unix.Close(pidfd)
		return nil, fmt.Errorf("pidfd: %w", err)
	}
	p := &process{
		pid: pid, child: child,
		pidfd: os.NewFile(uintptr(pidfd), "pidfd"),
		gone:  make(chan struct{}),
	}
	go p.watch()
	return p, nil
}

// watch closes gone when the process is dead.
func (p *process) watch() {
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return // released already
	}
	// A pidfd is readable when the process has ended.
	if raw.Read(func(fd uintptr) bool { return readable(int(fd)) }) != nil {
		return
	}
	if p.child {
		p.reap()
	}
	close(p.gone)
	p.pidfd.Close()
}

func readable(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return n > 0 || (err != nil && !errors.Is(err, unix.EINTR))
}

// reap takes the exit status. Before that the number is still the child's, since
// nobody else waits for it.
func (p *process) reap() {
	for {
		_, err := unix.Wait4(p.pid, &p.status, 0, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// kill ends the process and waits until it is gone. It is no error if it was
// gone before.
func (p *process) kill() error {
	err := p.signal(unix.SIGKILL)
	if p.wait(0) {
		return nil
	}
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill %d: %w", p.pid, err)
	}
	if !p.wait(killTimeout) {
		return fmt.Errorf("kill %d: still there after %v", p.pid, killTimeout)
	}
	return nil
}

// signal sends a signal to the process, never to another one of its number.
func (p *process) signal(sig unix.Signal) error {
	return p.withFD(func(fd int) error { return unix.PidfdSendSignal(fd, sig, nil, 0) })
}

// withFD calls f with the pidfd, which stays open for the call.
func (p *process) withFD(f func(fd int) error) error {
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	var done error
	if err := raw.Control(func(fd uintptr) { done = f(int(fd)) }); err != nil {
		return err
	}
	return done
}

// wait reports whether the process is gone within d.
func (p *process) wait(d time.Duration) bool {
	select {
	case <-p.gone:
		return true
	default:
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-p.gone:
		return true
	case <-t.C:
		return false
	}
}

// release stops watching, and nothing can be sent to the process any more. A
// child is watched on, so that it is reaped.
func (p *process) release() {
	if !p.child {
		p.pidfd.Close()
	}
}

// exit describes how the process ended. Call it when gone is closed.
func (p *process) exit() string {
	switch {
	case !p.child:
		return "not a child of this process"
	case p.status.Signaled():
		return "signal: " + p.status.Signal().String()
	default:
		return fmt.Sprintf("exit status %d", p.status.ExitStatus())
	}
}

// peer is who listens at the other end of a connection that this side made.
// Stage 1 calls listen(2) with the credentials that the dataplane keeps, and
// those are what SO_PEERCRED tells here (unix(7)). The number is as this
// process's PID namespace sees it.
func peer(c *conn, path string) (*process, error) {
	uid, err := listenerOf(path)
	if err != nil {
		return nil, err
	}
	raw, err := c.sock.SyscallConn()
	if err != nil {
		return nil, err
	}
	pid, pidfd := 0, -1
	if ctlErr := raw.Control(func(fd uintptr) { pid, pidfd, err = peerOf(int(fd), uid) }); ctlErr != nil {
		return nil, ctlErr
	}
	if err != nil {
		return nil, fmt.Errorf("peer of the control socket: %w", err)
	}
	return newProcess(pid, pidfd, false)
}

// listenerOf returns the user that may listen at a control path (bindControl).
func listenerOf(path string) (uint32, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return 0, fmt.Errorf("control path %s: %w", path, err)
	}
	return st.Gid, nil
}

// peerOf returns the listener's number and pidfd. Without SO_PEERPIDFD (before
// Linux 6.5) the number is looked up: if it were another process's by now, the
// listener would be dead, and would not answer the hello that follows.
func peerOf(fd int, uid uint32) (pid, pidfd int, err error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0, -1, err
	}
	if cred.Uid != uid || uid == 0 && ownUser() != 0 || cred.Pid <= 0 {
		return 0, -1, fmt.Errorf("%w: process %d of user %d is no dataplane", ErrProtocol, cred.Pid, cred.Uid)
	}
	pidfd, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	if errors.Is(err, unix.ENOPROTOOPT) {
		pidfd, err = unix.PidfdOpen(int(cred.Pid), 0)
	}
	if err != nil {
		return 0, -1, fmt.Errorf("pidfd of %d: %w", cred.Pid, err)
	}
	return int(cred.Pid), pidfd, nil
}
