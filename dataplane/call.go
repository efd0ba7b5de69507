// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sluice/netstack"
)

// call is a request that waits for its answer.
type call struct {
	answer chan message // capacity 1
	// wantFDs says that fds may come with the answer, and parts before it.
	wantFDs bool
	// parts came so far, with so many fds and bytes; guarded by Client.mu.
	parts        []message
	nfds, nbytes int
}

// answer is what came back: the parts, then the reply. The fds are the caller's.
type answer struct {
	message
	parts []message
}

// close closes all fds of the answer.
func (a answer) close() {
	closeFDs(a.fds)
	for _, p := range a.parts {
		closeFDs(p.fds)
	}
}

// bounded gives a context a deadline if it has none.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, callTimeout)
}

// call sends m and waits for its answer, for as long as the context allows. The
// answer's fds are the caller's; there are none unless wantFDs.
func (c *Client) call(ctx context.Context, m message, wantFDs bool) (answer, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	if err := c.understands(m.kind); err != nil {
		return answer{}, err
	}
	k := &call{answer: make(chan message, 1), wantFDs: wantFDs}
	id, err := c.enter(k)
	if err != nil {
		return answer{}, err
	}
	m.id = id
	deadline, _ := ctx.Deadline()
	if err := c.conn.send(m, deadline); err != nil {
		c.leave(id, k)
		return answer{}, c.sendError(err)
	}
	select {
	case r := <-k.answer:
		return c.finish(r, k.parts) // parts are complete, nobody writes them now
	case <-ctx.Done():
		err = ctx.Err()
	case <-c.done:
		err = c.Err()
	}
	c.leave(id, k)
	return answer{}, err
}

// understands reports an error for a request whose meaning the other side's
// version of the protocol may not share.
func (c *Client) understands(k kind) error {
	switch {
	case k == kindHello || k == kindBegin || k == kindInventory || k == kindPing || k == kindStop,
		(k == kindTie || k == kindFree) && c.other.Protocol >= tieProtocol,
		c.other.Protocol == Protocol:
		return nil
	default:
		return fmt.Errorf("%w: it speaks version %d, this side %d", ErrSkew, c.other.Protocol, Protocol)
	}
}

// sendError prefers the reason why the connection ended, if it has.
func (c *Client) sendError(err error) error {
	t := time.NewTimer(2 * lastWords)
	defer t.Stop()
	if isTimeout(err) {
		return context.DeadlineExceeded
	}
	select {
	case <-c.done:
		return c.Err()
	case <-t.C:
		return err
	}
}

// enter registers a request under a new id.
func (c *Client) enter(k *call) (uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, c.err
	}
	c.lastID++
	c.pending[c.lastID] = k
	return c.lastID, nil
}

// leave gives a request up, and closes what came for it so far.
func (c *Client) leave(id uint64, k *call) {
	c.mu.Lock()
	delete(c.pending, id)
	parts := k.parts
	k.parts = nil
	c.mu.Unlock()
	answer{parts: parts}.close()
	select {
	case r := <-k.answer: // it came this very moment
		closeFDs(r.fds)
	default:
	}
}

// finish turns the last message of an answer into what call returns.
func (c *Client) finish(r message, parts []message) (answer, error) {
	a := answer{message: r, parts: parts}
	if r.kind == kindReply {
		return a, nil
	}
	a.close()
	return answer{}, refused(r.body)
}

// refused decodes a RefusedError.
func refused(body []byte) error {
	var no RefusedError
	if err := decode(body, &no); err != nil {
		return err
	}
	return &RefusedError{Field: clip(no.Field), Message: clip(no.Message)}
}

// read takes what comes until the connection ends, and says why it did.
func (c *Client) read() {
	defer close(c.ended)
	err := c.readAll()
	c.conn.close()
	c.fail(c.cause(err))
	close(c.done)
	close(c.events)
	c.abandon()
}

func (c *Client) readAll() error {
	for {
		m, err := c.conn.recv()
		if err == nil {
			err = c.dispatch(m)
		}
		if err != nil {
			return err
		}
	}
}

// fail notes why the connection ended; the first reason holds.
func (c *Client) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
}

// cause finds the reason behind the error that ended the connection.
func (c *Client) cause(err error) error {
	if errors.Is(err, ErrProtocol) || errors.Is(err, ErrReplaced) || c.Err() != nil {
		return err
	}
	if no := new(RefusedError); errors.As(err, &no) {
		return fmt.Errorf("%w: %w", ErrExited, no)
	}
	if c.proc.wait(lastWords) {
		return fmt.Errorf("%w: %s", ErrExited, c.proc.exit())
	}
	return fmt.Errorf("control connection broke: %w", err)
}

// abandon closes the fds of answers that will not be completed. Their callers
// see done, and leave; both may happen in any order.
func (c *Client) abandon() {
	c.mu.Lock()
	var all []answer
	for _, k := range c.pending {
		all = append(all, answer{parts: k.parts})
		k.parts = nil
	}
	c.mu.Unlock()
	for _, a := range all {
		a.close()
	}
}

// dispatch takes ownership of m's fds. An error ends the connection.
func (c *Client) dispatch(m message) error {
	switch m.kind {
	case kindReply, kindRefuse, kindPart:
		return c.deliver(m)
	case kindEvent:
		if len(m.fds) == 0 {
			return c.event(m.body)
		}
	case kindFailed:
		if len(m.fds) == 0 {
			return refused(m.body)
		}
	default: // a request, as only agents make
	}
	closeFDs(m.fds)
	return fmt.Errorf("%w: message %d with %d fds from a dataplane", ErrProtocol, m.kind, len(m.fds))
}

// deliver hands a message to the call that waits for it.
func (c *Client) deliver(m message) error {
	c.mu.Lock()
	k := c.pending[m.id]
	err := k.accepts(m)
	if k != nil && err == nil {
		k.take(m)
		if m.kind != kindPart {
			delete(c.pending, m.id)
		}
	}
	c.mu.Unlock()
	if k != nil && err == nil {
		return nil
	}
	closeFDs(m.fds)
	if err == nil {
		err = c.unasked() // the answer to a call that was given up
	}
	return err
}

// accepts reports an error if m can't be an answer, or part of one, to the call.
// A nil call was given up, and accepts anything.
func (k *call) accepts(m message) error {
	switch {
	case k == nil:
		return nil
	case !k.wantFDs && (len(m.fds) > 0 || m.kind == kindPart):
		return fmt.Errorf("%w: %d fds that nobody asked for", ErrProtocol, len(m.fds))
	case m.kind == kindPart && len(m.fds) == 0,
		k.nfds+len(m.fds) > netstack.MaxIndex+1, k.nbytes+len(m.body) > 2*MaxBody:
		return fmt.Errorf("%w: %d fds and %d bytes after %d and %d", ErrProtocol,
			len(m.fds), len(m.body), k.nfds, k.nbytes)
	}
	return nil
}

// take adds m to the call's answer.
func (k *call) take(m message) {
	if m.kind == kindPart {
		k.parts = append(k.parts, m)
		k.nfds, k.nbytes = k.nfds+len(m.fds), k.nbytes+len(m.body)
		return
	}
	k.answer <- m
}

// event passes an event on to whoever reads Events.
func (c *Client) event(body []byte) error {
	if err := c.unasked(); err != nil {
		return err
	}
	var e Event
	if len(body) > maxInline {
		return fmt.Errorf("%w: event of %d bytes", ErrProtocol, len(body))
	}
	if err := decode(body, &e); err != nil {
		return err
	}
	switch e.Kind {
	case EventLog, EventPortDown, EventLearned, EventRuleLog:
		c.publish(e)
		return nil
	case eventReplaced:
		return ErrReplaced
	default:
		return nil // a newer process tells more than this side knows
	}
}

// publish bounds the event's strings, and drops it rather than wait.
func (c *Client) publish(e Event) {
	e.Message = clip(e.Message)
	e.Attrs = e.Attrs[:min(len(e.Attrs), maxAttrs)]
	for i := range e.Attrs {
		e.Attrs[i] = clip(e.Attrs[i])
	}
	lost := e.Lost
	e.Lost += c.lost
	select {
	case c.events <- e:
		c.lost = 0
	default:
		c.lost += lost + 1
	}
}

// unasked counts what came without a request; too much of it is an attack on
// this process's CPU.
func (c *Client) unasked() error {
	if c.recent.add(time.Now()) > maxUnasked {
		return fmt.Errorf("%w: flood of messages", ErrProtocol)
	}
	return nil
}

// rate counts events in the current second.
type rate struct {
	start time.Time
	n     int
}

func (r *rate) add(now time.Time) int {
	if now.Sub(r.start) >= time.Second {
		r.start, r.n = now, 0
	}
	r.n++
	return r.n
}
