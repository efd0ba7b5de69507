// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"sluice/api"
	"sluice/test/lab"
	"sluice/test/traffic/report"
)

// statsOf are the counters of the one container on a network.
func (w *way) statsOf(t *testing.T, network string) *api.Stats {
	t.Helper()
	for _, l := range w.d.Links() {
		if l.Network == network {
			return l.Stats
		}
	}
	t.Fatalf("there is no port on %s", network)
	return nil
}

// TestSocketUplinkBulk: what the world sends reaches a container unchanged, in large
// frames of segmentation offload, also if the container stops reading for a while, which
// then stops the world.
func TestSocketUplinkBulk(t *testing.T) {
	w := newWay(t, 1500, socketUplink)
	const (
		enough = 48 << 20 // more than there are buffers for on the way
		// leastMean is what a frame has at least, on an average. Where the window was that of
		// an internet it was 7 KB.
		leastMean = 12 << 10
	)
	data := make([]byte, enough)
	_, _ = rand.Read(data)
	want := sha256.Sum256(data)
	for _, f := range both() {
		at := netip.AddrPortFrom(w.world.IP(f), 7106).String()
		stopped := make(chan error, 1)
		serve(t, w.world, at, func(c *net.TCPConn) {
			_ = c.SetWriteDeadline(time.Now().Add(time.Second / 2))
			n, err := c.Write(data)
			stopped <- err
			_ = c.SetWriteDeadline(time.Now().Add(20 * time.Second))
			_, _ = c.Write(data[n:])
		})
		c := connect(t, w.red, at)
		if err := <-stopped; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%v: the world was not stopped by who does not read: %v", f, err)
		}
		before := w.statsOf(t, "web").TX
		h := sha256.New()
		n, err := io.Copy(h, c)
		if err != nil || !bytes.Equal(h.Sum(nil), want[:]) {
			t.Errorf("%v: %d bytes of %d arrived, %v", f, n, enough, err)
		}
		after := w.statsOf(t, "web").TX
		frames, calls := after.GSO-before.GSO, after.Batches-before.Batches
		t.Logf("%v: %d bytes in %d frames and %d calls", f, after.Bytes-before.Bytes, frames, calls)
		if frames == 0 || frames > enough/leastMean {
			t.Errorf("%v: %d bytes came in %d frames", f, enough, frames)
		}
	}
}

// TestSocketUplinkFlood: datagrams for the world don't count against what a container may
// send to its gateway.
func TestSocketUplinkFlood(t *testing.T) {
	w := newWay(t, 1500, socketUplink)
	sink := w.world.Traffic("sink", "-seconds", "2").Ready() // the flood has to begin meanwhile
	flood := w.red.Traffic("flood", "-size", "64", "-seconds", "1", "-to", fmt.Sprintf("%v:7001", w.world.IP(lab.V4)))
	r := lab.Report[report.Rate](sink, time.Minute)
	lab.Report[report.Rate](flood, time.Minute)
	t.Logf("%.0f datagrams a second", r.PerSecond)
	if d := w.statsOf(t, "web").Drops; r.Count < 1000 || d["local_rate"] != 0 {
		t.Errorf("%d datagrams arrived, dropped: %v", r.Count, d)
	}
}
