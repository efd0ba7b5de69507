// SPDX-License-Identifier: Apache-2.0

package api

import "context"

// NFTRequest is a text in the language of nft(8): commands that change the ruleset of a
// namespace, all of them or none, or that ask about it.
type NFTRequest struct {
	// Namespace: empty means the only one there is.
	Namespace string `json:"namespace,omitempty"`
	// Port is an attachment whose own ruleset is meant, by its name; empty: the
	// namespace's.
	Port string `json:"port,omitempty"`
	// File is the name by which errors tell places in Text.
	File string `json:"file,omitempty"`
	Text string `json:"text"`
	// JSON says that Text is libnftables-json(5).
	JSON bool `json:"json,omitempty"`
	// Included are the files that Text includes, by path.
	Included map[string]string `json:"included,omitempty"`
	// Check changes nothing. Echo asks for what was changed, with handles.
	Check bool `json:"check,omitempty"`
	Echo  bool `json:"echo,omitempty"`
	// Show are options of listings.
	Show NFTShow `json:"show,omitzero"`
}

// NFTShow are the options of nft(8) for listings.
type NFTShow struct {
	JSON            bool `json:"json,omitempty"`             // -j
	Handles         bool `json:"handles,omitempty"`          // -a
	Stateless       bool `json:"stateless,omitempty"`        // -s
	Terse           bool `json:"terse,omitempty"`            // -t
	Numeric         bool `json:"numeric,omitempty"`          // -n
	NumericPriority bool `json:"numeric_priority,omitempty"` // -y
	NumericProtocol bool `json:"numeric_protocol,omitempty"` // -p
	NumericTime     bool `json:"numeric_time,omitempty"`     // -T
	Services        bool `json:"services,omitempty"`         // -S
}

// NFTReply is what nft(8) would print.
type NFTReply struct {
	Output string `json:"output"`
}

// NFT changes or shows the ruleset of a namespace.
func (c *Client) NFT(ctx context.Context, r *NFTRequest) (*NFTReply, error) {
	return post[NFTReply](ctx, c, PathNFT, r)
}
