// SPDX-License-Identifier: Apache-2.0

package iproute

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"sluice/bridge"
	"sluice/routing"
)

// VIDs is a set of VLANs, sorted, ranges that touch put together. Its text is
// "10,20-29".
type VIDs []bridge.VIDRange

// ErrVIDs says that a text names no VLANs.
var ErrVIDs = errors.New("want VLANs from 1 to 4094, as 10 or 20-29")

// String is the text.
func (v VIDs) String() string {
	var b strings.Builder
	for i, r := range v {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(int(r.First)))
		if r.First != r.Last {
			b.WriteString("-" + strconv.Itoa(int(r.Last)))
		}
	}
	return b.String()
}

// MarshalText is the text.
func (v VIDs) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText reads the text.
func (v *VIDs) UnmarshalText(text []byte) error {
	*v = nil
	if len(text) == 0 {
		return nil
	}
	for part := range strings.SplitSeq(string(text), ",") {
		r, err := parseRange(part)
		if err != nil {
			return err
		}
		*v = v.with(r)
	}
	return nil
}

func parseRange(text string) (bridge.VIDRange, error) {
	first, last, ranged := strings.Cut(text, "-")
	if !ranged {
		last = first
	}
	a, errA := strconv.ParseUint(first, 10, 16)
	b, errB := strconv.ParseUint(last, 10, 16)
	if errA != nil || errB != nil || a < 1 || b > bridge.MaxVID || a > b {
		return bridge.VIDRange{}, ErrVIDs
	}
	return bridge.VIDRange{First: uint16(a), Last: uint16(b)}, nil
}

// has reports whether a VLAN is in the set.
func (v VIDs) has(vid uint16) bool {
	return slices.ContainsFunc(v, func(r bridge.VIDRange) bool { return r.First <= vid && vid <= r.Last })
}

// with returns the set with a range more.
func (v VIDs) with(r bridge.VIDRange) VIDs {
	var out VIDs
	for _, o := range v {
		if o.Last+1 < r.First || r.Last+1 < o.First {
			out = append(out, o)
			continue
		}
		r = bridge.VIDRange{First: min(r.First, o.First), Last: max(r.Last, o.Last)}
	}
	out = append(out, r)
	slices.SortFunc(out, func(a, b bridge.VIDRange) int { return int(a.First) - int(b.First) })
	return out
}

// without returns the set less a range.
func (v VIDs) without(r bridge.VIDRange) VIDs {
	var out VIDs
	for _, o := range v {
		if o.First < r.First {
			out = append(out, bridge.VIDRange{First: o.First, Last: min(o.Last, r.First-1)})
		}
		if o.Last > r.Last {
			out = append(out, bridge.VIDRange{First: max(o.First, r.Last+1), Last: o.Last})
		}
	}
	return out
}

// VLAN is a port's part in VLAN filtering, see bridge.VLAN.
type VLAN struct {
	PVID     uint16 `json:"pvid,omitempty"`
	Tagged   VIDs   `json:"tagged,omitempty"`
	Untagged VIDs   `json:"untagged,omitempty"`
	QinQ     bool   `json:"qinq,omitempty"`
}

// Bridge is what the bridge is told.
func (v *VLAN) Bridge() bridge.VLAN {
	if v == nil {
		return bridge.VLAN{}
	}
	return bridge.VLAN{PVID: v.PVID, Tagged: v.Tagged, Untagged: v.Untagged, QinQ: v.QinQ}
}

// Aware reports whether the port filters VLANs.
func (v *VLAN) Aware() bool { return v != nil && (v.PVID != 0 || len(v.Tagged)+len(v.Untagged) > 0) }

// VLANChange is a line of `bridge vlan`. Op is add, del or flush; flush makes the
// port unaware.
type VLANChange struct {
	Op             routing.Op
	Dev            string
	VIDs           bridge.VIDRange
	PVID, Untagged bool
}

// ParseVLAN reads what follows `bridge vlan`.
func ParseVLAN(list []string) (VLANChange, error) {
	w := newWords(list)
	op, err := w.operation("add", "delete", "flush")
	if err != nil {
		return VLANChange{}, err
	}
	c := VLANChange{Op: op}
	if err := c.read(w); err != nil {
		return c, err
	}
	switch {
	case c.Dev == "":
		return c, missing("dev")
	case c.VIDs.First == 0 && op != routing.OpFlush:
		return c, missing("vid")
	}
	return c, nil
}

// ParseMembership reads an add without operation and port.
func ParseMembership(list []string) (VLANChange, error) {
	var c VLANChange
	err := c.read(newWords(list))
	if err == nil && c.VIDs.First == 0 {
		err = missing("vid")
	}
	return c, err
}

func (c *VLANChange) read(w *words) error {
	table := keywords[VLANChange]{
		"dev":      func(w *words, c *VLANChange) error { return w.device(&c.Dev) },
		"vid":      (*words).vids,
		"pvid":     func(_ *words, c *VLANChange) error { c.PVID = true; return nil },
		"untagged": func(_ *words, c *VLANChange) error { c.Untagged = true; return nil },
		"self":     nothing[VLANChange],
		"master":   nothing[VLANChange],
	}
	if err := table.each(w, c, unknown); err != nil {
		return err
	}
	if c.PVID && c.VIDs.First != c.VIDs.Last {
		return &routing.ParseError{Word: "pvid", Reason: "of one VLAN only"}
	}
	return nil
}

func (w *words) vids(c *VLANChange) error {
	arg, err := w.argument()
	if err != nil {
		return err
	}
	if c.VIDs, err = parseRange(arg); err != nil {
		return w.wrong(err.Error())
	}
	return nil
}

// With returns the VLANs of a port after a change. What is deleted must be there.
func (v *VLAN) With(c VLANChange) (*VLAN, error) {
	if c.Op == routing.OpFlush {
		return &VLAN{}, nil
	}
	n := VLAN{}
	if v != nil {
		n = *v
	}
	if n.PVID != 0 && !n.Tagged.has(n.PVID) { // said in one word of two meanings
		n.Untagged = n.Untagged.with(bridge.VIDRange{First: n.PVID, Last: n.PVID})
	}
	if c.Op == routing.OpDelete {
		return n.remove(c.VIDs)
	}
	n.add(c)
	return &n, nil
}

func (v *VLAN) add(c VLANChange) {
	v.Tagged, v.Untagged = v.Tagged.without(c.VIDs), v.Untagged.without(c.VIDs)
	if c.Untagged {
		v.Untagged = v.Untagged.with(c.VIDs)
	} else {
		v.Tagged = v.Tagged.with(c.VIDs)
	}
	switch {
	case c.PVID:
		v.PVID = c.VIDs.First
	case c.VIDs.First <= v.PVID && v.PVID <= c.VIDs.Last:
		v.PVID = 0
	}
}

// ErrLastVLAN says why a port's last VLAN can't go.
var ErrLastVLAN = errors.New("the port's last VLAN: without any it would carry all of them; say so with vlan flush, or detach it")

func (v *VLAN) remove(r bridge.VIDRange) (*VLAN, error) {
	for vid := r.First; vid <= r.Last; vid++ {
		if !v.Tagged.has(vid) && !v.Untagged.has(vid) {
			return nil, routing.ErrNoEnt
		}
	}
	v.Tagged, v.Untagged = v.Tagged.without(r), v.Untagged.without(r)
	if r.First <= v.PVID && v.PVID <= r.Last {
		v.PVID = 0
	}
	if !v.Aware() {
		return nil, ErrLastVLAN
	}
	return v, nil
}

// Flags are those of one VLAN on the port, in bridge(8)'s words, if it is a member.
func (v *VLAN) Flags(vid uint16) (flags []string, member bool) {
	pvid := v.PVID == vid
	untagged := v.Untagged.has(vid) || pvid && !v.Tagged.has(vid)
	if pvid {
		flags = append(flags, "PVID")
	}
	if untagged {
		flags = append(flags, "Egress Untagged")
	}
	return flags, untagged || v.Tagged.has(vid)
}
