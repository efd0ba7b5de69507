// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"sluice/conntrack"
	"sluice/dial"
	"sluice/netstack"
)

// session is one agent's connection, as the dataplane sees it. Requests are
// answered one after the other.
type session struct {
	srv *server
	c   *conn
	// staged are the sockets that the next apply may refer to. They are closed
	// if it does not come, fails, or the connection ends first.
	staged map[uint16]int
	// tied says that the process ends with this connection, however that ends.
	tied  atomic.Bool
	ended chan struct{}
	watch *conntrack.Watch // nil: nobody listens to connections
}

// closed is closed when the session has ended. A nil session never ends.
func (s *session) closed() <-chan struct{} {
	if s == nil {
		return nil
	}
	return s.ended
}

// holds reports whether the process has to end with this session. A nil one
// holds nothing.
func (s *session) holds() bool { return s != nil && s.tied.Load() }

// replace ends the session in favour of another agent's, and waits until it has
// left the server's state: a request that it is at is finished first.
func (s *session) replace() {
	if s == nil {
		return
	}
	// A reply that the old agent does not read gives way to the event, too.
	s.c.sock.SetWriteDeadline(time.Now())
	sendEvent(s.c, Event{Kind: eventReplaced, Time: time.Now()})
	s.c.close()
	<-s.ended
}

// run answers requests until the connection ends, or the process is to. In that
// case the connection is left to the process's end, so that the agent sees both
// at the same time.
func (s *session) run() {
	defer close(s.ended)
	defer s.unstage()
	defer s.deafen()
	for {
		m, err := s.c.recv()
		if err == nil {
			err = s.answer(m)
		}
		if err != nil {
			s.srv.agent.CompareAndSwap(s.c, nil)
			s.c.close()
			return
		}
		if m.kind == kindStop {
			close(s.srv.stopping)
			return
		}
	}
}

// answer does what m asks for and sends the answer. It takes ownership of m's
// fds. Its error means that the connection is of no use any more.
func (s *session) answer(m message) error {
	reply, err := s.do(m)
	reply.kind, reply.id = kindReply, m.id
	if no, ok := errors.AsType[*RefusedError](err); ok {
		reply.kind, reply.body = kindRefuse, encode(no)
	} else if err != nil {
		return err
	}
	return s.c.send(reply, time.Now().Add(replyTimeout))
}

// do returns the body and fds of the reply.
func (s *session) do(m message) (message, error) {
	switch m.kind {
	case kindPorts:
		return message{}, s.stage(m)
	case kindDialler:
		return message{}, s.dialBy(m.fds)
	case kindRelay:
		return message{}, s.relay(m.fds)
	default:
		return s.say(m)
	}
}

// say is do for the messages that have no fds.
func (s *session) say(m message) (message, error) {
	if len(m.fds) > 0 {
		closeFDs(m.fds)
		return message{}, fmt.Errorf("%w: fds with message %d", ErrProtocol, m.kind)
	}
	switch m.kind {
	case kindHello:
		h := s.srv.hello()
		return message{body: encode(h)}, nil
	case kindApply:
		return message{}, s.apply(m.body)
	case kindQuery:
		return s.query(m.body)
	case kindInventory:
		return s.inventory(m.id)
	case kindPing:
		return message{}, nil
	case kindStop:
		return message{}, s.stop(m.body)
	case kindTie:
		s.tied.Store(true)
		return message{}, nil
	case kindFree:
		return message{}, s.free()
	case kindStandBy:
		return message{}, s.standBy()
	default:
		return message{}, fmt.Errorf("%w: message %d from an agent", ErrProtocol, m.kind)
	}
}

// stop notes how the process is to end.
func (s *session) stop(body []byte) error {
	if len(body) == 0 {
		return nil
	}
	var how stop
	if err := decode(body, &how); err != nil {
		return err
	}
	s.srv.drain = min(time.Duration(how.DrainMS)*time.Millisecond, maxDrain)
	return nil
}

// free lets the process outlive this connection.
func (s *session) free() error {
	if s.srv.listener == nil {
		return refuse("free", errors.New("no other agent could ever connect"))
	}
	s.tied.Store(false)
	s.srv.standsBy.Store(false)
	return nil
}

// standBy prepares what the first apply will need. From now on the process waits for
// another agent if this one goes, though it is tied.
func (s *session) standBy() error {
	if err := s.srv.stack.StandBy(); err != nil {
		return refuse("stand by", err)
	}
	s.srv.standsBy.Store(s.srv.listener != nil)
	return nil
}

// dialBy makes channels those by which sockets are asked for. It takes the fds over.
func (s *session) dialBy(fds []int) error {
	if len(fds) == 0 {
		closeFDs(fds)
		return refuse("dialler", fmt.Errorf("%d fds", len(fds)))
	}
	c, err := dial.Conn(fds[0])
	if err != nil {
		closeFDs(fds[1:])
		return refuse("dialler", err)
	}
	s.srv.dialler.Attach(c)
	if err := s.srv.stack.DialBy(fds[1:]); err != nil {
		return refuse("dialler", err)
	}
	return nil
}

// relay takes the socket by which DNS queries leave from now on.
func (s *session) relay(fds []int) error {
	if len(fds) != 1 {
		closeFDs(fds)
		return refuse("relay", fmt.Errorf("%d fds for one socket", len(fds)))
	}
	if err := s.srv.relay.use(fds[0]); err != nil {
		return refuse("relay", err)
	}
	return nil
}

// refuse makes the answer to a request that can't be met.
func refuse(field string, err error) error {
	return &RefusedError{Field: field, Message: clip(err.Error())}
}

// stage keeps the fds of m, which it takes ownership of, for the next apply.
func (s *session) stage(m message) error {
	var p ports
	if err := decode(m.body, &p); err != nil {
		closeFDs(m.fds)
		return refuse("ports", err)
	}
	if p.First {
		s.unstage()
	}
	if err := s.checkStage(p.Ports, m.fds); err != nil {
		closeFDs(m.fds)
		return refuse("ports", err)
	}
	for i, index := range p.Ports {
		s.staged[index] = m.fds[i]
	}
	return nil
}

func (s *session) checkStage(indices []uint16, fds []int) error {
	if len(indices) != len(fds) {
		return fmt.Errorf("%d fds for %d ports", len(fds), len(indices))
	}
	seen := make(map[uint16]bool, len(indices))
	for _, index := range indices {
		if _, twice := s.staged[index]; twice || seen[index] {
			return fmt.Errorf("port %d is staged twice", index)
		}
		if index == 0 || index > netstack.MaxIndex {
			return fmt.Errorf("port %d is not in 1..%d", index, netstack.MaxIndex)
		}
		seen[index] = true
	}
	return nil
}

// unstage closes what is staged.
func (s *session) unstage() {
	for index, fd := range s.staged {
		closeFDs([]int{fd})
		delete(s.staged, index)
	}
}

// apply makes a snapshot real. The staged fds are used up in any case: they are
// the netstack's if it takes them, and closed if not.
func (s *session) apply(body []byte) error {
	var snap netstack.Snapshot
	if err := decode(body, &snap); err != nil {
		s.unstage()
		return refuse("snapshot", err)
	}
	if err := s.srv.stack.Apply(&snap, s.staged); err != nil {
		s.unstage()
		return refuse("snapshot", err)
	}
	s.srv.standsBy.Store(false)
	s.srv.applied(&snap, body, s.staged)
	s.staged = make(map[uint16]int)
	return nil
}

// applied notes what an inventory will tell.
func (s *server) applied(snap *netstack.Snapshot, body []byte, fresh map[uint16]int) {
	after := make(map[uint16]int)
	for p := range snap.Ports() {
		after[p.Index] = s.ports[p.Index]
		if fd, ok := fresh[p.Index]; ok {
			after[p.Index] = fd
		}
	}
	s.ports, s.snapshot = after, json.RawMessage(body)
	s.shape = shape{namespaces: len(snap.Namespaces), ports: len(after)}
}

// inventory sends the port sockets, and returns the rest of the answer.
func (s *session) inventory(id uint64) (message, error) {
	var indices []uint16
	for index := range s.srv.ports {
		indices = append(indices, index)
	}
	slices.Sort(indices)
	for part := range slices.Chunk(indices, maxFDs) {
		m := message{kind: kindPart, id: id, body: encode(ports{Ports: part})}
		for _, index := range part {
			m.fds = append(m.fds, s.srv.ports[index])
		}
		if err := s.c.send(m, time.Now().Add(replyTimeout)); err != nil {
			return message{}, err
		}
	}
	last := message{body: encode(inventory{Snapshot: s.srv.snapshot, Counters: s.srv.counters != nil})}
	if s.srv.counters != nil {
		last.fds = []int{int(s.srv.counters.Fd())}
	}
	return last, nil
}
