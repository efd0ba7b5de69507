// SPDX-License-Identifier: Apache-2.0

package api

// ApplyRequest declares the networks of the node: those that the text does not
// name are removed.
type ApplyRequest struct {
	// YAML is the text of the file, at most MaxRequest bytes with its escapes.
	YAML string `json:"yaml"`
	// DryRun asks for the changes without making them.
	DryRun bool `json:"dry_run,omitempty"`
}

// ApplyReply lists what was, or would be, changed. No change: an empty list.
type ApplyReply struct {
	Changes []Change `json:"changes"`
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
}

// String is the change in one line, as "add blue" or "change blue: mtu 1500 to 9000".
func (c Change) String() string {
	if c.Field == "" {
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
