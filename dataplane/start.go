// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// startTimeout bounds a start whose context has no deadline. It takes some tens
// of milliseconds.
const startTimeout = 10 * time.Second

// Start starts a dataplane and returns when it is sandboxed and ready for its
// first Apply. It needs CAP_SYS_ADMIN. In order:
//
//  1. The process is cloned into new mount, network, IPC, UTS and PID
//     namespaces, and a session of its own. The PID namespace makes it process 1
//     of an empty world: it sees, and signals, nobody.
//  2. Stage 1 gives up capabilities, user and limits, and executes stage 2.
//  3. Stage 2 says that it is loaded; this side empties its root directory.
//  4. Stage 2 checks that, forbids itself most system calls, and starts to work.
//  5. The control path, if any, is moved to where others find it, and the process
//     is told so. Until then it ends with its agent's connection: a process that
//     nobody can reach must not read the containers' sockets beside the next one.
//
// From then on it does not end with its agent: no PR_SET_PDEATHSIG.
func Start(ctx context.Context, c StartConfig) (*Client, error) {
	n, l, err := start(ctx, c, beside)
	if err == nil {
		err = n.release(ctx, l)
	}
	if err != nil {
		return nil, fmt.Errorf("start dataplane: %w", err)
	}
	return n, nil
}

// release publishes the path and lets the process outlive this side. On an error it
// is gone.
func (c *Client) release(ctx context.Context, l *controlPath) error {
	err := l.publish()
	if err == nil {
		err = c.free(ctx)
	}
	if err != nil {
		l.remove()
		c.Kill()
		c.Close()
	}
	return err
}

// tie makes the process end when this side's connection does, also if this
// process is killed. One of an older protocol can't.
func (c *Client) tie(ctx context.Context) error {
	if c.other.Protocol < tieProtocol {
		return nil
	}
	_, err := c.call(ctx, message{kind: kindTie}, false)
	return err
}

// free undoes tie, and what each process starts with. One that has no control
// path stays tied.
func (c *Client) free(ctx context.Context) error {
	if c.other.Protocol < tieProtocol || c.pathless {
		return nil
	}
	_, err := c.call(ctx, message{kind: kindFree}, false)
	return err
}

// start does all but the last step. The caller publishes the control socket, which is
// bound at its path with a suffix.
func start(ctx context.Context, c StartConfig, suffix string) (*Client, *controlPath, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, startTimeout)
		defer cancel()
	}
	c.UID = uint32(c.options().uid)
	l, err := bindControl(c.Listen, suffix, c.UID)
	if err != nil {
		return nil, nil, err
	}
	// This side must not keep it: connecting to a dead dataplane would succeed.
	defer l.close()
	n, err := launch(ctx, c, l)
	if err != nil {
		l.remove()
		return nil, nil, err
	}
	return n, l, nil
}

// launch takes a process from clone to ready.
func launch(ctx context.Context, c StartConfig, l *controlPath) (*Client, error) {
	cn, p, err := spawn(c, l)
	if err != nil {
		return nil, err
	}
	err = awaitLoaded(ctx, cn, p)
	if err == nil {
		err = p.withFD(emptyRoot)
	}
	if err != nil {
		cn.close()
		p.kill()
		return nil, err
	}
	n := newClient(cn, p)
	n.pathless = l.path == ""
	_, err = n.call(ctx, message{kind: kindBegin}, false)
	if err == nil {
		err = n.greet(ctx)
	}
	if err != nil {
		n.Kill()
		n.Close()
		return nil, err
	}
	return n, nil
}

// spawn clones the process. The control connection's other end, the listener and
// the counters are in it when it returns.
func spawn(c StartConfig, l *controlPath) (*conn, *process, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	defer unix.Close(pair[1])
	cn, err := fileConn(pair[0])
	if err != nil {
		return nil, nil, err
	}
	if c.Program == nil {
		if c.Program, err = LoadProgram(c.Exe); err != nil {
			cn.close()
			return nil, nil, err
		}
		defer c.Program.Close()
	}
	pid, pidfd, err := clone(c, pair[1], l.fd)
	if err != nil {
		cn.close()
		return nil, nil, err
	}
	p, err := newProcess(pid, pidfd, true)
	if err != nil {
		cn.close()
		return nil, nil, err
	}
	return cn, p, nil
}

// options are what the first stage is told.
func (c *StartConfig) options() options {
	o := options{
		stage: 1, listen: c.Listen != "", counters: c.Counters != nil, conns: c.Connections != nil,
		workers: c.Workers, flows: c.FlowEntries, busyPoll: c.BusyPoll,
		level: c.LogLevel, owner: os.Geteuid(), uid: uint(c.UID), alone: c.Alone, connects: c.Connects,
	}
	if o.workers <= 0 {
		o.workers = runtime.GOMAXPROCS(0)
	}
	if o.uid == 0 {
		o.uid = uint(ownUser())
	}
	if o.alone == 0 {
		o.alone = DefaultAlone
	}
	return o
}

// noFD is a hole in a new process's fds.
const noFD = ^uintptr(0)

// clone starts stage 1.
func clone(c StartConfig, control, listen int) (pid, pidfd int, err error) {
	stderr := c.Stderr
	if stderr == nil {
		stderr = os.Stderr
	}
	o := c.options()
	stdio, err := openStdio(stderr)
	if err != nil {
		return 0, -1, err
	}
	defer closeStdio(stdio)
	files := []uintptr{stdio[0].Fd(), stdio[1].Fd(), stdio[2].Fd(), uintptr(control), noFD, noFD, noFD, c.Program.file.Fd()}
	if o.listen {
		files[fdListen] = uintptr(listen)
	}
	if o.counters {
		files[fdCounters] = c.Counters.Fd()
	}
	if o.conns {
		files[fdConns] = c.Connections.Fd()
	}
	// By the number that it has in the child, where others may have been moved.
	exe := fmt.Sprintf("/proc/self/fd/%d", fdProgram)
	pidfd = -1
	pid, err = syscall.ForkExec(exe, append([]string{"sluiced", "dataplane"}, o.args()...), &syscall.ProcAttr{
		Dir: "/", Env: environment(o.workers), Files: files,
		Sys: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWPID,
			Setsid:     true, // no SIGHUP or SIGINT of the agent's terminal
			PidFD:      &pidfd,
		},
	})
	if err != nil {
		return 0, -1, fmt.Errorf("execute the program: %w", err)
	}
	if pidfd < 0 { // before Linux 5.2; the child is not reaped, so the number is its
		pidfd, err = unix.PidfdOpen(pid, 0)
	}
	return pid, pidfd, err
}

// awaitLoaded waits for the first message of the process.
func awaitLoaded(ctx context.Context, cn *conn, p *process) error {
	deadline, _ := ctx.Deadline()
	if err := cn.sock.SetReadDeadline(deadline); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { cn.sock.SetReadDeadline(time.Unix(1, 0)) })
	m, err := cn.recv()
	if !stop() {
		return ctx.Err()
	}
	switch {
	case isTimeout(err):
		return context.DeadlineExceeded
	case errors.Is(err, io.EOF) && p.wait(lastWords):
		return fmt.Errorf("%w: %s", ErrExited, p.exit())
	case err != nil:
		return err
	}
	closeFDs(m.fds)
	switch m.kind {
	case kindLoaded:
		return cn.sock.SetReadDeadline(time.Time{})
	case kindFailed:
		return refused(m.body)
	default:
		return fmt.Errorf("%w: message %d from a dataplane that is not ready", ErrProtocol, m.kind)
	}
}

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// greet exchanges hellos.
func (c *Client) greet(ctx context.Context) error {
	a, err := c.call(ctx, message{kind: kindHello, body: encode(hello{Protocol: Protocol, Build: BuildID()})}, false)
	if err != nil {
		return err
	}
	var h hello
	if err := decode(a.body, &h); err != nil {
		return err
	}
	h.Build, h.Settings = clip(h.Build), clip(h.Settings)
	c.other = h
	return nil
}

// controlPath is a control socket that is being set up: bound beside its final
// path, so that others find the old process, or none, until the new one is
// ready. The zero value, with fd -1, is none.
type controlPath struct {
	fd   int
	path string
	at   string // where it is bound
}

// maxPath leaves room for the suffixes below in sun_path (108 bytes, unix(7)).
const maxPath = 100

// The suffixes: of what is started now, and of what stands by.
const (
	beside  = ".new"
	waiting = ".spare"
)

// bindControl makes the socket. Who may connect is the file's mode, 0600, and
// the directory's. Its group, which has no rights, is the user that listens: by
// that, other agents know the process (peer).
func bindControl(path, suffix string, uid uint32) (*controlPath, error) {
	if path == "" {
		return &controlPath{fd: -1}, nil
	}
	if len(path) > maxPath {
		return nil, fmt.Errorf("control path of %d bytes, at most %d: %s", len(path), maxPath, path)
	}
	at := path + suffix
	if err := os.Remove(at); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	// The mode of the socket becomes the file's: at no time is it open to others.
	err = unix.Fchmod(fd, 0o600)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: at})
	}
	if err == nil {
		err = os.Lchown(at, -1, int(uid))
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("control path %s: %w", path, err)
	}
	return &controlPath{fd: fd, path: path, at: at}, nil
}

// publish moves the socket to its path.
func (l *controlPath) publish() error {
	if l.path == "" {
		return nil
	}
	return os.Rename(l.at, l.path)
}

// remove undoes bindControl on the file system.
func (l *controlPath) remove() {
	if l.path != "" {
		os.Remove(l.at)
	}
}

func (l *controlPath) close() {
	if l.fd >= 0 {
		unix.Close(l.fd)
		l.fd = -1
	}
}
