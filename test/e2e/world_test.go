// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"testing"
	"time"

	"sluice/test/trial"
)

// TestWorld calls a web server, iperf3 and a name server behind each kind of uplink, from
// twenty containers at the same time, and from five that have no IPv4, by NAT64.
func TestWorld(t *testing.T) {
	for _, k := range trial.Kinds() {
		t.Run(k.Name, func(t *testing.T) { trial.World{Kind: k, Containers: 20, SixOnly: 5}.Run(t) })
	}
}

// TestKills kills the dataplane, the agent, and both, while twenty thousand connections
// are in the table; `make kill-test` does so often.
func TestKills(t *testing.T) {
	k := trial.Kills{Kind: trial.Kinds()[0], Kills: 2, Victims: trial.Victims(), Entries: 20_000, Period: 700 * time.Millisecond}
	all := k.Run(t)
	t.Logf("\n%s", trial.Table(all))
	for _, g := range all { // a busy machine starts a process as slowly as it does everything
		if g.Quantile(1) > 5000 {
			t.Errorf("%s killed: nothing came through for %.0f ms", g.Victim, g.Quantile(1))
		}
	}
}

// TestManyConnections opens and ends as many as there is time for here; `make scale` a
// million.
func TestManyConnections(t *testing.T) {
	s := trial.Scale{Kind: trial.Kinds()[0], Flows: 30_000, Rate: 20_000}.Run(t)
	t.Logf("\n%s", s.String())
}

// TestScannersNeighbour has a container scan ports beside another that connects: its
// quota is all that it gets.
func TestScannersNeighbour(t *testing.T) {
	s := trial.Scan{Kind: trial.Kinds()[0], Probe: "syn", Quota: 1000, Rate: 3000, Pairs: 2, Each: 600 * time.Millisecond}.Run(t)
	t.Logf("\n%s", s.String())
	if s.Ratio() < 0.3 { // `bench scan` measures it on a machine that does nothing else
		t.Errorf("beside a scan its neighbour has %.2f of its rate", s.Ratio())
	}
}
