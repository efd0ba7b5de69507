// SPDX-License-Identifier: Apache-2.0

package interp_test

import (
	"strings"
	"testing"

	"sluice/packet"
)

// TestDeletedElementsKeepTheirPlace in the kernel's sets, until these are swept: about a
// second later, or when gc-interval says. Here their place is free at once. So random
// rulesets delete from sets only that no trial fills.
func TestDeletedElementsKeepTheirPlace(t *testing.T) {
	k := newKernel(t)
	tr := trial{text: `table ip t {
	set d { type inet_service; size 4; flags dynamic,timeout; timeout 1h; gc-interval 1h; }
	chain f { type filter hook forward priority 0; policy accept; udp sport 1 add @d { udp dport } counter; udp sport 2 delete @d { udp dport } counter; }
}
`}
	for i := range 8 {
		for s := range 2 {
			c := choice{src: [2]byte{0, 2}, dst: [2]byte{1, 2}, proto: packet.ProtoUDP, sport: uint16(s + 1), dport: uint16(10 + i), ttl: 64}
			tr.shots = append(tr.shots, shot{c.frame(false), 0})
		}
	}
	difference, _ := k.play(&tr)
	if want := "f rule 1: engine has counter packets 8 bytes 224; kernel counter packets 4 bytes 112"; difference != want {
		t.Errorf("%s\nwant only %s", difference, want)
	}
	tr.text = strings.ReplaceAll(tr.text, "size 4", "size 8")
	if difference, _ := k.play(&tr); difference != "" {
		t.Error(difference)
	}
}
