// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"regexp"
	"testing"
)

var snakeCase = regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`)

func TestReasonsAreNamedOnceAndRoundTrip(t *testing.T) {
	seen := map[string]Reason{}
	for i := range NumReasons {
		r := Reason(i)
		name := r.String()
		if !snakeCase.MatchString(name) {
			t.Errorf("reason %d: name %q is not snake_case", i, name)
		}
		if other, dup := seen[name]; dup {
			t.Errorf("reasons %d and %d are both %q", other, r, name)
		}
		seen[name] = r
		if back, ok := ParseReason(name); !ok || back != r {
			t.Errorf("ParseReason(%q) = %d, %v, want %d", name, back, ok, r)
		}
	}
}

func TestReasonsHaveHelp(t *testing.T) {
	for i := range NumReasons {
		help := Reason(i).Help()
		if len(help) < 8 || help[len(help)-1] == '.' || regexp.MustCompile(`[\n\r]`).MatchString(help) {
			t.Errorf("%v: help %q: want one line without a full stop", Reason(i), help)
		}
	}
}

// The numbers are the places of counters in a file that outlives a version, and
// the words are metric labels: neither may change.
func TestReasonNumbersAreFixed(t *testing.T) {
	fixed := map[Reason]string{
		0: "none", 1: "malformed_ethernet", 2: "malformed_vlan", 3: "malformed_arp", 4: "malformed_ipv4", 5: "malformed_ipv6", 6: "malformed_ext_hdr",
		7: "malformed_l4", 8: "bad_offload", 9: "truncated", 10: "source_multicast", 11: "source_own_mac", 12: "reserved_multicast",
		13: "same_port", 14: "no_port", 15: "too_big", 16: "tx_full", 17: "tx_no_buffer", 18: "tx_down",
		19: "tx_error", 20: "not_segmentable", 21: "local_full", 22: "local_checksum", 23: "no_namespace", 24: "port_removed",
		25: "rx_overrun", 26: "local_protocol", 27: "output_budget", 28: "local_rate", 29: "local_quota", 30: "local_socket",
		31: "vlan_ingress", 32: "vlan_egress", 33: "isolated", 34: "flood_off", 35: "storm", 36: "locked",
		37: "bpdu", 38: "no_member", 39: "malformed_group", 40: "suppressed", 41: "guard_mac", 42: "guard_ip",
		43: "guard_arp", 44: "guard_nd", 45: "guard_ra", 46: "guard_dhcp", 47: "guard_dhcp6", 48: "guard_query",
		49: "frag_overlap", 50: "frag_limit", 51: "frag_malformed", 52: "neigh_full", 53: "neigh_queue", 54: "neigh_failed",
		55: "no_route", 56: "blackhole", 57: "unreachable", 58: "prohibit", 59: "martian_source", 60: "martian_destination",
		61: "rp_filter", 62: "link_scope", 63: "ttl_exceeded", 64: "no_forward", 65: "frag_needed", 66: "source_route",
		67: "malformed_option", 68: "ip_checksum", 69: "conf_malformed", 70: "conf_refused", 71: "link_loop",
		72: "conntrack_full", 73: "conntrack_quota", 74: "conntrack_chain", 75: "conntrack_clash", 76: "conntrack_invalid",
		77: "nat_exhausted", 78: "nat_address", 79: "nat_backend", 80: "nat_untranslatable",
		81: "uplink_conns", 82: "uplink_dials", 83: "uplink_flows", 84: "uplink_full", 85: "uplink_down",
		86: "qdisc_full", 87: "qdisc_memory", 88: "qdisc_aqm", 89: "qdisc_too_big", 90: "qdisc_loss",
		91: "qdisc_policed", 92: "qdisc_filtered", 93: "qdisc_unclassified", 94: "qdisc_horizon", 95: "qdisc_removed",
		96: "nft_drop", 97: "nft_reject", 98: "nft_fault",
	}
	for r, name := range fixed {
		if r.String() != name {
			t.Errorf("reason %d is %q, was %q", r, r, name)
		}
	}
	if len(fixed) != NumReasons {
		t.Errorf("%d reasons, %d listed here: add the new one", NumReasons, len(fixed))
	}
}

func TestUnknownReason(t *testing.T) {
	r := Reason(NumReasons)
	if r.String() != "unknown" || r.Help() == "" {
		t.Errorf("got %q, %q", r.String(), r.Help())
	}
	for _, s := range []string{"", "unknown", "None", "same port"} {
		if got, ok := ParseReason(s); ok {
			t.Errorf("ParseReason(%q) = %v, want refused", s, got)
		}
	}
}

func TestReasonsLeavesOutNone(t *testing.T) {
	all := Reasons()
	for i, r := range all {
		if int(r) != i+1 {
			t.Errorf("Reasons()[%d] = %d", i, r)
		}
	}
}
