// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/containernetworking/cni/pkg/types"

	"sluice/api"
)

// bandwidth is bounds of what the container gets (ingress) and sends (egress), as the
// reference plugin bandwidth has them: bits a second, and bits.
type bandwidth struct {
	IngressRate  uint64 `json:"ingressRate"`
	IngressBurst uint64 `json:"ingressBurst"`
	EgressRate   uint64 `json:"egressRate"`
	EgressBurst  uint64 `json:"egressBurst"`
}

// bounds are those of the file or, as in the reference plugin only if there are none, the
// runtime's.
func (c *conf) bounds() *api.CNIBandwidth {
	b := c.bandwidth
	if b == (bandwidth{}) && c.RuntimeConfig.Bandwidth != nil {
		b = *c.RuntimeConfig.Bandwidth
	}
	if b.IngressRate|b.EgressRate == 0 {
		return nil
	}
	return &api.CNIBandwidth{
		IngressRate: b.IngressRate, IngressBurst: b.IngressBurst, EgressRate: b.EgressRate, EgressBurst: b.EgressBurst,
	}
}

// validateBandwidth refuses a burst without a rate, and a rate of no byte.
func (c *conf) validateBandwidth() error {
	type place struct {
		prefix string
		b      *bandwidth
	}
	all := []place{{"", &c.bandwidth}}
	if c.RuntimeConfig.Bandwidth != nil {
		all = append(all, place{"runtimeConfig.bandwidth.", c.RuntimeConfig.Bandwidth})
	}
	for _, p := range all {
		for _, d := range []struct {
			name        string
			rate, burst uint64
		}{{"ingress", p.b.IngressRate, p.b.IngressBurst}, {"egress", p.b.EgressRate, p.b.EgressBurst}} {
			switch {
			case d.rate == 0 && d.burst != 0:
				return refuse(types.ErrInvalidNetworkConfig, p.prefix+d.name+"Burst", "means nothing without "+d.name+"Rate")
			case d.rate > 0 && d.rate < 8:
				return refuse(types.ErrInvalidNetworkConfig, p.prefix+d.name+"Rate", "want 8 bits a second at least, or 0 for no bound")
			}
		}
	}
	return nil
}
