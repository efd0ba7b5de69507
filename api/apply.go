// SPDX-License-Identifier: Apache-2.0

package api

import "strings"

// ApplyRequest declares the networks of the node: those that the text does not
// name are removed.
type ApplyRequest struct {
	// YAML is the text of the file, at most MaxRequest bytes with its escapes.
	YAML string `json:"yaml"`
	// Rulesets are the files that the text names as nftFile, by what stands there.
	Rulesets map[string]RulesetFile `json:"rulesets,omitempty"`
	// DryRun asks for the changes without making them.
	DryRun bool `json:"dry_run,omitempty"`
}

// RulesetFile is a file with a ruleset: the name by which errors tell places in it, and
// the files that it includes, by path.
type RulesetFile struct {
	File     string            `json:"file"`
	Text     string            `json:"text"`
	Included map[string]string `json:"included,omitempty"`
}

// ApplyReply lists what was, or would be, changed. No change: an empty list.
type ApplyReply struct {
	Changes []Change `json:"changes"`
}

// DeleteNetworkRequest removes a network that a CNI configuration has declared, and all
// that was declared with it.
type DeleteNetworkRequest struct {
	Name string `json:"name"`
}

// Change is one difference between what was declared before and what is now.
type Change struct {
	// Action is "add", "change" or "remove".
	Action  string `json:"action"`
	Network string `json:"network"`
	// Field, From and To tell what a "change" changes, in the words of the file.
	Field string `json:"field,omitempty"`
	From  string `json:"from,omitempty"`
	To    string `json:"to,omitempty"`
	// Object is what is added or removed if that is not a network: "namespace", or
	// "table", "rule", "route", "neighbour", "vrf", "link", "conntrack", "nat", "publish",
	// "service", "map" or "nat64" in one. Namespace is its namespace, Entry the line; after many of a kind, "and N
	// more".
	Object    string `json:"object,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Entry     string `json:"entry,omitempty"`
}

// String is the change in one line, as "add blue", "change blue: mtu 1500 to 9000"
// or "add route 10.0.0.0/8 via 10.1.0.1 dev blue in shop".
func (c Change) String() string {
	switch {
	case c.Object != "" && c.Entry == "":
		return c.Action + " " + c.Object + " " + c.Namespace
	case c.Object != "":
		return c.Action + " " + c.Object + " " + strings.NewReplacer("\n\t", " ", "\t", " ").Replace(c.Entry) + " in " + c.Namespace
	case c.Field == "":
		return c.Action + " " + c.Network
	}
	return c.Action + " " + c.Network + ": " + c.Field + " " + c.From + " to " + c.To
}

// ShutdownRequest asks the daemon to end.
type ShutdownRequest struct {
	// Dataplane stops the dataplane too: nothing is forwarded until the next
	// start. False leaves it forwarding, as SIGTERM does.
	Dataplane bool `json:"dataplane,omitempty"`
}
