// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"sluice/api"
	"sluice/iproute"
	"sluice/routing"
)

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
