// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"strings"
	"testing"

	"sluice/config"
)

func TestRulesetNeedsConnections(t *testing.T) {
	const networks = "networks: [{name: a, subnets: [10.0.0.0/24]}]\n"
	_, err := config.Parse([]byte("namespaces: [{name: a, conntrack: {track: false}, nft: table ip t}]\n" + networks))
	if err == nil || !strings.Contains(err.Error(), "namespaces[0].conntrack.track: false, but nft needs it") {
		t.Errorf("error %v", err)
	}
	c, err := config.Parse([]byte("namespaces: [{name: a, nft: table ip t}]\n" + networks))
	if err != nil || c.Namespaces[0].NFT == nil || *c.Namespaces[0].NFT != "table ip t" {
		t.Errorf("%v, %v", c, err)
	}
}
