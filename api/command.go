// SPDX-License-Identifier: Apache-2.0

package api

// MaxCommands bounds the commands of one request.
const MaxCommands = 200_000

// CommandRequest asks for changes in the words of ip(8) and bridge(8), as one
// transaction: all of them or none, each seeing those before it.
type CommandRequest struct {
	// Namespace is as -netns of ip(8). Empty: the only one there is; refused when
	// there are several.
	Namespace string    `json:"namespace,omitempty"`
	Commands  []Command `json:"commands"`
	// Force leaves out what fails, and tells; the rest is one transaction.
	Force bool `json:"force,omitempty"`
}

// Command is one line of a batch file, cut into words.
type Command struct {
	// Object is route, rule, neigh, vrf, link, addr, fdb, vlan, mdb, publish, dns, service,
	// qdisc, class, filter or tree.
	Object string `json:"object"`
	// Words are what follows it. A family option, -4 or -6, may lead them.
	Words []string `json:"words"`
}

// CommandReply is what became of the commands.
type CommandReply struct {
	// Done is how many were carried out.
	Done int `json:"done"`
	// Failed are those that Force left out, by index.
	Failed []CommandFault `json:"failed"`
}

// CommandFault is why a command failed.
type CommandFault struct {
	// Index of the command in the request, from 0.
	Index int `json:"index"`
	// Message is the line that ip(8) would print.
	Message string `json:"message"`
}
