// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"net/netip"
)

// MaxAliases is how many names a container may have in DNS beside its own.
const MaxAliases = 64

// DNSName is a name of a namespace's own, with its addresses.
type DNSName struct {
	Namespace string       `json:"namespace"`
	Name      string       `json:"name"`
	Addresses []netip.Addr `json:"addresses"`
	Line      string       `json:"line"`
}

// DNSUpstream is a resolver that is asked for what a namespace does not know.
type DNSUpstream struct {
	Address string `json:"address"`
	// Via is "host" or "namespace": where it is asked from.
	Via string `json:"via"`
	// Down says that it did not answer when it was asked last.
	Down bool `json:"down,omitempty"`
}

// DNSStats is what the DNS of a namespace did since its dataplane was started.
type DNSStats struct {
	Namespace string `json:"namespace"`
	Domain    string `json:"domain"`
	DNS64     string `json:"dns64,omitempty"` // the prefix
	// Queries came from containers; of these, Local were answered from the namespace's
	// own names, Hits from the cache, Forwarded are the questions that upstreams were
	// asked, and Failed those that none answered.
	Queries   uint64 `json:"queries"`
	Local     uint64 `json:"local"`
	Hits      uint64 `json:"hits"`
	Forwarded uint64 `json:"forwarded"`
	Failed    uint64 `json:"failed"`
	// Limited came too fast, Refused are those of containers that have too many waiting
	// already, Malformed those that are not answered by anybody here.
	Limited   uint64 `json:"limited"`
	Refused   uint64 `json:"refused"`
	Malformed uint64 `json:"malformed"`
	// Truncated answers were too long for UDP.
	Truncated uint64 `json:"truncated"`
	// Sent counts each try at an upstream, OverTCP those that were repeated by TCP,
	// Mismatched answers to what nobody had asked.
	Sent       uint64 `json:"sent"`
	OverTCP    uint64 `json:"over_tcp"`
	Mismatched uint64 `json:"mismatched"`
	Waiting    int    `json:"waiting"`

	CacheEntries    int           `json:"cache_entries"`
	CacheMaxEntries int           `json:"cache_max_entries"`
	CacheBytes      int           `json:"cache_bytes"`
	CacheMaxBytes   int           `json:"cache_max_bytes"`
	CacheEvicted    uint64        `json:"cache_evicted"`
	Upstreams       []DNSUpstream `json:"upstreams"`
}

// DNSNames returns the names of namespaces.
func (c *Client) DNSNames(ctx context.Context, q ShowQuery) ([]DNSName, error) {
	return list[DNSName](ctx, c, PathDNSNames, q.values())
}

// DNSStats returns what the DNS of namespaces did.
func (c *Client) DNSStats(ctx context.Context, q ShowQuery) ([]DNSStats, error) {
	return list[DNSStats](ctx, c, PathDNSStats, q.values())
}
