// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"log/slog"
	"net/netip"
	"os"
	"time"

	"sluice/netstack"
)

// StartConfig says how to start a dataplane. The zero value starts one that
// nobody but its own agent can ever reach, and that ends with it.
type StartConfig struct {
	// Program is what runs; it hands the arguments that follow the word
	// "dataplane" to Main. The caller keeps it. nil means that each start copies
	// Exe, which takes some milliseconds more.
	Program *Program
	// Exe is the path for LoadProgram if there is no Program.
	Exe string
	// UID is the user and group of the process. 0 means DefaultUID. No other
	// process should have it: it could send signals to this one.
	UID uint32
	// Listen is the path of the control socket for later agents, at most 100
	// bytes, in a directory that only the agent may enter. It is made with mode
	// 0600 and replaces what is there at the moment the new process is ready.
	// Empty means none: the process ends when its agent closes or dies.
	Listen string
	// Counters is the counter file (trace.CreateCounters). The caller keeps it.
	// nil means counters in private memory, which die with the process.
	Counters *os.File
	// Connections is the file of connections (conntrack.CreateFile), which no other
	// process may work on. The caller keeps it. nil means private memory: connections
	// end with the process.
	Connections *os.File
	// Workers is the number of packet threads; 0 means one for each CPU.
	Workers int
	// FlowEntries is the size of each worker's flow cache; 0 is netstack's own.
	FlowEntries int
	// BusyPoll is how long at most an idle worker polls before it sleeps; 0 is
	// netstack's own, less than 0 not at all.
	BusyPoll time.Duration
	// Alone is how long a spare whose agent is gone waits for the next one (FindSpare); 0
	// is DefaultAlone.
	Alone time.Duration
	// Connects lets the process connect sockets that it is given (connect(2)). Whoever
	// gives it any sees to whom they can be connected to (package fence).
	Connects bool
	// LogLevel is the lowest level of the log events that the process sends.
	LogLevel slog.Level
	// Stderr takes what the Go runtime prints when it dies of a panic; logs
	// never go there. It is opened anew, to append. Use a file or a journal's socket,
	// not a pipe that the
	// agent reads: the process outlives its agent. A file grows to MaxBody at
	// most (RLIMIT_FSIZE). The caller keeps it. nil means the agent's own.
	Stderr *os.File
}

// FDBEntry is one station that a namespace's bridge knows.
type FDBEntry struct {
	MAC string `json:"mac"`
	// VLAN is the outer 802.1Q identifier, 0 for untagged.
	VLAN uint16 `json:"vlan,omitempty"`
	Port uint16 `json:"port"`
	// Kind is "own", "static" or "dynamic".
	Kind string `json:"kind"`
	// AgeSeconds is since the station was last heard; 0 unless dynamic.
	AgeSeconds int `json:"ageSeconds,omitempty"`
}

// Neighbour is one line of a host stack's ARP or ND table.
type Neighbour struct {
	Addr netip.Addr `json:"addr"`
	// MAC is empty while unresolved.
	MAC string `json:"mac,omitempty"`
	// State is the word of RFC 4861 §7.3.2 in lower case.
	State string `json:"state"`
}

// Group is one port in a multicast group or, if that is not valid, a port behind
// which a multicast router is.
type Group struct {
	Group netip.Addr `json:"group,omitzero"`
	VLAN  uint16     `json:"vlan,omitempty"`
	Port  uint16     `json:"port"`
	// LeftSeconds is how long it is a member yet, if it is not heard.
	LeftSeconds int `json:"leftSeconds,omitempty"`
}

// Route is where a packet would go now: with dead next hops passed over.
type Route struct {
	// Device is the index of the output device; 0 if it goes nowhere.
	Device  uint16     `json:"device,omitempty"`
	Gateway netip.Addr `json:"gateway,omitzero"` // whom to resolve
	Src     netip.Addr `json:"src,omitzero"`     // source of the namespace's own packets
	MTU     int        `json:"mtu,omitempty"`
	// Neighbour is the state of Gateway, Reason the drop reason that the packet would
	// be counted with; empty: none.
	Neighbour string `json:"neighbour,omitempty"`
	Reason    string `json:"reason,omitempty"`
}

// Socket is one endpoint of a host stack.
type Socket struct {
	// Proto is "tcp" or "udp".
	Proto string `json:"proto"`
	// State is the word of ss(8).
	State  string         `json:"state"`
	Local  netip.AddrPort `json:"local"`
	Remote netip.AddrPort `json:"remote,omitzero"`
	// RecvQ is the number of bytes that were received and not read yet.
	RecvQ int `json:"recvQ,omitempty"`
	// Port is the container's, if it is a connection by a socket uplink.
	Port uint16 `json:"port,omitempty"`
}

// Status tells how the process is.
type Status struct {
	PID        int       `json:"pid"`
	Protocol   int       `json:"protocol"`
	Build      string    `json:"build"`
	Started    time.Time `json:"started"`
	Generation uint64    `json:"generation"`
	// Workers is the number of packet threads, Namespaces and Ports are those
	// of the applied snapshot.
	Workers    int `json:"workers"`
	Namespaces int `json:"namespaces"`
	Ports      int `json:"ports"`
	// Goroutines is how many there are, of all kinds.
	Goroutines int `json:"goroutines,omitempty"`
	// WorkerStats is what each worker did.
	WorkerStats []netstack.WorkerStats `json:"workerStats"`
}

// EventKind says what an Event tells. The zero value is invalid.
type EventKind string

// The events.
const (
	// EventLog is a line of the dataplane's log.
	EventLog EventKind = "log"
	// EventPortDown says that a port's socket reports that its interface is
	// down or gone.
	EventPortDown EventKind = "port-down"
	// EventLearned says that a device was told something by its link: ask what.
	EventLearned EventKind = "learned"
	// EventRuleLog says that log statements of rulesets have spoken: ask what.
	EventRuleLog EventKind = "rule-log"
)

// Event is what the dataplane tells unasked. It comes from the sandbox: its
// strings are bounded in length, and otherwise not to be trusted.
type Event struct {
	Kind EventKind `json:"kind"`
	Time time.Time `json:"time"`
	// Level, Message and Attrs are the log line; Attrs are "key=value".
	Level   slog.Level `json:"level,omitempty"`
	Message string     `json:"message,omitempty"`
	Attrs   []string   `json:"attrs,omitempty"`
	// Port is the index of the port that went down.
	Port uint16 `json:"port,omitempty"`
	// Lost is the number of events dropped just before this one, because they
	// came too fast or nobody read them.
	Lost uint64 `json:"lost,omitempty"`
}

// stop is how the process ends. Versions before it had no body, and ignore it.
type stop struct {
	// DrainMS is how long packets that wait in queueing disciplines may leave before, at
	// most.
	DrainMS int64 `json:"drain_ms,omitempty"`
}
