// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"

	"sluice/test/lab"
)

// TestSocketUplinkWithoutAgent: a socket whose connection has ended is connected to whomever
// the next one is for. So a dataplane without an agent goes on to make connections, many more
// than it was given sockets for.
func TestSocketUplinkWithoutAgent(t *testing.T) {
	w := newWay(t, 1500, socketUplink)
	var all []string
	for i, f := range append(both(), both()...) {
		at := netip.AddrPortFrom(w.world.IP(f), uint16(7110+i)).String()
		serve(t, w.world, at, func(c *net.TCPConn) {
			if i < 2 { // it ends first
				fmt.Fprintf(c, "%s: ", at)
				_ = c.CloseWrite()
				_, _ = io.Copy(io.Discard, c)
				return
			}
			b, _ := io.ReadAll(c)
			fmt.Fprintf(c, "%s: %s", at, b)
		})
		all = append(all, at)
	}
	ask := func(i int) {
		t.Helper()
		at := all[i%len(all)]
		c := connect(t, w.red, at)
		want := at + ": "
		if i%len(all) >= 2 {
			fmt.Fprint(c, i)
			_ = c.CloseWrite()
			want += fmt.Sprint(i)
		}
		got, err := io.ReadAll(c)
		if err != nil || string(got) != want {
			t.Fatalf("connection %d: %q, %v; want %q", i, got, err, want)
		}
		c.Close()
	}
	for i := range 8 { // each family's first are asked for
		ask(i)
	}
	w.d.KillAgent()
	for i := range 400 {
		ask(i)
	}
	w.d.Start()
	for i := range 8 {
		ask(i)
	}
	lab.TCP(w.red, w.world, lab.V4, 1<<20)
}
