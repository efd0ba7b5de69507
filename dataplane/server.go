// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"sluice/dial"
	"sluice/netstack"
	"sluice/trace"
)

const (
	// beginTimeout bounds the wait for the agent to empty the root directory.
	beginTimeout = 10 * time.Second
	// replyTimeout bounds the wait for an agent that does not read its replies.
	replyTimeout = 5 * time.Second
	// maxDrain bounds what an agent may want of a process that ends.
	maxDrain = 5 * time.Second
)

// server is the dataplane process: a netstack, and at most one agent's session
// at a time. The session goroutine has the state below to itself; run starts the
// next session only when the last one has ended.
type server struct {
	opts    options
	started time.Time
	stack   *netstack.Netstack

	listener *net.UnixListener // nil: none
	counters *os.File          // nil: none
	conns    *os.File          // nil: none
	events   *eventQueue
	dialler  *dial.Client
	relay    *relay
	agent    atomic.Pointer[conn] // who gets events; nil: nobody
	standsBy atomic.Bool          // as a spare
	stopping chan struct{}        // closed when an agent asked to stop; by the session
	drain    time.Duration        // before that, by the session

	// snapshot is what was applied, word for word, and ports are its sockets.
	// The fds are the netstack's.
	snapshot json.RawMessage
	shape    shape
	ports    map[uint16]int
}

// shape is the size of the applied snapshot.
type shape struct{ namespaces, ports int }

// stage2 runs the dataplane until it is told to stop. An error before it is
// ready is told to the agent. The connection is closed by the process's end.
func stage2(o options) error {
	netstack.QuietStack()
	c, err := fileConn(fdControl)
	if err != nil {
		return err
	}
	s := &server{
		opts: o, started: time.Now(),
		events:   newEventQueue(),
		dialler:  new(dial.Client),
		relay:    newRelay(),
		stopping: make(chan struct{}),
		ports:    make(map[uint16]int),
	}
	if err := s.prepare(c); err != nil {
		c.send(failure("stage 2", err), time.Now().Add(time.Second))
		return err
	}
	return s.run(c)
}

// prepare takes the process from "loaded" to "ready": everything that needs a
// file or a system call of those that will be forbidden comes first.
func (s *server) prepare(c *conn) error {
	ignoreSignals()
	if err := s.openInherited(); err != nil {
		return err
	}
	if err := nameProcess(); err != nil {
		return err
	}
	begin, err := awaitBegin(c)
	if err != nil {
		return err
	}
	if err := checkRoot(); err != nil {
		return err
	}
	// Not dumpable: no other process of this user may trace it. It is so from
	// execve on (Program), unless sysctl fs.suid_dumpable is 1.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("PR_SET_DUMPABLE: %w", err)
	}
	if err := lockUp(s.opts.connects); err != nil {
		return err
	}
	if err := s.openStack(); err != nil {
		return err
	}
	return c.send(message{kind: kindReply, id: begin.id}, time.Now().Add(replyTimeout))
}

// nameProcess makes ps(1) show more than "exe". The file is that of the first
// thread, by its number outside: of a process that is not dumpable, /proc/self/comm
// is root's to write, and this one any thread's.
func nameProcess() error {
	pid, err := os.Readlink("/proc/self")
	if err != nil {
		return err
	}
	return os.WriteFile("/proc/self/task/"+pid+"/comm", []byte("sluice-data"), 0)
}

// ignoreSignals makes the process survive what ends the agent's terminal or
// connection.
func ignoreSignals() {
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGPIPE, unix.SIGUSR1, unix.SIGUSR2)
}

// openInherited takes the fds that the agent gave.
func (s *server) openInherited() error {
	if s.opts.listen {
		f := os.NewFile(fdListen, "listener")
		defer f.Close()
		l, err := net.FileListener(f)
		if err != nil {
			return fmt.Errorf("listener: %w", err)
		}
		ul, ok := l.(*net.UnixListener)
		if !ok {
			return errors.New("the listener is not a unix socket")
		}
		s.listener = ul
	}
	if s.opts.counters {
		s.counters = os.NewFile(fdCounters, "counters")
	}
	if s.opts.conns {
		s.conns = os.NewFile(fdConns, "connections")
	}
	return nil
}

func awaitBegin(c *conn) (message, error) {
	deadline := time.Now().Add(beginTimeout)
	if err := c.send(message{kind: kindLoaded}, deadline); err != nil {
		return message{}, err
	}
	if err := c.sock.SetReadDeadline(deadline); err != nil {
		return message{}, err
	}
	m, err := c.recv()
	if err != nil {
		return message{}, err
	}
	closeFDs(m.fds)
	if m.kind != kindBegin {
		return message{}, fmt.Errorf("%w: message %d before begin", ErrProtocol, m.kind)
	}
	return m, c.sock.SetReadDeadline(time.Time{})
}

// openStack starts the workers. They have no port yet.
func (s *server) openStack() (err error) {
	o := netstack.Options{
		Workers:     s.opts.workers,
		FlowEntries: s.opts.flows,
		BusyPoll:    s.opts.busyPoll,
		PortDown:    s.portDown,
		Learned:     func() { s.events.push(Event{Kind: EventLearned, Time: time.Now()}) },
		RuleLogged:  func() { s.events.push(Event{Kind: EventRuleLog, Time: time.Now()}) },
		Connections: s.conns,
		Dialer:      s.dialler,
		Connects:    s.opts.connects,
		HostDNS:     s.relay,
		Log:         slog.New(&logHandler{queue: s.events, level: s.opts.level}),
	}
	if s.counters != nil {
		if o.Counters, err = trace.MapCounters(s.counters); err != nil {
			return fmt.Errorf("counters: %w", err)
		}
	}
	if s.stack, err = netstack.New(o); err != nil {
		return err
	}
	s.dialler.Accepted = s.stack.Accept
	return nil
}

func (s *server) portDown(index uint16) {
	s.events.push(Event{Kind: EventPortDown, Time: time.Now(), Port: index})
}

// run serves one agent after the other, the first of which is first, until one
// asks to stop, a SIGTERM comes, or nobody can ever ask again.
func (s *server) run(first *conn) error {
	term := make(chan os.Signal, 1)
	signal.Notify(term, unix.SIGTERM)
	done := make(chan struct{})
	defer s.end(done)
	go s.events.send(s.agent.Load, done)
	next := make(chan *conn)
	if s.listener != nil {
		go s.accept(next, done)
	}
	// Tied: the process has no path yet at which another agent would find it.
	cur := s.begin(first, true)
	var alone <-chan time.Time // what stands by waits so long
	for {
		select {
		case c := <-next:
			cur.replace()
			if s.endsWith(cur) {
				return nil
			}
			// What stands by remains tied, to this one.
			cur, alone = s.begin(c, s.standsBy.Load()), nil
		case <-cur.closed():
			if s.endsWith(cur) {
				return nil
			}
			cur = nil
			if s.standsBy.Load() {
				alone = time.After(s.opts.alone)
			}
		case <-alone:
			return nil
		case <-s.stopping:
			if s.drain > 0 {
				s.stack.Drain(s.drain)
			}
			return nil
		case <-term:
			return nil
		}
	}
}

// endsWith reports whether the process ends with a session.
func (s *server) endsWith(n *session) bool { return n.holds() && !s.standsBy.Load() }

// hello is what the process says of itself.
func (s *server) hello() hello {
	return hello{
		Protocol: Protocol, Build: s.opts.build, Generation: s.stack.Generation(),
		StandsBy: s.standsBy.Load(), Settings: s.opts.settings(),
	}
}

// end stops forwarding. The process exits next, which closes what is open.
func (s *server) end(done chan struct{}) {
	close(done)
	s.dialler.Close()
	if s.listener != nil {
		s.listener.Close()
	}
	s.stack.Close()
}

// begin starts the session of an agent.
func (s *server) begin(c *conn, tied bool) *session {
	n := &session{srv: s, c: c, staged: make(map[uint16]int), ended: make(chan struct{})}
	n.tied.Store(tied)
	s.agent.Store(c)
	s.events.poke()
	go n.run()
	return n
}

// accept passes on the connections of those who may be an agent. The path is
// guarded by its directory; this is for a directory that is not.
func (s *server) accept(next chan<- *conn, done <-chan struct{}) {
	for {
		sock, err := s.listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(100 * time.Millisecond) // out of fds or memory
			continue
		}
		if !s.mayCommand(sock) {
			sock.Close()
			continue
		}
		select {
		case next <- newConn(sock):
		case <-done:
			sock.Close()
			return
		}
	}
}

// mayCommand reports whether the peer is root or the user that started this
// process.
func (s *server) mayCommand(sock *net.UnixConn) bool {
	raw, err := sock.SyscallConn()
	if err != nil {
		return false
	}
	var cred *unix.Ucred
	ctlErr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if ctlErr != nil || err != nil {
		return false
	}
	return cred.Uid == 0 || int(cred.Uid) == s.opts.owner
}
