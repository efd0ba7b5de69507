// SPDX-License-Identifier: Apache-2.0

package autoconf

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"sync"

	"sluice/packet"
)

// Learner is the other side of a Server: it asks the link that a device is on for
// addresses, routes and servers of names, and keeps them as long as they are good. Like
// a Server it is a function of frames and of times that it is given. Its methods may be
// called at once.
//
// An address is asked for on the link before it is used (RFC 5227 §2.1.1, RFC 4862
// §5.4), one probe and a second's wait, and given up if somebody has it. What a Learner
// before this one held stays in use while it is confirmed.
type Learner struct {
	mu sync.Mutex
	// +checklocks:mu
	link link
	// +checklocks:mu
	cfg Learn
	// +checklocks:mu
	begun bool
	// +checklocks:mu
	rng *rand.Rand
	// +checklocks:mu
	v4 client4
	// +checklocks:mu
	v6 client6
	// +checklocks:mu
	hosts listener
	// +checklocks:mu
	probes map[netip.Addr]*probe
	// said is what was last told to whoever asks.
	// +checklocks:mu
	said Learned
}

// Emit takes a frame, which is good until it returns.
type Emit func(frame []byte)

// forever is the end of what does not end.
const forever = math.MaxInt64 / 2

// lasts is the end of a lifetime in seconds.
func lasts(now int64, seconds uint32) int64 {
	if seconds == Forever {
		return forever
	}
	return now + int64(seconds)
}

// NewLearner makes one that asks nothing yet. The seed is that of its identifiers.
func NewLearner(seed uint64) *Learner {
	return &Learner{rng: rand.New(rand.NewPCG(seed, ^seed)), probes: make(map[netip.Addr]*probe)}
}

// Change is a configuration of a Learner that is ready to be swapped in.
func (l *Learner) Change(on Link, c Learn) (commit func(), err error) {
	next, err := on.compile()
	if err != nil {
		return nil, err
	}
	return func() { l.change(next, c) }, nil
}

func (l *Learner) change(next link, c Learn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	again := l.begun && c.Again != l.cfg.Again
	held := c.Held
	c.Held = nil
	was := l.cfg
	l.link, l.cfg = next, c
	if !l.begun && held != nil {
		l.adopt(held)
	}
	l.begun = true
	l.v4.set(c.DHCP, was.DHCP)
	l.v6.set(c.DHCP6, was.DHCP6)
	if !c.SLAAC {
		l.hosts = listener{}
	} else if !was.SLAAC {
		l.hosts.ask()
	}
	if again {
		l.v4.confirm()
		l.v6.confirm()
		l.hosts.ask()
	}
}

// adopt goes on with what another one held.
//
// +checklocks:l.mu
func (l *Learner) adopt(held *Learned) {
	l.said = held.clone()
	l.v4.lease, l.v6.lease = held.DHCP, held.DHCP6
	l.hosts.heard = held.clone()
	l.hosts.heard.DHCP, l.hosts.heard.DHCP6 = nil, nil
	for _, p := range held.Addresses() {
		l.probes[p.Addr()] = &probe{done: true}
	}
}

// Learned is what is known now.
func (l *Learner) Learned() Learned {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.said.clone()
}

// Input looks at a frame that came to the local port. It reports whether it ends here,
// and whether what is Learned changed.
// Preconditions: f was parsed without fault and passes CheckVnet.
func (l *Learner) Input(f *packet.Frame, now int64, emit Emit) (taken, changed bool) {
	v := &f.View
	if v.Tags != 0 || !v.Is(packet.ViewARP|packet.ViewHasL4) {
		return false, false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.cfg.On() {
		return false, false
	}
	switch {
	case v.Is(packet.ViewARP) || v.IsND() && v.SrcPort>>8 != packet.NDRouterAdvert:
		l.contested(f)
		return false, false // others want to see it, too
	case v.IsND():
		l.hear(f, now)
	case !ForLearner(v):
		return false, false
	case v.Is(packet.ViewIPv4):
		l.answer4(f, now, emit)
		taken = true
	default:
		l.answer6(f, now, emit)
		taken = true
	}
	return taken, l.tell(now)
}

// Tick does what is due. It is to be called each second, and reports whether what is
// Learned changed.
func (l *Learner) Tick(now int64, emit Emit) (changed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cfg.On() {
		l.probing(now, emit)
		l.due4(now, emit)
		l.hosts.expire(now)
		l.dueRS(now, emit)
		l.due6(now, emit)
	}
	return l.tell(now)
}

// tell compares what is known with what was told, and reports whether it is to be told
// again: something follows from it that did not, or it now lasts much longer.
//
// +checklocks:l.mu
func (l *Learner) tell(now int64) bool {
	is := l.hosts.heard.clone()
	is.Prefixes = l.good(l.hosts.heard.Prefixes)
	if a := l.v4.lease; a != nil && l.free(a.Address.Addr()) {
		is.DHCP = a
	}
	if a := l.v6.lease; a != nil {
		is.DHCP6 = l.goodLease(a, now)
	}
	longer := 2*(is.end()-now) > 3*(l.said.end()-now) || is.DHCP != nil && l.said.DHCP != nil && is.DHCP.End != l.said.DHCP.End
	if is.Same(&l.said) && !longer {
		return false
	}
	l.said = is
	return true
}

// good are prefixes without addresses that somebody has, and those of which that is
// known.
//
// +checklocks:l.mu
func (l *Learner) good(all []LearnedPrefix) (out []LearnedPrefix) {
	for _, p := range all {
		if p.Address.IsValid() {
			probe := l.probes[p.Address]
			if probe == nil || !probe.done {
				continue // soon
			}
			if probe.taken {
				p.Address = netip.Addr{}
			}
		}
		out = append(out, p)
	}
	return out
}

// goodLease is a lease with those of its addresses that are nobody's.
//
// +checklocks:l.mu
func (l *Learner) goodLease(a *Lease6, now int64) *Lease6 {
	good := *a
	good.Addrs = nil
	for _, s := range a.Addrs {
		if l.free(s.Addr) && now < s.End {
			good.Addrs = append(good.Addrs, s)
		}
	}
	return &good
}

// ForLearner reports whether a packet may be a server's answer, which a Learner has to
// see although its device has no address yet.
func ForLearner(v *packet.View) bool {
	return v.Proto == packet.ProtoUDP && v.Is(packet.ViewHasL4) &&
		(v.DstPort == clientPort4 && v.SrcPort == serverPort4 || v.DstPort == clientPort6 && v.SrcPort == serverPort6)
}
