// SPDX-License-Identifier: Apache-2.0

package qdisc

import (
	"encoding/binary"
	"net/netip"

	"sluice/packet"
	"sluice/trace"
)

// verdict is what filters say of a packet beside its class.
type verdict uint8

const (
	accepted verdict = iota // has a class, or none
	shot                    // an action said drop
	policed                 // beyond its rate
)

// Filter gives what it matches a class, or does something to it. All its matches
// have to hold. Filters are asked in the order of their Prio, then of the list.
type Filter struct {
	Parent   Handle `json:"parent"` // the discipline, or Ingress
	Prio     uint32 `json:"prio"`
	Handle   uint32 `json:"handle,omitempty"`
	Kind     string `json:"kind"`               // u32, flower, fw, matchall
	Protocol uint16 `json:"protocol,omitempty"` // EtherType; 0 is any
	Class    Handle `json:"class,omitempty"`

	Keys   []Key   `json:"keys,omitempty"` // u32
	Flower *Flower `json:"flower,omitempty"`
	// Mark and Mask are fw's: Mark is compared under Mask; without HasMask, the
	// whole mark is.
	Mark    uint32  `json:"mark,omitempty"`
	Mask    uint32  `json:"mask,omitempty"`
	HasMask bool    `json:"has_mask,omitempty"`
	Police  *Police `json:"police,omitempty"`
	Action  Action  `json:"action,omitempty"`
	// SetPriority and SetMark are skbedit's.
	SetPriority *uint32 `json:"set_priority,omitempty"`
	SetMark     *uint32 `json:"set_mark,omitempty"`
}

// Action is what becomes of a packet that a filter matched, or that a policer
// found to conform or to exceed: tc's control words. Zero is the kind's default.
type Action uint8

// The actions.
const (
	ActDefault Action = iota
	ActOK             // has the class, no further filter
	ActDrop
	ActContinue // the next filter
	ActPipe     // the next action; here as ActOK
	ActReclassify
)

// Key is a match of u32: the four bytes at Off, counted from the network header,
// or with AtNext from the transport header.
type Key struct {
	Value  uint32 `json:"value"`
	Mask   uint32 `json:"mask"`
	Off    int32  `json:"off"`
	AtNext bool   `json:"at_next,omitempty"`
}

// Flower is the matches of flower. What is zero matches anything.
type Flower struct {
	DstMAC   packet.MAC   `json:"dst_mac,omitzero"`
	DstMask  packet.MAC   `json:"dst_mac_mask,omitzero"`
	SrcMAC   packet.MAC   `json:"src_mac,omitzero"`
	SrcMask  packet.MAC   `json:"src_mac_mask,omitzero"`
	Proto    uint8        `json:"ip_proto,omitempty"`
	DstIP    netip.Prefix `json:"dst_ip,omitzero"`
	SrcIP    netip.Prefix `json:"src_ip,omitzero"`
	DstPort  [2]uint16    `json:"dst_port,omitzero"` // from, to
	SrcPort  [2]uint16    `json:"src_port,omitzero"`
	TOS      uint8        `json:"ip_tos,omitempty"`
	TOSMask  uint8        `json:"ip_tos_mask,omitempty"`
	VLAN     uint16       `json:"vlan_id,omitempty"`
	HasVLAN  bool         `json:"has_vlan,omitempty"`
	ICMPType uint8        `json:"icmp_type,omitempty"`
	HasICMP  bool         `json:"has_icmp,omitempty"`
}

// rule is a filter at work.
type rule struct {
	*Filter
	police     *policer
	hits       uint64
	bytes, pkt uint64
}

// classify asks the filters at n. The class is 0 if none had one.
func (n *node) classify(r Ref, now int64) (Handle, verdict) { return n.t.ask(n.handle, r, now) }

// ask asks the filters of a discipline, or of a class.
func (t *Tree) ask(at Handle, r Ref, now int64) (Handle, verdict) {
	if len(t.rules) == 0 {
		return 0, accepted
	}
	for _, f := range t.rules[at] {
		if !t.matches(f, r) {
			continue
		}
		class, v, done := f.apply(t.pool, r, now)
		if done {
			return class, v
		}
	}
	return 0, accepted
}

// named is the queue of n's that a packet's priority or the filters name, as class 1 and so
// on of n; none if its hash is to say. As with the kernel, a packet of which filters have
// nothing to say is dropped: ok is false.
func (n *node) named(r Ref, queues int, now int64) (i int32, ok bool) {
	class := Handle(n.t.pool.at(r).Priority)
	if n.handle == 0 || class.Major() != n.handle.Major() || class.Minor() == 0 || int(class.Minor()) > queues {
		if len(n.t.rules[n.handle]) == 0 {
			return none, true
		}
		var v verdict
		if class, v = n.classify(r, now); v != accepted {
			return none, n.judge(r, v)
		}
	}
	if class.Minor() == 0 || int(class.Minor()) > queues {
		return none, n.refuse(r, trace.QdiscUnclassified)
	}
	return int32(class.Minor()) - 1, true
}

// judge drops what the filters dropped.
func (n *node) judge(r Ref, v verdict) bool {
	if v == policed {
		n.stats.Overlimits++
		return n.refuse(r, trace.QdiscPoliced)
	}
	return n.refuse(r, trace.QdiscFiltered)
}

// apply does what the filter does to a packet that it matched; done is false if
// the next filter is to be asked.
func (f *rule) apply(p *Pool, r Ref, now int64) (class Handle, v verdict, done bool) {
	m := p.Meta(r)
	f.hits++
	f.bytes += uint64(m.Wire)
	f.pkt += uint64(m.Segs)
	if f.SetPriority != nil {
		m.Priority = *f.SetPriority
	}
	if f.SetMark != nil {
		m.Mark = *f.SetMark
	}
	action, exceeded := f.Action, shot
	if f.police != nil {
		if action = f.police.judge(m, now); action == ActDrop {
			exceeded = policed
		}
	}
	switch action {
	case ActDrop:
		return 0, exceeded, true
	case ActContinue, ActReclassify:
		return 0, accepted, false
	case ActDefault, ActOK, ActPipe:
	}
	return f.Class, accepted, true
}

// matches reports whether all of the filter's matches hold.
func (t *Tree) matches(f *rule, r Ref) bool {
	m := t.pool.Meta(r)
	if f.Kind == "fw" {
		return f.matchesMark(m.Mark)
	}
	b, v := t.pool.bytes(r)
	if b == nil {
		return f.Protocol == 0 && len(f.Keys) == 0 && f.Flower == nil
	}
	tagged := f.Protocol == packet.EtherTypeVLAN && v.Tags > 0
	if f.Protocol != 0 && f.Protocol != v.EtherType && !tagged {
		return false
	}
	switch f.Kind {
	case "u32":
		return f.matchesKeys(b, v)
	case "flower":
		return f.Flower == nil || f.Flower.matches(b, v)
	}
	return true
}

// matchesMark is fw without a handle: any mark but 0.
func (f *rule) matchesMark(mark uint32) bool {
	if f.HasMask {
		return mark&f.Mask == f.Mark
	}
	if f.Mark == 0 {
		return mark != 0
	}
	return mark == f.Mark
}

func (f *rule) matchesKeys(b []byte, v *packet.View) bool {
	for i := range f.Keys {
		k := &f.Keys[i]
		at := v.L3 + int(k.Off)
		if k.AtNext {
			at = v.L4 + int(k.Off)
		}
		if at < 0 || at+4 > len(b) || binary.BigEndian.Uint32(b[at:])&k.Mask != k.Value&k.Mask {
			return false
		}
	}
	return true
}

func (w *Flower) matches(b []byte, v *packet.View) bool {
	switch {
	case len(b) < packet.EthernetLen,
		!macMatches([6]byte(b[0:6]), w.DstMAC, w.DstMask),
		!macMatches([6]byte(b[6:12]), w.SrcMAC, w.SrcMask),
		w.HasVLAN && v.VID() != w.VLAN:
		return false
	}
	return w.matchesIP(b, v) && w.matchesPorts(v)
}

func (w *Flower) matchesIP(b []byte, v *packet.View) bool {
	if w.Proto != 0 && v.Proto != w.Proto {
		return false
	}
	if w.DstIP.IsValid() && !w.DstIP.Contains(v.DstAddr(b)) {
		return false
	}
	if w.SrcIP.IsValid() && !w.SrcIP.Contains(v.SrcAddr(b)) {
		return false
	}
	if w.TOSMask != 0 {
		tos, ok := tosOf(b, v)
		return ok && tos&w.TOSMask == w.TOS&w.TOSMask
	}
	return true
}

func (w *Flower) matchesPorts(v *packet.View) bool {
	if w.HasICMP {
		icmp := v.Proto == packet.ProtoICMP || v.Proto == packet.ProtoICMPv6
		return icmp && v.Is(packet.ViewHasL4) && uint8(v.SrcPort>>8) == w.ICMPType
	}
	if w.DstPort == [2]uint16{} && w.SrcPort == [2]uint16{} {
		return true
	}
	if !v.Is(packet.ViewHasL4) || v.Proto == packet.ProtoICMP || v.Proto == packet.ProtoICMPv6 {
		return false
	}
	return within(v.DstPort, w.DstPort) && within(v.SrcPort, w.SrcPort)
}

func within(port uint16, r [2]uint16) bool {
	return r == [2]uint16{} || port >= r[0] && port <= r[1]
}

func macMatches(have [6]byte, want, mask packet.MAC) bool {
	for i := range have {
		if have[i]&mask[i] != want[i]&mask[i] {
			return false
		}
	}
	return true
}
