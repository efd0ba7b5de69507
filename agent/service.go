// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"strings"

	"sluice/api"
	"sluice/config"
	"sluice/conntrack"
	"sluice/nat"
	"sluice/natspec"
	"sluice/routing"
)

// serviceRecord is a service in the state file.
type serviceRecord struct {
	natspec.Service
	// ID4 and ID6 are its numbers in the NAT, for each family one; 0: not yet.
	ID4, ID6 uint16
	// Binds are the backends', in their order.
	Binds []conntrack.Bind
}

// declared takes over a service, and keeps the numbers of what stays. A backend that
// comes back is another one: its connections are over.
func (r *serviceRecord) declared(s natspec.Service) serviceRecord {
	next := serviceRecord{Service: s, ID4: r.ID4, ID6: r.ID6, Binds: make([]conntrack.Bind, len(s.Real))}
	for i := range s.Real {
		j := r.find(&s.Real[i])
		if j >= 0 && j < len(r.Binds) && (r.Real[j].State != "gone" || s.Real[i].State == "gone") {
			next.Binds[i] = r.Binds[j]
		}
	}
	return next
}

// find is the place of a backend; -1 if it has none.
func (r *serviceRecord) find(b *natspec.Real) int {
	return slices.IndexFunc(r.Real, func(o natspec.Real) bool { return o.Same(b) })
}

// service is one by its name; -1 if there is none.
func (c *connectionsRecord) service(name string) int {
	return slices.IndexFunc(c.Services, func(s serviceRecord) bool { return s.Name == name })
}

// declareServices takes over what the file says.
func declareServices(was []serviceRecord, is []natspec.Service) (out []serviceRecord) {
	old := connectionsRecord{Services: was}
	for _, s := range is {
		r := new(serviceRecord)
		if i := old.service(s.Name); i >= 0 {
			r = &was[i]
		}
		out = append(out, r.declared(s))
	}
	return out
}

// number gives the services and backends that have none their numbers, which are
// unique in the snapshot, and backends a generation that none had before.
func (s *state) number(c *connectionsRecord) error {
	services, backends := numbers{}, numbers{}
	for i := range s.namespaces {
		for _, r := range s.namespaces[i].Connections.Services {
			services.note(r.ID4)
			services.note(r.ID6)
			for _, b := range r.Binds {
				backends.note(b.ID)
			}
		}
	}
	for i := range c.Services {
		r := &c.Services[i]
		if err := errors.Join(services.give(&r.ID4), services.give(&r.ID6)); err != nil {
			return err
		}
		for j := range r.Binds {
			b := &r.Binds[j]
			if b.ID != 0 {
				continue
			}
			if err := backends.give(&b.ID); err != nil {
				return err
			}
			b.Gen = newGeneration()
		}
	}
	return nil
}

// numbers are those that are in use, and where to look for a free one.
type numbers struct {
	taken map[uint16]bool
	next  int
}

func (n *numbers) note(id uint16) {
	if n.taken == nil {
		n.taken = make(map[uint16]bool)
	}
	n.taken[id] = true
}

// give gives a number that is free, if there is none yet.
func (n *numbers) give(id *uint16) error {
	if *id != 0 {
		return nil
	}
	for n.next++; n.next <= 0xffff; n.next++ {
		if free := uint16(n.next); !n.taken[free] {
			n.note(free)
			*id = free
			return nil
		}
	}
	return refuse(api.CodeExhausted, "services", "more than 65535 backends, or services, of all namespaces; more are not supported")
}

// newGeneration is one that no other has had, as far as chance can say: not 0, and not
// conntrack.Never.
func newGeneration() uint32 {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint32(b[:])&^(1<<31) | 1
}

// natServices are the services for the dataplane, of each family one.
func (c *connectionsRecord) natServices() (out []nat.Service) {
	for i := range c.Services {
		r := &c.Services[i]
		four, six := nat.Service{ID: r.ID4}, nat.Service{ID: r.ID6}
		if r.Persistent != nil {
			four.Affinity, six.Affinity = *r.Persistent, *r.Persistent
		}
		for j := range r.Real {
			b := &r.Real[j]
			if b.State == "gone" {
				continue
			}
			to := nat.Backend{Bind: r.Binds[j], Addr: b.Addr, Port: b.Port, Weight: b.Weight}
			if b.State == "draining" {
				to.State = nat.Draining
			}
			of := &four
			if b.Addr.Is6() {
				of = &six
			}
			of.Backends = append(of.Backends, to)
		}
		out = append(out, four, six)
	}
	return out
}

// serviceRules are the rules that lead to services.
func (c *connectionsRecord) serviceRules() []nat.Rule {
	if len(c.Services) == 0 {
		return nil
	}
	m := natspec.ServiceMap{}
	for i := range c.Services {
		r := &c.Services[i]
		for _, l := range r.Listen {
			id := r.ID4
			if l.At.Addr().Is6() {
				id = r.ID6
			}
			m.Add(l, id)
		}
	}
	return m.Rules()
}

// behindSocket is who the containers are behind a socket uplink by NAT64: nobody sees
// the address (RFC 7335).
func behindSocket() netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 0, 1}) }

// nat64Rule is the rule of NAT64, not active while its device isn't there.
func (s *state) nat64Rule(n *namespaceRecord) natRule {
	spec := *n.Connections.NAT64
	text, device, there := "prerouting "+spec.String(), uint16(0), true
	if spec.Device != "" {
		device, there = s.deviceNumbers(n.Name)[spec.Device], s.isDevice(n.Name, spec.Device)
		if net := s.network(spec.Device); net != nil && net.bySocket() {
			device, spec.Pool = 0, nat.One(behindSocket())
		}
	}
	return natRule{spec.Rule(device), text, there}
}

// service is `service add`, `service set` and `service del`.
func (e *editor) service(words []string) error {
	verb, line := "", ""
	if len(words) > 0 {
		verb, line = words[0], strings.Join(words[1:], " ")
	}
	run, known := map[string]func(natspec.Service, int) error{
		"add": e.addService, "set": e.setService, "del": e.dropService,
	}[verb]
	if !known {
		return &routing.ParseError{Word: verb, Reason: "want add, set or del"}
	}
	s, err := natspec.ParseService(line)
	if err != nil {
		return err
	}
	return run(s, e.own().Connections.service(s.Name))
}

// addService makes a service, or adds places and backends to one that is there.
func (e *editor) addService(s natspec.Service, at int) error {
	c := &e.own().Connections
	if c.Track != nil && !*c.Track {
		return refuse(api.CodeInvalid, "commands", "the namespace tracks no connections (conntrack.track: false)")
	}
	if at < 0 && len(s.Listen) == 0 {
		return refuse(api.CodeNotFound, "commands", "there is no service %s; a new one needs a place, as tcp 10.96.0.10:80", s.Name)
	}
	next := natspec.Service{Name: s.Name}
	if at >= 0 {
		next = c.Services[at].Service
	} else if len(c.Services) == config.MaxServices {
		return refuse(api.CodeExhausted, "commands", "%d services; more are not supported", len(c.Services))
	}
	if s.Persistent != nil {
		next.Persistent = s.Persistent
	}
	next.Listen = append(slices.Clone(next.Listen), s.Listen...)
	for i := range s.Real {
		b := s.Real[i]
		if at >= 0 && c.Services[at].find(&b) >= 0 {
			return refuse(api.CodeExists, "commands", "service %s has backend %s already; see service set", s.Name, b.Place())
		}
		b.Complete()
		next.Real = append(slices.Clone(next.Real), b)
	}
	return e.putService(next, at)
}

// setService changes what is said of one that is there: its places are replaced.
func (e *editor) setService(s natspec.Service, at int) error {
	if at < 0 {
		return noService(s.Name)
	}
	old := &e.own().Connections.Services[at]
	next := old.Service
	if len(s.Listen) > 0 {
		next.Listen = s.Listen
	}
	if s.Persistent != nil {
		next.Persistent = s.Persistent
	}
	next.Real = slices.Clone(next.Real)
	for i := range s.Real {
		j := old.find(&s.Real[i])
		if j < 0 {
			return refuse(api.CodeNotFound, "commands", "service %s has no backend %s", s.Name, s.Real[i].Place())
		}
		if w := s.Real[i].Weight; w != 0 {
			next.Real[j].Weight = w
		}
		if state := s.Real[i].State; state != "" {
			next.Real[j].State = state
		}
	}
	return e.putService(next, at)
}

// dropService takes away a service, or backends of it.
func (e *editor) dropService(s natspec.Service, at int) error {
	if at < 0 {
		return noService(s.Name)
	}
	if len(s.Listen) > 0 || s.Persistent != nil {
		return refuse(api.CodeInvalid, "commands", "want the name of a service, and maybe real and backends")
	}
	c := &e.own().Connections
	if len(s.Real) == 0 {
		return e.setServices(slices.Delete(slices.Clone(c.Services), at, at+1))
	}
	next := c.Services[at].Service
	next.Real = slices.Clone(next.Real)
	for i := range s.Real {
		j := slices.IndexFunc(next.Real, func(o natspec.Real) bool { return o.Same(&s.Real[i]) })
		if j < 0 {
			return refuse(api.CodeNotFound, "commands", "service %s has no backend %s", s.Name, s.Real[i].Place())
		}
		next.Real = slices.Delete(next.Real, j, j+1)
	}
	return e.putService(next, at)
}

func noService(name string) error {
	return refuse(api.CodeNotFound, "commands", "there is no service %s", name)
}

// putService writes one, in its place or as a new one.
func (e *editor) putService(s natspec.Service, at int) error {
	all := slices.Clone(e.own().Connections.Services)
	if len(s.Listen) > natspec.MaxListeners || len(s.Real) > natspec.MaxReal {
		return refuse(api.CodeExhausted, "commands", "a service has at most %d places and %d backends", natspec.MaxListeners, natspec.MaxReal)
	}
	for i := range all {
		for _, l := range s.Listen {
			if i != at && slices.Contains(all[i].Listen, l) {
				return refuse(api.CodeExists, "commands", "%s is where service %s is already", l, all[i].Name)
			}
		}
	}
	for i, l := range s.Listen {
		if slices.Contains(s.Listen[:i], l) {
			return refuse(api.CodeExists, "commands", "service %s is at %s already", s.Name, l)
		}
	}
	if at < 0 {
		all, at = append(all, serviceRecord{}), len(all)
	}
	all[at] = all[at].declared(s)
	return e.setServices(all)
}

func (e *editor) setServices(all []serviceRecord) error {
	rec := e.record(e.space)
	rec.Connections.Services = all
	e.records[e.space] = true
	if err := e.st.number(&rec.Connections); err != nil {
		return err
	}
	return e.t.zone(&rec.Connections)
}
