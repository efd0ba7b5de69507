// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"sluice/iproute"
	"sluice/qdisc"
	"sluice/qdisc/tc"
)

// said is a setting that the file states: where, and in the words of `link set`.
type said struct{ field, word, value string }

// settings checks them and adds them to a set.
func (v *validator) settings(k iproute.Kind, all []said, to iproute.Settings) {
	for _, s := range all {
		if err := to.Check(k, s.word, s.value, nil); err != nil {
			v.fault(s.field, "%s", err)
		}
	}
}

// saidBools are those of some switches that are given.
func saidBools(field string, all []struct {
	name, word string
	value      *bool
},
) (out []said) {
	for _, b := range all {
		if b.value != nil {
			out = append(out, said{field + "." + b.name, b.word, onOff(*b.value)})
		}
	}
	return out
}

func saidTexts(field string, all []struct {
	name, word string
	value      *string
},
) (out []said) {
	for _, t := range all {
		if t.value != nil {
			out = append(out, said{field + "." + t.name, t.word, *t.value})
		}
	}
	return out
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// routed are the settings of a device of routing.
func (v *validator) routed(field string, forwarding *bool, rpFilter *string, redirects *bool, clampMSS *string, to iproute.Settings) {
	v.settings(iproute.OfDevice, saidBools(field, []struct {
		name, word string
		value      *bool
	}{{"forwarding", "forwarding", forwarding}, {"redirects", "redirects", redirects}}), to)
	v.settings(iproute.OfDevice, saidTexts(field, []struct {
		name, word string
		value      *string
	}{{"rpFilter", "rp_filter", rpFilter}, {"clampMSS", "clamp_mss", clampMSS}}), to)
}

// ports are the settings that ports of a network have.
func (v *validator) ports(field string, r *rawPorts) (iproute.Settings, *iproute.VLAN) {
	to := iproute.Settings{}
	v.settings(iproute.OfPort, saidBools(field, []struct {
		name, word string
		value      *bool
	}{
		{"isolated", "isolated", r.Isolated},
		{"hairpin", "hairpin", r.Hairpin},
		{"learning", "learning", r.Learning},
		{"locked", "locked", r.Locked},
		{"flood", "flood", r.Flood},
		{"mcastFlood", "mcast_flood", r.McastFlood},
		{"bcastFlood", "bcast_flood", r.BcastFlood},
		{"fastLeave", "fastleave", r.FastLeave},
		{"suppress", "neigh_suppress", r.Suppress},
		{"bpduFilter", "bpdu_filter", r.BPDUFilter},
	}), to)
	v.settings(iproute.OfPort, saidTexts(field, []struct {
		name, word string
		value      *string
	}{
		{"mcastRouter", "mcast_router", r.McastRouter},
		{"storm.broadcast", "storm_broadcast", r.Storm.Broadcast},
		{"storm.multicast", "storm_multicast", r.Storm.Multicast},
		{"storm.unknown", "storm_unknown", r.Storm.Unknown},
		{"mirror.in", "mirror_in", r.Mirror.In},
		{"mirror.out", "mirror_out", r.Mirror.Out},
		{"clampMSS", "clamp_mss", r.ClampMSS},
	}), to)
	v.guard(field, r, to)
	if len(to) == 0 {
		to = nil
	}
	return to, v.vlan(field+".vlan", r.VLAN)
}

// guard accepts on, off, one guard, or a list of them.
func (v *validator) guard(field string, r *rawPorts, to iproute.Settings) {
	var value string
	switch g := r.Guard.(type) {
	case nil:
	case bool:
		value = onOff(g)
	case string:
		value = g
	case []any:
		var words []string
		for _, w := range g {
			words = append(words, fmt.Sprint(w))
		}
		value = orElse(strings.Join(words, ","), "off")
	default:
		v.fault(field+".guard", "must be on, off or a list")
	}
	if value != "" {
		v.settings(iproute.OfPort, []said{{field + ".guard", "guard", value}}, to)
	}
	if len(r.GuardAllow) > 0 {
		v.settings(iproute.OfPort, []said{{field + ".guardAllow", "guard_allow", strings.Join(r.GuardAllow, ",")}}, to)
	}
}

// queueing reads the queueing disciplines of a port, in the words of tc(8).
func (v *validator) queueing(field string, lines []string) Queueing {
	egress, ingress, err := tc.Declare(lines)
	if e, ok := errors.AsType[*tc.LineError](err); ok {
		field = fmt.Sprintf("%s[%d]", field, e.Line)
	}
	if err != nil {
		v.fault(field, "%s", err)
	}
	return Queueing{Lines: lines, Egress: egress, Ingress: ingress}
}

// routedQueueing is queueing of a device, which has a discipline for what is routed there
// and none for what comes from it.
func (v *validator) routedQueueing(field string, lines []string) Queueing {
	q := v.queueing(field, lines)
	if q.Ingress != nil {
		v.fault(field, "what comes by a device has no discipline; expected no from and no ingress: give one to the ports where it is sent, or to the other end of the link")
	}
	return q
}

func (v *validator) vlan(field string, r *rawVLAN) *iproute.VLAN {
	if r == nil {
		return nil
	}
	out := &iproute.VLAN{PVID: uint16(r.PVID), QinQ: r.QinQ}
	if r.PVID < 0 || r.PVID > 4094 {
		v.fault(field+".pvid", "%d is out of range; expected 1 to 4094, or 0 for none", r.PVID)
	}
	for _, set := range []struct {
		name string
		raw  []string
		to   *iproute.VIDs
	}{{"tagged", r.Tagged, &out.Tagged}, {"untagged", r.Untagged, &out.Untagged}} {
		if err := set.to.UnmarshalText([]byte(strings.Join(set.raw, ","))); err != nil {
			v.fault(field+"."+set.name, "%q: %s", strings.Join(set.raw, ", "), err)
		}
	}
	if !out.Aware() {
		v.fault(field, "names no VLAN; leave it out for a port that carries all")
	}
	return out
}

func (v *validator) snooping(field string, r *rawSnooping) *Snooping {
	if r == nil {
		return nil
	}
	c := &Snooping{Querier: r.Querier}
	c.IGMPVersion = uint8(v.between(field+".igmpVersion", r.IGMPVersion, 2, 3))
	c.MLDVersion = uint8(v.between(field+".mldVersion", r.MLDVersion, 1, 2))
	c.Robustness = uint8(v.between(field+".robustness", r.Robustness, 1, 7))
	c.MaxGroups = v.between(field+".maxGroups", r.MaxGroups, 1, 1<<20)
	c.MaxPerPort = v.between(field+".maxPerPort", r.MaxPerPort, 1, 1<<20)
	c.QueryInterval = v.duration(field+".queryInterval", r.QueryInterval, time.Second, time.Hour)
	c.ResponseInterval = v.duration(field+".responseInterval", r.ResponseInterval, time.Second, 25*time.Second)
	c.LastMember = v.duration(field+".lastMember", r.LastMember, 100*time.Millisecond, 25*time.Second)
	if c.QueryInterval != 0 || c.ResponseInterval != 0 {
		v.intervals(field, c)
	}
	return c
}

// intervals checks that hosts have answered before they are asked again.
func (v *validator) intervals(field string, c *Snooping) {
	const query, response = 125 * time.Second, 10 * time.Second // RFC 2236 §8.2, §8.3
	q, r := c.QueryInterval, c.ResponseInterval
	if q == 0 {
		q = query
	}
	if r == 0 {
		r = response
	}
	if r >= q {
		v.fault(field+".responseInterval", "%s is not less than queryInterval, %s", r, q)
	}
}

// between is a number that is given within its bounds, or 0.
func (v *validator) between(field string, raw *int, low, high int) int {
	if raw == nil {
		return 0
	}
	if *raw < low || *raw > high {
		v.fault(field, "%d is out of range; expected %d to %d", *raw, low, high)
		return 0
	}
	return *raw
}

func (v *validator) duration(field string, raw *string, low, high time.Duration) time.Duration {
	if raw == nil {
		return 0
	}
	d, err := time.ParseDuration(*raw)
	if err != nil {
		v.fault(field, "%q is not a duration, as 10s or 2m", *raw)
		return 0
	}
	if d < low || d > high {
		v.fault(field, "%s is out of range; expected %s to %s", *raw, low, high)
	}
	return d
}

// stations reads the static entries of an FDB, bridge(8)'s words.
func (v *validator) stations(field string, raw []string) (out []iproute.Station) {
	if n := len(raw); n > MaxEntries {
		v.fault(field, "%d entries; at most %d are supported", n, MaxEntries)
		return nil
	}
	seen := make(map[iproute.Station]int)
	for i, text := range raw {
		at := fmt.Sprintf("%s[%d]", field, i)
		s, err := iproute.ParseStation(strings.Fields(text))
		if err == nil && s.Dev == "" {
			err = fmt.Errorf("needs dev")
		}
		if err != nil {
			v.fault(at, "%q: %s", text, err)
			continue
		}
		key := iproute.Station{MAC: s.MAC, VLAN: s.VLAN}
		if first, dup := seen[key]; dup {
			v.fault(at, "%s has an entry already, static[%d]", s.MAC, first)
		}
		seen[key] = i
		out = append(out, s)
	}
	return out
}

// groups reads the static entries of an MDB.
func (v *validator) groups(field string, raw []string) (out []iproute.Group) {
	if n := len(raw); n > MaxEntries {
		v.fault(field, "%d entries; at most %d are supported", n, MaxEntries)
		return nil
	}
	seen := make(map[iproute.Group]int)
	for i, text := range raw {
		at := fmt.Sprintf("%s[%d]", field, i)
		g, err := iproute.ParseGroup(strings.Fields(text))
		if err == nil && g.Port == "" {
			err = fmt.Errorf("needs port")
		}
		if err != nil {
			v.fault(at, "%q: %s", text, err)
			continue
		}
		if first, dup := seen[g]; dup {
			v.fault(at, "is static[%d] already", first)
		}
		seen[g] = i
		out = append(out, g)
	}
	return out
}

// shares reads what somebody gets, in the words of a class of htb.
func (v *validator) shares(field string, lines []string) qdisc.Shares {
	s, err := tc.Shares(lines)
	if e, ok := errors.AsType[*tc.LineError](err); ok {
		v.fault(fmt.Sprintf("%s[%d]", field, e.Line), "%s", err)
	}
	return s
}

// partOf wants shares of ports to be of what their namespace, or the node, has.
func (v *validator) partOf(field, namespace string, s qdisc.Shares, c *Config) {
	for _, in := range []bool{false, true} {
		above := c.Node.Shares.Of(in)
		for i := range c.Namespaces {
			if c.Namespaces[i].Name == namespace && above == nil {
				above = c.Namespaces[i].Shares.Of(in)
			}
		}
		if s.Of(in) != nil && above == nil {
			v.fault(field, "neither namespace %q nor the node has shares in that direction", namespace)
		}
	}
}
