// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"encoding/json"
	"fmt"
)

// Iperf is what iperf3(1) reports.
type Iperf struct {
	Intervals []struct {
		Sum IperfSum `json:"sum"`
	} `json:"intervals"`
	End struct {
		Received IperfSum `json:"sum_received"`
		Streams  []struct {
			Receiver IperfSum `json:"receiver"`
		} `json:"streams"`
	} `json:"end"`
}

// IperfSum is what one stream, or all of them, had in some time.
type IperfSum struct {
	Rate float64 `json:"bits_per_second"`
}

// Iperf runs iperf3's client, which must succeed. An error is a report that can't be read.
func (n *NS) Iperf(to string, args ...string) (r Iperf, err error) {
	n.lab.t.Helper()
	out := n.Run(append([]string{"iperf3", "-c", to, "-J"}, args...)...)
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		return Iperf{}, fmt.Errorf("iperf3: %w\n%s", err, out)
	}
	return r, nil
}
