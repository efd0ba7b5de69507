// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"slices"

	"sluice/api"
	"sluice/iproute"
	"sluice/routing"
)

// mustKnow refuses names of devices or ports of which no namespace that a query is
// about has one, as ip(8) and bridge(8) do: a slip must not look like an empty list.
func (s *state) mustKnow(q query, names ...string) error {
	spaces := []string{q.namespace}
	if q.namespace == "" {
		spaces = s.spaces()
	}
	for _, name := range names {
		has := func(space string) bool { return s.hasDevice(space, name) }
		if name != "" && !slices.ContainsFunc(spaces, has) {
			return refuse(api.CodeNotFound, "words", "%s", wording(noDevice(name)))
		}
	}
	return nil
}

// hasDevice reports whether a namespace has a device or a port of a name.
func (s *state) hasDevice(space, name string) bool {
	return name == "lo" || s.isDevice(space, name) ||
		slices.ContainsFunc(s.attachedIn(space), func(a *attachmentRecord) bool {
			return a.Name == name || a.ID == name || a.hostIfName() == name
		})
}

// publicSettings are the settings of a port that are in force.
func (a *attachmentRecord) publicSettings(n *networkRecord, names *routing.Names) *api.PortSettings {
	s := a.settings(n)
	out := &api.PortSettings{
		Guard: append([]string{}, s.GuardNames()...), GuardAllow: s.Allowed(),
		Isolated: s.Is("isolated"), Hairpin: s.Is("hairpin"), Learning: s.Is("learning"), Locked: s.Is("locked"),
		Flood: s.Is("flood"), McastFlood: s.Is("mcast_flood"), BcastFlood: s.Is("bcast_flood"),
		FastLeave: s.Is("fastleave"), Suppress: s.Is("neigh_suppress"), BPDUFilter: s.Is("bpdu_filter"),
		Storm:    api.Storm{Broadcast: limit(s, "storm_broadcast"), Multicast: limit(s, "storm_multicast"), Unknown: limit(s, "storm_unknown")},
		VLAN:     publicVLAN(a.vlan(n)),
		MirrorIn: s.Mirror("mirror_in"), MirrorOut: s.Mirror("mirror_out"),
		McastRouter: mcastRouter(s), ClampMSS: orWord(s["clamp_mss"], "off"),
	}
	if id := s.Table(); id != 0 {
		out.Table = names.TableName(id)
	}
	return out
}

// limit is a storm limit as text; empty: none.
func limit(s iproute.Settings, word string) string {
	if v := s[word]; v != "off" {
		return v
	}
	return ""
}

func mcastRouter(s iproute.Settings) int {
	switch s["mcast_router"] {
	case "0":
		return 0
	case "2":
		return 2
	}
	return 1
}

func orWord(v, otherwise string) string {
	if v == "" {
		return otherwise
	}
	return v
}

func publicVLAN(v *iproute.VLAN) *api.VLAN {
	if !v.Aware() {
		return nil
	}
	return &api.VLAN{PVID: v.PVID, Tagged: v.Tagged.String(), Untagged: v.Untagged.String(), QinQ: v.QinQ}
}
