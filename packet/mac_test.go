// SPDX-License-Identifier: Apache-2.0

package packet_test

import (
	"encoding/json"
	"testing"

	"sluice/packet"
	pt "sluice/packet/packettest"
)

func TestMACKinds(t *testing.T) {
	tests := []struct {
		mac                                string
		multicast, broadcast, zero, reserv bool
		key                                uint64
	}{
		{"02:00:00:00:00:0a", false, false, false, false, 0x02000000000a},
		{"00:00:00:00:00:00", false, false, true, false, 0},
		{"ff:ff:ff:ff:ff:ff", true, true, false, false, 0xffffffffffff},
		{"33:33:00:00:00:01", true, false, false, false, 0x333300000001},
		{"01:80:c2:00:00:00", true, false, false, true, 0x0180c2000000},
		{"01:80:c2:00:00:0f", true, false, false, true, 0x0180c200000f},
		{"01:80:c2:00:00:10", true, false, false, false, 0x0180c2000010},
	}
	for _, tt := range tests {
		m := pt.HW(tt.mac)
		if m.IsMulticast() != tt.multicast || m.IsBroadcast() != tt.broadcast || m.IsZero() != tt.zero ||
			m.IsReserved() != tt.reserv || m.Key() != tt.key || m.String() != tt.mac {
			t.Errorf("%v: multicast %v broadcast %v zero %v reserved %v key %#x",
				m, m.IsMulticast(), m.IsBroadcast(), m.IsZero(), m.IsReserved(), m.Key())
		}
	}
}

func TestMACAsText(t *testing.T) {
	type attachment struct{ MAC packet.MAC }
	in := attachment{pt.HW("02-AA-00-00-00-01")}
	text, err := json.Marshal(in)
	if err != nil || string(text) != `{"MAC":"02:aa:00:00:00:01"}` {
		t.Fatalf("%s, %v", text, err)
	}
	var out attachment
	if err := json.Unmarshal(text, &out); err != nil || out != in {
		t.Fatalf("%+v, %v", out, err)
	}
}

func TestParseMACRefuses(t *testing.T) {
	for _, s := range []string{"", "02:00:00:00:00", "02:00:00:00:00:00:00:01", "02:00:00:00:00:0g"} {
		if m, err := packet.ParseMAC(s); err == nil {
			t.Errorf("%q is %v", s, m)
		}
	}
}
