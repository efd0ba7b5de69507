// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/test/lab"
)

// named is a fabric that is only looked at.
type named string

func (n named) Name() string  { return string(n) }
func (named) Connect(*lab.NS) {}

func TestTable(t *testing.T) {
	rate := result{measurement: measurement{figures: []figure{{name: "TCP", unit: "Gbit/s", digits: 2}}}, values: make([][]float64, 2)}
	trip := result{measurement: measurement{figures: []figure{
		{name: "p50", unit: "µs", digits: 1, less: true}, {name: "p99", unit: "µs", digits: 1, less: true},
	}}, values: make([][]float64, 2)}
	for _, v := range []float64{9, 7, 8} {
		rate.add(0, []float64{v})
		rate.add(1, []float64{v + 2})
		trip.add(0, []float64{v, 10 * v})
		trip.add(1, []float64{v * 2, 20 * v})
	}
	got := table([]result{rate, trip}, []*setup{{fabric: named("Sluice")}, {fabric: named("kernel bridge")}})
	want := `| what | Sluice | kernel bridge | ratio |
|---|---:|---:|---:|
| TCP, Gbit/s | 8.00 (7.00–9.00) | 10.00 (9.00–11.00) | **0.80** |
| p50, µs (lower is better) | 8.0 (7.0–9.0) | 16.0 (14.0–18.0) | **0.50** |
| p99, µs (lower is better) | 80.0 (70.0–90.0) | 160.0 (140.0–180.0) | **0.50** |
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

// TestCleanupsRunWhateverHappens gives up in the middle and in a cleanup.
func TestCleanupsRunWhateverHappens(t *testing.T) {
	c := &console{}
	var ran []string
	c.try(func() {
		c.Cleanup(func() { ran = append(ran, "first") })
		c.Cleanup(func() { c.Fatalf("a cleanup fails") })
		c.Cleanup(func() { ran = append(ran, "last") })
		c.Fatalf("gives up")
	})
	c.finish()
	if diff := cmp.Diff([]string{"last", "first"}, ran); diff != "" || !c.failed {
		t.Errorf("cleanups (-want +got), failed %v:\n%s", c.failed, diff)
	}
}
