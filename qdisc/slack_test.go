// SPDX-License-Identifier: Apache-2.0

package qdisc

import "testing"

// Who asks for packets as late as Slack says loses nothing of a rate.
func TestSlack(t *testing.T) {
	class := HTBClass{Rate: Rate{Bytes: 100 * mbit}, Burst: 40_000, CBurst: 40_000}
	for name, tt := range map[string]struct {
		spec *Spec
		size uint32
		want bool // there is some
	}{
		"tbf":                {tbfSpec(100*mbit, 40_000, 1<<20), 1514, true},
		"super-frames":       {tbfSpec(1000*mbit, 200_000, 1<<24), 68_000, true},
		"tbf of one frame":   {tbfSpec(mbit, 1600, 1<<20), 1514, true},
		"tbf, exactly":       {tbfSpec(mbit, 1514, 1<<20), 1514, false},
		"htb":                {htbSpec(100*mbit, class), 1514, true},
		"htb below a slow":   {htbSpec(100*mbit, HTBClass{Rate: Rate{Bytes: mbit}, Burst: 1600, CBurst: 1600}), 1514, true},
		"netem":              {netemSpec(Netem{Delay: 1000}), 1514, false},
		"nobody has to wait": {root("pfifo"), 1514, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSim(t, tt.spec)
			if got := s.tree.Slack(); (got > 0) != tt.want {
				t.Fatalf("slack %d", got)
			}
			rate := float64(tt.spec.rate())
			if rate == 0 {
				return
			}
			s.greedy(to(meta(tt.size, 0), 0), 100)
			for s.now < 4*second {
				s.arrive()
				s.leave()
				s.now = max(s.tree.NextTime(s.now)+s.tree.Slack(), s.now+1)
			}
			want := rate * float64(s.now-second) / second
			near(t, "rate", float64(s.bytes(0, second, s.now)), want, .001+float64(tt.size)/want)
		})
	}
}

// rate is the least of a Spec, 0 if it has none.
func (s *Spec) rate() (least uint64) {
	if q := s.Qdiscs[0].TBF; q != nil {
		return q.Rate.Bytes
	}
	for _, c := range s.Classes {
		if least == 0 || c.HTB.Rate.Bytes < least {
			least = c.HTB.Rate.Bytes
		}
	}
	return least
}
