// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"net/netip"
	"time"

	"sluice/ipam"
)

// MaxRanges bounds each of the lists of Leases, MaxQuarantine its time.
const (
	MaxRanges     = 256
	MaxQuarantine = time.Hour
)

// Leases says which addresses of a network containers are given.
type Leases struct {
	// Ranges are in subnets of the network; a subnet without any is given out as a
	// whole. Exclude are never given out. Both as ipam.ParseRange reads them.
	Ranges  []string `json:"ranges,omitempty"`
	Exclude []string `json:"exclude,omitempty"`
	// Quarantine is how long an address is not given out again, whole seconds.
	Quarantine time.Duration `json:"quarantine,omitempty"`
}

type rawLeases struct {
	Ranges     []string `yaml:"ranges"`
	Exclude    []string `yaml:"exclude"`
	Quarantine *string  `yaml:"quarantine"`
}

// leases checks which addresses are given out.
func (v *validator) leases(field string, r *rawLeases, subnets []netip.Prefix) (l Leases) {
	if r == nil {
		return l
	}
	l.Ranges = v.ranges(field+".ranges", r.Ranges, subnets)
	l.Exclude = v.ranges(field+".exclude", r.Exclude, subnets)
	if r.Quarantine == nil {
		return l
	}
	d, err := time.ParseDuration(*r.Quarantine)
	if err != nil || d < 0 || d > MaxQuarantine || d%time.Second != 0 {
		v.fault(field+".quarantine", "%q: expected whole seconds, 0s to %s", *r.Quarantine, MaxQuarantine)
	}
	l.Quarantine = d
	return l
}

func (v *validator) ranges(field string, list []string, subnets []netip.Prefix) []string {
	if len(list) > MaxRanges {
		v.fault(field, "%d entries; at most %d are supported", len(list), MaxRanges)
		return nil
	}
	for i, text := range list {
		at := fmt.Sprintf("%s[%d]", field, i)
		r, ok := ipam.ParseRange(text)
		switch {
		case !ok:
			v.fault(at, "%q: expected an address, a prefix or FIRST-LAST", text)
		case !inOne(subnets, r):
			v.fault(at, "%s is not within one of the network's subnets", text)
		}
	}
	return list
}

func inOne(subnets []netip.Prefix, r ipam.Range) bool {
	for _, s := range subnets {
		if s.Contains(r.First) && s.Contains(r.Last) {
			return true
		}
	}
	return false
}
