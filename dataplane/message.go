// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/netip"

	"sluice/conntrack"
	"sluice/netstack"
)

// Protocol is the version of the bodies below. Two sides of different versions
// may only use hello, inventory, ping, stop, tie and free: these, and the header,
// keep their meaning for ever, so that any agent can take over from any other
// (Handover).
const Protocol = 3

const (
	// tieProtocol is the first version that knows tie and free.
	tieProtocol = 2
	// MaxBody bounds a message's body in bytes. A snapshot of 65534 ports with
	// two addresses each has 13 MB, one of 250,000 routes another 30 MB.
	MaxBody = 64 << 20
	// maxInline is the largest body that travels in the message itself; a larger
	// one travels in a memfd.
	maxInline = 64 << 10
	// maxFDs bounds the fds of one message, the body's memfd not counted: the
	// kernel's own bound is 253 (SCM_MAX_FD, unix(7)).
	maxFDs = 250
	// maxItems bounds the values in a JSON body: a body of MaxBody bytes could
	// otherwise ask for gigabytes when it is decoded ("{},{},{},…").
	maxItems = 1 << 20
)

// kind is the first word of a message. Zero is invalid.
type kind uint8

// The messages. Those of an agent are requests, and each is answered by one
// reply or refuse with its id. The others come from the dataplane.
const (
	kindHello     kind = iota + 1 // body hello; the reply's too
	kindBegin                     // the root directory is empty now: lock up and forward
	kindPorts                     // body ports; port sockets that the next apply refers to
	kindApply                     // body netstack.Snapshot
	kindQuery                     // body query; the reply's depends on it
	kindInventory                 // answered by kindPart with ports and a reply with inventory
	kindPing                      // the reply is empty
	kindStop                      // body stop, or none: the process ends after the reply

	kindReply  // what was asked for
	kindRefuse // body RefusedError
	kindPart   // body ports: more of an answer, followed by its reply
	kindEvent  // body Event, id 0
	kindLoaded // id 0: the program is loaded and needs no file any more
	kindFailed // body RefusedError, id 0: the process ends before it was ready

	// These two are an agent's again, younger than the others.

	kindTie  // the process ends when this connection ends
	kindFree // the process outlives this connection: others find it at its path

	// kindDialler has the fds of channels of package dial, by which the process and its
	// workers ask for sockets from now on.
	kindDialler
	kindRelay   // one fd: by which DNS queries leave, see relay.go
	kindStandBy // what can be prepared for a first apply is; see spare.go

	numKinds
)

// flagMemfd says that the body is in the first fd of the message.
const flagMemfd = 1

// message is one datagram of the control socket, or what is left of it after
// the transport was taken off. The fds belong to whoever holds the message.
type message struct {
	kind kind
	id   uint64
	body []byte
	fds  []int
}

// The header of a message, big endian, then the body if it is inline:
//
//	0        4      5       6      8       16       20
//	+--------+------+-------+------+--------+--------+------- - -
//	| "SLD1" | kind | flags | fds  |   id   | length | body …
//	+--------+------+-------+------+--------+--------+------- - -
//
// fds does not count the memfd of the body; length is the body's, wherever it is.
const (
	magic     = "SLD1"
	headerLen = 20
)

// header is the decoded header.
type header struct {
	kind  kind
	flags uint8
	fds   uint16
	id    uint64
	len   uint32
}

// rights is the number of fds that must come with the message.
func (h header) rights() int { return int(h.fds) + int(h.flags&flagMemfd) }

// bytes returns the header as it travels, with room for a body behind it.
func (h header) bytes() []byte {
	b := append(make([]byte, 0, headerLen+int(h.len)), magic...)
	b = append(b, byte(h.kind), h.flags)
	b = binary.BigEndian.AppendUint16(b, h.fds)
	b = binary.BigEndian.AppendUint64(b, h.id)
	return binary.BigEndian.AppendUint32(b, h.len)
}

// decodeHeader reads one datagram and returns its inline body, which aliases b.
// It is total: any bytes give a header within all bounds, or ErrProtocol.
func decodeHeader(b []byte) (h header, body []byte, err error) {
	if len(b) < headerLen || string(b[:4]) != magic {
		return header{}, nil, fmt.Errorf("%w: no message of ours", ErrProtocol)
	}
	h = header{
		kind:  kind(b[4]),
		flags: b[5],
		fds:   binary.BigEndian.Uint16(b[6:]),
		id:    binary.BigEndian.Uint64(b[8:]),
		len:   binary.BigEndian.Uint32(b[16:]),
	}
	body = b[headerLen:]
	switch {
	case h.kind == 0 || h.kind >= numKinds:
		err = fmt.Errorf("%w: unknown message %d", ErrProtocol, h.kind)
	case h.flags&^flagMemfd != 0:
		err = fmt.Errorf("%w: unknown flags %#x", ErrProtocol, h.flags)
	case h.fds > maxFDs:
		err = fmt.Errorf("%w: %d fds in one message", ErrProtocol, h.fds)
	case h.len > MaxBody:
		err = fmt.Errorf("%w: body of %d bytes", ErrProtocol, h.len)
	case h.flags&flagMemfd != 0 && len(body) != 0,
		h.flags&flagMemfd == 0 && uint64(len(body)) != uint64(h.len):
		err = fmt.Errorf("%w: length %d is not the body's", ErrProtocol, h.len)
	}
	if err != nil {
		return header{}, nil, err
	}
	return h, body, nil
}

// hello opens a connection in both directions.
type hello struct {
	Protocol int `json:"protocol"`
	// Build is the sender's BuildID.
	Build string `json:"build"`
	// Generation is that of the applied snapshot; 0 from an agent.
	Generation uint64 `json:"generation,omitempty"`
	// StandsBy says that the process is a spare (spare.go), and Settings how it was
	// started (options.settings).
	StandsBy bool   `json:"standsBy,omitempty"`
	Settings string `json:"settings,omitempty"`
}

// ports names the ports of the fds in the same message, in their order.
type ports struct {
	Ports []uint16 `json:"ports"`
	// First drops what was staged before: an apply that was given up.
	First bool `json:"first,omitempty"`
}

// The things that a query asks for.
const (
	queryFDB        = "fdb"
	queryNeighbours = "neighbours"
	querySockets    = "sockets"
	queryGroups     = "groups"
	queryRoute      = "route"
	// queryForget is no question: dynamic neighbours are forgotten.
	queryForget = "forget"
	queryStatus = "status"
	// queryLearned is what the device of Network was told; null if it asks nothing.
	queryLearned = "learned"
	// Of connections, which are the process's and not a namespace's.
	queryConnsDelete = "connections-delete"
	queryConnStats   = "connection-stats"
	queryConnEvents  = "connection-events"
	queryConnsDeaf   = "connection-events-end"
	queryBindings    = "nat-bindings"
	queryBackends    = "nat-backends"
	queryConnFile    = "connection-file" // answered with its fd
	// Of a namespace's DNS. queryFlushDNS is no question: answers are forgotten.
	queryDNS      = "dns"
	queryFlushDNS = "dns-flush"
	// Of the port From: the state of its queueing disciplines; Words is the direction.
	queryQueueing = "queueing"
	// Of the tree across ports with root From, likewise.
	queryTree = "tree"
	// Of a namespace's ruleset. queryRulesRestore is no question.
	queryRules        = "rules"
	queryRulesLive    = "rules-live"
	queryRulesSave    = "rules-save"
	queryRulesRestore = "rules-restore"
	queryRuleTraces   = "rule-traces"
	queryRulesExplain = "rules-explain"
	// These are of all namespaces.
	queryRuleLogs  = "rule-logs"
	queryRuleDrops = "rule-drops"
)

// query asks for one table of one namespace, or of one of its networks.
type query struct {
	What      string `json:"what"`
	Namespace string `json:"namespace,omitempty"`
	Network   string `json:"network,omitempty"`
	// Words are what follows `ip route get`, or a name.
	Words string `json:"words,omitempty"`
	// Addr is which neighbour to forget; not valid: all of Network.
	Addr netip.Addr `json:"addr,omitzero"`
	// Filter chooses connections, of those with one of the IDs.
	Filter *conntrack.Filter `json:"filter,omitempty"`
	IDs    []uint32          `json:"ids,omitempty"`
	// From is the number of a port.
	From uint32 `json:"from,omitempty"`
	// Rules asks for a part of a ruleset. Table and Key are which element of the set Words
	// is meant, Saved what is to be restored. Port is whose ruleset; 0: the namespace's.
	Rules  *netstack.RuleQuery `json:"rules,omitempty"`
	Table  uint64              `json:"table,omitempty"`
	Key    []byte              `json:"key,omitempty"`
	Saved  json.RawMessage     `json:"saved,omitempty"`
	Port   uint16              `json:"port,omitempty"`
	Tenure uint32              `json:"tenure,omitempty"`
	// Explain is a packet about which the ruleset is asked.
	Explain *netstack.RuleQuestion `json:"explain,omitempty"`
}

// inventory is the last message of the answer to kindInventory. Its fd, if
// Counters is set, is the counter file.
type inventory struct {
	Snapshot json.RawMessage `json:"snapshot,omitempty"`
	Counters bool            `json:"counters,omitempty"`
}

// encode returns v as a body. The types above cannot fail to encode.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("dataplane: body does not encode: " + err.Error())
	}
	return b
}

// decode reads a body into v. Fields that v lacks are ignored, since the other
// side may be newer.
func decode(body []byte, v any) error {
	if n := bytes.Count(body, []byte{','}); n > maxItems {
		return fmt.Errorf("%w: body of %d values", ErrProtocol, n)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return nil
}
