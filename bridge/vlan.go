// SPDX-License-Identifier: Apache-2.0

package bridge

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"sluice/packet"
	"sluice/trace"
)

// Theory of operation.
//
// Every frame belongs to one VLAN in the bridge, in which its stations are
// learned, looked up and flooded to. A port that is VLAN-aware says which: that
// of the tag, or PVID without one. A port that is not aware takes every frame as
// it is, in the VLAN of its outer 802.1Q tag, or in VLAN 0 without one; it is a
// member of all VLANs. So a bridge of unaware ports only is transparent to tags,
// and an unaware port beside aware ones is a trunk of everything, except that
// VLAN 0 doesn't reach the aware ones.

// MaxVID is the highest VLAN; 0 and 4095 are reserved (802.1Q-2018 table 9-2).
const MaxVID = 4094

// VLAN is a port's part in VLAN filtering, in the words of bridge(8). Zero makes
// the port unaware. An access port has a PVID only, a trunk has Tagged, and one
// with a native VLAN both.
type VLAN struct {
	// PVID is the VLAN of what comes without a tag, or with VID 0. What goes
	// leaves it untagged, unless it is among Tagged too. 0: it is refused.
	PVID uint16 `json:"pvid,omitempty"`

	// Tagged are VLANs of which the port is a member, leaving with a tag; Untagged
	// those that leave without. Where both say so, it is untagged.
	Tagged   []VIDRange `json:"tagged,omitempty"`
	Untagged []VIDRange `json:"untagged,omitempty"`

	// QinQ: the port's tags are those of 802.1ad; 802.1Q tags are the payload's.
	// The kernel allows four bytes over the MTU for a tag of 802.1Q only
	// (packet(7)): the interface must have an MTU of four bytes more than the port.
	QinQ bool `json:"qinq,omitempty"`
}

// VIDRange is the VLANs from First to Last, both included.
type VIDRange struct {
	First uint16 `json:"first"`
	Last  uint16 `json:"last"`
}

// ErrVLAN says that a VLAN is none.
var ErrVLAN = errors.New("VLAN must be 1 to 4094")

// Validate reports what is wrong with v.
func (v *VLAN) Validate() error {
	if v.PVID > MaxVID {
		return fmt.Errorf("pvid %d: %w", v.PVID, ErrVLAN)
	}
	for _, set := range [][]VIDRange{v.Tagged, v.Untagged} {
		for _, r := range set {
			if r.First == 0 || r.Last > MaxVID || r.First > r.Last {
				return fmt.Errorf("vid %d-%d: %w", r.First, r.Last, ErrVLAN)
			}
		}
	}
	return nil
}

// Aware reports whether the port filters VLANs.
func (v *VLAN) Aware() bool { return v.PVID != 0 || len(v.Tagged) != 0 || len(v.Untagged) != 0 }

// Has reports whether frames of a VLAN, 0 for none, leave by the port.
func (v *VLAN) Has(vid uint16) bool {
	if !v.Aware() {
		return true
	}
	in := func(r VIDRange) bool { return r.First <= vid && vid <= r.Last }
	return vid != 0 && (vid == v.PVID || slices.ContainsFunc(v.Tagged, in) || slices.ContainsFunc(v.Untagged, in))
}

// vidSet is a set of VLANs.
type vidSet [64]uint64

func (s *vidSet) has(vid uint16) bool { return s[vid>>6&63]&(1<<(vid&63)) != 0 }

func (s *vidSet) add(ranges ...VIDRange) {
	for _, r := range ranges {
		for vid := max(r.First, 1); vid <= min(r.Last, MaxVID); vid++ {
			s[vid>>6] |= 1 << (vid & 63)
		}
	}
}

// vlans is a compiled VLAN.
type vlans struct {
	member, untagged vidSet
	pvid             uint16
	tpid             uint16
}

// compile is nil for a port that is unaware.
func (v *VLAN) compile() *vlans {
	if !v.Aware() {
		return nil
	}
	c := &vlans{pvid: v.PVID, tpid: packet.EtherTypeVLAN}
	if v.QinQ {
		c.tpid = packet.EtherTypeQinQ
	}
	c.member.add(v.Tagged...)
	if v.PVID != 0 && !c.member.has(v.PVID) {
		c.untagged.add(VIDRange{v.PVID, v.PVID})
	}
	c.untagged.add(v.Untagged...)
	for i := range c.member {
		c.member[i] |= c.untagged[i]
	}
	return c
}

// TagOp is what is done to the outer tag of a frame. Zero is nothing.
type TagOp uint8

// The operations.
const (
	TagKeep TagOp = iota
	TagPop
	TagPush
	TagSet // overwrite it
)

// Tag is what is done to a frame's outer tag before it leaves. Zero is nothing.
// It is the same for every frame with the same tags that takes the same way.
type Tag struct {
	Op   TagOp
	TPID uint16 // of TagPush and TagSet
	TCI  uint16 // the same; the priority is that which the frame came with
}

// Apply does it to a frame. False, and nothing is changed, if the frame has not
// the tags for which the Tag was made. TagSet changes bytes that other holders of
// the buffer see, as do the others, which move its beginning.
func (t Tag) Apply(f *packet.Frame) bool {
	switch t.Op {
	case TagPop:
		return f.PopVLAN()
	case TagPush:
		return f.PushVLAN(t.TPID, t.TCI)
	case TagSet:
		if f.View.Tags == 0 {
			return false
		}
		b := f.Bytes()
		binary.BigEndian.PutUint16(b[12:], t.TPID)
		binary.BigEndian.PutUint16(b[14:], t.TCI)
		f.View.TPID[0], f.View.TCI[0] = t.TPID, t.TCI
	case TagKeep:
	}
	return true
}

// tagging is what is known of the tags of the frame at hand.
type tagging struct {
	vid  uint16 // the frame's VLAN in the bridge
	tpid uint16 // of the tag that says so; 0: it has none
	raw  uint16 // that tag
	tci  uint16 // what it should be: with PVID for VID 0
	full bool   // there are two tags already
}

// classify finds the VLAN of a frame from port p. br_allowed_ingress of Linux.
func classify(p *port, v *packet.View) (t tagging, r trace.Reason) {
	t.full = v.Tags == uint8(len(v.TPID))
	want := uint16(packet.EtherTypeVLAN)
	if p.vlans != nil {
		want = p.vlans.tpid
	}
	if v.Tags > 0 && v.TPID[0] == want {
		t.tpid, t.raw = want, v.TCI[0]
	}
	t.vid, t.tci = t.raw&0xfff, t.raw
	if p.vlans == nil {
		return t, trace.None
	}
	if t.vid == 0 {
		t.vid = p.vlans.pvid
		t.tci |= t.vid
	}
	if t.vid == 0 || !p.vlans.member.has(t.vid) {
		return t, trace.VLANIngress
	}
	return t, trace.None
}

// at is what is done to the frame's tag before it leaves by port p; false if it
// must not: br_allowed_egress and br_handle_vlan of Linux.
func (t *tagging) at(p *port) (Tag, bool) {
	want := t.tpid // an unaware port takes what there is
	switch {
	case p.vlans == nil && t.vid == 0:
		return Tag{}, true
	case p.vlans == nil && want == 0:
		want = packet.EtherTypeVLAN
	case p.vlans == nil:
	case !p.vlans.member.has(t.vid):
		return Tag{}, false
	case p.vlans.untagged.has(t.vid):
		want = 0
	default:
		want = p.vlans.tpid
	}
	return t.change(want)
}

// change is what makes the frame's tag one of this TPID; 0: none.
func (t *tagging) change(want uint16) (Tag, bool) {
	switch {
	case want == 0 && t.tpid == 0:
		return Tag{}, true
	case want == 0:
		return Tag{Op: TagPop}, true
	case t.tpid == 0:
		return Tag{TagPush, want, t.tci}, !t.full
	case t.tpid == want && t.raw == t.tci:
		return Tag{}, true
	}
	return Tag{TagSet, want, t.tci}, true
}
