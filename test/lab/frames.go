// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"sluice/test/traffic/report"
)

// Send sends frames from the container's interface, byte for byte, four
// milliseconds apart: below every limit of rate that the kernel has by default.
func (n *NS) Send(frames ...[]byte) {
	n.lab.t.Helper()
	n.StartSend(frames...).sent(len(frames))
}

// Sending is a Send under way.
type Sending struct{ proc *Proc }

// StartSend is Send in the background; an empty frame is a pause of 100 ms.
func (n *NS) StartSend(frames ...[]byte) *Sending {
	n.lab.t.Helper()
	var lines strings.Builder
	for _, f := range frames {
		if len(f) == 0 {
			lines.WriteString("pause 100ms\n")
			continue
		}
		fmt.Fprintf(&lines, "%x\n", f)
	}
	file := n.lab.File(fmt.Sprintf("frames-%s-%d", n.name, n.lab.count()), lines.String())
	return &Sending{n.Traffic("frames", "-i", n.ifname, "-file", file)}
}

// Wait waits until all is sent.
func (s *Sending) Wait() { s.sent(-1) }

func (s *Sending) sent(n int) {
	s.proc.t.Helper()
	if r := Report[report.Frames](s.proc, patience); n >= 0 && r.Sent != n {
		s.proc.t.Errorf("%s: sent %d frames of %d", s.proc.name, r.Sent, n)
	}
}

// Recording is what arrives at a container's interface.
type Recording struct {
	ns   *NS
	proc *Proc
}

// Record starts to record.
func (n *NS) Record() *Recording {
	n.lab.t.Helper()
	return &Recording{ns: n, proc: n.Traffic("record", "-i", n.ifname).Ready()}
}

// Frames are those that have arrived so far.
func (r *Recording) Frames() [][]byte {
	var all [][]byte
	for line := range strings.Lines(r.proc.Output()) {
		if digits, isFrame := strings.CutPrefix(strings.TrimSpace(line), "frame "); isFrame {
			b, err := hex.DecodeString(digits)
			if err == nil {
				all = append(all, b)
			}
		}
	}
	return all
}

// Stop ends the recording and returns all of it.
func (r *Recording) Stop() [][]byte {
	r.proc.t.Helper()
	r.proc.Stop().Expect(0)
	return r.Frames()
}

// Count is how many of the frames so far are such.
func (r *Recording) Count(is func([]byte) bool) int {
	n := 0
	for _, b := range r.Frames() {
		if is(b) {
			n++
		}
	}
	return n
}

// Expect waits until n frames of a kind have come, and a moment longer: there
// must not be more.
func (r *Recording) Expect(what string, n int, is func([]byte) bool) {
	r.proc.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end) && r.Count(is) < n; {
		time.Sleep(20 * time.Millisecond)
	}
	time.Sleep(50 * time.Millisecond)
	if got := r.Count(is); got != n {
		r.proc.t.Errorf("%s: %d frames of %q, want %d", r.ns.name, got, what, n)
	}
}

// Settle waits until nothing has arrived at any of the recordings for a while.
func Settle(quiet time.Duration, all ...*Recording) {
	size := func() (n int) {
		for _, r := range all {
			n += len(r.proc.Output())
		}
		return n
	}
	last, since := size(), time.Now()
	for end := time.Now().Add(patience); time.Since(since) < quiet && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
		if now := size(); now != last {
			last, since = now, time.Now()
		}
	}
}
