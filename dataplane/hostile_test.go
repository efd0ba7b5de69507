// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// againstHostile is a client whose dataplane is played by the test.
func againstHostile(t *testing.T) (*Client, *conn) {
	t.Helper()
	ours, theirs := connPair(t)
	if err := ours.sock.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	pidfd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	p, err := newProcess(os.Getpid(), pidfd, false)
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(ours, p)
	c.other = hello{Protocol: Protocol}
	t.Cleanup(func() { c.Close() })
	return c, theirs
}

// play answers the next request with the messages, under its id if theirs is 0.
// The channel is closed when it has.
func play(t *testing.T, c *conn, answers ...message) <-chan struct{} {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		req, err := c.recv()
		if err != nil {
			return
		}
		closeFDs(req.fds)
		for _, m := range answers {
			if m.id == 0 && m.kind != kindEvent {
				m.id = req.id
			}
			if c.send(m, time.Now().Add(wait)) != nil {
				return
			}
		}
	}()
	return done
}

func TestHostileAnswers(t *testing.T) {
	leaksNoFD(t)
	part := func(body string, fds ...int) message {
		return message{kind: kindPart, body: []byte(body), fds: fds}
	}
	twoPorts := encode(inventory{Snapshot: encode(snapshot(1, &cable{index: 1}, &cable{index: 2}))})
	badSnapshot := encode(inventory{Snapshot: encode(snapshot(1, &cable{index: 1}, &cable{index: 1}))})
	s := socketFDs(t, 3)
	e := someFDs(t, 2)
	last := message{kind: kindReply, body: twoPorts}
	for name, answers := range map[string][]message{
		"socket too many":              {part(`{"ports":[1,2]}`, s...), last},
		"socket too few":               {part(`{"ports":[1]}`, s[0]), last},
		"port twice":                   {part(`{"ports":[1,1]}`, s[:2]...), last},
		"port twice in two parts":      {part(`{"ports":[1]}`, s[0]), part(`{"ports":[1]}`, s[1]), last},
		"port that is not there":       {part(`{"ports":[1,3]}`, s[:2]...), last},
		"no socket but an eventfd":     {part(`{"ports":[1,2]}`, s[0], e[0]), last},
		"part without sockets":         {part(`{"ports":[]}`), last},
		"part that is no JSON":         {part(`}`, s[0]), last},
		"sockets and no snapshot":      {part(`{"ports":[1]}`, s[0]), {kind: kindReply, body: []byte("{}")}},
		"a snapshot that is wrong":     {{kind: kindReply, body: badSnapshot}},
		"no JSON":                      {{kind: kindReply, body: []byte("hello")}},
		"counters that are a socket":   {{kind: kindReply, body: []byte(`{"counters":true}`), fds: s[:1]}},
		"counters that are missing":    {{kind: kindReply, body: []byte(`{"counters":true}`)}},
		"more counters than announced": {{kind: kindReply, body: []byte(`{}`), fds: s[:1]}},
		"a request":                    {{kind: kindApply}},
		"a request with fds":           {{kind: kindPorts, fds: s}},
		"an event with fds":            {{kind: kindEvent, body: []byte(`{"kind":"log"}`), fds: s}},
		"an event that is no JSON":     {{kind: kindEvent, body: []byte(`log`)}},
		"an event of a megabyte":       {{kind: kindEvent, body: []byte(strings.Repeat(" ", 1<<20) + "{}")}},
	} {
		t.Run(name, func(t *testing.T) {
			c, other := againstHostile(t)
			play(t, other, answers...)
			snap, files, counters, err := c.inventory(soon(t))
			if !errors.Is(err, ErrProtocol) || snap != nil || files != nil || counters != nil {
				t.Errorf("inventory %v %v %v, error %v", snap, files, counters, err)
				closeAll(files, counters)
			}
		})
	}
}

// socketFDs returns n fds of sockets that the test closes.
func socketFDs(t *testing.T, n int) []int {
	t.Helper()
	var fds []int
	for i := range n {
		c := plug(t, uint16(i+1))
		fd, err := fdOf(c.port)
		if err != nil {
			t.Fatal(err)
		}
		fds = append(fds, fd)
	}
	return fds
}

// TestFDsThatNobodyAskedFor come with the answer to a ping.
func TestFDsThatNobodyAskedFor(t *testing.T) {
	leaksNoFD(t)
	for name, m := range map[string]message{
		"in the reply":     {kind: kindReply, fds: someFDs(t, 5)},
		"in a part":        {kind: kindPart, fds: someFDs(t, 5)},
		"in a refusal":     {kind: kindRefuse, body: []byte(`{}`), fds: someFDs(t, 5)},
		"in a failure":     {kind: kindFailed, body: []byte(`{}`), fds: someFDs(t, 5)},
		"in an old answer": {kind: kindReply, id: 99, fds: someFDs(t, 5)},
	} {
		t.Run(name, func(t *testing.T) {
			c, other := againstHostile(t)
			play(t, other, m, message{kind: kindReply})
			before := fdsOf(t, os.Getpid())
			err := c.Ping(soon(t))
			if m.id == 0 && !errors.Is(err, ErrProtocol) || m.id != 0 && err != nil {
				t.Errorf("ping: %v", err)
			}
			if m.id != 0 {
				return
			}
			<-c.Done()
			await(t, "fds are closed", func() bool { return fdsOf(t, os.Getpid()) <= before })
		})
	}
}

// TestFloodEndsTheConnection: taking events costs the agent CPU time.
func TestFloodEndsTheConnection(t *testing.T) {
	for name, m := range map[string]message{
		"events":      {kind: kindEvent, body: encode(Event{Kind: EventLog, Message: "spam"})},
		"old answers": {kind: kindReply, id: 1 << 50},
	} {
		t.Run(name, func(t *testing.T) {
			c, other := againstHostile(t)
			for c.Err() == nil {
				if other.send(m, time.Now().Add(wait)) != nil {
					break
				}
			}
			<-c.Done()
			if !errors.Is(c.Err(), ErrProtocol) {
				t.Errorf("after a flood: %v", c.Err())
			}
		})
	}
}

func TestEventsNobodyReads(t *testing.T) {
	c, other := againstHostile(t)
	for i := range maxQueue + 11 {
		e := Event{Kind: EventPortDown, Port: uint16(i), Message: strings.Repeat("x", 3*maxText), Attrs: make([]string, 100)}
		if err := other.send(message{kind: kindEvent, body: encode(e)}, time.Now().Add(wait)); err != nil {
			t.Fatal(err)
		}
	}
	play(t, other, message{kind: kindReply})
	if err := c.Ping(soon(t)); err != nil { // all events have come before the answer
		t.Fatal(err)
	}
	for i := range maxQueue {
		if e := <-c.Events(); e.Port != uint16(i) || e.Lost != 0 || len(e.Message) > maxText+3 || len(e.Attrs) > maxAttrs {
			t.Fatalf("event %d: port %d, lost %d", i, e.Port, e.Lost)
		}
	}
	if err := sendEvent(other, Event{Kind: EventPortDown, Port: 7}); err != nil {
		t.Fatal(err)
	}
	if e := <-c.Events(); e.Lost != 11 {
		t.Errorf("%d events lost, want 11", e.Lost)
	}
}

func TestAnswerThatComesTooLate(t *testing.T) {
	leaksNoFD(t)
	c, other := againstHostile(t)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, _, _, err := c.inventory(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	<-play(t, other, message{kind: kindPart, body: []byte(`{"ports":[1]}`), fds: socketFDs(t, 1)}, message{kind: kindReply})
	play(t, other, message{kind: kindReply})
	if err := c.Ping(soon(t)); err != nil {
		t.Errorf("ping after a late answer: %v", err)
	}
}

// TestHalfAnAnswer leaves sockets in a call that is given up, or cut off.
func TestHalfAnAnswer(t *testing.T) {
	leaksNoFD(t)
	half := message{kind: kindPart, body: []byte(`{"ports":[1,2]}`)}
	t.Run("given up", func(t *testing.T) {
		c, other := againstHostile(t)
		half.fds = socketFDs(t, 2)
		play(t, other, half)
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		if _, _, _, err := c.inventory(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
	t.Run("cut off", func(t *testing.T) {
		c, other := againstHostile(t)
		half.fds = socketFDs(t, 2)
		play(t, other, half, message{kind: kindApply})
		if _, _, _, err := c.inventory(soon(t)); !errors.Is(err, ErrProtocol) {
			t.Error(err)
		}
	})
}

// TestAnotherVersion may be asked for what a handover needs, and nothing else.
func TestAnotherVersion(t *testing.T) {
	c, other := againstHostile(t)
	c.other.Protocol = Protocol + 1
	if err := c.Apply(soon(t), snapshot(1), nil); !errors.Is(err, ErrSkew) {
		t.Errorf("apply: %v", err)
	}
	if _, err := c.Status(soon(t)); !errors.Is(err, ErrSkew) {
		t.Errorf("status: %v", err)
	}
	play(t, other, message{kind: kindReply})
	if err := c.Ping(soon(t)); err != nil {
		t.Errorf("ping: %v", err)
	}
}

// TestGarbageOnTheControlSocket comes from somebody who may connect. It costs
// him his connection, and nobody anything else.
func TestGarbageOnTheControlSocket(t *testing.T) {
	cfg := listening(t)
	c := starts(t, cfg)
	ports := plugAll(t, 2)
	applies(t, c, 1, ports...)
	before := fdsOf(t, c.PID())
	random := make([]byte, 3000)
	if _, err := rand.Read(random); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"random bytes":       random,
		"half a header":      []byte("SLD1\x01"),
		"an answer":          header{kind: kindReply}.bytes(),
		"begin":              header{kind: kindBegin}.bytes(),
		"a hello with fds":   header{kind: kindHello, fds: 2}.bytes(),
		"ports that are not": append(header{kind: kindPorts, fds: 2, len: 2}.bytes(), "{}"...),
	} {
		t.Run(name, func(t *testing.T) {
			s, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: cfg.Listen, Net: "unixpacket"})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if _, _, err := s.WriteMsgUnix(data, unix.UnixRights(someFDs(t, 2)...), nil); err != nil {
				t.Fatal(err)
			}
			s.CloseWrite()
			if err := s.SetReadDeadline(time.Now().Add(wait)); err != nil {
				t.Fatal(err)
			}
			for err == nil {
				_, err = s.Read(make([]byte, 4096)) // until the other side closes
			}
			if isTimeout(err) {
				t.Error("the connection is still up")
			}
		})
	}
	n := adopts(t, cfg.Listen)
	adopted(t, n)
	talk(t, ports[0], ports[1], "unimpressed")
	if got := fdsOf(t, c.PID()); got != before {
		t.Errorf("the process has %d fds, %d before", got, before)
	}
}
