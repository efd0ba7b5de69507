// SPDX-License-Identifier: Apache-2.0

package trial

import (
	"slices"
	"testing"
	"time"

	"sluice/test/traffic/report"
)

func TestGapsBelongToKills(t *testing.T) {
	at := func(ms int64) time.Time { return time.UnixMilli(1000 + ms) }
	silence := func(from int64, ms float64) report.Silence {
		return report.Silence{From: at(from).UnixNano(), MS: ms}
	}
	kills := []time.Time{at(0), at(1000), at(2000)}
	got := gaps(kills, []report.Silence{silence(-500, 400), silence(-1, 90), silence(300, 20), silence(1001, 150), silence(2100, 30)})
	if want := []float64{30, 90, 150}; !slices.Equal(got, want) {
		t.Errorf("gaps %v, want %v", got, want)
	}
	g := Gaps{MS: got}
	if g.Quantile(0.5) != 90 || g.Quantile(0.99) != 150 || g.Quantile(1) != 150 {
		t.Errorf("p50 %v, p99 %v", g.Quantile(0.5), g.Quantile(0.99))
	}
}
