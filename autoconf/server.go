// SPDX-License-Identifier: Apache-2.0

package autoconf

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"sluice/packet"
	"sluice/trace"
)

// Server is the services of one network. Input may be called by several workers
// at once, and beside Tick. The zero value is not usable, see New.
type Server struct {
	current atomic.Pointer[service]

	mu sync.Mutex
	// +checklocks:mu
	when schedule

	counts counters
}

// service is a compiled Config. It is immutable; what is nil is off.
type service struct {
	link   link
	advert *advert
	v4     *server4
	v6     *server6
}

// New makes a Server that answers nothing yet. The seed is that of the times of
// adverts.
func New(seed uint64) *Server {
	s := &Server{}
	s.current.Store(&service{})
	s.when.rng = rand.New(rand.NewPCG(seed, seed))
	return s
}

// Change is a configuration that was found to be right.
type Change struct {
	server *Server
	next   *service
}

// Validate reports what is wrong with a configuration, by the name of the field.
func (c Config) Validate(l Link) error {
	_, err := compile(l, c)
	return err
}

// Prepare checks and compiles a configuration. Nothing changes before Commit.
func (s *Server) Prepare(l Link, c Config) (*Change, error) {
	next, err := compile(l, c)
	if err != nil {
		return nil, err
	}
	return &Change{server: s, next: next}, nil
}

// Commit makes the configuration the one that holds. What is new in the adverts,
// and what is gone from them, the next Ticks tell everybody. It can't fail.
func (ch *Change) Commit() {
	s := ch.server
	s.mu.Lock()
	defer s.mu.Unlock()
	s.when.change(s.current.Load().advert, ch.next.advert)
	s.current.Store(ch.next)
}

func compile(l Link, c Config) (*service, error) {
	var err error
	s := &service{}
	if s.link, err = l.compile(); err != nil {
		return nil, err
	}
	if c.Advert != nil {
		if s.advert, err = c.Advert.compile(&s.link); err != nil {
			return nil, in("advert", err)
		}
	}
	if c.DHCP4 != nil {
		if s.v4, err = c.DHCP4.compile(&s.link); err != nil {
			return nil, in("dhcp4", err)
		}
	}
	if c.DHCP6 != nil {
		if s.v6, err = c.DHCP6.compile(&s.link); err != nil {
			return nil, in("dhcp6", err)
		}
	}
	return s, nil
}

// Verdict is what Input did with a frame.
type Verdict uint8

const (
	// Pass is: not for this package. The frame is still to be delivered.
	Pass Verdict = iota
	// Done is: taken, with what was appended as the answer; nothing, if silence is.
	Done
	// Malformed is: taken and not answered, since it is not what it should be.
	Malformed
	// Refused is: taken and not answered, since whoever sent it is not the container,
	// or the container has no address of that kind here.
	Refused
)

// Reason is why the frame was dropped, None if it wasn't.
func (v Verdict) Reason() trace.Reason {
	switch v {
	case Malformed:
		return trace.ConfMalformed
	case Refused:
		return trace.ConfRefused
	case Pass, Done:
	}
	return trace.None
}

// Input looks at a frame that came to the network's local port from the port of
// container c, and appends the answer to dst: at most one Ethernet frame, with
// complete checksums, from the gateway. A frame that is not Pass has come to its
// end, but for a router solicitation, which also teaches a neighbour (RFC 4861
// §6.2.6); nobody is taught here.
// Preconditions: f was parsed without fault and passes CheckVnet.
func (s *Server) Input(dst []byte, f *packet.Frame, c *Client, now uint32) ([]byte, Verdict) {
	v := &f.View
	if !v.Is(packet.ViewHasL4) || v.Tags != 0 {
		return dst, Pass
	}
	sv := s.current.Load()
	switch {
	case v.Proto == packet.ProtoICMPv6 && sv.advert != nil:
		return s.solicited(dst, sv, f, now)
	case v.Proto != packet.ProtoUDP:
	case v.DstPort == serverPort4 && v.Is(packet.ViewIPv4) && sv.v4 != nil:
		return s.dhcp4(dst, sv, f, c)
	case v.DstPort == serverPort6 && v.Is(packet.ViewIPv6) && sv.v6 != nil:
		return s.dhcp6(dst, sv, f, c)
	}
	return dst, Pass
}

// Tick appends to dst the advert that is due, if one is; at most one Ethernet
// frame, to all nodes. It is to be called each second.
func (s *Server) Tick(dst []byte, now uint32) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	sv := s.current.Load()
	said := s.when.due(sv.advert, now)
	if said.bytes == nil {
		return dst
	}
	return s.advertise(dst, &said.link, said.bytes)
}

// Final appends to dst the advert that ends all others (RFC 4861 §6.2.5), for a
// network that goes away; nothing if there were none.
func (s *Server) Final(dst []byte) []byte {
	sv := s.current.Load()
	if sv.advert == nil {
		return dst
	}
	return s.advertise(dst, &sv.link, sv.advert.final)
}
